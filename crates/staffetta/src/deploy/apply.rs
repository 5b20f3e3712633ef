//! `staffetta deploy apply`: makes what the file asks for, stack by stack.

use std::collections::BTreeMap;

use aws::stack::cloudformation::{CloudFormation, StackRecord};
use aws::stack::{DESIRED_COUNT, Deployment, Environment, ManagerOf, ParameterValue, Stack, StackKind};

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
#[derive(Debug, Default)]
pub struct Applied {
    pub changed: bool,
    /// What managers and jobs wait for.
    pub missing: Vec<Missing>,
}

/// Goes from stack to stack and stops at the first that cannot be brought to where it is wanted: those behind it may need it.
pub async fn apply(work: &Work<'_>, progress: &mut Progress) -> Result<Applied, Failure> {
    let mut outputs = Outputs::new();
    let mut applied = Applied::default();
    for stack in work.chosen {
        let session = work.places.session(&stack.place);
        let needed = stack.parameters.iter().filter_map(|parameter| match &parameter.value {
            ParameterValue::Output { stack, .. } => Some(stack.as_str()),
            ParameterValue::DesiredCount => None,
        });
        for name in needed {
            if !outputs.contains_key(name) {
                outputs
                    .insert(name.to_owned(), look(work, name).await?.map(|record| record.outputs).unwrap_or_default());
            }
        }
        let seen = if let Some(manager) = manager_of(work.deployment, stack) {
            let running = running(look(work, &stack.name).await?.as_ref());
            let seen = ready::of_manager(work.deployment, manager, session).await;
            match ready::count(&seen, running) {
                Count::Hold => progress.note(&format!(
                    "{}: the manager runs, and what its next version needs is not there. It stays as it is.",
                    stack.name
                )),
                Count::Set(number) => {
                    let made = make(session, stack, parameters(stack, &outputs, number)?, progress).await?;
                    applied.take(stack, made, &mut outputs, progress);
                }
            }
            seen
        } else {
            let made = make(session, stack, parameters(stack, &outputs, 0)?, progress).await?;
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

/// How each stack is in the end, so that nothing half-made stays unnoticed.
pub async fn tell_states(all: &[Stack], places: &Places, progress: &mut Progress) {
    for stack in all {
        let (account, region) = (&stack.place.account, &stack.place.region);
        let record = CloudFormation::new(places.session(&stack.place)).describe(&stack.name).await;
        let status = match record {
            Ok(record) => record.map(|record| record.status),
            Err(error) => Some(format!("not known ({error})")),
        };
        progress.tell(&Told::State { stack: &stack.name, account, region, status: status.as_deref() });
    }
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

/// How many managers a stack has now.
pub fn running(record: Option<&StackRecord>) -> u32 {
    let number = record.and_then(|record| record.parameters.get(DESIRED_COUNT));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The values of a stack's parameters.
fn parameters(stack: &Stack, outputs: &Outputs, count: u32) -> Result<Vec<(String, String)>, Failure> {
    let value = |value: &ParameterValue| match value {
        ParameterValue::DesiredCount => Ok(count.to_string()),
        ParameterValue::Output { stack: from, output } => {
            let found = outputs.get(from).and_then(|outputs| outputs.get(*output)).cloned();
            found.ok_or_else(|| Failure {
                stack: stack.name.clone(),
                error: format!("it needs {output} of {from}, which has none"),
                cause: None,
                advice: Some("Run `staffetta deploy apply` without --environment: it makes all in order.".into()),
            })
        }
    };
    stack.parameters.iter().map(|parameter| Ok((parameter.name.clone(), value(&parameter.value)?))).collect()
}
