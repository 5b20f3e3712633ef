//! The text of a secret, as whoever looks may read it.

use job::secret::SecretString;
use serde_json::{Value, json};

use crate::errors::CallError;
use crate::session::Session;

/// `id` is a name or an ARN. None: the secret is there, and has no text yet.
pub async fn secret_text(session: &Session, id: &str) -> Result<Option<SecretString>, CallError> {
    let mut answer = session.json("secretsmanager", "secretsmanager.GetSecretValue", json!({"SecretId": id})).await?;
    Ok(match answer["SecretString"].take() {
        Value::String(text) if !text.is_empty() => Some(text.into()),
        _ => None,
    })
}
