use crate::client::Client;
use job::ids::JobId;
use job::outcome::FailureReason;
use job::secret::SecretString;
use std::time::Duration;

/// What GitLab wants of a running job. It only ever rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    #[default]
    Run,
    /// Stop the script, run after_script, report (4.8).
    Cancel,
    /// The job is over for GitLab: stop everything, report nothing.
    Abort,
}

pub struct JobUpdate<'a> {
    pub job: JobId,
    pub token: &'a SecretString,
    pub state: JobState,
    /// `None` in the first update, when there is no trace yet.
    pub output: Option<TraceOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    Running,
    Success,
    /// An exit code of 0 is left out on the wire.
    Failed {
        reason: FailureReason,
        exit_code: i32,
    },
}

/// All bytes of the trace as they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceOutput {
    pub crc32: u32,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct UpdateAnswer {
    pub result: UpdateResult,
    pub signal: Signal,
    /// The pause between two updates that GitLab asks for.
    pub interval: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum UpdateResult {
    /// 200.
    Done,
    /// 202: the trace is not stored yet, repeat.
    NotYet,
    /// 412: the trace does not match its checksum, send all of it again.
    Resend,
    /// 403, 404: the job is not running.
    Gone,
    /// Anything that passes.
    Unavailable(String),
}

#[derive(Debug)]
pub struct PatchAnswer {
    pub result: PatchResult,
    pub signal: Signal,
    pub interval: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum PatchResult {
    /// 202: all bytes are stored.
    Accepted,
    /// 416: the server's trace ends at `at`, below or above what was thought.
    ContinueAt { at: u64 },
    /// 403: the job is not running any more.
    Forbidden,
    /// 404.
    NotFound,
    /// Anything that passes.
    Unavailable(String),
}

impl Client {
    /// PUT `jobs/:id` (4.3).
    pub async fn update_job(&self, _update: &JobUpdate<'_>) -> UpdateAnswer {
        todo!()
    }

    /// PATCH `jobs/:id/trace` (4.1). `text` is not empty and at most 1 MiB.
    pub async fn patch_trace(
        &self,
        _job: JobId,
        _token: &SecretString,
        _start: u64,
        _text: bytes::Bytes,
        _debug_trace: bool,
    ) -> PatchAnswer {
        todo!()
    }
}
