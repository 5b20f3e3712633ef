use std::time::Duration;

use embedded::fargate::{CallFault, Delays, Stuck, TaskFault};
use embedded::gitlab::Status;
use testkit::{Setup, World};

/// One call fails once in this way: one task runs the job all the same.
async fn survives(api: &str, fault: CallFault) {
    let mut world = World::start(Setup::default()).await;
    world.fargate.faults().on_call(api, 1, fault.clone());
    let (job, trace) = world.run_job("  script: echo hello").await;
    assert_eq!(job.status, Status::Success, "{api} {fault:?}\n{trace}");
    assert_eq!(world.fargate.tasks().len(), 1, "{api} {fault:?}: one task only");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_run_task_is_repeated() {
    survives("RunTask", CallFault::Throttle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_5xx_of_run_task_is_repeated() {
    survives("RunTask", CallFault::ServerError { status: 503 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_run_task_took_effect_starts_one_task_only() {
    survives("RunTask", CallFault::AnswerLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_that_is_unavailable_in_a_200_is_waited_out() {
    survives("RunTask", CallFault::CapacityUnavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_describe_that_fails_is_repeated() {
    for fault in [CallFault::Throttle, CallFault::ServerError { status: 500 }, CallFault::AnswerLost] {
        survives("DescribeTasks", fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_before_the_script_is_replaced_by_another() {
    let mut world = World::start(Setup::default()).await;
    world.fargate.faults().on_task(1, TaskFault::NetworkInterfaceTimeout);
    let (job, trace) = world.run_job("  script: echo hello").await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(trace.contains("Starting another task (2 of 3)"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_fails_the_job_with_the_reason_and_the_fix() {
    let mut world = World::start(Setup::default()).await;
    world.fargate.faults().on_task(u32::MAX, TaskFault::CannotPull);
    let (job, trace) = world.run_job("  script: echo never").await;
    assert_eq!(job.status, Status::Failed);
    assert_ne!(job.failure_reason.as_deref(), Some("script_failure"));
    assert!(trace.contains("CannotPullContainerError"), "{trace}");
    // Who looks further, and which of its checks.
    assert!(trace.contains("`staffetta doctor --environment dev` looks for the cause (task-image"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_never_starts_ends_with_the_jobs_time_out_and_is_stopped() {
    let mut world = World::start(Setup::default()).await;
    world.fargate.faults().on_task(u32::MAX, TaskFault::NeverStarts { stuck_in: Stuck::Provisioning });
    let (job, trace) = world.run_job("  timeout: 3 seconds\n  script: echo never").await;
    assert_eq!(job.status, Status::Failed);
    assert_eq!(job.failure_reason.as_deref(), Some("job_execution_timeout"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ecs_does_not_see_yet_is_not_taken_for_gone() {
    let mut setup = Setup::default();
    setup.fargate.visible_after = Duration::from_millis(1500);
    setup.fargate.delays = Delays { provisioning: Duration::from_millis(300), ..Delays::default() };
    let mut world = World::start(setup).await;
    let (job, trace) = world.run_job("  script: echo hello").await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert_eq!(world.fargate.tasks().len(), 1);
    world.end().await;
}
