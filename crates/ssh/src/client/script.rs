//! One script for a shell in the task, for as long as it takes; its output is passed on as it comes.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelWriteHalf, Sig};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{Connection, Output, WINDOW, remote_shell};

/// sshd tells a script's end at once, while its last output is still in pipes. It is over when nothing comes for so
/// long: without processes that the script left behind, the channel's end tells it sooner.
const QUIET: Duration = Duration::from_millis(500);
/// How long altogether the rest of a script's output is waited for. What prints on and on is another process.
const REST: Duration = Duration::from_secs(10);
/// Bytes that a script can have printed before its end and that come after the news of it: a window and a pipe for
/// each of its two streams.
const REST_BYTES: usize = 2 * (WINDOW as usize + 512 * 1024);

/// How long after SIGKILL a script may be seen to end.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// How long one piece of output may take to be passed on once the script is being stopped.
const SLOW: Duration = Duration::from_secs(1);
/// Standard error, as SSH numbers it.
const STDERR: u32 = 1;

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptEnd {
    Exited(u32),
    /// By this signal, named without its `SIG`, and not because of us.
    Killed(String),
    /// The caller wanted it. It was told to end, and in the end killed, unless nothing in the task obeys any more.
    Stopped,
}

/// Why it is not known how a script ended.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Nothing of it ran: another try is safe.
    #[error("the script was not started: {0}")]
    NotStarted(String),
    /// A part of it may have run, and may still be running.
    #[error("the connection to the running script was lost: {0}")]
    Lost(String),
    /// Nobody takes its output any more, so it was ended.
    #[error("the script was ended, because its output cannot be passed on: {0}")]
    Unheard(io::Error),
}

impl Connection {
    /// Runs `command`, a shell such as [`script_shell`](super::script_shell), with `script` as its input.
    ///
    /// Output is passed on piece by piece, each flushed; a slow reader slows the script. Nothing that the script
    /// itself printed is left out; processes that it leaves behind are not waited for.
    ///
    /// Once `stop` completes, the script's process group gets SIGTERM, and after `grace` SIGKILL.
    pub async fn run_script(
        &self,
        command: &str,
        script: Bytes,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<ScriptEnd, ScriptError> {
        if self.agent_itself {
            return Err(not_started(&"the task's server is the agent, which takes whole jobs only"));
        }
        let mut stop = pin!(stop);
        let channel = tokio::select! {
            biased;
            () = &mut stop => return Ok(ScriptEnd::Stopped),
            opened = timeout(self.patience, self.session.channel_open_session()) => match opened {
                Ok(opened) => opened.map_err(|error| not_started(&error))?,
                Err(_) => return Err(not_started(&"the server opens no channel in time")),
            },
        };
        let (mut incoming, outgoing) = channel.split();
        // Nothing is waited for between the command and its input: that would cost a round trip.
        outgoing.exec(true, command).await.map_err(|error| not_started(&error))?;

        let ending = watch::Sender::new(false);
        let mut unheard = None;
        let feed = async {
            // A failure to send is the end of the connection, and the other side of the channel sees it too.
            let _ = outgoing.data_bytes(script).await;
            let _ = outgoing.eof().await;
            pending::<Infallible>().await
        };
        let halt = async {
            let mut given_up = ending.subscribe();
            tokio::select! {
                () = stop => { ending.send_replace(true); }
                _ = given_up.wait_for(|ending| *ending) => {}
            }
            self.signal(&outgoing, Sig::TERM, grace).await;
            self.signal(&outgoing, Sig::KILL, AFTER_KILL).await;
        };
        let listen = async {
            let mut end = None;
            let (mut rest, mut rest_bytes) = (REST, REST_BYTES);
            while rest_bytes > 0 {
                let asked = Instant::now();
                let message = tokio::select! {
                    biased;
                    message = incoming.wait() => message,
                    () = self.silence(rest), if end.is_some() => break,
                };
                if end.is_some() {
                    rest = rest.saturating_sub(asked.elapsed());
                }
                let (data, passed_on) = match message {
                    Some(ChannelMsg::Data { data }) if unheard.is_none() => {
                        (data.len(), pass_on(&mut stdout, &data, &ending).await)
                    }
                    Some(ChannelMsg::ExtendedData { data, ext: STDERR }) if unheard.is_none() => {
                        (data.len(), pass_on(&mut stderr, &data, &ending).await)
                    }
                    Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => (data.len(), Ok(())),
                    Some(ChannelMsg::ExitStatus { exit_status }) => {
                        end = Some(if *ending.borrow() { ScriptEnd::Stopped } else { ScriptEnd::Exited(exit_status) });
                        continue;
                    }
                    Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                        let killed = || ScriptEnd::Killed(name(&signal_name));
                        end = Some(if *ending.borrow() { ScriptEnd::Stopped } else { killed() });
                        continue;
                    }
                    Some(ChannelMsg::Failure) => return Err(not_started(&"the server runs no commands")),
                    Some(ChannelMsg::Close) | None => break,
                    Some(_) => continue,
                };
                if end.is_some() {
                    rest_bytes = rest_bytes.saturating_sub(data);
                }
                if let Err(error) = passed_on {
                    unheard = Some((error, !ending.send_replace(true)));
                }
            }
            end.ok_or_else(|| ScriptError::Lost(self.end()))
        };
        let end = tokio::select! {
            end = listen => end,
            never = feed => match never {},
            () = halt => Ok(ScriptEnd::Stopped),
        };
        // A connection that still carries output of the channel to nobody would not carry the end of it.
        drop(incoming);
        // The other end may have closed first.
        let _ = timeout(SLOW, outgoing.close()).await;
        match unheard {
            Some((error, true)) => Err(ScriptError::Unheard(error)),
            _ => end,
        }
    }

    /// Sends a signal to the script's process group, and returns after `wait`.
    async fn signal(&self, outgoing: &ChannelWriteHalf<Msg>, signal: Sig, wait: Duration) {
        let over = Instant::now() + wait;
        let send = async {
            let sent = self.exec(&remote_shell::signal(&name(&signal)), Bytes::new()).await;
            // One way or the other: many programs take a second SIGTERM for impatience.
            if !matches!(sent, Ok(Output { status: Some(0), .. })) {
                let _ = outgoing.signal(signal).await;
            }
        };
        let _ = timeout_at(over, send).await;
        sleep_until(over).await;
    }

    /// Completes when the script's rest seems to be here, after `limit` at the latest. The answer to a ping comes behind
    /// everything that the server had sent before: a network that hangs is not mistaken for silence.
    async fn silence(&self, limit: Duration) {
        let quiet = async {
            sleep(QUIET).await;
            self.session.send_ping().await
        };
        let _ = timeout(limit, quiet).await;
    }
}

/// A reader that takes nothing must not keep us from ending the script: while the connection is blocked by its output,
/// no signal gets through either.
async fn pass_on(to: &mut (impl AsyncWrite + Unpin), data: &[u8], ending: &watch::Sender<bool>) -> io::Result<()> {
    let write = async {
        to.write_all(data).await?;
        to.flush().await
    };
    let mut ending = ending.subscribe();
    let too_slow = async {
        let _ = ending.wait_for(|ending| *ending).await;
        sleep(SLOW).await;
    };
    tokio::select! {
        biased;
        written = write => written,
        () = too_slow => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn not_started(reason: &impl ToString) -> ScriptError {
    ScriptError::NotStarted(reason.to_string())
}

fn name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}
