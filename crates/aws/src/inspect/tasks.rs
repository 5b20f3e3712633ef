//! What runs in a cluster.

use aws_sdk_ecs::types::DesiredStatus;

use crate::errors::CallError;
use crate::session::Session;

/// ECS's limit for one DescribeTasks.
const BATCH: usize = 100;

/// The ARNs of the tasks of a cluster that are meant to run, whoever started them; none of a cluster that is not there. Needs
/// `ecs:ListTasks`.
pub async fn running_tasks(session: &Session, cluster: &str) -> Result<Vec<String>, CallError> {
    tasks(session, cluster, DesiredStatus::Running).await
}

/// Those that are meant to end or ended in the last hour. Needs `ecs:ListTasks`.
pub async fn stopped_tasks(session: &Session, cluster: &str) -> Result<Vec<String>, CallError> {
    tasks(session, cluster, DesiredStatus::Stopped).await
}

async fn tasks(session: &Session, cluster: &str, desired: DesiredStatus) -> Result<Vec<String>, CallError> {
    let ecs = session.ecs();
    let mut arns = Vec::new();
    let mut next = None;
    loop {
        let asked = || async {
            let page = ecs.list_tasks().cluster(cluster).desired_status(desired.clone());
            page.set_next_token(next.clone()).send().await.map_err(|error| CallError::of_sdk(&error))
        };
        let page = match session.repeated(asked).await {
            Err(CallError::Refused(refusal)) if refusal.code == "ClusterNotFoundException" => return Ok(Vec::new()),
            page => page?,
        };
        arns.extend(page.task_arns().iter().cloned());
        next = page.next_token().map(str::to_owned);
        if next.is_none() {
            return Ok(arns);
        }
    }
}

/// Which of these tasks, by their ARNs, have not come to their end; ECS forgets those that have. Needs `ecs:DescribeTasks`.
pub async fn ending_tasks(session: &Session, cluster: &str, tasks: &[String]) -> Result<Vec<String>, CallError> {
    let ecs = session.ecs();
    let mut ending = Vec::new();
    for batch in tasks.chunks(BATCH) {
        let asked = || async {
            let answer = ecs.describe_tasks().cluster(cluster).set_tasks(Some(batch.to_vec())).send().await;
            answer.map_err(|error| CallError::of_sdk(&error))
        };
        let answer = session.repeated(asked).await?;
        let left = answer.tasks().iter().filter(|task| task.last_status() != Some("STOPPED"));
        ending.extend(left.filter_map(|task| task.task_arn().map(str::to_owned)));
    }
    Ok(ending)
}
