use crate::info::Info;
use std::path::PathBuf;

/// How one runner reaches GitLab.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// As in `config.toml`: `https://gitlab.example.com`, with or without a path.
    pub url: String,
    /// Sent with every verify, request and update: the server believes the features that it saw last.
    pub info: Info,
    /// `tls-ca-file`: added to the usual authorities. A missing file is ignored.
    pub tls_ca_file: Option<PathBuf>,
    /// The same as text: what a hand-over carries.
    pub tls_ca_pem: Option<String>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
}

impl ClientConfig {
    /// Without any TLS settings of its own.
    pub fn new(url: impl Into<String>, info: Info) -> Self {
        Self { url: url.into(), info, tls_ca_file: None, tls_ca_pem: None, tls_cert_file: None, tls_key_file: None }
    }
}

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
pub struct Client {}

impl Client {
    pub fn new(_config: ClientConfig) -> Result<Self, ClientError> {
        todo!()
    }
}
