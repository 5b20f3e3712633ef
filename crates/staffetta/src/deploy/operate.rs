//! Brings one stack to where it is wanted: look, decide, do, until it is there or cannot be.

use aws::stack::Stack;
use aws::stack::cloudformation::{ChangeSet, CloudFormation, Phase, StackOrder, StackRecord};
use aws::{CallError, Session};

use super::cause::{self, Cause, first_cause};
use super::decide::{Step, advice, reason, to_delete, to_make};
use super::follow::{Ended, follow};
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
    /// A call that gave no result.
    pub fn of_call(stack: &Stack, action: &str, error: &CallError) -> Self {
        let fix = match error {
            CallError::NoAnswer(_) => {
                Some("CloudFormation goes on with what it has begun. Run the command again to take it up.".to_owned())
            }
            error => cause::fix(&error.to_string(), &stack.name),
        };
        Self { stack: stack.name.clone(), error: format!("{action}: {error}"), cause: None, advice: fix }
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
    let failed = |action: &'static str| move |error: CallError| Failure::of_call(stack, action, &error);
    progress.begin(stack, Doing::Create, None);
    let created = cloudformation.create(order, &token()).await;
    let id = created.map_err(failed("cloudformation:CreateStack"))?.unwrap_or_else(|| stack.name.clone());
    let ended = follow(cloudformation, stack, &id, None, true, progress).await;
    let record = stands(stack, ended.map_err(failed("cloudformation:DescribeStackEvents"))?)?;
    Ok((Outcome::Created, record))
}

/// Deletes a stack, whatever state it is in.
pub async fn delete(session: &Session, stack: &Stack, progress: &mut Progress) -> Result<Outcome, Failure> {
    let cloudformation = CloudFormation::new(session);
    let mut tried = Vec::new();
    loop {
        let record = cloudformation.describe(&stack.name).await;
        let record = record.map_err(|error| Failure::of_call(stack, "cloudformation:DescribeStacks", &error))?;
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
    let failed = |action: &'static str| move |error: CallError| Failure::of_call(stack, action, &error);
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
    let last = cloudformation.last_event(&record.id).await.map_err(failed("cloudformation:DescribeStackEvents"))?;
    match step {
        Step::Delete => {
            cloudformation.delete(&record.id, &token()).await.map_err(failed("cloudformation:DeleteStack"))?
        }
        Step::ContinueRollback => {
            let continued = cloudformation.continue_rollback(&record.id, &token()).await;
            continued.map_err(failed("cloudformation:ContinueUpdateRollback"))?;
        }
        _ => {}
    }
    let ended = follow(cloudformation, stack, &record.id, last, step != Step::Wait, progress).await;
    let ended = ended.map_err(failed("cloudformation:DescribeStackEvents"))?;
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
    let failed = |action: &'static str| move |error: CallError| Failure::of_call(stack, action, &error);
    let change_set = token();
    let changes = cloudformation.make_change_set(order, &change_set).await;
    match changes.map_err(failed("cloudformation:CreateChangeSet"))? {
        ChangeSet::NoChange => return Ok((Outcome::NoChange, record)),
        ChangeSet::Impossible(reason) => {
            let advice = cause::fix(&reason, &stack.name);
            let error = format!("it cannot be changed so: {reason}");
            return Err(Failure { stack: stack.name.clone(), error, cause: None, advice });
        }
        ChangeSet::Changes(_) => {}
    }
    progress.begin(stack, Doing::Update, None);
    let last = cloudformation.last_event(&record.id).await.map_err(failed("cloudformation:DescribeStackEvents"))?;
    let executed = cloudformation.execute_change_set(&stack.name, &change_set, &token()).await;
    if let Err(error) = executed {
        if let CallError::Refused(_) = error {
            // It would stay for ever; why it was refused is what counts.
            let _ = cloudformation.delete_change_set(&stack.name, &change_set).await;
        }
        return Err(Failure::of_call(stack, "cloudformation:ExecuteChangeSet", &error));
    }
    let ended = follow(cloudformation, stack, &record.id, last, true, progress).await;
    let record = stands(stack, ended.map_err(failed("cloudformation:DescribeStackEvents"))?)?;
    Ok((Outcome::Updated, record))
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
