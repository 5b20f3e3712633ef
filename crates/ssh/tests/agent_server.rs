//! The client and the agent's own server, in memory where a port adds nothing.

#[path = "support/hand_over.rs"]
mod hand_over;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hand_over::{ACCEPTED, message};
use job::hand_over::{AddressesReceipt, AgentStatus, HandOver, Receipt, RemoteCaches};
use job::ids::JobId;
use job::secret::ExposeSecret;
use russh::client::AuthResult;
use russh::keys::PrivateKeyWithHashAlg;
use ssh::client::{AgentBinaries, ConnectError, Connection, HandOverError, ScriptError, script_shell};
use ssh::keys::{HostKey, ServerKey, TaskKey};
use ssh::protocol::MESSAGE_LIMIT;
use ssh::server::{Request, Server};
use support::{PATIENCE, key, target};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

struct World {
    key: TaskKey,
    host_key: HostKey,
    server: Server,
    requests: mpsc::Receiver<Request>,
}

fn world() -> World {
    let (key, server_key) = (key(), ServerKey::random());
    let host_key = server_key.host_key();
    let (sender, requests) = mpsc::channel(64);
    let server = Server::new(&key.public_openssh(), server_key, sender).expect("a server");
    World { key, host_key, server, requests }
}

impl World {
    /// A connection whose server end is attended until it closes.
    fn stream(&self) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        let server = self.server.clone();
        tokio::spawn(async move { server.attend(theirs, std::future::pending()).await });
        ours
    }

    async fn connect(&self) -> Connection {
        let target = target(NOWHERE, "root", &self.key);
        Connection::over_any(self.stream(), &target, PATIENCE).await.expect("a connection")
    }
}

fn no_agents() -> AgentBinaries {
    AgentBinaries::in_directory("/nonexistent")
}

/// Answers as an agent does: the first job is taken, and every later one is told of it.
fn agent(mut requests: mpsc::Receiver<Request>) -> Arc<AtomicUsize> {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let mut job = None;
        while let Some(request) = requests.recv().await {
            match request {
                Request::HandOver(message, answer) => {
                    let receipt = match job {
                        Some(job) => Receipt::Busy { job },
                        None => ACCEPTED,
                    };
                    if job.is_none() {
                        job = Some(id_of(&message));
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    let _ = answer.send(receipt);
                }
                Request::Status(answer) => {
                    let _ = answer.send(AgentStatus::Idle);
                }
                Request::Caches(_, answer) => {
                    let _ = answer.send(AddressesReceipt::NoJob);
                }
            }
        }
    });
    taken
}

fn id_of(message: &HandOver) -> JobId {
    job::payload::Received::parse(message.payload.get().as_bytes()).expect("a payload").payload.id
}

#[tokio::test]
async fn a_job_is_handed_over_word_for_word_and_acknowledged() {
    let mut world = world();
    let connection = world.connect().await;
    let (sent, agents) = (message(7, 200_000), no_agents());
    let (receipt, ()) = tokio::join!(connection.hand_over(&sent, &agents), async {
        let Some(Request::HandOver(received, answer)) = world.requests.recv().await else { panic!("a hand-over") };
        assert_eq!(received.payload.get(), sent.payload.get());
        assert_eq!(received.gitlab.url, sent.gitlab.url);
        answer.send(ACCEPTED).expect("a waiting client");
    });
    assert_eq!(receipt.expect("a receipt"), ACCEPTED);
    assert_eq!(*connection.host_key(), world.host_key);
}

#[tokio::test]
async fn a_running_agent_tells_enough_to_supervise_its_job() {
    let mut world = world();
    let connection = world.connect().await;
    let (status, ()) = tokio::join!(connection.status(), async {
        let Some(Request::Status(answer)) = world.requests.recv().await else { panic!("a question") };
        let running = AgentStatus::Running {
            job: JobId(7),
            token: "job-token".into(),
            remaining_seconds: 60,
            cache_renewal: Some("sealed".into()),
        };
        answer.send(running).expect("a waiting client");
    });
    let Some(AgentStatus::Running { job, token, remaining_seconds, cache_renewal }) = status.expect("a status") else {
        panic!("running")
    };
    assert_eq!((job, token.expose_secret(), remaining_seconds), (JobId(7), "job-token", 60));
    assert_eq!(cache_renewal.as_deref(), Some("sealed"));
}

#[tokio::test]
async fn fresh_addresses_of_caches_reach_the_agent() {
    let mut world = world();
    let connection = world.connect().await;
    let caches = RemoteCaches { max_archive_size: 7, ..RemoteCaches::default() };
    let (receipt, ()) = tokio::join!(connection.renew_caches(&caches), async {
        let Some(Request::Caches(taken, answer)) = world.requests.recv().await else { panic!("addresses") };
        assert_eq!(taken.max_archive_size, 7);
        answer.send(AddressesReceipt::Taken).expect("a waiting client");
    });
    assert_eq!(receipt.expect("a receipt"), AddressesReceipt::Taken);
}

#[tokio::test]
async fn another_key_is_refused() {
    let world = world();
    let error = Connection::over_any(world.stream(), &target(NOWHERE, "root", &key()), PATIENCE).await.err();
    assert!(matches!(error, Some(ConnectError::KeyRefused { user }) if user == "root"));
}

#[tokio::test]
async fn a_changed_host_key_ends_the_connection_before_anything_is_sent() {
    let world = world();
    let pinned = ServerKey::random().host_key();
    let target = ssh::client::Target { pinned: Some(pinned.clone()), ..target(NOWHERE, "root", &world.key) };
    match Connection::over_any(world.stream(), &target, PATIENCE).await.err() {
        Some(ConnectError::HostKeyChanged { pinned: expected, seen }) => {
            assert_eq!(expected, pinned);
            assert_eq!(seen, world.host_key);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_pinned_host_key_is_accepted_again() {
    let world = world();
    let target = ssh::client::Target { pinned: Some(world.host_key.clone()), ..target(NOWHERE, "root", &world.key) };
    assert!(Connection::over_any(world.stream(), &target, PATIENCE).await.is_ok());
}

#[tokio::test]
async fn an_unknown_command_is_answered_with_127_and_a_sentence() {
    let connection = world().connect().await;
    for command in ["sh", "staffetta-agent run", "staffetta-agent status; id", ""] {
        let output = connection.exec(command, "").await.expect("an answer");
        assert_eq!(output.status, Some(127), "{command}");
        assert_eq!(output.stdout, b"");
        assert!(String::from_utf8_lossy(&output.stderr).contains("knows the commands"));
    }
}

#[tokio::test]
async fn an_agent_runs_no_scripts() {
    let connection = world().connect().await;
    let (stdout, stderr) = (tokio::io::sink(), tokio::io::sink());
    let stop = std::future::pending();
    let end = connection.run_script(&script_shell(), "true".into(), stdout, stderr, stop, PATIENCE).await;
    assert!(matches!(end, Err(ScriptError::NotStarted(_))), "{end:?}");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_never_reaches_the_agent() {
    let world = world();
    let connection = world.connect().await;
    let output = connection.exec("staffetta-agent hand-over", vec![b' '; MESSAGE_LIMIT as usize + 1]).await;
    let output = String::from_utf8(output.expect("an answer").stdout).expect("text");
    assert!(output.contains(r#""answer":"refused""#) && output.contains("larger than"), "{output}");
    assert_eq!(world.requests.len(), 0);
}

/// A client of russh without our own rules.
struct Stranger;

impl russh::client::Handler for Stranger {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

#[tokio::test]
async fn nothing_but_the_key_lets_in() {
    let world = world();
    let mut session =
        russh::client::connect_stream(Arc::default(), world.stream(), Stranger).await.expect("a greeting");
    assert!(!session.authenticate_none("root").await.expect("an answer").success());
    let mut session =
        russh::client::connect_stream(Arc::default(), world.stream(), Stranger).await.expect("a greeting");
    match session.authenticate_password("root", "").await.expect("an answer") {
        AuthResult::Failure { remaining_methods, .. } => {
            assert_eq!(remaining_methods.iter().collect::<Vec<_>>(), [&russh::MethodKind::PublicKey]);
        }
        AuthResult::Success => panic!("a password lets in"),
    }
    assert!(session.channel_open_session().await.is_err(), "a channel without authentication");
}

#[tokio::test]
async fn the_key_opens_commands_and_nothing_else() {
    // The key of the test as russh's own client wants it.
    let private = russh::keys::PrivateKey::new(
        russh::keys::ssh_key::private::KeypairData::Ed25519(russh::keys::ssh_key::private::Ed25519Keypair::from_seed(
            &[7; 32],
        )),
        "",
    )
    .expect("a key");
    let public = private.public_key().to_openssh().expect("a line");
    let (sender, _requests) = mpsc::channel(1);
    let server = Server::new(&public, ServerKey::random(), sender).expect("a server");
    let (ours, theirs) = duplex(64 * 1024);
    tokio::spawn(async move { server.attend(theirs, std::future::pending()).await });
    let mut session = russh::client::connect_stream(Arc::default(), ours, Stranger).await.expect("a greeting");
    let key = PrivateKeyWithHashAlg::new(Arc::new(private), None);
    assert!(session.authenticate_publickey("anyone", key).await.expect("an answer").success());

    let refused = |mut channel: russh::Channel<russh::client::Msg>| async move {
        matches!(channel.wait().await, Some(russh::ChannelMsg::Failure))
    };
    let channel = session.channel_open_session().await.expect("a channel");
    channel.request_shell(true).await.expect("sent");
    assert!(refused(channel).await, "a shell");
    let channel = session.channel_open_session().await.expect("a channel");
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.expect("sent");
    assert!(refused(channel).await, "a terminal");
    let channel = session.channel_open_session().await.expect("a channel");
    channel.request_subsystem(true, "sftp").await.expect("sent");
    assert!(refused(channel).await, "a subsystem");
    let channel = session.channel_open_session().await.expect("a channel");
    channel.set_env(true, "LD_PRELOAD", "/x").await.expect("sent");
    assert!(refused(channel).await, "a variable");
    let channel = session.channel_open_session().await.expect("a channel");
    channel.agent_forward(true).await.expect("sent");
    assert!(refused(channel).await, "an SSH agent");
    assert!(session.channel_open_direct_tcpip("127.0.0.1", 80, "127.0.0.1", 1).await.is_err(), "a way through");
    assert!(session.channel_open_direct_streamlocal("/run/x").await.is_err(), "a socket");
    assert!(session.tcpip_forward("127.0.0.1", 0).await.is_err(), "a way back");
}

/// Carries at most `limit` bytes from `from` to `to`, then ends both ways at once.
async fn carry(mut from: impl tokio::io::AsyncRead + Unpin, mut to: impl tokio::io::AsyncWrite + Unpin, limit: usize) {
    let (mut left, mut buffer) = (limit, vec![0; 4096]);
    while left > 0 {
        let most = buffer.len().min(left);
        match from.read(&mut buffer[..most]).await {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => left -= count,
            _ => return,
        }
    }
}

/// Hands a job over through a wire that is cut after so many bytes of either direction.
async fn hand_over_through(
    world: &World,
    message: &HandOver,
    (up, down): (usize, usize),
) -> Result<Receipt, Option<HandOverError>> {
    let (ours, wire) = duplex(64 * 1024);
    let (from_client, to_client) = tokio::io::split(wire);
    let (from_server, to_server) = tokio::io::split(world.stream());
    tokio::spawn(async move {
        tokio::select! {
            () = carry(from_client, to_server, up) => {}
            () = carry(from_server, to_client, down) => {}
        }
    });
    let connection =
        Connection::over_any(ours, &target(NOWHERE, "root", &world.key), PATIENCE).await.map_err(|_| None)?;
    connection.hand_over(message, &no_agents()).await.map_err(Some)
}

#[tokio::test]
async fn a_connection_lost_at_any_byte_neither_loses_the_job_nor_runs_it_twice() {
    let (mut refused, mut unknown, mut delivered) = (0, 0, 0);
    let message = message(7, 3000);
    let cuts = (0..7000).step_by(101).flat_map(|cut| [(cut, usize::MAX), (usize::MAX, cut)]);
    for (up, down) in cuts {
        let mut world = world();
        let taken = agent(std::mem::replace(&mut world.requests, mpsc::channel(1).1));
        let first = hand_over_through(&world, &message, (up, down)).await;
        match &first {
            Ok(receipt) => {
                assert_eq!(*receipt, ACCEPTED);
                delivered += 1;
                continue;
            }
            Err(Some(HandOverError::Unknown(_))) => unknown += 1,
            Err(None | Some(HandOverError::NotDelivered(_))) => {
                assert_eq!(taken.load(Ordering::SeqCst), 0, "{up} {down}: {first:?}, and the agent has the job");
                refused += 1;
            }
            Err(Some(error)) => panic!("{up} {down}: {error}"),
        }
        // Whatever it was, the same call again is safe, and tells.
        let again = hand_over_through(&world, &message, (usize::MAX, usize::MAX)).await.expect("a whole wire");
        assert!(again == ACCEPTED || again == Receipt::Busy { job: JobId(7) }, "{again:?}");
        assert_eq!(taken.load(Ordering::SeqCst), 1, "{up} {down}");
        if again != ACCEPTED {
            assert!(matches!(first, Err(Some(HandOverError::Unknown(_)))), "{up} {down}: {first:?}");
        }
    }
    assert!(refused > 10 && unknown > 10 && delivered > 10, "{refused} {unknown} {delivered}");
}

#[tokio::test]
async fn a_large_message_cut_in_its_middle_is_certainly_not_delivered() {
    let mut world = world();
    let taken = agent(std::mem::replace(&mut world.requests, mpsc::channel(1).1));
    let lost = hand_over_through(&world, &message(7, 6_000_000), (1_000_000, usize::MAX)).await;
    assert!(matches!(lost, Err(Some(HandOverError::NotDelivered(_)))), "{lost:?}");
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_message_that_no_agent_takes_is_not_sent_at_all() {
    let mut world = world();
    let taken = agent(std::mem::replace(&mut world.requests, mpsc::channel(1).1));
    let too_large = hand_over_through(&world, &message(7, MESSAGE_LIMIT as usize), (usize::MAX, usize::MAX)).await;
    assert!(matches!(too_large, Err(Some(HandOverError::TooLarge { .. }))), "{too_large:?}");
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_repeated_hand_over_is_told_that_the_job_had_arrived() {
    let World { key, server, requests, .. } = world();
    agent(requests);
    for expected in [ACCEPTED, Receipt::Busy { job: JobId(7) }] {
        let (ours, theirs) = duplex(64 * 1024);
        let server = server.clone();
        tokio::spawn(async move { server.attend(theirs, std::future::pending()).await });
        let connection =
            Connection::over_any(ours, &target(NOWHERE, "root", &key), PATIENCE).await.expect("a connection");
        assert_eq!(connection.hand_over(&message(7, 10), &no_agents()).await.expect("a receipt"), expected);
    }
}

#[tokio::test]
async fn fifty_connections_are_served_at_once_and_end_with_the_server() {
    let World { key, server, requests, .. } = world();
    let taken = agent(requests);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (shutdown, ending) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move { server.serve(listener, async move { drop(ending.await) }).await });

    let mut clients = tokio::task::JoinSet::new();
    for id in 1..=50 {
        let target = target(addr, "root", &key);
        clients.spawn(async move {
            let connection = Connection::open(&target, PATIENCE).await.expect("a connection");
            let receipt = connection.hand_over(&message(id, 1000), &no_agents()).await.expect("a receipt");
            (connection, receipt)
        });
    }
    let clients = clients.join_all().await;
    assert_eq!(clients.iter().filter(|(_, receipt)| *receipt == ACCEPTED).count(), 1);
    assert_eq!(taken.load(Ordering::SeqCst), 1);

    shutdown.send(()).expect("a server");
    serving.await.expect("an orderly end");
    for (connection, _) in clients {
        assert!(connection.status().await.is_err(), "a connection outlived its server");
    }
    let error = Connection::open(&target(addr, "root", &key), PATIENCE).await.err();
    assert!(matches!(error, Some(ConnectError::Refused(_))), "{error:?}");
}

#[tokio::test]
async fn the_server_names_the_product() {
    let mut greeting = [0; 18];
    world().stream().read_exact(&mut greeting).await.expect("a greeting");
    assert_eq!(&greeting, b"SSH-2.0-staffetta_");
}

#[tokio::test]
async fn a_server_that_hangs_up_or_says_nothing_is_not_ready_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = target(listener.local_addr().expect("an address"), "root", &key());
    let (error, ()) = tokio::join!(Connection::open(&target, PATIENCE), async {
        drop(listener.accept().await.expect("a client"));
    });
    let error = error.err().expect("no server");
    assert!(matches!(error, ConnectError::Unreachable { .. }) && error.may_pass(), "{error:?}");

    let error = Connection::open(&target, std::time::Duration::from_millis(50)).await.err().expect("no server");
    assert!(matches!(error, ConnectError::TimedOut(_)) && error.may_pass(), "{error:?}");
}

#[tokio::test]
async fn a_web_server_is_told_from_an_ssh_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = target(listener.local_addr().expect("an address"), "root", &key());
    let (error, ()) = tokio::join!(Connection::open(&target, PATIENCE), async {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.expect("a client");
        let page = "HTTP/1.1 400 Bad Request\r\n".repeat(100);
        stream.write_all(page.as_bytes()).await.expect("written");
    });
    assert!(matches!(error.err(), Some(ConnectError::Protocol(_) | ConnectError::Unreachable { .. })));
}
