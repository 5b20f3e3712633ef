//! `id_tokens` and `secrets`: what a job asks of a secrets' provider, and how it shows who it is there.

use serde_json::json;

use super::keyword::check;
use super::mistakes::{At, Mistakes};
use super::yaml::{Entry, Map, Node, Value};
use super::{IdToken, Secret, read};

/// The engine of a Vault that `vault: path/field` means.
const DEFAULT_ENGINE: &str = "kv-v2";

/// Reads what is asked of a provider.
type ReadProvider = fn(&Node, &mut Mistakes) -> serde_json::Value;

pub(super) fn id_tokens(node: &Node, mistakes: &mut Mistakes) -> Vec<IdToken> {
    let Some(map) = read::map(node, "id_tokens", mistakes) else { return Vec::new() };
    map.0.iter().filter_map(|entry| id_token(entry, mistakes)).collect()
}

fn id_token(entry: &Entry, mistakes: &mut Mistakes) -> Option<IdToken> {
    let map = read::map(&entry.value, "id_tokens", mistakes)?;
    check(map, "an ID token", &["aud"], &[], mistakes);
    let audiences = map.get("aud").map(|node| read::text_or_texts(node, "aud", mistakes)).unwrap_or_default();
    if audiences.is_empty() {
        mistakes.add(entry.at, format!("the ID token `{}` has no `aud`", entry.key));
    }
    Some(IdToken { name: entry.key.clone(), audiences })
}

pub(super) fn secrets(node: &Node, mistakes: &mut Mistakes) -> Vec<Secret> {
    let Some(map) = read::map(node, "secrets", mistakes) else { return Vec::new() };
    map.0.iter().filter_map(|entry| secret(entry, mistakes)).collect()
}

fn secret(entry: &Entry, mistakes: &mut Mistakes) -> Option<Secret> {
    const PROVIDERS: [(&str, ReadProvider); 5] = [
        ("aws_secrets_manager", aws),
        ("azure_key_vault", |node, mistakes| fields(node, "azure_key_vault", &["name", "version"], mistakes)),
        ("gcp_secret_manager", |node, mistakes| fields(node, "gcp_secret_manager", &["name", "version"], mistakes)),
        ("gitlab_secrets_manager", |node, mistakes| fields(node, "gitlab_secrets_manager", &["name"], mistakes)),
        ("vault", vault),
    ];
    let map = read::map(&entry.value, "secrets", mistakes)?;
    let known: Vec<&str> = PROVIDERS.iter().map(|(name, _)| *name).chain(["file", "token"]).collect();
    check(map, "a secret", &known, &[], mistakes);
    let mut asked = PROVIDERS.iter().filter_map(|(name, read)| Some((*name, *read, map.get(name)?)));
    let (Some((provider, read_provider, node)), None) = (asked.next(), asked.next()) else {
        mistakes.add(entry.at, format!("the secret `{}` wants one provider: {}", entry.key, known[..5].join(", ")));
        return None;
    };
    Some(Secret {
        name: entry.key.clone(),
        provider,
        asked: read_provider(node, mistakes),
        file: map.get("file").and_then(|node| read::flag(node, "secrets:file", mistakes)),
        token: map.get("token").and_then(|node| read::text(node, "secrets:token", mistakes)),
    })
}

/// `PATH/FIELD`, `PATH/FIELD@ENGINE`, or all of it in full.
fn vault(node: &Node, mistakes: &mut Mistakes) -> serde_json::Value {
    if let Value::Text(text) = &node.value {
        let (secret, engine) = text.split_once('@').unwrap_or((text, DEFAULT_ENGINE));
        let Some((path, field)) = secret.rsplit_once('/') else {
            mistakes.add(node.at, format!("`vault` wants `PATH/FIELD` or `PATH/FIELD@ENGINE`, not `{text}`"));
            return serde_json::Value::Null;
        };
        return json!({ "engine": { "name": DEFAULT_ENGINE, "path": engine }, "path": path, "field": field });
    }
    let Some(map) = read::map(node, "vault", mistakes) else { return serde_json::Value::Null };
    check(map, "`vault`", &["engine", "field", "path"], &[], mistakes);
    let part = |map: &Map, key: &str, at: At, mistakes: &mut Mistakes| match map.get(key) {
        Some(node) => read::text(node, &format!("vault:{key}"), mistakes),
        None => {
            mistakes.add(at, format!("`vault` does not have its `{key}`"));
            None
        }
    };
    let engine = map.get("engine").and_then(|node| read::map(node, "vault:engine", mistakes));
    let name = engine.and_then(|engine| part(engine, "name", node.at, mistakes));
    let mount = engine.and_then(|engine| part(engine, "path", node.at, mistakes));
    if engine.is_none() {
        mistakes.add(node.at, "`vault` does not have its `engine`");
    }
    let (path, field) = (part(map, "path", node.at, mistakes), part(map, "field", node.at, mistakes));
    json!({ "engine": { "name": name, "path": mount }, "path": path, "field": field })
}

/// `SECRET_ID`, `SECRET_ID#FIELD`, or all of it in full.
fn aws(node: &Node, mistakes: &mut Mistakes) -> serde_json::Value {
    const KNOWN: &[&str] =
        &["field", "region", "role_arn", "role_session_name", "secret_id", "version_id", "version_stage"];
    if let Value::Text(text) = &node.value {
        let (id, field) = text.split_once('#').unwrap_or((text, ""));
        return json!({ "secret_id": id, "field": field });
    }
    fields(node, "aws_secrets_manager", KNOWN, mistakes)
}

/// A mapping of strings.
fn fields(node: &Node, what: &str, known: &[&str], mistakes: &mut Mistakes) -> serde_json::Value {
    let Some(map) = read::map(node, what, mistakes) else { return serde_json::Value::Null };
    check(map, &format!("`{what}`"), known, &[], mistakes);
    let mut asked = serde_json::Map::new();
    for entry in &map.0 {
        let text = read::scalar(&entry.value, &format!("{what}:{}", entry.key), mistakes);
        asked.extend(text.map(|text| (entry.key.clone(), text.into())));
    }
    let needed = if known.contains(&"secret_id") { "secret_id" } else { "name" };
    if map.get(needed).is_none() {
        mistakes.add(node.at, format!("`{what}` does not have its `{needed}`"));
    }
    asked.into()
}
