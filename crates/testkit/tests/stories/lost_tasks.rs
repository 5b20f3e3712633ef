use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use embedded::gitlab::{JobView, Status};
use testkit::{ManagerProcess, Setup, World, eventually, program};
use tokio::process::Command;

/// Runs a job until its script is under way, does something to its task, and gives the job and its log.
async fn lose(setup: Setup, how: impl FnOnce(&World, &str)) -> (World, JobView, String) {
    let mut world = World::start(setup).await;
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo under way, sleep 600] }").await;
    world.until_trace("it", "under way").await;
    let task = world.fargate.tasks().pop().expect("a task").arn;
    how(&world, &task);
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    let (job, trace) = (world.job("it"), world.trace("it"));
    assert_eq!(job.failure_reason.as_deref(), Some("runner_system_failure"), "{trace}");
    (world, job, trace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_dies_is_a_system_failure_with_the_reason_in_the_log() {
    let (world, _, trace) = lose(Setup::default(), |world, task| world.fargate.kill_host(task)).await;
    assert!(trace.contains("under way") && trace.contains("the task was lost"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_ran_out_is_named() {
    let (world, _, trace) = lose(Setup::default(), |world, task| world.fargate.out_of_memory(task)).await;
    assert!(trace.to_lowercase().contains("memory"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spot_interruption_is_a_system_failure() {
    let interrupt = |world: &World, task: &str| world.fargate.interrupt_task(task, Duration::from_secs(5));
    let (world, _, _) = lose(Setup::default(), interrupt).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sshd_image_whose_host_dies_is_reported_too() {
    let setup = Setup { task_definition: "staffetta-sshd", ..Setup::default() };
    let (world, _, trace) = lose(setup, |world, task| world.fargate.kill_host(task)).await;
    assert!(trace.contains("the task was lost"), "{trace}");
    world.end().await;
}

/// A manager that sends the agents of this folder into images that have none, and where it tells of its jobs.
async fn manager_with_agents(world: &World, agents: &Path) -> (ManagerProcess, String) {
    let mut command = Command::new(program("staffetta"));
    command.args(["run", "--listen-address", "127.0.0.1:0", "--config"]).arg(world.config_file());
    command.arg("--agents").arg(agents);
    let mut manager = ManagerProcess::of(command);
    let line = manager.until_log("metrics are served").await;
    let address = line.split("address=").nth(1).expect("an address").trim().to_owned();
    (manager, address)
}

async fn until_handing_over(address: &str) {
    eventually("the job is being handed over", || {
        let mut connection = TcpStream::connect(address).expect("the metrics' port");
        connection.write_all(b"GET /debug/jobs/list HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        answer.contains("executor_stage=fargate_hand_over")
    })
    .await;
}

fn name_of_agent() -> String {
    format!("staffetta-agent-{}", std::env::consts::ARCH)
}

/// Whether a process of this machine, in a task too, runs this command.
fn runs(command: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    commands.map(|words| String::from_utf8_lossy(&words).replace('\0', " ")).any(|words| words.trim() == command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_while_its_agent_is_silent_is_noticed_at_once() {
    let agents = tempfile::tempdir().expect("a folder");
    let silent = format!("sleep 6{}", std::process::id());
    let script = format!("#!/bin/sh\ncat > /dev/null\n{silent}\n");
    std::fs::write(agents.path().join(name_of_agent()), script).expect("an agent");
    let mut world = World::without_manager(Setup { task_definition: "staffetta-sshd", ..Setup::default() }).await;
    let (manager, _) = manager_with_agents(&world, agents.path()).await;
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo never] }").await;
    eventually("the agent has the job", || runs(&silent)).await;
    let task = world.fargate.tasks().pop().expect("a task").arn;
    let started = Instant::now();
    world.fargate.kill_host(&task);
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    assert!(started.elapsed() < Duration::from_secs(40), "the exchange was waited for: {:?}", started.elapsed());
    assert!(world.trace("it").contains("the task was lost"), "{}", world.trace("it"));
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_agent_can_have_the_job_another_task_may_take_it_and_a_cancel_ends_it() {
    let agents = tempfile::tempdir().expect("a folder");
    // The manager waits for the agent's first byte.
    let pipe = agents.path().join(name_of_agent());
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut world = World::without_manager(Setup { task_definition: "staffetta-sshd", ..Setup::default() }).await;
    let (manager, address) = manager_with_agents(&world, agents.path()).await;
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo never] }").await;
    until_handing_over(&address).await;
    // Opens only when somebody reads; as long as it is open, the reader waits.
    let mut writer = OpenOptions::new();
    writer.write(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut opened = None;
    eventually("the manager reads the agent", || {
        opened = writer.open(&pipe).ok();
        opened.is_some()
    })
    .await;
    let first = world.fargate.tasks().pop().expect("a task").arn;
    world.fargate.kill_host(&first);
    world.until_trace("it", "Starting another task (2 of 3)").await;
    until_handing_over(&address).await;
    world.gitlab.cancel_job(world.job("it").id);
    assert_eq!(world.finished(pipeline).await, Status::Canceled);
    assert_eq!(world.fargate.tasks().len(), 2);
    drop(manager);
    world.end().await;
}
