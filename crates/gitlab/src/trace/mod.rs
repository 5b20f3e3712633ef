use crate::client::Client;
use crate::update::Signal;
use job::hand_over::TraceSoFar;
use job::ids::JobId;
use job::outcome::Outcome;
use job::secret::SecretString;
use job::trace::{Stream, TraceSettings};
use tokio::sync::watch;

/// The job and the key to it.
#[derive(Debug, Clone)]
pub struct JobAccess {
    pub id: JobId,
    pub token: SecretString,
}

/// A job's trace on its way to GitLab: takes bytes at any speed, sends them in the background, and
/// carries GitLab's wishes back. A clone writes to the same trace.
#[derive(Clone)]
pub struct JobTrace {}

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

impl JobTrace {
    /// Starts sending. `so_far` is what an earlier holder of the job wrote, or the default.
    /// Must be called within a tokio runtime.
    pub fn start(
        _client: Client,
        _job: JobAccess,
        _settings: &TraceSettings,
        _so_far: TraceSoFar,
        _debug_trace: bool,
    ) -> Self {
        todo!()
    }

    /// Takes bytes of any kind; never waits for the network.
    pub fn write(&self, _stream: Stream, _bytes: &[u8]) {
        todo!()
    }

    /// One of the runner's own lines, made by [`job::trace::line`].
    pub fn line(&self, _line: &str) {
        todo!()
    }

    /// What GitLab wants, as it changes.
    pub fn signal(&self) -> watch::Receiver<Signal> {
        todo!()
    }

    /// Stops sending and gives the trace to the next holder, with what was not sent yet: that is
    /// quicker for the job than sending it first.
    pub async fn suspend(&self) -> TraceSoFar {
        todo!()
    }

    /// Sends what is left, then the final state (4.4). `known` are the server's `failure_reasons`,
    /// `rounds` how often a failed round is repeated (GitLab's default is 10).
    pub async fn finish(&self, _outcome: &Outcome, _known: &[String], _rounds: u32) -> Result<Reported, ReportError> {
        todo!()
    }

    /// Reports a job whose trace somebody else held and lost: appends `text` (lines made by [`job::trace::line`])
    /// wherever GitLab's trace ends, then sends the final state without a checksum.
    pub async fn report_lost(
        _client: &Client,
        _job: &JobAccess,
        _settings: &TraceSettings,
        _text: &str,
        _outcome: &Outcome,
        _known: &[String],
        _rounds: u32,
    ) -> Result<Reported, ReportError> {
        todo!()
    }
}
