//! The jobs that this manager has, as `/debug/jobs/list` shows them and `gitlab_runner_jobs` counts them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Histogram;

use super::families::Families;

/// How far a job is. What happens in its task, the manager does not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// RunTask is asked for, or waits for its turn.
    RunTask,
    /// ECS starts the task.
    Start,
    HandOver,
    Agent,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::RunTask => "run_task",
            Self::Start => "start",
            Self::HandOver => "hand_over",
            Self::Agent => "agent",
        }
    }

    /// GitLab's state, stage and executor stage.
    fn labels(self) -> [&'static str; 3] {
        match self {
            Self::RunTask => ["pending", "prepare_executor", "fargate_run_task"],
            Self::Start => ["pending", "prepare_executor", "fargate_start"],
            Self::HandOver => ["pending", "prepare_executor", "fargate_hand_over"],
            Self::Agent => ["running", "agent", "fargate_agent"],
        }
    }
}

/// The short token, the name, and the manager's system id.
pub type Trio = Arc<[String; 3]>;

#[derive(Default)]
pub struct Jobs {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    jobs: BTreeMap<u64, Job>,
    runners: Vec<Trio>,
}

struct Job {
    trio: Trio,
    url: String,
    since: Instant,
    phase: Phase,
    phase_since: Instant,
}

/// A job's place in the table, until dropped.
pub struct JobEntry {
    jobs: Arc<Jobs>,
    families: Arc<Families>,
    number: u64,
    since: Instant,
    duration: Histogram,
}

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runner is counted also while it has no job.
    pub fn known(&self, trio: &Trio) {
        self.table().known(trio);
    }

    /// Forgets all runners but these and those that have jobs. Answers who is left.
    pub fn keep_only(&self, configured: &[Trio]) -> Vec<Trio> {
        let mut table = self.table();
        let Table { jobs, runners, .. } = &mut *table;
        runners.retain(|trio| configured.contains(trio) || jobs.values().any(|job| job.trio == *trio));
        runners.clone()
    }

    pub fn enter(
        self: &Arc<Self>,
        families: Arc<Families>,
        trio: Trio,
        url: String,
        duration: Histogram,
        now: Instant,
    ) -> JobEntry {
        let mut table = self.table();
        table.known(&trio);
        table.next += 1;
        let number = table.next;
        let job = Job { trio, url, since: now, phase: Phase::RunTask, phase_since: now };
        table.jobs.insert(number, job);
        JobEntry { jobs: self.clone(), families, number, since: now, duration }
    }

    pub fn count_into(&self, families: &Families, system_id: &str) {
        families.jobs.reset();
        families.tasks_running.reset();
        let table = self.table();
        let count = |trio: &Trio, [state, stage, executor_stage]: [&str; 3], number: i64| {
            let labels = [&trio[0], &trio[1], system_id, state, stage, executor_stage];
            families.jobs.with_label_values(&labels).add(number);
        };
        for trio in &table.runners {
            count(trio, ["idle"; 3], 0);
            families.tasks_running.with_label_values(&trio.each_ref()).set(0);
        }
        for job in table.jobs.values() {
            count(&job.trio, job.phase.labels(), 1);
            if job.phase == Phase::Agent {
                families.tasks_running.with_label_values(&job.trio.each_ref()).inc();
            }
        }
    }

    /// One line for each job, in GitLab's format, version 2.
    pub fn list(&self, now: Instant) -> String {
        self.table().jobs.values().fold(String::new(), |mut list, job| {
            let [state, stage, executor_stage] = job.phase.labels();
            let duration = go_duration(now.duration_since(job.since));
            let _ = writeln!(
                list,
                "url={} state={state} stage={stage} executor_stage={executor_stage} duration={duration}",
                job.url
            );
            list
        })
    }
}

impl Table {
    fn known(&mut self, trio: &Trio) {
        if !self.runners.contains(trio) {
            self.runners.push(trio.clone());
        }
    }
}

impl JobEntry {
    /// Counts the phase that ends by this.
    pub fn enters(&self, phase: Phase) {
        let mut table = self.jobs.table();
        let Some(job) = table.jobs.get_mut(&self.number) else { return };
        if job.phase == phase {
            return;
        }
        let now = Instant::now();
        let seconds = now.duration_since(job.phase_since).as_secs_f64();
        let (ended, trio) = (job.phase, job.trio.clone());
        (job.phase, job.phase_since) = (phase, now);
        drop(table);
        self.families.launch(&trio, ended.name()).observe(seconds);
    }

    /// The same for a job that an earlier manager launched.
    pub fn is_with_its_agent(self) -> Self {
        if let Some(job) = self.jobs.table().jobs.get_mut(&self.number) {
            job.phase = Phase::Agent;
        }
        self
    }
}

impl Drop for JobEntry {
    fn drop(&mut self) {
        self.jobs.table().jobs.remove(&self.number);
        self.duration.observe(self.since.elapsed().as_secs_f64());
    }
}

/// As Go prints durations: `1h2m3.5s`.
fn go_duration(duration: Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs_f64() % 60.0);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (milliseconds, text) in
            [(0, "0s"), (1500, "1.5s"), (61_000, "1m1s"), (3_600_000, "1h0m0s"), (36_061_500, "10h1m1.5s")]
        {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
