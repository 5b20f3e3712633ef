//! The two questions to an agent: take this job, and what are you doing.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use job::hand_over::{AgentStatus, HandOver, Receipt};

use super::deliver_agent::{self, AgentBinaries, DeliveryError};
use super::{CallError, Connection, Output};
use crate::protocol::{self, Command, NOT_FOUND};

/// Why there is no receipt, by whose the job is now.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// No try will help: the message has more bytes than an agent takes.
    #[error("the job is too large to be handed over: {bytes} bytes, and {most} are possible")]
    TooLarge { bytes: usize, most: u64 },
    /// The message did not arrive: the job is still the caller's, and the same call is safe again.
    #[error("the job was not handed over: {0}")]
    NotDelivered(String),
    /// No agent can run in this task: the job is still the caller's, and another try here will not help.
    #[error("the agent cannot run in this task: {0}")]
    NoAgent(String),
    /// The message was sent and no receipt came back. The same call tells: `Busy` with the same job
    /// means that it had arrived, `Accepted` that it has now. So does [`Connection::status`].
    #[error("the job was sent and not acknowledged: {0}")]
    Unknown(String),
    /// The command ran to its end without a receipt: no agent, or one that failed. The same call tells here too: an
    /// agent that has the job answers `Busy`, so the second such end means that the image cannot run the command.
    #[error("the task's SSH server runs the command without a receipt: {0}")]
    NoReceipt(String),
}

#[derive(Debug, thiserror::Error)]
#[error("the agent's status is unknown: {0}")]
pub struct StatusError(String);

impl Connection {
    /// Hands a job to the agent of this task. If the image has none, it is sent first.
    pub async fn hand_over(&self, message: &HandOver, agents: &AgentBinaries) -> Result<Receipt, HandOverError> {
        self.message_sent.store(false, Ordering::Relaxed);
        let message = protocol::line_of(message).map_err(|error| HandOverError::NotDelivered(error.to_string()))?;
        if message.len() as u64 > protocol::MESSAGE_LIMIT {
            return Err(HandOverError::TooLarge { bytes: message.len(), most: protocol::MESSAGE_LIMIT });
        }
        let message = Bytes::from(message);
        let output = self.ask::<Receipt>(&Command::HandOver.line(), message.clone(), &self.message_sent).await?;
        if output.status != Some(NOT_FOUND) {
            return receipt_in(&output);
        }
        // Nobody was there to take it.
        self.message_sent.store(false, Ordering::Relaxed);
        let program = self.deliver_agent(agents).await?;
        let command = deliver_agent::call(&program, Command::HandOver);
        receipt_in(&self.ask::<Receipt>(&command, message, &self.message_sent).await?)
    }

    /// Whether an agent may have the job of a hand-over that is still under way. Never `false` when it has.
    pub fn may_have_handed_over(&self) -> bool {
        self.message_sent.load(Ordering::Relaxed)
    }

    /// What the agent of this task does; `None` where there is none, because no job was handed over yet or because the
    /// job removed it.
    pub async fn status(&self) -> Result<Option<AgentStatus>, StatusError> {
        let nothing = AtomicBool::new(false);
        let mut output = self.ask::<AgentStatus>(&Command::Status.line(), Bytes::new(), &nothing).await?;
        if output.status == Some(NOT_FOUND) {
            let command = deliver_agent::call_delivered(Command::Status);
            output = self.ask::<AgentStatus>(&command, Bytes::new(), &nothing).await?;
        }
        match protocol::answer_in(&output.stdout) {
            Some(status) => Ok(Some(status)),
            None if output.status == Some(NOT_FOUND) => Ok(None),
            None => Err(StatusError(output.complaint())),
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        command: &str,
        message: Bytes,
        sent: &AtomicBool,
    ) -> Result<Output, CallError> {
        let enough = |stdout: &[u8]| protocol::answer_in::<T>(stdout).is_some();
        self.call_telling(command, message, enough, sent).await
    }
}

fn receipt_in(output: &Output) -> Result<Receipt, HandOverError> {
    match protocol::answer_in(&output.stdout) {
        Some(receipt) => Ok(receipt),
        // What shells say when a program is there and cannot be run, or is gone again.
        None if matches!(output.status, Some(126 | NOT_FOUND)) => Err(HandOverError::NoAgent(output.complaint())),
        None if output.status.is_some() => Err(HandOverError::NoReceipt(output.complaint())),
        None => Err(HandOverError::Unknown(output.complaint())),
    }
}

impl From<CallError> for HandOverError {
    fn from(error: CallError) -> Self {
        if error.input_sent { Self::Unknown(error.reason) } else { Self::NotDelivered(error.reason) }
    }
}

impl From<DeliveryError> for HandOverError {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Connection(reason) => Self::NotDelivered(reason),
            DeliveryError::Impossible(reason) => Self::NoAgent(reason),
        }
    }
}

impl From<CallError> for StatusError {
    fn from(error: CallError) -> Self {
        Self(error.reason)
    }
}
