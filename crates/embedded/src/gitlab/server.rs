//! The routes, and what surrounds every request: the deliberate faults and the log.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State as Extract};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use serde_json::Value;

use super::answers::{Refusal, header};
use super::faults::{Endpoint, Fault};
use super::state::Shared;
use super::view::{JobId, RequestLog};
use super::wire::Wire;
use super::{artifacts, git_http, read, request, runners, update};

/// No call but an artifact's upload has a larger body.
const LARGEST_BODY: usize = 64 << 20;

pub(super) fn gitlab(shared: &Arc<Shared>) -> Router {
    let project = format!("/api/v4/projects/{}", super::PROJECT_ID);
    Router::new()
        .route("/api/v4/runners", post(runners::register).delete(runners::unregister))
        .route("/api/v4/runners/verify", post(runners::verify))
        .route("/api/v4/runners/managers", delete(runners::unregister_manager))
        .route("/api/v4/runners/reset_authentication_token", post(runners::reset_token))
        .route("/api/v4/runners/{id}", get(read::runner))
        .route("/api/v4/runners/{id}/reset_authentication_token", post(runners::reset_token_by_person))
        .route("/api/v4/user/runners", post(runners::create))
        .route("/api/v4/version", get(read::version))
        .route("/api/v4/jobs/request", post(request::request_job))
        .route("/api/v4/jobs/{id}", put(update::update_job))
        .route("/api/v4/jobs/{id}/trace", patch(update::append_trace))
        .route("/api/v4/jobs/{id}/artifacts", post(artifacts::upload).get(artifacts::download))
        .route(&format!("{project}/jobs"), get(read::jobs))
        .route(&format!("{project}/jobs/{{id}}"), get(read::job))
        .route(&format!("{project}/jobs/{{id}}/trace"), get(read::trace))
        .route(&format!("{project}/jobs/{{id}}/cancel"), post(read::cancel_job))
        .route(&format!("{project}/pipelines/{{id}}"), get(read::pipeline))
        .route(&format!("{project}/pipelines/{{id}}/cancel"), post(read::cancel_pipeline))
        .fallback(elsewhere)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(shared.clone(), surround))
        .with_state(shared.clone())
}

pub(super) fn object_storage(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/artifacts/{id}/{filename}", get(artifacts::fetch))
        .layer(middleware::from_fn_with_state(shared.clone(), surround))
        .with_state(shared.clone())
}

/// Git's paths begin with a project's, which can be anything.
async fn elsewhere(Extract(shared): Extract<Arc<Shared>>, request: Request) -> Response {
    git_http::serve(&shared, request).await.unwrap_or_else(unknown)
}

fn unknown() -> Response {
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/json")], r#"{"error":"404 Not Found"}"#).into_response()
}

async fn surround(
    Extract(shared): Extract<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
    next: Next,
) -> Response {
    let (mut request, endpoint, job) = classify(request).await;
    let mut log = begin(&request);
    let response = match shared.faults.strike(endpoint, job) {
        None => Some(next.run(request).await),
        Some(Fault::Dropped) => None,
        Some(Fault::AnswerLost) => {
            next.run(request).await;
            None
        }
        Some(Fault::Slow(delay)) => {
            let response = next.run(request).await;
            tokio::time::sleep(delay).await;
            Some(response)
        }
        Some(Fault::Status(code)) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Some(instead(request, Refusal::message(status, status.to_string())).await)
        }
        Some(Fault::TooManyRequests { retry_after }) => {
            let refusal = Refusal::message(StatusCode::TOO_MANY_REQUESTS, "429 Too Many Requests");
            let seconds = retry_after.as_secs().to_string();
            Some(instead(request, refusal.header(RETRY_AFTER.as_str(), seconds)).await)
        }
        Some(Fault::Html) => {
            let page = "<!DOCTYPE html>\n<html><body><h1>Please sign in</h1></body></html>\n";
            Some(instead(request, ([(CONTENT_TYPE, "text/html; charset=utf-8")], page)).await)
        }
        Some(for_handler) => {
            request.extensions_mut().insert(for_handler);
            Some(next.run(request).await)
        }
    };
    log.status = response.as_ref().map(|response| response.status().as_u16());
    shared.log(log);
    response.unwrap_or_else(|| {
        wire.cut();
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

/// Answers without any effect.
async fn instead(request: Request, answer: impl IntoResponse) -> Response {
    artifacts::drain(&mut request.into_body().into_data_stream()).await;
    answer.into_response()
}

/// What a request is for. Only the body of a job's update tells whether it is the final one.
async fn classify(request: Request) -> (Request, Endpoint, Option<JobId>) {
    let path = request.uri().path();
    let Some(api) = path.strip_prefix("/api/v4/") else {
        let endpoint = match path {
            // First, since a project's path can be anything.
            _ if path.contains(".git/") => Endpoint::Git,
            _ if path.starts_with("/artifacts/") => Endpoint::ObjectStorage,
            _ => Endpoint::Other,
        };
        return (request, endpoint, None);
    };
    let words: Vec<&str> = api.split('/').collect();
    let job = |id: &str| id.parse::<JobId>().ok();
    let (endpoint, job) = match (request.method(), words.as_slice()) {
        (&Method::POST, ["runners"] | ["user", "runners"]) => (Endpoint::Register, None),
        (_, ["runners", "verify"]) => (Endpoint::Verify, None),
        (_, ["runners", ..]) => (Endpoint::Runner, None),
        (_, ["jobs", "request"]) => (Endpoint::JobRequest, None),
        (&Method::PUT, ["jobs", id]) => (Endpoint::JobUpdate, job(id)),
        (_, ["jobs", id, "trace"]) => (Endpoint::Trace, job(id)),
        (&Method::POST, ["jobs", id, "artifacts"]) => (Endpoint::ArtifactUpload, job(id)),
        (_, ["jobs", id, "artifacts"]) => (Endpoint::ArtifactDownload, job(id)),
        _ => (Endpoint::Other, None),
    };
    if endpoint != Endpoint::JobUpdate {
        return (request, endpoint, job);
    }
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    let endpoint = if is_final(&bytes) { Endpoint::FinalUpdate } else { Endpoint::JobUpdate };
    (Request::from_parts(parts, Body::from(bytes)), endpoint, job)
}

fn is_final(body: &Bytes) -> bool {
    let update: Value = serde_json::from_slice(body).unwrap_or_default();
    !matches!(update["state"].as_str(), Some("running" | "pending"))
}

fn begin(request: &Request) -> RequestLog {
    let headers: &HeaderMap = request.headers();
    let names = [AUTHORIZATION.as_str(), "job-token", "private-token", "runner-token"];
    RequestLog {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        status: None,
        credentials: names.into_iter().filter(|name| headers.contains_key(*name)).collect(),
        user_agent: header(headers, USER_AGENT.as_str()).unwrap_or_default().to_owned(),
    }
}
