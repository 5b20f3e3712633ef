use embedded::fargate::{Stuck, TaskFault};
use embedded::gitlab::Status;
use nix::sys::signal::Signal;
use testkit::{ManagerProcess, Setup, World};

const LONG: &str = "it: { tags: [dev], script: [echo under way, sleep 6, seq 1 2000, echo last] }";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_a_manager_that_is_killed_and_a_new_one_leaves_nothing_behind() {
    let mut world = World::without_manager(Setup::default()).await;
    let first = ManagerProcess::start(&world.config_file());
    let pipeline = world.pipeline(LONG).await;
    world.until_trace("it", "under way").await;
    first.signal(Signal::SIGKILL);
    first.ended().await;
    let mut second = ManagerProcess::start(&world.config_file());
    second.until_log("found a running job of an earlier manager").await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    let trace = world.trace("it");
    assert!(trace.contains("2000") && trace.contains("last"), "{trace}");
    assert_eq!(world.job("it").trace_matches, Some(true), "the log is whole");
    drop(second);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_manager_was_killed_before_the_hand_over_is_ended_by_the_next_manager() {
    let mut setup = Setup::default();
    setup.fargate.delays.provisioning = std::time::Duration::from_secs(4);
    let mut world = World::without_manager(setup).await;
    let first = ManagerProcess::start(&world.config_file());
    world.pipeline(LONG).await;
    world.fargate.wait_for(testkit::PATIENCE, |tasks| !tasks.is_empty()).await.expect("a task");
    first.signal(Signal::SIGKILL);
    first.ended().await;
    let running = |tasks: &[embedded::fargate::TaskView]| tasks.iter().any(|task| task.last_status == "RUNNING");
    world.fargate.wait_for(testkit::PATIENCE, running).await.expect("the task runs, and nobody wants it");
    let mut second = ManagerProcess::start(&world.config_file());
    second.until_log("stopped a task").await;
    drop(second);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_leaves_a_running_job_to_its_task_and_exits() {
    let mut world = World::without_manager(Setup::default()).await;
    let manager = ManagerProcess::start(&world.config_file());
    let pipeline = world.pipeline(LONG).await;
    world.until_trace("it", "under way").await;
    manager.signal(Signal::SIGTERM);
    let (status, log) = manager.ended().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("jobs_left_to_their_tasks=1"), "{log}");
    assert_eq!(world.finished(pipeline).await, Status::Success);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_fails_a_job_whose_task_is_not_ready_by_the_deadline_as_the_systems_fault() {
    let mut world = World::without_manager(Setup::default()).await;
    let manager = ManagerProcess::start(&world.config_file());
    world.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Pending });
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo never] }").await;
    world.until_trace("it", "RunTask accepted").await;
    manager.signal(Signal::SIGTERM);
    let (status, log) = manager.ended().await;
    assert!(status.success(), "{log}");
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    assert_eq!(world.job("it").failure_reason.as_deref(), Some("runner_system_failure"));
    assert!(world.trace("it").contains("told to stop"), "{}", world.trace("it"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigquit_waits_for_the_running_job() {
    let mut world = World::without_manager(Setup::default()).await;
    let manager = ManagerProcess::start(&world.config_file());
    let pipeline = world.pipeline(LONG).await;
    world.until_trace("it", "under way").await;
    manager.signal(Signal::SIGQUIT);
    assert_eq!(world.finished(pipeline).await, Status::Success);
    let (status, log) = manager.ended().await;
    assert!(status.success() && log.contains("the job ended"), "{log}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_tasks_and_the_jobs_fail_as_the_systems_fault() {
    let mut world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let text = std::fs::read_to_string(&file).expect("config.toml").replace("shutdown_timeout = 3", "");
    std::fs::write(&file, text).expect("config.toml");
    let mut manager = ManagerProcess::start(&file);
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo under way, sleep 600] }").await;
    world.until_trace("it", "under way").await;
    // A hand-over under way keeps the manager: this one's task never starts.
    world.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Provisioning });
    let other = world.pipeline("stuck: { tags: [dev], script: [echo never] }").await;
    world.until_trace("stuck", "RunTask accepted").await;
    manager.signal(Signal::SIGTERM);
    manager.until_log("a second signal stops them").await;
    manager.signal(Signal::SIGTERM);
    let (status, log) = manager.ended().await;
    assert!(status.success() && log.contains("stopping the tasks of all jobs"), "{log}");
    assert!(log.contains("stopped a task"), "{log}");
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    assert_eq!(world.job("it").failure_reason.as_deref(), Some("runner_system_failure"));
    assert_eq!(world.finished(other).await, Status::Failed);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_taken_and_a_broken_one_is_not() {
    let mut world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let mut manager = ManagerProcess::start(&file);
    manager.until_log("ready for jobs").await;
    let good = std::fs::read_to_string(&file).expect("config.toml");
    std::fs::write(&file, format!("conkurrent = 3\n{good}")).expect("config.toml");
    manager.signal(Signal::SIGHUP);
    manager.until_log("going on with the one before").await;
    let (job, _) = world.run_job("  script: echo with the old one").await;
    assert_eq!(job.status, Status::Success);
    std::fs::write(&file, good.replace("concurrent = 1000", "concurrent = 5")).expect("config.toml");
    manager.signal(Signal::SIGHUP);
    manager.until_log("configuration read again").await;
    let (job, _) = world.run_job("  script: echo with the new one").await;
    assert_eq!(job.status, Status::Success);
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_told_to_stop_waits_for_its_hand_overs_no_longer_than_shutdown_timeout() {
    let mut world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let text = std::fs::read_to_string(&file).expect("config.toml");
    std::fs::write(&file, text.replace("shutdown_timeout = 3", "shutdown_timeout = 1")).expect("config.toml");
    let manager = ManagerProcess::start(&file);
    world.fargate.faults().on_task(1, TaskFault::NeverStarts { stuck_in: Stuck::Provisioning });
    let pipeline = world.pipeline("stuck: { tags: [dev], script: [echo never] }").await;
    world.until_trace("stuck", "RunTask accepted").await;
    manager.signal(Signal::SIGTERM);
    // One signal is enough: the task would never be ready, and its own patience is minutes.
    let (status, log) = manager.ended().await;
    assert!(status.success(), "{log}");
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    world.end().await;
}
