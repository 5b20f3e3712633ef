//! Holds that the suite is as large as it is meant to be, and covers the protocol's checklists and what we tell GitLab that we can do.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::case::Area;

const FEWEST_CASES: usize = 120;
/// The items of the protocol's sections 14.1, 14.2 and 14.3.
const ITEMS: [(&str, usize); 3] = [("14.1.", 10), ("14.2.", 7), ("14.3 ", 35)];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    /// Begins with its number, those of 14.3 have none of their own; or with the word `feature`.
    item: String,
    /// `area::name`.
    #[serde(default)]
    cases: Vec<String>,
    /// Why there are none.
    #[serde(default)]
    reason: Option<String>,
}

/// What is missing, each a line for a person.
pub fn check(file: &Path, areas: &[Area]) -> Vec<String> {
    let items: Result<Vec<Item>, String> = std::fs::read_to_string(file)
        .map_err(|error| error.to_string())
        .and_then(|text| serde_saphyr::from_str(&text).map_err(|error| error.to_string()));
    let items = match items {
        Ok(items) => items,
        Err(message) => return vec![format!("{}: {message}", file.display())],
    };
    let mut wrong = Vec::new();
    let names: BTreeSet<String> =
        areas.iter().flat_map(|area| area.cases.iter().map(|case| format!("{}::{}", area.name, case.name))).collect();
    if names.len() < FEWEST_CASES {
        wrong.push(format!("there are {} cases, fewer than {FEWEST_CASES}", names.len()));
    }
    for (prefix, expected) in ITEMS {
        let different: BTreeSet<&str> =
            items.iter().map(|item| item.item.as_str()).filter(|item| item.starts_with(prefix)).collect();
        if different.len() != expected {
            wrong.push(format!("{} items begin with {prefix:?}, not {expected}", different.len()));
        }
    }
    let shown: BTreeSet<String> =
        items.iter().filter_map(|item| item.item.strip_prefix("feature ")).map(str::to_owned).collect();
    let advertised = advertised();
    wrong.extend(
        advertised.difference(&shown).map(|name| format!("the feature {name} is told to GitLab and not shown")),
    );
    wrong.extend(
        shown.difference(&advertised).map(|name| format!("the feature {name} is shown and not told to GitLab")),
    );
    for item in &items {
        if item.cases.is_empty() == item.reason.is_none() {
            wrong.push(format!("{} wants cases or a reason, and not both", item.item));
        }
        let missing = item.cases.iter().filter(|case| !names.contains(*case));
        wrong.extend(missing.map(|case| format!("{} names {case}, which is not there", item.item)));
    }
    wrong
}

/// The features of `info` that are true (protocol 2.3).
fn advertised() -> BTreeSet<String> {
    let info = serde_json::to_value(gitlab::Info::new("fargate", "bash")).expect("it is made for JSON");
    let features = info["features"].as_object().expect("an object");
    features.iter().filter(|(_, offered)| **offered == true).map(|(name, _)| name.clone()).collect()
}
