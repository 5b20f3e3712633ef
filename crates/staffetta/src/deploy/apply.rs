//! `staffetta deploy apply`: makes what the file asks for, stack by stack.

use std::collections::BTreeMap;

use aws::stack::cloudformation::{CloudFormation, StackRecord};
use aws::stack::{DESIRED_COUNT, Deployment, Environment, ManagerOf, ParameterValue, Stack, StackKind};
use futures::future::join_all;
use serde::Serialize;

use super::decide::is_made_anew;
use super::operate::{Failure, make};
use super::places::Places;
use super::progress::{Outcome, Progress, Told};
use super::ready::{self, Count, Missing, Readiness};

/// Outputs of stacks, by the stack's name.
type Outputs = BTreeMap<String, BTreeMap<String, String>>;

/// All that was looked at and is wanted.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub deployment: &'a Deployment,
    /// Every stack of the file.
    pub all: &'a [Stack],
    /// Those that are to be made, in order.
    pub chosen: &'a [Stack],
    pub places: &'a Places,
}

/// What became of it.
#[derive(Debug, Default, Serialize)]
pub struct Applied {
    pub changed: bool,
    /// Stacks that are not as the file says: their managers run, and what the next version needs is not there.
    pub held: Vec<String>,
    /// Stacks that are, and whose managers do not run yet.
    pub waiting: Vec<String>,
    /// What managers and jobs wait for.
    pub missing: Vec<Missing>,
}

/// Goes from stack to stack and stops at the first that cannot be brought to where it is wanted: those behind it may need it.
pub async fn apply(work: &Work<'_>, progress: &mut Progress) -> Result<Applied, Failure> {
    let mut outputs = Outputs::new();
    let mut applied = Applied::default();
    for stack in work.chosen {
        let session = work.places.session(&stack.place);
        for name in stack.needs() {
            if !outputs.contains_key(name) {
                outputs
                    .insert(name.to_owned(), look(work, name).await?.map(|record| record.outputs).unwrap_or_default());
            }
        }
        let seen = if let Some(manager) = manager_of(work.deployment, stack) {
            let running = running(look(work, &stack.name).await?.as_ref());
            let seen = ready::of_manager(work.deployment, manager, session).await;
            match ready::count(&seen, running) {
                Count::Hold => {
                    applied.held.push(stack.name.clone());
                    progress.note(&format!(
                        "{}: the manager runs, and what its next version needs is not there. It stays as it is.",
                        stack.name
                    ));
                }
                Count::Set(number) => {
                    let made = make(session, stack, parameters(work, stack, &outputs, number)?, progress).await?;
                    applied.take(stack, made, &mut outputs, progress);
                    if number == 0 {
                        applied.waiting.push(stack.name.clone());
                    }
                }
            }
            seen
        } else {
            let made = make(session, stack, parameters(work, stack, &outputs, 0)?, progress).await?;
            applied.take(stack, made, &mut outputs, progress);
            match environment_of(work.deployment, stack) {
                Some(environment) => ready::of_environment(work.deployment, environment, session).await,
                None => Readiness::default(),
            }
        };
        applied.missing.extend(seen.missing);
        for reason in seen.unseen {
            progress.note(&format!("{}: it cannot be seen whether this is there: {reason}", stack.name));
        }
    }
    Ok(applied)
}

impl Applied {
    fn take(&mut self, stack: &Stack, made: (Outcome, StackRecord), outputs: &mut Outputs, progress: &mut Progress) {
        let (result, record) = made;
        self.changed |= result != Outcome::NoChange;
        outputs.insert(stack.name.clone(), record.outputs);
        progress.tell(&Told::Done { stack: &stack.name, result });
    }
}

/// Deletes the change set that Ctrl-C left behind, if any: it would stay for ever.
pub async fn clean_up(work: &Work<'_>, progress: &Progress) {
    let Some((name, change_set)) = progress.asked_for() else { return };
    let Some(stack) = work.chosen.iter().find(|stack| stack.name == name) else { return };
    let _ = CloudFormation::new(work.places.session(&stack.place)).delete_change_set(name, change_set).await;
}

/// How each stack is in the end, so that nothing half-made stays unnoticed: CloudFormation's word, none for one that is not
/// there.
pub async fn states<'a>(all: &'a [Stack], places: &Places) -> Vec<(&'a Stack, Option<String>)> {
    let looks = all.iter().map(|stack| async move {
        let record = CloudFormation::new(places.session(&stack.place)).describe(&stack.name).await;
        let status = match record {
            Ok(record) => record.map(|record| record.status),
            Err(error) => Some(format!("not known ({error})")),
        };
        (stack, status)
    });
    join_all(looks).await
}

/// A stack of the file as it is now.
async fn look(work: &Work<'_>, name: &str) -> Result<Option<StackRecord>, Failure> {
    let Some(stack) = work.all.iter().find(|stack| stack.name == name) else { return Ok(None) };
    let record = CloudFormation::new(work.places.session(&stack.place)).describe(name).await;
    record.map_err(|error| Failure::of_call(stack, "cloudformation:DescribeStacks", &error))
}

/// The manager whose service is in a stack.
pub fn manager_of<'a>(deployment: &'a Deployment, stack: &Stack) -> Option<ManagerOf<'a>> {
    let is_service = matches!(stack.kind, StackKind::Manager(_));
    let mut managers = deployment.managers().into_iter();
    managers.find(|manager| is_service && deployment.manager_name(*manager) == stack.name)
}

/// The environment that a stack is.
pub fn environment_of<'a>(deployment: &'a Deployment, stack: &Stack) -> Option<&'a Environment> {
    let StackKind::Environment(name) = &stack.kind else { return None };
    deployment.environments.iter().find(|environment| environment.name == *name)
}

/// How many managers a stack has now. What is made anew has none, whatever its parameters were.
pub fn running(record: Option<&StackRecord>) -> u32 {
    let record = record.filter(|record| !is_made_anew(record.phase()));
    let number = record.and_then(|record| record.parameters.get(DESIRED_COUNT));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The values of a stack's parameters.
fn parameters(work: &Work<'_>, stack: &Stack, outputs: &Outputs, count: u32) -> Result<Vec<(String, String)>, Failure> {
    let value = |value: &ParameterValue| match value {
        ParameterValue::DesiredCount => Ok(count.to_string()),
        ParameterValue::Output { stack: from, output } => {
            let found = outputs.get(from).and_then(|outputs| outputs.get(*output)).cloned();
            let is_other = work.chosen.iter().all(|chosen| chosen.name != *from);
            found.ok_or_else(|| Failure {
                stack: stack.name.clone(),
                error: format!("it needs {output} of {from}, which has none"),
                cause: None,
                advice: is_other
                    .then(|| "Run `staffetta deploy apply` without --environment: it makes all in order.".into()),
            })
        }
    };
    stack.parameters.iter().map(|parameter| Ok((parameter.name.clone(), value(&parameter.value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stack_that_stays_has_a_manager_that_runs() {
        for (status, expected) in [
            ("CREATE_COMPLETE", 1),
            ("UPDATE_COMPLETE", 1),
            ("UPDATE_ROLLBACK_COMPLETE", 1),
            ("UPDATE_IN_PROGRESS", 1),
            ("UPDATE_ROLLBACK_FAILED", 1),
            ("DELETE_FAILED", 0),
            ("ROLLBACK_COMPLETE", 0),
            ("ROLLBACK_FAILED", 0),
            ("CREATE_FAILED", 0),
            ("REVIEW_IN_PROGRESS", 0),
            ("DELETE_COMPLETE", 0),
        ] {
            let record = StackRecord {
                id: "arn".into(),
                status: status.into(),
                reason: None,
                parameters: [(DESIRED_COUNT.to_owned(), "1".to_owned())].into(),
                outputs: BTreeMap::new(),
                tags: BTreeMap::new(),
            };
            assert_eq!(running(Some(&record)), expected, "{status}");
        }
        assert_eq!(running(None), 0);
    }
}
