//! Whether there is a GitLab at all, and if not, on which part of the way it was lost: for whoever looks for a fault.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::{DATE, LOCATION};

use crate::client::{Client, complaint, describe, is_page};

const PATIENCE: Duration = Duration::from_secs(15);

/// An answer of GitLab's own.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub took: Duration,
    /// By GitLab's clock, in whole seconds.
    pub date: Option<SystemTime>,
}

/// What was in the way, with the words of whoever said so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    #[error("its name is not found: {0}")]
    Name(String),
    /// Refused, no route, a time-out; the server's, or that of a proxy.
    #[error("no connection: {0}")]
    Connection(String),
    /// Its certificate is not trusted, or it speaks no TLS.
    #[error("no TLS: {0}")]
    Tls(String),
    /// Connected, and then nothing that is HTTP.
    #[error("no answer: {0}")]
    Answer(String),
    /// HTTP, but not GitLab's API.
    #[error("what answers is no GitLab: {0}")]
    Elsewhere(String),
    /// GitLab is there, and cannot work.
    #[error("GitLab answers {status}: {message}")]
    Ill { status: u16, message: String },
}

impl Client {
    /// Asks for GitLab's version, once and without a token, which GitLab answers by 401.
    pub async fn look(&self) -> Result<Seen, Unreached> {
        let began = Instant::now();
        let sent = self.http().get(self.url("version")).timeout(PATIENCE).send().await;
        let response = sent.map_err(unreached)?;
        let status = response.status();
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| rfc2822::parse(date).ok()).map(|date| date.timestamp().into());
        if status.is_server_error() {
            return Err(Unreached::Ill { status: status.as_u16(), message: complaint(response).await });
        }
        if status.is_redirection() {
            let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok()).unwrap_or("elsewhere");
            return Err(Unreached::Elsewhere(format!("it redirects to {place}")));
        }
        if is_page(response.headers()) {
            return Err(Unreached::Elsewhere(format!("{status}, and {}", complaint(response).await)));
        }
        match status {
            StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                Ok(Seen { took: began.elapsed(), date })
            }
            status => Err(Unreached::Elsewhere(format!("{status} for /api/v4/version"))),
        }
    }
}

/// reqwest has one error for all; what it is made of tells them apart.
fn unreached(error: reqwest::Error) -> Unreached {
    let is_connect = error.is_connect();
    let mut causes: Vec<String> = Vec::new();
    let mut is_tls = false;
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        is_tls |= error.is::<rustls::Error>();
        causes.push(error.to_string());
        // The source of an io::Error is that of what it holds, and not that itself.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    }
    let text = describe(error);
    match is_connect {
        _ if is_tls => Unreached::Tls(text),
        // hyper-util's word for it; its type is private.
        true if causes.iter().any(|cause| cause == "dns error") => Unreached::Name(text),
        true => Unreached::Connection(text),
        false => Unreached::Answer(text),
    }
}
