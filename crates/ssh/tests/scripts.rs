//! Scripts through a real OpenSSH server, and through one that misbehaves.

#[path = "support/sshd.rs"]
mod sshd;
mod support;

use std::fs;
use std::future::{Future, pending};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use job::secret::ExposeSecret;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Error};
use sha2::{Digest, Sha256};
use ssh::client::{Connection, ScriptEnd, ScriptError, Target, script_shell};
use sshd::{Sshd, until};
use support::{PATIENCE, key, target};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, BufReader, DuplexStream, duplex, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The end of a script, and its two outputs.
async fn run(connection: &Connection, script: &str) -> (ScriptEnd, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = start(connection, script, &mut stdout, &mut stderr, pending(), PATIENCE).await.expect("an end");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (end, text(stdout), text(stderr))
}

async fn start(
    connection: &Connection,
    script: &str,
    stdout: impl AsyncWrite + Unpin,
    stderr: impl AsyncWrite + Unpin,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<ScriptEnd, ScriptError> {
    connection.run_script(&script_shell(), script.to_owned().into(), stdout, stderr, stop, grace).await
}

/// What a script prints first: the id of its shell's process, and so whether it is still there.
async fn process_of(output: &mut BufReader<DuplexStream>) -> PathBuf {
    let mut line = String::new();
    output.read_line(&mut line).await.expect("a line");
    Path::new("/proc").join(line.trim())
}

#[tokio::test]
async fn a_script_has_its_output_as_it_comes_and_its_own_exit_status() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    for status in [0, 1, 126, 127, 137, 255] {
        let (end, stdout, stderr) = run(&connection, &format!("echo out; echo error >&2; exit {status}")).await;
        assert_eq!((end, &*stdout, &*stderr), (ScriptEnd::Exited(status), "out\n", "error\n"));
    }
    let (end, ..) = run(&connection, "kill -KILL $$").await;
    assert_eq!(end, ScriptEnd::Killed("KILL".into()));

    let (ours, theirs) = duplex(1024);
    let mut output = BufReader::new(ours);
    let script = r#"echo one; until [ -e "$HOME/go" ]; do sleep 0.01; done; echo two"#;
    let (end, ()) = tokio::join!(start(&connection, script, theirs, sink(), pending(), PATIENCE), async {
        let mut line = String::new();
        output.read_line(&mut line).await.expect("a line");
        assert_eq!(line, "one\n");
        fs::write(sshd.home("go"), "").expect("a file");
    });
    assert_eq!(end.expect("an end"), ScriptEnd::Exited(0));
}

#[tokio::test]
async fn a_script_is_read_from_the_input_of_a_login_shell_and_stands_on_no_command_line() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    fs::write(sshd.home(".bash_profile"), "PATH=/of/the/profile:$PATH\n").expect("a file");
    let filling = "# filling\n".repeat(300_000);
    let script = format!("{filling}tr '\\000' ' ' < /proc/$$/cmdline\necho \"${{PATH%%:*}} $#\"\n");
    let (end, stdout, stderr) = run(&connection, &script).await;
    assert_eq!((end, &*stdout, &*stderr), (ScriptEnd::Exited(0), "bash --login /of/the/profile 0\n", ""));
}

#[tokio::test]
async fn an_image_without_bash_has_its_sh() {
    let sshd = Sshd::start_with("", &[]).await;
    for program in ["sh", "tr", "id"] {
        symlink(Path::new("/usr/bin").join(program), sshd.directory.path().join("bin").join(program)).expect("a link");
    }
    fs::write(sshd.home(".profile"), "PROFILE=read\n").expect("a file");
    let script = "echo \"$PROFILE ${BASH_VERSION-no bash}\"; exit 3";
    let (end, stdout, stderr) = run(&sshd.connect().await, script).await;
    assert_eq!((end, &*stdout, &*stderr), (ScriptEnd::Exited(3), "read no bash\n", ""));
}

/// What a shell would do with it, if one ever read it as its own.
const HOSTILE: &str = " a'b\"c $HOME `id` $(id) \\ * ; exit 9 #\u{e9} ";

#[tokio::test]
async fn a_script_knows_the_tasks_role_and_its_values_are_only_values() {
    let environment = [
        ("STAFFETTA_JOB", "7"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", HOSTILE),
        ("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x"),
        ("AWS_EMPTY", ""),
        ("AWS_$(id)", "a name that no shell has"),
        ("TWO_LINES", "first\nAWS_SECOND=line"),
        ("DATABASE_PASSWORD", "of another program"),
    ];
    let sshd = Sshd::start_with("/usr/local/bin:/usr/bin:/bin", &environment).await;
    let script = r#"printf '%s|' "$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" "$ECS_CONTAINER_METADATA_URI_V4" \
        "${AWS_EMPTY-unset}" "${AWS_SECOND-unset}" "${DATABASE_PASSWORD-unset}"; env | grep -c '^AWS_\$'"#;
    let (_, stdout, stderr) = run(&sshd.connect().await, script).await;
    assert_eq!(stdout, format!("{HOSTILE}|http://169.254.170.2/v4/x||unset|unset|0\n"));
    assert_eq!(stderr, "");
}

#[tokio::test]
async fn what_the_session_has_is_kept_and_other_peoples_credentials_stay_theirs() {
    let path = "/usr/local/bin:/usr/bin:/bin AWS_REGION=of-the-session";
    let of_the_task = [("STAFFETTA_JOB", "7"), ("AWS_REGION", "of-the-task"), ("AWS_PAGER", "of-the-task")];
    let script = r#"echo "${AWS_REGION-unset} ${AWS_PAGER-unset}""#;
    let sshd = Sshd::start_with(path, &of_the_task).await;
    assert_eq!(run(&sshd.connect().await, script).await.1, "of-the-session of-the-task\n");

    let of_a_developer = [("AWS_REGION", "of-the-developer"), ("AWS_PAGER", "STAFFETTA_JOB=7")];
    let sshd = Sshd::start_with("/usr/local/bin:/usr/bin:/bin", &of_a_developer).await;
    assert_eq!(run(&sshd.connect().await, script).await.1, "unset unset\n");
}

/// Reads to the end with pauses, as a busy runner does; gives the count and the sum.
async fn read_slowly(mut output: DuplexStream) -> (usize, [u8; 32]) {
    let (mut bytes, mut sum) = (0, Sha256::new());
    let mut piece = vec![0; 1024 * 1024];
    loop {
        let read = output.read(&mut piece).await.expect("output");
        if read == 0 {
            return (bytes, sum.finalize().into());
        }
        sum.update(&piece[..read]);
        if (bytes + read) / 1_000_000 > bytes / 1_000_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bytes += read;
    }
}

/// What `seq 1 $last` prints.
fn sequence(last: usize) -> (usize, [u8; 32]) {
    let (mut bytes, mut sum) = (0, Sha256::new());
    let mut piece = String::new();
    for number in 1..=last {
        piece.push_str(&format!("{number}\n"));
        if piece.len() > 64 * 1024 || number == last {
            bytes += piece.len();
            sum.update(piece.as_bytes());
            piece.clear();
        }
    }
    (bytes, sum.finalize().into())
}

/// The most that this process ever had in memory.
fn peak_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_hundred_megabytes_reach_a_slow_reader_whole_and_are_not_kept_in_memory() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    let (ours, theirs) = duplex(64 * 1024);
    let before = peak_kilobytes();
    let script = "seq 1 12500000; exit 5";
    let (end, read) = tokio::join!(start(&connection, script, theirs, sink(), pending(), PATIENCE), read_slowly(ours));
    let grown = peak_kilobytes() - before;
    assert_eq!(end.expect("an end"), ScriptEnd::Exited(5));
    assert!(read == sequence(12_500_000) && read.0 > 100_000_000, "{} bytes", read.0);
    // The other tests of this program are in it too.
    assert!(grown < 32_000, "{grown} kB more than before");
}

#[tokio::test]
async fn processes_that_a_script_leaves_behind_are_not_waited_for_and_its_own_output_is_whole() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    // The child lives as long as the test's folder, and holds both outputs.
    let silent = "(while [ -d \"$HOME\" ]; do sleep 0.01; done) &\nseq 1 1000000; exit 7";
    let (ours, theirs) = duplex(64 * 1024);
    let (end, read) = tokio::join!(start(&connection, silent, theirs, sink(), pending(), PATIENCE), read_slowly(ours));
    assert_eq!(end.expect("an end"), ScriptEnd::Exited(7));
    assert_eq!(read, sequence(1_000_000));

    // It ends when nobody reads it any more.
    let (end, stdout, noise) = run(&connection, "yes noise >&2 & echo said; exit 8").await;
    assert_eq!((end, &*stdout), (ScriptEnd::Exited(8), "said\n"));
    assert!(noise.len() < 50_000_000, "{} bytes of others' output", noise.len());

    // What a script's own filter prints late is the script's output too.
    let (end, stdout, _) = run(&connection, "exec > >(sleep 0.1; sed s/a/b/)\necho a").await;
    assert_eq!((end, &*stdout), (ScriptEnd::Exited(0), "b\n"));
}

#[tokio::test]
async fn a_stop_ends_the_script_and_what_it_runs_and_is_heard_to_its_last_word() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    let (ours, theirs) = duplex(1024);
    let mut output = BufReader::new(ours);
    let (stop, stopped) = oneshot::channel();
    let script = "trap 'echo bye; exit 9' TERM; echo $$; sleep 1000; echo never";
    let (end, process) = tokio::join!(
        start(&connection, script, theirs, sink(), async { stopped.await.expect("a stop") }, PATIENCE),
        async {
            let process = process_of(&mut output).await;
            assert!(process.exists());
            stop.send(()).expect("a script");
            let mut rest = String::new();
            output.read_to_string(&mut rest).await.expect("the rest");
            assert!(rest.ends_with("bye\n") && !rest.contains("never"), "{rest:?}");
            process
        }
    );
    assert_eq!(end.expect("an end"), ScriptEnd::Stopped);
    assert!(!process.exists());
}

#[tokio::test]
async fn a_script_that_ignores_sigterm_is_killed() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    let (ours, theirs) = duplex(1024);
    let mut output = BufReader::new(ours);
    let (stop, stopped) = oneshot::channel();
    let script = "trap '' TERM; echo $$; while :; do sleep 0.01; done";
    let grace = Duration::from_millis(200);
    let (end, process) = tokio::join!(
        start(&connection, script, theirs, sink(), async { stopped.await.expect("a stop") }, grace),
        async {
            let process = process_of(&mut output).await;
            stop.send(()).expect("a script");
            process
        }
    );
    assert_eq!(end.expect("an end"), ScriptEnd::Stopped);
    assert!(!process.exists());
}

#[tokio::test]
async fn a_stop_before_the_start_starts_nothing() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    let end = start(&connection, "touch \"$HOME/started\"", sink(), sink(), async {}, PATIENCE).await;
    assert_eq!(end.expect("an end"), ScriptEnd::Stopped);
    run(&connection, "true").await;
    assert!(!sshd.home("started").exists());
}

#[tokio::test]
async fn a_reader_that_takes_nothing_does_not_prevent_a_stop() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    let (ours, theirs) = duplex(1024);
    let mut output = BufReader::with_capacity(16, ours);
    let (stop, stopped) = oneshot::channel();
    let script = "trap '' TERM; echo $$; yes";
    let grace = Duration::from_secs(2);
    let (end, process) = tokio::join!(
        start(&connection, script, theirs, sink(), async { stopped.await.expect("a stop") }, grace),
        async {
            let process = process_of(&mut output).await;
            stop.send(()).expect("a script");
            process
        }
    );
    assert_eq!(end.expect("an end"), ScriptEnd::Stopped);
    assert!(!process.exists());
    drop(output);
}

#[tokio::test]
async fn a_script_whose_reader_is_gone_is_ended() {
    let sshd = Sshd::start().await;
    let connection = sshd.connect().await;
    let (ours, theirs) = duplex(1024);
    let mut output = BufReader::new(ours);
    let script = "echo $$; while :; do echo more; sleep 0.01; done";
    let (end, process) = tokio::join!(start(&connection, script, theirs, sink(), pending(), PATIENCE), async move {
        process_of(&mut output).await
    });
    assert!(matches!(end, Err(ScriptError::Unheard(_))), "{end:?}");
    until("the end of the script", || !process.exists()).await;
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_of_a_script_is_lost_and_no_exit_status() {
    let sshd = Sshd::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let wire = Target { addr: listener.local_addr().expect("an address"), ..sshd.target.clone() };
    let (cut, cutting) = oneshot::channel();
    let server = sshd.target.addr;
    let relay = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut server = TcpStream::connect(server).await.expect("sshd");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            _ = cutting => {}
        }
    });
    let connection = Connection::open(&wire, PATIENCE).await.expect("a connection");
    let (ours, theirs) = duplex(1024);
    let mut output = BufReader::new(ours);
    // Ends with the test's folder.
    let script = "echo $$; while [ -d \"$HOME\" ]; do sleep 0.01; done";
    let (end, ()) = tokio::join!(start(&connection, script, theirs, sink(), pending(), PATIENCE), async {
        process_of(&mut output).await;
        cut.send(()).expect("a relay");
    });
    assert!(matches!(end, Err(ScriptError::Lost(_))), "{end:?}");
    relay.await.expect("the relay");

    let again = start(&connection, "true", sink(), sink(), pending(), PATIENCE).await;
    assert!(matches!(again, Err(ScriptError::NotStarted(_))), "{again:?}");
}

/// A server that lets everybody in, and answers to a command by what it does.
#[derive(Clone, Copy)]
enum Strange {
    RefusesCommands,
    ClosesTheChannel,
    IsSilent,
}

impl Handler for Strange {
    type Error = Error;

    async fn auth_publickey(&mut self, _user: &str, _key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, channel: ChannelId, _line: &[u8], session: &mut Session) -> Result<(), Error> {
        match self {
            Self::RefusesCommands => session.channel_failure(channel),
            Self::ClosesTheChannel => session.close(channel),
            Self::IsSilent => pending().await,
        }
    }
}

async fn end_of_a_script_at(strange: Strange) -> Result<ScriptEnd, ScriptError> {
    let (ours, theirs) = duplex(64 * 1024);
    let host_key =
        russh::keys::PrivateKey::from_openssh(ssh::keys::TaskKey::random().to_openssh().expose_secret().as_bytes())
            .expect("a key");
    let config = russh::server::Config { keys: vec![host_key], ..Default::default() };
    tokio::spawn(async move {
        if let Ok(session) = russh::server::run_stream(Arc::new(config), theirs, strange).await {
            let _ = session.await;
        }
    });
    let nowhere = target("127.0.0.1:1".parse().expect("an address"), "root", &key());
    let connection = Connection::over_any(ours, &nowhere, PATIENCE).await.expect("a connection");
    start(&connection, "true", sink(), sink(), pending(), PATIENCE).await
}

#[tokio::test]
async fn a_server_that_runs_no_commands_starts_nothing() {
    let end = end_of_a_script_at(Strange::RefusesCommands).await;
    assert!(matches!(end, Err(ScriptError::NotStarted(_))), "{end:?}");
}

#[tokio::test]
async fn an_end_without_a_status_is_no_end() {
    let end = end_of_a_script_at(Strange::ClosesTheChannel).await;
    assert!(matches!(end, Err(ScriptError::Lost(_))), "{end:?}");
}

/// In memory, so the clock may be put forward.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_for_a_minute_is_lost() {
    let begin = tokio::time::Instant::now();
    let end = end_of_a_script_at(Strange::IsSilent).await;
    assert!(matches!(&end, Err(ScriptError::Lost(reason)) if reason.contains("does not answer")), "{end:?}");
    assert_eq!(begin.elapsed().as_secs(), 60);
}
