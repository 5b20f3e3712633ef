//! Ends the tasks of a cluster, which no cluster can be deleted with.

use std::time::Duration;

use crate::errors::CallError;
use crate::session::Session;

/// Between two looks at tasks that end.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// ECS's limit for one DescribeTasks.
const BATCH: usize = 100;

/// Stops the tasks, by their ARNs, and returns when none of them is there any more. `reason` stays in ECS with each. Needs
/// `ecs:StopTask` and `ecs:DescribeTasks`.
pub async fn stop_tasks(session: &Session, cluster: &str, tasks: &[String], reason: &str) -> Result<(), CallError> {
    let ecs = session.ecs();
    for task in tasks {
        let stopped = ecs.stop_task().cluster(cluster).task(task).reason(reason).send().await;
        match stopped.map_err(|error| CallError::of_sdk(&error)) {
            // It went by itself meanwhile.
            Err(CallError::Refused(refusal)) if refusal.message.contains("not found") => {}
            other => drop(other?),
        }
    }
    for batch in tasks.chunks(BATCH) {
        loop {
            let answer = ecs.describe_tasks().cluster(cluster).set_tasks(Some(batch.to_vec())).send().await;
            let answer = answer.map_err(|error| CallError::of_sdk(&error))?;
            // Those that ECS forgot are no longer among them.
            if answer.tasks().iter().all(|task| task.last_status() == Some("STOPPED")) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}
