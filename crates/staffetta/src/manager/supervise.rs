//! Supervise: after the hand-over the manager only looks. It sees the end of the task, and makes sure of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws::fargate::Task;
use gitlab::JobAccess;
use job::outcome::Outcome;
use job::trace::TraceSettings;
use tokio::sync::watch::Receiver;
use tracing::{info, warn};

use super::finish::{self, Verdict};
use super::runner::Runner;
use super::stop::{self, Stop};

/// Fargate kills what is left of a task 120 s after StopTask at the latest; ECS says so soon after.
const STOP_LIMIT: Duration = Duration::from_secs(150);

/// A job that an agent has. Small, because there may be thousands.
pub struct Supervised {
    pub runner: Arc<Runner>,
    pub access: JobAccess,
    pub task: Task,
    pub settings: TraceSettings,
    pub known: Vec<String>,
    /// By then the agent has ended the job by itself, or it is stuck.
    pub deadline: Instant,
    /// Started by this manager, in this life or an earlier one; the tasks of others are never stopped by a signal.
    pub ours: bool,
}

impl Supervised {
    /// Returns when the task has ended. A manager that leaves a job to its agent just drops this.
    pub async fn until_ended(self, mut stop: Receiver<Stop>) {
        let task = self.runner.fargate.watch(&self.task);
        let (job, arn) = (self.access.id, &self.task.arn);
        let over = tokio::select! {
            over = ended(task.clone()) => Ok(over),
            () = stop::cancelled(&mut stop), if self.ours => Err("the manager was told to stop at once"),
            () = tokio::time::sleep_until(self.deadline.into()) => {
                warn!(%job, task = %arn.id(), "the job is long over its time-out; stopping its task");
                Err("the job was long over its time-out")
            }
        };
        let over = match over {
            Ok(over) => Some(over),
            Err(reason) => {
                // The agent hears of the stop by SIGTERM and reports the job.
                finish::stop_task(&self.runner, arn, reason).await;
                tokio::time::timeout(STOP_LIMIT, ended(task)).await.ok()
            }
        };
        match over.as_ref().map(finish::verdict) {
            Some(Verdict::Reported) => info!(job = %self.access.id, task = %self.task.arn.id(), "the job ended"),
            Some(Verdict::Lost { message, failure }) => {
                self.report(&Outcome::SystemFailed { failure, message }).await;
            }
            None => self.report(&Outcome::system("the task was stopped and did not end")).await,
        }
    }

    async fn report(&self, outcome: &Outcome) {
        let rounds = self.runner.settings.job_status_final_update_retry_limit;
        finish::report_lost(&self.runner.client, &self.access, &self.settings, &self.known, rounds, outcome).await;
    }
}

async fn ended(mut task: Receiver<Task>) -> Task {
    let over = task.wait_for(Task::is_over).await.ok().map(|task| task.clone());
    match over {
        Some(task) => task,
        // The describer lives as long as its runner, and the runner as long as the job.
        None => std::future::pending().await,
    }
}
