//! The request for a job (2.1, 2.4, 2.5).

use std::time::{Duration, SystemTime};

use job::ids::SystemId;
use job::payload::{Received, Unusable};
use job::secret::{ExposeSecret, SecretString};
use reqwest::header::{ACCEPT, HeaderName};
use reqwest::{Method, StatusCode};
use serde::Serialize;

use crate::client::{Answer, Client, RUNNER_TOKEN, complaint, describe, header, is_page, sensitive};
use crate::info::Info;
use crate::retry::asked_for;

const LAST_UPDATE: HeaderName = HeaderName::from_static("x-gitlab-last-update");

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

#[derive(Serialize)]
struct Body<'a> {
    info: &'a Info,
    token: &'a str,
    system_id: &'a SystemId,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update: Option<&'a str>,
}

impl Client {
    /// Asks for a job. May take as long as GitLab's long poll.
    pub async fn request_job(&self, request: &JobRequest<'_>) -> JobReply {
        let body = Body {
            info: self.info(),
            token: request.token.expose_secret(),
            system_id: request.system_id,
            last_update: request.last_update.filter(|cursor| !cursor.is_empty()),
        };
        let complete = |http: reqwest::RequestBuilder| {
            http.header(RUNNER_TOKEN, sensitive(request.token)).header(ACCEPT, "application/json").json(&body)
        };
        match self.send(Method::POST, self.url("jobs/request"), complete).await {
            Ok(answer) => JobReply {
                last_update: header(answer.response.headers(), &LAST_UPDATE),
                pressure: answer.pressure,
                answer: self.read_job(answer).await,
            },
            Err(error) => {
                let answer = JobAnswer::Unavailable { reason: error.to_string(), retry_after: None };
                JobReply { answer, last_update: None, pressure: false }
            }
        }
    }

    async fn read_job(&self, answer: Answer) -> JobAnswer {
        let Answer { response, request_id, .. } = answer;
        match response.status() {
            StatusCode::CREATED if !is_page(response.headers()) => {
                // From here on GitLab believes that the job runs: whatever cannot be read is unusable, not unavailable.
                let received = match response.bytes().await {
                    Ok(body) => Received::parse(&body),
                    Err(error) => Err(Unusable { id: None, token: None, reason: describe(error) }),
                };
                match received {
                    Ok(received) => JobAnswer::Job(Box::new(AssignedJob {
                        received,
                        correlation_id: Some(request_id),
                        tls_chain_pem: self.certificates(),
                    })),
                    Err(unusable) => JobAnswer::Unusable(unusable),
                }
            }
            StatusCode::NO_CONTENT => JobAnswer::None,
            StatusCode::FORBIDDEN => JobAnswer::Forbidden,
            status => {
                let retry_after = asked_for(response.headers(), SystemTime::now());
                let reason = format!("GitLab answered {}: {}", status.as_u16(), complaint(response).await);
                JobAnswer::Unavailable { reason, retry_after }
            }
        }
    }
}
