//! A token that expires is renewed while jobs run: the runner stays the same one, before and after a restart.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use embedded::gitlab::{Endpoint, Fault, Rule, Status};
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use testkit::{ManagerProcess, Setup, World, program};
use tokio::process::Command;

const LONG: &str = "it: { tags: [dev], script: [echo under way, sleep 8, echo last] }";
const AFTER: &str = "after: { tags: [dev], script: [echo with the new token] }";

/// Says in the file that the token of dev was obtained long ago, and expires soon.
fn make_due(file: &Path) {
    let text = read(file).replace("name = \"dev\"", &format!("name = \"dev\" # the first\n{}", times()));
    fs::write(file, text).expect("config.toml");
}

fn times() -> String {
    let soon = Timestamp::now() + SignedDuration::from_hours(1);
    format!("token_obtained_at = 2020-01-01T00:00:00Z\ntoken_expires_at = {}", soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("config.toml")
}

/// The files beside the configuration that a token was put aside in.
fn put_aside(file: &Path) -> Vec<PathBuf> {
    let beside = fs::read_dir(file.parent().expect("a folder")).expect("a folder");
    let paths = beside.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().contains("staffetta-new-token-")).collect()
}

/// The token of dev that GitLab accepts now.
fn token_of_dev(world: &World) -> String {
    world.gitlab.runners().into_iter().find(|runner| runner.description == "dev").expect("a runner").token
}

fn old_tokens(file: &Path) -> String {
    fs::read_to_string(file.with_file_name(".staffetta_old_tokens")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_under_a_running_job_which_is_neither_lost_nor_taken_for_a_strangers() {
    let mut world = World::without_manager(Setup::default()).await;
    let (file, old) = (world.config_file(), token_of_dev(&world));
    let mut manager = ManagerProcess::start(&file);
    let pipeline = world.pipeline(LONG).await;
    world.until_trace("it", "under way").await;
    make_due(&file);
    manager.signal(Signal::SIGHUP);
    manager.until_log("renewed the runner's token").await;
    manager.until_log("configuration read again").await;

    let (new, text) = (token_of_dev(&world), read(&file));
    assert!(new != old && text.contains(&new) && !text.contains(&old), "{text}");
    assert!(text.contains("name = \"dev\" # the first\n"), "{text}");
    assert!(text.contains("token_expires_at = 0001-01-01T00:00:00Z"), "GitLab gave one without an end: {text}");
    assert!(old_tokens(&file).contains(&old), "tasks are still found by it");

    let after = world.pipeline(AFTER).await;
    assert_eq!(world.finished(after).await, Status::Success);
    assert_eq!(world.finished(pipeline).await, Status::Success);
    assert_eq!(world.gitlab.count_requests(|request| request.path.ends_with("reset_authentication_token")), 1);
    manager.signal(Signal::SIGTERM);
    let (status, log) = manager.ended().await;
    assert!(status.success() && !log.contains("earlier manager") && !log.contains(&new), "{log}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_without_a_name_keeps_its_running_job_when_its_token_is_renewed() {
    let mut world = World::without_manager(Setup::default()).await;
    let (file, old) = (world.config_file(), token_of_dev(&world));
    let nameless = read(&file).replace("name = \"dev\"\n", "");
    fs::write(&file, &nameless).expect("config.toml");
    let mut manager = ManagerProcess::start(&file);
    let pipeline = world.pipeline(LONG).await;
    world.until_trace("it", "under way").await;
    let token = format!("token = \"{old}\"");
    fs::write(&file, nameless.replace(&token, &format!("{token}\n{}", times()))).expect("config.toml");
    manager.signal(Signal::SIGHUP);
    manager.until_log("renewed the runner's token").await;
    manager.until_log("configuration read again").await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    manager.signal(Signal::SIGTERM);
    let (_, log) = manager.ended().await;
    assert!(!log.contains("earlier manager"), "{log}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_starts_anew_finds_its_jobs_by_the_token_that_they_were_started_with() {
    let mut world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let mut first = ManagerProcess::start(&file);
    let pipeline = world.pipeline(LONG).await;
    world.until_trace("it", "under way").await;
    make_due(&file);
    first.signal(Signal::SIGHUP);
    first.until_log("renewed the runner's token").await;
    first.signal(Signal::SIGKILL);
    first.ended().await;
    let mut second = ManagerProcess::start(&file);
    second.until_log("found a running job of an earlier manager").await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    assert!(world.trace("it").contains("last"), "{}", world.trace("it"));
    drop(second);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_person_resets_is_taken_up_and_the_runner_is_the_same() {
    let mut world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let mut manager = ManagerProcess::start(&file);
    let pipeline = world.pipeline(LONG).await;
    world.until_trace("it", "under way").await;
    let reset = Command::new(program("staffetta"))
        .args(["reset-token", "--name", "dev", "--config"])
        .arg(&file)
        .stdout(Stdio::null())
        .status()
        .await;
    assert!(reset.expect("a status").success());
    manager.signal(Signal::SIGHUP);
    manager.until_log("configuration read again").await;
    let after = world.pipeline(AFTER).await;
    assert_eq!(world.finished(after).await, Status::Success);
    assert_eq!(world.finished(pipeline).await, Status::Success);
    manager.signal(Signal::SIGTERM);
    let (_, log) = manager.ended().await;
    assert!(!log.contains("earlier manager"), "{log}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_written_down_is_kept_until_it_can_be() {
    let world = World::without_manager(Setup::default()).await;
    let (file, old) = (world.config_file(), token_of_dev(&world));
    make_due(&file);
    let good = read(&file);
    world.gitlab.faults().add(Rule::new(Endpoint::Runner, Fault::Slow(Duration::from_secs(1))));
    let mut manager = ManagerProcess::start(&file);
    world.until("GitLab replaced the token", |gitlab| gitlab.runners().iter().all(|runner| runner.token != old)).await;
    fs::write(&file, "broken =").expect("config.toml");
    manager.until_log("it cannot be written; trying again").await;
    fs::write(&file, &good).expect("config.toml");
    manager.until_log("renewed the runner's token").await;
    assert_eq!(read(&file).matches(&token_of_dev(&world)).count(), 1);
    assert!(put_aside(&file).is_empty());
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_token_that_cannot_be_written_down_and_does_not_lose_it() {
    let world = World::without_manager(Setup::default()).await;
    let (file, old) = (world.config_file(), token_of_dev(&world));
    make_due(&file);
    world.gitlab.faults().add(Rule::new(Endpoint::Runner, Fault::Slow(Duration::from_secs(1))));
    let mut manager = ManagerProcess::start(&file);
    world.until("GitLab replaced the token", |gitlab| gitlab.runners().iter().all(|runner| runner.token != old)).await;
    fs::write(&file, "broken =").expect("config.toml");
    manager.until_log("it cannot be written; trying again").await;
    let stopped = Instant::now();
    manager.signal(Signal::SIGTERM);
    let (status, log) = manager.ended().await;
    assert!(status.success() && stopped.elapsed() < Duration::from_secs(20), "{log}");
    let [aside] = &put_aside(&file)[..] else { panic!("{log}") };
    assert!(log.contains(&aside.display().to_string()) && !log.contains(&token_of_dev(&world)), "{log}");
    assert!(read(aside).contains(&format!("token = \"{}\"\n", token_of_dev(&world))));
    assert_eq!(fs::metadata(aside).expect("metadata").mode() & 0o777, 0o600);
    world.end().await;
}

/// Of what root leaves beside the configuration of another user. Nobody but root can try.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_of_root_leaves_belongs_to_the_owner_of_the_configuration() {
    let world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    if fs::metadata(&file).expect("metadata").uid() != 0 {
        return;
    }
    chown(&file, Some(1234), Some(1234)).expect("a file of another user");
    for command in [&["verify"][..], &["reset-token", "--name", "dev"]] {
        let mut program = Command::new(program("staffetta"));
        let status = program.args(command).arg("--config").arg(&file).stdout(Stdio::null()).status().await;
        assert!(status.expect("a status").success());
    }
    for name in ["config.toml", ".runner_system_id", ".staffetta_old_tokens", ".staffetta_renewal"] {
        assert_eq!(fs::metadata(file.with_file_name(name)).expect(name).uid(), 1234, "{name}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_or_cannot_be_renewed_is_left_alone_with_a_warning() {
    let world = World::without_manager(Setup::default()).await;
    let (file, old) = (world.config_file(), token_of_dev(&world));
    make_due(&file);
    let due = read(&file);
    let flag = "[runners.feature_flags]\nFF_DISABLE_AUTOMATIC_TOKEN_ROTATION = true\n[runners.fargate]";
    fs::write(&file, due.replacen("[runners.fargate]", flag, 1)).expect("config.toml");
    let mut manager = ManagerProcess::start(&file);
    manager.until_log("FF_DISABLE_AUTOMATIC_TOKEN_ROTATION forbids to renew it").await;

    // HOME stands for any variable: its value is no token, but nothing is asked of GitLab anyway.
    let from_environment = due.replace(&old, "$HOME");
    fs::write(&file, &from_environment).expect("config.toml");
    manager.signal(Signal::SIGHUP);
    manager.until_log("not in").await;
    assert_eq!((token_of_dev(&world), read(&file)), (old.clone(), from_environment));

    // GitLab says no: the old token stays where it is.
    world.gitlab.faults().add(Rule::new(Endpoint::Runner, Fault::Status(403)));
    fs::write(&file, &due).expect("config.toml");
    let mut other = ManagerProcess::start(&file);
    other.until_log("GitLab does not renew the runner's token").await;
    assert_eq!((token_of_dev(&world), read(&file)), (old, due));
    drop((manager, other));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_without_tasks_is_forgotten() {
    let world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let token = |name: &str, token: &str, hours: i64| {
        let replaced_at = Timestamp::now() - SignedDuration::from_hours(hours);
        format!("[[tokens]]\nrunner = \"{name}\"\ntoken = \"{token}\"\nreplaced_at = \"{replaced_at}\"\n")
    };
    let text = token("dev", "glrt-t1_long-ago-replaced", 2) + &token("staging", "glrt-t1_just-now-replaced", 0);
    fs::write(file.with_file_name(".staffetta_old_tokens"), text).expect("old tokens");
    let mut manager = ManagerProcess::start(&file);
    manager.until_log("the last task of an old token is gone").await;
    let left = old_tokens(&file);
    assert!(!left.contains("long-ago") && left.contains("just-now"), "a launch of this one may be under way: {left}");
    drop(manager);
    world.end().await;
}
