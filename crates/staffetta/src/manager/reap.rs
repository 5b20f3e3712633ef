//! Reap: what a crash left behind is found in ECS and ended, or taken up again, on the next pass.
//!
//! `startedBy` lists a runner's tasks. A task of a job that this manager holds is left alone; any
//! other is asked over SSH what it does, since any manager of the runner can derive its key.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws::fargate::Task;
use job::hand_over::AgentStatus;
use job::ids::{JobId, SystemId, TaskArn};
use job::secret::SecretString;
use job::task;
use ssh::client::Connection;
use ssh::keys::Nonce;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::runner::Runner;
use super::supervise::Visit;

/// Connections at once while a pass asks what tasks do.
const ASKED_AT_ONCE: usize = 32;
/// An idle task of another manager may still be waiting for its hand-over this long after it was created.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What is known of one task that ECS lists for the runner.
#[derive(Debug, Clone)]
pub struct Seen {
    pub task: Task,
    pub job: Option<JobId>,
    /// The manager that started it, by its own word in the task's environment.
    pub manager: Option<SystemId>,
    pub age: Duration,
    /// Until the job's time-out and every grace are over, as its manager wrote it into the task's environment.
    pub left: Option<Duration>,
    pub ending: bool,
    /// What its agent said; `None` where it could not be asked.
    pub status: Option<AgentStatus>,
    pub visit: Option<Visit>,
}

#[derive(Debug, Clone)]
pub enum Action {
    Stop {
        arn: TaskArn,
        why: &'static str,
    },
    /// Supervise a job that an earlier manager handed over.
    Adopt {
        task: Box<Task>,
        job: JobId,
        token: SecretString,
        remaining: Duration,
        visit: Visit,
        /// As the agent gave it; nothing in it is to be believed unopened.
        cache_renewal: Option<String>,
        ours: bool,
    },
}

/// Decides about every task that is not a job's of this manager. `held` are the jobs that it holds, in any phase.
pub fn plan(seen: &[Seen], held: &BTreeSet<JobId>, own: &SystemId) -> Vec<Action> {
    seen.iter().filter_map(|task| decide(task, held, own)).collect()
}

fn decide(task: &Seen, held: &BTreeSet<JobId>, own: &SystemId) -> Option<Action> {
    // Between RunTask and its answer a job is held while its task is not known yet: never judge by the ARN.
    if task.ending || task.job.is_some_and(|job| held.contains(&job)) {
        return None;
    }
    let stop = |why| Some(Action::Stop { arn: task.task.arn.clone(), why });
    let ours = task.manager.as_ref() == Some(own);
    if task.left.is_some_and(|left| left.is_zero()) {
        return stop("its job is long over its time-out");
    }
    match &task.status {
        // In a user's image job code may answer in the agent's place: it may speak for its own job only.
        Some(AgentStatus::Running { job, .. }) if Some(*job) != task.job => None,
        Some(AgentStatus::Running { job, token, remaining_seconds, cache_renewal }) => Some(Action::Adopt {
            task: Box::new(task.task.clone()),
            job: *job,
            token: token.clone(),
            // What the task says is bounded by what ECS knows: job code may say anything.
            remaining: Duration::from_secs(*remaining_seconds).min(task.left?),
            visit: task.visit.clone()?,
            cache_renewal: cache_renewal.clone(),
            ours,
        }),
        Some(AgentStatus::Finished { .. }) => stop("its job is finished"),
        // Our own system id and a job that we do not hold: the manager that started it is gone, its payload with it.
        Some(AgentStatus::Idle) if ours => stop("the manager that started it is gone"),
        Some(AgentStatus::Idle) if task.age > LAUNCH_LIMIT => stop("nobody handed it a job"),
        // One try that fails says nothing about the job: its own deadline decides.
        Some(AgentStatus::Idle) | None => None,
    }
}

/// What one look at ECS found for a runner.
#[derive(Default)]
pub struct Observed {
    /// Tasks that ECS has of it, whoever has their jobs; none where ECS could not be asked.
    pub listed: Option<usize>,
    /// Those whose jobs this manager does not hold.
    pub seen: Vec<Seen>,
}

/// One pass for one runner: list, ask, decide. The caller carries the actions out.
pub async fn observe(runner: &Arc<Runner>) -> Observed {
    let arns = match runner.fargate.list_tasks(&runner.started_by).await {
        Ok(arns) => arns,
        Err(error) => {
            warn!(runner = %runner.settings.name, %error, "cannot list the runner's tasks; trying again later");
            return Observed::default();
        }
    };
    let tasks = match runner.fargate.describe(&arns).await {
        Ok(tasks) => tasks,
        Err(error) => {
            warn!(runner = %runner.settings.name, %error, "cannot describe the runner's tasks; trying again later");
            return Observed::default();
        }
    };
    let held = runner.state.held();
    let unknown = tasks.into_iter().filter(|task| job_of(task).is_none_or(|job| !held.contains(&job)));
    let (mut seen, mut looks) = (Vec::new(), JoinSet::new());
    for task in unknown {
        // After a restart there may be a thousand, and each that does not answer takes its time.
        if looks.len() >= ASKED_AT_ONCE {
            seen.extend(looks.join_next().await.and_then(Result::ok));
        }
        looks.spawn(look(runner.clone(), task));
    }
    seen.extend(looks.join_all().await);
    if !seen.is_empty() {
        info!(runner = %runner.settings.name, tasks = seen.len(), "found tasks that no job of this manager has");
    }
    Observed { listed: Some(arns.len()), seen }
}

/// ECS's clock and ours may differ by seconds; the limits here are minutes.
fn age(task: &Task, now: SystemTime) -> Duration {
    task.timestamps.created.and_then(|created| now.duration_since(created).ok()).unwrap_or_default()
}

async fn look(runner: Arc<Runner>, task: Task) -> Seen {
    let ending = task.is_ending();
    let (status, visit) = if ending { None } else { ask(&runner, &task).await }.unzip();
    let now = SystemTime::now();
    Seen {
        job: job_of(&task),
        manager: task.environment.get(task::MANAGER).map(SystemId::new),
        age: age(&task, now),
        left: task.deadline().map(|deadline| deadline.duration_since(now).unwrap_or_default()),
        ending,
        status,
        visit,
        task,
    }
}

fn job_of(task: &Task) -> Option<JobId> {
    task.environment.get(task::JOB)?.parse().ok().map(JobId)
}

async fn ask(runner: &Runner, task: &Task) -> Option<(AgentStatus, Visit)> {
    let nonce = task.environment.get(task::NONCE)?.parse::<Nonce>().ok()?;
    let target = runner.ssh_target(task.address?, &nonce, None);
    let connection = Connection::open(&target, Duration::from_secs(10)).await.ok()?;
    // No agent was ever sent: the task waits for its hand-over.
    let status = connection.status().await.ok()?.unwrap_or(AgentStatus::Idle);
    Some((status, Visit::of(&connection, &nonce)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn seen(status: Option<AgentStatus>) -> Seen {
        Seen {
            task: Task::unseen(TaskArn::new("t/1")),
            job: Some(JobId(1)),
            manager: Some(SystemId::new("s_own")),
            age: Duration::from_secs(5),
            left: Some(HOUR),
            ending: false,
            status,
            visit: Some(Visit::made_up()),
        }
    }

    fn decided(task: Seen, held: &[u64]) -> Option<Action> {
        plan(&[task], &held.iter().copied().map(JobId).collect(), &SystemId::new("s_own")).pop()
    }

    fn running() -> AgentStatus {
        let token = "t".to_owned().into();
        AgentStatus::Running { job: JobId(1), token, remaining_seconds: 60, cache_renewal: None }
    }

    #[test]
    fn a_task_of_a_held_job_is_left_alone_in_every_state() {
        for status in [None, Some(AgentStatus::Idle), Some(running())] {
            assert!(decided(seen(status), &[1]).is_none());
        }
    }

    #[test]
    fn a_launch_of_this_managers_earlier_life_is_stopped_at_once() {
        assert!(matches!(decided(seen(Some(AgentStatus::Idle)), &[]), Some(Action::Stop { .. })));
    }

    #[test]
    fn a_running_job_of_an_earlier_life_is_adopted() {
        assert!(matches!(decided(seen(Some(running())), &[]), Some(Action::Adopt { job: JobId(1), .. })));
    }

    #[test]
    fn a_task_cannot_lengthen_its_own_deadline() {
        let token = "t".to_owned().into();
        let status = AgentStatus::Running { job: JobId(1), token, remaining_seconds: u64::MAX, cache_renewal: None };
        let Some(Action::Adopt { remaining, .. }) = decided(seen(Some(status)), &[]) else { panic!("not adopted") };
        assert_eq!(remaining, HOUR);
    }

    #[test]
    fn a_launch_of_another_manager_is_stopped_only_when_it_is_old() {
        let mut task = seen(Some(AgentStatus::Idle));
        task.manager = Some(SystemId::new("s_other"));
        assert!(decided(task.clone(), &[]).is_none());
        task.age = LAUNCH_LIMIT + Duration::from_secs(1);
        assert!(matches!(decided(task, &[]), Some(Action::Stop { .. })));
    }

    #[test]
    fn a_task_that_cannot_be_asked_is_stopped_only_after_its_own_deadline() {
        let old = Seen { age: LAUNCH_LIMIT * 2, ..seen(None) };
        assert!(decided(old.clone(), &[]).is_none(), "its job may run for hours");
        assert!(matches!(decided(Seen { left: Some(Duration::ZERO), ..old }, &[]), Some(Action::Stop { .. })));
    }

    #[test]
    fn a_task_may_not_speak_for_another_job() {
        let liar = Seen { job: Some(JobId(2)), ..seen(Some(running())) };
        assert!(decided(liar, &[]).is_none());
    }

    #[test]
    fn a_finished_task_that_still_runs_is_stopped_and_an_ending_one_is_not() {
        let finished = seen(Some(AgentStatus::Finished { job: JobId(1) }));
        assert!(matches!(decided(finished.clone(), &[]), Some(Action::Stop { .. })));
        assert!(decided(Seen { ending: true, ..finished }, &[]).is_none());
    }
}
