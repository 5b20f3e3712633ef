//! Supervise: after the hand-over the manager only looks. It sees the end of the task, and makes sure of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws::fargate::Task;
use gitlab::JobAccess;
use job::hand_over::AgentStatus;
use job::outcome::Outcome;
use job::trace::TraceSettings;
use ssh::client::Connection;
use ssh::keys::{HostKey, Nonce};
use tokio::sync::watch::Receiver;
use tracing::{info, warn};

use super::finish::{self, Verdict};
use super::runner::Runner;
use super::stop::{self, Stop};

/// Fargate kills what is left of a task 120 s after StopTask at the latest; ECS says so soon after.
const STOP_LIMIT: Duration = Duration::from_secs(150);

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// An agent beside OpenSSH is asked this often, within this time.
const VISIT_INTERVAL: Duration = Duration::from_secs(30);
const VISIT_LIMIT: Duration = Duration::from_secs(20);

/// What it takes to ask an agent that is not its container's first process.
#[derive(Debug, Clone)]
pub struct Visit {
    nonce: Nonce,
    host_key: HostKey,
}

impl Visit {
    /// `None` where the end of the agent is the end of the task.
    pub fn needed(connection: &Connection, nonce: &Nonce) -> Option<Self> {
        let visit = Self { nonce: nonce.clone(), host_key: connection.host_key().clone() };
        (!connection.is_agent_itself()).then_some(visit)
    }
}

/// A job that an agent has. Small, because there may be thousands.
pub struct Supervised {
    pub runner: Arc<Runner>,
    pub access: JobAccess,
    pub task: Task,
    pub settings: TraceSettings,
    pub known: Vec<String>,
    /// By then the agent has ended the job by itself, or it is stuck.
    pub deadline: Instant,
    pub visit: Option<Visit>,
    /// Started by this manager, in this life or an earlier one; the tasks of others are never stopped by a signal.
    pub ours: bool,
}

impl Supervised {
    /// Returns when the task has ended, with what GitLab must still be told. A manager that leaves a job to its agent
    /// just drops this.
    pub async fn until_ended(&self, mut stop: Receiver<Stop>) -> Option<Outcome> {
        let task = self.runner.fargate.watch(&self.task);
        let (job, arn) = (self.access.id, &self.task.arn);
        let over = tokio::select! {
            over = ended(task.clone()) => Ok(over),
            why = self.visited() => Err(why),
            () = stop::cancelled(&mut stop), if self.ours => Err("the manager was told to stop at once"),
            () = tokio::time::sleep_until(self.deadline.into()) => {
                Err("the job was long over its time-out")
            }
        };
        let over = match over {
            Ok(over) => Some(over),
            Err(reason) => {
                warn!(%job, task = %arn.id(), %reason, "stopping a task");
                // The agent hears of the stop by SIGTERM and reports the job.
                finish::stop_task(&self.runner, arn, reason).await;
                self.wait_for_end(task).await
            }
        };
        match over.as_ref().map(|task| finish::verdict(task, self.visit.is_none())) {
            Some(Verdict::Reported) => {
                info!(%job, task = %arn.id(), "the job ended");
                None
            }
            Some(Verdict::Lost { message, failure }) => Some(Outcome::SystemFailed { failure, message }),
            None => Some(Outcome::system("the task was stopped and did not end")),
        }
    }

    /// Asks an agent beside OpenSSH now and then; resolves when its task serves nobody any more. Job code can kill
    /// such an agent, and an image's first process may outlive its sshd.
    async fn visited(&self) -> &'static str {
        let Some(visit) = &self.visit else { return std::future::pending().await };
        loop {
            tokio::time::sleep(VISIT_INTERVAL).await;
            match self.ask(visit).await {
                Some(AgentStatus::Idle) => return "its agent is gone: something in the task ended it",
                Some(AgentStatus::Finished { .. }) => return "its job is finished",
                // A task that does not answer may be busy; ECS and the deadline have the last word.
                Some(AgentStatus::Running { .. }) | None => {}
            }
        }
    }

    async fn ask(&self, visit: &Visit) -> Option<AgentStatus> {
        let address = self.runner.fargate.watch(&self.task).borrow().address?;
        let target = self.runner.ssh_target(address, &visit.nonce, Some(visit.host_key.clone()));
        let connection = Connection::open(&target, VISIT_LIMIT).await.ok()?;
        connection.status().await.ok().flatten()
    }

    /// ECS is asked more often than for a running task: somebody waits.
    async fn wait_for_end(&self, task: Receiver<Task>) -> Option<Task> {
        let looks = async {
            loop {
                self.runner.fargate.look_now(&self.task.arn);
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            over = tokio::time::timeout(STOP_LIMIT, ended(task)) => over.ok(),
            () = looks => None,
        }
    }

    /// Tells GitLab what [`Self::until_ended`] found.
    pub async fn report(&self, outcome: &Outcome) {
        self.runner.metrics.reported(outcome);
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
