//! `cleanup`: ends the job's task and removes its metadata. Called after every `prepare`, whatever came of it.
//!
//! It has its own time: the job's may be over long since, and a task that nobody stops is paid for.

use std::time::{Duration, Instant, SystemTime};

use ::job::task;
use aws::CallError;
use aws::fargate::{Fargate, Task};
use tokio::time::sleep;

use super::metadata::{Kept, Metadata, Store};
use super::{Call, Failure, sweep, warn};

/// How long ECS is asked again when it does not answer.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
const PAUSE: Duration = Duration::from_secs(5);
/// A call that was killed may have a RunTask under way for 20 s, and ECS lists a task a little later than it names it.
const SETTLE: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_secs(1);

pub async fn cleanup(call: &Call) -> Result<(), Failure> {
    let store = call.store()?;
    end_what_was_started(call, &store).await?;
    sweep::sweep(call, SystemTime::now()).await;
    Ok(())
}

/// Ends whatever earlier calls of this job started, and forgets it. Succeeds when there is nothing to do.
pub async fn end_what_was_started(call: &Call, store: &Store) -> Result<(), Failure> {
    let kept = store.read()?;
    let fargate = match &kept {
        Kept::Metadata(metadata) => call.fargate_of(metadata).await?,
        // A role that the job may not have has started nothing.
        Kept::Nothing | Kept::Unreadable(_) => call.fargate(call.role().unwrap_or(None)).await?,
    };
    let settle = match &kept {
        Kept::Nothing => Duration::ZERO,
        Kept::Metadata(_) => SETTLE,
        Kept::Unreadable(reason) => {
            warn(format_args!("{reason}; looking for the job's task in ECS"));
            SETTLE
        }
    };
    let give_up = Instant::now() + PATIENCE;
    while let Err(error) = end(call, &fargate, &kept, settle).await {
        // Nor would another try be allowed.
        let is_final = matches!(error, CallError::Refused(_) | CallError::RoleRefused { .. });
        if is_final && matches!(kept, Kept::Nothing) {
            // Where nobody may look, or where there is no such cluster, no call of this job has started anything.
            tracing::debug!(%error, "nothing to clean up");
            return Ok(());
        }
        if is_final || Instant::now() > give_up {
            return Err(Failure::System(format!("cannot end the task of job {}: {error}", call.job.id)));
        }
        warn(format_args!("cannot end the task of job {}: {error}; trying again", call.job.id));
        sleep(PAUSE).await;
    }
    store.remove()
}

/// One try. A task that has ended already counts as stopped.
async fn end(call: &Call, fargate: &Fargate, kept: &Kept, settle: Duration) -> Result<(), CallError> {
    let known = if let Kept::Metadata(metadata) = kept { Metadata::arn(metadata) } else { None };
    let arns = match known {
        Some(arn) => vec![arn],
        None => started_for(call, fargate, settle).await?.into_iter().map(|task| task.arn).collect(),
    };
    for arn in arns {
        fargate.stop_task(&arn, "the job is over").await?;
    }
    Ok(())
}

/// The tasks in ECS that were started for this job; looks until one is there or `settle` is over.
async fn started_for(call: &Call, fargate: &Fargate, settle: Duration) -> Result<Vec<Task>, CallError> {
    let job = call.job.id.to_string();
    let give_up = Instant::now() + settle;
    loop {
        let mut tasks = tasks_of_runner(call, fargate).await?;
        tasks.retain(|task| task.environment.get(task::JOB) == Some(&job));
        if !tasks.is_empty() || Instant::now() >= give_up {
            return Ok(tasks);
        }
        sleep(LOOK).await;
    }
}

/// All tasks that drivers of this runner started and that are meant to run.
pub async fn tasks_of_runner(call: &Call, fargate: &Fargate) -> Result<Vec<Task>, CallError> {
    let arns = fargate.list_tasks(&call.started_by()).await?;
    fargate.describe(&arns).await
}
