//! Job inputs: `${{ job.inputs.NAME }}` in a job's configuration (protocol 3.5, 7.1.1).

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::moa::{self, Context, Value};
use crate::payload::Input;

/// Why the configuration of a job cannot be made from its inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("input without key")]
    NoKey,
    #[error("input {0:?} is null, must have valid value")]
    Null(String),
    #[error("invalid type {kind:?} for input {key:?}: type is unknown")]
    UnknownType { key: String, kind: String },
    #[error("mismatching type of input {key:?}. Announced {announced:?}, but got {got:?}")]
    Mismatch { key: String, announced: &'static str, got: &'static str },
    #[error("sensitive inputs are unsupported in interpolations yet")]
    Sensitive,
    #[error("failed to interpolate job inputs: {0}")]
    Interpolation(moa::Error),
}

/// Where inputs may stand; a list on the way means each of its items.
const FIELDS: [&[&str]; 24] = [
    &["image", "name"],
    &["image", "command"],
    &["image", "entrypoint"],
    &["image", "pull_policy"],
    &["image", "executor_opts", "docker", "platform"],
    &["image", "executor_opts", "docker", "user"],
    &["image", "executor_opts", "kubernetes", "user"],
    &["services", "name"],
    &["services", "command"],
    &["services", "entrypoint"],
    &["services", "pull_policy"],
    &["services", "executor_opts", "docker", "platform"],
    &["services", "executor_opts", "docker", "user"],
    &["services", "executor_opts", "kubernetes", "user"],
    &["artifacts", "name"],
    &["artifacts", "paths"],
    &["artifacts", "exclude"],
    &["artifacts", "when"],
    &["artifacts", "expire_in"],
    &["cache", "key"],
    &["cache", "policy"],
    &["cache", "paths"],
    &["cache", "when"],
    &["cache", "fallback_keys"],
];

/// Replaces the expressions in a payload's JSON. Without inputs nothing is an expression.
pub fn expand(inputs: &[Input], payload: &mut Json) -> Result<(), InputError> {
    let context = context(inputs)?;
    let expand = |text: &mut String| {
        *text = context.expand(text).map_err(|error| match error {
            moa::Error::Sensitive => InputError::Sensitive,
            error => InputError::Interpolation(error),
        })?;
        Ok(())
    };
    for step in payload["steps"].as_array_mut().into_iter().flatten() {
        if matches!(step["name"].as_str(), Some("script" | "after_script")) {
            visit(step, &["script"], &expand)?;
        }
    }
    for path in FIELDS {
        visit(payload, path, &expand)?;
    }
    Ok(())
}

fn context(inputs: &[Input]) -> Result<Context, InputError> {
    let mut known = BTreeMap::new();
    for input in inputs {
        let (key, value) = (input.key.clone(), Value::from(input.value.content.clone()));
        let announced = match input.value.kind.as_str() {
            _ if key.is_empty() => return Err(InputError::NoKey),
            _ if value == Value::Null => return Err(InputError::Null(key)),
            "string" => "string",
            "number" => "number",
            "boolean" => "bool",
            "array" => "array",
            "struct" => "object",
            kind => return Err(InputError::UnknownType { key, kind: kind.into() }),
        };
        if announced != value.kind() {
            return Err(InputError::Mismatch { key, announced, got: value.kind() });
        }
        // The first of a name is the one that counts, unlike with variables.
        known.entry(key).or_insert((value, input.value.sensitive));
    }
    Ok(Context::new(known))
}

fn visit(
    json: &mut Json,
    path: &[&str],
    change: &impl Fn(&mut String) -> Result<(), InputError>,
) -> Result<(), InputError> {
    match (json, path) {
        (Json::Array(items), path) => items.iter_mut().try_for_each(|item| visit(item, path, change)),
        (Json::String(text), []) => change(text),
        (Json::Object(fields), [name, rest @ ..]) => {
            fields.get_mut(*name).map_or(Ok(()), |field| visit(field, rest, change))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inputs(json: Json) -> Vec<Input> {
        serde_json::from_value(json).expect("inputs")
    }

    fn one(key: &str, kind: &str, content: Json, sensitive: bool) -> Vec<Input> {
        inputs(json!([{"key": key, "value": {"type": kind, "content": content, "sensitive": sensitive}}]))
    }

    #[test]
    fn inputs_are_replaced_where_gitlab_allows_them_and_nowhere_else() {
        let image = json!({
            "name": "X", "alias": "X", "command": ["X"], "entrypoint": ["X", "X"], "pull_policy": ["X"],
            "executor_opts": {"docker": {"platform": "X", "user": "X"}, "kubernetes": {"user": 1000}},
        });
        let template = json!({
            "steps": [
                {"name": "script", "script": ["X", "a X"]}, {"name": "release", "script": ["X"]},
                {"name": "after_script", "script": ["X"]},
            ],
            "image": image, "services": [image],
            "artifacts": [{"name": "X", "paths": ["X"], "exclude": ["X"], "when": "X", "expire_in": "X", "artifact_type": "X"}],
            "cache": [{"key": "X", "policy": "X", "paths": ["X"], "when": "X", "fallback_keys": ["X"]}],
            "variables": [{"key": "A", "value": "X"}], "hooks": [{"name": "pre_get_sources_script", "script": ["X"]}],
        });
        let written = |word: &str| template.to_string().replace('X', word);
        let mut payload: Json = serde_json::from_str(&written("${{ job.inputs.it }}")).expect("JSON");
        expand(&one("it", "string", json!("value"), false), &mut payload).expect("an expansion");

        let mut expected: Json = serde_json::from_str(&written("value")).expect("JSON");
        for untouched in [
            "/steps/1/script/0",
            "/image/alias",
            "/services/0/alias",
            "/artifacts/0/artifact_type",
            "/variables/0/value",
            "/hooks/0/script/0",
        ] {
            *expected.pointer_mut(untouched).expect(untouched) = json!("${{ job.inputs.it }}");
        }
        assert_eq!(payload, expected);
    }

    #[test]
    fn values_of_every_type_become_text() {
        let inputs = inputs(json!([
            {"key": "n", "value": {"type": "number", "content": 3}},
            {"key": "b", "value": {"type": "boolean", "content": true}},
            {"key": "a", "value": {"type": "array", "content": ["x", 1]}},
            {"key": "s", "value": {"type": "struct", "content": {"k": "v"}}},
        ]));
        let script = "${{ job.inputs.n }} ${{ job.inputs.b }} ${{ job.inputs.a }} ${{ job.inputs.s.k }}";
        let mut payload = json!({"steps": [{"name": "script", "script": [script]}]});
        expand(&inputs, &mut payload).expect("an expansion");
        assert_eq!(payload["steps"][0]["script"][0], r#"3 true ["x",1] v"#);
    }

    #[test]
    fn inputs_that_are_not_what_they_say_are_refused_in_gitlabs_words() {
        for (inputs, told) in [
            (json!([{}]), "input without key"),
            (json!([{"key": "k"}]), r#"input "k" is null, must have valid value"#),
            (json!([{"key": "k", "value": {"type": "string"}}]), r#"input "k" is null, must have valid value"#),
            (json!([{"key": "k", "value": {"content": "x"}}]), r#"invalid type "" for input "k": type is unknown"#),
            (
                json!([{"key": "k", "value": {"type": "number", "content": "x"}}]),
                r#"mismatching type of input "k". Announced "number", but got "string""#,
            ),
        ] {
            let error = expand(&self::inputs(inputs), &mut json!({})).expect_err(told);
            assert_eq!(error.to_string(), told);
        }
    }

    #[test]
    fn mistakes_and_sensitive_inputs_are_told_apart() {
        let mut payload = json!({"cache": [{"fallback_keys": ["${{ job.inputs.k + }}"]}]});
        let error = expand(&one("k", "string", json!("x"), false), &mut payload).expect_err("a mistake");
        assert_eq!(error.to_string(), "failed to interpolate job inputs: expected a value at 1:20");
        let mut payload = json!({"cache": [{"key": "${{ job.inputs.k }}"}]});
        let error = expand(&one("k", "string", json!("x"), true), &mut payload).expect_err("a sensitive one");
        assert_eq!(error, InputError::Sensitive);
    }
}
