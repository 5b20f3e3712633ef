use std::time::Duration;

use embedded::gitlab::{Config, Endpoint, Fault, Rule, Status};
use testkit::{ManagerProcess, Setup, World, eventually};

/// Every call of a job's journey that GitLab answers, each failing in one way; then the job passes all the same,
/// with every byte of its log.
async fn survives(endpoint: Endpoint, faults: &[Fault]) {
    let mut world = World::start(Setup::default()).await;
    for fault in faults {
        world.gitlab.faults().add(Rule::new(endpoint, fault.clone()));
        let (job, trace) = world.run_job("  script: for i in 1 2 3 4 5; do echo line-$i; done").await;
        assert_eq!(job.status, Status::Success, "{endpoint:?} {fault:?}\n{trace}");
        for line in 1..=5 {
            assert_eq!(trace.matches(&format!("line-{line}")).count(), 1, "{endpoint:?} {fault:?}\n{trace}");
        }
        assert_eq!(job.trace_matches, Some(true), "{endpoint:?} {fault:?}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_request_that_fails_is_asked_again() {
    let faults = [
        Fault::Dropped,
        Fault::Status(502),
        Fault::Html,
        Fault::TooManyRequests { retry_after: Duration::from_secs(1) },
    ];
    survives(Endpoint::JobRequest, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_update_that_fails_harms_nothing() {
    survives(Endpoint::JobUpdate, &[Fault::Dropped, Fault::Status(500), Fault::AnswerLost]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_log_that_fails_is_sent_again_and_once() {
    let faults = [Fault::Dropped, Fault::Status(503), Fault::AnswerLost, Fault::Slow(Duration::from_millis(800))];
    survives(Endpoint::Trace, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_416_moves_the_log_in_both_directions() {
    survives(Endpoint::Trace, &[Fault::TraceLost { keep: 10 }, Fault::TraceAhead]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_update_that_fails_is_repeated_until_it_is_taken() {
    let faults = [Fault::Dropped, Fault::Status(500), Fault::AnswerLost, Fault::StillArchiving, Fault::Html];
    survives(Endpoint::FinalUpdate, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_read_fails_with_the_reason_in_its_log() {
    let mut world = World::start(Setup::default()).await;
    let fault = Fault::Payload(serde_json::Map::from_iter([("steps".to_owned(), serde_json::json!("not a list"))]));
    // A request that brings no job uses the rule up too.
    world.gitlab.faults().add(Rule::new(Endpoint::JobRequest, fault).times(u32::MAX));
    let (job, trace) = world.run_job("  script: echo never").await;
    assert_eq!(job.status, Status::Failed);
    assert_eq!(job.failure_reason.as_deref(), Some("runner_system_failure"));
    assert!(trace.contains("cannot be read"), "{trace}");
    assert!(world.fargate.tasks().is_empty(), "no task is paid for");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitlab_that_is_down_when_the_manager_starts_is_waited_for() {
    let mut world = World::without_manager(Setup::default()).await;
    world.gitlab.set_down(true).await;
    let mut manager = ManagerProcess::start(&world.config_file());
    manager.until_log("GitLab does not verify the runner's token").await;
    world.gitlab.set_down(false).await;
    let (job, _) = world.run_job("  script: echo hello").await;
    assert_eq!(job.status, Status::Success);
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitlab_that_is_down_for_a_minute_while_a_script_ends_gets_the_whole_log_when_it_is_back() {
    let mut world = World::start(Setup::default()).await;
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo first, sleep 2, seq 1 20000, echo last] }").await;
    world.until_trace("it", "first").await;
    world.gitlab.set_down(true).await;
    // The pauses between the tries double from a second: the seventh comes after a minute.
    let task = world.fargate.tasks().pop().expect("a task").arn;
    eventually("the agent tries again", || {
        let log = world.fargate.task_log(&task).unwrap_or_default();
        String::from_utf8_lossy(&log).matches("reporting the end of the job again").count() >= 7
    })
    .await;
    world.gitlab.set_down(false).await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    let trace = world.trace("it");
    assert!(trace.contains("20000") && trace.contains("last"), "the end is there");
    assert_eq!(world.job("it").trace_matches, Some(true));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_said_and_asked_with_no_more_than_three_times() {
    let world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let text = std::fs::read_to_string(&file).expect("config.toml");
    let wrong = text.lines().map(|line| if line.starts_with("token") { "token = \"glrt-wrong\"" } else { line });
    let one_runner: Vec<&str> = wrong.collect();
    let second = one_runner.iter().enumerate().filter(|(_, line)| **line == "[[runners]]").nth(1).expect("three").0;
    std::fs::write(&file, one_runner[..second].join("\n")).expect("config.toml");
    let mut manager = ManagerProcess::start(&file);
    manager.until_log("GitLab refuses the runner's token").await;
    let requests = |world: &World| world.gitlab.count_requests(|request| request.path.ends_with("jobs/request"));
    // A refused request changes nothing in GitLab, so no event tells of it.
    eventually("the runner was refused three times", || requests(&world) >= 3).await;
    manager.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, _) = manager.ended().await;
    assert!(status.success());
    assert_eq!(requests(&world), 3, "then it rests");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_over_the_servers_limit_ends_the_job_and_its_task() {
    let gitlab = Config { trace_limit: 5_000, ..Setup::default().gitlab };
    let mut world = World::start(Setup { gitlab, ..Setup::default() }).await;
    let (job, _) = world.run_job("  script: [seq 1 5000, sleep 600]").await;
    assert_eq!(job.status, Status::Failed);
    world.end().await;
}
