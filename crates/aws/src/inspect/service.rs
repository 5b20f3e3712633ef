//! What ECS says about a service.

use crate::errors::CallError;
use crate::session::Session;

/// A service as DescribeServices has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `ACTIVE`, `DRAINING` or `INACTIVE`.
    pub status: String,
    /// How many tasks there are to be, and how many run.
    pub desired: u32,
    pub running: u32,
    /// Tasks of its newest deployment that did not stay up.
    pub failed: u32,
    /// In ECS's own words, the newest first.
    pub events: Vec<String>,
}

/// A service of a cluster; none if ECS does not know it. Needs `ecs:DescribeServices`.
pub async fn service(session: &Session, cluster: &str, service: &str) -> Result<Option<Service>, CallError> {
    let ecs = session.ecs();
    let asked = || async {
        let answer = ecs.describe_services().cluster(cluster).services(service).send().await;
        answer.map_err(|error| CallError::of_sdk(&error))
    };
    let answer = match session.repeated(asked).await {
        Err(CallError::Refused(refusal)) if refusal.code == "ClusterNotFoundException" => return Ok(None),
        answer => answer?,
    };
    let number = |number: i32| u32::try_from(number).unwrap_or_default();
    Ok(answer.services().first().map(|service| Service {
        status: service.status().unwrap_or_default().to_owned(),
        desired: number(service.desired_count()),
        running: number(service.running_count()),
        failed: service.deployments().first().map(|newest| number(newest.failed_tasks())).unwrap_or_default(),
        events: service.events().iter().filter_map(|event| event.message()).map(str::to_owned).collect(),
    }))
}
