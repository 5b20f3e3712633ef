//! An archive down and up: streamed, tried three times, and never more of it in memory than one piece.

use std::fs::{self, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use job::hand_over::SignedRequest;
use job::secret::ExposeSecret;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use crate::note::Note;
use crate::workspace::open_regular;

/// What is read from and written to the disk at once.
const PIECE: usize = 1 << 20;
/// Of an answer that is no archive: enough for S3's reason.
const MOST_OF_A_REASON: usize = 16 * 1024;
const TRIES: u32 = 3;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// One request with all of its body.
    pub request: Duration,
    /// The head of an answer to a request without a body.
    pub head: Duration,
    /// Between two tries.
    pub pause: Duration,
}

impl Patience {
    /// `request` is `CACHE_REQUEST_TIMEOUT`.
    pub fn new(request: Duration) -> Self {
        Self { request, head: Duration::from_secs(30), pause: Duration::from_secs(1) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Another try may help.
    #[error("{0}")]
    Passing(String),
    #[error("{0}")]
    Lasting(String),
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
}

/// An object under the naming that is not in use.
pub struct Other<'a> {
    pub head: &'a SignedRequest,
    pub get: &'a SignedRequest,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    Saved,
    /// What lies on disk is as new.
    UpToDate,
    Missing,
}

/// The way to the store.
pub struct Transfer<'a> {
    pub http: reqwest::Client,
    pub patience: Patience,
    /// Hears what goes on, in GitLab's words.
    pub tell: Box<dyn Fn(Note) + Send + Sync + 'a>,
}

impl Transfer<'_> {
    /// Gets an object into the file `into`, which is replaced when all of it is there and whose directory exists. Takes
    /// `other` where it is newer, or alone (protocol 6.1).
    pub async fn download(
        &self,
        primary: &SignedRequest,
        other: Option<&Other<'_>>,
        into: &Path,
    ) -> Result<Fetched, TransferError> {
        self.repeat(|| async {
            // At the same time: nearly always the answer to the first is the one that counts.
            let wanted = self.answer(Method::GET, primary);
            let response = match other {
                None => wanted.await?,
                Some(other) => {
                    let (wanted, head) = tokio::join!(wanted, self.answer(Method::HEAD, other.head));
                    if is_newer(head.as_ref().ok(), wanted.as_ref().ok()) {
                        self.answer(Method::GET, other.get).await?
                    } else {
                        wanted?
                    }
                }
            };
            self.save(response, into).await
        })
        .await
    }

    /// Sends a whole file.
    pub async fn upload(&self, to: &SignedRequest, file: &Path) -> Result<(), TransferError> {
        self.repeat(|| self.try_upload(to, file)).await
    }

    /// Whether an object is surely there.
    pub async fn exists(&self, head: &SignedRequest) -> bool {
        self.answer(Method::HEAD, head).await.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    async fn repeat<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, TransferError>
    where
        F: Future<Output = Result<T, TransferError>>,
    {
        let one = || async {
            let seconds = self.patience.request.as_secs_f64();
            let late = || Err(TransferError::Passing(format!("the store took longer than {seconds} seconds")));
            timeout(self.patience.request, attempt()).await.unwrap_or_else(|_| late())
        };
        for _ in 1..TRIES {
            match one().await {
                Err(TransferError::Passing(reason)) => {
                    tokio::time::sleep(self.patience.pause).await;
                    (self.tell)(Note::Warning(format!("Retrying...  error={reason}")));
                }
                ended => return ended,
            }
        }
        one().await
    }

    fn request(&self, method: Method, to: &SignedRequest) -> RequestBuilder {
        let request = self.http.request(method, to.url.expose_secret());
        to.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// The head of an answer; its body is still to come.
    async fn answer(&self, method: Method, to: &SignedRequest) -> Result<Response, TransferError> {
        match timeout(self.patience.head, self.request(method, to).send()).await {
            Ok(answer) => answer.map_err(transport),
            Err(_) => {
                let seconds = self.patience.head.as_secs_f64();
                Err(TransferError::Passing(format!("the store did not answer within {seconds} seconds")))
            }
        }
    }

    async fn save(&self, mut response: Response, into: &Path) -> Result<Fetched, TransferError> {
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => return Ok(Fetched::Missing),
            _ => return Err(refusal(response).await),
        }
        let modified = last_modified(response.headers());
        if is_up_to_date(into, modified) {
            return Ok(Fetched::UpToDate);
        }
        (self.tell)(Note::Info(downloading(&response)));
        let failed = |error| TransferError::File { path: into.to_owned(), error };
        let directory = into.parent().unwrap_or(Path::new("/"));
        let part = NamedTempFile::with_prefix_in("cache", directory).map_err(failed)?;
        let mut file = BufWriter::with_capacity(PIECE, File::from_std(part.reopen().map_err(failed)?));
        while let Some(piece) = response.chunk().await.map_err(transport)? {
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        if let Some(modified) = modified {
            part.as_file().set_times(FileTimes::new().set_modified(modified)).map_err(failed)?;
        }
        part.persist(into).map_err(|error| failed(error.error))?;
        write_metadata(into, metadata_in(response.headers())).map_err(failed)?;
        Ok(Fetched::Saved)
    }

    async fn try_upload(&self, to: &SignedRequest, path: &Path) -> Result<(), TransferError> {
        let failed = |error| TransferError::File { path: path.to_owned(), error };
        (self.tell)(Note::Info(format!("Uploading cache.zip to {}", shown(to.url.expose_secret()))));
        let file = File::from_std(open_regular(path).map_err(failed)?);
        let metadata = file.metadata().await.map_err(failed)?;
        let mut request = self.request(Method::PUT, to).header(CONTENT_LENGTH, metadata.len());
        if !to.headers.keys().any(|name| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str())) {
            request = request.header(CONTENT_TYPE, "application/octet-stream");
        }
        if let Some(date) = metadata.modified().ok().and_then(http_date) {
            request = request.header(LAST_MODIFIED, date);
        }
        let body = Body::wrap_stream(ReaderStream::with_capacity(file, PIECE));
        let response = request.body(body).send().await.map_err(transport)?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(response).await) }
    }
}

/// What is kept beside an archive: which cache it is (protocol 6.2).
pub fn write_metadata(archive: &Path, metadata: Map<String, Value>) -> io::Result<()> {
    // Whatever stands there is replaced, not followed: other jobs may write to a directory that lasts.
    let mut part = tempfile::Builder::new();
    part.prefix("metadata").permissions(Permissions::from_mode(0o640));
    let mut part = part.tempfile_in(archive.parent().unwrap_or(Path::new("/")))?;
    part.write_all(Value::Object(metadata).to_string().as_bytes())?;
    part.persist(archive.with_file_name("metadata.json"))?;
    Ok(())
}

fn metadata_in(headers: &HeaderMap) -> Map<String, Value> {
    let of_stores = |name: &HeaderName| {
        let name = name.as_str();
        name.strip_prefix("x-amz-meta-").or_else(|| name.strip_prefix("x-goog-meta-")).map(str::to_owned)
    };
    let found = headers.iter().filter_map(|(name, value)| Some((of_stores(name)?, value.to_str().ok()?.into())));
    found.collect()
}

/// As GitLab's runner decides: an answer without a date counts as none here, and as the oldest there.
fn is_newer(other: Option<&Response>, primary: Option<&Response>) -> bool {
    let date = |response: Option<&Response>| {
        let response = response.filter(|response| response.status() == StatusCode::OK)?;
        last_modified(response.headers())
    };
    date(other) > date(primary)
}

fn is_up_to_date(file: &Path, modified: Option<SystemTime>) -> bool {
    let local = fs::symlink_metadata(file).and_then(|found| found.modified());
    local.is_ok_and(|local| modified.is_none_or(|modified| modified <= local))
}

fn last_modified(headers: &HeaderMap) -> Option<SystemTime> {
    let date = headers.get(LAST_MODIFIED)?.to_str().ok()?;
    DateTimeParser::new().parse_timestamp(date).ok().map(SystemTime::from)
}

fn http_date(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

/// The query of an address is its signature: nobody is to read it.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

fn downloading(response: &Response) -> String {
    let url = shown(response.url().as_str());
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    let etag = etag.map(|etag| format!("  ETag={etag}")).unwrap_or_default();
    format!("Downloading cache from {url}{etag}")
}

fn transport(error: reqwest::Error) -> TransferError {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        reason.push_str(&format!(": {error}"));
        cause = error.source();
    }
    TransferError::Passing(reason)
}

/// What the store says to a request that it does not answer as wanted; all of them speak S3's XML.
async fn refusal(mut response: Response) -> TransferError {
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await
        && body.len() < MOST_OF_A_REASON
    {
        body.extend_from_slice(&piece);
    }
    let body = String::from_utf8_lossy(&body);
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text.to_owned())
    };
    let said = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!(". Request failed with code: {code}, message: {message}"),
        (Some(code), None) => format!(". Request failed with code: {code}"),
        _ => String::new(),
    };
    let reason = format!("received: {status}{said}");
    if status.is_server_error() { TransferError::Passing(reason) } else { TransferError::Lasting(reason) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::extract::Request;
    use axum::http::Response as Answer;
    use axum::response::IntoResponse;

    use super::*;

    /// A store on loopback that answers every request as `answer` says.
    async fn store<R>(answer: impl Fn(Request) -> R + Clone + Send + Sync + 'static) -> SignedRequest
    where
        R: Future<Output: IntoResponse> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/bucket/key?X-Amz-Signature=secret", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        SignedRequest { url: url.into(), headers: BTreeMap::new() }
    }

    const QUICK: Patience =
        Patience { request: Duration::from_secs(60), head: Duration::from_secs(30), pause: Duration::ZERO };

    /// What a transfer ends with, and what it says on the way.
    async fn heard<T>(patience: Patience, work: impl AsyncFnOnce(&Transfer<'_>) -> T) -> (T, String) {
        let said = Mutex::new(String::new());
        let tell = |note: Note| {
            let (Note::Info(line) | Note::Warning(line)) = note;
            *said.lock().expect("a lock") += &format!("{line}\n");
        };
        let http = gitlab::elsewhere(None, &gitlab::Proxies::default()).expect("a client");
        let result = work(&Transfer { http, patience, tell: Box::new(tell) }).await;
        (result, said.into_inner().expect("a lock"))
    }

    fn archive(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("cache.zip")
    }

    #[tokio::test]
    async fn an_archive_arrives_with_its_date_and_what_is_known_of_it() {
        let store = store(|_| async {
            let answer = Answer::builder().header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT");
            answer.header("ETag", "\"e\"").header("x-amz-meta-cachekey", "main").body("content".to_owned()).expect("it")
        });
        let store = store.await;
        let directory = tempfile::tempdir().expect("a directory");
        let into = archive(&directory);
        let fetch = async |transfer: &Transfer<'_>| transfer.download(&store, None, &into).await.expect("an answer");
        let (fetched, said) = heard(QUICK, fetch).await;
        assert_eq!(fetched, Fetched::Saved);
        let url = store.url.expose_secret().split_once('?').expect("a signature").0;
        assert_eq!(said, format!("Downloading cache from {url}  ETag=\"e\"\n"));
        assert_eq!(fs::read_to_string(&into).expect("the archive"), "content");
        assert_eq!(fs::read_to_string(into.with_file_name("metadata.json")).expect("it"), r#"{"cachekey":"main"}"#);
        let modified = fs::metadata(&into).and_then(|found| found.modified()).expect("a date");
        assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480));
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 2, "no part is left");

        let (fetched, said) = heard(QUICK, fetch).await;
        assert_eq!((fetched, said), (Fetched::UpToDate, String::new()));
    }

    #[test]
    fn what_is_known_of_an_archive_takes_the_place_of_a_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let (archive, theirs) = (archive(&directory), directory.path().join("theirs"));
        fs::write(&theirs, "kept").expect("a file");
        let metadata = archive.with_file_name("metadata.json");
        std::os::unix::fs::symlink(&theirs, &metadata).expect("a link");
        write_metadata(&archive, Map::from_iter([("cachekey".to_owned(), "main".into())])).expect("written");
        assert_eq!(fs::read_to_string(&theirs).expect("it"), "kept");
        assert_eq!(fs::read_to_string(&metadata).expect("it"), r#"{"cachekey":"main"}"#);
        let mode = fs::symlink_metadata(&metadata).expect("it").permissions().mode();
        assert_eq!(mode & 0o137, 0, "no more than 0640");
    }

    #[tokio::test]
    async fn the_newer_of_two_names_is_taken_and_the_only_one_too() {
        let dated = |date: &'static str, body: &'static str| {
            store(move |request: Request| async move {
                assert!(date != "none" || request.method() != Method::HEAD, "only the other one is asked for its head");
                let answer = Answer::builder().header("Last-Modified", date);
                let answer = if date == "none" { Answer::builder().status(404) } else { answer };
                answer.body(body.to_owned()).expect("an answer")
            })
        };
        let old = dated("Wed, 21 Oct 2015 07:28:00 GMT", "old").await;
        let new = dated("Wed, 21 Oct 2015 07:28:01 GMT", "new").await;
        let none = dated("none", "").await;
        for (primary, other, taken) in
            [(&old, &new, "new"), (&new, &old, "new"), (&old, &old, "old"), (&none, &old, "old")]
        {
            let directory = tempfile::tempdir().expect("a directory");
            let other = Other { head: other, get: other };
            let into = archive(&directory);
            let fetch = async |transfer: &Transfer<'_>| transfer.download(primary, Some(&other), &into).await;
            assert_eq!(heard(QUICK, fetch).await.0.expect("an answer"), Fetched::Saved);
            assert_eq!(fs::read_to_string(&into).expect("the archive"), taken);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let fetch = async |transfer: &Transfer<'_>| transfer.download(&none, None, &archive(&directory)).await;
        assert_eq!(heard(QUICK, fetch).await.0.expect("an answer"), Fetched::Missing);
    }

    const BUSY: &str = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

    #[tokio::test]
    async fn a_server_error_is_tried_three_times_and_a_refusal_once() {
        for (status, tries) in [(503, 3), (403, 1)] {
            let asked = std::sync::Arc::new(AtomicU32::new(0));
            let counter = asked.clone();
            let store = store(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
                async move { Answer::builder().status(status).body(BUSY.to_owned()).expect("an answer") }
            });
            let store = store.await;
            let directory = tempfile::tempdir().expect("a directory");
            let fetch = async |transfer: &Transfer<'_>| transfer.download(&store, None, &archive(&directory)).await;
            let (ended, said) = heard(QUICK, fetch).await;
            let reason = ended.expect_err("no archive").to_string();
            assert!(reason.starts_with(&format!("received: {status} ")), "{reason}");
            assert!(reason.ends_with("code: SlowDown, message: Please reduce your request rate."), "{reason}");
            assert_eq!((asked.load(Ordering::Relaxed), said.matches("Retrying").count() as u32), (tries, tries - 1));
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_given_up_and_no_signature_is_shown() {
        let silent = store(|_| std::future::pending::<&str>()).await;
        let directory = tempfile::tempdir().expect("a directory");
        let impatient = Patience { head: Duration::from_millis(20), ..QUICK };
        let fetch = async |transfer: &Transfer<'_>| transfer.download(&silent, None, &archive(&directory)).await;
        let (ended, said) = heard(impatient, fetch).await;
        assert_eq!(ended.expect_err("no answer").to_string(), "the store did not answer within 0.02 seconds");
        assert_eq!(said.matches("Retrying").count(), 2);

        let nobody = SignedRequest { url: "http://127.0.0.1:9/key?secret".into(), headers: BTreeMap::new() };
        let fetch = async |transfer: &Transfer<'_>| transfer.download(&nobody, None, &archive(&directory)).await;
        let (ended, said) = heard(QUICK, fetch).await;
        let all = format!("{said}{}", ended.expect_err("no answer"));
        assert!(!all.contains("secret") && all.contains("refused"), "{all}");
    }

    #[tokio::test]
    async fn an_upload_says_its_length_and_sends_the_signed_headers() {
        let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
        let counter = seen.clone();
        let store = store(move |request: Request| {
            let counter = counter.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
                let mut seen = counter.lock().expect("a lock");
                seen.push((head.method, head.headers, body.len()));
                // The second try must send the file from its start.
                let status = if seen.len() == 1 { 500 } else { 200 };
                Answer::builder().status(status).body(String::new()).expect("an answer")
            }
        });
        let mut store = store.await;
        store.headers.insert("x-amz-meta-cachekey".into(), "main".into());
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(archive(&directory), vec![7; 3 * PIECE + 1]).expect("a file");
        let send = async |transfer: &Transfer<'_>| transfer.upload(&store, &archive(&directory)).await;
        heard(QUICK, send).await.0.expect("an upload");
        let seen = seen.lock().expect("a lock");
        assert_eq!(seen.len(), 2);
        for (method, headers, length) in seen.iter() {
            assert_eq!((method, *length), (&Method::PUT, 3 * PIECE + 1));
            assert_eq!(headers[CONTENT_LENGTH], (3 * PIECE + 1).to_string());
            assert_eq!(headers[CONTENT_TYPE], "application/octet-stream");
            assert_eq!(headers["x-amz-meta-cachekey"], "main");
            assert!(headers[LAST_MODIFIED].to_str().is_ok_and(|date| date.ends_with(" GMT")));
        }
    }
}
