//! The end of a job: the rest of its trace, then its final state (4.4).

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use job::outcome::{Decision, Outcome};
use job::trace::{Pipeline, Stream, TraceSettings};
use tokio::time::Instant;

use super::sending::Sent;
use super::{FIRST_INTERVAL, JobAccess, JobTrace, Shared};
use crate::client::Client;
use crate::update::{JobState, JobUpdate, PatchResult, Signal, TraceOutput, UpdateResult};

/// How long the end waits for a request under way; its effect is learned by a 416.
const FINISH_PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// GitLab defers the end of a job for five minutes, and then ends it by itself.
const LONGEST_DEFERRAL: Duration = Duration::from_secs(10 * 60);
/// How often a trace that does not match its sum is sent anew. After that GitLab gets the state without the sum: a job
/// whose log is doubtful must end all the same.
const MOST_RESENDS: u32 = 3;
/// How often the end of a trace that somebody else writes is looked for in one round.
const MOST_MOVES: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// GitLab took the final state.
    Accepted,
    /// The job was over for GitLab already.
    AlreadyOver,
}

/// GitLab could not be told, whatever was tried; it will call the job stuck.
#[derive(Debug, thiserror::Error)]
#[error("GitLab does not know how the job ended: {0}")]
pub struct ReportError(pub String);

/// The pauses between rounds that failed.
fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)))
}

impl JobTrace {
    /// Sends what is left, then the final state (4.4). `known` are the server's `failure_reasons`,
    /// `rounds` how often it is tried (GitLab's default is 10).
    pub async fn finish(&self, outcome: &Outcome, known: &[String], rounds: u32) -> Result<Reported, ReportError> {
        self.shared.buffer().close();
        self.stop_sending(FINISH_PATIENCE).await;
        if self.shared.aborted() || *outcome == Outcome::Decided(Decision::Aborted) {
            return Ok(Reported::AlreadyOver);
        }
        self.shared.buffer().interval = FIRST_INTERVAL;
        let state = JobState::of(outcome, known);
        let mut pauses = pauses().take(rounds.saturating_sub(1) as usize);
        let mut patience = Patience::new();
        loop {
            let reason = match self.shared.round(state, &mut patience).await {
                Ok(reported) => return Ok(reported),
                Err(reason) => reason,
            };
            let Some(pause) = pauses.next() else { return Err(ReportError(reason)) };
            tracing::warn!(job = %self.shared.job.id, reason, ?pause, "reporting the end of the job again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Reports a job whose trace somebody else held and lost: appends `text` (lines made by [`job::trace::line`])
    /// wherever GitLab's trace ends, then sends the final state without a checksum.
    pub async fn report_lost(
        client: &Client,
        job: &JobAccess,
        settings: &TraceSettings,
        text: &str,
        outcome: &Outcome,
        known: &[String],
        rounds: u32,
    ) -> Result<Reported, ReportError> {
        let mut pipeline = Pipeline::new(settings, 0);
        let mut stamped = Vec::new();
        pipeline.write(Stream::Runner, text.as_bytes(), SystemTime::now(), &mut stamped);
        pipeline.finish(SystemTime::now(), &mut stamped);
        let mut lost = Lost { client, job, text: stamped.into(), at: 0 };
        let state = JobState::of(outcome, known);
        let mut pauses = pauses().take(rounds.saturating_sub(1) as usize);
        let mut patience = Patience::new();
        loop {
            let reason = match lost.round(state, &mut patience).await {
                Ok(reported) => return Ok(reported),
                Err(reason) => reason,
            };
            let Some(pause) = pauses.next() else { return Err(ReportError(reason)) };
            tokio::time::sleep(pause).await;
        }
    }
}

/// How long GitLab may put off the end of one job, over all rounds.
struct Patience {
    until: Instant,
    resends: u32,
}

impl Patience {
    fn new() -> Self {
        Self { until: Instant::now() + LONGEST_DEFERRAL, resends: MOST_RESENDS }
    }

    /// Waits until GitLab may be asked again, unless that was done for long enough.
    async fn pause(&self, interval: Duration) -> Result<(), String> {
        if Instant::now() + interval > self.until {
            return Err("GitLab has not stored the trace".into());
        }
        tokio::time::sleep(interval).await;
        Ok(())
    }
}

/// What GitLab answers to a final state.
enum Final {
    Reported(Reported),
    /// The trace is not stored yet.
    Deferred(Option<Duration>),
    /// All of the trace is wanted again.
    Resend(Option<Duration>),
}

async fn send_state(
    client: &Client,
    job: &JobAccess,
    state: JobState,
    output: Option<TraceOutput>,
) -> Result<Final, String> {
    let update = JobUpdate { job: job.id, token: &job.token, state, output };
    let answer = client.update_job(&update).await;
    match answer.result {
        UpdateResult::Done => Ok(Final::Reported(Reported::Accepted)),
        UpdateResult::Gone => Ok(Final::Reported(Reported::AlreadyOver)),
        _ if answer.signal == Signal::Abort => Ok(Final::Reported(Reported::AlreadyOver)),
        UpdateResult::NotYet => Ok(Final::Deferred(answer.interval)),
        UpdateResult::Resend => Ok(Final::Resend(answer.interval)),
        UpdateResult::Unavailable(reason) => Err(reason),
    }
}

impl Shared {
    /// The rest of the trace and the final state, until GitLab has both.
    async fn round(&self, state: JobState, patience: &mut Patience) -> Result<Reported, String> {
        loop {
            self.send_rest().await?;
            let output = (patience.resends > 0).then(|| self.output());
            let interval = match send_state(&self.client, &self.job, state, output).await? {
                Final::Reported(reported) => return Ok(reported),
                Final::Deferred(interval) => interval,
                Final::Resend(_) if patience.resends == 0 => return Err("GitLab refuses the trace".into()),
                Final::Resend(interval) => {
                    patience.resends -= 1;
                    self.buffer().sent = 0;
                    interval
                }
            };
            self.obey(Signal::Run, interval);
            let interval = self.buffer().interval;
            patience.pause(interval).await?;
        }
    }

    /// A trace that GitLab does not want (403, 404) does not keep it from taking the state.
    async fn send_rest(&self) -> Result<(), String> {
        let end = self.buffer().spool.len();
        let mut moves = 0;
        loop {
            let sent = self.send_once(end).await;
            if self.aborted() {
                return Ok(());
            }
            match sent {
                Sent::All | Sent::NotFound => return Ok(()),
                Sent::Some => moves = 0,
                Sent::Moved if moves == MOST_MOVES => return Err("GitLab takes no part of the trace".into()),
                Sent::Moved => {
                    moves += 1;
                    // Twice in a row means that somebody else writes as well.
                    if moves > 1 {
                        let interval = self.buffer().interval;
                        tokio::time::sleep(interval).await;
                    }
                }
                Sent::Failed(reason) => return Err(reason),
            }
        }
    }
}

/// A trace whose beginning is known to GitLab only.
struct Lost<'a> {
    client: &'a Client,
    job: &'a JobAccess,
    /// What is still to be appended.
    text: Bytes,
    at: u64,
}

impl Lost<'_> {
    async fn round(&mut self, state: JobState, patience: &mut Patience) -> Result<Reported, String> {
        if self.append().await? == Signal::Abort {
            return Ok(Reported::AlreadyOver);
        }
        loop {
            let interval = match send_state(self.client, self.job, state, None).await? {
                Final::Reported(reported) => return Ok(reported),
                Final::Deferred(interval) => interval,
                // There is no sum that could be wrong.
                Final::Resend(_) => return Err("GitLab refuses the trace".into()),
            };
            patience.pause(interval.unwrap_or(FIRST_INTERVAL)).await?;
        }
    }

    /// The first PATCH goes to offset 0; GitLab's 416 tells the true one.
    async fn append(&mut self) -> Result<Signal, String> {
        for _ in 0..MOST_MOVES {
            if self.text.is_empty() {
                return Ok(Signal::Run);
            }
            let JobAccess { id, token } = self.job;
            let answer = self.client.patch_trace(*id, token, self.at, self.text.clone(), false).await;
            match answer.result {
                _ if answer.signal == Signal::Abort => return Ok(Signal::Abort),
                PatchResult::Accepted | PatchResult::NotFound => self.text.clear(),
                // The text is there: an earlier try took effect and its answer was lost.
                PatchResult::ContinueAt { at } if self.at > 0 && at == self.at + self.text.len() as u64 => {
                    self.text.clear();
                }
                PatchResult::ContinueAt { at } => self.at = at,
                PatchResult::Forbidden => return Ok(Signal::Abort),
                PatchResult::Unavailable(reason) => return Err(reason),
            }
        }
        Err("somebody else writes to the trace".into())
    }
}
