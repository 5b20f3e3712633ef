//! Git over smart HTTP, for clones and fetches, by Git's own CGI program.

use std::process::Stdio;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response as HttpResponse, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio_util::io::{ReaderStream, StreamReader};

use super::answers::{header, same_secret};
use super::git;
use super::state::Shared;

/// The CGI answered something that is not an answer.
#[derive(Debug, thiserror::Error)]
#[error("git http-backend: {0}")]
struct Broken(String);

/// Serves what is below `/GROUP/PROJECT.git/`; any other path is `None`.
pub(super) async fn serve(shared: &Shared, request: Request) -> Option<Response> {
    let (project, path) = request.uri().path().strip_prefix('/')?.split_once(".git/")?;
    let (project, path) = (project.to_owned(), path.to_owned());
    Some(answer(shared, &project, &path, request).await)
}

async fn answer(shared: &Shared, project: &str, path: &str, request: Request) -> Response {
    if !may_read(shared, request.headers()) {
        let realm = [(WWW_AUTHENTICATE, r#"Basic realm="GitLab""#)];
        return (StatusCode::UNAUTHORIZED, realm, "HTTP Basic: Access denied\n").into_response();
    }
    if !is_project_path(project) {
        return (StatusCode::NOT_FOUND, "Not Found\n").into_response();
    }
    let query = request.uri().query().unwrap_or_default();
    match (request.method(), path) {
        (_, "git-receive-pack") => return forbid_push(),
        (_, "info/refs") if query.contains("service=git-receive-pack") => return forbid_push(),
        (&Method::GET, "info/refs") | (&Method::POST, "git-upload-pack") => {}
        _ => return (StatusCode::NOT_FOUND, "Not Found\n").into_response(),
    }
    let (query, method, headers) = (query.to_owned(), request.method().clone(), request.headers().clone());
    let path = format!("/{project}.git/{path}");
    match run_backend(shared, &path, &query, method, headers, request.into_body()).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(%error, "the embedded GitLab could not serve its repository");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

/// `group/name`, of letters, digits and a few signs; nothing that leads out of the server's folder.
pub(super) fn is_project_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    path.contains('/') && path.split('/').all(is_name)
}

fn forbid_push() -> Response {
    (StatusCode::FORBIDDEN, "You are not allowed to upload code.\n").into_response()
}

/// The password is the token of a job that a runner has now.
fn may_read(shared: &Shared, headers: &HeaderMap) -> bool {
    let Some(encoded) = header(headers, "authorization").and_then(|value| value.strip_prefix("Basic ")) else {
        return false;
    };
    let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) else { return false };
    user == "gitlab-ci-token"
        && shared
            .look(|state| state.jobs.values().any(|job| job.status.is_on_runner() && same_secret(&job.token, password)))
}

async fn run_backend(
    shared: &Shared,
    path: &str,
    query: &str,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Broken> {
    let value = |name: HeaderName| header(&headers, name.as_str()).unwrap_or_default().to_owned();
    let mut child = git::command("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", git::repositories(&shared.directory))
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("REQUEST_METHOD", method.as_str())
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", value(CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", value(CONTENT_ENCODING))
        .env("GIT_PROTOCOL", header(&headers, "git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Broken(error.to_string()))?;
    let missing = || Broken("it has no pipes".into());
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or_else(missing)?);
    // Git may answer before it has read everything, so the two directions run side by side. The task ends with the
    // request's body or with the program.
    tokio::spawn(async move {
        let mut body = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
        if tokio::io::copy(&mut body, &mut stdin).await.is_ok() {
            let _ = stdin.shutdown().await;
        }
    });
    let mut response = HttpResponse::builder().header(CACHE_CONTROL, "no-cache");
    loop {
        let mut line = String::new();
        let length = stdout.read_line(&mut line).await.map_err(|error| Broken(error.to_string()))?;
        if length == 0 {
            return Err(Broken("it ended without an answer".into()));
        }
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("status") => {
                let code = value.split_whitespace().next().and_then(|code| code.parse::<u16>().ok());
                response = response.status(code.ok_or_else(|| Broken(format!("its status is {value}")))?);
            }
            Some((name, value)) => {
                let value = HeaderValue::from_str(value.trim()).map_err(|error| Broken(error.to_string()))?;
                response = response.header(name, value);
            }
        }
    }
    let body = ReaderStream::new(stdout).chain(reap(child));
    response.body(Body::from_stream(body)).map_err(|error| Broken(error.to_string()))
}

/// Yields nothing and waits for the program, so that none is left when the answer is complete. When the client goes
/// away before, the stream is dropped and the program killed.
fn reap(mut child: Child) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    stream::once(async move { child.wait().await }).filter_map(|ended| async move { ended.err().map(Err) })
}
