//! How every call goes out: base URL, headers, connections, and the layer of patience (section 0).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use job::hand_over::ClientCertificate;
use job::secret::{ExposeSecret, SecretString};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use crate::info::Info;
use crate::proxies::Proxies;
use crate::retry;
use crate::tls::{ShownChain, Tls};

pub(crate) const RUNNER_TOKEN: HeaderName = HeaderName::from_static("runner-token");
pub(crate) const JOB_TOKEN: HeaderName = HeaderName::from_static("job-token");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// GitLab's answer to a request for jobs may take its whole long poll; large downloads take their time as well.
const HEADER_TIMEOUT: Duration = Duration::from_secs(600);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(3600);
/// What is read of a bad answer. GitLab and object stores say less.
const MOST_OF_A_COMPLAINT: usize = 16 * 1024;
/// GitLab's `connection_max_age`: load balancers shift, and certificates are renewed.
pub const CONNECTION_MAX_AGE: Duration = Duration::from_secs(900);

/// How one runner reaches GitLab.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// As in `config.toml`: `https://gitlab.example.com`, with or without a path.
    pub url: String,
    /// Sent with every verify, request and update: the server believes the features that it saw last.
    pub info: Info,
    /// `tls-ca-file`: added to the usual authorities. A missing file is ignored.
    pub tls_ca_file: Option<PathBuf>,
    /// The same as text, which a hand-over carries; it wins over the file.
    pub tls_ca_pem: Option<String>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// The same as text, which a hand-over carries; it wins over the files.
    pub tls_client: Option<ClientCertificate>,
    /// A connection that is older is not used again. Zero: none is too old.
    pub connection_max_age: Duration,
    pub proxies: Proxies,
}

impl ClientConfig {
    /// Without any TLS settings of its own, through the proxies that this process is told of.
    pub fn new(url: impl Into<String>, info: Info) -> Self {
        Self {
            url: url.into(),
            info,
            tls_ca_file: None,
            tls_ca_pem: None,
            tls_cert_file: None,
            tls_key_file: None,
            tls_client: None,
            connection_max_age: CONNECTION_MAX_AGE,
            proxies: Proxies::of_environment(),
        }
    }

    /// The files that TLS is made of, each with the time of its last change.
    fn stamps(&self) -> Vec<Option<SystemTime>> {
        let files = [&self.tls_ca_file, &self.tls_cert_file, &self.tls_key_file].into_iter().flatten();
        files.map(|file| file.metadata().and_then(|metadata| metadata.modified()).ok()).collect()
    }
}

/// One call as it was answered, with all its attempts.
#[derive(Debug)]
pub struct Called<'a> {
    pub method: &'a Method,
    /// Below `/api/v4/`, without its parameters.
    pub path: &'a str,
    /// None: no answer.
    pub status: Option<u16>,
    pub attempts: u32,
    pub took: Duration,
}

type Observer = dyn Fn(&Called) + Send + Sync;

/// The settings cannot be used; asking again is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{url:?} is not the URL of a GitLab: {reason}")]
    Url { url: String, reason: String },
    #[error("cannot read {path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// A call that did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// 403: the token is invalid, or the runner is gone.
    #[error("GitLab does not accept the token: {0}")]
    Forbidden(String),
    #[error("GitLab answered {status}: {message}")]
    Refused { status: u16, message: String },
    /// No answer, or one that cannot be read.
    #[error("cannot reach GitLab: {0}")]
    Unreachable(String),
}

/// One runner's way to GitLab. A clone is cheap and shares the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    observer: Option<Arc<Observer>>,
}

struct Shared {
    config: ClientConfig,
    /// Ends in `/api/v4/`.
    base: Url,
    connections: Mutex<Connections>,
}

struct Connections {
    http: reqwest::Client,
    /// For what may take long to be sent: the others end a call whose answer has not begun in time, also if that is so
    /// because its body is still on the way.
    uploads: reqwest::Client,
    chain: Arc<ShownChain>,
    authority: Option<String>,
    certificate: Option<ClientCertificate>,
    since: Instant,
    stamps: Vec<Option<SystemTime>>,
}

/// An answer and what the layer of patience learned on the way.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// GitLab's id of the request, or the one that it was given.
    pub(crate) request_id: String,
    /// At least one attempt was answered with a retriable status.
    pub(crate) pressure: bool,
}

impl Client {
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let base = base_url(&config.url)?;
        let connections = Mutex::new(Connections::new(&config)?);
        Ok(Self { shared: Arc::new(Shared { config, base, connections }), observer: None })
    }

    /// The same way to GitLab; `observer` hears of each of its calls.
    pub fn observed(self, observer: impl Fn(&Called) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Arc::new(observer)), ..self }
    }

    pub(crate) fn info(&self) -> &Info {
        &self.shared.config.info
    }

    pub(crate) fn base(&self) -> &Url {
        &self.shared.base
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.shared.base.join(path).expect("paths of the API are relative URLs made here")
    }

    /// What a job checks GitLab's certificate by: the configured authority, else the chain that GitLab showed.
    pub(crate) fn certificates(&self) -> Option<String> {
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.authority.clone().or_else(|| connections.chain.pem())
    }

    /// The certificate that is shown to GitLab.
    pub fn certificate(&self) -> Option<ClientCertificate> {
        self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner).certificate.clone()
    }

    /// A call under way keeps the connection that it has, also one that is no longer used for others.
    pub(crate) fn http(&self) -> reqwest::Client {
        self.connection(|connections| &connections.http)
    }

    fn connection(&self, which: impl Fn(&Connections) -> &reqwest::Client) -> reqwest::Client {
        let mut connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.are_outdated(&self.shared.config) {
            match Connections::new(&self.shared.config) {
                Ok(new) => *connections = new,
                // Half-written files, for example: the old connections are better than none.
                Err(error) => tracing::warn!(%error, "cannot renew the connections to GitLab"),
            }
        }
        which(&connections).clone()
    }

    /// One call with up to five attempts; `complete` makes each attempt's request anew. Redirects are
    /// not followed, and a transport error ends the call.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, CallError> {
        self.send_over(self.http(), method, url, complete).await
    }

    /// The same for a call with a large body; `complete` says how long it may take.
    pub(crate) async fn send_large(
        &self,
        method: Method,
        url: Url,
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, CallError> {
        self.send_over(self.connection(|connections| &connections.uploads), method, url, complete).await
    }

    async fn send_over(
        &self,
        http: reqwest::Client,
        method: Method,
        url: Url,
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, CallError> {
        let started = Instant::now();
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        let tell = |status: Option<StatusCode>, attempts| {
            if let Some(observer) = &self.observer {
                let path = url.path().strip_prefix(self.shared.base.path()).unwrap_or_default();
                let status = status.map(|status| status.as_u16());
                observer(&Called { method: &method, path, status, attempts, took: started.elapsed() });
            }
        };
        let mut attempt = 1;
        loop {
            let request = http.request(method.clone(), url.clone()).header(REQUEST_ID, &request_id);
            let sent = complete(request).send().await;
            let response = sent.map_err(|error| {
                tell(None, attempt);
                CallError::Unreachable(describe(error))
            })?;
            if attempt == retry::ATTEMPTS || !retry::is_retriable(response.status().as_u16()) {
                tell(Some(response.status()), attempt);
                let request_id = header(response.headers(), &REQUEST_ID).unwrap_or(request_id);
                return Ok(Answer { response, request_id, pressure: attempt > 1 });
            }
            let pause = retry::pause(response.headers(), attempt, SystemTime::now(), rand::random());
            tracing::debug!(status = response.status().as_u16(), ?pause, path = url.path(), "GitLab asks for patience");
            drop(response);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

impl Connections {
    fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        // Before they are read: a change in between is seen at the next call.
        let stamps = config.stamps();
        let tls = Tls::new(config)?;
        let builder = || {
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.config.clone())
                .user_agent(user_agent())
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(30))
                .tcp_keepalive(Duration::from_secs(30))
                .pool_idle_timeout(Duration::from_secs(90));
            config.proxies.apply(builder)
        };
        let unusable = |error| ClientError::Tls(describe(error));
        let http = builder().read_timeout(HEADER_TIMEOUT).timeout(TOTAL_TIMEOUT).build().map_err(unusable)?;
        let uploads = builder().build().map_err(unusable)?;
        let Tls { chain, authority, certificate, .. } = tls;
        Ok(Self { http, uploads, chain, authority, certificate, since: Instant::now(), stamps })
    }

    fn are_outdated(&self, config: &ClientConfig) -> bool {
        let most = config.connection_max_age;
        (!most.is_zero() && self.since.elapsed() > most) || self.stamps != config.stamps()
    }
}

/// A token as a header that is never logged.
pub(crate) fn sensitive(token: &SecretString) -> HeaderValue {
    // Only a token with line ends is no header; GitLab refuses the empty one with a 403, as it would refuse that.
    let mut value = HeaderValue::from_str(token.expose_secret()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

pub(crate) fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The body of a good answer, or what the bad one says.
pub(crate) async fn expect(answer: Answer, status: StatusCode) -> Result<Vec<u8>, CallError> {
    let actual = answer.response.status();
    if actual == status {
        return match answer.response.bytes().await {
            Ok(body) => Ok(body.into()),
            Err(error) => Err(CallError::Unreachable(describe(error))),
        };
    }
    let message = complaint(answer.response).await;
    Err(match actual {
        StatusCode::FORBIDDEN => CallError::Forbidden(message),
        status => CallError::Refused { status: status.as_u16(), message },
    })
}

/// GitLab's API never answers with a page: something in between does, and GitLab may not even know of the call.
pub(crate) fn is_page(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// What a bad answer says: GitLab's JSON, an object store's XML, or else the status.
pub(crate) async fn complaint(mut response: Response) -> String {
    if is_page(response.headers()) {
        return "a page of HTML instead of GitLab's answer; is a proxy or a login page in between?".to_owned();
    }
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < MOST_OF_A_COMPLAINT
        && let Ok(Some(piece)) = response.chunk().await
    {
        body.extend_from_slice(&piece);
    }
    message_in(&body).unwrap_or_else(|| status.to_string())
}

fn message_in(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Complaint {
        #[serde(alias = "error")]
        message: serde_json::Value,
    }
    if let Ok(complaint) = serde_json::from_slice::<Complaint>(body) {
        return Some(match complaint.message {
            serde_json::Value::String(text) => text,
            fields => fields.to_string(),
        });
    }
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Message>")?;
    rest.split_once("</Message>").map(|(message, _)| message.to_owned())
}

/// Where it happened and the whole chain of causes: the outermost alone only says that something failed. The address is
/// left out: a signed one opens what it leads to, and this text ends in the job's log.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let host = error.url().map(|url| format!("{}: ", url.origin().ascii_serialization()));
    let error = error.without_url();
    let mut text = format!("{}{error}", host.unwrap_or_default());
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Whether a redirect leads out of TLS: what follows it could be read on the way.
pub(crate) fn leaves_tls(from: &Url, to: &Url) -> bool {
    from.scheme() == "https" && to.scheme() != "https"
}

fn user_agent() -> String {
    format!("{} {} (main; rust; {})", job::PRODUCT, job::VERSION, job::variables::platform())
}

/// Trailing slashes and one legacy `/ci` are dropped (0.1).
fn base_url(url: &str) -> Result<Url, ClientError> {
    let unusable = |reason: String| ClientError::Url { url: url.to_owned(), reason };
    let trimmed = url.trim_end_matches('/');
    let trimmed = trimmed.strip_suffix("/ci").unwrap_or(trimmed);
    let base = Url::parse(&format!("{trimmed}/api/v4/")).map_err(|error| unusable(error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(unusable(format!("the scheme {:?} is neither http nor https", base.scheme())));
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalised() {
        for (given, base) in [
            ("https://gitlab.example.com", "https://gitlab.example.com/api/v4/"),
            ("https://gitlab.example.com///", "https://gitlab.example.com/api/v4/"),
            ("http://h:8080/gitlab/", "http://h:8080/gitlab/api/v4/"),
            ("https://h/ci", "https://h/api/v4/"),
            ("https://h/ci/ci/", "https://h/ci/api/v4/"),
        ] {
            assert_eq!(base_url(given).expect(given).as_str(), base);
        }
    }

    #[test]
    fn what_is_no_url_of_a_gitlab_is_refused() {
        for given in ["ftp://gitlab.example.com", "gitlab.example.com", ""] {
            assert!(matches!(base_url(given), Err(ClientError::Url { .. })), "{given:?}");
        }
    }

    #[test]
    fn complaints_are_read_from_json_and_xml() {
        for (body, message) in [
            (r#"{"message":"403 Forbidden"}"#, Some("403 Forbidden")),
            (r#"{"message":{"token":["is missing"]}}"#, Some(r#"{"token":["is missing"]}"#)),
            (r#"{"error":"token is missing"}"#, Some("token is missing")),
            ("<Error><Code>X</Code><Message>Request has expired</Message></Error>", Some("Request has expired")),
            ("<html>", None),
        ] {
            assert_eq!(message_in(body.as_bytes()).as_deref(), message, "{body}");
        }
    }
}
