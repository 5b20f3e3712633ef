use std::io::Write;

use embedded::gitlab::Config;
use embedded::gitlab::ci;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::json;

use crate::client::{job, pipeline, send, world, world_with};

#[tokio::test]
async fn an_archive_comes_back_as_it_was_sent_and_is_announced_to_later_jobs() {
    let world = world().await;
    let jobs = vec![job("build", "build"), job("lint", "build"), job("test", "test")];
    let pipeline_id = world.pipeline(pipeline(jobs)).await;
    let runner = world.runner(&[]);
    let (build, lint) = (runner.take().await, runner.take().await);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let query = "?artifact_format=zip&artifact_type=archive&expire_in=1%20week";
    let answer = build.upload(query, "dir/my dist.zip", bytes.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.body), (201, json!(201)));
    build.succeed().await;
    lint.succeed().await;

    let test = runner.take().await;
    let dependencies = test.payload["dependencies"].as_array().expect("dependencies");
    let file = json!({ "filename": "my_dist.zip", "size": bytes.len() });
    assert_eq!(dependencies[0]["artifacts_file"], file);
    assert_eq!((&dependencies[1]["name"], dependencies[1].get("artifacts_file")), (&json!("lint"), None));
    let download = world.api(Method::GET, &format!("jobs/{}/artifacts?direct_download=true", build.id()));
    let token = dependencies[0]["token"].as_str().expect("a token");
    let response = download.header("JOB-TOKEN", token).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.expect("a body") == bytes);
    let view = &world.server.job(build.id()).expect("a job").artifacts[0];
    assert_eq!(view.expire_in.as_deref(), Some("1 week"));
    assert_eq!(std::fs::read(&view.path).expect("the file"), bytes);
    assert_eq!(world.server.pipeline_status(pipeline_id), Some(embedded::gitlab::Status::Running));
}

#[tokio::test]
async fn only_registered_pairs_of_type_and_format_are_accepted() {
    let world = world().await;
    let table = [
        ("", 201),
        ("?artifact_type=junit&artifact_format=gzip", 201),
        ("?artifact_type=sast&artifact_format=raw", 201),
        ("?artifact_type=lsif&artifact_format=zip", 201),
        ("?artifact_type=junit&artifact_format=zip", 400),
        ("?artifact_type=junit", 400),
        ("?artifact_type=archive&artifact_format=gzip", 400),
        ("?artifact_type=archive&artifact_format=tarzstd", 400),
        ("?artifact_type=trace&artifact_format=raw", 400),
        ("?artifact_type=pictures&artifact_format=raw", 400),
    ];
    for (query, status) in table {
        let taken = world.running(job("a", "build")).await;
        let answer = taken.upload(query, "a", b"bytes".to_vec()).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_repeated_upload_is_accepted_and_another_one_is_not() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    assert_eq!(taken.upload("", "a.zip", b"one".to_vec()).await.status, 201);
    assert_eq!(taken.upload("", "a.zip", b"one".to_vec()).await.status, 201, "an answer may get lost");
    let other = taken.upload("", "a.zip", b"two".to_vec()).await;
    assert_eq!(other.body["message"], "another artifact of the same type already exists");
    assert_eq!(other.status, 400);
    assert_eq!(world.server.job(taken.id()).expect("a job").artifacts.len(), 1);
}

#[tokio::test]
async fn an_upload_needs_a_file_a_token_and_a_size_below_the_limit() {
    let world = world_with(Config { artifact_limit: 100_000, ..Config::default() }).await;
    let taken = world.running(job("a", "build")).await;
    assert_eq!(taken.upload("", "a.zip", vec![0; 100_001]).await.status, 413);
    assert_eq!(taken.upload("", "a.zip", vec![0; 4_000_000]).await.status, 413);
    let chunks = (0..40).map(|_| Ok::<_, std::io::Error>(vec![0u8; 100_000]));
    let part = reqwest::multipart::Part::stream(reqwest::Body::wrap_stream(futures::stream::iter(chunks)));
    let form = reqwest::multipart::Form::new().part("file", part.file_name("a.zip"));
    assert_eq!(send(taken.artifacts(Method::POST, "").multipart(form)).await.status, 413, "length unknown before");
    let form = reqwest::multipart::Form::new().text("name", "value");
    let answer = send(taken.artifacts(Method::POST, "").multipart(form)).await;
    assert_eq!((answer.status.as_u16(), &answer.body["error"]), (400, &json!("file is missing")));
    assert_eq!(send(taken.artifacts(Method::POST, "").body("PK")).await.status, 400);
    let path = format!("jobs/{}/artifacts", taken.id());
    let form = || reqwest::multipart::Form::new().part("file", reqwest::multipart::Part::bytes(b"PK").file_name("a"));
    assert_eq!(send(world.api(Method::POST, &path).multipart(form())).await.status, 403);
    assert!(world.server.job(taken.id()).expect("a job").artifacts.is_empty());
    assert_eq!(taken.upload("", "a.zip", vec![0; 100_000]).await.status, 201);
}

#[tokio::test]
async fn a_download_needs_a_token_and_an_archive() {
    let world = world().await;
    let taken = world.running(job("a", "build")).await;
    assert_eq!(send(taken.artifacts(Method::GET, "")).await.status, 404);
    taken.upload("", "a.zip", b"PK".to_vec()).await;
    let path = format!("jobs/{}/artifacts", taken.id());
    let get = |token: &str| send(world.api(Method::GET, &path).header("JOB-TOKEN", token));
    assert_eq!(get(taken.token()).await.status, 200);
    assert_eq!(get("glcbt-64_wrong").await.status, 403);
    assert_eq!(send(world.api(Method::GET, &path)).await.status, 403);
    taken.succeed().await;
    assert_eq!(get(taken.token()).await.status, 200, "the dependency's token works after its end");
    let running = world.running(job("b", "build")).await;
    assert_eq!(get(running.token()).await.status, 200, "and so does that of a running job");
    running.succeed().await;
    assert_eq!(get(running.token()).await.status, 403);
}

#[tokio::test]
async fn a_direct_download_leads_to_another_port_that_sees_which_headers_come() {
    let world = world_with(Config { object_storage: true, ..Config::default() }).await;
    let taken = world.running(job("a", "build")).await;
    taken.upload("", "a.zip", b"PK".to_vec()).await;
    let answer = send(taken.artifacts(Method::GET, "?direct_download=true")).await;
    let location = answer.header("location").expect("a location").to_owned();
    assert_eq!(answer.status, 302);
    assert!(!location.starts_with(world.server.url()));
    let clean = send(world.http.get(&location)).await;
    assert_eq!((clean.status.as_u16(), clean.body), (200, json!("PK")));
    let leaking = send(world.http.get(&location).header("JOB-TOKEN", taken.token())).await;
    assert_eq!(leaking.status, 200);
    let log = world.server.requests();
    let seen: Vec<_> = log.iter().filter(|request| request.path.starts_with("/artifacts/")).collect();
    assert_eq!(seen[0].credentials, Vec::<&str>::new());
    assert_eq!(seen[1].credentials, ["job-token"]);
    let unsigned = location.split('?').next().expect("a path");
    let refused = send(world.http.get(format!("{unsigned}?X-Amz-Signature=no"))).await;
    assert!(refused.status == 403 && refused.body.as_str().is_some_and(|xml| xml.contains("SignatureDoesNotMatch")));
    let proxied = send(taken.artifacts(Method::GET, "?direct_download=false")).await;
    assert_eq!((proxied.status.as_u16(), proxied.body), (200, json!("PK")));
}

#[tokio::test]
async fn variables_of_a_dotenv_report_reach_the_jobs_that_take_the_artifacts() {
    let world = world().await;
    let without = ci::Job { dependencies: Some(Vec::new()), ..job("without", "test") };
    world.pipeline(pipeline(vec![job("build", "build"), job("with", "test"), without])).await;
    let runner = world.runner(&[]);
    let build = runner.take().await;
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).expect("gzip");
        encoder.finish().expect("gzip")
    };
    let query = "?artifact_type=dotenv&artifact_format=gzip";
    let bad = build.upload(query, ".env.gz", gzip("no equals sign\n")).await;
    assert_eq!((bad.status.as_u16(), &bad.body["message"]), (400, &json!("Invalid Format")));
    assert_eq!(build.upload(query, ".env.gz", gzip("URL=https://example.com\n")).await.status, 201);
    build.succeed().await;
    let (with, without) = (runner.take().await, runner.take().await);
    assert_eq!(with.variable("URL"), Some("https://example.com"));
    assert_eq!((without.name(), without.variable("URL")), ("without", None));
}
