//! What runs in a cluster.

use aws_sdk_ecs::types::DesiredStatus;

use crate::errors::CallError;
use crate::session::Session;

/// The ARNs of the tasks of a cluster that are meant to run, whoever started them; none of a cluster that is not there. Needs
/// `ecs:ListTasks`.
pub async fn running_tasks(session: &Session, cluster: &str) -> Result<Vec<String>, CallError> {
    let ecs = session.ecs();
    let mut arns = Vec::new();
    let mut next = None;
    loop {
        let page = ecs.list_tasks().cluster(cluster).desired_status(DesiredStatus::Running).set_next_token(next);
        let page = page.send().await;
        let page = match page.map_err(|error| CallError::of_sdk(&error)) {
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
