//! The server behind `listen_address` (protocol 10.4): `/metrics`, `/debug/jobs/list`, `/health/ready`. Go's profiles
//! (`/debug/pprof`) are not there: this is no Go program.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;

/// Prometheus's text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

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
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the metrics are no longer served");
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
