//! What happens in a local pipeline, as far as people and programs are told.

use bytes::Bytes;
use embedded::gitlab::Status;

#[derive(Debug, Clone)]
pub enum Event {
    /// The servers are up; `engine` says how the tasks are kept apart.
    Started { engine: String },
    /// A job has a new state. A job that is retried comes again with a new id.
    JobState {
        job: u64,
        name: String,
        status: Status,
        /// GitLab's word; only for a failed job.
        failure_reason: Option<String>,
        exit_code: Option<i32>,
        /// The job failed and another one takes its place.
        retried: bool,
    },
    /// Bytes of a job's trace, cut anywhere; `offset` counts from the trace's first byte. After a lost part the same
    /// offsets come again.
    Log { job: u64, name: String, offset: u64, bytes: Bytes },
    /// The first Ctrl-C: jobs are being cancelled.
    Interrupted,
}
