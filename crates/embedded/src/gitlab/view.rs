//! What a program that started the server sees of its jobs and pipelines.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;

pub type JobId = u64;
pub type PipelineId = u64;

/// A runner as the administrator's page shows it, with its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerView {
    pub id: u64,
    pub token: String,
    pub description: String,
    pub maintenance_note: String,
    pub tags: Vec<String>,
    pub run_untagged: bool,
    pub locked: bool,
    pub paused: bool,
    pub ref_protected: bool,
    /// Seconds.
    pub maximum_timeout: Option<u64>,
    /// The `system_id` of each manager that was heard of.
    pub managers: Vec<String>,
}

/// The state of a job or of a whole pipeline, in GitLab's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for earlier jobs.
    Created,
    /// Waits for a runner.
    Pending,
    Running,
    /// Cancelled, and the runner is given the time to end it.
    Canceling,
    Success,
    Failed,
    Canceled,
    Skipped,
    /// Waits for a person; of a pipeline: nothing else is left to do.
    Manual,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Canceling => "canceling",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
            Self::Manual => "manual",
        }
    }

    /// Nothing will happen to it any more, unless someone retries it.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Canceled | Self::Skipped)
    }

    /// A runner has it.
    pub fn is_on_runner(self) -> bool {
        matches!(self, Self::Running | Self::Canceling)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What happened, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum Event {
    JobState {
        job: JobId,
        name: String,
        pipeline: PipelineId,
        status: Status,
        /// GitLab's word; only with [`Status::Failed`].
        failure_reason: Option<String>,
        exit_code: Option<i32>,
        /// The job failed and a new one with its name takes its place.
        retried: bool,
    },
    /// `bytes` stand in the trace from `offset` on. After a lost part the same offsets come again.
    TraceAppended { job: JobId, offset: u64, bytes: Bytes },
    /// `status` is complete, or [`Status::Manual`] when only a person can go on.
    PipelineFinished { pipeline: PipelineId, status: Status },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    pub id: JobId,
    pub name: String,
    pub stage: String,
    pub pipeline: PipelineId,
    pub tags: Vec<String>,
    pub status: Status,
    /// GitLab's word; only with [`Status::Failed`].
    pub failure_reason: Option<String>,
    pub exit_code: Option<i32>,
    /// A failure of this job does not fail its pipeline.
    pub allow_failure: bool,
    /// A newer job of the same name took its place.
    pub retried: bool,
    /// Id of the runner that has or had it.
    pub runner: Option<u64>,
    /// `system_id` of that runner's manager.
    pub manager: Option<String>,
    pub created_at: SystemTime,
    pub queued_at: Option<SystemTime>,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    /// Bytes stored of the trace; the bytes themselves: [`super::Server::trace`].
    pub trace_size: u64,
    /// Whether the checksum and the size of the final update were those of the stored trace; `None` before, without
    /// a checksum in the update, or when the checksum of the stored trace is not known.
    pub trace_matches: Option<bool>,
    pub artifacts: Vec<ArtifactView>,
}

impl JobView {
    /// From the queue to a runner.
    pub fn queued(&self) -> Option<Duration> {
        self.started_at?.duration_since(self.queued_at?).ok()
    }

    /// From the runner's start to the final state.
    pub fn duration(&self) -> Option<Duration> {
        self.finished_at?.duration_since(self.started_at?).ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactView {
    /// `archive`, `junit`, …
    pub kind: String,
    /// `zip`, `gzip` or `raw`.
    pub format: String,
    pub filename: String,
    /// Bytes.
    pub size: u64,
    pub expire_in: Option<String>,
    /// Where its bytes are, until the server ends.
    pub path: PathBuf,
}

/// One request as it was answered; never a secret, query strings are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLog {
    pub method: String,
    pub path: String,
    /// `None` when the connection was cut instead of an answer.
    pub status: Option<u16>,
    /// Names of the headers that carried a credential (`job-token`, `authorization`, …).
    pub credentials: Vec<&'static str>,
    pub user_agent: String,
}
