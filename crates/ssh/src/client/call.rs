//! One command on a channel of its own: what goes in, what comes out, and whether all of it went in.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use russh::ChannelMsg;

use super::Connection;
use crate::protocol::ANSWER_LIMIT;

/// What goes to the channel at once; the last piece decides whether a message counts as sent.
const PIECE: usize = 32 * 1024;

/// What a remote command left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// `None`: it was killed by a signal, or the answer was there before its end.
    pub status: Option<u32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// The end of what the command complained, for an error's sentence.
    pub(super) fn complaint(&self) -> String {
        // `nologin` and its like explain themselves on standard output.
        let said = if self.stderr.is_empty() { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(said);
        let last = text.trim_end().lines().next_back().unwrap_or_default().trim();
        match self.status {
            Some(status) => format!("exit status {status}: {last}"),
            None => format!("ended without a status: {last}"),
        }
    }
}

/// A command whose end was not seen.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CallError {
    pub reason: String,
    /// Whether the server may have all of the input. Never `false` when it has.
    pub input_sent: bool,
}

impl Connection {
    /// Runs a command with `stdin` as its input, and waits for its end.
    pub async fn exec(&self, command: &str, stdin: impl Into<Bytes>) -> Result<Output, CallError> {
        self.call(command, stdin.into(), |_| false).await
    }

    /// The same, but returns as soon as the output is `enough`: the answer counts, not the end.
    pub(super) async fn call(
        &self,
        command: &str,
        stdin: Bytes,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Output, CallError> {
        self.call_telling(command, stdin, enough, &AtomicBool::new(false)).await
    }

    /// The same; `input_sent` tells while the call is under way what [`CallError::input_sent`] tells after it.
    pub(super) async fn call_telling(
        &self,
        command: &str,
        stdin: Bytes,
        enough: impl Fn(&[u8]) -> bool,
        input_sent: &AtomicBool,
    ) -> Result<Output, CallError> {
        let call = self.run(command, stdin, enough, input_sent);
        let result = tokio::time::timeout(self.patience, call).await;
        let result = result.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        result.map_err(|reason| CallError { reason, input_sent: input_sent.load(Ordering::Relaxed) })
    }

    async fn run(
        &self,
        command: &str,
        stdin: Bytes,
        enough: impl Fn(&[u8]) -> bool,
        input_sent: &AtomicBool,
    ) -> Result<Output, String> {
        let channel = self.session.channel_open_session().await.map_err(|error| error.to_string())?;
        let (mut incoming, outgoing) = channel.split();
        // Nothing is waited for between the command and its input: that would cost a round trip each.
        outgoing.exec(true, command).await.map_err(|error| error.to_string())?;
        let send = async {
            let mut rest = stdin;
            loop {
                let piece = rest.split_to(rest.len().min(PIECE));
                if rest.is_empty() {
                    input_sent.store(true, Ordering::Relaxed);
                }
                outgoing.data_bytes(piece).await?;
                if rest.is_empty() {
                    return outgoing.eof().await;
                }
            }
        };
        tokio::pin!(send);
        let mut sending = true;
        let mut output = Output::default();
        loop {
            let message = tokio::select! {
                // A failure to send is the end of the connection, and `wait` sees it too.
                _ = &mut send, if sending => {
                    sending = false;
                    continue;
                }
                message = incoming.wait() => message,
            };
            match message {
                Some(ChannelMsg::Data { data }) => {
                    append(&mut output.stdout, &data)?;
                    if enough(&output.stdout) {
                        break;
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => append(&mut output.stderr, &data)?,
                Some(ChannelMsg::ExitStatus { exit_status }) => output.status = Some(exit_status),
                Some(ChannelMsg::Failure) => {
                    input_sent.store(false, Ordering::Relaxed);
                    return Err("the server runs no commands".into());
                }
                Some(ChannelMsg::Close) => break,
                Some(_) => {}
                None => return Err("the connection was lost".into()),
            }
        }
        // The other end may have closed first.
        let _ = outgoing.close().await;
        Ok(output)
    }
}

/// What the other end may make us remember is bounded: it may be the job's own code.
fn append(kept: &mut Vec<u8>, data: &[u8]) -> Result<(), String> {
    if kept.len() + data.len() > ANSWER_LIMIT {
        return Err(format!("the command printed more than {ANSWER_LIMIT} bytes"));
    }
    kept.extend_from_slice(data);
    Ok(())
}
