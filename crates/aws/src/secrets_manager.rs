//! AWS Secrets Manager: one call, GetSecretValue, made as the manager itself or as a role that a job's JWT opens.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::timeout::TimeoutConfig;
use job::secret::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::fargate::errors::{self, CallError, Refusal};
use crate::proxies;
use crate::signed_post::Service;

/// For one secret, with the role that it is read as (protocol 3.14).
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];

/// One secret: which, where, and as whom it is asked for.
#[derive(Debug, Clone)]
pub struct SecretRequest {
    /// Name or ARN.
    pub secret_id: String,
    /// None: the current version.
    pub version_id: Option<String>,
    pub version_stage: Option<String>,
    /// None: the manager's own.
    pub region: Option<String>,
    /// None: the manager's own credentials.
    pub role: Option<WebIdentity>,
}

/// A role that is taken with a JWT (AssumeRoleWithWebIdentity).
#[derive(Debug, Clone)]
pub struct WebIdentity {
    pub role_arn: String,
    pub session_name: String,
    pub token: SecretString,
}

/// The way to Secrets Manager, as the process finds it in its environment.
pub struct SecretsManager {
    manager: SdkConfig,
    endpoint_url: Option<String>,
}

impl SecretsManager {
    /// Finds region and credentials in the usual places. Credentials are fetched when they are needed.
    pub async fn connect() -> Self {
        let http = proxies::http_client(None);
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ANSWER).build();
        let manager = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .load()
            .await;
        let own = std::env::var("AWS_ENDPOINT_URL_SECRETS_MANAGER").ok().filter(|url| !url.is_empty());
        let endpoint_url = own.or(manager.endpoint_url().map(str::to_owned));
        Self { manager, endpoint_url }
    }

    /// The secret's text; a binary one in base64. Tried once.
    pub async fn get(&self, request: &SecretRequest) -> Result<SecretString, CallError> {
        let asked = async {
            let region = region(request.region.as_deref(), self.manager.region().map(Region::as_ref))?;
            let keys = match &request.role {
                Some(role) => self.assume(role, &region).await?,
                None => self.own_keys().await?,
            };
            let service = Service::new("secretsmanager", &region, self.endpoint_url.as_deref());
            let (status, body) = service.post(&HEADERS, question(request), keys).await?;
            read_answer(status, &body)
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(CallError::NoAnswer("time-out".into())))
    }

    async fn own_keys(&self) -> Result<Credentials, CallError> {
        let Some(provider) = self.manager.credentials_provider() else {
            return Err(CallError::NoCredentials("the manager has none".into()));
        };
        provider.provide_credentials().await.map_err(|error| CallError::of_credentials(&error))
    }

    async fn assume(&self, role: &WebIdentity, region: &str) -> Result<Credentials, CallError> {
        let config = aws_sdk_sts::config::Builder::from(&self.manager).region(Region::new(region.to_owned())).build();
        let call = aws_sdk_sts::Client::from_conf(config)
            .assume_role_with_web_identity()
            .role_arn(&role.role_arn)
            .role_session_name(&role.session_name)
            .web_identity_token(role.token.expose_secret());
        let answer = call.send().await.map_err(|error| match CallError::of_sdk(&error) {
            // STS could not ask GitLab for its keys.
            CallError::Refused(refusal) if refusal.code.starts_with("IDPCommunicationError") => {
                CallError::NoAnswer(refusal.to_string())
            }
            CallError::Refused(refusal) => CallError::RoleRefused { role: role.role_arn.clone(), refusal },
            other => other,
        })?;
        let keys = answer.credentials.ok_or_else(|| CallError::NoAnswer("STS gave no credentials".into()))?;
        let expires = SystemTime::try_from(keys.expiration).ok();
        Ok(Credentials::new(
            keys.access_key_id,
            keys.secret_access_key,
            Some(keys.session_token),
            expires,
            "AssumeRoleWithWebIdentity",
        ))
    }
}

/// The region becomes a part of the host's name: a job must not choose where the manager's signature goes.
fn region(asked: Option<&str>, own: Option<&str>) -> Result<String, CallError> {
    let refuse = |message: String| Err(CallError::Refused(Refusal { code: String::new(), message }));
    match asked.or(own) {
        None => refuse("no AWS region: neither the secret nor the manager's environment names one".into()),
        Some(name) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => Ok(name.to_owned()),
        Some(name) => refuse(format!("{name:?} is not an AWS region")),
    }
}

fn question(request: &SecretRequest) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Question<'a> {
        secret_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        version_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        version_stage: Option<&'a str>,
    }
    let SecretRequest { secret_id, version_id, version_stage, .. } = request;
    let question = Question { secret_id, version_id: version_id.as_deref(), version_stage: version_stage.as_deref() };
    serde_json::to_string(&question).expect("three strings are JSON")
}

fn read_answer(status: u16, body: &str) -> Result<SecretString, CallError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Answer {
        secret_string: Option<SecretString>,
        /// Base64 in JSON 1.1, which is what a job is to get.
        secret_binary: Option<SecretString>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Failure {
        #[serde(rename = "__type")]
        kind: String,
        #[serde(alias = "Message")]
        message: String,
    }
    if status != 200 {
        let failure: Failure = serde_json::from_str(body).unwrap_or_default();
        // Older services put a namespace before the name.
        let code = failure.kind.rsplit('#').next().unwrap_or_default();
        return Err(errors::of_answer(status, code, &failure.message));
    }
    // What serde says could quote the secret.
    let answer: Answer =
        serde_json::from_str(body).map_err(|_| CallError::NoAnswer("the answer is not Secrets Manager's".into()))?;
    answer
        .secret_string
        .or(answer.secret_binary)
        .ok_or_else(|| CallError::Refused(Refusal { code: String::new(), message: "the secret has no value".into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_region_comes_before_the_managers_and_is_no_host() {
        for (asked, own, expected) in [
            (Some("eu-west-1"), Some("us-east-1"), Some("eu-west-1")),
            (None, Some("us-east-1"), Some("us-east-1")),
            (None, None, None),
            (Some("x.example.com/#"), Some("us-east-1"), None),
            (Some("us-east-1@example.com"), None, None),
        ] {
            assert_eq!(region(asked, own).ok().as_deref(), expected, "{asked:?} {own:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_asked() {
        let mut request =
            SecretRequest { secret_id: "db".into(), version_id: None, version_stage: None, region: None, role: None };
        assert_eq!(question(&request), r#"{"SecretId":"db"}"#);
        request.version_id = Some("v1".into());
        request.version_stage = Some("AWSPREVIOUS".into());
        assert_eq!(question(&request), r#"{"SecretId":"db","VersionId":"v1","VersionStage":"AWSPREVIOUS"}"#);
    }

    #[test]
    fn a_text_is_given_as_it_is_and_bytes_in_base64() {
        let value = |body| read_answer(200, body).map(|secret| secret.expose_secret().to_owned());
        assert_eq!(value(r#"{"Name":"db","SecretString":"a\nb"}"#), Ok("a\nb".into()));
        assert_eq!(value(r#"{"SecretBinary":"AP8="}"#), Ok("AP8=".into()));
        assert!(matches!(value(r#"{"Name":"db"}"#), Err(CallError::Refused(_))));
    }

    #[test]
    fn failures_are_told_apart_and_quote_no_value() {
        let failure = |status, body| read_answer(status, body).expect_err("no secret");
        let missing = r#"{"__type":"ResourceNotFoundException","Message":"can't find the specified secret."}"#;
        assert!(
            matches!(failure(400, missing), CallError::Refused(refusal) if refusal.code == "ResourceNotFoundException")
        );
        let denied = r#"{"__type":"com.amazonaws#AccessDeniedException","message":"not authorized"}"#;
        assert!(matches!(failure(400, denied), CallError::Refused(refusal) if refusal.code == "AccessDeniedException"));
        assert!(matches!(failure(400, r#"{"__type":"ThrottlingException"}"#), CallError::Throttled(_)));
        assert!(matches!(failure(500, r#"{"__type":"InternalServiceError"}"#), CallError::NoAnswer(_)));
        assert!(matches!(failure(502, "<html>"), CallError::NoAnswer(_)));
        let error = failure(200, r#"{"SecretString":["hunter2"]}"#);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
