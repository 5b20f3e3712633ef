//! Who calls, and in which account. Signatures are not checked: an access key alone tells.

use std::time::Duration;

use jiff::Timestamp;

use super::failure::Failure;
use super::state::State;
use super::sts_api::RoleSession;

/// The account of whoever has no role.
pub(super) const ACCOUNT: &str = "000000000000";

/// A role, and who may take it.
#[derive(Debug, Clone)]
pub struct Role {
    /// `arn:aws:iam::ACCOUNT:role/NAME`
    pub arn: String,
    /// What must be said to take it.
    pub external_id: Option<String>,
    /// The access keys and the ARNs of roles that may take it; none is everybody.
    pub trusts: Vec<String>,
    /// Its keys live no longer than this, whatever was asked for. STS's own least is 15 minutes.
    pub keys_live: Duration,
}

impl Role {
    /// Everybody may take it, for an hour.
    pub fn new(arn: impl Into<String>) -> Self {
        Self { arn: arn.into(), external_id: None, trusts: Vec::new(), keys_live: Duration::from_secs(3600) }
    }
}

/// Who signed a call.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub access_key: String,
    pub account: String,
    /// None: nobody's keys in particular.
    pub session: Option<RoleSession>,
}

impl Caller {
    /// The ARN and the id that STS tells.
    pub fn identity(&self) -> (String, String) {
        match &self.session {
            Some(session) => session.identity(&self.account),
            None => (format!("arn:aws:iam::{}:user/embedded", self.account), "AIDAEMBEDDEDFARGATE00".to_owned()),
        }
    }
}

impl State {
    /// Whoever has this access key; refused if AssumeRole gave it and its time is over.
    pub(super) fn caller(&self, access_key: &str, now: Timestamp) -> Result<Caller, Failure> {
        let (session, account) = match self.sessions.get(access_key) {
            None => (None, ACCOUNT),
            Some(taken) if taken.expires > now => (Some(taken.session.clone()), taken.account.as_str()),
            Some(_) => return Err(Failure::expired()),
        };
        Ok(Caller { access_key: access_key.to_owned(), account: account.to_owned(), session })
    }
}

/// The part of an ARN that names the account; empty if it is none.
pub(super) fn account_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}
