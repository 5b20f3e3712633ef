//! Secrets that must travel. [`SecretString`] can be read in but not printed; the hand-over is the
//! one message that carries secrets, so its fields say so with `serialize_with = "secret::expose"`.

pub use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serializer};

pub fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

/// `null` counts as the empty secret: GitLab may leave any field of a payload empty.
pub fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default().into())
}
