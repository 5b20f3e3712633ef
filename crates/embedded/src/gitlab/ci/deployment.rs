//! `environment` and `release`: where a job deploys to, and what it publishes at its end.

use serde_json::Value as Json;

use super::keyword::check;
use super::mistakes::Mistakes;
use super::yaml::{Node, Value};
use super::{Environment, Release, read};

const ACTIONS: &[(&str, &str)] =
    &[("access", "access"), ("prepare", "prepare"), ("start", "start"), ("stop", "stop"), ("verify", "verify")];
const TIERS: &[(&str, &str)] = &[
    ("development", "development"),
    ("other", "other"),
    ("production", "production"),
    ("staging", "staging"),
    ("testing", "testing"),
];

pub(super) fn environment(node: &Node, mistakes: &mut Mistakes) -> Option<Environment> {
    let Value::Map(map) = &node.value else {
        let name = read::text(node, "environment", mistakes)?;
        return Some(Environment { name, url: None, action: "start", tier: None });
    };
    // The server has no environments that could be stopped, so what says when has nothing to act on.
    const KNOWN: &[&str] = &["action", "auto_stop_in", "deployment_tier", "name", "on_stop", "url"];
    check(map, "`environment`", KNOWN, &["kubernetes"], mistakes);
    for key in ["auto_stop_in", "on_stop"] {
        map.get(key).and_then(|node| read::text(node, &format!("environment:{key}"), mistakes));
    }
    let word = |key: &str, words, mistakes: &mut Mistakes| {
        map.get(key).and_then(|node| read::one_of(node, &format!("environment:{key}"), words, mistakes))
    };
    Some(Environment {
        name: super::values::name_of(map, node.at, "environment", mistakes)?,
        url: map.get("url").and_then(|node| read::text(node, "environment:url", mistakes)),
        action: word("action", ACTIONS, mistakes).unwrap_or("start"),
        tier: word("deployment_tier", TIERS, mistakes),
    })
}

pub(super) fn release(node: &Node, mistakes: &mut Mistakes) -> Option<Release> {
    const KNOWN: &[&str] =
        &["assets", "description", "milestones", "name", "ref", "released_at", "tag_message", "tag_name"];
    let map = read::map(node, "release", mistakes)?;
    check(map, "`release`", KNOWN, &[], mistakes);
    let text = |key: &str, mistakes: &mut Mistakes| {
        map.get(key).and_then(|node| read::text(node, &format!("release:{key}"), mistakes))
    };
    for key in ["tag_name", "description"] {
        if map.get(key).is_none() {
            mistakes.add(node.at, format!("`release` does not have its `{key}`"));
        }
    }
    Some(Release {
        tag_name: text("tag_name", mistakes).unwrap_or_default(),
        description: text("description", mistakes).unwrap_or_default(),
        name: text("name", mistakes),
        tag_message: text("tag_message", mistakes),
        git_ref: text("ref", mistakes),
        released_at: text("released_at", mistakes),
        milestones: map
            .get("milestones")
            .map(|node| read::text_or_texts(node, "release:milestones", mistakes))
            .unwrap_or_default(),
        links: map.get("assets").map(|node| links(node, mistakes)).unwrap_or_default(),
    })
}

/// The `links` of `release:assets`, each as it is written.
fn links(node: &Node, mistakes: &mut Mistakes) -> Vec<Json> {
    let Some(map) = read::map(node, "release:assets", mistakes) else { return Vec::new() };
    check(map, "`release:assets`", &["links"], &[], mistakes);
    let Some(links) = map.get("links") else { return Vec::new() };
    for link in read::one_or_more(links) {
        if let Some(link) = read::map(link, "release:assets:links", mistakes) {
            check(link, "a link", &["filepath", "link_type", "name", "url"], &[], mistakes);
        }
    }
    read::one_or_more(links).iter().map(read::json).collect()
}
