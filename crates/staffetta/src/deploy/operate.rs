//! Brings one stack to where it is wanted: look, decide, do, until it is there or cannot be.

use aws::stack::Stack;
use aws::stack::cloudformation::{ChangeSet, CloudFormation, Phase, StackOrder, StackRecord};
use aws::{CallError, Session};

use super::cause::{self, Cause, first_cause};
use super::decide::{Step, advice, reason, to_delete, to_make};
use super::follow::{Ended, follow};
use super::ownership::stranger;
use super::progress::{Doing, Outcome, Progress, Told};

/// Why a stack is not as it is wanted.
#[derive(Debug)]
pub struct Failure {
    pub stack: String,
    pub error: String,
    pub cause: Option<Box<Cause>>,
    pub advice: Option<String>,
}

impl Failure {
    /// A call that gave no result, and that begins nothing.
    pub fn of_call(stack: &Stack, action: &str, error: &CallError) -> Self {
        let advice = match error {
            CallError::NoAnswer(_) | CallError::Throttled(_) => {
                Some("Run the command again when AWS answers: it goes on from here.".to_owned())
            }
            error => cause::fix(&error.to_string(), &stack.name),
        };
        Self { stack: stack.name.clone(), error: format!("{action}: {error}"), cause: None, advice }
    }

    /// A call that begins something: without an answer it may have done so.
    fn of_beginning(stack: &Stack, action: &str, error: &CallError) -> Self {
        let failure = Self::of_call(stack, action, error);
        if matches!(error, CallError::NoAnswer(_)) { failure.and_goes_on() } else { failure }
    }

    /// A look at what was begun.
    fn of_look(stack: &Stack, error: &CallError) -> Self {
        Self::of_call(stack, "cloudformation:DescribeStackEvents", error).and_goes_on()
    }

    fn and_goes_on(self) -> Self {
        let goes_on = "CloudFormation goes on with what it has begun.";
        let advice = self.advice.as_deref().unwrap_or("Run the command again to take it up.");
        Self { advice: Some(format!("{goes_on} {advice}")), ..self }
    }

    /// A stack that somebody else has under our name: nothing is done with it.
    fn if_foreign(stack: &Stack, record: Option<&StackRecord>) -> Result<(), Self> {
        let record = record.filter(|record| record.phase() != Phase::Gone);
        let Some(error) = record.and_then(|record| stranger(stack, record)) else { return Ok(()) };
        Err(Self { stack: stack.name.clone(), error, cause: None, advice: None })
    }

    /// With what to do, for whoever sees nothing else.
    pub fn line(&self) -> String {
        let advice = self.advice.as_ref().map(|advice| format!("\n{advice}")).unwrap_or_default();
        format!("{}: {}{advice}", self.stack, self.error)
    }

    pub fn told(&self) -> Told<'_> {
        Told::Failed {
            stack: &self.stack,
            error: &self.error,
            first_cause: self.cause.as_deref(),
            advice: self.advice.as_deref(),
        }
    }
}

/// What is sent for a stack with these values of its parameters.
pub fn order(stack: &Stack, parameters: Vec<(String, String)>) -> StackOrder {
    let (name, template, tags) = (stack.name.clone(), stack.template.to_string(), stack.tags.clone());
    StackOrder { name, template, parameters, tags }
}

/// For calls that may be repeated, and for names of change sets.
pub fn token() -> String {
    format!("staffetta-{:032x}", rand::random::<u128>())
}

/// Makes a stack, or changes it to what is wanted now.
pub async fn make(
    session: &Session,
    stack: &Stack,
    parameters: Vec<(String, String)>,
    progress: &mut Progress,
) -> Result<(Outcome, StackRecord), Failure> {
    let cloudformation = CloudFormation::new(session);
    let failed = |action: &'static str| move |error: CallError| Failure::of_call(stack, action, &error);
    let order = order(stack, parameters);
    let mut tried = Vec::new();
    loop {
        let record = cloudformation.describe(&stack.name).await.map_err(failed("cloudformation:DescribeStacks"))?;
        Failure::if_foreign(stack, record.as_ref())?;
        let step = to_make(record.as_ref().map(StackRecord::phase), &tried);
        tried.push(step);
        match (step, record) {
            (Step::Update, Some(record)) => return update(&cloudformation, stack, &order, record, progress).await,
            (Step::Create, _) | (_, None) => return create(&cloudformation, stack, &order, progress).await,
            (step, Some(record)) => {
                let why = reason(step, &record.status);
                pave(&cloudformation, stack, step, &record, why, progress).await?;
            }
        }
    }
}

async fn create(
    cloudformation: &CloudFormation<'_>,
    stack: &Stack,
    order: &StackOrder,
    progress: &mut Progress,
) -> Result<(Outcome, StackRecord), Failure> {
    progress.begin(stack, Doing::Create, None);
    let created = cloudformation.create(order, &token()).await;
    let created = created.map_err(|error| Failure::of_beginning(stack, "cloudformation:CreateStack", &error))?;
    let id = created.unwrap_or_else(|| stack.name.clone());
    let ended = follow(cloudformation, stack, &id, None, true, progress).await;
    let record = stands(stack, ended.map_err(|error| Failure::of_look(stack, &error))?)?;
    Ok((Outcome::Created, record))
}

/// Deletes a stack, whatever state it is in.
pub async fn delete(session: &Session, stack: &Stack, progress: &mut Progress) -> Result<Outcome, Failure> {
    let cloudformation = CloudFormation::new(session);
    let mut tried = Vec::new();
    loop {
        let record = cloudformation.describe(&stack.name).await;
        let record = record.map_err(|error| Failure::of_call(stack, "cloudformation:DescribeStacks", &error))?;
        Failure::if_foreign(stack, record.as_ref())?;
        let step = to_delete(record.as_ref().map(StackRecord::phase), &tried);
        let deleted = tried.contains(&Step::Delete);
        tried.push(step);
        match record {
            Some(record) if step != Step::Nothing => {
                // That it is deleted is what was asked for.
                let why = reason(step, &record.status).filter(|_| step == Step::Wait);
                pave(&cloudformation, stack, step, &record, why, progress).await?;
            }
            _ => return Ok(if deleted { Outcome::Deleted } else { Outcome::NotThere }),
        }
    }
}

/// A step that leads to another state, from where it goes on.
async fn pave(
    cloudformation: &CloudFormation<'_>,
    stack: &Stack,
    step: Step,
    record: &StackRecord,
    why: Option<String>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let begun = |action: &'static str| move |error: CallError| Failure::of_beginning(stack, action, &error);
    let doing = match step {
        Step::Wait => Doing::Wait,
        Step::Delete => Doing::Delete,
        Step::ContinueRollback => Doing::ContinueRollback,
        Step::GiveUp | Step::Create | Step::Update | Step::Nothing => {
            return Err(Failure {
                stack: stack.name.clone(),
                error: format!("it is in {}{}", record.status, because(record)),
                cause: None,
                advice: Some(advice(&stack.name, record, &stack.place.region)),
            });
        }
    };
    progress.begin(stack, doing, why.as_deref());
    let last = last_event(cloudformation, stack, record).await?;
    match step {
        Step::Delete => {
            cloudformation.delete(&record.id, &token()).await.map_err(begun("cloudformation:DeleteStack"))?
        }
        Step::ContinueRollback => {
            let continued = cloudformation.continue_rollback(&record.id, &token()).await;
            continued.map_err(begun("cloudformation:ContinueUpdateRollback"))?;
        }
        _ => {}
    }
    let ended = follow(cloudformation, stack, &record.id, last, step != Step::Wait, progress).await;
    let ended = ended.map_err(|error| Failure::of_look(stack, &error))?;
    let phase = ended.record.as_ref().map(StackRecord::phase);
    match (step, phase) {
        (Step::Delete, Some(Phase::Gone) | None)
        | (Step::ContinueRollback, Some(Phase::TakenBack))
        | (Step::Wait, _) => Ok(()),
        (Step::ContinueRollback, _) => {
            let advice = ended.record.as_ref().map(|record| advice(&stack.name, record, &stack.place.region));
            Err(Failure { advice, ..failure(stack, &ended) })
        }
        _ => Err(failure(stack, &ended)),
    }
}

async fn update(
    cloudformation: &CloudFormation<'_>,
    stack: &Stack,
    order: &StackOrder,
    record: StackRecord,
    progress: &mut Progress,
) -> Result<(Outcome, StackRecord), Failure> {
    let change_set = token();
    progress.asks_for(Some((&stack.name, &change_set)));
    let begun = begin_update(cloudformation, stack, order, &record, &change_set, progress).await;
    if begun.is_err() {
        // It would stay for ever; why it is of no use is what counts.
        let _ = cloudformation.delete_change_set(&stack.name, &change_set).await;
    }
    progress.asks_for(None);
    let Some(last) = begun? else { return Ok((Outcome::NoChange, record)) };
    let ended = follow(cloudformation, stack, &record.id, last, true, progress).await;
    let ended = ended.map_err(|error| Failure::of_look(stack, &error))?;
    let left = cause::left_behind(&ended.events);
    let record = stands(stack, ended)?;
    for resource in left {
        progress.note(&format!("{}: left behind: {resource}", stack.name));
    }
    Ok((Outcome::Updated, record))
}

/// The last event before the update; none if there is nothing to change.
async fn begin_update(
    cloudformation: &CloudFormation<'_>,
    stack: &Stack,
    order: &StackOrder,
    record: &StackRecord,
    change_set: &str,
    progress: &mut Progress,
) -> Result<Option<Option<String>>, Failure> {
    let changes = cloudformation.make_change_set(order, change_set).await;
    match changes.map_err(|error| Failure::of_call(stack, "cloudformation:CreateChangeSet", &error))? {
        ChangeSet::NoChange => return Ok(None),
        ChangeSet::Impossible(reason) => {
            let advice = cause::fix(&reason, &stack.name);
            let error = format!("it cannot be changed so: {reason}");
            return Err(Failure { stack: stack.name.clone(), error, cause: None, advice });
        }
        ChangeSet::Changes(_) => {}
    }
    progress.begin(stack, Doing::Update, None);
    let last = last_event(cloudformation, stack, record).await?;
    let executed = cloudformation.execute_change_set(&stack.name, change_set, &token()).await;
    let executed = executed.map_err(|error| Failure::of_beginning(stack, "cloudformation:ExecuteChangeSet", &error))?;
    if !executed && last_event(cloudformation, stack, record).await? == last {
        let error = "somebody else took away the change set, or changed the stack before it".to_owned();
        let advice = Some("Run the command again.".to_owned());
        return Err(Failure { stack: stack.name.clone(), error, cause: None, advice });
    }
    Ok(Some(last))
}

/// What comes after it belongs to what is begun now.
async fn last_event(
    cloudformation: &CloudFormation<'_>,
    stack: &Stack,
    record: &StackRecord,
) -> Result<Option<String>, Failure> {
    let last = cloudformation.last_event(&record.id).await;
    last.map_err(|error| Failure::of_call(stack, "cloudformation:DescribeStackEvents", &error))
}

fn stands(stack: &Stack, ended: Ended) -> Result<StackRecord, Failure> {
    match ended.record {
        Some(record) if record.phase() == Phase::Stands => Ok(record),
        _ => Err(failure(stack, &ended)),
    }
}

/// How an operation ended that did not end well.
fn failure(stack: &Stack, ended: &Ended) -> Failure {
    let error = match &ended.record {
        None => "it is gone: somebody deleted it meanwhile".to_owned(),
        Some(record) => match record.phase() {
            Phase::OnlyRecord => format!(
                "it could not be made, and all of it was taken back ({}). Its record stays until the next apply",
                record.status
            ),
            Phase::TakenBack => format!("it could not be changed, and is as it was before ({})", record.status),
            Phase::StuckUpdate => {
                format!(
                    "it could be neither changed nor taken back ({}). The next apply tries to take it back",
                    record.status
                )
            }
            _ => format!("it is in {}{}", record.status, because(record)),
        },
    };
    let remains = ended.record.as_ref().filter(|record| record.phase() == Phase::Remains);
    Failure {
        stack: stack.name.clone(),
        error,
        cause: first_cause(&ended.events).map(Box::new),
        advice: remains.map(|record| advice(&stack.name, record, &stack.place.region)),
    }
}

fn because(record: &StackRecord) -> String {
    record.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aws::stack::stacks;

    use super::*;
    use crate::deploy::file;

    #[test]
    fn that_cloudformation_goes_on_is_said_only_of_what_was_begun() {
        let stacks = stacks(&file::tests::dev("").deployment, &|_, _| String::new());
        let stack = &stacks[0];
        let (lost, slow) = (CallError::NoAnswer("time-out".into()), CallError::Throttled("Throttling".into()));
        for (failure, goes_on) in [
            (Failure::of_call(stack, "cloudformation:DescribeStacks", &lost), false),
            (Failure::of_call(stack, "cloudformation:DescribeStacks", &slow), false),
            (Failure::of_beginning(stack, "cloudformation:CreateStack", &lost), true),
            (Failure::of_beginning(stack, "cloudformation:CreateStack", &slow), false),
            (Failure::of_look(stack, &lost), true),
            (Failure::of_look(stack, &slow), true),
        ] {
            let advice = failure.advice.as_deref().unwrap_or_default();
            assert_eq!(advice.starts_with("CloudFormation goes on"), goes_on, "{failure:?}");
            assert!(advice.contains("Run the command again"), "{failure:?}");
        }
    }
}
