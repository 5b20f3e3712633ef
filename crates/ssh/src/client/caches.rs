//! Fresh addresses for the caches of a job that an agent has.

use bytes::Bytes;
use job::hand_over::{AddressesReceipt, RemoteCaches};

use super::deliver_agent;
use super::{CallError, Connection};
use crate::protocol::{self, Command, NOT_FOUND};

#[derive(Debug, thiserror::Error)]
#[error("the agent did not take the addresses: {0}")]
pub struct RenewalError(String);

impl Connection {
    /// Gives the agent of this task the addresses that its job uses from now on.
    pub async fn renew_caches(&self, caches: &RemoteCaches) -> Result<AddressesReceipt, RenewalError> {
        let message = Bytes::from(protocol::line_of(caches).map_err(|error| RenewalError(error.to_string()))?);
        let enough = |stdout: &[u8]| protocol::answer_in::<AddressesReceipt>(stdout).is_some();
        let mut output = self.call(&Command::Caches.line(), message.clone(), enough).await?;
        if output.status == Some(NOT_FOUND) {
            output = self.call(&deliver_agent::call_delivered(Command::Caches), message, enough).await?;
        }
        protocol::answer_in(&output.stdout).ok_or_else(|| RenewalError(output.complaint()))
    }
}

impl From<CallError> for RenewalError {
    fn from(error: CallError) -> Self {
        Self(error.reason)
    }
}
