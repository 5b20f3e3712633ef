//! `cache`: up to four of them for a job.

use super::keyword::check;
use super::mistakes::Mistakes;
use super::values::SAVE_WHEN;
use super::yaml::{Map, Node, Value};
use super::{Cache, CacheKey, KeyFiles, read};

/// GitLab's bounds.
const MAX_CACHES: usize = 4;
const MAX_FALLBACK_KEYS: usize = 5;
const MAX_FILES: usize = 2;
const DEFAULT_KEY: &str = "default";
const POLICIES: [&str; 3] = ["pull-push", "pull", "push"];

/// An empty list or mapping is how a job drops what it would inherit.
pub(super) fn caches(node: &Node, mistakes: &mut Mistakes) -> Vec<Cache> {
    let items = read::one_or_more(node);
    if items.len() > MAX_CACHES {
        mistakes.add(node.at, format!("{} caches; a job has at most {MAX_CACHES}", items.len()));
    }
    items.iter().filter_map(|item| cache(item, mistakes)).collect()
}

fn cache(node: &Node, mistakes: &mut Mistakes) -> Option<Cache> {
    const KNOWN: &[&str] = &["fallback_keys", "key", "paths", "policy", "unprotect", "untracked", "when"];
    let map = read::map(node, "cache", mistakes)?;
    if map.0.is_empty() {
        return None;
    }
    check(map, "`cache`", KNOWN, &[], mistakes);
    let flag = |key: &str, mistakes: &mut Mistakes| {
        map.get(key).and_then(|node| read::flag(node, &format!("cache:{key}"), mistakes)) == Some(true)
    };
    Some(Cache {
        key: match map.get("key") {
            Some(node) => key(node, mistakes)?,
            None => CacheKey::Text(DEFAULT_KEY.to_owned()),
        },
        paths: map.get("paths").map(|node| read::texts(node, "cache:paths", mistakes)).unwrap_or_default(),
        untracked: flag("untracked", mistakes),
        unprotect: flag("unprotect", mistakes),
        policy: map.get("policy").and_then(|node| policy(node, mistakes)).unwrap_or_else(|| POLICIES[0].to_owned()),
        when: map
            .get("when")
            .and_then(|node| read::one_of(node, "cache:when", SAVE_WHEN, mistakes))
            .unwrap_or_default(),
        fallback_keys: map.get("fallback_keys").map(|node| fallback_keys(node, mistakes)).unwrap_or_default(),
    })
}

/// One of three words, or variables that the runner makes one of them.
fn policy(node: &Node, mistakes: &mut Mistakes) -> Option<String> {
    let text = read::text(node, "cache:policy", mistakes)?;
    if !text.starts_with('$') && !POLICIES.contains(&text.as_str()) {
        mistakes.add(node.at, format!("`cache:policy` does not know `{text}`; it is one of {}", POLICIES.join(", ")));
    }
    Some(text)
}

fn fallback_keys(node: &Node, mistakes: &mut Mistakes) -> Vec<String> {
    let keys = read::texts(node, "cache:fallback_keys", mistakes);
    if keys.len() > MAX_FALLBACK_KEYS {
        mistakes.add(node.at, format!("{} fallback keys; a cache has at most {MAX_FALLBACK_KEYS}", keys.len()));
    }
    keys
}

fn key(node: &Node, mistakes: &mut Mistakes) -> Option<CacheKey> {
    let Value::Map(map) = &node.value else {
        let text = read::scalar(node, "cache:key", mistakes)?;
        plain(&text, "cache:key", node, mistakes);
        return Some(CacheKey::Text(text));
    };
    check(map, "`cache:key`", &["files", "files_commits", "prefix"], &[], mistakes);
    let prefix = map.get("prefix").and_then(|node| {
        let text = read::text(node, "cache:key:prefix", mistakes)?;
        plain(&text, "cache:key:prefix", node, mistakes);
        Some(text)
    });
    match (files(map, "files", mistakes), files(map, "files_commits", mistakes)) {
        (Some(files), None) => Some(CacheKey::Files { by: KeyFiles::Content, files, prefix }),
        (None, Some(files)) => Some(CacheKey::Files { by: KeyFiles::Commits, files, prefix }),
        _ => {
            mistakes.add(node.at, "`cache:key` wants a string, `files` or `files_commits`");
            None
        }
    }
}

fn files(map: &Map, key: &str, mistakes: &mut Mistakes) -> Option<Vec<String>> {
    let node = map.get(key)?;
    let files = read::texts(node, &format!("cache:key:{key}"), mistakes);
    if files.is_empty() || files.len() > MAX_FILES {
        mistakes.add(node.at, format!("`cache:key:{key}` wants 1 or {MAX_FILES} files"));
    }
    if let Some(pattern) = files.iter().find(|file| file.contains('*')) {
        mistakes.add(node.at, format!("`{pattern}`: patterns are not supported in `cache:key:{key}`; name each file"));
    }
    Some(files)
}

/// What GitLab refuses; what variables put there later it does not see.
fn plain(text: &str, what: &str, node: &Node, mistakes: &mut Mistakes) {
    let decoded = text.replace("%2F", "/").replace("%2f", "/").replace("%2E", ".").replace("%2e", ".");
    if decoded.contains('/') || decoded == "." || decoded == ".." {
        mistakes.add(node.at, format!("`{what}` must not be `.` or `..` nor have a `/` in it"));
    }
}
