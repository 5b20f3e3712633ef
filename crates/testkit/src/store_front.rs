//! A front before moto's S3 and STS that minds what moto does not: signatures that are over, roles whose keys end soon, and
//! stores that are ill.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, header};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Moto;
use crate::moto::client;

/// How a store is ill.
#[derive(Debug, Clone)]
pub enum StoreFault {
    /// An answer of S3's with this status and code.
    Refuses(u16, &'static str),
    /// The answer comes so much later.
    Slow(Duration),
    /// The body is something else, with every sign that it is not.
    Corrupt(&'static [u8]),
    /// The body ends before its length.
    CutShort,
}

struct Shared {
    moto: String,
    role_keys_live: Duration,
    faults: Mutex<Vec<(Method, u32, StoreFault)>>,
    /// Method, path and status of every request.
    seen: Mutex<Vec<String>>,
}

pub struct StoreFront {
    shared: Arc<Shared>,
    address: String,
    serving: JoinHandle<()>,
}

impl StoreFront {
    /// Keys of a role live so long.
    pub async fn start(moto: &Moto, role_keys_live: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let moto = moto.url().to_owned();
        let (faults, seen) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { moto, role_keys_live, faults, seen });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
        Self { shared, address, serving }
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next `times` requests of this method meet it.
    pub fn fault(&self, method: Method, times: u32, fault: StoreFault) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).push((method, times, fault));
    }

    /// `PUT /bucket/key 200`
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for StoreFront {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri().path());
    let response = shared.answer(request).await;
    let line = format!("{line} {}", response.status().as_u16());
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    response
}

impl Shared {
    async fn answer(&self, request: Request) -> Response<Body> {
        if request.method() == Method::POST {
            return self.role_keys(request).await;
        }
        if is_over(request.uri().query().unwrap_or_default(), Timestamp::now()) {
            return refusal(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired");
        }
        match self.due(request.method()) {
            None => self.pass_on(request).await,
            Some(StoreFault::Refuses(status, code)) => {
                refusal(StatusCode::from_u16(status).expect("a status"), code, "as the test wants it")
            }
            Some(StoreFault::Slow(pause)) => {
                tokio::time::sleep(pause).await;
                self.pass_on(request).await
            }
            Some(StoreFault::Corrupt(bytes)) => {
                let (parts, _) = self.pass_on(request).await.into_parts();
                let mut response = Response::from_parts(parts, Body::from(bytes));
                response.headers_mut().remove(header::CONTENT_LENGTH);
                response
            }
            Some(StoreFault::CutShort) => {
                let (parts, body) = self.pass_on(request).await.into_parts();
                let body = to_bytes(body, usize::MAX).await.expect("a body");
                let half: Bytes = body.slice(..body.len() / 2);
                // A body of another length than the header says ends the connection.
                let broken = futures::stream::iter([Ok(half), Err(std::io::Error::other("cut short"))]);
                Response::from_parts(parts, Body::from_stream(broken))
            }
        }
    }

    fn due(&self, method: &Method) -> Option<StoreFault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, times, fault) = faults.iter_mut().find(|(of, times, _)| of == method && *times > 0)?;
        *times -= 1;
        Some(fault.clone())
    }

    async fn pass_on(&self, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let path = parts.uri.path_and_query().expect("a path").as_str();
        let mut headers = parts.headers;
        headers.remove(header::HOST);
        let sent = client().request(parts.method, format!("{}{path}", self.moto)).headers(headers).body(body).send();
        let answer = sent.await.expect("moto's answer");
        let mut response = Response::builder().status(answer.status());
        *response.headers_mut().expect("no error yet") = answer.headers().clone();
        response.body(Body::from(answer.bytes().await.expect("moto's body"))).expect("a response")
    }

    /// AssumeRole: moto's keys, but with an end of our own.
    async fn role_keys(&self, request: Request) -> Response<Body> {
        let mut response = self.pass_on(request).await;
        let body = to_bytes(std::mem::take(response.body_mut()), usize::MAX).await.expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        let end = Timestamp::now() + self.role_keys_live;
        let text = match (text.split_once("<Expiration>"), text.split_once("</Expiration>")) {
            (Some((before, _)), Some((_, after))) => format!("{before}<Expiration>{end:.0}</Expiration>{after}"),
            _ => text,
        };
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(text);
        response
    }
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Response::builder().status(status).body(Body::from(body)).expect("a response")
}

/// As S3 decides it.
fn is_over(query: &str, now: Timestamp) -> bool {
    let value = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let (Some(date), Some(seconds)) = (value("X-Amz-Date"), value("X-Amz-Expires")) else { return false };
    let signed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).expect("a date");
    let signed = signed.to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp();
    now > signed + Duration::from_secs(seconds.parse().expect("a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_over_after_its_seconds() {
        let query = "a=b&X-Amz-Date=20261121T233000Z&X-Amz-Expires=60&c";
        let at = |time: &str| time.parse::<Timestamp>().expect("a time");
        assert!(!is_over(query, at("2026-11-21T23:31:00Z")) && is_over(query, at("2026-11-21T23:31:01Z")));
        assert!(!is_over("list-type=2", at("2026-11-21T23:31:01Z")));
    }
}
