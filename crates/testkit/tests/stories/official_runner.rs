//! GitLab's own `gitlab-runner` with our driver in place of GitLab's. It is not installed by `make test`: with its path in
//! `GITLAB_RUNNER`, `cargo test -p testkit --test stories official_runner -- --ignored`.

use std::path::Path;
use std::process::Stdio;

use embedded::gitlab::Status;
use testkit::{Setup, World, program};
use tokio::process::{Child, Command};

/// Both servers, and `gitlab-runner run` on a config.toml whose driver is ours.
async fn world() -> (World, Child) {
    let runner = std::env::var("GITLAB_RUNNER").expect("the path of gitlab-runner in GITLAB_RUNNER");
    let world = World::without_manager(Setup::default()).await;
    let folder = world.config_file().with_file_name("official");
    std::fs::create_dir(&folder).expect("a folder");
    let ecs_toml = folder.join("ecs.toml");
    let ecs = format!(
        "LogLevel = \"info\"\n[Fargate]\nCluster = \"dev\"\nRegion = \"us-east-1\"\nSubnet = \"subnet-1\"\n\
         SecurityGroup = \"sg-1\"\nTaskDefinition = \"staffetta-sshd\"\n[TaskMetadata]\nDirectory = {:?}\n\
         [SSH]\nUsername = \"root\"\nPort = {}\n",
        folder.join("metadata"),
        world.fargate.ssh_port()
    );
    std::fs::write(&ecs_toml, ecs).expect("ecs.toml");
    let call = |stage: &str| {
        format!(
            "{stage}_exec = {:?}\n{stage}_args = [\"--config\", {ecs_toml:?}, \"custom\", \"{stage}\"]\n",
            program("staffetta")
        )
    };
    let ours = std::fs::read_to_string(world.config_file()).expect("config.toml");
    let token = ours.lines().find_map(|line| line.strip_prefix("token = ")).expect("the token of dev");
    let config = format!(
        "concurrent = 4\ncheck_interval = 1\n[[runners]]\nname = \"dev\"\nurl = {:?}\ntoken = {token}\n\
         executor = \"custom\"\nbuilds_dir = \"/tmp/builds\"\ncache_dir = \"/tmp/cache\"\n[runners.custom]\n{}",
        world.gitlab.url(),
        ["config", "prepare", "run", "cleanup"].map(call).concat()
    );
    let file = folder.join("config.toml");
    std::fs::write(&file, config).expect("config.toml");
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let child = Command::new(runner)
        .args(["run", "--config"])
        .arg(&file)
        .arg("--working-directory")
        .arg(Path::new(&folder))
        .env("AWS_ACCESS_KEY_ID", "driver")
        .env("AWS_SECRET_ACCESS_KEY", "made-up")
        .env("AWS_ENDPOINT_URL", world.fargate.url())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("gitlab-runner");
    (world, child)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs GitLab's gitlab-runner"]
async fn gitlabs_own_runner_runs_its_jobs_through_our_driver() {
    let (mut world, runner) = world().await;
    let pipeline = world
        .pipeline(
            "good:\n  tags: [dev]\n  variables: {NAME: 'a \"quoted\" $HOME'}\n  script:\n    - git log --oneline\n    - echo \"in $CI_JOB_NAME\"\n\
             fails:\n  tags: [dev]\n  allow_failure: {exit_codes: [42]}\n  script: exit 42\n  after_script: [echo afterwards]\n\
             stuck:\n  tags: [dev]\n  script: [echo waiting, sleep 600]\n",
        )
        .await;
    world.until_trace("stuck", "waiting").await;
    assert!(world.gitlab.cancel_job(world.job("stuck").id));
    world.finished(pipeline).await;
    let good = world.trace("good");
    assert_eq!(world.job("good").status, Status::Success, "{good}");
    assert!(good.contains("Using Custom executor with driver Staffetta"), "{good}");
    assert!(good.contains("in good"), "{good}");
    let fails = world.trace("fails");
    assert_eq!((world.job("fails").status, world.job("fails").exit_code), (Status::Failed, Some(42)), "{fails}");
    assert!(fails.contains("afterwards"), "{fails}");
    assert_eq!(world.job("stuck").status, Status::Canceled, "{}", world.trace("stuck"));
    assert_eq!(world.fargate.calls()["RunTask"], 3);
    let stopped = |tasks: &[embedded::fargate::TaskView]| tasks.iter().all(|task| task.last_status == "STOPPED");
    assert!(world.fargate.wait_for(testkit::PATIENCE, stopped).await.is_some(), "{:?}", world.fargate.tasks());
    drop(runner);
    world.end().await;
}
