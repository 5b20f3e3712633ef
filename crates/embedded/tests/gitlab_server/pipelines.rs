use embedded::gitlab::ci::{self, AllowFailure, Need, Retry, When};
use embedded::gitlab::{Event, PipelineError, Status};
use serde_json::json;

use crate::client::{World, job, pipeline, world};

fn states(world: &World) -> Vec<String> {
    let mut jobs = world.server.jobs();
    jobs.sort_by_key(|job| job.id);
    jobs.iter().map(|job| format!("{} {}", job.name, job.status)).collect()
}

fn need(job: &str) -> Need {
    Need { job: job.into(), artifacts: true, optional: false }
}

#[tokio::test]
async fn pipeline_stages_run_one_after_the_other() {
    let world = world().await;
    let jobs = vec![job("deploy", "deploy"), job("b1", "build"), job("b2", "build"), job("t", "test")];
    let id = world.pipeline(pipeline(jobs)).await;
    let runner = world.runner(&[]);
    let (b1, b2) = (runner.take().await, runner.take().await);
    assert_eq!((b1.name(), b2.name()), ("b1", "b2"));
    b1.succeed().await;
    assert_eq!(runner.ask(None).await.status, 204, "the stage is not over");
    b2.succeed().await;
    for name in ["t", "deploy"] {
        let taken = runner.take().await;
        assert_eq!(taken.name(), name);
        taken.succeed().await;
    }
    assert_eq!(world.server.pipeline_status(id), Some(Status::Success));
}

#[tokio::test]
async fn a_failure_skips_what_follows_and_runs_what_waits_for_it() {
    let world = world().await;
    let clean_up = ci::Job { when: When::OnFailure, ..job("clean up", "deploy") };
    let report = ci::Job { when: When::Always, ..job("report", "deploy") };
    let id = world.pipeline(pipeline(vec![job("b", "build"), job("t", "test"), clean_up, report])).await;
    let runner = world.runner(&[]);
    runner.take().await.fail("script_failure", 1).await;
    assert_eq!(states(&world), ["b failed", "t skipped", "clean up pending", "report pending"]);
    runner.take().await.succeed().await;
    runner.take().await.succeed().await;
    assert_eq!(world.server.pipeline_status(id), Some(Status::Failed));
}

#[tokio::test]
async fn needs_start_a_job_early_and_choose_its_artifacts() {
    let world = world().await;
    let no_artifacts = Need { artifacts: false, ..need("b2") };
    let jobs = vec![
        job("b1", "build"),
        job("b2", "build"),
        job("slow", "build"),
        ci::Job { needs: Some(vec![need("b1"), no_artifacts]), ..job("t", "test") },
        ci::Job { needs: Some(Vec::new()), ..job("at once", "deploy") },
    ];
    world.pipeline(pipeline(jobs)).await;
    let runner = world.runner(&[]);
    let (b1, b2, slow, at_once) = (runner.take().await, runner.take().await, runner.take().await, runner.take().await);
    assert_eq!((slow.name(), at_once.name()), ("slow", "at once"));
    assert_eq!(at_once.payload["dependencies"], json!([]));
    b1.succeed().await;
    b2.succeed().await;
    let t = runner.take().await;
    let names: Vec<_> = t.payload["dependencies"].as_array().expect("a list").iter().map(|job| &job["name"]).collect();
    assert_eq!((t.name(), names), ("t", vec![&json!("b1")]));
}

#[tokio::test]
async fn a_job_is_tried_again_under_a_new_id_for_the_reasons_it_names() {
    let world = world().await;
    let retry = Retry { max: 2, when: vec!["runner_system_failure".into()], exit_codes: vec![42] };
    let id = world.pipeline(pipeline(vec![ci::Job { retry, ..job("a", "build") }, job("t", "test")])).await;
    let mut events = world.server.events();
    let runner = world.runner(&[]);
    let first = runner.take().await;
    first.fail("runner_system_failure", 0).await;
    let second = runner.take().await;
    assert!(second.id() > first.id() && second.token() != first.token());
    assert_eq!(second.name(), "a");
    second.fail("script_failure", 42).await;
    let third = runner.take().await;
    third.fail("script_failure", 42).await;
    assert_eq!(runner.ask(None).await.status, 204, "twice is enough");
    let jobs = world.server.jobs();
    let attempts: Vec<bool> = jobs.iter().filter(|job| job.name == "a").map(|job| job.retried).collect();
    assert_eq!(attempts, [true, true, false]);
    assert_eq!(world.server.job_named("a").expect("a job").id, third.id());
    assert_eq!(world.server.pipeline_status(id), Some(Status::Failed));
    let mut finished = 0;
    while let Ok(event) = events.try_recv() {
        finished += usize::from(matches!(event, Event::PipelineFinished { .. }));
    }
    assert_eq!(finished, 1, "a retry does not finish the pipeline");
}

#[tokio::test]
async fn exit_codes_decide_whether_a_failure_is_allowed() {
    for (code, expected, status) in [(3, Status::Pending, None), (4, Status::Skipped, Some(Status::Failed))] {
        let world = world().await;
        let allow_failure = AllowFailure::ExitCodes(vec![3]);
        let jobs = vec![ci::Job { allow_failure, ..job("a", "build") }, job("next", "test")];
        let id = world.pipeline(pipeline(jobs)).await;
        let runner = world.runner(&[]);
        runner.take().await.fail("script_failure", code).await;
        assert_eq!(world.server.job_named("next").expect("a job").status, expected, "exit code {code}");
        match status {
            Some(status) => assert_eq!(world.server.pipeline_status(id), Some(status)),
            None => {
                runner.take().await.succeed().await;
                assert_eq!(world.server.pipeline_status(id), Some(Status::Success));
            }
        }
    }
}

#[tokio::test]
async fn a_manual_job_waits_for_a_person_and_takes_its_dependents_along() {
    let world = world().await;
    let manual = ci::Job { when: When::Manual, allow_failure: AllowFailure::Yes, ..job("ship", "test") };
    let after = ci::Job { needs: Some(vec![need("ship")]), ..job("after", "deploy") };
    let id = world.pipeline(pipeline(vec![job("b", "build"), manual, after])).await;
    let runner = world.runner(&[]);
    runner.take().await.succeed().await;
    assert_eq!(states(&world), ["b success", "ship manual", "after skipped"]);
    assert_eq!(world.server.pipeline_status(id), Some(Status::Success));
    let ship = world.server.job_named("ship").expect("a job").id;
    assert!(world.server.play_job(ship));
    assert!(!world.server.play_job(ship), "only once");
    runner.take().await.succeed().await;
    let after = runner.take().await;
    assert_eq!(after.name(), "after");
    after.succeed().await;
    assert_eq!(world.server.pipeline_status(id), Some(Status::Success));
}

#[tokio::test]
async fn a_cancelled_pipeline_starts_nothing_more() {
    let world = world().await;
    let jobs = vec![job("running", "build"), job("queued", "build"), job("later", "test")];
    let id = world.pipeline(pipeline(jobs)).await;
    let runner = world.runner(&[]);
    let running = runner.take().await;
    assert!(world.server.cancel_pipeline(id));
    assert_eq!(states(&world), ["running canceling", "queued canceled", "later canceled"]);
    assert_eq!(world.server.pipeline_status(id), Some(Status::Canceling));
    assert_eq!(runner.ask(None).await.status, 204);
    running.fail("unknown_failure", 1).await;
    assert_eq!(world.server.pipeline_status(id), Some(Status::Canceled));
}

#[tokio::test]
async fn a_pipeline_that_cannot_be_is_refused() {
    let world = world().await;
    let create = |one: ci::Job| {
        let source = embedded::gitlab::PipelineSource {
            repo: world.repo().to_owned(),
            commit: "HEAD".into(),
            git_ref: embedded::gitlab::Ref::branch("main"),
            pipeline: pipeline(vec![one]),
            variables: Vec::new(),
        };
        world.server.create_pipeline(source)
    };
    let error = create(job("a", "nowhere")).await.expect_err("no stage");
    assert!(matches!(error, PipelineError::UnknownStage { .. }), "{error}");
    let error = create(ci::Job { needs: Some(vec![need("ghost")]), ..job("a", "build") }).await.expect_err("no need");
    assert!(matches!(error, PipelineError::UnknownNeed { .. }), "{error}");
}

/// The rules are asked again at each end of a job, so their cost must not grow into minutes.
#[tokio::test]
async fn hundreds_of_jobs_come_to_their_end() {
    let world = world().await;
    let one =
        |n: usize| ci::Job { dependencies: Some(Vec::new()), ..job(&format!("job {n}"), ["build", "test"][n / 200]) };
    let id = world.pipeline(pipeline((0..400).map(one).collect())).await;
    let runner = world.runner(&[]);
    for _ in 0..2 {
        let mut taken = Vec::new();
        for _ in 0..200 {
            taken.push(runner.take().await);
        }
        for job in taken {
            job.succeed().await;
        }
    }
    assert_eq!(world.server.pipeline_status(id), Some(Status::Success));
    assert_eq!(world.server.count_requests(|request| request.method == "PUT" && request.status == Some(200)), 400);
}
