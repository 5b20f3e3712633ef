//! `--run`: a real task of the embedded Fargate goes through the journey, and none is left.

use std::process::Stdio;

use embedded::fargate::{CallFault, Stuck, TaskFault};
use serde_json::json;
use testkit::{PATIENCE, Setup, World, program};
use tokio::process::{Child, Command};
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
    // By which the next trial knows it, and knows when it is over.
    let task =
        operator.aws(&format!("ecs describe-tasks --cluster dev --tasks {}", world.fargate.tasks()[0].arn)).await;
    assert_eq!(task["tasks"][0]["startedBy"], "staffetta-doctor");
    let environment =
        task["tasks"][0]["overrides"]["containerOverrides"][0]["environment"].as_array().expect("variables");
    let names: Vec<_> = environment.iter().map(|pair| pair["name"].as_str().expect("a name")).collect();
    assert!(names.contains(&job::task::DEADLINE), "{names:?}");
}

#[tokio::test]
async fn a_task_that_a_killed_doctor_left_is_stopped_once_its_end_is_over() {
    let (world, operator) = world("staffetta-agent").await;
    world.fargate.faults().on_task(2, TaskFault::NeverStarts { stuck_in: Stuck::Pending });
    let mut arns = Vec::new();
    for deadline in ["1", "9999999999"] {
        let environment = json!([{"name": job::task::DEADLINE, "value": deadline}]);
        let overrides = json!({"containerOverrides": [{"name": job::task::CONTAINER, "environment": environment}]});
        operator.write("overrides.json", &overrides.to_string());
        let started = operator
            .aws(
                "ecs run-task --cluster dev --task-definition staffetta-agent --launch-type FARGATE \
                 --started-by staffetta-doctor --overrides file://overrides.json \
                 --network-configuration awsvpcConfiguration={subnets=[subnet-1]}",
            )
            .await;
        arns.push(started["tasks"][0]["taskArn"].as_str().expect("an ARN").to_owned());
    }
    let found = tried(&world, &operator).await;
    let said = found.of_check("dev", "trial-run");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].0 == "good" && said[0].1.contains(&format!("stopped {}", arns[0])), "{said:?}");
    // Another doctor may be at work with it.
    assert_eq!(left(&world), [arns[1].clone()]);
}

#[tokio::test]
async fn in_the_managers_place_the_configuration_comes_from_the_environment() {
    let (world, operator) = world("staffetta-agent").await;
    let text = std::fs::read_to_string(world.config_file()).expect("a file");
    let (_, rest) = text.split_once("token = \"").expect("a token");
    let (token, _) = rest.split_once('"').expect("its end");
    let named = text.replace(token, "$DEV_RUNNER_TOKEN");
    let variables =
        [("CONFIG_TOML", named.as_str()), ("DEV_RUNNER_TOKEN", token), ("CONFIG_FILE", "there-is-none.toml")];
    let found = Findings::of(&operator, &["--run", "--environment", "dev"], &variables).await;
    found.expect("dev", "trial-run", "good", &["staffetta-agent, which is ready"]);
    found.expect("dev", "runner-token", "good", &[]);
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

fn started(world: &World, operator: &Operator) -> Child {
    Command::new(program("staffetta"))
        .args(["doctor", "--run", "--config"])
        .arg(world.config_file())
        .current_dir(operator.path(""))
        .envs([("AWS_ACCESS_KEY_ID", "doctor"), ("AWS_SECRET_ACCESS_KEY", "made-up")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("staffetta")
}

fn interrupt(doctor: &Child) {
    let id = nix::unistd::Pid::from_raw(doctor.id().expect("it runs").try_into().expect("an id"));
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).expect("a signal");
}

#[tokio::test]
async fn a_second_ctrl_c_does_not_wait_and_names_the_task_that_may_go_on() {
    let (world, operator) = world("staffetta-agent").await;
    world.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Pending });
    world.fargate.faults().on_call("StopTask", u32::MAX, CallFault::Slow { by: 10 * PATIENCE });
    let doctor = started(&world, &operator);
    let tasks = world.fargate.wait_for(PATIENCE, |tasks| !tasks.is_empty()).await.expect("a task");
    interrupt(&doctor);
    world.fargate.wait_for(PATIENCE, |tasks| tasks.iter().all(|task| task.desired_status == "STOPPED")).await;
    interrupt(&doctor);
    let ended = timeout(PATIENCE, doctor.wait_with_output()).await.expect("it ends").expect("its output");
    assert_eq!(ended.status.code(), Some(130));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains(&format!("aws ecs stop-task --cluster dev --task {}", tasks[0].arn)), "{said}");
}

#[tokio::test]
async fn ctrl_c_stops_the_trials_task() {
    let (world, operator) = world("staffetta-agent").await;
    world.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Pending });
    let mut doctor = started(&world, &operator);
    world.fargate.wait_for(PATIENCE, |tasks| !tasks.is_empty()).await;
    interrupt(&doctor);
    let ended = timeout(PATIENCE, doctor.wait()).await.expect("it ends").expect("a status");
    assert_eq!(ended.code(), Some(130));
    assert_eq!(left(&world), [""; 0]);
}
