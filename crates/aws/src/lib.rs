//! AWS, and the only crate that knows its SDK: Fargate tasks, the secrets that jobs keep there, their caches, and the
//! stacks that environments are made of.

mod assume_role;
mod errors;
pub mod fargate;
pub mod inspect;
mod proxies;
pub mod s3;
mod sdk;
mod secrets_manager;
mod session;
mod signed_post;
pub mod stack;
mod xml;

pub use assume_role::{AssumedRole, RoleKeys, runner_role_fix};
pub use errors::{CallError, Refusal};
pub use secrets_manager::{SecretRequest, SecretsManager, WebIdentity};
pub use session::{OpenError, Session};
