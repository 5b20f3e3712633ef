//! Ends the tasks of a cluster, which no cluster can be deleted with.

use crate::errors::CallError;
use crate::session::Session;

/// Stops the tasks, by their ARNs: they end in their own time. `reason` stays in ECS with each. Needs `ecs:StopTask`.
pub async fn stop_tasks(session: &Session, cluster: &str, tasks: &[String], reason: &str) -> Result<(), CallError> {
    let ecs = session.ecs();
    for task in tasks {
        let asked = || async {
            let stopped = ecs.stop_task().cluster(cluster).task(task).reason(reason).send().await;
            stopped.map_err(|error| CallError::of_sdk(&error))
        };
        match session.repeated(asked).await {
            // It went by itself meanwhile.
            Err(CallError::Refused(refusal)) if refusal.message.contains("not found") => {}
            other => drop(other?),
        }
    }
    Ok(())
}
