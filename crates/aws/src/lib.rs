//! AWS, and the only crate that knows its SDK: Fargate tasks, the secrets that jobs keep there, and
//! their caches.

mod errors;
pub mod fargate;
mod proxies;
pub mod s3;
mod sdk;
mod secrets_manager;
mod signed_post;

pub use errors::{CallError, Refusal};
pub use secrets_manager::{SecretRequest, SecretsManager, WebIdentity};
