//! Artifacts up and down, by way of other hosts.

mod support;

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use gitlab::{ArtifactUpload, Content, DownloadError, Downloaded, UploadError};
use job::ids::JobId;
use job::secret::SecretString;
use support::{DEADLINE, Server, full, status, with_headers};
use tempfile::TempDir;

/// What a packer would send, and the mark of its end.
fn parts(parts: Vec<io::Result<Vec<u8>>>) -> Content {
    let (sender, receiver) = tokio::sync::mpsc::channel(parts.len().max(1));
    for part in parts {
        sender.try_send(part).expect("there is room");
    }
    receiver
}

fn whole(bytes: &[u8]) -> Content {
    parts(bytes.chunks(65_536).map(|part| Ok(part.to_vec())).chain([Ok(Vec::new())]).collect())
}

async fn upload_of(server: &Server, content: &(dyn Fn() -> Content + Sync)) -> Result<(), UploadError> {
    let upload = ArtifactUpload {
        name: "default.zip",
        artifact_type: "archive",
        format: "zip",
        expire_in: "1 week",
        content,
        timeout: DEADLINE,
        header_timeout: DEADLINE,
        failed_try: &|_| {},
    };
    server.client().upload_artifact(JobId(7), &token(), &upload).await
}

async fn upload(server: &Server) -> Result<(), UploadError> {
    upload_of(server, &|| whole(b"zip")).await
}

async fn download(server: &Server, into: &Path) -> Result<Downloaded, DownloadError> {
    server.client().download_artifacts(JobId(5), &token(), true, into, &|_| {}).await
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
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    upload_of(&server, &|| whole(&bytes)).await.expect("uploaded");
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
    let server = Server::start(|_| full(413, &[], r#"{"message":"file size has reached maximum size limit"}"#)).await;
    let refused = upload(&server).await.expect_err("refused");
    assert!(matches!(&refused, UploadError::TooLarge(_)), "{refused}");
    let text = "too large: 413 Payload Too Large: file size has reached maximum size limit";
    assert_eq!(refused.to_string(), text);
    assert_eq!(server.seen().len(), 1);
    let server = Server::start(|_| full(403, &[], r#"{"message":"403 Forbidden"}"#)).await;
    assert!(matches!(upload(&server).await, Err(UploadError::Forbidden(message)) if message == "403 Forbidden"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn of_a_complaint_without_end_only_the_beginning_is_read() {
    let endless = || futures::stream::repeat_with(|| io::Result::Ok(vec![b'x'; 1024]));
    let server = Server::start(move |_| {
        let (parts, _) = status(413).into_parts();
        axum::response::Response::from_parts(parts, axum::body::Body::from_stream(endless()))
    })
    .await;
    let refused = tokio::time::timeout(DEADLINE, upload(&server)).await.expect("an end").expect_err("refused");
    assert_eq!(refused.to_string(), "too large: 413 Payload Too Large");
}

#[tokio::test]
async fn what_cannot_be_packed_or_is_not_whole_is_never_taken_for_an_archive() {
    let server = Server::start(|_| status(201)).await;
    let broken = || parts(vec![Ok(b"begin".to_vec()), Err(io::Error::other("a file vanished"))]);
    let error = upload_of(&server, &broken).await.expect_err("broken");
    assert!(matches!(&error, UploadError::Content(error) if error.to_string() == "a file vanished"), "{error}");
    let error = upload_of(&server, &|| parts(vec![Ok(b"begin".to_vec())])).await.expect_err("cut off");
    assert!(matches!(error, UploadError::Content(_)), "{error}");
    assert!(server.seen().is_empty(), "no request was complete");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for_longer_than_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = support::client(&format!("http://{}", listener.local_addr().expect("an address")));
    // Takes everything and says nothing.
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    let tried = std::sync::Mutex::new(Vec::new());
    let mut upload = ArtifactUpload {
        name: "default.zip",
        artifact_type: "archive",
        format: "zip",
        expire_in: "",
        content: &|| whole(b"zip"),
        timeout: DEADLINE,
        header_timeout: Duration::from_millis(1),
        failed_try: &|reason| tried.lock().expect("no panic").push(reason.to_owned()),
    };
    let job_token = token();
    let first = tokio::time::timeout(Duration::from_millis(900), client.upload_artifact(JobId(7), &job_token, &upload));
    assert!(first.await.is_err(), "the second try comes after a second");
    assert_eq!(tried.lock().expect("no panic")[..], ["GitLab did not answer within 0 s"]);
    (upload.timeout, upload.header_timeout) = (Duration::from_millis(1), DEADLINE);
    let first = tokio::time::timeout(Duration::from_millis(900), client.upload_artifact(JobId(7), &job_token, &upload));
    assert!(first.await.is_err(), "the second try comes after a second");
    assert!(tried.lock().expect("no panic")[1].contains("timed out"), "{tried:?}");
    silent.abort();
}

#[tokio::test]
async fn an_upload_moves_to_the_host_that_gitlab_names() {
    let other = Server::start(|_| status(201)).await;
    let target = format!("{}/elsewhere?x=1", other.url());
    let server = Server::start(move |_| with_headers(307, &[("Location", &target)])).await;
    upload(&server).await.expect("uploaded");
    assert_eq!(other.seen()[0].uri.path(), "/api/v4/jobs/7/artifacts");
    assert_eq!(other.seen()[0].uri.query(), server.seen()[0].uri.query());
}

#[tokio::test]
async fn an_upload_is_given_up_after_three_tries() {
    let server = Server::start(|_| full(400, &[], r#"{"message":"no"}"#)).await;
    let error = upload(&server).await.expect_err("refused");
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
    let downloaded = download(&server, &into).await.expect("downloaded");
    assert_eq!((downloaded.bytes, std::fs::read(&into).expect("a file")), (13, b"archive bytes".to_vec()));
    assert_eq!(downloaded.host, "127.0.0.1");
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
    download(&server, &into).await.expect("downloaded");
    assert!(server.seen_with(Method::GET).iter().all(|seen| seen.header("job-token") == Some("glcbt-job")));
}

#[tokio::test]
async fn later_tries_go_through_gitlab_itself() {
    let server = Server::start(|seen| match seen.uri.query() {
        Some(_) => with_headers(302, &[("Location", "http://127.0.0.1:1/bucket/a.zip?X-Goog-Signature=open-sesame")]),
        None => full(200, &[], "archive"),
    })
    .await;
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    let told = std::sync::Mutex::new(String::new());
    let tell = |reason: &str| told.lock().expect("no panic").push_str(reason);
    server.client().download_artifacts(JobId(5), &token(), true, &into, &tell).await.expect("downloaded");
    assert_eq!(server.seen().len(), 2);
    // The job's log shows it: it names the host that is down, and never the address that opens the archive.
    let told = told.into_inner().expect("no panic");
    assert!(told.starts_with("cannot reach the store of GitLab's artifacts: http://127.0.0.1:1: "), "{told}");
    assert!(!told.contains("sesame") && !told.contains("bucket"), "{told}");
}

#[tokio::test]
async fn artifacts_that_are_gone_or_closed_are_not_asked_for_again() {
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    let server = Server::start(|_| status(404)).await;
    let gone = download(&server, &into).await;
    assert!(matches!(gone, Err(DownloadError::NotFound)));
    let server = Server::start(|_| full(403, &[], "<Error><Message>expired</Message></Error>")).await;
    let closed = download(&server, &into).await;
    assert!(matches!(closed, Err(DownloadError::Forbidden(message)) if message == "expired"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_page_instead_of_an_answer_is_a_failure_in_words() {
    let page = |code| full(code, &[("Content-Type", "text/html; charset=utf-8")], "<html>Please log in</html>");
    let directory = TempDir::new().expect("a directory");
    let server = Server::start(move |seen| page(if seen.method == Method::POST { 201 } else { 200 })).await;
    let error = upload(&server).await.expect_err("a page").to_string();
    assert!(error.contains("a page of HTML"), "{error}");
    let into = directory.path().join("downloaded");
    let error = download(&server, &into).await.expect_err("a page").to_string();
    assert!(error.contains("a page of HTML"), "{error}");
    assert!(!into.exists());
}

#[tokio::test]
async fn other_answers_are_asked_for_again_twice() {
    let directory = TempDir::new().expect("a directory");
    let server = Server::start(|_| full(501, &[], "")).await;
    let failed = download(&server, &directory.path().join("artifacts.zip")).await;
    assert!(matches!(&failed, Err(DownloadError::Failed(reason)) if reason == "501 Not Implemented"), "{failed:?}");
    let asked: Vec<_> = server.seen().iter().map(|seen| seen.uri.query().map(str::to_owned)).collect();
    assert_eq!(asked, [Some("direct_download=true".to_owned()), None, None]);
}

#[tokio::test]
async fn without_direct_download_gitlab_is_not_asked_for_it() {
    let server = Server::start(|_| full(200, &[], "archive")).await;
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    server.client().download_artifacts(JobId(5), &token(), false, &into, &|_| {}).await.expect("downloaded");
    assert_eq!(server.seen()[0].uri, "/api/v4/jobs/5/artifacts");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_fetched_again_and_its_remains_are_gone() {
    let mut asked = 0;
    let server = Server::start(move |_| {
        asked += 1;
        if asked == 1 {
            let parts = [Ok(vec![b'x'; 1000]), Err(io::Error::other("the connection ends"))];
            return axum::response::Response::new(axum::body::Body::from_stream(futures::stream::iter(parts)));
        }
        full(200, &[], "archive")
    })
    .await;
    let directory = TempDir::new().expect("a directory");
    let into = directory.path().join("artifacts.zip");
    let downloaded = download(&server, &into).await.expect("downloaded");
    assert_eq!((downloaded.bytes, std::fs::read(&into).expect("a file")), (7, b"archive".to_vec()));
}
