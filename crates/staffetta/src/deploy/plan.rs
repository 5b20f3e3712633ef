//! `staffetta deploy plan`: what `apply` would do. Nothing of it stays.

use std::collections::BTreeMap;
use std::fmt::Write;

use aws::CallError;
use aws::stack::cloudformation::{Change, ChangeSet, CloudFormation, Phase, Replacement, StackRecord};
use aws::stack::{ParameterValue, Stack};
use futures::future::join_all;
use serde::Serialize;

use super::apply::{Work, manager_of, running};
use super::decide::{advice, is_made_anew, reason, to_make};
use super::operate::{Failure, order};
use super::progress::NO_CHANGE;
use super::ready::{self, Count, Missing};

/// What would become of one stack.
#[derive(Debug, Serialize)]
pub struct StackPlan {
    pub stack: String,
    pub account: String,
    pub region: String,
    /// CloudFormation's word for its state; none for a stack that is not there.
    pub status: Option<String>,
    pub action: Action,
    pub changes: Vec<Line>,
    /// What is to be known beside it.
    pub notes: Vec<String>,
    /// What its manager waits for.
    pub missing: Vec<Missing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Update,
    NoChange,
    /// `apply` would refuse, or the end of somebody else's operation has to be waited for.
    Blocked,
}

/// One resource that would be added, changed or removed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// `Add`, `Modify`, `Remove`, …
    pub action: String,
    pub resource: String,
    #[serde(rename = "type")]
    pub resource_type: String,
    /// `never`, `perhaps` or `always`: whether another takes its place.
    pub replacement: &'static str,
    /// What of it changes.
    pub causes: Vec<String>,
}

/// Looks at all chosen stacks at once. The names of the change sets, which are deleted again, begin with `name`.
pub async fn plan(work: &Work<'_>, name: &str) -> Result<Vec<StackPlan>, Failure> {
    let needed: Vec<_> = work.chosen.iter().flat_map(Stack::needs).collect();
    let is_needed = |stack: &&Stack| {
        needed.contains(&stack.name.as_str()) || work.chosen.iter().any(|chosen| chosen.name == stack.name)
    };
    let records = join_all(work.all.iter().filter(is_needed).map(|stack| async {
        let record = CloudFormation::new(work.places.session(&stack.place)).describe(&stack.name).await;
        let record = record.map_err(|error| Failure::of_call(stack, "cloudformation:DescribeStacks", &error))?;
        Ok::<_, Failure>((stack.name.clone(), record))
    }));
    let records: Result<BTreeMap<_, _>, Failure> = records.await.into_iter().collect();
    let records = records?;
    join_all(work.chosen.iter().map(|stack| of_stack(work, stack, &records, name))).await.into_iter().collect()
}

/// Deletes the change sets of a plan that was not finished.
pub async fn clean_up(work: &Work<'_>, name: &str) {
    let deleted = work.chosen.iter().map(|stack| async {
        // Most are not there.
        let _ = CloudFormation::new(work.places.session(&stack.place))
            .delete_change_set(&stack.name, &change_set(name, stack))
            .await;
    });
    join_all(deleted).await;
}

fn change_set(name: &str, stack: &Stack) -> String {
    format!("{name}-{}", stack.name)
}

async fn of_stack(
    work: &Work<'_>,
    stack: &Stack,
    records: &BTreeMap<String, Option<StackRecord>>,
    name: &str,
) -> Result<StackPlan, Failure> {
    let record = records.get(&stack.name).and_then(Option::as_ref);
    let mut plan = StackPlan {
        stack: stack.name.clone(),
        account: stack.place.account.clone(),
        region: stack.place.region.clone(),
        status: record.map(|record| record.status.clone()),
        action: Action::Create,
        changes: Vec::new(),
        notes: Vec::new(),
        missing: Vec::new(),
    };
    let mut number = 0;
    if let Some(manager) = manager_of(work.deployment, stack) {
        let seen = ready::of_manager(work.deployment, manager, work.places.session(&stack.place)).await;
        let counted = ready::count(&seen, running(record));
        plan.notes
            .extend(seen.unseen.iter().map(|reason| format!("it cannot be seen whether this is there: {reason}")));
        plan.missing = seen.missing;
        match counted {
            Count::Set(wanted) => number = wanted,
            Count::Hold => {
                plan.action = Action::Blocked;
                plan.notes
                    .push("its manager runs, and what the next version needs is not there: it stays as it is".into());
                return Ok(plan);
            }
        }
    }
    let Some(record) = record.filter(|record| !is_made_anew(record.phase())) else {
        plan.notes.extend(record.and_then(|record| reason(to_make(Some(record.phase()), &[]), &record.status)));
        plan.changes = additions(stack);
        return Ok(plan);
    };
    match record.phase() {
        Phase::Stands | Phase::TakenBack => {}
        phase => {
            plan.action = Action::Blocked;
            let why = reason(to_make(Some(phase), &[]), &record.status);
            plan.notes.push(why.unwrap_or_else(|| advice(&stack.name, record, &stack.place.region)));
            return Ok(plan);
        }
    }
    let cloudformation = CloudFormation::new(work.places.session(&stack.place));
    let failed = |action: &'static str| move |error: CallError| Failure::of_call(stack, action, &error);
    let order = order(stack, parameters(stack, record, records, number));
    let name = change_set(name, stack);
    let changes = cloudformation.make_change_set(&order, &name).await;
    match changes.map_err(failed("cloudformation:CreateChangeSet"))? {
        ChangeSet::NoChange => plan.action = Action::NoChange,
        ChangeSet::Impossible(reason) => {
            plan.action = Action::Blocked;
            plan.notes.push(format!("CloudFormation cannot change it so: {reason}"));
        }
        ChangeSet::Changes(changes) => {
            let deleted = cloudformation.delete_change_set(&stack.name, &name).await;
            deleted.map_err(failed("cloudformation:DeleteChangeSet"))?;
            plan.action = Action::Update;
            plan.changes = changes.into_iter().map(line).collect();
        }
    }
    Ok(plan)
}

/// What a stack that is not there would get: all that its template has.
fn additions(stack: &Stack) -> Vec<Line> {
    let resources = stack.template["Resources"].as_object();
    let line = |(name, resource): (&String, &serde_json::Value)| Line {
        action: "Add".into(),
        resource: name.clone(),
        resource_type: resource["Type"].as_str().unwrap_or_default().to_owned(),
        replacement: "never",
        causes: Vec::new(),
    };
    resources.into_iter().flatten().map(line).collect()
}

fn line(change: Change) -> Line {
    Line {
        action: change.action,
        resource: change.logical_id,
        resource_type: change.resource_type,
        replacement: match change.replacement {
            Replacement::Never => "never",
            Replacement::Perhaps => "perhaps",
            Replacement::Always => "always",
        },
        causes: change.causes,
    }
}

/// What is not known before another stack is made counts as unchanged.
fn parameters(
    stack: &Stack,
    record: &StackRecord,
    records: &BTreeMap<String, Option<StackRecord>>,
    number: u32,
) -> Vec<(String, String)> {
    let value = |name: &str, value: &ParameterValue| match value {
        ParameterValue::DesiredCount => number.to_string(),
        ParameterValue::Output { stack: from, output } => {
            let outputs = records.get(from).and_then(Option::as_ref).map(|record| &record.outputs);
            let found = outputs.and_then(|outputs| outputs.get(*output)).or_else(|| record.parameters.get(name));
            found.cloned().unwrap_or_else(|| "not-known-yet".to_owned())
        }
    };
    stack
        .parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), value(&parameter.name, &parameter.value)))
        .collect()
}

/// For people.
pub fn text(plans: &[StackPlan]) -> String {
    let mut text = String::new();
    for plan in plans {
        let action = match plan.action {
            Action::Create => format!("is not there; apply makes it with {}", counted(plan.changes.len(), "resource")),
            Action::Update if plan.changes.is_empty() => "only outputs or tags of the stack change".to_owned(),
            Action::Update => counted(plan.changes.len(), "change"),
            Action::NoChange => "no change".to_owned(),
            Action::Blocked => "apply does not change it as it is".to_owned(),
        };
        let _ = writeln!(text, "{} ({}, {}): {action}", plan.stack, plan.account, plan.region);
        for note in &plan.notes {
            let _ = writeln!(text, "  ! {note}");
        }
        for Missing { what, .. } in &plan.missing {
            let _ = writeln!(text, "  ! before its manager starts, this is needed: {what}");
        }
        let width = plan.changes.iter().map(|line| line.resource_type.len()).max().unwrap_or_default();
        for Line { action, resource, resource_type, replacement, causes } in &plan.changes {
            let mark = match action.as_str() {
                "Add" | "Import" => '+',
                "Remove" => '-',
                _ => '~',
            };
            let replaced = match *replacement {
                "always" => "  is replaced",
                "perhaps" => "  is perhaps replaced",
                _ => "",
            };
            let causes = if causes.is_empty() { String::new() } else { format!("  by {}", causes.join(", ")) };
            let _ = writeln!(text, "  {mark} {resource_type:width$}  {resource}{replaced}{causes}");
        }
    }
    text
}

/// How many of each, in one line.
pub fn summary(plans: &[StackPlan]) -> String {
    let count = |action| plans.iter().filter(|plan| plan.action == action).count();
    let parts = [
        (count(Action::Create), "to make"),
        (count(Action::Update), "to change"),
        (count(Action::NoChange), "without change"),
        (count(Action::Blocked), "that cannot be changed now"),
    ];
    let parts: Vec<_> = parts.iter().filter(|(number, _)| *number > 0).map(|(n, word)| format!("{n} {word}")).collect();
    match plans.iter().all(|plan| plan.action == Action::NoChange) {
        true => NO_CHANGE.to_owned(),
        false => format!("Stacks: {}.", parts.join(", ")),
    }
}

fn counted(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(action: Action, changes: Vec<Line>) -> StackPlan {
        StackPlan {
            stack: "ci-dev".into(),
            account: "1".into(),
            region: "eu-west-1".into(),
            status: None,
            action,
            changes,
            notes: Vec::new(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn a_change_says_whether_another_takes_its_place_and_why() {
        let change = |action: &str, replacement, causes: &[&str]| Change {
            action: action.into(),
            logical_id: "TaskDefinition".into(),
            resource_type: "AWS::ECS::TaskDefinition".into(),
            replacement,
            causes: causes.iter().map(|cause| (*cause).to_owned()).collect(),
        };
        let changes = vec![
            line(change("Modify", Replacement::Always, &["Cpu", "Memory"])),
            line(change("Modify", Replacement::Perhaps, &["Tags"])),
            line(change("Remove", Replacement::Never, &[])),
        ];
        let text = text(&[plan_of(Action::Update, changes)]);
        for line in [
            "ci-dev (1, eu-west-1): 3 changes\n",
            "  ~ AWS::ECS::TaskDefinition  TaskDefinition  is replaced  by Cpu, Memory\n",
            "  ~ AWS::ECS::TaskDefinition  TaskDefinition  is perhaps replaced  by Tags\n",
            "  - AWS::ECS::TaskDefinition  TaskDefinition\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn no_change_is_said_plainly() {
        assert_eq!(summary(&[plan_of(Action::NoChange, Vec::new())]), NO_CHANGE);
        let mixed = [plan_of(Action::NoChange, Vec::new()), plan_of(Action::Create, Vec::new())];
        assert_eq!(summary(&mixed), "Stacks: 1 to make, 1 without change.");
    }
}
