//! Finds the tasks that a runner started, also those of a manager that is no more.

use job::ids::TaskArn;

use super::calls::Api;
use super::connect::Fargate;
use crate::errors::CallError;

impl Fargate {
    /// All tasks of the cluster with this `startedBy` that are meant to run. Tasks that were told to stop are left out,
    /// and a task started a moment ago may be: ECS is eventually consistent.
    pub async fn list_tasks(&self, started_by: &str) -> Result<Vec<TaskArn>, CallError> {
        let mut arns = Vec::new();
        let mut next: Option<String> = None;
        loop {
            // ECS allows no other filter beside startedBy.
            let call = || {
                let call = self.region.ecs.list_tasks().cluster(&self.config.cluster).started_by(started_by);
                call.set_next_token(next.clone()).send()
            };
            let page = self.region.ask(Api::ListTasks, call).await?;
            arns.extend(page.task_arns().iter().map(TaskArn::new));
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                return Ok(arns);
            }
        }
    }
}
