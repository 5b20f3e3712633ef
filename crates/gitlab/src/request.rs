use crate::client::Client;
use job::ids::SystemId;
use job::payload::{Received, Unusable};
use job::secret::SecretString;
use std::time::Duration;

pub struct JobRequest<'a> {
    pub token: &'a SecretString,
    pub system_id: &'a SystemId,
    /// The cursor: the last [`JobReply::last_update`] that was not `None`. With it GitLab may hold the
    /// request for up to 50 s until there is work (2.5).
    pub last_update: Option<&'a str>,
}

/// GitLab's answer and what came with it.
#[derive(Debug)]
pub struct JobReply {
    pub answer: JobAnswer,
    /// The new cursor, if the answer carried one.
    pub last_update: Option<String>,
    /// The server asked for patience at least once during the call (0.4): feeds [`crate::AdaptiveConcurrency`].
    pub pressure: bool,
}

#[derive(Debug)]
pub enum JobAnswer {
    Job(Box<AssignedJob>),
    /// A job that cannot be read: where its id and token are known, the caller fails it.
    Unusable(Unusable),
    /// No job now.
    None,
    /// The token is invalid, or the runner was removed: the one unhealthy answer.
    Forbidden,
    /// Anything that passes: 409, 429, 5xx, no answer.
    Unavailable {
        reason: String,
        retry_after: Option<Duration>,
    },
}

#[derive(Debug)]
pub struct AssignedJob {
    pub received: Received,
    /// GitLab's id of the request that brought the job, for correlation in Gitaly (7.3.4).
    pub correlation_id: Option<String>,
    /// What the job sees as `CI_SERVER_TLS_CA_FILE` (0.6): the configured authority, else the
    /// certificates of the connection that brought the job.
    pub tls_chain_pem: Option<String>,
}

impl Client {
    /// Asks for a job. May take as long as GitLab's long poll.
    pub async fn request_job(&self, _request: &JobRequest<'_>) -> JobReply {
        todo!()
    }
}
