//! The job's state and its trace: PUT `jobs/:id` (4.3) and PATCH `jobs/:id/trace` (4.1).

use std::time::Duration;

use bytes::Bytes;
use job::ids::JobId;
use job::outcome::{FailureReason, Outcome};
use job::secret::{ExposeSecret, SecretString};
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, RANGE};
use reqwest::{Method, StatusCode};
use serde::Serialize;

use crate::client::{Client, JOB_TOKEN, complaint, header, is_page, sensitive};
use crate::info::Info;

const JOB_STATUS: HeaderName = HeaderName::from_static("job-status");
const UPDATE_INTERVAL: HeaderName = HeaderName::from_static("x-gitlab-trace-update-interval");

const LONGEST_INTERVAL: Duration = Duration::from_secs(900);
/// Both calls are repeated safely, so one that hangs in the network is given up.
const TIMEOUT: Duration = Duration::from_secs(120);

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

impl JobState {
    /// The final state of a job, in the words that this server knows (`features.failure_reasons`).
    pub fn of(outcome: &Outcome, known: &[String]) -> Self {
        match outcome.failure_reason() {
            None => Self::Success,
            Some(reason) => Self::Failed { reason: reason.for_server(known), exit_code: outcome.exit_code() },
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed { .. } => "failed",
        }
    }
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

#[derive(Serialize)]
struct Body<'a> {
    info: &'a Info,
    token: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'static str>,
    /// The same as in `output`, for old servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<&'a str>,
    output: Output<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
}

#[derive(Serialize)]
struct Output<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytesize: Option<u64>,
}

impl Client {
    /// PUT `jobs/:id` (4.3).
    pub async fn update_job(&self, update: &JobUpdate<'_>) -> UpdateAnswer {
        let (failure_reason, exit_code) = match update.state {
            JobState::Failed { reason, exit_code } => (Some(reason.as_str()), Some(exit_code)),
            JobState::Running | JobState::Success => (None, None),
        };
        let checksum = update.output.map(|output| format!("crc32:{:08x}", output.crc32));
        let checksum = checksum.as_deref();
        let bytesize = update.output.map(|output| output.bytes).filter(|&bytes| bytes > 0);
        let body = Body {
            info: self.info(),
            token: update.token.expose_secret(),
            state: update.state.word(),
            failure_reason,
            checksum,
            output: Output { checksum, bytesize },
            exit_code: exit_code.filter(|&code| code != 0),
        };
        let complete = |request: reqwest::RequestBuilder| {
            let request = request.header(JOB_TOKEN, sensitive(update.token)).header(ACCEPT, "application/json");
            request.timeout(TIMEOUT).json(&body)
        };
        let answer = match self.send(Method::PUT, self.url(&format!("jobs/{}", update.job)), complete).await {
            Ok(answer) => answer,
            Err(error) => {
                let result = UpdateResult::Unavailable(error.to_string());
                return UpdateAnswer { result, signal: Signal::Run, interval: None };
            }
        };
        let headers = answer.response.headers();
        let (mut signal, interval) = (signal(headers), interval(headers));
        let result = match answer.response.status() {
            StatusCode::OK if !is_page(headers) => UpdateResult::Done,
            StatusCode::ACCEPTED if !is_page(headers) => UpdateResult::NotYet,
            StatusCode::PRECONDITION_FAILED => UpdateResult::Resend,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                signal = Signal::Abort;
                UpdateResult::Gone
            }
            status => UpdateResult::Unavailable(format!("{}: {}", status.as_u16(), complaint(answer.response).await)),
        };
        UpdateAnswer { result, signal, interval }
    }

    /// PATCH `jobs/:id/trace` (4.1). `text` is not empty and at most 1 MiB.
    pub async fn patch_trace(
        &self,
        job: JobId,
        token: &SecretString,
        start: u64,
        text: Bytes,
        debug_trace: bool,
    ) -> PatchAnswer {
        // The end is inclusive, unlike that of the answer's range.
        let range = format!("{start}-{}", start + text.len() as u64 - 1);
        let complete = |request: reqwest::RequestBuilder| {
            let request = request.header(JOB_TOKEN, sensitive(token)).header(CONTENT_TYPE, "text/plain");
            request.header(CONTENT_RANGE, &range).timeout(TIMEOUT).body(text.clone())
        };
        let url = self.url(&format!("jobs/{job}/trace?debug_trace={debug_trace}"));
        let answer = match self.send(Method::PATCH, url, complete).await {
            Ok(answer) => answer,
            Err(error) => {
                let result = PatchResult::Unavailable(error.to_string());
                return PatchAnswer { result, signal: Signal::Run, interval: None };
            }
        };
        let headers = answer.response.headers();
        let (mut signal, interval) = (signal(headers), interval(headers));
        let result = match answer.response.status() {
            StatusCode::ACCEPTED if !is_page(headers) => PatchResult::Accepted,
            StatusCode::RANGE_NOT_SATISFIABLE => PatchResult::ContinueAt { at: stored(headers) },
            StatusCode::FORBIDDEN => {
                signal = Signal::Abort;
                PatchResult::Forbidden
            }
            StatusCode::NOT_FOUND => PatchResult::NotFound,
            status => PatchResult::Unavailable(format!("{}: {}", status.as_u16(), complaint(answer.response).await)),
        };
        PatchAnswer { result, signal, interval }
    }
}

fn signal(headers: &HeaderMap) -> Signal {
    match header(headers, &JOB_STATUS).as_deref() {
        Some("canceled" | "failed") => Signal::Abort,
        Some("canceling") => Signal::Cancel,
        _ => Signal::Run,
    }
}

fn interval(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = header(headers, &UPDATE_INTERVAL)?.trim().parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(LONGEST_INTERVAL))
}

/// `Range: 0-700` of a 416: the server holds 700 bytes.
fn stored(headers: &HeaderMap) -> u64 {
    header(headers, &RANGE).and_then(|range| range.split_once('-')?.1.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn the_interval_is_whole_seconds_within_bounds() {
        for (text, expected) in [("3", Some(3)), ("60", Some(60)), ("99999", Some(900)), ("0", None), ("soon", None)] {
            let interval = interval(&headers("x-gitlab-trace-update-interval", text));
            assert_eq!(interval, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn the_status_of_the_job_is_a_wish() {
        for (text, expected) in [
            ("running", Signal::Run),
            ("canceling", Signal::Cancel),
            ("canceled", Signal::Abort),
            ("failed", Signal::Abort),
        ] {
            assert_eq!(signal(&headers("job-status", text)), expected);
        }
    }

    #[test]
    fn a_missing_range_asks_for_everything() {
        assert_eq!(stored(&headers("range", "0-700")), 700);
        assert_eq!(stored(&HeaderMap::new()), 0);
        assert_eq!(stored(&headers("range", "nonsense")), 0);
    }

    #[test]
    fn an_outcome_becomes_a_state() {
        assert_eq!(JobState::of(&Outcome::Succeeded, &[]), JobState::Success);
        assert_eq!(
            JobState::of(&Outcome::ScriptFailed { exit_code: 7 }, &[]),
            JobState::Failed { reason: FailureReason::ScriptFailure, exit_code: 7 }
        );
    }
}
