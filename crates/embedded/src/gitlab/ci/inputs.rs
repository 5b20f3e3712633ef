//! `inputs` of a job: typed values that stand in its keywords as `${{ job.inputs.NAME }}`.

use regex_automata::meta::Regex;

use super::keyword::check;
use super::mistakes::Mistakes;
use super::yaml::{Entry, Node};
use super::{Input, read};

const TYPES: &[(&str, &str)] =
    &[("array", "array"), ("boolean", "boolean"), ("number", "number"), ("string", "string")];

pub(super) fn inputs(node: &Node, mistakes: &mut Mistakes) -> Vec<Input> {
    let Some(map) = read::map(node, "inputs", mistakes) else { return Vec::new() };
    map.0.iter().filter_map(|entry| input(entry, mistakes)).collect()
}

fn input(entry: &Entry, mistakes: &mut Mistakes) -> Option<Input> {
    let map = read::map(&entry.value, "inputs", mistakes)?;
    check(map, "an input", &["default", "description", "options", "regex", "type"], &[], mistakes);
    let kind = map.get("type").and_then(|node| read::one_of(node, "inputs:type", TYPES, mistakes)).unwrap_or("string");
    let Some(default) = map.get("default") else {
        mistakes.add(entry.at, format!("the input `{}` has no `default`, which a job's input must have", entry.key));
        return None;
    };
    let value = read::json(default);
    let fits = match kind {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        _ => value.is_string(),
    };
    if !fits {
        let found = default.describe();
        mistakes.add(default.at, format!("the `default` of the input `{}` is {found}, not of type {kind}", entry.key));
    }
    if let Some(options) = map.get("options")
        && !read::one_or_more(options).iter().any(|option| read::json(option) == value)
    {
        mistakes.add(default.at, format!("the `default` of the input `{}` is not one of its `options`", entry.key));
    }
    if let Some(node) = map.get("regex")
        && let Some(pattern) = read::text(node, "inputs:regex", mistakes)
    {
        match Regex::new(&pattern) {
            Ok(regex) if value.as_str().is_some_and(|text| regex.is_match(text)) => {}
            Ok(_) => mistakes.add(default.at, format!("the `default` of `{}` does not match its `regex`", entry.key)),
            Err(error) => mistakes.add(node.at, format!("`inputs:regex`: {error}")),
        }
    }
    Some(Input { key: entry.key.clone(), kind, value })
}
