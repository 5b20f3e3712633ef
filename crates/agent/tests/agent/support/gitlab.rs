//! The part of GitLab that an agent speaks to. It keeps a state, and refuses what does not fit to it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, put};
use base64::Engine;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::watch;

use super::{PATIENCE, TOKEN};

pub struct FakeGitLab {
    shared: Arc<Shared>,
    url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for FakeGitLab {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Default)]
struct Shared {
    job: Mutex<Job>,
    /// How many bytes the trace has.
    grown: watch::Sender<usize>,
}

#[derive(Default)]
struct Job {
    trace: Vec<u8>,
    status: &'static str,
    /// `canceling` as soon as the trace contains this, and so on: what a person does who reads along.
    reactions: Vec<(&'static str, &'static str)>,
    last: Option<Final>,
    /// That many requests are answered with 503.
    outages: u32,
    uploads: Vec<Upload>,
    /// By the id of their job, the archives that can be fetched, and how often that fails at first.
    archives: BTreeMap<u64, (Vec<u8>, u32)>,
    /// Parent directory of the repositories.
    repositories: Option<std::path::PathBuf>,
    /// Command lines in which the token was seen while git was at work.
    leaks: Vec<String>,
    git_headers: Vec<String>,
    /// Whether each request of git's brought a login.
    git_logins: Vec<bool>,
    /// Where git is sent to instead.
    git_moved_to: Option<String>,
    /// Packs never come.
    git_stalls: bool,
    /// What Git LFS has, by its SHA-256.
    large_files: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub struct Final {
    pub state: String,
    pub failure_reason: String,
    pub exit_code: i64,
    pub checksum: String,
    pub bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Upload {
    pub query: BTreeMap<String, String>,
    pub name: String,
    pub bytes: Vec<u8>,
}

impl FakeGitLab {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        shared.job().status = "running";
        let routes = Router::new()
            .route("/api/v4/jobs/{id}/trace", patch(take_trace))
            .route("/api/v4/jobs/{id}", put(take_state))
            .route("/api/v4/jobs/{id}/artifacts", get(give_archive).post(take_artifact))
            .fallback(git)
            .layer(DefaultBodyLimit::disable())
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("a server") });
        Self { shared, url, server }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The job is given out again: nothing has been said about it yet.
    pub fn give_out_again(&self) {
        let mut job = self.shared.job();
        job.trace.clear();
        job.last = None;
        job.status = "running";
    }

    pub fn trace(&self) -> String {
        String::from_utf8(self.shared.job().trace.clone()).expect("a trace is UTF-8")
    }

    pub fn last(&self) -> Option<Final> {
        self.shared.job().last.clone()
    }

    /// Sets the job's status as soon as its trace contains `text`.
    pub fn react(&self, text: &'static str, status: &'static str) {
        self.shared.job().reactions.push((text, status));
    }

    pub fn be_down_for(&self, requests: u32) {
        self.shared.job().outages = requests;
    }

    pub fn uploads(&self) -> Vec<Upload> {
        self.shared.job().uploads.clone()
    }

    /// `failures` requests for it end with 500 first.
    pub fn offer(&self, job: u64, archive: Vec<u8>, failures: u32) {
        self.shared.job().archives.insert(job, (archive, failures));
    }

    /// Serves the bare repositories below `parent`, to those who know the token.
    pub fn serve_git(&self, parent: &std::path::Path) {
        self.shared.job().repositories = Some(parent.to_owned());
    }

    pub fn leaks(&self) -> Vec<String> {
        self.shared.job().leaks.clone()
    }

    pub fn git_headers(&self) -> Vec<String> {
        self.shared.job().git_headers.clone()
    }

    pub fn git_logins(&self) -> Vec<bool> {
        self.shared.job().git_logins.clone()
    }

    /// Redirects git to the same path below another URL.
    pub fn move_git(&self, to: &str) {
        self.shared.job().git_moved_to = Some(to.to_owned());
    }

    pub fn store_large_file(&self, sha256: &str, content: &[u8]) {
        self.shared.job().large_files.insert(sha256.to_owned(), content.to_vec());
    }

    pub fn stall_git(&self) {
        self.shared.job().git_stalls = true;
    }

    /// Waits until the job has printed `text`.
    pub async fn shows(&self, text: &str) {
        let mut grown = self.shared.grown.subscribe();
        let seen = async {
            while !self.trace().contains(text) {
                grown.changed().await.expect("the server lives");
            }
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        assert!(seen.is_ok(), "{text:?} never came:\n{}", self.trace());
    }
}

impl Shared {
    fn job(&self) -> MutexGuard<'_, Job> {
        self.job.lock().expect("no test panics with the lock")
    }
}

impl Job {
    fn refuse(&mut self, headers: &HeaderMap) -> Option<Response> {
        if self.outages > 0 {
            self.outages -= 1;
            return Some(StatusCode::SERVICE_UNAVAILABLE.into_response());
        }
        if headers.get("job-token").is_none_or(|token| token != TOKEN) {
            return Some(StatusCode::FORBIDDEN.into_response());
        }
        matches!(self.status, "canceled" | "failed").then(|| self.answer(StatusCode::FORBIDDEN))
    }

    fn answer(&self, status: StatusCode) -> Response {
        let range = format!("0-{}", self.trace.len());
        let headers = [("Job-Status", self.status), ("Range", &range), ("X-GitLab-Trace-Update-Interval", "1")];
        (status, headers).into_response()
    }
}

async fn take_trace(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut job = shared.job();
    if let Some(refusal) = job.refuse(&headers) {
        return refusal;
    }
    let range = headers.get("content-range").and_then(|range| range.to_str().ok()).unwrap_or_default();
    let start = range.split_once('-').and_then(|(start, _)| start.parse::<usize>().ok());
    if start != Some(job.trace.len()) {
        return job.answer(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    job.trace.extend_from_slice(&body);
    let text = String::from_utf8_lossy(&job.trace).into_owned();
    if let Some((_, status)) = job.reactions.iter().find(|(seen, _)| text.contains(seen)) {
        job.status = status;
    }
    shared.grown.send_replace(job.trace.len());
    job.answer(StatusCode::ACCEPTED)
}

async fn take_state(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut job = shared.job();
    if let Some(refusal) = job.refuse(&headers) {
        return refusal;
    }
    let update: Value = serde_json::from_slice(&body).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if text(&update["state"]) != "running" {
        let told = Final {
            state: text(&update["state"]),
            failure_reason: text(&update["failure_reason"]),
            exit_code: update["exit_code"].as_i64().unwrap_or(0),
            checksum: text(&update["output"]["checksum"]),
            bytes: update["output"]["bytesize"].as_u64().unwrap_or(0),
        };
        assert_eq!(told.checksum, format!("crc32:{:08x}", crc32fast::hash(&job.trace)), "the trace is not whole");
        assert_eq!(told.bytes, job.trace.len() as u64);
        job.last = Some(told);
    }
    job.answer(StatusCode::OK)
}

async fn take_artifact(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut job = shared.job();
    if let Some(refusal) = job.refuse(&headers) {
        return refusal;
    }
    // One part: boundary, headers, an empty line, the file, the boundary again.
    let kind = headers["content-type"].to_str().expect("text");
    let boundary = kind.split_once("boundary=").expect("a boundary").1.trim_matches('"');
    let start = body.windows(4).position(|window| window == b"\r\n\r\n").expect("headers") + 4;
    let end = body.len() - format!("\r\n--{boundary}--\r\n").len();
    let head = String::from_utf8_lossy(&body[..start]).into_owned();
    let name = head.split_once("filename=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a file name").0;
    job.uploads.push(Upload { query, name: name.to_owned(), bytes: body[start..end].to_vec() });
    StatusCode::CREATED.into_response()
}

async fn give_archive(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let mut job = shared.job();
    if headers.get("job-token").is_none_or(|token| token != &format!("token-of-{id}")) {
        return StatusCode::FORBIDDEN.into_response();
    }
    match job.archives.get_mut(&id) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some((_, failures)) if *failures > 0 => {
            *failures -= 1;
            // Not among those that the client asks again by itself.
            StatusCode::NOT_IMPLEMENTED.into_response()
        }
        Some((archive, _)) => archive.clone().into_response(),
    }
}

/// Git's own smart HTTP server behind a password.
async fn git(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let password = base64::engine::general_purpose::STANDARD.encode(format!("gitlab-ci-token:{TOKEN}"));
    let headers = request.headers().clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (root, stalls) = {
        let mut job = shared.job();
        let seen = command_lines().filter(|line| line.contains(TOKEN)).collect::<Vec<_>>();
        job.leaks.extend(seen);
        job.git_headers.push(format!("{} {}", header("user-agent"), header("x-gitaly-correlation-id")));
        job.git_logins.push(headers.contains_key("authorization"));
        if let Some(to) = &job.git_moved_to {
            let location = format!("{to}{}", request.uri().path_and_query().expect("a path"));
            return (StatusCode::MOVED_PERMANENTLY, [("Location", location)]).into_response();
        }
        (job.repositories.clone(), job.git_stalls && request.method() == "POST")
    };
    if stalls {
        std::future::pending::<()>().await;
    }
    let Some(root) = root else { return StatusCode::NOT_FOUND.into_response() };
    if header("authorization") != format!("Basic {password}") {
        return (StatusCode::UNAUTHORIZED, [("WWW-Authenticate", "Basic realm=\"GitLab\"")]).into_response();
    }
    if request.uri().path().contains("/info/lfs/") {
        return large_files(&shared, request).await;
    }
    let mut backend = Command::new("git");
    backend.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    backend.env("REMOTE_USER", "job").env("PATH_INFO", request.uri().path());
    backend.env("REQUEST_METHOD", request.method().as_str()).env("QUERY_STRING", request.uri().query().unwrap_or(""));
    backend.env("CONTENT_TYPE", header("content-type")).env("HTTP_CONTENT_ENCODING", header("content-encoding"));
    backend.env("GIT_PROTOCOL", header("git-protocol"));
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.expect("a body");
    backend.env("CONTENT_LENGTH", body.len().to_string());
    let mut child = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git");
    let mut input = child.stdin.take().expect("it was piped");
    // Read and write at once would be needed for large requests only; a fetch sends a few hundred bytes.
    let _ = input.write_all(&body).await;
    drop(input);
    let output = child.wait_with_output().await.expect("git").stdout;
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").expect("headers");
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..split]).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().expect("a status")),
            _ => response.header(name, value),
        };
    }
    response.body(Body::from(output[split + 4..].to_vec())).expect("a response")
}

/// The batch call of Git LFS, and its objects below the same path.
async fn large_files(shared: &Shared, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if let Some((_, oid)) = path.split_once("/info/lfs/objects/").filter(|(_, oid)| *oid != "batch") {
        let content = shared.job().large_files.get(oid).cloned();
        return content.map_or(StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response);
    }
    let host = request.headers()["host"].to_str().expect("a host").to_owned();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.expect("a body");
    let wanted: Value = serde_json::from_slice(&body).expect("JSON");
    let answer = |object: &Value| {
        let oid = object["oid"].as_str().expect("an id");
        let href = format!("http://{host}{}/{oid}", path.trim_end_matches("/batch"));
        serde_json::json!({"oid": oid, "size": object["size"], "actions": {"download": {"href": href}}})
    };
    let objects: Vec<_> = wanted["objects"].as_array().expect("objects").iter().map(answer).collect();
    let body = serde_json::json!({"transfer": "basic", "objects": objects}).to_string();
    ([("Content-Type", "application/vnd.git-lfs+json")], body).into_response()
}

fn command_lines() -> impl Iterator<Item = String> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
}
