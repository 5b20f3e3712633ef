//! GitLab's own `gitlab-runner` as the client. It is not installed by `make test`: with its path in `GITLAB_RUNNER`,
//! `cargo test -p embedded --test gitlab_server -- --ignored`.

use std::path::Path;
use std::process::Stdio;

use embedded::gitlab::ci::{self, AllowFailure, Artifacts, Retry};
use embedded::gitlab::{Config, Endpoint, Fault, JobView, Rule, Status, Variable};
use reqwest::Method;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::client::{PATIENCE, World, job, pipeline, send, world_with};

fn runner(config: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var("GITLAB_RUNNER").expect("the path of gitlab-runner in GITLAB_RUNNER");
    let mut command = Command::new(program);
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null()).kill_on_drop(true);
    command.env("HOME", config.parent().expect("a directory"));
    command
}

async fn succeeds(mut command: Command) -> String {
    let output = command.output().await.expect("gitlab-runner");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

struct Manager {
    directory: tempfile::TempDir,
    child: Child,
}

impl Manager {
    /// Registers both ways, verifies both, and runs them.
    async fn start(world: &World) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("config.toml");
        let register = ["register", "--non-interactive", "--url", world.server.url(), "--executor", "shell"];
        let legacy =
            ["--registration-token", world.server.registration_token(), "--tag-list", "legacy", "--name", "old"];
        succeeds(runner(&config, &[&register[..], &legacy].concat())).await;
        let create =
            world.api(Method::POST, "user/runners").header("PRIVATE-TOKEN", world.server.personal_access_token());
        let created = send(create.json(&json!({ "runner_type": "instance_type", "tag_list": "new" }))).await.body;
        let token = created["token"].as_str().expect("a token");
        succeeds(runner(&config, &[&register[..], &["--token", token, "--name", "new"]].concat())).await;
        let said = succeeds(runner(&config, &["verify"])).await;
        assert_eq!(said.matches("is valid").count() + said.matches("is alive").count(), 2, "{said}");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        let text = text.replace("concurrent = 1", "concurrent = 4").replace("check_interval = 0", "check_interval = 1");
        std::fs::write(&config, text).expect("written");
        let work = directory.path().to_string_lossy().into_owned();
        let mut run = runner(&config, &["run", "--working-directory", &work]);
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        run.stdout(Stdio::null()).stderr(log);
        Self { child: run.spawn().expect("gitlab-runner"), directory }
    }

    async fn until(&self, world: &World, what: &str, predicate: impl Fn(&embedded::gitlab::Server) -> bool) {
        let waited = tokio::time::timeout(2 * PATIENCE, world.server.wait_until(predicate)).await;
        let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        assert!(waited.is_ok(), "{what}: {:#?}\n{:#?}\n{}", world.server.jobs(), world.server.requests(), log());
    }

    async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

fn trace(world: &World, job: &JobView) -> String {
    String::from_utf8(world.server.trace(job.id).expect("a trace")).expect("text")
}

fn scripted(name: &str, stage: &str, tag: &str, script: &[&str]) -> ci::Job {
    let script = script.iter().map(|line| (*line).to_owned()).collect();
    ci::Job { tags: vec![tag.into()], script, ..job(name, stage) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs GitLab's gitlab-runner"]
async fn gitlabs_own_runner_registers_and_runs_a_pipeline() {
    let variables = vec![Variable::new("SECRET", "hunter22hunter22").masked(), Variable::new("NOTE", "a note").file()];
    let world = world_with(Config { variables, object_storage: true, ..Config::default() }).await;
    let manager = Manager::start(&world).await;

    let reports = vec![("dotenv".into(), vec!["build.env".into()]), ("junit".into(), vec!["report.xml".into()])];
    let artifacts = Artifacts { paths: vec!["dist".into()], reports, ..Artifacts::default() };
    let build = ci::Job {
        artifacts: Some(artifacts),
        ..scripted(
            "build",
            "build",
            "legacy",
            &[
                "mkdir dist && cp file.txt dist/ && echo URL=https://example.com > build.env && echo '<a/>' > report.xml",
                "echo secret is $SECRET, note says $(cat $NOTE), commit $CI_COMMIT_SHORT_SHA",
            ],
        )
    };
    let flaky = ci::Job {
        allow_failure: AllowFailure::ExitCodes(vec![3]),
        retry: Retry { max: 1, ..Retry::default() },
        ..scripted("flaky", "build", "new", &["exit 3"])
    };
    let test = ci::Job {
        after_script: vec!["echo after $CI_JOB_STATUS".into()],
        ..scripted("test", "test", "new", &["cat dist/file.txt", "echo url $URL"])
    };
    let id = world.pipeline(pipeline(vec![build, flaky, test])).await;
    manager.until(&world, "the pipeline", |server| server.pipeline_status(id).is_some_and(Status::is_complete)).await;

    let build = world.server.job_named("build").expect("a job");
    let log = trace(&world, &build);
    assert_eq!((build.status, build.trace_matches), (Status::Success, Some(true)), "{log}");
    assert!(log.contains("secret is [MASKED], note says a note, commit "), "{log}");
    let kinds: Vec<_> = build.artifacts.iter().map(|one| (one.kind.as_str(), one.filename.as_str())).collect();
    assert_eq!(kinds, [("archive", "artifacts.zip"), ("dotenv", ".env.gz"), ("junit", "junit.xml.gz")]);

    let flaky: Vec<_> = world.server.jobs().into_iter().filter(|job| job.name == "flaky").collect();
    assert_eq!(flaky.iter().map(|job| (job.status, job.exit_code)).collect::<Vec<_>>(), [(Status::Failed, Some(3)); 2]);

    let test = world.server.job_named("test").expect("a job");
    let log = trace(&world, &test);
    assert_eq!((test.status, test.trace_matches), (Status::Success, Some(true)), "{log}");
    assert!(log.contains("url https://example.com") && log.contains("after success"), "{log}");
    assert_eq!(world.server.pipeline_status(id), Some(Status::Success));
    let refused: Vec<_> =
        world.server.requests().into_iter().filter(|one| one.status.is_none_or(|s| s >= 400)).collect();
    assert!(refused.iter().all(|one| one.status == Some(401) && one.path.contains(".git/")), "{refused:#?}");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs GitLab's gitlab-runner"]
async fn gitlabs_own_runner_cancels_gracefully_and_lives_through_faults() {
    let world = world_with(Config::default()).await;
    let faults = world.server.faults();
    let manager = Manager::start(&world).await;
    faults.add(Rule::new(Endpoint::JobRequest, Fault::Status(500)).times(2));
    faults.add(Rule::new(Endpoint::Trace, Fault::AnswerLost));
    faults.add(Rule::new(Endpoint::Trace, Fault::TraceLost { keep: 10 }).after(1));
    faults.add(Rule::new(Endpoint::FinalUpdate, Fault::StillArchiving));
    let steady = scripted("steady", "build", "new", &["for i in 1 2 3 4 5; do echo line $i; sleep 1; done"]);
    let endless = ci::Job {
        after_script: vec!["echo after $CI_JOB_STATUS".into()],
        ..scripted("endless", "build", "new", &["echo begun", "sleep 600"])
    };
    let id = world.pipeline(pipeline(vec![steady, endless])).await;
    let has_begun = |server: &embedded::gitlab::Server| {
        let job = server.job_named("endless").expect("a job");
        String::from_utf8_lossy(&server.trace(job.id).expect("a trace")).contains("begun\n")
    };
    manager.until(&world, "the script", has_begun).await;
    assert!(world.server.cancel_job(world.server.job_named("endless").expect("a job").id));
    manager.until(&world, "the pipeline", |server| server.pipeline_status(id).is_some_and(Status::is_complete)).await;

    let endless = world.server.job_named("endless").expect("a job");
    let log = trace(&world, &endless);
    assert!(endless.status == Status::Canceled && log.contains("after canceled"), "{log}");
    let steady = world.server.job_named("steady").expect("a job");
    let log = trace(&world, &steady);
    assert_eq!((steady.status, steady.trace_matches), (Status::Success, Some(true)), "{log}");
    assert_eq!(faults.left(), 0);
    manager.stop().await;
}
