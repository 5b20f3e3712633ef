//! `POST jobs/request`: the cursor, long polling, and who gets which job (protocol 2).

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, http};

use super::answers::{Params, Refusal};
use super::faults::Fault;
use super::payload;
use super::runners::Features;
use super::state::Shared;

/// Workhorse reads no longer body [S].
const LARGEST_BODY: usize = 4096;
const LAST_UPDATE: http::HeaderName = http::HeaderName::from_static("x-gitlab-last-update");

pub(super) async fn request_job(
    Extract(shared): Extract<Arc<Shared>>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    if body.len() > LARGEST_BODY {
        return Err(Refusal::message(StatusCode::PAYLOAD_TOO_LARGE, "413 Request Entity Too Large"));
    }
    let params = Params::read(&headers, &body)?;
    let token = params.required("token")?;
    let last_update = params.string("last_update")?.filter(|cursor| !cursor.is_empty());
    let (system_id, features) = (params.string("system_id")?, Features::read(&params)?);
    if let Some(session) = params.object("session")? {
        for key in ["url", "certificate", "authorization"] {
            session.string(key)?;
        }
    }
    if let Some(last_update) = &last_update
        && waited(&shared, &token, last_update).await
    {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    shared.change(|state| {
        let now = SystemTime::now();
        let runner = state.runner_by_token(&token).ok_or_else(Refusal::forbidden)?;
        runner.contact(system_id.as_deref(), features.as_ref(), now);
        let (id, cursor) = (runner.id, runner.cursor.borrow().clone());
        let nothing = || (StatusCode::NO_CONTENT, [(LAST_UPDATE, cursor.clone())]).into_response();
        if runner.paused || last_update.as_ref() == Some(&cursor) {
            return Ok(nothing());
        }
        let system_id = system_id.as_deref().unwrap_or("<legacy>");
        let Some(job) = state.assign(id, system_id, &features.unwrap_or_default(), now) else { return Ok(nothing()) };
        let mut payload = payload::of(&shared, state, job).ok_or_else(|| Refusal::not_found("Job"))?;
        if let Some(Fault::Payload(fields)) = extensions.get::<Fault>() {
            for (field, value) in fields {
                payload[field] = value.clone();
            }
        }
        Ok((StatusCode::CREATED, Json(payload)).into_response())
    })
}

/// Workhorse's part. True: the time passed, or the cursor changed while waiting; either way the runner asks again
/// and only then gets the job. False: go on at once.
async fn waited(shared: &Shared, token: &str, last_update: &str) -> bool {
    if shared.config.long_poll.is_zero() {
        return false;
    }
    let subscribe = |runner: &super::runners::Runner| runner.cursor.subscribe();
    let cursor = shared.look(|state| state.runners.values().find(|runner| runner.token == token).map(subscribe));
    let Some(mut cursor) = cursor else { return false };
    if *cursor.borrow() != last_update {
        return false;
    }
    // The runner may be deleted meanwhile (an error): that is a change too.
    let _ = tokio::time::timeout(shared.config.long_poll, cursor.wait_for(|now| now != last_update)).await;
    true
}
