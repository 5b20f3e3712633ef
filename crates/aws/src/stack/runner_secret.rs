//! The secret of a runner's token. Whether it has one is seen without reading it: a secret that a stack made has no version.

use job::secret::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::errors::CallError;
use crate::session::Session;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerSecret {
    /// There is no such secret, or it is being deleted.
    Absent,
    /// Nothing was ever stored in it.
    Empty,
    Stored,
}

/// `id` is a name or an ARN.
pub async fn runner_secret(session: &Session, id: &str) -> Result<RunnerSecret, CallError> {
    match session.json("secretsmanager", "secretsmanager.DescribeSecret", json!({"SecretId": id})).await {
        Ok(secret) if !secret["DeletedDate"].is_null() => Ok(RunnerSecret::Absent),
        Ok(secret) => {
            let versions = secret["VersionIdsToStages"].as_object();
            let mut stages = versions.into_iter().flat_map(|versions| versions.values()).filter_map(Value::as_array);
            let is_current = stages.any(|stages| stages.iter().any(|stage| stage == "AWSCURRENT"));
            Ok(if is_current { RunnerSecret::Stored } else { RunnerSecret::Empty })
        }
        Err(CallError::Refused(refusal)) if refusal.code == "ResourceNotFoundException" => Ok(RunnerSecret::Absent),
        Err(error) => Err(error),
    }
}

/// Stores a token. An answer that is lost does no harm: the repeated call carries the same request token.
pub async fn store_runner_token(session: &Session, id: &str, token: &SecretString) -> Result<(), CallError> {
    let request = format!("{:032x}", rand::random::<u128>());
    let question = json!({"SecretId": id, "SecretString": token.expose_secret(), "ClientRequestToken": request});
    session.json("secretsmanager", "secretsmanager.PutSecretValue", question).await.map(drop)
}
