//! The server behind `listen_address` (protocol 10.4): `/metrics`, `/debug/jobs/list`, `/health/ready`. Go's profiles
//! (`/debug/pprof`) are not there: this is no Go program.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Metrics;

/// Prometheus's text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Connections at once: the manager needs its file descriptors for GitLab, AWS and tasks. More of them wait in the kernel.
const MOST: usize = 32;
/// For one connection, which is for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// `HOST:PORT`; without a host, every address of the machine.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(':') else { return TcpListener::bind(address).await };
    match TcpListener::bind(format!("[::]:{port}")).await {
        // A machine without IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        bound => bound,
    }
}

/// Until the process ends.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let routes = Router::new()
        .route("/metrics", get(text))
        .route("/debug/jobs/list", get(jobs))
        .route("/health/ready", get(ready))
        .with_state(metrics);
    answer(listener, routes, PATIENCE).await;
}

/// Not `axum::serve`: it lets everybody open connections without end, and keep them without asking for anything.
async fn answer(mut listener: TcpListener, routes: Router, patience: Duration) {
    let places = Arc::new(Semaphore::new(MOST));
    while let Ok(place) = places.clone().acquire_owned().await {
        // Waits where the process has no file descriptor left.
        let (connection, _) = Listener::accept(&mut listener).await;
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let mut http = auto::Builder::new(TokioExecutor::new());
            http.http1().keep_alive(false);
            // Somebody who is slow, or speaks no HTTP, is nothing to tell.
            let _ = timeout(patience, http.serve_connection(TokioIo::new(connection), service)).await;
            drop(place);
        });
    }
}

async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([("content-type", TEXT_FORMAT)], metrics.text().await)
}

async fn jobs(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([("content-type", "text/plain"), ("x-list-version", "2")], metrics.jobs.list(Instant::now()))
}

async fn ready(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    if metrics.is_stopping() { (StatusCode::SERVICE_UNAVAILABLE, "stopping\n") } else { (StatusCode::OK, "ready\n") }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn connections_without_a_whole_request_are_few_and_end() {
        let listener = bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let patience = Duration::from_millis(300);
        let began = Instant::now();
        tokio::spawn(answer(listener, Router::new().route("/", get(async || "here")), patience));
        let send = async |text: &str| {
            let mut connection = TcpStream::connect(address).await.expect("a connection");
            connection.write_all(text.as_bytes()).await.expect("it is taken");
            connection
        };
        let mut slow = Vec::new();
        for _ in 0..MOST {
            slow.push(send("GET / HTTP/1.1\r\n").await);
        }
        let mut whole = send("GET / HTTP/1.1\r\nhost: it\r\n\r\n").await;
        let mut text = String::new();
        whole.read_to_string(&mut text).await.expect("an answer, and its end");
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("here"), "{text}");
        assert!(began.elapsed() >= patience, "no place was free before");
        for mut connection in slow {
            assert_eq!(connection.read(&mut [0; 1]).await.expect("its end"), 0);
        }
    }
}
