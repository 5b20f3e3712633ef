use std::time::Duration;

use embedded::gitlab::{Config, Event, Status};
use reqwest::Method;
use serde_json::json;

use crate::client::{all_features, job, pipeline, send, world, world_with};

#[tokio::test]
async fn a_trace_grows_only_at_its_end() {
    let world = world_with(Config { trace_interval: Duration::from_secs(7), ..Config::default() }).await;
    let taken = world.running(job("a", "build")).await;
    let answer = taken.append(0, b"hello ").await;
    let headers = ["job-status", "range", "x-gitlab-trace-update-interval"].map(|name| answer.header(name));
    assert_eq!((answer.status.as_u16(), headers), (202, [Some("running"), Some("0-6"), Some("7")]));
    for wrong in [0, 5, 7, 100] {
        let answer = taken.append(wrong, b"world").await;
        assert_eq!((answer.status.as_u16(), answer.header("range")), (416, Some("0-6")), "at {wrong}");
    }
    assert_eq!(taken.append(6, b"world").await.header("range"), Some("0-11"));
    assert_eq!(world.server.trace(taken.id()).expect("a trace"), b"hello world");
}

#[tokio::test]
async fn a_trace_needs_its_range_and_its_token() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let path = format!("jobs/{}/trace", taken.id());
    let no_range = world.api(Method::PATCH, &path).header("JOB-TOKEN", taken.token()).body("x");
    assert_eq!(send(no_range).await.status, 400);
    let no_token = world.api(Method::PATCH, &path).header("Content-Range", "0-0").body("x");
    assert_eq!(send(no_token).await.status, 403);
    let wrong_token = world.api(Method::PATCH, &path).header("Content-Range", "0-0").header("JOB-TOKEN", "glcbt-64_no");
    assert_eq!(send(wrong_token.body("x")).await.status, 403);
    let other_job = world.api(Method::PATCH, "jobs/7/trace").header("Content-Range", "0-0");
    assert_eq!(send(other_job.header("JOB-TOKEN", taken.token()).body("x")).await.status, 403);
}

#[tokio::test]
async fn the_final_update_is_compared_with_the_stored_trace() {
    let world = world().await;
    let table = [
        (json!({ "checksum": "crc32:cbf43926", "bytesize": 9 }), Some(true)),
        (json!({ "checksum": "crc32:cbf43926", "bytesize": 8 }), Some(false)),
        (json!({ "checksum": "crc32:00000000", "bytesize": 9 }), Some(false)),
        (json!({}), None),
    ];
    for (output, expected) in table {
        let taken = world.running(job("a", "build")).await;
        assert_eq!(taken.append(0, b"123456789").await.status, 202);
        assert_eq!(taken.update(json!({ "state": "success", "output": output })).await.status, 200);
        let view = world.server.job(taken.id()).expect("a job");
        assert_eq!((view.status, view.trace_matches), (Status::Success, expected), "{output}");
        assert!(view.duration().is_some() && view.queued().is_some());
    }
}

#[tokio::test]
async fn after_the_end_every_call_is_refused_with_the_state() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    taken.fail("script_failure", 2).await;
    let view = world.server.job(taken.id()).expect("a job");
    assert_eq!((view.failure_reason.as_deref(), view.exit_code), (Some("script_failure"), Some(2)));
    let update = taken.update(json!({ "state": "running" })).await;
    assert_eq!((update.status.as_u16(), update.header("job-status")), (403, Some("failed")));
    let trace = taken.append(0, b"late").await;
    assert_eq!((trace.status.as_u16(), trace.header("job-status")), (403, Some("failed")));
    assert_eq!(taken.upload("", "a.zip", b"PK".to_vec()).await.status, 403);
}

#[tokio::test]
async fn an_update_of_the_wrong_shape_is_refused_and_changes_nothing() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let table = [
        (json!({ "state": "pending" }), 400),
        (json!({ "state": "done" }), 400),
        (json!({}), 400),
        (json!({ "state": "failed", "exit_code": "two" }), 400),
        (json!({ "state": "failed", "output": "text" }), 400),
        (json!({ "state": "failed", "failure_reason": 7 }), 400),
        (json!({ "state": "running", "output": {} }), 200),
    ];
    for (body, status) in table {
        assert_eq!(taken.update(body.clone()).await.status, status, "{body}");
    }
    let no_token = world.api(Method::PUT, &format!("jobs/{}", taken.id())).header("JOB-TOKEN", taken.token());
    assert_eq!(send(no_token.json(&json!({ "state": "success" }))).await.status, 400, "the body's token is required");
    assert_eq!(world.server.job(taken.id()).expect("a job").status, Status::Running);
}

#[tokio::test]
async fn a_reason_that_gitlab_does_not_know_becomes_unknown_failure() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    taken.fail("job_canceled", 0).await;
    assert_eq!(world.server.job(taken.id()).expect("a job").failure_reason.as_deref(), Some("unknown_failure"));
}

#[tokio::test]
async fn a_trace_above_the_limit_fails_the_job() {
    let world = world_with(Config { trace_limit: 10, ..Config::default() }).await;
    let taken = world.running(job("a", "build")).await;
    assert_eq!(taken.append(0, b"1234567890").await.status, 202);
    assert_eq!(taken.append(10, b"1").await.status, 403);
    let view = world.server.job(taken.id()).expect("a job");
    assert_eq!((view.status, view.failure_reason.as_deref()), (Status::Failed, Some("trace_size_exceeded")));
}

#[tokio::test]
async fn a_graceful_manager_is_told_canceling_and_ends_the_job_itself() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    assert!(world.server.cancel_job(taken.id()));
    assert_eq!(taken.append(0, b"x").await.header("job-status"), Some("canceling"));
    let keep_alive = taken.update(json!({ "state": "running" })).await;
    assert_eq!((keep_alive.status.as_u16(), keep_alive.header("job-status")), (200, Some("canceling")));
    taken.fail("unknown_failure", 1).await;
    let view = world.server.job(taken.id()).expect("a job");
    assert_eq!((view.status, view.failure_reason), (Status::Canceled, None));
    assert!(!world.server.cancel_job(taken.id()), "it is over");
}

#[tokio::test]
async fn any_other_manager_meets_a_job_that_is_canceled_at_once() {
    let world = world().await;
    world.pipeline(pipeline(vec![job("a", "build")])).await;
    let mut runner = world.runner(&[]);
    runner.features["cancel_gracefully"] = false.into();
    let taken = runner.take().await;
    world.server.cancel_job(taken.id());
    let answer = taken.append(0, b"x").await;
    assert_eq!((answer.status.as_u16(), answer.header("job-status")), (403, Some("canceled")));
}

#[tokio::test]
async fn a_manager_that_verified_without_its_features_cannot_cancel_gracefully() {
    let world = world().await;
    world.pipeline(pipeline(vec![job("a", "build")])).await;
    let runner = world.runner(&[]);
    assert_eq!(runner.features, all_features());
    let verify = json!({ "token": runner.token, "system_id": "s_0123456789ab" });
    assert_eq!(world.post("runners/verify", verify).await.status, 200);
    let taken = runner.take().await;
    world.server.cancel_job(taken.id());
    assert_eq!(taken.append(0, b"x").await.header("job-status"), Some("canceled"));
}

#[tokio::test]
async fn a_forced_cancel_does_not_wait_for_the_runner() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    assert!(!world.server.force_cancel_job(taken.id()), "not before a cancel");
    world.server.cancel_job(taken.id());
    assert!(world.server.force_cancel_job(taken.id()));
    assert_eq!(taken.append(0, b"x").await.header("job-status"), Some("canceled"));
}

#[tokio::test]
async fn events_tell_everything_in_order() {
    let world = world().await;
    let mut events = world.server.events();
    let taken = world.running(job("a", "build")).await;
    taken.append(0, b"one").await;
    taken.append(3, b"two").await;
    taken.succeed().await;
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(match event {
            Event::JobState { name, status, .. } => format!("{name} {status}"),
            Event::TraceAppended { offset, bytes, .. } => format!("{offset} {}", String::from_utf8_lossy(&bytes)),
            Event::PipelineFinished { status, .. } => format!("pipeline {status}"),
        });
    }
    assert_eq!(told, ["a created", "a pending", "a running", "0 one", "3 two", "a success", "pipeline success"]);
}

#[tokio::test]
async fn a_thousand_traces_need_not_be_kept() {
    let world = world_with(Config { keep_traces: false, ..Config::default() }).await;
    let taken = world.running(job("a", "build")).await;
    assert_eq!(taken.append(0, b"123456789").await.status, 202);
    let output = json!({ "checksum": "crc32:cbf43926", "bytesize": 9 });
    taken.update(json!({ "state": "success", "output": output })).await;
    let view = world.server.job(taken.id()).expect("a job");
    assert_eq!((view.trace_size, view.trace_matches), (9, Some(true)));
    assert_eq!(world.server.trace(taken.id()).expect("a trace"), b"");
}

#[tokio::test]
async fn a_person_reads_jobs_and_traces_and_cancels_them() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    taken.append(0, b"hello").await;
    let person = |method: Method, path: &str| {
        let request = world.api(method, &format!("projects/1/{path}"));
        send(request.header("PRIVATE-TOKEN", world.server.personal_access_token()))
    };
    let jobs = person(Method::GET, "jobs").await;
    assert_eq!((&jobs.body[0]["name"], &jobs.body[0]["status"]), (&json!("a"), &json!("running")));
    let id = taken.id();
    assert_eq!(person(Method::GET, &format!("jobs/{id}/trace")).await.body, "hello");
    assert_eq!(person(Method::POST, &format!("jobs/{id}/cancel")).await.body["status"], "canceling");
    taken.fail("unknown_failure", 1).await;
    assert_eq!(person(Method::GET, &format!("jobs/{id}")).await.body["status"], "canceled");
    let pipeline = jobs.body[0]["pipeline"]["id"].clone();
    assert_eq!(person(Method::GET, &format!("pipelines/{pipeline}")).await.body["status"], "canceled");
    assert_eq!(person(Method::GET, "jobs/1").await.status, 404);
    assert_eq!(send(world.api(Method::GET, "projects/1/jobs")).await.status, 401);
}
