//! `rules`: whether a job is in the pipeline, and what changes for it there.

use std::collections::BTreeMap;

use super::expression::Expression;
use super::keyword::check;
use super::mistakes::Mistakes;
use super::values::{WHEN, variables};
use super::yaml::{Map, Node};
use super::{Variable, When, read};

#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    /// A rule without one always matches.
    condition: Option<Expression>,
    pub when: Option<When>,
    pub allow_failure: Option<bool>,
    pub variables: Vec<Variable>,
}

pub(super) fn rules(node: &Node, mistakes: &mut Mistakes) -> Vec<Rule> {
    let items = read::flat(node, "rules", mistakes);
    items.into_iter().filter_map(|item| Some(rule(read::map(item, "rules", mistakes)?, mistakes))).collect()
}

fn rule(map: &Map, mistakes: &mut Mistakes) -> Rule {
    const ELSEWHERE: &[&str] = &["auto_cancel", "changes", "exists", "interruptible", "needs", "start_in"];
    check(map, "a rule", &["allow_failure", "if", "variables", "when"], ELSEWHERE, mistakes);
    let mut rule = Rule::default();
    if let Some(node) = map.get("if")
        && let Some(text) = read::text(node, "if", mistakes)
    {
        match Expression::parse(&text) {
            Ok(expression) => rule.condition = Some(expression),
            Err(error) => mistakes.add(node.at, format!("`if: {text}`: {error}")),
        }
    }
    rule.when = map.get("when").and_then(|node| read::one_of(node, "when", WHEN, mistakes));
    rule.allow_failure = map.get("allow_failure").and_then(|node| read::flag(node, "allow_failure", mistakes));
    rule.variables = map.get("variables").map(|node| variables(node, false, mistakes)).unwrap_or_default();
    rule
}

/// The first rule that matches; without one the job is not in the pipeline.
pub(super) fn decide<'a>(rules: &'a [Rule], variables: &BTreeMap<String, String>) -> Option<&'a Rule> {
    rules.iter().find(|rule| rule.condition.as_ref().is_none_or(|condition| condition.holds(variables)))
}
