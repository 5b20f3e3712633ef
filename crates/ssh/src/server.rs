//! The agent's end: a server that knows one key and three commands. It has no shell to give.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use job::hand_over::{AddressesReceipt, AgentStatus, HandOver, Receipt, RemoteCaches};
use russh::keys::PublicKey;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, Disconnect, Error, MethodKind, MethodSet, Pty};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::keys::{self, KeyError, ServerKey};
use crate::protocol::{self, Command, MessageError, NOT_FOUND};

/// A connection on which nothing happens is ended.
const IDLE: Duration = Duration::from_secs(60);

/// How long connections may take to end when the server does.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the agent is asked, each with the way for its answer.
#[derive(Debug)]
pub enum Request {
    HandOver(Box<HandOver>, oneshot::Sender<Receipt>),
    Status(oneshot::Sender<AgentStatus>),
    Caches(Box<RemoteCaches>, oneshot::Sender<AddressesReceipt>),
}

/// Serves one agent. A clone of it is one more attendant of the same agent.
#[derive(Clone)]
pub struct Server {
    config: Arc<server::Config>,
    authorized: PublicKey,
    requests: mpsc::Sender<Request>,
}

impl Server {
    /// `authorized` is the one public key that is let in: a line as in `SSH_PUBLIC_KEY`.
    pub fn new(authorized: &str, host_key: ServerKey, requests: mpsc::Sender<Request>) -> Result<Self, KeyError> {
        let config = server::Config {
            server_id: crate::software_id(),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            // Comparing public keys has no timing to hide.
            auth_rejection_time: Duration::ZERO,
            keys: vec![host_key.into_private()],
            preferred: crate::ALGORITHMS,
            max_auth_attempts: 3,
            inactivity_timeout: Some(IDLE),
            ..server::Config::default()
        };
        Ok(Self { config: Arc::new(config), authorized: keys::parse_public(authorized)?, requests })
    }

    /// Serves connections until `shutdown` completes; then ends them in order.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let (ending, _) = tokio::sync::watch::channel(());
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let (server, mut ended) = (self.clone(), ending.subscribe());
                        connections.spawn(async move {
                            if let Err(error) = stream.set_nodelay(true) {
                                tracing::debug!(%peer, %error, "TCP_NODELAY");
                            }
                            server.attend(stream, async move { drop(ended.changed().await) }).await;
                        });
                    }
                    // A peer that is gone already, or no file descriptor left: neither ends the server.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        drop(ending);
        let all = async { while connections.join_next().await.is_some() {} };
        // What does not end by then is ended with its `JoinSet`.
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }

    /// Serves one connection until its end, or until `shutdown` completes.
    pub async fn attend<S>(&self, stream: S, shutdown: impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let porter = Porter { authorized: self.authorized.clone(), requests: self.requests.clone() };
        tokio::pin!(shutdown);
        let session = tokio::select! {
            () = &mut shutdown => return,
            session = server::run_stream(Arc::clone(&self.config), stream, porter) => session,
        };
        let ended = match session {
            Ok(mut session) => tokio::select! {
                () = &mut shutdown => {
                    // An error means that it has ended already.
                    let _ = session.handle().disconnect(Disconnect::ByApplication, String::new(), String::new()).await;
                    session.await
                }
                ended = &mut session => ended,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            // A probe of the port looks like this too.
            tracing::debug!(%error, "an SSH connection ended");
        }
    }
}

/// Lets in whoever holds the one key, and opens nothing but channels for commands.
struct Porter {
    authorized: PublicKey,
    requests: mpsc::Sender<Request>,
}

impl Porter {
    fn verdict(&self, key: &PublicKey) -> Auth {
        if key.key_data() == self.authorized.key_data() { Auth::Accept } else { Auth::reject() }
    }
}

impl server::Handler for Porter {
    type Error = Error;

    async fn auth_publickey_offered(&mut self, _user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        Ok(self.verdict(offer.public_key))
    }

    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        Ok(self.verdict(key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        reply.accept().await;
        let requests = self.requests.clone();
        // Ends with its channel, and a channel ends with its connection.
        tokio::spawn(async move {
            // An error means that the client left without waiting for its answer.
            let _ = answer(channel, &requests).await;
        });
        Ok(())
    }

    async fn exec_request(&mut self, channel: ChannelId, _line: &[u8], session: &mut Session) -> Result<(), Error> {
        // An unknown command is answered like a shell does, by its exit status.
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(&mut self, channel: ChannelId, _name: &str, session: &mut Session) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }
}

/// Waits for the channel's command, and answers it.
async fn answer(mut channel: Channel<Msg>, requests: &mpsc::Sender<Request>) -> Result<(), Error> {
    let command = loop {
        match channel.wait().await {
            Some(ChannelMsg::Exec { command, .. }) => break command,
            Some(_) => {}
            None => return Ok(()),
        }
    };
    let line = match Command::parse(&command) {
        None => {
            let sentence =
                format!("this is {}'s agent: it knows the commands hand-over, status and caches\n", job::PRODUCT);
            return end(channel, NOT_FOUND, None, &sentence).await;
        }
        Some(Command::HandOver) => match protocol::receive_hand_over(channel.make_reader()).await {
            Ok(message) => ask(requests, |answer| Request::HandOver(Box::new(message), answer)).await,
            Err(error) => Some(refusal(&error)),
        }
        .as_ref()
        .map(protocol::line_of),
        Some(Command::Status) => ask(requests, Request::Status).await.as_ref().map(protocol::line_of),
        Some(Command::Caches) => match protocol::receive_caches(channel.make_reader()).await {
            Ok(caches) => ask(requests, |answer| Request::Caches(Box::new(caches), answer)).await,
            Err(error) => return end(channel, 1, None, &format!("{error}\n")).await,
        }
        .as_ref()
        .map(protocol::line_of),
    };
    match line {
        Some(Ok(line)) => end(channel, 0, Some(line), "").await,
        Some(Err(error)) => end(channel, 1, None, &format!("{error}\n")).await,
        None => end(channel, 1, None, "the agent is about to end\n").await,
    }
}

fn refusal(error: &MessageError) -> Receipt {
    Receipt::Refused { reason: error.to_string() }
}

/// `None`: the agent takes no requests any more.
async fn ask<T>(requests: &mpsc::Sender<Request>, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    requests.send(request(answer)).await.ok()?;
    answered.await.ok()
}

async fn end(channel: Channel<Msg>, status: u32, line: Option<Vec<u8>>, complaint: &str) -> Result<(), Error> {
    if let Some(line) = line {
        channel.data_bytes(line).await?;
    }
    // 1 is SSH's number for standard error.
    channel.extended_data_bytes(1, complaint.to_owned()).await?;
    channel.exit_status(status).await?;
    channel.eof().await?;
    channel.close().await
}
