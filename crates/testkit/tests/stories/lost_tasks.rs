use std::time::Duration;

use embedded::gitlab::{JobView, Status};
use testkit::{Setup, World};

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
