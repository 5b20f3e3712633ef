//! The end of the manager and of the driver: one connection to one task.

mod caches;
mod call;
mod deliver_agent;
mod hand_over;
mod prompt_stream;
mod remote_shell;
mod script;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use russh::client::{self, AuthResult, DisconnectReason, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Names};
use russh::{Disconnect, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::keys::{HostKey, TaskKey};
use prompt_stream::PromptStream;

pub use caches::RenewalError;
pub use call::{CallError, Output};
pub use deliver_agent::{AgentBinaries, BinaryError};
pub use hand_over::{HandOverError, StatusError};
pub use remote_shell::script_shell;
pub use script::{ScriptEnd, ScriptError};

/// Bytes that a server may send ahead on one channel.
const WINDOW: u32 = 2 * 1024 * 1024;
/// A server that is silent for so long is asked for a sign of life, and given up at the fourth time without one.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where a task's server is, and how it lets us in.
#[derive(Debug, Clone)]
pub struct Target {
    pub addr: SocketAddr,
    pub user: String,
    pub key: TaskKey,
    /// The host key of an earlier connection to the same task; `None` trusts what is seen first.
    pub pinned: Option<HostKey>,
}

/// Why there is no connection, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The task's host is there and its server is not yet: try again soon.
    #[error("nothing listens on {0} yet")]
    Refused(SocketAddr),
    /// No way to the task, or its server hung up before the greeting was over: try again.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable { addr: SocketAddr, reason: String },
    /// Nothing answered in time. If that goes on, a security group is in the way.
    #[error("{0} did not answer in time")]
    TimedOut(SocketAddr),
    /// The server is up and does not know the task's key: another try will not help.
    #[error(
        "the SSH server refused user {user} with the task's key; the image must write the variable \
         SSH_PUBLIC_KEY to that user's authorized_keys before it starts sshd"
    )]
    KeyRefused { user: String },
    /// Another server than before answers under the task's address: never go on.
    #[error("the task's host key changed from {pinned} to {seen}")]
    HostKeyChanged { pinned: HostKey, seen: HostKey },
    /// The two ends do not understand each other.
    #[error("SSH: {0}")]
    Protocol(String),
}

impl ConnectError {
    /// Whether the task may only need more time.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unreachable { .. } | Self::TimedOut(_))
    }
}

/// An authenticated connection to a task.
pub struct Connection {
    session: Handle<Greeter>,
    host_key: HostKey,
    agent_itself: bool,
    /// The longest that one exchange may take.
    patience: Duration,
    /// Why the connection ended, once it has.
    ended: Arc<OnceLock<String>>,
    /// Of the last hand-over, also of one under way.
    message_sent: AtomicBool,
}

impl Connection {
    /// Connects and authenticates within `timeout`, which also bounds each later exchange.
    pub async fn open(target: &Target, timeout: Duration) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + timeout;
        let stream = match timeout_at(deadline, TcpStream::connect(target.addr)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                return Err(ConnectError::Refused(target.addr));
            }
            Ok(Err(error)) => return Err(unreachable(target, &error)),
            Err(_) => return Err(ConnectError::TimedOut(target.addr)),
        };
        let rest = deadline.saturating_duration_since(Instant::now());
        Ok(Self { patience: timeout, ..Self::over(stream, target, rest).await? })
    }

    /// The same over a connection that is there already: the probe that found the port open has one.
    pub async fn over(stream: TcpStream, target: &Target, timeout: Duration) -> Result<Self, ConnectError> {
        let stream = PromptStream::new(stream).map_err(|error| unreachable(target, &error))?;
        Self::over_any(stream, target, timeout).await
    }

    /// The same over anything that carries bytes.
    pub async fn over_any<S>(stream: S, target: &Target, timeout: Duration) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let authenticate = Self::authenticate(stream, target, timeout);
        tokio::time::timeout(timeout, authenticate).await.unwrap_or(Err(ConnectError::TimedOut(target.addr)))
    }

    async fn authenticate<S>(stream: S, target: &Target, patience: Duration) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(None));
        let agent_itself = Arc::new(AtomicBool::new(false));
        let ended = Arc::default();
        let greeter = Greeter {
            pinned: target.pinned.clone(),
            seen: Arc::clone(&seen),
            agent_itself: Arc::clone(&agent_itself),
            ended: Arc::clone(&ended),
        };
        let greeted = client::connect_stream(Arc::new(config()), stream, greeter).await;
        let host_key = seen.lock().expect("no code panics while it holds this lock").take();
        let mut session = match (greeted, &target.pinned, &host_key) {
            (Ok(session), _, _) => session,
            (Err(Error::UnknownKey), Some(pinned), Some(seen)) => {
                return Err(ConnectError::HostKeyChanged { pinned: pinned.clone(), seen: seen.clone() });
            }
            // sshd hangs up on whom it has no room for (MaxStartups), and a server that is just ending does too.
            (Err(error @ (Error::IO(_) | Error::Disconnect | Error::HUP)), _, _) => {
                return Err(unreachable(target, &error));
            }
            (Err(Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. }), _, _) => {
                return Err(ConnectError::Protocol(
                    "the server has no Ed25519 host key; let the image make one, with `ssh-keygen -A`".into(),
                ));
            }
            (Err(error), _, _) => return Err(ConnectError::Protocol(error.to_string())),
        };
        let host_key = host_key.ok_or_else(|| ConnectError::Protocol("the server showed no host key".into()))?;

        let key = PrivateKeyWithHashAlg::new(target.key.private(), None);
        match session.authenticate_publickey(&target.user, key).await {
            Ok(AuthResult::Success) => Ok(Self {
                session,
                host_key,
                agent_itself: agent_itself.load(Ordering::Relaxed),
                patience,
                ended,
                message_sent: AtomicBool::new(false),
            }),
            // russh reports a connection that is lost meanwhile as a refusal too.
            Ok(AuthResult::Failure { .. }) if session.is_closed() => {
                Err(unreachable(target, &"the connection was closed during authentication"))
            }
            Ok(AuthResult::Failure { .. }) => Err(ConnectError::KeyRefused { user: target.user.clone() }),
            Err(error) => Err(unreachable(target, &error)),
        }
    }

    /// To be pinned: the next connection to the same task must show the same key.
    pub fn host_key(&self) -> &HostKey {
        &self.host_key
    }

    /// The server is the agent, and so the container's first process: it cannot be killed from within the task.
    /// False for OpenSSH, beside which the agent is a process like any other.
    pub fn is_agent_itself(&self) -> bool {
        self.agent_itself
    }

    /// Why there is nothing more to come from the server.
    fn end(&self) -> String {
        self.ended.get().map_or("the server closed the channel", String::as_str).to_owned()
    }

    /// Says goodbye. Without it the server finds out by itself.
    pub async fn close(self) {
        // An error means that the connection is closed already.
        let _ = self.session.disconnect(Disconnect::ByApplication, "", "").await;
    }
}

fn unreachable(target: &Target, reason: &impl ToString) -> ConnectError {
    ConnectError::Unreachable { addr: target.addr, reason: reason.to_string() }
}

fn config() -> client::Config {
    client::Config {
        client_id: crate::software_id(),
        preferred: crate::ALGORITHMS,
        // A manager delivers agents to hundreds of tasks at once: each may have 8 packets of 32 kB under way, not 100.
        channel_buffer_size: 8,
        window_size: WINDOW,
        // For scripts, which have no time limit. What the hand-over asks is bounded anyway.
        keepalive_interval: Some(KEEPALIVE),
        ..client::Config::default()
    }
}

/// Looks at the host key; everything else that a server may want of us is refused.
struct Greeter {
    pinned: Option<HostKey>,
    seen: Arc<Mutex<Option<HostKey>>>,
    agent_itself: Arc<AtomicBool>,
    ended: Arc<OnceLock<String>>,
}

impl client::Handler for Greeter {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let Some(key) = HostKey::of(&key.public_key()) else { return Ok(false) };
        let trusted = self.pinned.as_ref().is_none_or(|pinned| *pinned == key);
        *self.seen.lock().expect("no code panics while it holds this lock") = Some(key);
        Ok(trusted)
    }

    async fn kex_done(&mut self, _: Option<&[u8]>, _: &Names, session: &mut client::Session) -> Result<(), Error> {
        let ours = format!("SSH-2.0-{}_", job::PRODUCT);
        self.agent_itself.store(session.remote_sshid().starts_with(ours.as_bytes()), Ordering::Relaxed);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        let reason = match reason {
            DisconnectReason::ReceivedDisconnect(farewell) => format!("the server left: {}", farewell.message),
            DisconnectReason::Error(Error::KeepaliveTimeout) => "the server does not answer any more".to_owned(),
            DisconnectReason::Error(error) => error.to_string(),
        };
        // The first reason is the cause.
        let _ = self.ended.set(reason);
        Ok(())
    }
}
