//! A GitLab that answers as the test says and remembers what it was asked.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use gitlab::{Client, ClientConfig, Info};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// No condition takes this long; a test that waits for it has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of text"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The first byte's place in the trace.
    pub fn trace_start(&self) -> usize {
        let (start, end) = self.header("content-range").and_then(|range| range.split_once('-')).expect("a range");
        let (start, end): (usize, usize) = (start.parse().expect("a number"), end.parse().expect("a number"));
        assert_eq!(end + 1, start + self.body.len(), "the end is inclusive");
        start
    }
}

type Answer = Box<dyn FnMut(&Seen) -> Response + Send>;

struct Shared {
    answer: Mutex<Answer>,
    seen: watch::Sender<Vec<Seen>>,
}

pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(answer: impl FnMut(&Seen) -> Response + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), answer).await
    }

    pub async fn start_at(address: SocketAddr, answer: impl FnMut(&Seen) -> Response + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { answer: Mutex::new(Box::new(answer)), seen: watch::Sender::new(Vec::new()) });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
        Self { address, shared, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn client(&self) -> Client {
        client(&self.url())
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    pub fn seen_with(&self, method: Method) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method == method).collect()
    }

    pub async fn wait_until(&self, what: impl Fn(&[Seen]) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        let waiting = seen.wait_for(|seen| what(seen));
        tokio::time::timeout(DEADLINE, waiting).await.expect("within the deadline").expect("a live server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return status(400) };
    let seen = Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body: body.into() };
    let response = shared.answer.lock().expect("no panic in the answer")(&seen);
    shared.seen.send_modify(|all| all.push(seen));
    response
}

pub fn client(url: &str) -> Client {
    Client::new(ClientConfig::new(url, Info::new("fargate", "bash"))).expect("a client")
}

pub fn status(code: u16) -> Response {
    with_headers(code, &[])
}

pub fn with_headers(code: u16, headers: &[(&str, &str)]) -> Response {
    full(code, headers, "")
}

pub fn full(code: u16, headers: &[(&str, &str)], body: &str) -> Response {
    // A server that is dropped must not live on in open connections.
    let mut response =
        Response::builder().status(StatusCode::from_u16(code).expect("a status")).header("connection", "close");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body.to_owned())).expect("a response")
}

/// GitLab's side of one trace: it takes only what follows directly on what it has.
#[derive(Clone, Default)]
pub struct Stored(Arc<Mutex<Vec<u8>>>);

impl Stored {
    pub fn with(text: &str) -> Self {
        Self(Arc::new(Mutex::new(text.into())))
    }

    pub fn patch(&self, seen: &Seen) -> Response {
        let mut stored = self.0.lock().expect("no panic");
        let code = if seen.trace_start() == stored.len() {
            stored.extend_from_slice(&seen.body);
            202
        } else {
            416
        };
        with_headers(code, &[("Range", &format!("0-{}", stored.len())), ("Job-Status", "running")])
    }

    pub fn truncate(&self, length: usize) {
        self.0.lock().expect("no panic").truncate(length);
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("a trace is valid UTF-8")
    }
}
