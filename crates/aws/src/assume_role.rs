//! The keys of a role that calls are made as: STS AssumeRole, signed with the keys of this process.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_sts::config::IdentityCache;
use aws_sdk_sts::error::BuildError;
use aws_sdk_sts::types::Tag;

use crate::errors::{CallError, Refusal};
use crate::sdk::{self, Keys, keys_of_role};

/// Calls wait for it, and they are given more time than this.
const ANSWER: Duration = Duration::from_secs(10);

/// A role that is taken by STS AssumeRole before anything is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssumedRole {
    pub arn: String,
    /// 2 to 64 letters, digits and `+=,.@_-`; CloudTrail shows it.
    pub session_name: String,
    /// What the role's trust policy asks for, where it belongs to somebody else.
    pub external_id: Option<String>,
    /// Session tags: at most 50, a key of at most 128 characters, a value of at most 256.
    pub tags: Vec<(String, String)>,
}

/// A role's keys, the same for all who call as it: taken when the first call needs them, and again well before they end.
/// They live for an hour, which is also the most that STS gives to a role that takes another.
#[derive(Debug, Clone)]
pub struct RoleKeys(Arc<Keys>);

impl RoleKeys {
    /// Nothing is sent yet. `caller` is how calls are made without the role.
    pub(crate) fn new(caller: &SdkConfig, role: &AssumedRole) -> Result<Self, BuildError> {
        // The cache of `caller` is the one that asks here.
        let config = aws_sdk_sts::config::Builder::from(caller)
            .identity_cache(IdentityCache::no_cache())
            .timeout_config(sdk::timeouts(ANSWER))
            .build();
        let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
        let tags = role.tags.iter().map(tag).collect::<Result<_, _>>()?;
        let assuming = Assuming { sts: aws_sdk_sts::Client::from_conf(config), role: role.clone(), tags };
        Ok(Self(Arc::new(Keys::new(SharedCredentialsProvider::new(assuming)))))
    }

    pub(crate) async fn get(&self) -> Result<Credentials, CallError> {
        self.0.get().await
    }
}

impl ProvideCredentials for RoleKeys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.get().await.map_err(CredentialsError::provider_error) })
    }
}

#[derive(Debug)]
struct Assuming {
    sts: aws_sdk_sts::Client,
    role: AssumedRole,
    tags: Vec<Tag>,
}

impl Assuming {
    async fn assume(&self) -> Result<Credentials, CallError> {
        let AssumedRole { arn, session_name, external_id, .. } = &self.role;
        let call = self.sts.assume_role().role_arn(arn).role_session_name(session_name);
        // An empty list would be sent, and might ask for sts:TagSession.
        let tags = (!self.tags.is_empty()).then(|| self.tags.clone());
        let answer = call.set_external_id(external_id.clone()).set_tags(tags).send().await;
        let answer = answer.map_err(|error| match CallError::of_sdk(&error) {
            CallError::Refused(refusal) if !may_pass(&refusal) => CallError::RoleRefused { role: arn.clone(), refusal },
            // Said of STS they would be taken for ECS's.
            CallError::Throttled(reason) | CallError::NoAnswer(reason) => {
                CallError::NoRole { role: arn.clone(), reason }
            }
            other => other,
        })?;
        keys_of_role(answer.credentials, arn, "AssumeRole")
    }
}

/// The caller's own keys are at fault, not the role.
fn may_pass(refusal: &Refusal) -> bool {
    ["ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId"].contains(&refusal.code.as_str())
}

impl ProvideCredentials for Assuming {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.assume().await.map_err(CredentialsError::provider_error) })
    }
}

/// What to check when STS refuses the role of a runner, which stands in its `[runners.fargate]`.
pub fn runner_role_fix(role: &str, refusal: &Refusal) -> String {
    match refusal.code.as_str() {
        "AccessDenied" | "AccessDeniedException" => format!(
            "Check that {role} exists, that its trust policy lets the manager's role do sts:AssumeRole with the external id that \
             external_id in [runners.fargate] gives, and that the manager's own IAM policy allows it."
        ),
        _ => "Correct role_arn and external_id in [runners.fargate]: STS says what is wrong with them.".to_owned(),
    }
}

/// What to check when STS refuses a role that the job asks for.
pub(crate) fn job_role_fix(role: &str, refusal: &Refusal) -> String {
    match refusal.code.as_str() {
        "AccessDenied" | "AccessDeniedException" => format!(
            "Check that {role} exists, that its trust policy lets the manager's role do sts:AssumeRole (and sts:TagSession, if the \
             job sets SESSION_VARS), and that the manager's own IAM policy allows both on it."
        ),
        "PackedPolicyTooLarge" => "Let the job set fewer or shorter SESSION_VARS.".to_owned(),
        _ => "Correct ROLE_ARN and SESSION_VARS of the job: STS says what is wrong with them.".to_owned(),
    }
}
