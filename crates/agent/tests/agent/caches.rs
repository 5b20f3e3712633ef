//! Caches that stay where they were made: the runner has no store, or it cannot be reached.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::World;

/// A job with a cache, in a task whose `cache_dir` lasts: a file system that tasks share.
async fn world() -> World {
    let mut world = World::new(&["cat deps/x || { mkdir deps && echo one > deps/x; }"]).await;
    world.payload["cache"] = json!([{"key": "main", "paths": ["deps/"]}]);
    world
}

fn forget_the_project(world: &World) {
    std::fs::remove_dir_all(world.project()).expect("the project");
}

#[tokio::test]
async fn a_cache_directory_that_lasts_serves_the_next_job() {
    let mut world = world().await;
    let first = world.run().await.succeeded();
    first.shows("Cache file does not exist").shows("Creating cache main...").shows("Created cache");
    let folder = world.place("cache/grp/app/main");
    assert!(folder.join("cache.zip").is_file());
    let metadata = folder.join("metadata.json");
    assert_eq!(std::fs::read_to_string(&metadata).expect("it"), r#"{"cachekey":"main"}"#);
    assert_eq!(metadata.metadata().expect("it").permissions().mode() & 0o137, 0, "no more than 0640");

    forget_the_project(&world);
    let second = world.run().await.succeeded();
    second.shows("Instead a local version of cache will be extracted.").shows("Successfully extracted cache");
    second.shows("\none\n").shows("Archive is up to date!");

    // The archive gets the name that the other flag's jobs look for.
    world.set("FF_HASH_CACHE_KEYS", "true");
    let third = world.run().await.succeeded();
    third.shows("Renamed alternate cache file to primary").shows("Archive is up to date!");
    assert!(!folder.join("cache.zip").exists());
}

#[tokio::test]
async fn an_old_archive_is_not_taken_instead_of_what_the_store_does_not_give() {
    let world = world().await;
    world.run().await.succeeded();
    forget_the_project(&world);
    let nobody = json!({"url": "http://127.0.0.1:9/caches/main?secret", "headers": {}});
    let mut message = world.hand_over();
    message["caches"] = json!({
        "objects": {"main": {"get": nobody, "head": null, "put": null}}, "max_archive_size": 0, "renewal": null,
    });
    world.gitlab.give_out_again();
    let mut child = world.agent(&["run"]).stdin(Stdio::piped()).spawn().expect("the agent");
    let mut input = child.stdin.take().expect("it was piped");
    input.write_all(message.to_string().as_bytes()).await.expect("the agent reads");
    drop(input);
    let ended = world.end_of(child).await.succeeded();
    ended.shows("Retrying...").shows("Failed to extract cache").hides("Successfully extracted").hides("secret");
}

#[tokio::test]
async fn what_lies_in_the_place_of_an_archive_and_is_none_is_replaced() {
    for put in ["mkfifo", "ln -s /dev/zero"] {
        let world = world().await;
        let folder = world.place("cache/grp/app/main");
        std::fs::create_dir_all(&folder).expect("a folder");
        let script = format!("{put} cache.zip && touch -h -d @0 cache.zip || touch -d @0 cache.zip");
        let made = std::process::Command::new("sh").args(["-c", &script]).current_dir(&folder).status();
        assert!(made.expect("a shell").success());
        let ended = world.run().await.succeeded();
        ended.shows("cache.zip: it is not a regular file").shows("Failed to extract cache").shows("Created cache");
        assert!(std::fs::symlink_metadata(folder.join("cache.zip")).expect("it").is_file());
    }
}

#[tokio::test]
async fn a_cache_is_restored_as_often_as_the_job_says_whatever_is_wrong() {
    let mut world = world().await;
    world.payload["cache"] = json!([{"key": "main", "paths": ["deps/"], "policy": "odd"}]);
    world.set("RESTORE_CACHE_ATTEMPTS", "2");
    world.set("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false");
    let began = Instant::now();
    let ended = world.run().await.failed("runner_system_failure", 0);
    assert!(began.elapsed() >= Duration::from_secs(1), "a pause before the second attempt");
    assert_eq!(ended.trace.matches("Restoring cache").count(), 2, "{}", ended.trace);
}
