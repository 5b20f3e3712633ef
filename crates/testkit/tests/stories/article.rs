//! The article that asked for this system: its `config.toml` and `ecs.toml`, byte for byte, in the places that they
//! name, under GitLab's driver's name and natively.

use std::path::Path;

use embedded::fargate::{self, TaskView};
use embedded::gitlab::Status;
use nix::unistd::geteuid;
use serde_json::json;
use testkit::driver::{Driver, DriverJob, Ended};
use testkit::{ManagerProcess, PATIENCE, Setup, World, program};
use tokio::process::Command;

/// Runs its arguments where `/etc/gitlab-runner` and `/opt/gitlab-runner` are folders of $1.
const IN_PLACE: &str = r#"set -e
mount -t tmpfs tmpfs /opt
mkdir /opt/gitlab-runner
mount --bind "$1/opt" /opt/gitlab-runner
mount -t tmpfs tmpfs "$1/etc-changes"
mkdir "$1/etc-changes/upper" "$1/etc-changes/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc-changes/upper,workdir=$1/etc-changes/work" overlay /etc
mkdir -p /etc/gitlab-runner
mount --bind "$1/etc" /etc/gitlab-runner
shift
exec "$@""#;

fn in_place(folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", IN_PLACE, "sh"]).arg(folder);
    command
}

/// The article's files, where `in_place` looks for them, and the driver under the name that they use.
fn place(folder: &Path) {
    for name in ["etc", "etc-changes", "opt"] {
        std::fs::create_dir(folder.join(name)).expect("a folder");
    }
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fargate-driver");
    std::fs::copy(files.join("ecs.toml"), folder.join("etc/ecs.toml")).expect("ecs.toml");
    std::fs::copy(files.join("config.toml"), folder.join("template.toml")).expect("config.toml");
    std::os::unix::fs::symlink(program("staffetta"), folder.join("opt/fargate")).expect("a link");
}

/// An AWS where the article's placeholders are names: nobody has replaced them here.
fn aws() -> fargate::Config {
    fargate::Config {
        clusters: vec!["acme-gitlab-RUNNER-TAGS-cluster".into()],
        region: "eu-west-1".into(),
        network_ids: vec!["SUBNET".into(), "SECURITY_GROUP_ID".into()],
        ..fargate::Config::new(program("staffetta-agent"))
    }
}

const TASK_DEFINITION: &str = "gitlab-runner-RUNNER_TAGS-task";

/// Mounting over /etc needs root, and so does the port 22 of the files. Everything else is tested without.
fn is_possible() -> bool {
    let possible = geteuid().is_root();
    if !possible {
        eprintln!("not tested: only root can put the article's files where they say");
    }
    possible
}

#[tokio::test(flavor = "multi_thread")]
async fn its_four_commands_run_a_script_in_a_task() {
    if !is_possible() {
        return;
    }
    let driver = Driver::with(aws()).await;
    driver.register(TASK_DEFINITION, &[], "").await;
    let folder = tempfile::tempdir().expect("a folder");
    place(folder.path());
    let config: toml::Table =
        std::fs::read_to_string(folder.path().join("template.toml")).expect("a file").parse().expect("TOML");
    let custom = &config["runners"][0]["custom"];
    let job = driver.job(&[]);
    let call = async |stage: &str, more: &[&str]| -> Ended {
        let program = custom[format!("{stage}_exec")].as_str().expect("a program");
        let arguments = custom[format!("{stage}_args")].as_array().expect("arguments");
        let arguments = arguments.iter().map(|argument| argument.as_str().expect("a text"));
        let mut command = in_place(folder.path());
        command.arg(program).args(arguments).args(more).envs(job.environment()).process_group(0);
        DriverJob::ended(DriverJob::piped(command)).await
    };
    let answer: serde_json::Value = serde_json::from_str(&call("config", &[]).await.succeeded().stdout).expect("JSON");
    assert_eq!(answer["driver"]["name"], json!("Staffetta"));
    let prepared = call("prepare", &[]).await.succeeded();
    let wanted =
        "Waiting for a Fargate task (gitlab-runner-RUNNER_TAGS-task) in cluster acme-gitlab-RUNNER-TAGS-cluster\n";
    assert!(prepared.stdout.starts_with(wanted), "{prepared:?}");
    assert_eq!(std::fs::read_dir(folder.path().join("opt/metadata")).expect("the metadata").count(), 1);
    let script = job.script("echo hello from the task");
    let ran = call("run", &[script.to_str().expect("UTF-8"), "build_script"]).await.succeeded();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("hello from the task\n", ""));
    call("cleanup", &[]).await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_runner_registers_and_passes_a_job_natively() {
    if !is_possible() {
        return;
    }
    let mut world = World::without_manager(Setup { fargate: aws(), ..Setup::default() }).await;
    testkit::driver::register(&world.fargate, TASK_DEFINITION, &[], "").await;
    let folder = tempfile::tempdir().expect("a folder");
    place(folder.path());

    // The article's own command, with its template under its name.
    std::fs::copy(folder.path().join("template.toml"), folder.path().join("etc/template.toml")).expect("a copy");
    let mut register = in_place(folder.path());
    register
        .arg(program("staffetta"))
        .args(["register", "--non-interactive", "--url", world.gitlab.url()])
        .args(["--registration-token", world.gitlab.registration_token()])
        .args(["--template-config", "/etc/gitlab-runner/template.toml"])
        .args(["--description", "GitLab runner for article", "--executor", "custom", "--tag-list", "article"]);
    DriverJob::ended(DriverJob::piped(register)).await.succeeded();

    let mut run = in_place(folder.path());
    // The command of its image.
    run.arg(program("staffetta"));
    run.args(["run", "--user=gitlab-runner", "--working-directory=/home/gitlab-runner"]);
    run.env("AWS_ENDPOINT_URL", world.fargate.url());
    let manager = ManagerProcess::of(run);
    let pipeline = world.pipeline("it:\n  tags: [article]\n  script: echo hello from the task\n").await;
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace("it"));
    let trace = world.trace("it");
    assert!(trace.contains("hello from the task"), "{trace}");
    assert!(trace.contains("Waiting for a Fargate task (gitlab-runner-RUNNER_TAGS-task)"), "{trace}");
    let over = |tasks: &[TaskView]| tasks.len() == 1 && tasks[0].last_status == "STOPPED";
    assert!(world.fargate.wait_for(PATIENCE, over).await.is_some(), "{:?}", world.fargate.tasks());
    drop(manager);
    world.end().await;
}
