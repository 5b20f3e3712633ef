//! AWS, and the only crate that knows its SDK: Fargate tasks, the secrets that jobs keep there, and
//! their caches.

pub mod fargate;
mod proxies;
pub mod s3;
mod secrets_manager;
mod signed_post;

pub use secrets_manager::{SecretRequest, SecretsManager, WebIdentity};
