//! The secrets of a job (protocol 3.14), fetched from the servers that keep them. The manager does it and not the agent:
//! neither a server's token nor a credential of the manager ever reaches a task.

mod aws;
mod gitlab;
mod members;
mod vault;

use std::time::Duration;

use ::aws::SecretsManager;
use ::aws::fargate::Fargate;
use job::outcome::SystemFailure;
use job::secret::SecretString;
use serde_json::Value;
use tokio::sync::OnceCell;

use aws::AwsSecret;
use gitlab::GitLabSecret;
use members::Members;
use vault::VaultSecret;

/// How often a server that is away is asked within one attempt of the job: one that restarts is back in seconds.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Providers that GitLab knows and this runner does not have. To skip them, as one does with providers that nobody
/// knows, would run the job without its secret.
const REFUSED: [&str; 3] = ["akeyless", "azure_key_vault", "gcp_secret_manager"];

/// Why a job does not get a secret. Nothing in it quotes a value or a JWT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// What the job asks for, or what the server lets it have, is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The server has no such value.
    #[error("secret not found: {0}")]
    Missing(String),
    /// The server is away, or in trouble.
    #[error("{0}")]
    Unavailable(String),
    /// An answer that nobody expected.
    #[error("{0}")]
    Unexpected(String),
}

impl SecretError {
    pub fn failure(&self) -> SystemFailure {
        match self {
            Self::Configuration(_) | Self::Missing(_) => SystemFailure::Configuration,
            Self::Unavailable(_) => SystemFailure::ExternalDependency,
            Self::Unexpected(_) => SystemFailure::Runner,
        }
    }
}

/// The ways to the servers, shared by all jobs.
pub struct Servers {
    http: reqwest::Client,
    /// Made when the first job needs it: a manager outside of AWS has no credentials.
    aws: OnceCell<SecretsManager>,
}

impl Servers {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { http: vault::http_client()?, aws: OnceCell::new() })
    }
}

/// One entry of a job's `secrets`.
#[derive(Debug)]
pub struct Secret {
    /// The variable is the path of a file with the value.
    pub file: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Vault(VaultSecret),
    GitLab(GitLabSecret),
    Aws(AwsSecret),
}

impl Secret {
    /// Reads an entry; `expand` puts the job's variables in. None: no runner knows its provider.
    pub fn read(entry: &Value, expand: &dyn Fn(&str) -> String) -> Result<Option<Self>, SecretError> {
        let provider = |name: &str| entry.get(name).filter(|members| members.is_object());
        let source = if let Some(members) = provider("vault") {
            Source::Vault(VaultSecret::read(&Members::expanded(members, expand))?)
        } else if let Some(members) = provider("aws_secrets_manager") {
            Source::Aws(AwsSecret::read(&Members::expanded(members, expand))?)
        } else if let Some(members) = provider("gitlab_secrets_manager") {
            Source::GitLab(GitLabSecret::read(&Members::as_sent(members))?)
        } else if let Some(name) = REFUSED.into_iter().find(|name| provider(name).is_some()) {
            return Err(SecretError::Configuration(format!(
                "this runner has no {name}; use vault, aws_secrets_manager or gitlab_secrets_manager, or a runner of GitLab's"
            )));
        } else {
            return Ok(None);
        };
        Ok(Some(Self { file: entry.get("file").and_then(Value::as_bool).unwrap_or(true), source }))
    }

    /// The provider, as GitLab's runner names it in the log.
    pub fn resolver(&self) -> &'static str {
        match self.source {
            Source::Vault(_) => "vault",
            Source::GitLab(_) => "gitlab_secrets_manager",
            Source::Aws(_) => "aws_secrets_manager",
        }
    }

    /// Asks the server. Takes minutes at the most; may be dropped at any time. A secret of AWS that names no region and no
    /// role is read in the region of `fargate` and with its credentials.
    pub async fn fetch(&self, servers: &Servers, fargate: &Fargate) -> Result<SecretString, SecretError> {
        let mut tries = 1;
        loop {
            let fetched = match &self.source {
                Source::Vault(secret) => secret.fetch(&servers.http).await,
                Source::GitLab(secret) => secret.fetch(&servers.http).await,
                Source::Aws(secret) => secret.fetch(&servers.aws, fargate).await,
            };
            match fetched {
                Err(SecretError::Unavailable(reason)) if tries < TRIES => {
                    tracing::debug!(resolver = self.resolver(), reason, "a server of secrets is away; trying again");
                }
                fetched => return fetched,
            }
            tokio::time::sleep(PAUSE).await;
            tries += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(entry: Value) -> Result<Option<Secret>, SecretError> {
        Secret::read(&entry, &members::tests::expand)
    }

    #[test]
    fn a_secret_is_a_file_unless_the_job_says_no() {
        let aws = json!({"secret_id": "db"});
        for (entry, file) in [
            (json!({"aws_secrets_manager": aws}), true),
            (json!({"aws_secrets_manager": aws, "file": null}), true),
            (json!({"aws_secrets_manager": aws, "file": true}), true),
            (json!({"aws_secrets_manager": aws, "file": false}), false),
        ] {
            assert_eq!(read(entry.clone()).expect("readable").expect("a secret").file, file, "{entry}");
        }
    }

    #[test]
    fn a_provider_that_nobody_knows_is_left_out_and_one_of_gitlabs_that_we_lack_is_refused_by_name() {
        for entry in [json!({"brand_new": {"path": "x"}}), json!({"vault": null}), json!({}), Value::Null] {
            assert!(matches!(read(entry.clone()), Ok(None)), "{entry}");
        }
        for name in REFUSED {
            let error = read(json!({name: {"name": "x"}})).expect_err("refused");
            assert_eq!(error.failure(), SystemFailure::Configuration);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
