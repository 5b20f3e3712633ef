//! `--run`: a real task of the embedded Fargate goes through the journey, and none is left.

use std::process::Stdio;

use embedded::fargate::{Stuck, TaskFault};
use testkit::{PATIENCE, Setup, World, program};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::findings::Findings;
use crate::operator::Operator;

async fn world(task_definition: &'static str) -> (World, Operator) {
    let runners = vec![("dev", vec!["dev"])];
    let world = World::without_manager(Setup { task_definition, runners, ..Setup::default() }).await;
    let operator = Operator::at(world.fargate.url());
    (world, operator)
}

async fn tried(world: &World, operator: &Operator) -> Findings {
    let config = world.config_file();
    Findings::of(operator, &["--run", "--config", config.to_str().expect("UTF-8")], &[]).await
}

fn left(world: &World) -> Vec<String> {
    let running = world.fargate.tasks().into_iter().filter(|task| task.desired_status == "RUNNING");
    running.map(|task| task.arn).collect()
}

#[tokio::test]
async fn a_task_with_openssh_runs_a_command_and_is_stopped() {
    let (world, operator) = world("staffetta-sshd").await;
    let found = tried(&world, &operator).await;
    let phases = ["RunTask accepted", "network interface", "answers after", "a command in its shell"];
    found.expect("dev", "trial-run", "good", &phases);
    assert_eq!(world.fargate.tasks().len(), 1);
    assert_eq!(left(&world), [""; 0]);
}

#[tokio::test]
async fn a_task_with_the_agent_is_ready_for_a_job_and_is_stopped() {
    let (world, operator) = world("staffetta-agent").await;
    tried(&world, &operator).await.expect("dev", "trial-run", "good", &["staffetta-agent, which is ready"]);
    assert_eq!(left(&world), [""; 0]);
}

#[tokio::test]
async fn a_task_that_does_not_start_is_explained_as_in_a_jobs_log() {
    let (world, operator) = world("staffetta-agent").await;
    world.fargate.faults().on_task(1, TaskFault::CannotPull);
    let found = tried(&world, &operator).await;
    found.expect("dev", "trial-run", "bad", &["CannotPullContainerError", "Correct the image in the task definition"]);
    assert_eq!(found.code, Some(1));
    assert_eq!(left(&world), [""; 0]);
}

#[tokio::test]
async fn without_a_cluster_there_is_no_trial() {
    let (world, operator) = world("staffetta-agent").await;
    let text = std::fs::read_to_string(world.config_file()).expect("a file");
    operator.write("config.toml", &text.replace("cluster = \"dev\"", "cluster = \"other\""));
    let found = Findings::of(&operator, &["--run", "--config", "config.toml"], &[]).await;
    found.expect("dev", "trial-run", "bad", &["ClusterNotFoundException"]);
    assert_eq!(world.fargate.tasks().len(), 0);
}

#[tokio::test]
async fn ctrl_c_stops_the_trials_task() {
    let (world, operator) = world("staffetta-agent").await;
    world.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Pending });
    let mut doctor = Command::new(program("staffetta"))
        .args(["doctor", "--run", "--config"])
        .arg(world.config_file())
        .current_dir(operator.path(""))
        .envs([("AWS_ACCESS_KEY_ID", "doctor"), ("AWS_SECRET_ACCESS_KEY", "made-up")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("staffetta");
    world.fargate.wait_for(PATIENCE, |tasks| !tasks.is_empty()).await;
    let id = nix::unistd::Pid::from_raw(doctor.id().expect("it runs").try_into().expect("an id"));
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).expect("a signal");
    let ended = timeout(PATIENCE, doctor.wait()).await.expect("it ends").expect("a status");
    assert_eq!(ended.code(), Some(130));
    assert_eq!(left(&world), [""; 0]);
}
