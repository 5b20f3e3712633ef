//! Artifacts on their way out and in.

use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Ended, World};

fn dependency(id: u64) -> serde_json::Value {
    let token = format!("token-of-{id}");
    json!({"id": id, "token": token, "name": "compile", "artifacts_file": {"filename": "artifacts.zip", "size": 1}})
}

#[tokio::test]
async fn what_one_job_uploads_another_one_downloads() {
    let mut world = World::new(&[
        "mkdir -p dist/sub",
        "printf '#!/bin/sh\\necho it runs\\n' > dist/run.sh; chmod 750 dist/run.sh",
        "ln -s run.sh dist/link; ln -s /nowhere dist/dangling",
        "touch -d '2009-02-13 23:31:31 UTC' dist/sub/old; echo no > dist/debug.log",
    ])
    .await;
    world.set("NAME", "app");
    world.payload["artifacts"] = json!([{
        "name": "$NAME-${CI_JOB_STATUS:-x}", "paths": ["dist/"], "exclude": ["dist/**/*.log"], "expire_in": "1 week",
        "artifact_type": "archive", "artifact_format": "zip",
    }]);
    let ended = world.run().await.succeeded();
    ended.shows("dist/: found 6 matching artifact files and directories").shows("dist/**/*.log: excluded 1 files");
    ended.shows("Uploading artifacts as \"archive\" to coordinator... 201 Created");
    let [upload] = &world.gitlab.uploads()[..] else { panic!("one upload") };
    assert_eq!(upload.name, "app-success.zip");
    assert_eq!(upload.query["expire_in"], "1 week");
    assert_eq!((&*upload.query["artifact_type"], &*upload.query["artifact_format"]), ("archive", "zip"));

    let mut next =
        World::new(&["dist/run.sh", "dist/link", "stat -c '%a %Y' dist/run.sh dist/sub/old", "readlink dist/dangling"])
            .await;
    next.gitlab.offer(6, upload.bytes.clone(), 0);
    next.payload["dependencies"] =
        json!([dependency(6), {"id": 5, "token": "x", "name": "without", "artifacts_file": null}]);
    let ended = next.run().await.succeeded();
    ended.shows("Downloading artifacts for compile (6)...").shows("it runs\n").shows("\n750 ");
    ended.shows(" 1234567891\n").shows("/nowhere\n").hides("without");
    assert!(!next.project().join("dist/debug.log").exists());
}

#[tokio::test]
async fn uploads_follow_the_outcome() {
    for (script, kept) in [("true", ["always.gz", "success.zip"]), ("false", ["always.gz", "failure.zip"])] {
        let mut world = World::new(&["touch file", script]).await;
        world.payload["artifacts"] = json!([
            {"name": "always", "paths": ["file"], "when": "always", "artifact_type": "junit", "artifact_format": "gzip"},
            {"name": "success", "paths": ["file"]},
            {"name": "failure", "paths": ["file"], "when": "on_failure"},
        ]);
        world.run().await;
        assert_eq!(
            world.gitlab.uploads().iter().map(|upload| upload.name.clone()).collect::<Vec<_>>(),
            kept,
            "{script}"
        );
    }
}

#[tokio::test]
async fn reports_are_gzip_or_raw() {
    let mut world = World::new(&["echo '<xml/>' > report.xml", "echo '{}' > sast.json"]).await;
    world.payload["artifacts"] = json!([
        {"name": "junit.xml", "paths": ["report.xml"], "artifact_type": "junit", "artifact_format": "gzip"},
        {"name": "gl-sast-report.json", "paths": ["sast.json"], "artifact_type": "sast", "artifact_format": "raw"},
    ]);
    world.run().await.succeeded();
    let [junit, sast] = &world.gitlab.uploads()[..] else { panic!("two uploads") };
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&junit.bytes[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!((junit.name.as_str(), text.as_str()), ("junit.xml.gz", "<xml/>\n"));
    assert_eq!((sast.name.as_str(), &sast.bytes[..]), ("gl-sast-report.json", &b"{}\n"[..]));
}

#[tokio::test]
async fn untracked_files_are_those_that_git_does_not_know() {
    let mut world =
        World::new(&["git init -q . && echo ignored > .gitignore", "touch ignored 'a b' tracked && git add tracked"])
            .await;
    world.payload["artifacts"] = json!([{"untracked": true, "exclude": [".gitignore"]}]);
    world.run().await.succeeded().shows("untracked: found 2 files");
    let upload = world.gitlab.uploads().remove(0);
    let zip = zip::ZipArchive::new(Cursor::new(upload.bytes)).expect("a zip");
    let names: Vec<_> =
        (0..zip.len()).map(|at| zip.name_for_index(at).expect("a name").expect("UTF-8").into_owned()).collect();
    assert_eq!(names, ["a b", "ignored"]);
}

#[tokio::test]
async fn nothing_to_upload_is_no_failure_but_what_cannot_be_uploaded_is() {
    let mut world = World::new(&["mkdir -p d"]).await;
    world.payload["artifacts"] = json!([{"paths": ["none/"]}]);
    world.run().await.succeeded().shows("WARNING: none/: no matching files").shows("ERROR: No files to upload");
    world.payload["artifacts"] = json!([{"paths": ["d"], "artifact_format": "gzip"}]);
    world.run().await.failed("script_failure", 1).shows("d is not a regular file");
}

#[tokio::test]
async fn an_upload_that_fails_does_not_hide_why_the_script_did() {
    let mut world = World::new(&["mkdir d", "exit 9"]).await;
    world.payload["artifacts"] = json!([{"paths": ["d"], "artifact_format": "gzip", "when": "always"}]);
    world.run().await.failed("script_failure", 9);
}

#[tokio::test]
async fn a_missing_archive_fails_the_job_before_its_script() {
    let mut world = World::new(&["echo never"]).await;
    world.payload["dependencies"] = json!([dependency(6)]);
    world.run().await.failed("script_failure", 1).hides("\nnever").shows("Downloading artifacts from coordinator...");
}

#[tokio::test]
async fn downloads_are_tried_as_often_as_the_job_says() {
    let archive = zip_of("file", "content");
    let mut world = World::new(&["cat file"]).await;
    // The client itself tries three times.
    world.gitlab.offer(6, archive, 3);
    world.payload["dependencies"] = json!([dependency(6)]);
    world.set("ARTIFACT_DOWNLOAD_ATTEMPTS", "2");
    world.set("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false");
    let began = Instant::now();
    let ended = world.run().await.succeeded();
    assert!(began.elapsed() >= Duration::from_secs(1), "a pause before the second attempt");
    ended.shows("content");
    assert_eq!(ended.trace.matches("Downloading artifacts for compile").count(), 2, "{}", ended.trace);
}

#[tokio::test]
async fn a_name_that_takes_for_ever_to_expand_takes_no_longer_than_the_job() {
    let mut world = World::new(&["echo it ran; touch file"]).await;
    world.set("X", &"a".repeat(4096));
    world.set("P", &format!("{}b", "*a".repeat(127)));
    world.payload["artifacts"] = json!([{"name": "${X//$P/x}", "paths": ["file"]}]);
    world.payload["runner_info"] = json!({"timeout": 2});
    world.run().await.failed("job_execution_timeout", 0).shows("it ran\n").shows("took longer than 2s seconds");
    assert!(world.gitlab.uploads().is_empty());
}

#[tokio::test]
async fn an_archive_that_leaves_the_project_is_refused() {
    let mut world = World::new(&["echo never"]).await;
    world.gitlab.offer(6, zip_of("../../evil", "evil"), 0);
    world.payload["dependencies"] = json!([dependency(6)]);
    world.run().await.failed("script_failure", 1).shows("outside of the project directory").hides("\nnever");
    assert!(!world.place("builds/evil").exists());
}

#[tokio::test]
async fn directories_keep_their_modes() {
    let mut world = World::new(&["mkdir -m 700 private && touch private/file"]).await;
    world.payload["artifacts"] = json!([{"paths": ["private"]}]);
    world.run().await.succeeded();
    let mut next = World::new(&["true"]).await;
    next.gitlab.offer(6, world.gitlab.uploads().remove(0).bytes, 0);
    next.payload["dependencies"] = json!([dependency(6)]);
    next.run().await.succeeded();
    let mode = next.project().join("private").metadata().expect("it").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// The most memory that the agent has had when it ends, in MB.
async fn peak(world: &World, patience: Duration) -> (Ended, u64) {
    let mut agent = world.start().await;
    let status = format!("/proc/{}/status", agent.id().expect("it runs"));
    let mut peak = 0;
    let watching = async {
        while agent.try_wait().expect("a process").is_none() {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = kilobytes.unwrap_or(0).max(peak);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(patience, watching).await.expect("an end in time");
    (world.end_of(agent).await, peak / 1024)
}

#[tokio::test]
async fn an_artifact_of_5_gigabytes_takes_no_more_memory_than_a_small_one() {
    let mut world = World::new(&["truncate -s 5G large; echo small > small"]).await;
    world.set("ARTIFACT_COMPRESSION_LEVEL", "fast");
    world.payload["artifacts"] = json!([{"paths": ["small"]}]);
    let (ended, with_small) = peak(&world, Duration::from_secs(60)).await;
    ended.succeeded();
    world.payload["artifacts"] = json!([{"paths": ["large", "small"]}]);
    let (ended, with_large) = peak(&world, Duration::from_secs(240)).await;
    ended.succeeded();
    assert!(with_large < with_small + 24, "{with_large} MB instead of {with_small} MB");
    let mut zip = zip::ZipArchive::new(Cursor::new(world.gitlab.uploads().remove(1).bytes)).expect("a zip");
    assert_eq!(zip.by_name("large").expect("an entry").size(), 5 << 30);
    let mut small = String::new();
    zip.by_name("small").expect("an entry").read_to_string(&mut small).expect("its content");
    assert_eq!(small, "small\n");
}

#[tokio::test]
async fn what_cannot_be_compressed_waits_for_the_network_and_not_in_memory() {
    let mut world = World::new(&["head -c 150000000 /dev/urandom > random"]).await;
    world.set("ARTIFACT_COMPRESSION_LEVEL", "fastest");
    world.payload["artifacts"] = json!([{"paths": ["random"]}]);
    let (ended, uploading) = peak(&world, Duration::from_secs(60)).await;
    ended.succeeded();
    let mut next = World::new(&["stat -c 'size %s' random"]).await;
    next.gitlab.offer(6, world.gitlab.uploads().remove(0).bytes, 0);
    next.payload["dependencies"] = json!([dependency(6)]);
    let (ended, downloading) = peak(&next, Duration::from_secs(60)).await;
    ended.succeeded().shows("size 150000000");
    assert!(uploading < 80 && downloading < 80, "{uploading} and {downloading} MB");
}

#[tokio::test]
async fn ten_thousand_small_files_go_and_come() {
    let mut world = World::new(&["mkdir d", "for i in $(seq 10000); do echo \"file $i\" > d/$i; done"]).await;
    world.payload["artifacts"] = json!([{"paths": ["d/"]}]);
    world.run().await.succeeded().shows("d/: found 10001 matching artifact files and directories");
    let mut next = World::new(&["ls d | wc -l", "cat d/* | sort | uniq | wc -l"]).await;
    next.gitlab.offer(6, world.gitlab.uploads().remove(0).bytes, 0);
    next.payload["dependencies"] = json!([dependency(6)]);
    let trace = next.run().await.succeeded().trace;
    assert_eq!(trace.matches("\n10000\n").count(), 2, "{trace}");
}

#[tokio::test]
async fn what_is_no_archive_or_not_all_of_one_fails_the_job_in_words() {
    let whole = zip_of("file", &"content ".repeat(1000));
    for (bytes, why) in [
        (whole[..whole.len() - 30].to_vec(), "the archive cannot be read"),
        (b"<html>Please sign in</html>".to_vec(), "a page of HTML"),
        (b"\x1f\x8b\x08\x00".to_vec(), "it is gzip"),
        (Vec::new(), "it is empty"),
        (zip_of("d/../../x", "x"), "the archive contains \"d/../../x\""),
    ] {
        let mut world = World::new(&["echo never"]).await;
        world.gitlab.offer(6, bytes, 0);
        world.payload["dependencies"] = json!([dependency(6)]);
        let ended = world.run().await.failed("script_failure", 1);
        ended.shows(why).shows("artifacts of compile (6)").hides("\nnever");
    }
}

#[tokio::test]
async fn provenance_names_the_variables_and_tells_none_of_them() {
    let mut world = World::new(&["echo x > file"]).await;
    world.set("RUNNER_GENERATE_ARTIFACTS_METADATA", "true");
    world.set("SECRET", "hunter2");
    world.set("CI_RUNNER_ID", "42");
    world.payload["artifacts"] = json!([
        {"name": "app", "paths": ["file"], "artifact_format": "zip"},
        {"name": "junit.xml", "paths": ["file"], "artifact_type": "junit", "artifact_format": "gzip"},
    ]);
    world.run().await.succeeded().shows("Generating artifacts statement");
    let mut zip = zip::ZipArchive::new(Cursor::new(world.gitlab.uploads().remove(0).bytes)).expect("a zip");
    let statement = zip.by_name("app-metadata.json").expect("an entry");
    let statement: serde_json::Value = serde_json::from_reader(statement).expect("JSON");
    let sum = "73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac";
    assert_eq!(statement["subject"], json!([{"name": "file", "digest": {"sha256": sum}}]));
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let build = &statement["predicate"]["buildDefinition"];
    let parameters = &build["externalParameters"];
    assert_eq!((&parameters["SECRET"], &parameters["entryPoint"]), (&json!(""), &json!("build")));
    assert_eq!(parameters["source"], "http://gitlab.test/grp/app");
    let builder = &statement["predicate"]["runDetails"]["builder"]["id"];
    assert_eq!(builder, "http://gitlab.test/grp/app/-/runners/42");
    assert!(!statement.to_string().contains("hunter2"));
}

fn zip_of(name: &str, content: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("an entry");
    zip.write_all(content.as_bytes()).expect("an entry");
    zip.finish().expect("a zip").into_inner()
}
