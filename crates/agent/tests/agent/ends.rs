//! Jobs that somebody or something ends before their time.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{World, gone, read};

/// Prints, so that GitLab's answers come often, and notices when it is told to end.
const ENDLESS: [&str; 3] = ["echo $$ > pid", "echo script began", "while :; do echo .; sleep 0.1; done"];

#[tokio::test]
async fn a_cancelled_script_is_followed_by_after_script_and_uploads() {
    let mut world = World::new(&ENDLESS).await;
    world.after_script(&["echo status=$CI_JOB_STATUS", "touch late"]);
    world.payload["artifacts"] = json!([{"paths": ["pid"], "when": "on_failure"}]);
    world.gitlab.react("script began", "canceling");
    let ended = world.run().await.failed("unknown_failure", 0);
    ended.shows("status=canceled\n").shows("Uploading artifacts for failed job").shows("Cleaning up");
    ended.shows("ERROR: Job failed: canceled");
    assert_eq!(world.gitlab.uploads().len(), 1);
    gone(&read(world.project().join("pid"))).await;
}

#[tokio::test]
async fn a_cancel_before_the_script_ends_the_job_outright() {
    let mut world = World::new(&["echo never"]).await;
    world.after_script(&["echo nor this"]);
    world.set("GIT_STRATEGY", "clone");
    world.runner["pre_get_sources_script"] = json!("echo sources began; while :; do echo .; sleep 0.1; done");
    world.gitlab.react("sources began", "canceling");
    world.run().await.failed("unknown_failure", 0).hides("\nnever").hides("nor this").hides("Cleaning up");
}

#[tokio::test]
async fn a_cancel_during_after_script_comes_too_late() {
    let mut world = World::new(&["true"]).await;
    world.after_script(&[
        "echo after began",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo .; sleep 0.1; done",
        "echo after ended",
    ]);
    world.gitlab.react("after began", "canceling");
    let ended = world.run().await;
    assert_eq!(ended.last.state, "success");
    ended.shows("after ended\n");
}

#[tokio::test]
async fn after_an_abort_nothing_more_is_done_or_said() {
    let mut world = World::new(&ENDLESS).await;
    world.after_script(&["touch late"]);
    world.gitlab.react("script began", "canceled");
    let ended = world.run().await;
    assert!(ended.exit.success(), "GitLab knows the outcome");
    assert!(world.gitlab.last().is_none(), "no state was sent");
    assert!(!world.project().join("late").exists());
    ended.hides("Job failed");
    gone(&read(world.project().join("pid"))).await;
}

#[tokio::test]
async fn the_jobs_time_counts_from_before_the_hand_over() {
    let mut world = World::new(&ENDLESS).await;
    world.after_script(&["touch late"]);
    world.payload["runner_info"] = json!({"timeout": 3600});
    world.elapsed_seconds = 3599.0;
    let ended = world.run().await.failed("job_execution_timeout", 0);
    ended.shows("ERROR: Job failed: execution took longer than 1h0m0s seconds");
    assert!(!world.project().join("late").exists(), "after_script does not run");
}

#[tokio::test]
async fn the_scripts_time_leaves_room_for_after_script() {
    let mut world = World::new(&ENDLESS).await;
    world.set("RUNNER_SCRIPT_TIMEOUT", "1s");
    world.after_script(&["echo status=$CI_JOB_STATUS"]);
    let ended = world.run().await.failed("job_execution_timeout", 0);
    ended.shows("RUNNER_SCRIPT_TIMEOUT").shows("status=timedout\n").shows("execution took longer than 1s seconds");
}

#[tokio::test]
async fn an_after_script_that_takes_too_long_is_ended_and_warned_about() {
    let mut world = World::new(&["true"]).await;
    world.set("RUNNER_AFTER_SCRIPT_TIMEOUT", "300ms");
    world.after_script(&["sleep 600"]);
    world
        .run()
        .await
        .succeeded()
        .shows("WARNING: after_script failed, but job will continue unaffected: it took longer than 0.3");
}

#[tokio::test]
async fn a_script_that_ignores_its_end_is_killed() {
    let mut world = World::new(&["trap '' TERM", "echo $$ > pid", "while :; do sleep 1; done"]).await;
    world.set("RUNNER_SCRIPT_TIMEOUT", "2s");
    world.run().await.failed("job_execution_timeout", 0);
    gone(&read(world.project().join("pid"))).await;
}

#[tokio::test]
async fn a_task_that_is_stopped_still_reports_its_job() {
    let mut world =
        World::new(&["trap '' TERM", "echo $$ > pid", "echo script began", "while :; do sleep 1; done"]).await;
    world.after_script(&["touch late"]);
    let agent = world.start().await;
    world.gitlab.shows("script began").await;
    let started = Instant::now();
    kill(Pid::from_raw(agent.id().expect("it runs").cast_signed()), Signal::SIGTERM).expect("a signal");
    let ended = world.end_of(agent).await;
    assert_eq!((ended.last.state.as_str(), ended.last.failure_reason.as_str()), ("failed", "runner_system_failure"));
    ended.shows("ERROR: Job failed (system failure): the task was stopped from outside");
    assert!(!ended.exit.success(), "the container must not look as if all went well");
    assert!(started.elapsed() < Duration::from_secs(20), "ECS waits for 30 seconds");
    assert!(!world.project().join("late").exists());
    gone(&read(world.project().join("pid"))).await;
}

#[tokio::test]
async fn a_gitlab_that_is_away_for_a_while_loses_nothing() {
    let world = World::new(&["for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"]).await;
    world.gitlab.be_down_for(8);
    // The fake compares the checksum of the whole trace.
    world.run().await.succeeded().shows("line 1\n").shows("line 5\n");
}

#[tokio::test]
async fn an_agent_that_cannot_tell_gitlab_ends_with_an_error() {
    let mut world = World::new(&["true"]).await;
    world.runner["final_update_retries"] = json!(1);
    world.gitlab.be_down_for(u32::MAX);
    let ended = world.run().await;
    assert!(!ended.exit.success());
}

#[tokio::test]
async fn a_hand_over_that_is_none_is_refused() {
    let world = World::new(&["true"]).await;
    let output = world.agent(&["run"]).stdin(std::process::Stdio::null()).output().await.expect("the agent");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the message cannot be read"));
}

#[tokio::test]
async fn a_pipe_in_the_place_of_gits_settings_holds_nobody_up() {
    let mut world = World::new(&["test -p ~/.gitconfig || mkfifo ~/.gitconfig"]).await;
    world.run().await.succeeded();
    world.set("FF_GIT_URLS_WITHOUT_TOKENS", "true");
    world.run().await.succeeded();
}
