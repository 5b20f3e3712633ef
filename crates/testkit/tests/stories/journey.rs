use embedded::fargate::EngineMode;
use embedded::gitlab::Status;
use testkit::{Repository, Setup, World};

const THREE_ENVIRONMENTS: &str = r#"
stages: [build, deploy]
.build:
  stage: build
  script:
    - mkdir out && echo "made in $CI_JOB_NAME" > out/made
    - chmod 750 out/made && ln -s made out/link
  artifacts: { paths: [out] }
.deploy:
  stage: deploy
  script:
    - cat out/link
    - test "$(stat -c %a out/made)" = 750
build-dev: { extends: .build, tags: [dev] }
build-staging: { extends: .build, tags: [staging] }
build-production: { extends: .build, tags: [production] }
deploy-dev: { extends: .deploy, tags: [dev], dependencies: [build-dev] }
deploy-staging: { extends: .deploy, tags: [staging], dependencies: [build-staging] }
deploy-production: { extends: .deploy, tags: [production], dependencies: [build-production] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn three_environments_build_and_deploy_each_in_its_own_cluster() {
    let mut world = World::start(Setup::default()).await;
    let pipeline = world.pipeline(THREE_ENVIRONMENTS).await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    for environment in ["dev", "staging", "production"] {
        let trace = world.trace(&format!("deploy-{environment}"));
        assert!(trace.contains(&format!("made in build-{environment}")), "{trace}");
        let cluster = format!("task/{environment}/");
        assert_eq!(world.fargate.tasks().iter().filter(|task| task.arn.contains(&cluster)).count(), 2);
    }
    for job in world.gitlab.jobs() {
        assert_eq!(job.trace_matches, Some(true), "{}: GitLab's checksum and ours", job.name);
    }
    assert_eq!(world.fargate.calls()["RunTask"], 6, "one RunTask for each job");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_begins_with_what_is_awaited_and_the_seconds_of_each_phase() {
    let mut world = World::start(Setup::default()).await;
    let (_, trace) = world.run_job("  script: echo hello").await;
    let order =
        ["Running with staffetta", "Waiting for a Fargate task", "RunTask accepted: ", "answers after ", "hello"];
    let mut from = 0;
    for text in order {
        from += trace[from..].find(text).unwrap_or_else(|| panic!("{text:?} after {from} in {trace}"));
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_script_fails_its_job_with_its_exit_code_and_the_next_stage_never_runs() {
    let mut world = World::start(Setup::default()).await;
    let pipeline = world
        .pipeline(
            "stages: [build, deploy]\n\
             build: { stage: build, tags: [dev], script: [exit 7] }\n\
             deploy: { stage: deploy, tags: [dev], script: [echo deployed] }\n",
        )
        .await;
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    let build = world.job("build");
    assert_eq!((build.status, build.exit_code), (Status::Failed, Some(7)));
    assert_eq!(build.failure_reason.as_deref(), Some("script_failure"));
    assert_eq!(world.job("deploy").status, Status::Skipped);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_only_sshd_gets_the_agent_over_the_connection() {
    let mut world = World::start(Setup { task_definition: "staffetta-sshd", ..Setup::default() }).await;
    let (job, trace) = world.run_job("  script: echo from sshd").await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(trace.contains("from sshd"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_run_at_the_same_time_share_paths_and_no_files() {
    let mut world = World::start(Setup::default()).await;
    let files = [
        (".gitlab-ci.yml", "it: { tags: [dev], parallel: 4, script: [./claim.sh] }\n"),
        ("claim.sh", "#!/bin/sh\nset -eu\npwd\nmkdir /var/tmp/claimed\necho $CI_NODE_INDEX > mine\ncat mine\n"),
    ];
    let pipeline = world.pipeline_of(Repository::of(&files)).await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    assert!(!std::path::Path::new("/var/tmp/claimed").exists(), "this machine's files are untouched");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_namespaces_every_task_has_its_builds_in_a_folder_of_its_own() {
    let mut setup = Setup::default();
    setup.fargate.engine = EngineMode::ProcessGroup;
    let mut world = World::start(setup).await;
    let pipeline = world
        .pipeline(
            "it: { tags: [dev], parallel: 4, script: [pwd, mkdir claimed, echo $CI_NODE_INDEX > mine, sleep 1, \
             test $(cat mine) = $CI_NODE_INDEX] }\n",
        )
        .await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    assert!(!std::path::Path::new("/builds").exists(), "this machine's root is untouched");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_holds_over_all_runners() {
    let mut world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let text = std::fs::read_to_string(&file).expect("config.toml").replace("concurrent = 1000", "concurrent = 1");
    std::fs::write(&file, text).expect("config.toml");
    world.start_manager().await;
    let pipeline = world
        .pipeline(
            "a: { tags: [dev], script: [echo a] }\n\
             b: { tags: [staging], script: [echo b] }\n\
             c: { tags: [production], script: [echo c] }\n",
        )
        .await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    let mut spans: Vec<_> = world.gitlab.jobs().iter().map(|job| (job.started_at, job.finished_at)).collect();
    spans.sort();
    assert!(spans.windows(2).all(|two| two[0].1 <= two[1].0), "one after the other: {spans:?}");
    world.end().await;
}
