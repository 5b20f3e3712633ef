//! A driver that is killed or cancelled at any moment: no task may be left once `cleanup` was there.

use std::path::PathBuf;
use std::time::Duration;

use embedded::fargate::{CallFault, Stuck, TaskFault};
use nix::sys::signal::Signal;
use serde_json::json;
use testkit::driver::{Driver, DriverJob, SYSTEM_FAILURE, ecs, signal};
use testkit::eventually;

/// Kills a `prepare` once `moment` is there, and has `cleanup` find what it left.
async fn killed(driver: &Driver, when: &str, moment: impl Fn(&Driver) -> bool) {
    let job = driver.job(&[]);
    let child = job.spawn(&["prepare"]);
    eventually(when, || moment(driver)).await;
    signal(&child, Signal::SIGKILL);
    assert_eq!(DriverJob::ended(child).await.code, None, "{when}");
    job.cleanup().await.succeeded();
    driver.idle().await;
    assert_eq!(driver.metadata_files(), Vec::<PathBuf>::new(), "{when}");
}

fn calls(driver: &Driver, api: &str) -> u64 {
    driver.fargate.calls().get(api).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_is_killed_before_its_task_is_asked_for_leaves_none() {
    let driver = Driver::start().await;
    // It waits for its second try.
    driver.fargate.faults().on_call("RunTask", 1000, CallFault::Throttle);
    killed(&driver, "the first RunTask was refused", |driver| calls(driver, "RunTask") > 0).await;
    assert!(driver.fargate.tasks().is_empty());
    driver.fargate.faults().clear();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_is_killed_while_its_task_is_asked_for_leaves_none() {
    let driver = Driver::start().await;
    // The task is there, and nobody was told its name.
    driver.fargate.faults().on_call("RunTask", 1, CallFault::Slow { by: Duration::from_secs(60) });
    killed(&driver, "RunTask started a task", |driver| !driver.fargate.tasks().is_empty()).await;
    assert_eq!(driver.fargate.tasks().len(), 1);
    driver.end().await;
}

/// ECS is away for longer than its client repeats one call.
#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_has_to_look_for_its_task_waits_for_ecs() {
    let driver = Driver::start().await;
    driver.fargate.faults().on_call("RunTask", 1, CallFault::Slow { by: Duration::from_secs(60) });
    driver.fargate.faults().on_call("ListTasks", 14, CallFault::ServerError { status: 503 });
    killed(&driver, "RunTask started a task", |driver| !driver.fargate.tasks().is_empty()).await;
    assert!(calls(&driver, "ListTasks") > 14);
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_is_killed_while_its_task_starts_leaves_none() {
    let driver = Driver::start().await;
    driver.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Pending });
    killed(&driver, "the task is watched", |driver| calls(driver, "DescribeTasks") > 1).await;
    driver.end().await;
}

/// Where `cleanup` was killed too, the next try of the job finds what is left before it starts anything.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_prepare_of_a_killed_one_ends_its_task_first() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    driver.fargate.faults().on_call("RunTask", 1, CallFault::Slow { by: Duration::from_secs(60) });
    let child = job.spawn(&["prepare"]);
    eventually("RunTask started a task", || !driver.fargate.tasks().is_empty()).await;
    signal(&child, Signal::SIGKILL);
    DriverJob::ended(child).await;
    let prepared = job.prepare().await.succeeded();
    assert!(prepared.stdout.contains("An earlier try of this job did not clean up"), "{prepared:?}");
    let running: Vec<_> = driver.fargate.tasks().into_iter().filter(|task| task.desired_status == "RUNNING").collect();
    assert_eq!(running.len(), 1, "{running:?}");
    job.run("true").await.succeeded();
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_is_cancelled_stops_its_task_at_once() {
    let driver = Driver::start().await;
    driver.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Provisioning });
    let job = driver.job(&[]);
    let child = job.spawn(&["prepare"]);
    eventually("the task is watched", || calls(&driver, "DescribeTasks") > 0).await;
    signal(&child, Signal::SIGTERM);
    DriverJob::ended(child).await.failed(SYSTEM_FAILURE, "told to stop");
    driver.idle().await;
    job.cleanup().await.succeeded();
    driver.end().await;
}

/// A throttled ECS is not asked again for a task that nobody wants.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_is_cancelled_between_two_tries_asks_no_more() {
    let driver = Driver::start().await;
    driver.fargate.faults().on_call("RunTask", 1000, CallFault::Throttle);
    let job = driver.job(&[]);
    let child = job.spawn(&["prepare"]);
    eventually("RunTask was refused", || calls(&driver, "RunTask") > 1).await;
    signal(&child, Signal::SIGTERM);
    DriverJob::ended(child).await.failed(SYSTEM_FAILURE, "told to stop");
    let asked = calls(&driver, "RunTask");
    driver.fargate.faults().clear();
    job.cleanup().await.succeeded();
    assert_eq!(calls(&driver, "RunTask"), asked);
    assert!(driver.fargate.tasks().is_empty());
    driver.end().await;
}

/// The answer of RunTask is lost, and ECS lists the task only a while later.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ecs_lists_late_is_found_all_the_same() {
    let config = embedded::fargate::Config {
        clusters: vec!["ci".into()],
        visible_after: Duration::from_secs(5),
        ..embedded::fargate::Config::new(testkit::program("staffetta-agent"))
    };
    let driver = Driver::with(config).await;
    driver.fargate.faults().on_call("RunTask", 1, CallFault::Slow { by: Duration::from_secs(60) });
    killed(&driver, "RunTask started a task", |driver| !driver.fargate.tasks().is_empty()).await;
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_run_task_that_is_lost_makes_no_second_task() {
    let driver = Driver::start().await;
    driver.fargate.faults().on_call("RunTask", 1, CallFault::AnswerLost);
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    assert_eq!(driver.fargate.tasks().len(), 1);
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_is_killed_is_made_up_for_by_the_next() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    driver.fargate.faults().on_call("StopTask", 1, CallFault::Throttle);
    driver.fargate.faults().on_call("StopTask", 1000, CallFault::ServerError { status: 503 });
    let child = job.spawn(&["cleanup"]);
    eventually("StopTask was refused", || calls(&driver, "StopTask") > 0).await;
    signal(&child, Signal::SIGKILL);
    DriverJob::ended(child).await;
    driver.fargate.faults().clear();
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_is_cancelled_while_its_task_is_asked_for_waits_for_the_name_and_stops_it() {
    let driver = Driver::start().await;
    driver.fargate.faults().on_call("RunTask", 1, CallFault::Slow { by: Duration::from_secs(2) });
    let job = driver.job(&[]);
    let child = job.spawn(&["prepare"]);
    eventually("RunTask started a task", || !driver.fargate.tasks().is_empty()).await;
    signal(&child, Signal::SIGTERM);
    DriverJob::ended(child).await.failed(SYSTEM_FAILURE, "told to stop");
    driver.idle().await;
    job.cleanup().await.succeeded();
    driver.end().await;
}

/// The machine of a runner was lost, and its metadata with it: others end what is overdue, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_nobody_cleaned_up_are_swept_when_their_time_is_over() {
    let driver = Driver::start().await;
    let environment = [("SSH_PUBLIC_KEY", "none"), ("STAFFETTA_JOB", "0"), ("STAFFETTA_DEADLINE", "86400")]
        .map(|(name, value)| json!({"name": name, "value": value}));
    let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}});
    let forgotten = json!({
        "cluster": "ci", "taskDefinition": "staffetta-sshd", "launchType": "FARGATE", "networkConfiguration": network,
        "startedBy": "staffetta-driver/abcdefghi",
        "overrides": {"containerOverrides": [{"name": "ci-coordinator", "environment": environment}]},
    });
    ecs(&driver.fargate, "RunTask", forgotten).await;
    let (running, job) = (driver.job(&[]), driver.job(&[]));
    running.prepare().await.succeeded();
    job.prepare().await.succeeded();
    let cleaned = job.cleanup().await.succeeded();
    assert!(cleaned.stderr.contains("that an earlier job left behind"), "{cleaned:?}");
    let left: Vec<_> = driver.fargate.tasks().into_iter().filter(|task| task.desired_status == "RUNNING").collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].environment["STAFFETTA_JOB"], running.id.to_string());
    running.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_waits_for_an_ecs_that_does_not_answer() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    driver.fargate.faults().on_call("StopTask", 2, CallFault::ServerError { status: 503 });
    driver.fargate.faults().on_call("StopTask", 1, CallFault::Throttle);
    driver.fargate.faults().on_call("StopTask", 1, CallFault::AnswerLost);
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_after_a_damaged_metadata_file_finds_the_task_in_ecs() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    std::fs::write(&driver.metadata_files()[0], "{\"TaskARN\":\"arn:aws").expect("a file");
    job.run("true").await.failed(SYSTEM_FAILURE, "is damaged");
    let cleaned = job.cleanup().await.succeeded();
    assert!(cleaned.stderr.contains("looking for the job's task in ECS"), "{cleaned:?}");
    driver.end().await;
}
