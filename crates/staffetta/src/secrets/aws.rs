//! AWS Secrets Manager, read as the role that the job's JWT opens, or else as the runner's role or the manager itself.

use std::collections::BTreeMap;

use ::aws::CallError;
use ::aws::fargate::{Credentials, Fargate};
use ::aws::{SecretRequest, SecretsManager, WebIdentity, runner_role_fix};
use job::secret::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use super::SecretError;
use super::members::Members;

/// As long as STS lets a name of a session be.
const LONGEST_SESSION_NAME: usize = 64;

#[derive(Debug)]
pub(super) struct AwsSecret {
    secret_id: String,
    version_id: Option<String>,
    version_stage: Option<String>,
    /// None: the runner's.
    region: Option<String>,
    /// None: it is read as whoever the runner's other calls are made as.
    role: Option<WebIdentity>,
    /// The value is JSON, and only this member of it is wanted.
    field: Option<String>,
}

impl AwsSecret {
    pub fn read(members: &Members<'_>) -> Result<Self, SecretError> {
        let refuse = |message: &str| Err(SecretError::Configuration(message.to_owned()));
        let Some(secret_id) = members.first(&["/secret_id"]) else {
            return refuse("aws_secrets_manager names no secret_id");
        };
        let role_arn = members.first(&["/role_arn", "/server/role_arn"]);
        let role = match (role_arn, members.first(&["/server/jwt"])) {
            (Some(role_arn), Some(jwt)) => {
                Some(WebIdentity { role_arn, session_name: session_name(members), token: jwt.into() })
            }
            (None, None) => None,
            (None, Some(_)) => {
                return refuse(
                    "Role ARN is required when using JWT for AWS authentication: set role_arn or AWS_ROLE_ARN",
                );
            }
            // To take the role with the manager's own credentials would open it to every job.
            (Some(_), None) => {
                return refuse(
                    "the role for aws_secrets_manager is taken with a JWT, and the job gives none: set token",
                );
            }
        };
        Ok(Self {
            secret_id,
            version_id: members.first(&["/version_id"]),
            version_stage: members.first(&["/version_stage"]),
            region: members.first(&["/region", "/server/region"]),
            role,
            field: members.first(&["/field"]),
        })
    }

    pub async fn fetch(&self, aws: &OnceCell<SecretsManager>, fargate: &Fargate) -> Result<SecretString, SecretError> {
        let id = &self.secret_id;
        // The credentials of whoever runs a pipeline on a laptop are not the pipeline's.
        let runner_role = fargate.role_keys();
        if self.role.is_none() && runner_role.is_none() && fargate.credentials() == Credentials::MadeUp {
            return Err(SecretError::Configuration(format!(
                "aws_secrets_manager without a token reads {id} as the manager, and here the manager has no account of AWS: give \
                 the secret a token and a role_arn, or run the job on a runner in AWS"
            )));
        }
        let request = self.request(fargate.region());
        let aws = aws.get_or_init(|| SecretsManager::connect(fargate.region())).await;
        let value = aws.get(&request, runner_role).await.map_err(|error| judge(error, id, self.role.is_some()))?;
        match &self.field {
            Some(name) => field(&value, name, id),
            None => Ok(value),
        }
    }

    fn request(&self, own_region: &str) -> SecretRequest {
        SecretRequest {
            secret_id: self.secret_id.clone(),
            version_id: self.version_id.clone(),
            version_stage: self.version_stage.clone(),
            region: self.region.clone().unwrap_or_else(|| own_region.to_owned()),
            role: self.role.clone(),
        }
    }
}

/// In the letters that STS takes (`[\w+=,.@-]`).
fn session_name(members: &Members<'_>) -> String {
    members
        .first(&["/role_session_name", "/server/role_session_name"])
        .unwrap_or_else(|| members.expand("${CI_JOB_ID}-${CI_PROJECT_ID}-${CI_SERVER_HOST}"))
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_+=,.@-".contains(c) { c } else { '-' })
        .take(LONGEST_SESSION_NAME)
        .collect()
}

/// One member of a flat JSON object. A number stays as it is written there.
fn field(value: &SecretString, name: &str, id: &str) -> Result<SecretString, SecretError> {
    let refuse = |what| SecretError::Configuration(format!("AWS Secrets Manager: {what}"));
    // What serde says could quote the value.
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(value.expose_secret())
        .map_err(|_| refuse(format!("{id} is not a JSON object, so it has no field {name:?}")))?;
    let Some(member) = members.get(name) else {
        return Err(SecretError::Missing(format!("{id} of AWS Secrets Manager has no field {name:?}")));
    };
    let raw = member.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_err(|_| refuse(format!("field {name:?} of {id} is no text"))),
        Some(b'{' | b'[' | b'n') | None => {
            Err(refuse(format!("field {name:?} of {id} is not a string, number or boolean")))
        }
        Some(_) => Ok(raw.into()),
    }
}

fn judge(error: CallError, id: &str, has_own_role: bool) -> SecretError {
    match &error {
        CallError::Throttled(_) | CallError::NoAnswer(_) | CallError::NoRole { .. } => {
            SecretError::Unavailable(format!("AWS Secrets Manager, {id}: {error}"))
        }
        CallError::NoCredentials(_) => SecretError::Configuration(format!(
            "AWS Secrets Manager, {id}: {error}. Without a token the manager's own credentials are used; it has none"
        )),
        CallError::RoleRefused { role, refusal } if !has_own_role => SecretError::Configuration(format!(
            "AWS Secrets Manager, {id}: {error}. {}",
            runner_role_fix(role, refusal)
        )),
        CallError::RoleRefused { .. } => SecretError::Configuration(format!(
            "AWS Secrets Manager, {id}: {error}. Check the role's trust policy: the OIDC provider for GitLab, the token's aud and sub"
        )),
        CallError::Refused(refusal) => match refusal.code.as_str() {
            "ResourceNotFoundException" => {
                SecretError::Missing(format!("{id} is not in AWS Secrets Manager: {}", refusal.message))
            }
            "AccessDeniedException" => SecretError::Configuration(format!(
                "AWS Secrets Manager, {id}: {error}. The role needs secretsmanager:GetSecretValue on it"
            )),
            _ => SecretError::Configuration(format!("AWS Secrets Manager, {id}: {error}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use ::aws::Refusal;
    use serde_json::{Value, json};

    use super::*;
    use crate::secrets::members::tests::expand;

    fn read(entry: &Value) -> Result<AwsSecret, SecretError> {
        AwsSecret::read(&Members::expanded(entry, &expand))
    }

    #[test]
    fn what_the_job_says_comes_before_what_the_server_says() {
        for (entry, region, role) in [
            (json!({}), None, None),
            (json!({"server": {"region": "eu-west-1"}}), Some("eu-west-1"), None),
            (json!({"region": "us-west-2", "server": {"region": "eu-west-1"}}), Some("us-west-2"), None),
            (json!({"server": {"jwt": "$ID_TOKEN", "role_arn": "arn:server"}}), None, Some("arn:server")),
            (
                json!({"role_arn": "arn:$ENVIRONMENT", "server": {"jwt": "$ID_TOKEN", "role_arn": "arn:server"}}),
                None,
                Some("arn:prod"),
            ),
        ] {
            let mut entry = entry;
            entry["secret_id"] = json!("db");
            let request = read(&entry).expect("readable").request("own-region-1");
            assert_eq!(request.region, region.unwrap_or("own-region-1"), "{entry}");
            assert_eq!(request.role.as_ref().map(|role| role.role_arn.as_str()), role, "{entry}");
            assert!(request.role.is_none_or(|role| role.token.expose_secret() == "the.jwt"), "{entry}");
        }
    }

    #[test]
    fn a_jwt_and_a_role_need_each_other_and_a_secret_needs_a_name() {
        for entry in [
            json!({"secret_id": "db", "server": {"jwt": "$ID_TOKEN"}}),
            json!({"secret_id": "db", "role_arn": "arn:aws:iam::1:role/x"}),
            json!({"secret_id": "db", "role_arn": "arn:aws:iam::1:role/x", "server": {"jwt": "$NO_SUCH_TOKEN"}}),
            json!({"secret_id": "$NO_SUCH_TOKEN"}),
        ] {
            assert!(matches!(read(&entry), Err(SecretError::Configuration(_))), "{entry}");
        }
    }

    #[test]
    fn the_name_of_the_session_is_one_that_sts_takes() {
        for (given, expected) in [
            (json!({}), "7-11-gitlab.example.com".to_owned()),
            (json!({"server": {"role_session_name": "of $ENVIRONMENT/é"}}), "of-prod--".to_owned()),
            (json!({"role_session_name": "a".repeat(99), "server": {"role_session_name": "b"}}), "a".repeat(64)),
        ] {
            assert_eq!(session_name(&Members::expanded(&given, &expand)), expected);
        }
    }

    #[test]
    fn a_field_is_a_text_a_number_or_a_boolean() {
        let value = SecretString::from(
            r#"{"text":"a\"b","empty":"","int":12345678901234567890123,"float":1.50,"yes":true,"none":null,"list":[1],"map":{}}"#,
        );
        for (name, expected) in [
            ("text", Some("a\"b")),
            ("empty", Some("")),
            ("int", Some("12345678901234567890123")),
            ("float", Some("1.50")),
            ("yes", Some("true")),
            ("none", None),
            ("list", None),
            ("map", None),
            ("missing", None),
        ] {
            let found = field(&value, name, "db");
            assert_eq!(found.as_ref().ok().map(|value| value.expose_secret()), expected, "{name}");
            assert_eq!(matches!(found, Err(SecretError::Missing(_))), name == "missing", "{name}");
        }
        let error = field(&"hunter2".into(), "text", "db").expect_err("no JSON").to_string();
        assert!(error.contains("db") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_aws_answers_is_the_jobs_fault_the_servers_or_a_missing_value() {
        let refused = |code: &str| CallError::Refused(Refusal { code: code.into(), message: "said".into() });
        let judge = |error| judge(error, "db", true);
        assert!(matches!(judge(refused("ResourceNotFoundException")), SecretError::Missing(_)));
        assert!(matches!(judge(refused("AccessDeniedException")), SecretError::Configuration(_)));
        assert!(matches!(judge(refused("InvalidRequestException")), SecretError::Configuration(_)));
        assert!(matches!(judge(CallError::NoCredentials("none".into())), SecretError::Configuration(_)));
        assert!(matches!(judge(CallError::NoAnswer("time-out".into())), SecretError::Unavailable(_)));
        assert!(matches!(judge(CallError::Throttled("slow".into())), SecretError::Unavailable(_)));
    }
}
