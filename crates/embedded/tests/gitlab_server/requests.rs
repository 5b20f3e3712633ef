use std::time::Duration;

use embedded::gitlab::ci::{self, AllowFailure, Artifacts};
use embedded::gitlab::{Config, PipelineSource, Status, Variable};
use serde_json::{Value, json};

use crate::client::{PATIENCE, git, job, pipeline, send, world, world_with};

#[tokio::test]
async fn tags_decide_which_runner_gets_a_job_and_the_oldest_goes_first() {
    let world = world().await;
    let jobs = [("a", "dev"), ("b", "prod"), ("c", "dev")]
        .map(|(name, tag)| ci::Job { tags: vec![tag.into()], ..job(name, "build") });
    world.pipeline(pipeline(jobs.to_vec())).await;
    let (dev, any) = (world.runner(&["dev", "linux"]), world.runner(&[]));
    assert_eq!(any.ask(None).await.status, 204);
    assert_eq!(dev.take().await.name(), "a");
    assert_eq!(dev.take().await.name(), "c");
    assert_eq!(dev.ask(None).await.status, 204);
    assert_eq!(world.runner(&["prod"]).take().await.name(), "b");
}

#[tokio::test]
async fn a_request_of_wrong_types_is_refused() {
    let world = world().await;
    let token = world.runner(&[]).token;
    let table = [
        (json!({ "token": "glrt-wrong" }), 403),
        (json!({}), 400),
        (json!([]), 400),
        (json!({ "token": 1 }), 400),
        (json!({ "token": token, "last_update": 5 }), 400),
        (json!({ "token": token, "system_id": {} }), 400),
        (json!({ "token": token, "info": [] }), 400),
        (json!({ "token": token, "info": { "name": 1 } }), 400),
        (json!({ "token": token, "info": { "features": ["artifacts"] } }), 400),
        (json!({ "token": token, "info": { "features": { "artifacts": "maybe" } } }), 400),
        (json!({ "token": token, "info": { "labels": { "a": 1 } } }), 400),
        (json!({ "token": token, "session": { "url": 1 } }), 400),
        (json!({ "token": token, "info": { "version": "x".repeat(5000) } }), 413),
        (json!({ "token": token, "info": null, "unknown": 1 }), 204),
    ];
    for (body, status) in table {
        let shown: String = body.to_string().chars().take(80).collect();
        assert_eq!(world.post("jobs/request", body).await.status, status, "{shown}");
    }
    let text = world.api(reqwest::Method::POST, "jobs/request").header("Content-Type", "text/html").body("token=1");
    assert_eq!(send(text).await.status, 415);
}

#[tokio::test]
async fn a_current_cursor_means_no_job_until_one_is_queued() {
    let world = world().await;
    let runner = world.runner(&[]);
    let answer = runner.ask(None).await;
    let cursor = answer.header("x-gitlab-last-update").expect("a cursor").to_owned();
    let again = runner.ask(Some(&cursor)).await;
    assert_eq!((again.status.as_u16(), again.header("x-gitlab-last-update")), (204, Some(cursor.as_str())));
    world.pipeline(pipeline(vec![ci::Job { tags: vec!["other".into()], ..job("other", "build") }])).await;
    assert_eq!(runner.ask(None).await.header("x-gitlab-last-update"), Some(cursor.as_str()), "not its job");
    world.pipeline(pipeline(vec![job("own", "build")])).await;
    assert_eq!(runner.ask(Some(&cursor)).await.status, 201);
}

#[tokio::test]
async fn a_long_poll_ends_empty_when_a_job_comes_and_the_next_request_gets_it() {
    let world = world_with(Config { long_poll: PATIENCE, ..Config::default() }).await;
    let runner = world.runner(&[]);
    // Without a cursor nobody waits.
    let cursor = runner.ask(None).await.header("x-gitlab-last-update").expect("a cursor").to_owned();
    let waiting = runner.ask(Some(&cursor));
    let queue = world.pipeline(pipeline(vec![job("a", "build")]));
    let (answer, _) = tokio::join!(waiting, queue);
    assert_eq!((answer.status.as_u16(), answer.header("x-gitlab-last-update")), (204, None));
    assert_eq!(runner.ask(Some(&cursor)).await.status, 201);
}

#[tokio::test]
async fn a_long_poll_without_work_ends_with_its_time() {
    let world = world_with(Config { long_poll: Duration::from_millis(50), ..Config::default() }).await;
    let runner = world.runner(&[]);
    let cursor = runner.ask(None).await.header("x-gitlab-last-update").expect("a cursor").to_owned();
    let answer = runner.ask(Some(&cursor)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gitlab-last-update")), (204, None));
}

#[tokio::test]
async fn a_job_that_needs_an_unknown_feature_is_dropped_and_the_next_one_given() {
    let world = world().await;
    let reports = Artifacts { reports: vec![("junit".into(), vec!["r.xml".into()])], ..Artifacts::default() };
    let exclude = Artifacts { paths: vec!["a".into()], exclude: vec!["b".into()], ..Artifacts::default() };
    let jobs = vec![
        ci::Job { artifacts: Some(reports), ..job("reports", "build") },
        ci::Job { artifacts: Some(exclude), ..job("exclude", "build") },
        ci::Job { allow_failure: AllowFailure::ExitCodes(vec![3]), ..job("exit codes", "build") },
        job("plain", "build"),
    ];
    world.pipeline(pipeline(jobs)).await;
    let mut runner = world.runner(&[]);
    runner.features = json!({ "artifacts": true, "artifacts_exclude": false });
    assert_eq!(runner.take().await.name(), "plain");
    for name in ["reports", "exclude", "exit codes"] {
        let view = world.server.job_named(name).expect("a job");
        assert_eq!(
            (view.status, view.failure_reason.as_deref()),
            (Status::Failed, Some("runner_unsupported")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_payload_holds_what_gitlab_sends() {
    let variables = vec![Variable::new("SECRET", "hunter22").masked(), Variable::new("KUBECONFIG", "a: b").file()];
    let config = Config { long_poll: Duration::ZERO, variables, ..Config::default() };
    let world = world_with(config).await;
    let artifacts = Artifacts {
        paths: vec!["dist/".into()],
        expire_in: Some("1 week".into()),
        when: ci::SaveWhen::Always,
        reports: vec![("junit".into(), vec!["report.xml".into()])],
        ..Artifacts::default()
    };
    let one = ci::Job {
        before_script: vec!["first".into()],
        script: vec!["second".into()],
        after_script: vec!["last".into()],
        variables: vec![
            ci::Variable { key: "GREETING".into(), value: "$CI_JOB_STAGE-$SECRET".into(), raw: false },
            ci::Variable { key: "AS_IS".into(), value: "$CI_JOB_STAGE".into(), raw: true },
        ],
        artifacts: Some(artifacts),
        timeout: Some(Duration::from_secs(90)),
        image: Some(ci::Image { name: "alpine:3.22".into(), ..ci::Image::default() }),
        node: Some((2, 3)),
        ..job("build 2/3", "build")
    };
    let source = PipelineSource {
        repo: world.repo().to_owned(),
        commit: "HEAD".into(),
        git_ref: embedded::gitlab::Ref::branch("main"),
        pipeline: pipeline(vec![one]),
        variables: vec![Variable::new("GREETING", "from the pipeline").raw()],
    };
    let pipeline_id = world.server.create_pipeline(source).await.expect("a pipeline");
    let taken = world.runner(&[]).take().await;
    let payload = &taken.payload;
    let sha = git(world.repo(), &["rev-parse", "HEAD"]);

    assert!(taken.token().starts_with("glcbt-64_"));
    assert_eq!(payload["git_info"]["sha"], sha.as_str());
    assert_eq!(payload["git_info"]["depth"], 20);
    let persistent = format!("+refs/pipelines/{pipeline_id}:refs/pipelines/{pipeline_id}");
    assert_eq!(payload["git_info"]["refspecs"], json!([persistent, "+refs/heads/main:refs/remotes/origin/main"]));
    let host = world.server.url().strip_prefix("http://").expect("http");
    let url = format!("http://gitlab-ci-token:{}@{host}/group/project.git", taken.token());
    assert_eq!(payload["git_info"]["repo_url"], url.as_str());
    assert_eq!(payload["runner_info"]["timeout"], 90);
    assert_eq!(payload["steps"][0]["script"], json!(["first", "second"]));
    assert_eq!(payload["steps"][1]["name"], "after_script");
    assert_eq!(payload["image"]["name"], "alpine:3.22");
    assert_eq!(payload["artifacts"][0]["when"], "always");
    assert_eq!(payload["artifacts"][1]["artifact_format"], "gzip");
    assert_eq!(payload["artifacts"][1]["name"], "junit.xml");
    assert!(payload["features"]["failure_reasons"].as_array().is_some_and(|r| r.contains(&json!("script_failure"))));

    let expected = [
        ("CI", "true"),
        ("GITLAB_CI", "true"),
        ("CI_JOB_NAME", "build 2/3"),
        ("CI_JOB_NAME_SLUG", "build-2-3"),
        ("CI_NODE_INDEX", "2"),
        ("CI_NODE_TOTAL", "3"),
        ("CI_COMMIT_SHA", &sha),
        ("CI_COMMIT_SHORT_SHA", &sha[..8]),
        ("CI_COMMIT_BRANCH", "main"),
        ("CI_COMMIT_TITLE", "Commit 3"),
        ("CI_COMMIT_MESSAGE", "Commit 3\n\nIts description."),
        ("CI_COMMIT_DESCRIPTION", "Its description."),
        ("CI_COMMIT_AUTHOR", "Ada <ada@example.com>"),
        ("CI_PROJECT_PATH", "group/project"),
        ("CI_PROJECT_NAME", "project"),
        ("CI_RUNNER_DESCRIPTION", "by hand"),
        ("CI_RUNNER_TAGS", "[]"),
        ("CI_JOB_TOKEN", taken.token()),
        ("CI_REPOSITORY_URL", &url),
        ("CI_SERVER_URL", world.server.url()),
        ("AS_IS", "$CI_JOB_STAGE"),
        ("GREETING", "from the pipeline"),
        ("KUBECONFIG", "a: b"),
    ];
    for (key, value) in expected {
        assert_eq!(taken.variable(key), Some(value), "{key}");
    }
    let entry = |key: &str| -> Vec<Value> {
        let all = payload["variables"].as_array().expect("variables").iter();
        all.filter(|variable| variable["key"] == key).cloned().collect()
    };
    assert_eq!(entry("CI_JOB_TOKEN")[0]["masked"], true);
    assert_eq!(entry("SECRET")[0]["masked"], true);
    assert_eq!(entry("SECRET")[0]["public"], false);
    assert_eq!(entry("KUBECONFIG")[0]["file"], true);
    // The file's own value is still there, expanded, below the one that wins.
    assert_eq!(entry("GREETING")[0]["value"], "build-hunter22");
    assert!(taken.variable("CI_BUILDS_DIR").is_none(), "the runner sets it");
    assert!(payload.get("run").is_none(), "a null makes GitLab's own runner lose the job");
}

#[tokio::test]
async fn a_depth_of_zero_fetches_everything() {
    let world = world().await;
    let variables = vec![ci::Variable { key: "GIT_DEPTH".into(), value: "0".into(), raw: false }];
    let taken = world.running(ci::Job { variables, ..job("a", "build") }).await;
    assert_eq!(taken.payload["git_info"]["depth"], 0);
    let refspecs = taken.payload["git_info"]["refspecs"].as_array().expect("refspecs");
    assert!(refspecs.contains(&json!("+refs/heads/*:refs/remotes/origin/*")));
    assert!(refspecs.contains(&json!("+refs/tags/*:refs/tags/*")));
}
