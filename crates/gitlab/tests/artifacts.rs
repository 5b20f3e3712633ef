//! Artifacts up and down, by way of other hosts.

mod support;

use std::path::{Path, PathBuf};

use axum::http::Method;
use gitlab::{ArtifactUpload, DownloadError, UploadError};
use job::ids::JobId;
use job::secret::SecretString;
use support::{Server, full, status, with_headers};
use tempfile::TempDir;

fn archive(directory: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join("archive");
    std::fs::write(&path, bytes).expect("a file");
    path
}

async fn upload(server: &Server, file: &Path) -> Result<(), UploadError> {
    let upload =
        ArtifactUpload { name: "default.zip", artifact_type: "archive", format: "zip", expire_in: "1 week", file };
    server.client().upload_artifact(JobId(7), &token(), &upload).await
}

fn token() -> SecretString {
    "glcbt-job".into()
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn an_archive_is_streamed_whole_in_every_attempt() {
    let mut asked = 0;
    let server = Server::start(move |_| {
        asked += 1;
        status(if asked == 1 { 503 } else { 201 })
    })
    .await;
    let directory = TempDir::new().expect("a directory");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    upload(&server, &archive(&directory, &bytes)).await.expect("uploaded");
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(request.uri.path(), "/api/v4/jobs/7/artifacts");
        assert_eq!(request.uri.query(), Some("artifact_format=zip&artifact_type=archive&expire_in=1+week"));
        assert_eq!(request.header("job-token"), Some("glcbt-job"));
        assert!(request.header("content-type").is_some_and(|kind| kind.starts_with("multipart/form-data; boundary=")));
        assert!(contains(&request.body, br#"name="file"; filename="default.zip""#));
        assert!(request.body.len() > bytes.len() && contains(&request.body[..400], &bytes[..64]));
    }
}

#[tokio::test]
async fn a_refused_archive_is_not_sent_again() {
    let directory = TempDir::new().expect("a directory");
    let file = archive(&directory, b"zip");
    let server = Server::start(|_| status(413)).await;
    assert!(matches!(upload(&server, &file).await, Err(UploadError::TooLarge)));
    assert_eq!(server.seen().len(), 1);
    let server = Server::start(|_| full(403, &[], r#"{"message":"403 Forbidden"}"#)).await;
    assert!(matches!(upload(&server, &file).await, Err(UploadError::Forbidden(message)) if message == "403 Forbidden"));
    assert_eq!(server.seen().len(), 1);
    let missing = directory.path().join("missing");
    assert!(matches!(upload(&server, &missing).await, Err(UploadError::File(_))));
}

#[tokio::test]
async fn an_upload_moves_to_the_host_that_gitlab_names() {
    let other = Server::start(|_| status(201)).await;
    let target = format!("{}/elsewhere?x=1", other.url());
    let server = Server::start(move |_| with_headers(307, &[("Location", &target)])).await;
    let directory = TempDir::new().expect("a directory");
    upload(&server, &archive(&directory, b"zip")).await.expect("uploaded");
    assert_eq!(other.seen()[0].uri.path(), "/api/v4/jobs/7/artifacts");
    assert_eq!(other.seen()[0].uri.query(), server.seen()[0].uri.query());
}

#[tokio::test]
async fn an_upload_is_given_up_after_three_tries() {
    let server = Server::start(|_| full(400, &[], r#"{"message":"no"}"#)).await;
    let directory = TempDir::new().expect("a directory");
    let error = upload(&server, &archive(&directory, b"zip")).await.expect_err("refused");
    assert!(matches!(&error, UploadError::Failed(reason) if reason.contains("400")), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn the_job_token_stays_at_gitlab() {
    let store = Server::start(|seen| match seen.uri.path() {
        "/back" => full(200, &[], "archive bytes"),
        _ => with_headers(302, &[("Location", "/back")]),
    })
    .await;
    let target = format!("{}/bucket/object?signature=1", store.url());
    let server = Server::start(move |_| with_headers(302, &[("Location", &target)])).await;
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    let bytes = server.client().download_artifacts(JobId(5), &token(), &into).await.expect("downloaded");
    assert_eq!((bytes, std::fs::read(&into).expect("a file")), (13, b"archive bytes".to_vec()));
    let first = &server.seen()[0];
    assert_eq!(first.uri, "/api/v4/jobs/5/artifacts?direct_download=true");
    assert_eq!(first.header("job-token"), Some("glcbt-job"));
    assert_eq!(store.seen().len(), 2);
    assert!(store.seen().iter().all(|seen| seen.header("job-token").is_none()));
}

#[tokio::test]
async fn a_redirect_within_gitlab_keeps_the_token() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/moved" => full(200, &[], "archive"),
        _ => with_headers(307, &[("Location", "/moved")]),
    })
    .await;
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    server.client().download_artifacts(JobId(5), &token(), &into).await.expect("downloaded");
    assert!(server.seen_with(Method::GET).iter().all(|seen| seen.header("job-token") == Some("glcbt-job")));
}

#[tokio::test]
async fn later_tries_go_through_gitlab_itself() {
    let server = Server::start(|seen| match seen.uri.query() {
        Some(_) => with_headers(302, &[("Location", "http://127.0.0.1:1/unreachable")]),
        None => full(200, &[], "archive"),
    })
    .await;
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    server.client().download_artifacts(JobId(5), &token(), &into).await.expect("downloaded");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn artifacts_that_are_gone_or_closed_are_not_asked_for_again() {
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    let server = Server::start(|_| status(404)).await;
    let gone = server.client().download_artifacts(JobId(5), &token(), &into).await;
    assert!(matches!(gone, Err(DownloadError::NotFound)));
    let server = Server::start(|_| full(403, &[], "<Error><Message>expired</Message></Error>")).await;
    let closed = server.client().download_artifacts(JobId(5), &token(), &into).await;
    assert!(matches!(closed, Err(DownloadError::Forbidden(message)) if message == "expired"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_page_instead_of_an_answer_is_a_failure_in_words() {
    let page = |code| full(code, &[("Content-Type", "text/html; charset=utf-8")], "<html>Please log in</html>");
    let directory = TempDir::new().expect("a directory");
    let server = Server::start(move |seen| page(if seen.method == Method::POST { 201 } else { 200 })).await;
    let error = upload(&server, &archive(&directory, b"zip")).await.expect_err("a page").to_string();
    assert!(error.contains("a page of HTML"), "{error}");
    let into = directory.path().join("downloaded");
    let error = server.client().download_artifacts(JobId(7), &token(), &into).await.expect_err("a page").to_string();
    assert!(error.contains("a page of HTML"), "{error}");
    assert!(!into.exists());
}
