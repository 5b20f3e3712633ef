//! Registration, verification and removal of runners (1.3).

use job::ids::SystemId;
use job::secret::{ExposeSecret, SecretString};
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::client::{CallError, Client, RUNNER_TOKEN, expect, sensitive};
use crate::info::Info;

/// A runner as GitLab knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Registered {
    pub id: u64,
    pub token: SecretString,
    /// RFC 3339; `None` never expires.
    pub token_expires_at: Option<String>,
}

/// The legacy registration with a registration token (1.3).
#[derive(Debug, Clone, Default, Serialize)]
pub struct Registration {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub maintenance_note: String,
    /// Comma separated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag_list: String,
    pub run_untagged: bool,
    pub locked: bool,
    /// `not_protected` or `ref_protected`; empty leaves it to GitLab.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access_level: String,
    /// Seconds; 0 leaves it to GitLab.
    #[serde(skip_serializing_if = "is_zero")]
    pub maximum_timeout: u64,
    pub paused: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What [`Client::verify`] found.
#[derive(Debug)]
pub enum Verified {
    Valid(Registered),
    /// 403: the token is invalid or the runner was deleted.
    Invalid,
    /// GitLab could not say: the runner is kept.
    Unknown(String),
}

/// Who asks; each call sends the fields that it needs.
#[derive(Serialize)]
struct Runner<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a Info>,
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_id: Option<&'a SystemId>,
    #[serde(flatten)]
    registration: Option<&'a Registration>,
}

impl Client {
    /// Makes a runner from a legacy registration token.
    pub async fn register(&self, token: &SecretString, registration: &Registration) -> Result<Registered, CallError> {
        let body = Runner {
            info: Some(self.info()),
            token: token.expose_secret(),
            system_id: None,
            registration: Some(registration),
        };
        let answer = self.call(Method::POST, "runners", token, &body, StatusCode::CREATED).await?;
        read(&answer)
    }

    /// The complete `info` goes along: GitLab keeps what it sees first for up to 55 minutes.
    pub async fn verify(&self, token: &SecretString, system_id: &SystemId) -> Verified {
        let body = Runner {
            info: Some(self.info()),
            token: token.expose_secret(),
            system_id: Some(system_id),
            registration: None,
        };
        let answer = self.call(Method::POST, "runners/verify", token, &body, StatusCode::OK).await;
        match answer.and_then(|answer| read(&answer)) {
            Ok(registered) => Verified::Valid(registered),
            Err(CallError::Forbidden(_)) => Verified::Invalid,
            Err(error) => Verified::Unknown(error.to_string()),
        }
    }

    /// Deletes the runner: for legacy tokens (1.2).
    pub async fn unregister(&self, token: &SecretString) -> Result<(), CallError> {
        let body = Runner { info: None, token: token.expose_secret(), system_id: None, registration: None };
        self.call(Method::DELETE, "runners", token, &body, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// Deletes this manager of the runner: for `glrt-` tokens (1.2).
    pub async fn unregister_manager(&self, token: &SecretString, system_id: &SystemId) -> Result<(), CallError> {
        let body = Runner { info: None, token: token.expose_secret(), system_id: Some(system_id), registration: None };
        self.call(Method::DELETE, "runners/managers", token, &body, StatusCode::NO_CONTENT).await.map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: &SecretString,
        body: &Runner<'_>,
        status: StatusCode,
    ) -> Result<Vec<u8>, CallError> {
        let complete = |request: reqwest::RequestBuilder| {
            request.header(RUNNER_TOKEN, sensitive(token)).header(ACCEPT, "application/json").json(body)
        };
        expect(self.send(method, self.url(path), complete).await?, status).await
    }
}

fn read(body: &[u8]) -> Result<Registered, CallError> {
    serde_json::from_slice(body).map_err(|error| CallError::Unreachable(format!("its answer is not readable: {error}")))
}
