//! Which references of the server are wanted, and their names here.

use std::collections::BTreeMap;

use super::GitError;

/// `+refs/heads/*:refs/remotes/origin/*`, `+refs/pipelines/7:refs/pipelines/7` or `+<sha>:refs/pipelines/7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refspec<'a> {
    source: &'a str,
    target: &'a str,
}

impl<'a> Refspec<'a> {
    /// `None`: it fetches into no reference.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (source, target) = text.strip_prefix('+').unwrap_or(text).split_once(':')?;
        (!source.is_empty() && !target.is_empty()).then_some(Self { source, target })
    }

    fn object(&self) -> Option<&'a str> {
        let is_id = matches!(self.source.len(), 40 | 64) && self.source.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(self.source)
    }

    /// What the server has to list for it.
    pub fn prefix(&self) -> Option<&'a str> {
        if self.object().is_some() { None } else { self.source.split('*').next() }
    }

    /// The name here of a reference there.
    fn name_of(&self, reference: &str) -> Option<String> {
        match self.source.split_once('*') {
            None => (reference == self.source).then(|| self.target.to_owned()),
            Some((before, after)) => {
                let middle = reference.strip_prefix(before)?.strip_suffix(after)?;
                Some(self.target.replacen('*', middle, 1))
            }
        }
    }
}

/// From the server's list (name and object) the references that are to exist here. One that is named whole must be there.
pub fn select(refspecs: &[Refspec<'_>], listed: &[(String, String)]) -> Result<BTreeMap<String, String>, GitError> {
    let mut selected = BTreeMap::new();
    for refspec in refspecs {
        if let Some(object) = refspec.object() {
            selected.insert(refspec.target.to_owned(), object.to_owned());
            continue;
        }
        let matching = listed.iter().filter_map(|(name, object)| Some((refspec.name_of(name)?, object.clone())));
        let matching: Vec<_> = matching.filter(|(name, _)| is_name(name)).collect();
        if matching.is_empty() && !refspec.source.contains('*') {
            return Err(GitError::NoSuchReference(refspec.source.to_owned()));
        }
        selected.extend(matching);
    }
    Ok(selected)
}

/// The rules of git-check-ref-format that matter for a file of references: it has one in each line.
fn is_name(name: &str) -> bool {
    let forbidden = |byte: u8| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte);
    name.starts_with("refs/") && !name.bytes().any(forbidden) && !name.contains("..") && !name.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "1234567890123456789012345678901234567890";

    fn selected(refspecs: &[&str], names: &[&str]) -> Result<Vec<String>, String> {
        let refspecs: Vec<_> = refspecs.iter().filter_map(|text| Refspec::parse(text)).collect();
        let listed: Vec<_> = names.iter().map(|name| ((*name).to_owned(), SHA.to_owned())).collect();
        let selected = select(&refspecs, &listed).map_err(|error| error.to_string())?;
        Ok(selected.into_keys().collect())
    }

    #[test]
    fn references_get_the_names_that_the_refspecs_give_them() {
        let refspecs = ["+refs/pipelines/7:refs/pipelines/7", "+refs/heads/*:refs/remotes/origin/*"];
        let there = ["refs/heads/main", "refs/heads/a/b", "refs/pipelines/7", "refs/tags/v1"];
        let here = ["refs/pipelines/7", "refs/remotes/origin/a/b", "refs/remotes/origin/main"];
        assert_eq!(selected(&refspecs, &there).expect("references"), here);
        let prefixes = refspecs.map(|text| Refspec::parse(text).and_then(|refspec| refspec.prefix()));
        assert_eq!(prefixes, [Some("refs/pipelines/7"), Some("refs/heads/")]);
    }

    #[test]
    fn a_commit_needs_no_list() {
        let text = format!("+{SHA}:refs/pipelines/7");
        assert_eq!(Refspec::parse(&text).expect("a refspec").prefix(), None);
        assert_eq!(selected(&[&text], &[]).expect("a reference"), ["refs/pipelines/7"]);
    }

    #[test]
    fn only_a_pattern_may_match_nothing() {
        assert_eq!(selected(&["+refs/tags/*:refs/tags/*"], &["refs/heads/main"]).expect("none"), [""; 0]);
        assert_eq!(
            selected(&["+refs/heads/x:refs/remotes/origin/x"], &["refs/heads/xy"]),
            Err("couldn't find remote ref refs/heads/x".into())
        );
    }

    #[test]
    fn names_that_are_none_are_left_out() {
        let there = ["refs/heads/ok", "refs/heads/a b", "refs/heads/a\nb", "refs/heads/a/../b", "refs/heads/x/"];
        assert_eq!(
            selected(&["+refs/heads/*:refs/remotes/origin/*"], &there).expect("one"),
            ["refs/remotes/origin/ok"]
        );
        assert_eq!(selected(&["+refs/heads/*:HEAD"], &["refs/heads/ok"]).expect("none"), [""; 0]);
    }
}
