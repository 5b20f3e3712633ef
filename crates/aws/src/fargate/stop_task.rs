//! Stops a task, whoever asks and however often.

use job::ids::TaskArn;

use super::calls::Api;
use super::connect::Fargate;
use crate::errors::{CallError, Refusal};

impl Fargate {
    /// Asks ECS to stop a task: SIGTERM now, SIGKILL after the task definition's `stopTimeout`. Returns before it has
    /// stopped. A task that ECS does not know has stopped already. `reason` is shown in ECS.
    pub async fn stop_task(&self, arn: &TaskArn, reason: &str) -> Result<(), CallError> {
        let (ecs, cluster) = (&self.region.ecs, &self.config.cluster);
        let call = || ecs.stop_task().cluster(cluster).task(arn.as_str()).reason(reason).send();
        match self.region.ask(Api::StopTask, call).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused(refusal)) if is_unknown_task(&refusal) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// `InvalidParameterException: The referenced task was not found.`
fn is_unknown_task(refusal: &Refusal) -> bool {
    refusal.message.to_lowercase().contains("task was not found")
}
