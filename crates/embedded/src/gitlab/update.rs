//! `PUT jobs/:id` and `PATCH jobs/:id/trace` (protocol 4.1 to 4.3).

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::{Extensions, HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::answers::{Params, Refusal, header, same_secret};
use super::faults::Fault;
use super::job::{End, Job};
use super::payload::FAILURE_REASONS;
use super::runners::Features;
use super::state::{Shared, State};
use super::view::JobId;

impl State {
    /// The job of this id, if this is its token. GitLab never says 404 here, so that the runner ends the job.
    fn job_of_token(&mut self, id: JobId, token: Option<&str>) -> Result<&mut Job, Refusal> {
        let job = self.jobs.get_mut(&id).filter(|job| token.is_some_and(|token| same_secret(token, &job.token)));
        job.ok_or_else(Refusal::forbidden)
    }

    /// The same, and a runner has it now.
    pub(super) fn job_on_runner(&mut self, id: JobId, token: Option<&str>) -> Result<&mut Job, Refusal> {
        let job = self.job_of_token(id, token)?;
        if job.status.is_on_runner() { Ok(job) } else { Err(Refusal::not_processing(job.status)) }
    }
}

fn interval(shared: &Shared) -> String {
    shared.config.trace_interval.as_secs().max(1).to_string()
}

pub(super) async fn update_job(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<JobId>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let params = Params::read(&headers, &body)?;
    let token = params.required("token")?;
    let state_word = params.string("state")?.unwrap_or_default();
    let reason = params.string("failure_reason")?.filter(|reason| !reason.is_empty());
    let exit_code = params.integer("exit_code")?;
    let exit_code = exit_code.map(i32::try_from).transpose().map_err(|_| Refusal::parameter("exit_code is invalid"))?;
    let output = params.object("output")?;
    let (mut checksum, mut bytesize) = (params.string("checksum")?, None);
    if let Some(output) = &output {
        checksum = output.string("checksum")?.or(checksum);
        bytesize = output.integer("bytesize")?;
    }
    Features::read(&params)?;
    shared.change(|state| {
        let now = SystemTime::now();
        let job = state.job_on_runner(id, Some(&token))?;
        let status = match state_word.as_str() {
            "running" => StatusCode::OK,
            "success" | "failed" if extensions.get() == Some(&Fault::StillArchiving) => StatusCode::ACCEPTED,
            "success" | "failed" => {
                if let Some(checksum) = checksum {
                    let size_matches = bytesize.is_none_or(|size| size.unsigned_abs() == job.trace.size());
                    job.trace_matches = job.trace.checksum().map(|known| known == checksum && size_matches);
                }
                let end = if state_word == "success" {
                    End::Success
                } else {
                    End::Failed { reason: known_reason(reason), exit_code }
                };
                state.end(id, end, now);
                StatusCode::OK
            }
            _ => StatusCode::BAD_REQUEST,
        };
        let job_status = state.job_of_token(id, Some(&token))?.status.word();
        let headers = [("job-status", job_status.to_owned()), ("x-gitlab-trace-update-interval", interval(&shared))];
        Ok((status, headers, status.as_u16().to_string()).into_response())
    })
}

/// A word that GitLab does not know is `unknown_failure`.
fn known_reason(reason: Option<String>) -> String {
    reason.filter(|reason| FAILURE_REASONS.contains(&reason.as_str())).unwrap_or_else(|| "unknown_failure".into())
}

pub(super) async fn append_trace(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<JobId>,
    uri: Uri,
    extensions: Extensions,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let query = Params::query(&uri)?;
    let token = query.string("token")?;
    query.boolean("debug_trace")?;
    let token = token.as_deref().or(header(&headers, "job-token"));
    shared.change(|state| {
        let job = state.job_on_runner(id, token)?;
        let range = header(&headers, "content-range");
        let range =
            range.ok_or_else(|| Refusal::message(StatusCode::BAD_REQUEST, "400 Missing header Content-Range"))?;
        if let Some(Fault::TraceLost { keep }) = extensions.get() {
            job.trace.cut(*keep).map_err(|error| Refusal::disk(&error))?;
        }
        // As Ruby's `to_i` has it: what is not a number is 0.
        let start: u64 = range.split('-').next().and_then(|start| start.trim().parse().ok()).unwrap_or(0);
        let (size, status) = (job.trace.size(), job.status.word());
        if start.saturating_add(body.len() as u64) > shared.config.trace_limit {
            let end = End::Failed { reason: "trace_size_exceeded".into(), exit_code: None };
            state.end(id, end, SystemTime::now());
            return Err(Refusal::forbidden());
        }
        let mismatch = |size: u64| {
            Refusal::message(StatusCode::RANGE_NOT_SATISFIABLE, "416 Range Not Satisfiable")
                .header("range", format!("0-{size}"))
        };
        if start != size {
            return Err(mismatch(size));
        }
        let size = state.append_trace(id, body).map_err(|error| Refusal::disk(&error))?;
        if extensions.get() == Some(&Fault::TraceAhead) {
            return Err(mismatch(size));
        }
        let headers = [
            ("job-status", status.to_owned()),
            ("range", format!("0-{size}")),
            ("x-gitlab-trace-update-interval", interval(&shared)),
        ];
        Ok((StatusCode::ACCEPTED, headers, "0").into_response())
    })
}

#[cfg(test)]
mod tests {
    use super::known_reason;

    #[test]
    fn only_reasons_that_gitlab_knows_are_kept() {
        assert_eq!(known_reason(Some("runner_system_failure".into())), "runner_system_failure");
        assert_eq!(known_reason(Some("job_canceled".into())), "unknown_failure");
        assert_eq!(known_reason(None), "unknown_failure");
    }
}
