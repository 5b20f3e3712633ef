//! The few calls by which a person looks at runners, pipelines and jobs, and cancels these, with a personal access token.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State as Extract};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answers::Refusal;
use super::runners::authenticate_person;
use super::state::{Pipeline, Shared, State};
use super::variables::rfc3339;
use super::view::{JobId, JobView, PipelineId};

pub(super) async fn version(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    Ok(Json(json!({ "version": super::VERSION, "revision": "embedded" })).into_response())
}

pub(super) async fn runner(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let view = shared.look(|state| state.runners.get(&id).map(|runner| runner.view()));
    let runner = view.ok_or_else(|| Refusal::not_found("Runner"))?;
    let access_level = if runner.ref_protected { "ref_protected" } else { "not_protected" };
    let answer = json!({
        "id": runner.id,
        "description": runner.description,
        "maintenance_note": runner.maintenance_note,
        "active": !runner.paused,
        "paused": runner.paused,
        "locked": runner.locked,
        "access_level": access_level,
        "run_untagged": runner.run_untagged,
        "tag_list": runner.tags,
        "maximum_timeout": runner.maximum_timeout,
    });
    Ok(Json(answer).into_response())
}

pub(super) async fn jobs(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let jobs: Vec<Value> = shared.look(|state| state.views().iter().rev().map(|job| job_json(&shared, job)).collect());
    Ok(Json(jobs).into_response())
}

pub(super) async fn job(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<JobId>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let view = shared.look(|state| state.jobs.get(&id).map(|job| job.view()));
    Ok(Json(job_json(&shared, &view.ok_or_else(|| Refusal::not_found("Job"))?)).into_response())
}

pub(super) async fn trace(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<JobId>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let bytes = shared.look(|state| state.jobs.get(&id).map(|job| job.trace.read()));
    let bytes = bytes.ok_or_else(|| Refusal::not_found("Job"))?.map_err(|error| Refusal::disk(&error))?;
    Ok(([(CONTENT_TYPE, "text/plain")], bytes).into_response())
}

pub(super) async fn pipeline(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<PipelineId>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let found = shared.look(|state| Some(pipeline_json(&shared, state, state.pipelines.get(&id)?)));
    Ok(Json(found.ok_or_else(|| Refusal::not_found("Pipeline"))?).into_response())
}

pub(super) async fn cancel_job(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<JobId>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let view = shared.change(|state| {
        state.cancel(id, SystemTime::now());
        state.jobs.get(&id).map(|job| job.view())
    });
    let view = view.ok_or_else(|| Refusal::not_found("Job"))?;
    Ok((StatusCode::CREATED, Json(job_json(&shared, &view))).into_response())
}

pub(super) async fn cancel_pipeline(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<PipelineId>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let found = shared.change(|state| {
        state.cancel_pipeline(id, SystemTime::now());
        Some(pipeline_json(&shared, state, state.pipelines.get(&id)?))
    });
    Ok(Json(found.ok_or_else(|| Refusal::not_found("Pipeline"))?).into_response())
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(|time| rfc3339(Some(time)))
}

fn job_json(shared: &Shared, job: &JobView) -> Value {
    let artifacts: Vec<Value> = (job.artifacts.iter())
        .map(|artifact| {
            json!({
                "file_type": artifact.kind, "file_format": artifact.format, "filename": artifact.filename,
                "size": artifact.size,
            })
        })
        .collect();
    json!({
        "id": job.id,
        "name": job.name,
        "stage": job.stage,
        "status": job.status,
        "failure_reason": job.failure_reason,
        "exit_code": job.exit_code,
        "allow_failure": job.allow_failure,
        "retried": job.retried,
        "created_at": time(Some(job.created_at)),
        "started_at": time(job.started_at),
        "finished_at": time(job.finished_at),
        "queued_duration": seconds(job.queued()),
        "duration": seconds(job.duration()),
        "tag_list": job.tags,
        "pipeline": { "id": job.pipeline },
        "runner": job.runner.map(|id| json!({ "id": id })),
        "runner_manager": job.manager.as_ref().map(|id| json!({ "system_id": id })),
        "artifacts": artifacts,
        "web_url": format!("{}/-/jobs/{}", shared.project_url(), job.id),
    })
}

fn pipeline_json(shared: &Shared, state: &State, pipeline: &Pipeline) -> Value {
    json!({
        "id": pipeline.id,
        "sha": pipeline.commit.sha,
        "ref": pipeline.git_ref.name(),
        "status": state.pipeline_status(pipeline.id),
        "source": "push",
        "created_at": time(Some(pipeline.created_at)),
        "web_url": format!("{}/-/pipelines/{}", shared.project_url(), pipeline.id),
    })
}
