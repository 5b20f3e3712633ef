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

use super::cache_renewal::Renewal;
use super::cache_seal;
use super::finish::{self, Verdict};
use super::runner::Runner;
use super::stop::{self, Stop};

/// Fargate kills what is left of a task 120 s after StopTask at the latest; ECS says so soon after.
const STOP_LIMIT: Duration = Duration::from_secs(150);

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// An agent beside OpenSSH is asked this often, within this time.
const VISIT_INTERVAL: Duration = Duration::from_secs(30);
const VISIT_LIMIT: Duration = Duration::from_secs(20);

/// What it takes to speak to a job's agent again.
#[derive(Debug, Clone)]
pub struct Visit {
    nonce: Nonce,
    host_key: HostKey,
    /// The agent is its container's first process: its end is the end of the task.
    agent_itself: bool,
}

impl Visit {
    pub fn of(connection: &Connection, nonce: &Nonce) -> Self {
        let agent_itself = connection.is_agent_itself();
        Self { nonce: nonce.clone(), host_key: connection.host_key().clone(), agent_itself }
    }

    /// What an earlier manager left with the agent, if it was one of this runner.
    pub fn opened(&self, runner: &Runner, sealed: &str) -> Option<Renewal> {
        cache_seal::open(&runner.settings.token, &self.nonce, sealed)
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
    pub visit: Visit,
    /// The addresses of the job's caches end before the job may.
    pub renewal: Option<Renewal>,
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
            never = self.caches_stay_signed() => match never {},
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
                Box::pin(finish::stop_task(&self.runner, arn, reason)).await;
                self.wait_for_end(task).await
            }
        };
        match over.as_ref().map(|task| finish::verdict(task, self.visit.agent_itself)) {
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
        if self.visit.agent_itself {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(VISIT_INTERVAL).await;
            // What happens rarely has its memory only then: a job that runs keeps no room for it.
            match Box::pin(self.ask()).await {
                Some(AgentStatus::Idle) => return "its agent is gone: something in the task ended it",
                Some(AgentStatus::Finished { .. }) => return "its job is finished",
                // A task that does not answer may be busy; ECS and the deadline have the last word.
                Some(AgentStatus::Running { .. }) | None => {}
            }
        }
    }

    async fn ask(&self) -> Option<AgentStatus> {
        self.connect().await?.status().await.ok().flatten()
    }

    /// The same task must show the same host key.
    pub(super) async fn connect(&self) -> Option<Connection> {
        let address = self.runner.fargate.watch(&self.task).borrow().address?;
        let target = self.runner.ssh_target(address, &self.visit.nonce, Some(self.visit.host_key.clone()));
        Connection::open(&target, VISIT_LIMIT).await.ok()
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

#[cfg(test)]
impl Visit {
    pub fn made_up() -> Self {
        let host_key = ssh::keys::ServerKey::random().host_key();
        Self { nonce: Nonce::random(), host_key, agent_itself: true }
    }
}
