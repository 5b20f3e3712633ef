//! Registration, verification, renewal and removal of runners (1.3).

use jiff::Timestamp;
use job::ids::SystemId;
use job::secret::{ExposeSecret, SecretString};
use reqwest::header::{ACCEPT, HeaderName};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::client::{CallError, Client, RUNNER_TOKEN, expect, sensitive};
use crate::info::Info;

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");

/// A runner that GitLab made.
#[derive(Debug, Clone, Deserialize)]
pub struct Registered {
    pub id: u64,
    #[serde(deserialize_with = "token")]
    pub token: SecretString,
    /// `None` never expires.
    #[serde(default, deserialize_with = "lenient_time")]
    pub token_expires_at: Option<Timestamp>,
}

/// What a runner has instead of the token that was reset. From this answer on the old one is refused.
#[derive(Debug, Clone, Deserialize)]
pub struct Renewed {
    #[serde(deserialize_with = "token")]
    pub token: SecretString,
    /// `None` never expires.
    #[serde(default, deserialize_with = "lenient_time")]
    pub token_expires_at: Option<Timestamp>,
}

/// A token is written into `config.toml`, where `$NAME` stands for a variable: a GitLab that gives such a one would be
/// sent the manager's environment with the next request. GitLab's own have letters, digits, `_`, `-` and `.`.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    let token = SecretString::deserialize(deserializer)?;
    let is_of_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if token.expose_secret().is_empty() || !token.expose_secret().bytes().all(is_of_a_token) {
        return Err(serde::de::Error::custom("it gives a token that is empty or has characters that no token has"));
    }
    Ok(token)
}

/// The token is worth more than its date: a date that cannot be read must not lose it.
fn lenient_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    let time = value.as_str().and_then(|text| text.parse().ok());
    if time.is_none() {
        tracing::warn!(%value, "GitLab gave a date that cannot be read; the token counts as one without end");
    }
    Ok(time)
}

/// What GitLab is to know of a new runner; each field may be left to it.
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

/// A runner whose token is valid, as far as GitLab says more than that.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Known {
    pub id: Option<u64>,
    /// `None` never expires.
    #[serde(deserialize_with = "lenient_time")]
    pub token_expires_at: Option<Timestamp>,
}

/// A runner as those see it who look after it.
#[derive(Debug, Clone, Deserialize)]
pub struct RunnerDetails {
    pub paused: bool,
    pub locked: bool,
    /// `not_protected` or `ref_protected`.
    pub access_level: String,
    pub run_untagged: bool,
    pub tag_list: Vec<String>,
}

/// What [`Client::verify`] found.
#[derive(Debug)]
pub enum Verified {
    Valid(Known),
    /// 403: the token is invalid or the runner was deleted.
    Invalid,
    /// 422: the runner is there, and belongs to no project or group any more. What GitLab says of it.
    Orphaned(String),
    /// GitLab could not say: the runner is kept.
    Unknown(String),
}

/// Whose jobs a new runner may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "runner_type")]
pub enum RunnerScope {
    #[serde(rename = "instance_type")]
    Instance,
    #[serde(rename = "group_type")]
    Group { group_id: u64 },
    #[serde(rename = "project_type")]
    Project { project_id: u64 },
}

#[derive(Serialize)]
struct Creation<'a> {
    #[serde(flatten)]
    scope: RunnerScope,
    #[serde(flatten)]
    registration: &'a Registration,
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

impl<'a> Runner<'a> {
    fn of(token: &'a SecretString) -> Self {
        Self { info: None, token: token.expose_secret(), system_id: None, registration: None }
    }
}

impl Client {
    /// Makes a runner from a legacy registration token.
    pub async fn register(&self, token: &SecretString, registration: &Registration) -> Result<Registered, CallError> {
        let body = Runner { info: Some(self.info()), registration: Some(registration), ..Runner::of(token) };
        read(&self.call(Method::POST, "runners", (RUNNER_TOKEN, token), &body, StatusCode::CREATED).await?)
    }

    /// Makes a runner as its owner, with a personal access token of the scope `create_runner`; the answer has its
    /// `glrt-` token. `POST user/runners` of GitLab's REST API.
    pub async fn create_runner(
        &self,
        personal: &SecretString,
        scope: RunnerScope,
        registration: &Registration,
    ) -> Result<Registered, CallError> {
        let body = Creation { scope, registration };
        read(&self.call(Method::POST, "user/runners", (PRIVATE_TOKEN, personal), &body, StatusCode::CREATED).await?)
    }

    /// The complete `info` goes along: GitLab keeps what it sees first for up to 55 minutes. Without a `system_id` GitLab
    /// keeps nothing: for whoever is no manager.
    pub async fn verify(&self, token: &SecretString, system_id: Option<&SystemId>) -> Verified {
        let body = Runner { info: Some(self.info()), system_id, ..Runner::of(token) };
        let answer = self.call(Method::POST, "runners/verify", (RUNNER_TOKEN, token), &body, StatusCode::OK).await;
        match answer {
            // Very old servers say it in words (1.3).
            Ok(answer) => Verified::Valid(serde_json::from_slice(&answer).unwrap_or_default()),
            Err(CallError::Forbidden(_)) => Verified::Invalid,
            Err(CallError::Refused { status: 422, message }) => Verified::Orphaned(message),
            Err(error) => Verified::Unknown(error.to_string()),
        }
    }

    /// Replaces the runner's token. An answer that is lost takes the runner with it: only its owner can reset it then.
    pub async fn reset_token(&self, token: &SecretString) -> Result<Renewed, CallError> {
        let path = "runners/reset_authentication_token";
        read(&self.call(Method::POST, path, (RUNNER_TOKEN, token), &Runner::of(token), StatusCode::CREATED).await?)
    }

    /// The same as its owner, who needs no token of the runner.
    pub async fn reset_token_as_owner(&self, personal: &SecretString, id: u64) -> Result<Renewed, CallError> {
        let path = format!("runners/{id}/reset_authentication_token");
        read(&self.call(Method::POST, &path, (PRIVATE_TOKEN, personal), &(), StatusCode::CREATED).await?)
    }

    /// What its owner set, who needs a personal access token of the scope `read_api`. `GET runners/:id` of GitLab's REST API.
    pub async fn runner(&self, personal: &SecretString, id: u64) -> Result<RunnerDetails, CallError> {
        let complete = |request: reqwest::RequestBuilder| {
            request.header(&PRIVATE_TOKEN, sensitive(personal)).header(ACCEPT, "application/json")
        };
        let answer = self.send(Method::GET, self.url(&format!("runners/{id}")), complete).await?;
        read(&expect(answer, StatusCode::OK).await?)
    }

    /// Deletes the runner, with all its managers.
    pub async fn unregister(&self, token: &SecretString) -> Result<(), CallError> {
        let body = Runner::of(token);
        self.call(Method::DELETE, "runners", (RUNNER_TOKEN, token), &body, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// Deletes this manager of the runner: for `glrt-` tokens (1.2).
    pub async fn unregister_manager(&self, token: &SecretString, system_id: &SystemId) -> Result<(), CallError> {
        let body = Runner { system_id: Some(system_id), ..Runner::of(token) };
        let path = "runners/managers";
        self.call(Method::DELETE, path, (RUNNER_TOKEN, token), &body, StatusCode::NO_CONTENT).await.map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        (header, token): (HeaderName, &SecretString),
        body: &impl Serialize,
        status: StatusCode,
    ) -> Result<Vec<u8>, CallError> {
        let complete = |request: reqwest::RequestBuilder| {
            request.header(&header, sensitive(token)).header(ACCEPT, "application/json").json(body)
        };
        expect(self.send(method, self.url(path), complete).await?, status).await
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| CallError::Unreachable(format!("its answer is not readable: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        for refused in ["", "$SECRET", "${SECRET}", "glrt-a b", "glrt-a\"", "glrt-a\n", "glrt-é"] {
            let answer = serde_json::json!({ "id": 1, "token": refused }).to_string();
            let told = read::<Registered>(answer.as_bytes()).unwrap_err().to_string();
            assert!(!told.contains("SECRET"), "{told}");
            read::<Renewed>(answer.as_bytes()).unwrap_err();
        }
        for good in ["glrt-t1_Ab-c_9", "glrt-Ab-c_9.01.121abcdef", "yQ8wUuEn_x-Hvsz5L9tF"] {
            let answer = serde_json::json!({ "id": 1, "token": good }).to_string();
            assert_eq!(read::<Registered>(answer.as_bytes()).unwrap().token.expose_secret(), good);
        }
    }

    #[test]
    fn a_date_of_any_kind_does_not_lose_the_token() {
        for date in ["null", "\"soon\"", "1767225600", "{}", "false"] {
            let answer = format!("{{ \"token\": \"glrt-new\", \"token_expires_at\": {date} }}");
            assert_eq!(read::<Renewed>(answer.as_bytes()).unwrap().token_expires_at, None, "{date}");
        }
    }
}
