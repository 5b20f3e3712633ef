//! The two ways by which a job comes: the agent's own SSH server, and OpenSSH in the image.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use job::hand_over::{AgentStatus, HandOver, Receipt};
use job::ids::JobId;
use job::task;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use ssh::client::{AgentBinaries, Connection, Target};
use ssh::keys::{Nonce, TaskKey};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{PATIENCE, World, gone, read};

/// Waits for `go` in the project's directory.
const PATIENT: [&str; 2] = ["echo script began", "while [ ! -e go ]; do sleep 0.05; done"];

fn key() -> TaskKey {
    TaskKey::derive(&"glrt-t1_a-runner-of-the-tests".into(), &Nonce::random())
}

fn message(world: &World) -> HandOver {
    serde_json::from_str(&world.hand_over().to_string()).expect("a hand-over")
}

fn no_agents() -> AgentBinaries {
    AgentBinaries::in_directory("/nowhere")
}

async fn connect(address: SocketAddr, key: &TaskKey, user: &str) -> Connection {
    let target = Target { addr: address, user: user.into(), key: key.clone(), pinned: None };
    Connection::open(&target, PATIENCE).await.expect("a connection")
}

/// Starts the server and reads its address from what it says.
async fn serve(world: &World, key: &TaskKey, arguments: &[&str]) -> (Child, SocketAddr) {
    let mut command = world.agent(&[&["serve"], arguments].concat());
    command.env(task::SSH_PUBLIC_KEY, key.public_openssh()).env(task::LISTEN, "127.0.0.1:0");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the agent");
    let mut lines = BufReader::new(child.stderr.take().expect("it was piped")).lines();
    let line = lines.next_line().await.expect("text").expect("a line");
    let address = line.split_once("address=").unwrap_or_else(|| panic!("no address in {line:?}")).1;
    // Read on, or the agent would block one day.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address.trim().parse().expect("an address"))
}

#[tokio::test]
async fn the_agents_server_takes_one_job_runs_it_and_ends() {
    let world = World::new(&PATIENT).await;
    let key = key();
    let (agent, address) = serve(&world, &key, &[]).await;

    let first = connect(address, &key, "staffetta").await;
    assert!(matches!(first.status().await, Ok(Some(AgentStatus::Idle))));
    assert_eq!(first.hand_over(&message(&world), &no_agents()).await.expect("an answer"), Receipt::Accepted);
    first.close().await;
    world.gitlab.shows("script began").await;

    let second = connect(address, &key, "staffetta").await;
    let again = second.hand_over(&message(&world), &no_agents()).await.expect("an answer");
    assert_eq!(again, Receipt::Busy { job: JobId(7) });
    let Ok(Some(AgentStatus::Running { job, remaining_seconds, .. })) = second.status().await else {
        panic!("it runs")
    };
    assert!(job == JobId(7) && (500..=600).contains(&remaining_seconds), "{remaining_seconds}");
    drop(second);

    std::fs::write(world.project().join("go"), "").expect("a file");
    world.end_of(agent).await.succeeded();
}

#[tokio::test]
async fn a_message_that_is_no_job_leaves_the_place_free() {
    let mut world = World::new(&["true"]).await;
    let key = key();
    let (agent, address) = serve(&world, &key, &[]).await;
    let connection = connect(address, &key, "staffetta").await;
    let good = message(&world);
    world.payload["id"] = json!(0);
    let refused = connection.hand_over(&message(&world), &no_agents()).await.expect("an answer");
    assert!(matches!(refused, Receipt::Refused { .. }), "{refused:?}");
    assert_eq!(connection.hand_over(&good, &no_agents()).await.expect("an answer"), Receipt::Accepted);
    world.end_of(agent).await.succeeded();
}

#[tokio::test]
async fn an_agent_that_gets_no_job_ends_by_itself() {
    let world = World::new(&[]).await;
    let (mut agent, _) = serve(&world, &key(), &["--idle-timeout", "0"]).await;
    let exit = tokio::time::timeout(PATIENCE, agent.wait()).await.expect("an end").expect("a process");
    assert!(!exit.success());
}

#[tokio::test]
async fn a_script_that_kills_the_agent_leaves_nothing_hanging() {
    let world = World::new(&["echo $$ > pid", "kill -9 $PPID", "sleep 600"]).await;
    let ended = world.run().await;
    assert!(!ended.exit.success());
    assert!(world.gitlab.last().is_none());
    let script = read(world.project().join("pid"));
    // As in a container, where the end of the first process ends all others.
    let _ = killpg(Pid::from_raw(script.trim().parse().expect("a pid")), Signal::SIGKILL);
}

/// Runs `hand-over` as sshd would, with the state in the world's own directory.
async fn hand_over(world: &World) -> Receipt {
    let mut child =
        world.agent(&["hand-over"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the agent");
    let mut input = child.stdin.take().expect("it was piped");
    input.write_all(world.hand_over().to_string().as_bytes()).await.expect("the agent reads");
    drop(input);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("an answer").expect("a process");
    serde_json::from_slice(&output.stdout).expect("a receipt")
}

async fn status(world: &World) -> AgentStatus {
    let output = world.agent(&["status"]).output().await.expect("the agent");
    serde_json::from_slice(&output.stdout).expect("a status")
}

async fn until_finished(world: &World) {
    let finished = async {
        while !matches!(status(world).await, AgentStatus::Finished { .. }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, finished).await.expect("an end in time");
}

#[tokio::test]
async fn a_container_takes_one_job_ever() {
    let world = World::new(&PATIENT).await;
    assert!(matches!(status(&world).await, AgentStatus::Idle));
    assert_eq!(hand_over(&world).await, Receipt::Accepted);
    assert_eq!(hand_over(&world).await, Receipt::Busy { job: JobId(7) });
    world.gitlab.shows("script began").await;
    assert!(matches!(status(&world).await, AgentStatus::Running { job: JobId(7), .. }));
    std::fs::write(world.project().join("go"), "").expect("a file");
    until_finished(&world).await;
    assert_eq!(world.gitlab.last().expect("a final state").state, "success");
    assert_eq!(hand_over(&world).await, Receipt::Busy { job: JobId(7) });
}

#[tokio::test]
async fn two_hand_overs_at_once_start_one_job() {
    let world = World::new(&["echo x >> starts"]).await;
    let (one, two) = tokio::join!(hand_over(&world), hand_over(&world));
    let accepted = [&one, &two].into_iter().filter(|receipt| **receipt == Receipt::Accepted).count();
    assert_eq!(accepted, 1, "{one:?} {two:?}");
    until_finished(&world).await;
    assert_eq!(read(world.project().join("starts")), "x\n");
}

#[tokio::test]
async fn a_job_whose_agent_was_killed_is_nobodys() {
    let world = World::new(&["echo $$ > pid", "kill -9 $PPID; sleep 600"]).await;
    assert_eq!(hand_over(&world).await, Receipt::Accepted);
    let idle = async {
        while !matches!(status(&world).await, AgentStatus::Idle) || !world.project().join("pid").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.expect("an end in time");
    gone(&read(world.project().join("pid"))).await;
    assert!(world.gitlab.last().is_none(), "nobody was left to tell GitLab");
}

#[tokio::test]
async fn a_job_that_came_through_openssh_outlives_the_connection_and_ends_the_container() {
    let world = World::new(&[&PATIENT[..], &["echo \"role: $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI\""]].concat()).await;
    let key = key();
    let (mut sshd, address) = start_sshd(&world, &key).await;
    let connection = connect(address, &key, &user()).await;
    assert_eq!(connection.hand_over(&message(&world), &no_agents()).await.expect("an answer"), Receipt::Accepted);
    drop(connection);
    world.gitlab.shows("script began").await;
    let connection = connect(address, &key, &user()).await;
    assert!(matches!(connection.status().await, Ok(Some(AgentStatus::Running { job: JobId(7), .. }))));
    drop(connection);
    std::fs::write(world.project().join("go"), "").expect("a file");
    tokio::time::timeout(PATIENCE, sshd.wait()).await.expect("the end of the container").expect("a process");
    assert_eq!(world.gitlab.last().expect("a final state").state, "success");
    assert!(world.gitlab.trace().contains("role: /v2/credentials/of-the-task\n"), "{}", world.gitlab.trace());
}

fn user() -> String {
    let output = std::process::Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

/// An sshd below a first process that waits for it, as images start it.
async fn start_sshd(world: &World, key: &TaskKey) -> (Child, SocketAddr) {
    let (home, bin) = (world.place("home"), world.place("bin"));
    std::fs::create_dir(&bin).expect("a directory");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_staffetta-agent"), bin.join("staffetta-agent")).expect("a link");
    std::fs::write(world.place("authorized_keys"), key.public_openssh() + "\n").expect("a file");
    let host_key = world.place("host_key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key).status().await;
    assert!(made.expect("ssh-keygen").success());
    if user() == "root" {
        std::fs::create_dir_all("/run/sshd").expect("where sshd locks up its unprivileged half");
    }
    let (home, bin, temporary) = (home.display(), bin.display(), world.place("").display().to_string());
    // Somebody else may take the port between its choice and its use.
    for _ in 0..5 {
        let address =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
             PermitRootLogin prohibit-password\nSetEnv HOME={home} TMPDIR={temporary} PATH={bin}:/usr/local/bin:/usr/bin:/bin\n",
            address.port(),
            host_key.display(),
            world.place("authorized_keys").display(),
        );
        std::fs::write(world.place("sshd_config"), config).expect("a file");
        let mut first = Command::new("/bin/sh");
        first.args(["-c", "/usr/sbin/sshd -D -e -f \"$1\"; exit 0", "entrypoint"]).arg(world.place("sshd_config"));
        first.env(job::task::JOB, "7");
        first.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/of-the-task");
        let log = std::fs::File::create(world.place("sshd.log")).expect("a file");
        let mut first =
            first.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn().expect("a shell");
        let target = Target { addr: address, user: user(), key: key.clone(), pinned: None };
        loop {
            match Connection::open(&target, PATIENCE).await {
                Ok(connection) => {
                    connection.close().await;
                    return (first, address);
                }
                Err(error) if error.may_pass() && first.try_wait().expect("a process").is_none() => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(_) => break,
            }
        }
    }
    panic!("sshd does not start: {}", read(world.place("sshd.log")));
}
