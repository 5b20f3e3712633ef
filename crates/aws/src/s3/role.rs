//! `RoleARN` and `UploadRoleARN`: the manager signs as these roles, narrowed to the caches of one project.

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use serde_json::json;

use super::S3Config;
use crate::errors::CallError;
use crate::sdk::keys_of_role;

/// What CloudTrail shows.
const SESSION: &str = "staffetta-cache";
/// STS's limit for a role that was taken by a role, which most managers are.
const SECONDS: i32 = 3600;

/// What a role is taken for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actions {
    pub read: bool,
    pub write: bool,
}

pub(super) async fn assume(sdk: &SdkConfig, role: &str, policy: &str) -> Result<Credentials, CallError> {
    let call = aws_sdk_sts::Client::new(sdk).assume_role().role_arn(role).role_session_name(SESSION);
    let answer = call.policy(policy).duration_seconds(SECONDS).send().await;
    let answer = answer.map_err(|error| match CallError::of_sdk(&error) {
        CallError::Refused(refusal) => CallError::RoleRefused { role: role.to_owned(), refusal },
        other => other,
    })?;
    keys_of_role(answer.credentials, role, "AssumeRole")
}

/// The session policy. Its size is bounded (STS takes 2,048 characters), so it names the project's folder and not each object;
/// the addresses are for single objects anyway. Listing lets S3 tell a cache that is not there (404) from one that is forbidden.
pub(super) fn policy(config: &S3Config, region: &str, folder: &str, actions: Actions) -> String {
    let partition = match region {
        region if region.starts_with("us-gov-") => "aws-us-gov",
        region if region.starts_with("cn-") => "aws-cn",
        _ => "aws",
    };
    let bucket = format!("arn:{partition}:s3:::{}", config.bucket);
    let mut on_objects = Vec::new();
    on_objects.extend(actions.read.then_some("s3:GetObject"));
    on_objects.extend(actions.write.then_some("s3:PutObject"));
    let mut statements = vec![
        json!({"Effect": "Allow", "Action": on_objects, "Resource": format!("{bucket}/{folder}/*")}),
        json!({"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": bucket}),
    ];
    if let Some(key) = config.encryption.key() {
        statements.push(json!({"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key}));
    }
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::Encryption;
    use super::super::address::tests::config;
    use super::*;

    #[test]
    fn a_role_is_narrowed_to_one_project() {
        let kms = S3Config { encryption: Encryption::Kms { key: Some("arn:key".into()) }, ..config("caches") };
        let policy = policy(&kms, "cn-north-1", "runner/abc/project/7", Actions { read: false, write: true });
        let expected = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "arn:aws-cn:s3:::caches/runner/abc/project/7/*"},
            {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": "arn:aws-cn:s3:::caches"},
            {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "arn:key"},
        ]});
        assert_eq!(policy, expected.to_string());
    }
}
