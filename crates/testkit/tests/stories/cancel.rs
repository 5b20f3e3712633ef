use std::time::Duration;

use embedded::fargate::Delays;
use embedded::gitlab::Status;
use testkit::{Setup, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cancelled_before_its_task_is_ready_leaves_no_task() {
    let mut setup = Setup::default();
    setup.fargate.delays = Delays { provisioning: Duration::from_secs(600), ..Delays::default() };
    let mut world = World::start(setup).await;
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo never] }").await;
    world.until_trace("it", "Waiting for a Fargate task").await;
    world.gitlab.cancel_job(world.job("it").id);
    assert_eq!(world.finished(pipeline).await, Status::Canceled);
    assert!(!world.trace("it").contains("never"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cancelled_in_its_script_runs_after_script_and_ends_canceled() {
    let mut world = World::start(Setup::default()).await;
    let pipeline = world
        .pipeline(
            "it: { tags: [dev], script: [echo under way, sleep 600, echo never], \
             after_script: ['echo after $CI_JOB_STATUS'] }",
        )
        .await;
    world.until_trace("it", "under way").await;
    world.gitlab.cancel_job(world.job("it").id);
    assert_eq!(world.finished(pipeline).await, Status::Canceled);
    let trace = world.trace("it");
    assert!(trace.contains("after canceled"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cancelled_in_its_after_script_ends() {
    let mut world = World::start(Setup::default()).await;
    let pipeline =
        world.pipeline("it: { tags: [dev], script: [echo done], after_script: [echo tidying, sleep 4] }").await;
    world.until_trace("it", "tidying").await;
    world.gitlab.cancel_job(world.job("it").id);
    let status = world.finished(pipeline).await;
    assert!(matches!(status, Status::Canceled | Status::Success), "{status}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_cancel_ends_the_task_without_after_script() {
    let mut world = World::start(Setup::default()).await;
    let pipeline =
        world.pipeline("it: { tags: [dev], script: [echo under way, sleep 600], after_script: [sleep 600] }").await;
    world.until_trace("it", "under way").await;
    let job = world.job("it").id;
    world.gitlab.cancel_job(job);
    world.gitlab.force_cancel_job(job);
    assert_eq!(world.finished(pipeline).await, Status::Canceled);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_over_its_time_out_is_ended_and_said_to_be_so() {
    let mut world = World::start(Setup::default()).await;
    let (job, trace) = world.run_job("  timeout: 3 seconds\n  script: [echo under way, sleep 600]").await;
    assert_eq!(job.failure_reason.as_deref(), Some("job_execution_timeout"), "{trace}");
    assert!(trace.contains("execution took longer than"), "{trace}");
    world.end().await;
}
