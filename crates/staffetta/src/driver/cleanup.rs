//! `cleanup`: ends the job's task and removes its metadata. Called after every `prepare`, whatever came of it.
//!
//! It has its own time: the job's may be over long since, and a task that nobody stops is paid for.

use std::time::{Duration, Instant, SystemTime};

use aws::fargate::{CallError, Fargate, Task};
use job::ids::TaskArn;
use job::task;
use tokio::time::sleep;

use super::metadata::{Kept, Metadata, Store};
use super::{Call, Failure, sweep, warn};

/// StopTask is repeated until it is taken.
const STOP_RETRY: Duration = Duration::from_secs(5);
const STOP_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// ECS lists a task a little later than RunTask names it, and the RunTask of a killed call may still be under way.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(1);

pub async fn cleanup(call: &Call) -> Result<(), Failure> {
    let store = call.store()?;
    let fargate = end_what_was_started(call, &store).await?;
    sweep::sweep(call, &fargate, SystemTime::now()).await;
    Ok(())
}

/// Ends whatever earlier calls of this job started, and forgets it. Succeeds when there is nothing to do.
pub async fn end_what_was_started(call: &Call, store: &Store) -> Result<Fargate, Failure> {
    let kept = match store.read()? {
        Kept::Metadata(metadata) => Some(metadata),
        Kept::Nothing => None,
        Kept::Unreadable(reason) => {
            warn(format_args!("{reason}; looking for the job's task in ECS"));
            None
        }
    };
    let fargate = call.fargate(kept.as_deref()).await?;
    match kept.as_deref().and_then(Metadata::arn) {
        Some(arn) => stop(&fargate, &arn).await?,
        None => {
            let patience = if kept.is_some() { SETTLE } else { Duration::ZERO };
            for task in started_for(call, &fargate, patience).await? {
                stop(&fargate, &task.arn).await?;
            }
        }
    }
    store.remove()?;
    Ok(fargate)
}

/// The tasks in ECS that were started for this job; looks until one is there or `patience` is over.
async fn started_for(call: &Call, fargate: &Fargate, patience: Duration) -> Result<Vec<Task>, Failure> {
    let job = call.job.id.to_string();
    let give_up = Instant::now() + patience;
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
pub async fn tasks_of_runner(call: &Call, fargate: &Fargate) -> Result<Vec<Task>, Failure> {
    let ask = async {
        let arns = fargate.list_tasks(&call.started_by()).await?;
        fargate.describe(&arns).await
    };
    ask.await.map_err(|error| Failure::System(format!("cannot look for tasks of this job in ECS: {error}")))
}

/// A task that has ended already counts as stopped.
async fn stop(fargate: &Fargate, arn: &TaskArn) -> Result<(), Failure> {
    let give_up = Instant::now() + STOP_PATIENCE;
    loop {
        match fargate.stop_task(arn, "the job is over").await {
            Ok(()) => return Ok(()),
            // Nor would another try be allowed.
            Err(error) if Instant::now() < give_up && !matches!(error, CallError::Refused(_)) => {
                warn(format_args!("cannot stop the task {}: {error}; trying again", arn.id()));
                sleep(STOP_RETRY).await;
            }
            Err(error) => return Err(Failure::System(format!("cannot stop the task {}: {error}", arn.id()))),
        }
    }
}
