use std::time::{Duration, Instant};

use embedded::gitlab::{Config, Endpoint, Fault, Rule, Status};
use reqwest::Method;
use serde_json::json;

use crate::client::{PATIENCE, job, pipeline, world, world_with};

#[tokio::test]
async fn a_dropped_request_has_no_effect_and_a_lost_answer_has() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let patch = || {
        let request = world.api(Method::PATCH, &format!("jobs/{}/trace", taken.id()));
        request.header("JOB-TOKEN", taken.token()).header("Content-Range", "0-2").body("abc").send()
    };
    world.server.faults().add(Rule::new(Endpoint::Trace, Fault::Dropped));
    assert!(patch().await.is_err());
    assert_eq!(world.server.job(taken.id()).expect("a job").trace_size, 0);
    world.server.faults().add(Rule::new(Endpoint::Trace, Fault::AnswerLost).job(taken.id()));
    assert!(patch().await.is_err());
    assert_eq!(world.server.job(taken.id()).expect("a job").trace_size, 3);
    let answer = patch().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["range"]), (416, &"0-3".parse().expect("a header")));
    let log = world.server.requests();
    let statuses: Vec<_> = log.iter().filter(|one| one.method == "PATCH").map(|one| one.status).collect();
    assert_eq!(statuses, [None, None, Some(416)]);
}

#[tokio::test]
async fn faults_answer_instead_of_the_server_as_often_as_they_are_told() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let faults = world.server.faults();
    faults.add(Rule::new(Endpoint::FinalUpdate, Fault::Status(500)).times(2));
    let too_many = Fault::TooManyRequests { retry_after: Duration::from_secs(9) };
    faults.add(Rule::new(Endpoint::FinalUpdate, too_many).after(2));
    faults.add(Rule::new(Endpoint::FinalUpdate, Fault::Html).after(3));
    faults.add(Rule::new(Endpoint::FinalUpdate, Fault::StillArchiving).after(4).times(2));
    assert_eq!(taken.update(json!({ "state": "running" })).await.status, 200, "not the final one");
    let done = json!({ "state": "success", "output": {} });
    for _ in 0..2 {
        assert_eq!(taken.update(done.clone()).await.status, 500);
    }
    let answer = taken.update(done.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("9")));
    let answer = taken.update(done.clone()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    for _ in 0..2 {
        assert_eq!(taken.update(done.clone()).await.status, 202);
    }
    assert_eq!(world.server.job(taken.id()).expect("a job").status, Status::Running);
    assert_eq!(taken.update(done).await.status, 200);
    assert_eq!((world.server.job(taken.id()).expect("a job").status, faults.left()), (Status::Success, 0));
}

#[tokio::test]
async fn a_trace_can_lose_a_part_or_be_ahead_of_its_writer() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    taken.append(0, b"0123456789").await;
    world.server.faults().add(Rule::new(Endpoint::Trace, Fault::TraceLost { keep: 4 }));
    let answer = taken.append(10, b"abc").await;
    assert_eq!((answer.status.as_u16(), answer.header("range")), (416, Some("0-4")));
    assert_eq!(taken.append(4, b"456789").await.status, 202);
    world.server.faults().add(Rule::new(Endpoint::Trace, Fault::TraceAhead));
    let answer = taken.append(10, b"abc").await;
    assert_eq!((answer.status.as_u16(), answer.header("range")), (416, Some("0-13")));
    assert_eq!(world.server.trace(taken.id()).expect("a trace"), b"0123456789abc");
}

#[tokio::test]
async fn an_unusable_payload_is_of_a_job_that_was_assigned() {
    let world = world().await;
    world.pipeline(pipeline(vec![job("a", "build")])).await;
    let fault = Fault::Payload(serde_json::Map::from_iter([("steps".to_owned(), json!("not a list"))]));
    world.server.faults().add(Rule::new(Endpoint::JobRequest, fault));
    let taken = world.runner(&[]).take().await;
    assert_eq!(taken.payload["steps"], "not a list");
    taken.fail("runner_system_failure", 0).await;
    assert_eq!(world.server.job(taken.id()).expect("a job").status, Status::Failed);
}

#[tokio::test]
async fn a_slow_answer_comes_late_and_takes_effect() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let delay = Duration::from_millis(60);
    world.server.faults().add(Rule::new(Endpoint::Trace, Fault::Slow(delay)));
    let start = Instant::now();
    assert_eq!(taken.append(0, b"abc").await.status, 202);
    assert!(start.elapsed() >= delay);
}

#[tokio::test]
async fn a_server_that_is_down_refuses_and_cuts_and_comes_back_on_its_port_with_its_state() {
    let world = world_with(Config { long_poll: PATIENCE, ..Config::default() }).await;
    let runner = world.runner(&[]);
    let cursor = runner.ask(None).await.header("x-gitlab-last-update").expect("a cursor").to_owned();
    let waiting = world.api(Method::POST, "jobs/request").json(&runner.request(Some(&cursor))).send();
    let waiting = tokio::spawn(waiting);
    // The long poll has no effect that could be waited for; either it is cut or it is refused.
    world.server.set_down(true).await;
    assert!(waiting.await.expect("no panic").is_err());
    let refused = world.api(Method::GET, "projects/1/jobs").send().await.expect_err("nobody listens");
    assert!(refused.is_connect(), "{refused:?}");
    world.pipeline(pipeline(vec![job("a", "build")])).await;
    world.server.set_down(false).await;
    assert_eq!(runner.ask(Some(&cursor)).await.status, 201);
}

#[tokio::test]
async fn nothing_is_left_after_the_end() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    taken.append(0, b"abc").await;
    taken.upload("", "a.zip", b"PK".to_vec()).await;
    let file = world.server.job(taken.id()).expect("a job").artifacts[0].path.clone();
    assert!(file.exists());
    let address = world.server.url().strip_prefix("http://").expect("http").to_owned();
    let directory = file.parent().and_then(|parent| parent.parent()).expect("a directory").to_owned();
    world.server.shutdown().await;
    assert!(!directory.exists());
    std::net::TcpListener::bind(&address).expect("the port is free");
}

#[tokio::test]
async fn a_predicate_is_asked_again_after_every_change() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    let finished = world.server.wait_until(|server| server.job(taken.id()).is_some_and(|job| job.status.is_complete()));
    let ((), ()) = tokio::join!(finished, taken.succeed());
}
