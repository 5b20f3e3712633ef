//! Values of keywords from nodes. Each function reports what is not as it should be and then yields nothing.
//!
//! A reference that is still there was reported by `load`, so it is passed over in silence.

use super::keyword::did_you_mean;
use super::mistakes::Mistakes;
use super::yaml::{Map, Node, Value};

/// GitLab flattens nested lists so far.
const MAX_NESTING: usize = 10;

fn wants(node: &Node, what: &str, wanted: &str, mistakes: &mut Mistakes) {
    if matches!(node.value, Value::Reference(_)) {
        return;
    }
    let quote = match node.value {
        Value::Bool(_) | Value::Number(_) if wanted.contains("string") => "; put it in quotes",
        _ => "",
    };
    mistakes.add(node.at, format!("`{what}` wants {wanted}, not {}{quote}", node.describe()));
}

pub(super) fn text(node: &Node, what: &str, mistakes: &mut Mistakes) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => {
            wants(node, what, "a string", mistakes);
            None
        }
    }
}

/// A string, a number or a boolean, as text.
pub(super) fn scalar(node: &Node, what: &str, mistakes: &mut Mistakes) -> Option<String> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null => {
            mistakes.add(node.at, format!("`{what}` has no value; write \"\" for an empty one"));
            None
        }
        _ => {
            wants(node, what, "a string, a number or a boolean", mistakes);
            None
        }
    }
}

pub(super) fn flag(node: &Node, what: &str, mistakes: &mut Mistakes) -> Option<bool> {
    match &node.value {
        Value::Bool(value) => Some(*value),
        _ => {
            wants(node, what, "true or false", mistakes);
            None
        }
    }
}

pub(super) fn whole_number(node: &Node, what: &str, from: i64, to: i64, mistakes: &mut Mistakes) -> Option<i64> {
    if let Value::Number(text) = &node.value
        && let Some(number) = text.parse().ok().filter(|number| (from..=to).contains(number))
    {
        return Some(number);
    }
    wants(node, what, &format!("a whole number from {from} to {to}"), mistakes);
    None
}

/// One or several numbers.
pub(super) fn whole_numbers(node: &Node, what: &str, from: i64, to: i64, mistakes: &mut Mistakes) -> Vec<i64> {
    one_or_more(node).iter().filter_map(|item| whole_number(item, what, from, to, mistakes)).collect()
}

pub(super) fn texts(node: &Node, what: &str, mistakes: &mut Mistakes) -> Vec<String> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| text(item, what, mistakes)).collect(),
        _ => {
            wants(node, what, "a list of strings", mistakes);
            Vec::new()
        }
    }
}

/// One string or a list of them.
pub(super) fn text_or_texts(node: &Node, what: &str, mistakes: &mut Mistakes) -> Vec<String> {
    one_or_more(node).iter().filter_map(|item| text(item, what, mistakes)).collect()
}

/// The items of a list; a value alone is a list of one.
pub(super) fn one_or_more(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// The items of a list whose own lists, as references leave them, are opened.
pub(super) fn flat<'a>(node: &'a Node, what: &str, mistakes: &mut Mistakes) -> Vec<&'a Node> {
    let mut items = Vec::new();
    flatten(node, what, 0, &mut items, mistakes);
    items
}

fn flatten<'a>(node: &'a Node, what: &str, depth: usize, items: &mut Vec<&'a Node>, mistakes: &mut Mistakes) {
    let Value::List(inner) = &node.value else { return items.push(node) };
    if depth > MAX_NESTING {
        return mistakes.add(node.at, format!("the lists of `{what}` are nested more than {MAX_NESTING} levels deep"));
    }
    inner.iter().for_each(|item| flatten(item, what, depth + 1, items, mistakes));
}

/// The lines of a script: a string or a list of strings and of such lists.
pub(super) fn script(node: &Node, what: &str, mistakes: &mut Mistakes) -> Vec<String> {
    let mut lines = Vec::new();
    for item in flat(node, what, mistakes) {
        match &item.value {
            Value::Text(line) => lines.push(line.clone()),
            // The usual accident: `- echo "a: b"` without quotes around the whole is a mapping.
            Value::Map(_) => mistakes.add(
                item.at,
                format!("this line of `{what}` is a mapping because of its `: `; put the whole line in quotes"),
            ),
            _ => wants(item, what, "strings", mistakes),
        }
    }
    lines
}

pub(super) fn map<'a>(node: &'a Node, what: &str, mistakes: &mut Mistakes) -> Option<&'a Map> {
    match &node.value {
        Value::Map(map) => Some(map),
        _ => {
            wants(node, what, "a mapping", mistakes);
            None
        }
    }
}

/// A value as JSON. What YAML can say and JSON cannot, such as an endless number, is text.
pub(super) fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::Reference(_) => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => {
            text.parse::<serde_json::Number>().map_or_else(|_| text.as_str().into(), serde_json::Value::Number)
        }
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(map) => map.0.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect(),
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(node: &Node, what: &str, words: &[(&str, T)], mistakes: &mut Mistakes) -> Option<T> {
    let word = text(node, what, mistakes)?;
    let found = words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
        let hint = match did_you_mean(&word, known.iter().copied()) {
            hint if hint.is_empty() => format!("; it is one of {}", known.join(", ")),
            hint => hint,
        };
        mistakes.add(node.at, format!("`{what}` does not know `{word}`{hint}"));
    }
    found
}
