//! What references to variables become, in variables and in other texts (protocol 8.3).
//!
//! A job's author writes them and the manager follows them. A thousand references to a long value fit into a few
//! kilobytes, so what they may become is bounded.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::payload::Variable;

/// Bytes that the references in all variables of a job may become. No program can be started with so many.
const MOST_IN_VARIABLES: usize = 8 << 20;
/// The same for one text that is no variable. Linux gives no program a longer argument.
const MOST_IN_TEXT: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
#[error("the variables refer to each other too much: the references would become more than {} MiB", MOST_IN_VARIABLES >> 20)]
pub(crate) struct TooLong;

/// One pass: a reference becomes the other variable's *unexpanded* value, or the path of a file variable. Where that
/// would become too long, all stay as they are.
pub(crate) fn expand_variables(list: &mut [Variable], path: impl Fn(&str) -> String) -> Result<(), TooLong> {
    // The last of a name wins, so it may simply overwrite the earlier ones.
    let by_name: BTreeMap<&str, &Variable> = list.iter().map(|variable| (variable.key.as_str(), variable)).collect();
    let lookup = |name: &str| match by_name.get(name) {
        Some(variable) if variable.file => Cow::from(path(name)),
        Some(variable) => Cow::from(&variable.value),
        None => Cow::default(),
    };
    let mut room = MOST_IN_VARIABLES;
    // Most refer to nothing.
    let referring = list.iter().enumerate().filter(|(_, variable)| !variable.raw && variable.value.contains('$'));
    let expanded = referring.map(|(index, variable)| Ok((index, expand(&variable.value, &mut room, lookup)?)));
    for (index, value) in expanded.collect::<Result<Vec<_>, _>>()? {
        list[index].value = value;
    }
    Ok(())
}

/// A text that would become too long stays as it is.
pub(crate) fn expand_text<'a>(text: &str, lookup: impl Fn(&str) -> Cow<'a, str>) -> String {
    expand(text, &mut MOST_IN_TEXT.clone(), lookup).unwrap_or_else(|TooLong| text.to_owned())
}

/// `$NAME` and `${NAME}`; `$$` is a dollar, the shell's special names are empty, a `$` before anything
/// else stays. There is no `${NAME:-default}`: such a name is simply not defined.
fn expand<'a>(text: &str, room: &mut usize, lookup: impl Fn(&str) -> Cow<'a, str>) -> Result<String, TooLong> {
    let mut value_of = |name: &str| {
        let value = if name == "$" { "$".into() } else { lookup(name) };
        *room = room.checked_sub(value.len()).ok_or(TooLong)?;
        Ok(value)
    };
    // Bytes behind the last end of a name: a text of openings alone is not read to its end for each of them.
    let behind = text.rfind('}').map_or(text.len(), |at| text.len() - at - 1);
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let plain = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        rest = if let Some(braced) = after.strip_prefix('{') {
            let closed = if braced.len() > behind { braced.split_once('}') } else { None };
            match closed {
                Some((name, rest)) => {
                    expanded.push_str(&value_of(name)?);
                    rest
                }
                // Never closed: the opening is dropped, as in GitLab's runner.
                None => braced,
            }
        } else if let Some(special) = after.chars().next().filter(|c| is_special(*c)) {
            expanded.push_str(&value_of(&after[..special.len_utf8()])?);
            &after[special.len_utf8()..]
        } else if plain > 0 {
            expanded.push_str(&value_of(&after[..plain])?);
            &after[plain..]
        } else {
            expanded.push('$');
            after
        };
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '#' | '$' | '@' | '!' | '?' | '-' | '0'..='9')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_reads_dollars_as_gitlabs_runner_does() {
        let lookup = |name: &str| Cow::from(if name == "A" { "a" } else { "" });
        for (text, expanded) in [
            ("$A", "a"),
            ("${A}b", "ab"),
            ("$Ab", ""),
            ("$A-$A", "a-a"),
            ("$$A", "$A"),
            ("100%$", "100%$"),
            ("$ A", "$ A"),
            ("$1$#$?x", "x"),
            ("${A:-default}", ""),
            ("${A", "A"),
            ("${A}${A", "aA"),
            ("${}", ""),
            ("é$Aé", "éaé"),
            ("$é", "$é"),
        ] {
            assert_eq!(expand_text(text, lookup), expanded, "{text}");
        }
    }

    #[test]
    fn all_variables_of_a_job_share_what_they_may_become() {
        let variable = |key: &str, value: String| Variable { key: key.into(), value, ..Variable::default() };
        let expanded = |many: usize| {
            let referring = (0..many).map(|number| variable(&format!("B{number}"), "$A".repeat(1024)));
            let mut list: Vec<_> = [variable("A", "x".repeat(1024))].into_iter().chain(referring).collect();
            expand_variables(&mut list, str::to_owned).map(|()| list)
        };
        assert_eq!(expanded(8).expect("8 MiB")[8].value.len(), 1 << 20);
        assert!(expanded(9).is_err());
        // What is long by itself is not the references' doing.
        let long = variable("LONG", "x".repeat(MOST_IN_VARIABLES + 1));
        assert!(expand_variables(&mut [long], str::to_owned).is_ok());
    }

    #[test]
    fn a_text_that_would_become_too_long_stays_as_it_is() {
        let lookup = |_: &str| Cow::from("x".repeat(1024));
        assert_eq!(expand_text(&"$A".repeat(128), lookup).len(), MOST_IN_TEXT);
        let text = "$A".repeat(129);
        assert_eq!(expand_text(&text, lookup), text);
    }
}
