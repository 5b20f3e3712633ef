//! The client and a real OpenSSH server, with a shell script in the place of the agent.

#[path = "support/hand_over.rs"]
mod hand_over;
#[path = "support/sshd.rs"]
mod sshd;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hand_over::{ACCEPTED, message};
use job::hand_over::{AgentStatus, HandOver, Receipt};
use job::ids::JobId;
use ssh::client::{AgentBinaries, ConnectError, Connection, HandOverError, Target};
use ssh::keys::ServerKey;
use sshd::{Sshd, until};
use support::{PATIENCE, key};

/// Takes the first job for good, like the agent: what it received is kept under `$HOME`.
const AGENT: &str = r#"#!/bin/sh
case "$1" in
hand-over)
    cat > "$HOME/received.$$"
    if ln "$HOME/received.$$" "$HOME/received" 2>/dev/null; then
        echo '{"answer":"accepted"}'
    else
        echo '{"answer":"busy","job":7}'
    fi ;;
status) echo '{"status":"finished","job":7}' ;;
esac
"#;

impl Sshd {
    fn delivered(&self) -> PathBuf {
        self.home(".staffetta/staffetta-agent")
    }

    /// The image has an agent.
    fn install(&self, script: &str) {
        write_program(&self.directory.path().join("bin/staffetta-agent"), script);
    }

    /// The manager has an agent to send.
    fn agents(&self, script: &str) -> AgentBinaries {
        let directory = self.directory.path().join("manager");
        fs::create_dir_all(&directory).expect("a directory");
        write_program(&directory.join("staffetta-agent"), script);
        AgentBinaries::in_directory(directory)
    }
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, script).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

fn received(path: &Path) -> HandOver {
    serde_json::from_slice(&fs::read(path).expect("what the agent received")).expect("a hand-over")
}

#[tokio::test]
async fn an_agent_in_the_images_path_is_called_and_none_is_sent() {
    let sshd = Sshd::start().await;
    sshd.install(AGENT);
    let connection = sshd.connect().await;
    let sent = message(7, 100_000);
    let no_agents = AgentBinaries::in_directory("/nonexistent");
    assert_eq!(connection.hand_over(&sent, &no_agents).await.expect("a receipt"), ACCEPTED);
    assert_eq!(received(&sshd.home("received")).payload.get(), sent.payload.get());
    assert_eq!(connection.hand_over(&sent, &no_agents).await.expect("a receipt"), Receipt::Busy { job: JobId(7) });
    let status = connection.status().await.expect("a status");
    assert!(matches!(status, Some(AgentStatus::Finished { job: JobId(7) })), "{status:?}");
    assert!(!sshd.delivered().exists());
}

#[tokio::test]
async fn an_agent_is_sent_to_an_image_without_one_and_only_once() {
    let sshd = Sshd::start().await;
    // As large as a real one, so that it fills SSH's window more than once.
    let script = format!("{AGENT}exit\n{}", "# filling\n".repeat(400_000));
    let agents = sshd.agents(&script);
    let connection = sshd.connect().await;
    assert!(connection.status().await.expect("an answer").is_none(), "a task without an agent");

    let sent = message(7, 1000);
    assert_eq!(connection.hand_over(&sent, &agents).await.expect("a receipt"), ACCEPTED);
    assert_eq!(received(&sshd.home("received")).payload.get(), sent.payload.get());
    let delivered = fs::metadata(sshd.delivered()).expect("the agent");
    assert_eq!(delivered.permissions().mode() & 0o7777, 0o700);
    assert!(fs::read(sshd.delivered()).expect("the agent") == script.as_bytes(), "another file arrived");
    let directory = sshd.home(".staffetta");
    assert_eq!(fs::metadata(&directory).expect("its directory").permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&directory).expect("its directory").count(), 1, "something is left beside it");

    // Also over another connection of another manager, which has yet to read its own copy.
    let connection = sshd.connect().await;
    let again = connection.hand_over(&sent, &sshd.agents(&script)).await.expect("a receipt");
    assert_eq!(again, Receipt::Busy { job: JobId(7) });
    assert_eq!(fs::metadata(sshd.delivered()).expect("the agent").ino(), delivered.ino(), "it was sent again");
    let status = connection.status().await.expect("a status");
    assert!(matches!(status, Some(AgentStatus::Finished { job: JobId(7) })), "{status:?}");
}

#[tokio::test]
async fn an_image_whose_shell_runs_no_command_gives_no_receipt() {
    let sshd = Sshd::start().await;
    sshd.install("#!/bin/sh\ncat > /dev/null\necho 'This account is currently not available.'\nexit 1\n");
    let connection = sshd.connect().await;
    let error = connection.hand_over(&message(7, 1000), &AgentBinaries::in_directory("/nonexistent")).await.err();
    assert!(matches!(&error, Some(HandOverError::NoReceipt(said)) if said.contains("not available")), "{error:?}");
}

#[tokio::test]
async fn a_damaged_or_older_agent_is_replaced() {
    let sshd = Sshd::start().await;
    fs::create_dir(sshd.home(".staffetta")).expect("a directory");
    // Of the same size: only its sum tells.
    write_program(&sshd.delivered(), &AGENT.replace("accepted", "ACCEPTED"));
    let receipt = sshd.connect().await.hand_over(&message(7, 10), &sshd.agents(AGENT)).await;
    assert_eq!(receipt.expect("a receipt"), ACCEPTED);
    assert_eq!(fs::read_to_string(sshd.delivered()).expect("the agent"), AGENT);
}

#[tokio::test]
async fn a_manager_without_an_agent_for_the_task_says_so_and_keeps_the_job() {
    let sshd = Sshd::start().await;
    let error = sshd.connect().await.hand_over(&message(7, 10), &AgentBinaries::in_directory("/nonexistent")).await;
    let error = error.expect_err("no agent");
    assert!(matches!(error, HandOverError::NoAgent(_)), "{error:?}");
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

/// Like the agent, starts the job in a session of its own; here the job waits to be released. What waits
/// also ends with the test's folder: nobody else would end it after a test that failed.
const DETACHING: &str = r#"#!/bin/sh
cat > "$HOME/received"
echo $PPID > "$HOME/parent.new" && mv "$HOME/parent.new" "$HOME/parent"
BEFORE
setsid sh -c 'until [ -e "$HOME/release" ] || [ ! -d "$HOME" ]; do sleep 0.01; done; echo done > "$HOME/survived"' </dev/null >/dev/null 2>&1 &
echo '{"answer":"accepted"}'
"#;

/// Waits until the sshd process that served the agent's session is gone.
async fn session_is_over(sshd: &Sshd) {
    let parent = fs::read_to_string(sshd.home("parent")).expect("a process id");
    let parent = PathBuf::from(format!("/proc/{}", parent.trim()));
    until("the end of the session", || !parent.exists()).await;
}

#[tokio::test]
async fn a_job_lives_on_when_its_connection_ends() {
    let sshd = Sshd::start().await;
    sshd.install(&DETACHING.replace("BEFORE", ""));
    let connection = sshd.connect().await;
    let receipt = connection.hand_over(&message(7, 10), &sshd.agents(AGENT)).await;
    assert_eq!(receipt.expect("a receipt"), ACCEPTED);
    connection.close().await;
    session_is_over(&sshd).await;
    fs::write(sshd.home("release"), "").expect("a file");
    until("the job's end", || sshd.home("survived").exists()).await;
}

#[tokio::test]
async fn a_job_is_started_even_if_the_connection_ends_before_its_receipt() {
    let sshd = Sshd::start().await;
    sshd.install(&DETACHING.replace("BEFORE", r#"until [ -e "$HOME/go" ] || [ ! -d "$HOME" ]; do sleep 0.01; done"#));
    let connection = sshd.connect().await;
    let agents = sshd.agents(AGENT);
    let sent = message(7, 10);
    tokio::select! {
        receipt = connection.hand_over(&sent, &agents) => panic!("too early: {receipt:?}"),
        () = until("the message's arrival", || sshd.home("parent").exists()) => {}
    }
    assert!(connection.may_have_handed_over());
    drop(connection);
    session_is_over(&sshd).await;
    fs::write(sshd.home("go"), "").expect("a file");
    fs::write(sshd.home("release"), "").expect("a file");
    until("the job's end", || sshd.home("survived").exists()).await;
}

#[tokio::test]
async fn a_receipt_counts_even_if_the_agents_child_keeps_the_channel_open() {
    let sshd = Sshd::start().await;
    // The child lives as long as the test's folder.
    sshd.install(
        "#!/bin/sh\ncat > /dev/null\n(while [ -d \"$HOME\" ]; do sleep 0.01; done) &\necho '{\"answer\":\"accepted\"}'\n",
    );
    let receipt = sshd.connect().await.hand_over(&message(7, 10), &sshd.agents(AGENT)).await;
    assert_eq!(receipt.expect("a receipt"), ACCEPTED);
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_of_a_message_starts_nothing() {
    let sshd = Sshd::start().await;
    // Accepts only what is whole, as every reader of JSON does.
    sshd.install("#!/bin/sh\ncat > \"$HOME/part\"\ntail -c 2 \"$HOME/part\" | grep -q } && : > \"$HOME/started\"\n: > \"$HOME/over\"\n");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let wire = Target { addr: listener.local_addr().expect("an address"), ..sshd.target.clone() };
    let target = sshd.target.addr;
    let relay = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut server = tokio::net::TcpStream::connect(target).await.expect("sshd");
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let mut up = tokio::io::AsyncReadExt::take(&mut from_client, 1_000_000);
        tokio::select! {
            _ = tokio::io::copy(&mut up, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    });
    let connection = Connection::open(&wire, PATIENCE).await.expect("a connection");
    let lost = connection.hand_over(&message(7, 8_000_000), &sshd.agents(AGENT)).await;
    assert!(matches!(lost, Err(HandOverError::NotDelivered(_))), "{lost:?}");
    relay.await.expect("the relay");
    until("the agent's end", || sshd.home("over").exists()).await;
    assert!(!sshd.home("started").exists());
}

#[tokio::test]
async fn another_key_is_refused_with_the_fix() {
    let sshd = Sshd::start().await;
    let stranger = Target { key: key(), ..sshd.target.clone() };
    let error = Connection::open(&stranger, PATIENCE).await.err().expect("refused");
    assert!(matches!(error, ConnectError::KeyRefused { .. }) && !error.may_pass(), "{error:?}");
    assert!(error.to_string().contains("SSH_PUBLIC_KEY"), "{error}");
}

#[tokio::test]
async fn a_changed_host_key_is_found() {
    let sshd = Sshd::start().await;
    let seen = sshd.connect().await.host_key().clone();
    let same = Target { pinned: Some(seen.clone()), ..sshd.target.clone() };
    assert!(Connection::open(&same, PATIENCE).await.is_ok());

    let other = Target { pinned: Some(ServerKey::random().host_key()), ..sshd.target.clone() };
    match Connection::open(&other, PATIENCE).await.err() {
        Some(error @ ConnectError::HostKeyChanged { .. }) => {
            assert!(error.to_string().contains(&seen.to_string()), "{error}");
            assert!(!error.may_pass());
        }
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn commands_have_their_input_output_and_status() {
    let sshd = Sshd::start().await;
    let output = sshd.connect().await.exec("cat; echo no >&2; exit 3", "yes").await.expect("an output");
    assert_eq!((output.status, output.stdout, output.stderr), (Some(3), b"yes".to_vec(), b"no\n".to_vec()));
}

#[tokio::test]
async fn what_a_command_prints_is_bounded() {
    let sshd = Sshd::start().await;
    let error = sshd.connect().await.exec("yes", "").await.expect_err("too much");
    assert!(error.to_string().contains("more than"), "{error}");
}

#[tokio::test]
async fn fifty_connections_are_made_at_once() {
    let sshd = Sshd::start().await;
    sshd.install(AGENT);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let target = sshd.target.clone();
        clients.spawn(async move {
            let connection = Connection::open(&target, PATIENCE).await.expect("a connection");
            let no_agents = AgentBinaries::in_directory("/nonexistent");
            connection.hand_over(&message(7, 1000), &no_agents).await.expect("a receipt")
        });
    }
    let receipts = clients.join_all().await;
    assert_eq!(receipts.iter().filter(|receipt| **receipt == ACCEPTED).count(), 1);
}
