//! AWS Secrets Manager: one call, GetSecretValue, made as the manager itself, as its runner's role, or as a role that a job's
//! JWT opens.

use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use job::secret::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::assume_role::RoleKeys;
use crate::errors::{self, CallError, Refusal};
use crate::sdk::{self, Keys, keys_of_role};
use crate::signed_post::Service;

/// For one secret, with the role that it is read as (protocol 3.14).
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);
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
    pub region: String,
    /// None: the runner's role, or else the manager's own credentials.
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
    keys: Keys,
    endpoint_url: Option<String>,
}

impl SecretsManager {
    /// Finds credentials in the usual places; they are fetched when they are needed, and from `region` where that counts.
    pub async fn connect(region: &str) -> Self {
        let manager = sdk::loader(None, ANSWER).region(Region::new(region.to_owned())).load().await;
        let own = std::env::var("AWS_ENDPOINT_URL_SECRETS_MANAGER").ok().filter(|url| !url.is_empty());
        let endpoint_url = own.or(manager.endpoint_url().map(str::to_owned));
        Self { keys: Keys::new(sdk::provider(&manager)), manager, endpoint_url }
    }

    /// The secret's text; a binary one in base64. Tried once.
    pub async fn get(
        &self,
        request: &SecretRequest,
        runner_role: Option<&RoleKeys>,
    ) -> Result<SecretString, CallError> {
        let asked = async {
            check_region(&request.region)?;
            let keys = match (&request.role, runner_role) {
                (Some(role), _) => self.assume(role, &request.region).await?,
                (None, Some(runner_role)) => runner_role.get().await?,
                (None, None) => self.keys.get().await?,
            };
            let service = Service::new("secretsmanager", &request.region, self.endpoint_url.as_deref());
            let (status, body) = service.post(&HEADERS, question(request), keys).await?;
            read_answer(status, &body)
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(CallError::NoAnswer("time-out".into())))
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
        keys_of_role(answer.credentials, &role.role_arn, "AssumeRoleWithWebIdentity")
    }
}

/// The region becomes a part of the host's name: a job must not choose where the manager's signature goes.
fn check_region(name: &str) -> Result<(), CallError> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Ok(());
    }
    Err(CallError::Refused(Refusal { code: String::new(), message: format!("{name:?} is not an AWS region") }))
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
    fn a_region_is_no_host() {
        assert_eq!(check_region("eu-west-1"), Ok(()));
        for name in ["", "x.example.com/#", "us-east-1@example.com"] {
            assert!(matches!(check_region(name), Err(CallError::Refused(_))), "{name}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_asked() {
        let mut request = SecretRequest {
            secret_id: "db".into(),
            version_id: None,
            version_stage: None,
            region: "r".into(),
            role: None,
        };
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
