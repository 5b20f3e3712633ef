//! What every phase before the hand-over shares: the job, its log, and what may end it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gitlab::{JobAccess, JobState, JobUpdate, Signal};
use job::hand_over::{GitLabAccess, ResolvedSecret, RunnerSettings, TraceSoFar};
use job::outcome::{Decision, Outcome};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::job_log::JobLog;
use super::runner::Runner;
use super::stop::{self, Stop};
use crate::metrics::JobEntry;

/// After the job's own time-out the agent may still need this long to report; then its task is stopped.
pub const GRACE: Duration = Duration::from_secs(10 * 60);

/// Most hand-overs take less.
const ASK_GITLAB: Duration = Duration::from_secs(3);

/// Why a job ends before an agent has it.
#[derive(Debug)]
pub enum End {
    Report(Outcome),
    /// GitLab ended the job already; it takes no more reports.
    Aborted,
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        Self::Report(outcome)
    }
}

/// Whatever may end a job that is still the manager's.
pub struct Interrupts {
    pub signal: watch::Receiver<Signal>,
    pub stop: watch::Receiver<Stop>,
    /// GitLab answered that the job is over.
    pub gone: CancellationToken,
    pub deadline: Instant,
    pub timeout_seconds: u64,
    /// `prepare_timeout`: by when the agent must have the job, and how long that was to take.
    pub prepare: Option<(Instant, Duration)>,
}

impl Interrupts {
    pub async fn next(&mut self) -> End {
        let (end, timed_out) = match self.prepare {
            Some((end, timeout)) if end < self.deadline => {
                (end, format!("prepare timeout: exceeded timeout of {}s", timeout.as_secs()))
            }
            _ => (self.deadline, format!("execution took longer than {}s seconds", self.timeout_seconds)),
        };
        tokio::select! {
            signal = self.signal.wait_for(|signal| *signal >= Signal::Cancel) => match signal.map(|signal| *signal) {
                Ok(Signal::Abort) => End::Aborted,
                Ok(Signal::Run | Signal::Cancel) | Err(_) => Outcome::Decided(Decision::Canceled).into(),
            },
            () = self.gone.cancelled() => End::Aborted,
            stop = stop::give_up_launches(&mut self.stop) => match stop {
                Stop::Cancel => {
                    let message = "aborted: the manager was told to stop at once".to_owned();
                    Outcome::Decided(Decision::Interrupted { message }).into()
                }
                Stop::No | Stop::Drain | Stop::Leave { .. } => {
                    Outcome::system("the manager was told to stop before the job's task was ready").into()
                }
            },
            () = tokio::time::sleep_until(end.into()) => {
                Outcome::Decided(Decision::TimedOut { message: timed_out }).into()
            }
        }
    }
}

/// Everything that the phases before the hand-over share. Of the job itself only its text: many wait for their tasks, and
/// what its variables say is found out before.
pub struct Errand<'a> {
    pub shared: &'a Arc<Shared>,
    pub runner: &'a Arc<Runner>,
    pub access: &'a JobAccess,
    pub text: Box<RawValue>,
    pub settings: RunnerSettings,
    pub gitlab: GitLabAccess,
    /// Its place among the jobs that are counted.
    pub entry: JobEntry,
    /// When the job's time-out began to count.
    pub started_at: Instant,
    pub log: JobLog,
    pub interrupts: Interrupts,
    /// What the job's `secrets` are, once they are known.
    pub secrets: Vec<ResolvedSecret>,
}

impl Errand<'_> {
    /// The hand-over failed: the job is the manager's again.
    pub fn take_back(&mut self, trace: TraceSoFar) {
        self.log.reopen(trace);
        self.interrupts.signal = self.log.signal();
    }

    /// Whatever ends a job of which nothing new is written: GitLab tells of a cancel with its answers to what is sent, so it is
    /// asked.
    pub async fn ended(&mut self) -> End {
        let Errand { runner, access, interrupts, .. } = self;
        let update = JobUpdate { job: access.id, token: &access.token, state: JobState::Running, output: None };
        let asked = async {
            loop {
                tokio::time::sleep(ASK_GITLAB).await;
                let answer = runner.client.update_job(&update).await;
                match answer.signal {
                    Signal::Abort => return End::Aborted,
                    Signal::Cancel => return Outcome::Decided(Decision::Canceled).into(),
                    Signal::Run => {}
                }
            }
        };
        tokio::select! {
            end = interrupts.next() => end,
            end = asked => end,
        }
    }

    /// The job's time-outs count from now on (protocol 7.1).
    pub fn start_clock(&mut self) {
        self.started_at = Instant::now();
        self.interrupts.deadline = self.started_at + Duration::from_secs(self.interrupts.timeout_seconds);
        self.interrupts.prepare =
            self.runner.settings.prepare_timeout.map(|timeout| (self.started_at + timeout, timeout));
    }
}
