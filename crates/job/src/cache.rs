//! Which caches a job has, what they are called and where they lie (protocol 3.10 and 6).
//!
//! Manager and agent must agree: the manager signs an address for each object that a job may touch, and the agent finds
//! it by the same name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::ShortToken;
use crate::payload::{Cache, Payload};
use crate::variables::Variables;

/// What a fallback key of a job must not end in: it would read what only protected branches may write.
const PROTECTED: &str = "-protected";

/// A cache by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// For messages, and kept beside the archive.
    pub human: String,
    pub place: Place,
    /// The same cache under the naming that `FF_HASH_CACHE_KEYS` does not choose: what was saved before the flag
    /// changed is still found.
    pub other: Place,
}

/// Where a cache lies: a name below the project's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    name: String,
    /// S3 spreads its load by prefix; hashed names get one of 256.
    sharded: bool,
}

/// What a key of the payload became, and what the job's author is told about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    pub key: Result<Key, NoKey>,
    pub warnings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum NoKey {
    /// Nothing is left of it.
    Empty,
    /// The warning says why.
    NotAllowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    PullPush,
    Pull,
    Push,
}

/// What a job may do with one object of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    pub read: bool,
    /// The human key of the cache that may be saved here.
    pub save: Option<String>,
}

/// Where in the store a runner keeps the caches of a project (protocol 6.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder(String);

impl Cache {
    /// A cache of nothing is no cache.
    pub fn is_used(&self) -> bool {
        self.untracked || !self.paths.is_empty()
    }

    /// The error says what the policy is.
    pub fn policy(&self, variables: &Variables) -> Result<Policy, String> {
        match variables.expand(&self.policy).as_str() {
            "" | "pull-push" => Ok(Policy::PullPush),
            "pull" => Ok(Policy::Pull),
            "push" => Ok(Policy::Push),
            other => Err(format!("unknown cache policy {other}")),
        }
    }

    /// The key that it is saved under, and looked for first.
    pub fn own_key(&self, payload: &Payload, variables: &Variables) -> Named {
        if self.key.is_empty() {
            let path = join(["/", &payload.job_info.name, &payload.git_info.reference]);
            return Named::of(&path[1..], variables);
        }
        Named::of(&variables.expand(&self.key), variables)
    }

    /// The keys that it is looked for next, in their order.
    pub fn fallback_keys(&self, variables: &Variables) -> Vec<Named> {
        let given = self.fallback_keys.iter().map(|key| variables.expand(key)).filter(|key| !key.is_empty());
        // Expanded once more, as GitLab's runner does.
        let mut named: Vec<_> = given.map(|key| Named::of(&variables.expand(&key), variables)).collect();
        if let Some(key) = variables.get("CACHE_FALLBACK_KEY").filter(|key| !key.is_empty()) {
            named.push(Named::of(&variables.expand(&key), variables).unless_protected());
        }
        named
    }
}

impl Named {
    fn of(raw: &str, variables: &Variables) -> Self {
        let hashed = variables.flag("FF_HASH_CACHE_KEYS");
        let human = if hashed { raw.to_owned() } else { sanitize(raw) };
        let warnings = match human.as_str() {
            "" if !raw.is_empty() => vec![format!("cache key {raw:?} could not be sanitized")],
            human if human != raw => vec![format!("cache key {raw:?} sanitized to {human:?}")],
            _ => Vec::new(),
        };
        let key = if human.is_empty() { Err(NoKey::Empty) } else { Ok(Key::new(human, hashed)) };
        Self { key, warnings }
    }

    fn unless_protected(mut self) -> Self {
        if let Ok(key) = &self.key
            && key.is_protected()
        {
            self.warnings.push(format!("CACHE_FALLBACK_KEY {:?} not allowed to end in {PROTECTED:?}", key.human));
            self.key = Err(NoKey::NotAllowed);
        }
        self
    }
}

impl Key {
    fn new(human: String, hashed: bool) -> Self {
        let sum = Sha256::digest(&human).iter().map(|byte| format!("{byte:02x}")).collect();
        let by_sum = Place { name: sum, sharded: true };
        let by_name = Place { name: human.clone(), sharded: false };
        let (place, other) = if hashed { (by_sum, by_name) } else { (by_name, by_sum) };
        Self { human, place, other }
    }

    /// A hashed key is not sanitized, but its other name is cleaned on its way to an object: what counts is where it ends.
    fn is_protected(&self) -> bool {
        let names = [Some(self.human.clone()), self.place.object(), self.other.object()];
        let ends = |name: String| sanitize(&name).trim_end_matches(['.', ' ', '/']).ends_with(PROTECTED);
        names.into_iter().flatten().any(ends)
    }
}

impl Place {
    /// The name of the object below the project's folder; none for a name that would leave it.
    pub fn object(&self) -> Option<String> {
        let shard = if self.sharded { self.name.get(..2)? } else { "" };
        inside(join([shard, self.name.as_str()]))
    }

    /// The archive on disk; none for a name that would leave the directory.
    pub fn archive(&self, caches: &Path) -> Option<PathBuf> {
        Some(caches.join(inside(join([self.name.as_str()]))?).join("cache.zip"))
    }
}

impl Folder {
    /// `path` is the `Path` of `[runners.cache]`, and no `runner` its `Shared`.
    pub fn new(path: &str, runner: Option<&ShortToken>, project_id: u64) -> Self {
        let project = project_id.to_string();
        let of_runner = runner.map(|token| join(["runner", token.as_str()])).unwrap_or_default();
        Self(join([path, &of_runner, "project", &project]))
    }

    /// The whole name of an object.
    pub fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Every object that the caches of a job may touch, by its name below the project's folder. Whether a cache will be saved
/// is not known before the job's end, so `when` counts for nothing here.
pub fn objects(payload: &Payload, variables: &Variables) -> BTreeMap<String, Access> {
    let mut objects = BTreeMap::<String, Access>::new();
    for cache in payload.cache.iter().filter(|cache| cache.is_used()) {
        let (Ok(own), Ok(policy)) = (cache.own_key(payload, variables).key, cache.policy(variables)) else { continue };
        if policy != Policy::Push {
            let fallback = cache.fallback_keys(variables).into_iter().filter_map(|named| named.key.ok());
            for place in [own.clone()].into_iter().chain(fallback).flat_map(|key| [key.place, key.other]) {
                if let Some(object) = place.object() {
                    objects.entry(object).or_default().read = true;
                }
            }
        }
        if policy != Policy::Pull
            && let Some(object) = own.place.object()
        {
            objects.entry(object).or_default().save = Some(own.human);
        }
    }
    objects
}

/// A key as a path that cannot leave its root; empty if nothing is left of it (protocol 6.1).
fn sanitize(key: &str) -> String {
    let decoded = decode(key);
    let mut parts: Vec<&str> = Vec::new();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    // White space at the end goes, and with it parts of which nothing is left that is a name.
    while let Some(last) = parts.pop() {
        let trimmed = last.trim_end();
        if !matches!(trimmed, "" | "." | "..") {
            parts.push(trimmed);
            break;
        }
    }
    parts.join("/")
}

/// One pass: what a replacement makes is not looked at again.
fn decode(key: &str) -> String {
    let mut decoded = String::with_capacity(key.len());
    let mut rest = key;
    while let Some(first) = rest.chars().next() {
        let code = rest.get(..3).map(str::to_ascii_lowercase);
        let (replacement, length) = match (first, code.as_deref()) {
            ('\\', _) => ('/', 1),
            (_, Some("%2f")) => ('/', 3),
            (_, Some("%2e")) => ('.', 3),
            _ => (first, first.len_utf8()),
        };
        decoded.push(replacement);
        rest = &rest[length..];
    }
    decoded
}

/// Joins and cleans as Go's `path.Join` does, which GitLab's runner makes these names with.
fn join<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let joined = parts.join("/");
    let root = if joined.starts_with('/') { "/" } else { "" };
    let mut clean: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." if clean.last().is_some_and(|last| *last != "..") => drop(clean.pop()),
            ".." if !root.is_empty() => {}
            part => clean.push(part),
        }
    }
    format!("{root}{}", clean.join("/"))
}

fn inside(path: String) -> Option<String> {
    // A key that begins with a slash is below the folder all the same.
    let path = path.trim_start_matches('/');
    (!path.is_empty() && path != ".." && !path.starts_with("../")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::hand_over::GitLabAccess;
    use crate::payload::Received;
    use crate::variables::tests::runner;

    fn job(cache: serde_json::Value, variables: &[(&str, &str)]) -> (Payload, Variables) {
        let variables: Vec<_> = variables.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let body = json!({
            "id": 1, "job_info": {"name": "unit test", "project_id": 7}, "git_info": {"ref": "feature/x"},
            "cache": [cache], "variables": variables,
        });
        let payload = Received::parse(body.to_string().as_bytes()).expect("a payload").payload;
        let gitlab = GitLabAccess {
            url: "https://gitlab.example.com".into(),
            tls_ca: None,
            tls_client: None,
            correlation_id: None,
        };
        let variables = Variables::resolve(&payload, &runner(), &gitlab, &[]);
        (payload, variables)
    }

    fn own(cache: serde_json::Value, variables: &[(&str, &str)]) -> Named {
        let (payload, variables) = job(cache, variables);
        payload.cache[0].own_key(&payload, &variables)
    }

    #[test]
    fn keys_are_sanitized_as_gitlabs_runner_does() {
        for (raw, sane) in [
            ("fallback_key", "fallback_key"),
            (".../....", ".../...."),
            ("key/", "key"),
            ("key\\", "key"),
            ("key/ / \\  \\", "key"),
            ("key / \\o", "key / /o"),
            ("\t foo bar \t\r", "\t foo bar"),
            ("foo/ /bar", "foo/ /bar"),
            ("foo/ / /", "foo"),
            ("a %2F b", "a / b"),
            ("some%2f../job/ref/.", "job/ref"),
            ("%2E%2e%2E", "..."),
            ("%252e", "%252e"),
            ("%5C", "%5C"),
            ("foo/bar/../../../.././blerp", "blerp"),
            ("..\\foo\\bar", "foo/bar"),
            ("//foo/bar", "foo/bar"),
            ("ключ%2Fé", "ключ/é"),
        ] {
            assert_eq!(sanitize(raw), sane, "{raw:?}");
        }
        for raw in ["", "\\", "\\.", "/", " ", ".", "..", " / ", "foo/bar/../..", " \t\r\n", "%2E%2E", "%2e."] {
            assert_eq!(sanitize(raw), "", "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn a_sanitized_key_stays_below_its_root_and_is_sane_already(raw in r"([a-c. \t/\\é]|%2[eEfF]){0,24}") {
            let key = sanitize(&raw);
            prop_assert!(key.split('/').all(|part| part != "." && part != ".." && (!part.is_empty() || key.is_empty())));
            prop_assert!(!key.contains('\\') && key.trim_end() == key);
            prop_assert_eq!(sanitize(&key), key);
        }

        #[test]
        fn no_name_leaves_its_folder(raw in r"([a-c. /\\]|%2[eEfF]){0,24}", hashed: bool) {
            let key = Key::new(raw, hashed);
            for place in [key.place, key.other] {
                for name in [place.object(), place.archive(Path::new("")).map(|path| path.display().to_string())] {
                    prop_assert!(name.is_none_or(|name| !name.starts_with('/') && !name.split('/').any(|part| part == "..")));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_name_of_the_variable_is_that_of_a_protected_object(raw in r"(-protected|main|[. /\\]|%2[eEfF]){0,12}", hashed: bool) {
            let hashed = if hashed { "1" } else { "0" };
            let flags = [("CACHE_FALLBACK_KEY", raw.as_str()), ("FF_HASH_CACHE_KEYS", hashed)];
            let (payload, variables) = job(json!({"key": "own"}), &flags);
            let keys = payload.cache[0].fallback_keys(&variables).into_iter().filter_map(|named| named.key.ok());
            for object in keys.flat_map(|key| [key.place.object(), key.other.object()]).flatten() {
                prop_assert!(!object.ends_with(PROTECTED), "{}", object);
            }
        }
    }

    #[test]
    fn a_cache_without_a_key_is_called_by_job_and_ref() {
        let named = own(json!({"paths": ["x"]}), &[]);
        assert_eq!((named.key.map(|key| key.human), named.warnings), (Ok("unit test/feature/x".into()), vec![]));
    }

    #[test]
    fn a_changed_key_is_told_and_an_empty_one_is_no_key() {
        let named = own(json!({"key": "a\\$B"}), &[("B", "b ")]);
        assert_eq!(named.warnings, [r#"cache key "a\\b " sanitized to "a/b""#]);
        assert_eq!(named.key.map(|key| key.human), Ok("a/b".into()));
        let named = own(json!({"key": " / "}), &[]);
        assert_eq!(
            named,
            Named { key: Err(NoKey::Empty), warnings: vec![r#"cache key " / " could not be sanitized"#.into()] }
        );
        assert_eq!(own(json!({"key": "$NONE"}), &[]), Named { key: Err(NoKey::Empty), warnings: vec![] });
    }

    #[test]
    fn hashed_keys_are_taken_as_they_are_and_each_naming_finds_what_the_other_saved() {
        const SUM: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        let hashed = own(json!({"key": "a"}), &[("FF_HASH_CACHE_KEYS", "1")]).key.expect("a key");
        let plain = own(json!({"key": "a"}), &[]).key.expect("a key");
        assert_eq!(hashed.place.object(), Some(format!("ca/{SUM}")));
        assert_eq!(plain.place.object().as_deref(), Some("a"));
        assert_eq!((&hashed.place, &hashed.other), (&plain.other, &plain.place));
        let caches = Path::new("/cache/group/project");
        assert_eq!(hashed.place.archive(caches), Some(caches.join(SUM).join("cache.zip")));
        let raw = own(json!({"key": "../b "}), &[("FF_HASH_CACHE_KEYS", "1")]);
        assert_eq!((raw.key.expect("a key").other.object(), raw.warnings), (None, vec![]));
    }

    #[test]
    fn fallback_keys_come_in_their_order_and_that_of_the_variable_last() {
        let (payload, variables) = job(
            json!({"key": "own", "fallback_keys": ["$A", "", "b/../c"]}),
            &[("A", "first"), ("CACHE_FALLBACK_KEY", "$A-last")],
        );
        let named = payload.cache[0].fallback_keys(&variables);
        let humans: Vec<_> = named.iter().map(|named| named.key.as_ref().expect("a key").human.as_str()).collect();
        assert_eq!(humans, ["first", "c", "first-last"]);
    }

    #[test]
    fn the_variable_cannot_reach_a_protected_cache() {
        for (value, hashed) in [
            ("main-protected", "0"),
            ("main-protected. .", "0"),
            ("x/../main-protected/", "0"),
            ("main-protected", "1"),
            ("main-protected/", "1"),
            ("main-protected/.", "1"),
            ("main-protected/. .", "1"),
            ("main-protected/x/..", "1"),
            ("main-protected/%2e%2e/..", "1"),
            ("x/..//main-protected", "1"),
            ("main-protected\\", "1"),
        ] {
            let flags = [("CACHE_FALLBACK_KEY", value), ("FF_HASH_CACHE_KEYS", hashed)];
            let (payload, variables) = job(json!({"key": "own"}), &flags);
            let named = payload.cache[0].fallback_keys(&variables).pop().expect("a fallback key");
            assert_eq!(named.key, Err(NoKey::NotAllowed), "{value}");
            assert!(named.warnings.last().expect("a warning").contains("not allowed to end in \"-protected\""));
        }
        let (payload, variables) = job(json!({"fallback_keys": ["main-protected"]}), &[]);
        assert!(payload.cache[0].fallback_keys(&variables)[0].key.is_ok(), "GitLab itself sends those of the payload");
    }

    #[test]
    fn a_policy_may_be_a_variable_and_an_unknown_one_is_an_error() {
        let policy = |policy: &str| {
            let (payload, variables) = job(json!({"policy": policy}), &[("P", "pull")]);
            payload.cache[0].policy(&variables)
        };
        assert_eq!(
            (policy(""), policy("pull-push"), policy("$P"), policy("push")),
            (Ok(Policy::PullPush), Ok(Policy::PullPush), Ok(Policy::Pull), Ok(Policy::Push))
        );
        assert_eq!(policy("Pull"), Err("unknown cache policy Pull".into()));
    }

    #[test]
    fn objects_lie_where_gitlabs_runner_puts_them() {
        let token = ShortToken::of("glrt-t1_abcdefghijkl");
        let object = |path, runner| Folder::new(path, runner, 7).object("key");
        assert_eq!(object("", Some(&token)), format!("runner/{}/project/7/key", token.as_str()));
        assert_eq!(object("a/b/", None), "a/b/project/7/key");
    }

    #[test]
    fn a_job_may_touch_what_its_policies_say_and_nothing_else() {
        let touched = |policy: &str| {
            let cache = json!({"key": "own", "paths": ["x"], "policy": policy, "fallback_keys": ["main"]});
            let (payload, variables) = job(cache, &[]);
            objects(&payload, &variables)
        };
        let pulled = touched("pull");
        assert_eq!(pulled.len(), 4);
        assert!(pulled.values().all(|access| *access == Access { read: true, save: None }));
        let pushed = touched("push");
        let save = Access { read: false, save: Some("own".into()) };
        assert_eq!(pushed, BTreeMap::from([("own".to_owned(), save)]));
        let both = touched("");
        assert_eq!(both.len(), 4);
        assert_eq!(both["own"], Access { read: true, save: Some("own".into()) });
        assert!(touched("unknown").is_empty());
        let (payload, variables) = job(json!({"key": "nothing"}), &[]);
        assert!(objects(&payload, &variables).is_empty());
    }
}
