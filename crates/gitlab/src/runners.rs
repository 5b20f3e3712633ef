use crate::client::{CallError, Client};
use job::ids::SystemId;
use job::secret::SecretString;

/// A runner as GitLab knows it.
#[derive(Debug, Clone)]
pub struct Registered {
    pub id: u64,
    pub token: SecretString,
    /// RFC 3339; `None` never expires.
    pub token_expires_at: Option<String>,
}

/// The legacy registration with a registration token (1.3).
#[derive(Debug, Clone, Default)]
pub struct Registration {
    pub description: String,
    pub maintenance_note: String,
    /// Comma separated.
    pub tag_list: String,
    pub run_untagged: bool,
    pub locked: bool,
    /// `not_protected` or `ref_protected`; empty leaves it to GitLab.
    pub access_level: String,
    /// Seconds; 0 leaves it to GitLab.
    pub maximum_timeout: u64,
    pub paused: bool,
}

/// What [`Client::verify`] found.
#[derive(Debug)]
pub enum Verified {
    Valid(Registered),
    /// 403: the token is invalid or the runner was deleted.
    Invalid,
    /// GitLab could not say: the runner is kept.
    Unknown(String),
}

impl Client {
    /// Makes a runner from a legacy registration token.
    pub async fn register(&self, _token: &SecretString, _registration: &Registration) -> Result<Registered, CallError> {
        todo!()
    }

    pub async fn verify(&self, _token: &SecretString, _system_id: &SystemId) -> Verified {
        todo!()
    }

    /// Deletes the runner: for legacy tokens (1.2).
    pub async fn unregister(&self, _token: &SecretString) -> Result<(), CallError> {
        todo!()
    }

    /// Deletes this manager of the runner: for `glrt-` tokens (1.2).
    pub async fn unregister_manager(&self, _token: &SecretString, _system_id: &SystemId) -> Result<(), CallError> {
        todo!()
    }
}
