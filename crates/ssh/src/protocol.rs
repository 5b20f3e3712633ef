//! What is said over the connection: three commands, one message in, one line out.
//!
//! `staffetta-agent hand-over` reads a [`HandOver`] as JSON until the end of its input and prints a
//! `Receipt`; `staffetta-agent status` prints an `AgentStatus`; `staffetta-agent caches` reads [`RemoteCaches`], which
//! take the place of those of the hand-over, and prints an `AddressesReceipt`. A message is one JSON object, so a
//! part of it is never a message: a connection lost on the way starts no job.

use job::hand_over::{HandOver, RemoteCaches, VERSION};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The name of the agent's program, in an image's `PATH` and on a manager's disk.
pub const AGENT: &str = "staffetta-agent";

/// Bytes of the largest hand-over. Payloads are some ten kB; file variables and a long trace so far can add a few MB.
pub const MESSAGE_LIMIT: u64 = 32 * 1024 * 1024;

/// Bytes that are read of what a command prints; the job's own code may be what answers.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// What a shell, and our server, exits with when it does not know a command.
pub const NOT_FOUND: u32 = 127;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    HandOver,
    Status,
    Caches,
}

impl Command {
    /// The argument of the agent's program.
    pub fn name(self) -> &'static str {
        match self {
            Self::HandOver => "hand-over",
            Self::Status => "status",
            Self::Caches => "caches",
        }
    }

    /// The whole command line.
    pub fn line(self) -> String {
        format!("{AGENT} {}", self.name())
    }

    /// The one place where a server reads a command line; no shell is behind it.
    pub fn parse(line: &[u8]) -> Option<Self> {
        [Self::HandOver, Self::Status, Self::Caches].into_iter().find(|command| command.line().as_bytes() == line)
    }
}

/// Why a message cannot be taken; an agent answers it as `Receipt::Refused`.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("the message is larger than {MESSAGE_LIMIT} bytes")]
    TooLarge,
    #[error("the message cannot be read: {0}")]
    Malformed(String),
    #[error("the manager speaks version {0} of the hand-over and this agent {VERSION}: update the agent in the image")]
    Newer(u32),
}

/// Reads a whole hand-over, from a channel or from standard input.
pub async fn receive_hand_over(input: impl AsyncRead + Unpin) -> Result<HandOver, MessageError> {
    parse_hand_over(&receive(input).await?)
}

/// Reads fresh addresses of a job's caches in the same way.
pub async fn receive_caches(input: impl AsyncRead + Unpin) -> Result<RemoteCaches, MessageError> {
    let message = receive(input).await?;
    serde_json::from_slice(&message).map_err(|error| MessageError::Malformed(error.to_string()))
}

async fn receive(input: impl AsyncRead + Unpin) -> Result<Vec<u8>, MessageError> {
    let mut message = Vec::new();
    let read = input.take(MESSAGE_LIMIT + 1).read_to_end(&mut message).await;
    read.map_err(|error| MessageError::Malformed(error.to_string()))?;
    if message.len() as u64 > MESSAGE_LIMIT {
        return Err(MessageError::TooLarge);
    }
    Ok(message)
}

fn parse_hand_over(message: &[u8]) -> Result<HandOver, MessageError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    // The version first: the rest of a newer message may have another shape.
    let malformed = |error: serde_json::Error| MessageError::Malformed(error.to_string());
    let Version { version } = serde_json::from_slice(message).map_err(malformed)?;
    if version > VERSION {
        return Err(MessageError::Newer(version));
    }
    serde_json::from_slice(message).map_err(malformed)
}

/// One message as it travels: a line of JSON.
pub fn line_of(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Finds the answer in what a command printed. Only whole lines count, and others are passed over:
/// a user's shell may print what it likes before our command runs.
pub fn answer_in<T: DeserializeOwned>(output: &[u8]) -> Option<T> {
    let end = output.iter().rposition(|byte| *byte == b'\n')?;
    output[..end].split(|byte| *byte == b'\n').rev().find_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use job::hand_over::Receipt;

    const MESSAGE: &str = r#"{"version":1,"payload":{"id":7,"token":"t"},
        "gitlab":{"url":"http://gitlab","tls_ca":null,"correlation_id":null},
        "runner":{"name":"dev","short_token":"abc","system_id":"s_1","builds_dir":"/builds","cache_dir":"/cache",
            "environment":[],"feature_flags":{},"output_limit":4194304,"shell":"","pre_get_sources_script":"",
            "post_get_sources_script":"","pre_build_script":"","post_build_script":"","clone_url":"",
            "custom_build_dir":true,"safe_directory_checkout":true,"clean_git_config":null,"get_sources_timeout":null,
            "artifact_upload_timeout":3600,"artifact_response_header_timeout":600,"debug_trace_disabled":false,"final_update_retries":3,"concurrent_id":0,"concurrent_project_id":0},
        "trace":{"text":"","sent":0,"interval_seconds":3},"elapsed_seconds":0.5}"#;

    #[tokio::test]
    async fn a_part_of_a_message_is_never_a_message() {
        assert!(receive_hand_over(MESSAGE.as_bytes()).await.is_ok());
        for cut in 0..MESSAGE.len() {
            let received = receive_hand_over(&MESSAGE.as_bytes()[..cut]).await;
            assert!(matches!(received, Err(MessageError::Malformed(_))), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_newer_manager_is_told_to_bring_a_newer_agent() {
        let newer = br#"{"version":2,"payload":"in another shape"}"#;
        let error = receive_hand_over(&newer[..]).await.expect_err("a newer version");
        assert!(matches!(error, MessageError::Newer(2)));
        assert!(error.to_string().contains("update the agent"));
    }

    #[tokio::test]
    async fn a_message_without_end_is_cut_off_at_the_limit() {
        assert!(matches!(receive_hand_over(tokio::io::repeat(b' ')).await, Err(MessageError::TooLarge)));
    }

    #[test]
    fn the_answer_is_found_behind_what_a_shell_prints() {
        let answer = |output: &str| answer_in::<Receipt>(output.as_bytes());
        assert_eq!(answer("{\"answer\":\"accepted\"}\n"), Some(Receipt::Accepted));
        assert_eq!(answer("Welcome!\n{}\n{\"answer\":\"accepted\"}\n\n"), Some(Receipt::Accepted));
        assert_eq!(answer("{\"answer\":\"accepted\"}"), None, "the line is not whole yet");
        assert_eq!(answer("Welcome!\n"), None);
        assert_eq!(answer(""), None);
    }

    #[test]
    fn only_the_three_commands_are_commands() {
        assert_eq!(Command::parse(b"staffetta-agent hand-over"), Some(Command::HandOver));
        assert_eq!(Command::parse(b"staffetta-agent status"), Some(Command::Status));
        assert_eq!(Command::parse(b"staffetta-agent caches"), Some(Command::Caches));
        assert_eq!(Command::parse(b"staffetta-agent status; id"), None);
        assert_eq!(Command::parse(b"sh"), None);
    }
}
