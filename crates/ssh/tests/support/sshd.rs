//! A real OpenSSH server, as an image starts it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ssh::client::{Connection, Target};
use tempfile::TempDir;

use crate::support::{PATIENCE, key, target};

const SSHD: &str = "/usr/sbin/sshd";

/// An sshd below a first process, both in a process group of their own. Its sessions have a home of their own, and `bin`
/// first in their PATH.
pub struct Sshd {
    process: Child,
    pub target: Target,
    pub directory: TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        let _ = self.process.wait();
    }
}

impl Sshd {
    pub async fn start() -> Self {
        Self::start_with("/usr/local/bin:/usr/bin:/bin", &[]).await
    }

    /// `path` is the rest of the sessions' PATH; the container's first process has `environment`.
    pub async fn start_with(path: &str, environment: &[(&str, &str)]) -> Self {
        assert!(Path::new(SSHD).exists(), "{SSHD} is missing: apt-get install -y openssh-server");
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("home")).expect("a home");
        fs::create_dir(at("bin")).expect("a directory for programs");
        let key = key();
        fs::write(at("authorized_keys"), key.public_openssh() + "\n").expect("a file");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at("host_key")).status();
        assert!(made.expect("ssh-keygen").success());
        let user = user();
        if user == "root" {
            // Where sshd locks up its unprivileged half; on Debian the service's start makes it.
            fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        // Somebody else may take the port between its choice and its use.
        for _ in 0..5 {
            let addr = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let target = target(addr.expect("a port"), &user, &key);
            let mut process = spawn(directory.path(), target.addr.port(), path, environment);
            if is_ready(&mut process, &target).await {
                return Self { process, target, directory };
            }
            process.wait().expect("the end of sshd");
        }
        panic!("sshd does not start: {}", fs::read_to_string(at("log")).unwrap_or_default());
    }

    pub async fn connect(&self) -> Connection {
        Connection::open(&self.target, PATIENCE).await.expect("a connection")
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.directory.path().join("home").join(name)
    }
}

fn spawn(directory: &Path, port: u16, path: &str, environment: &[(&str, &str)]) -> Child {
    let here = directory.display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host_key\nPidFile none\nAuthorizedKeysFile {here}/authorized_keys\n\
         StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n\
         SetEnv HOME={here}/home PATH={here}/bin:{path}\n"
    );
    fs::write(directory.join("config"), config).expect("a file");
    let log = fs::File::create(directory.join("log")).expect("a file");
    let mut first = Command::new("sh");
    // It outlives sshd, and so leaves nothing for others to clean up.
    first.args(["-c", "trap : TERM; \"$@\"; exit", "sh", SSHD, "-D", "-e", "-f"]).arg(directory.join("config"));
    first.envs(environment.iter().copied()).process_group(0);
    first.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("sshd")
}

/// Waits as a manager does; false if sshd ended.
async fn is_ready(sshd: &mut Child, target: &Target) -> bool {
    loop {
        match Connection::open(target, PATIENCE).await {
            Ok(connection) => {
                connection.close().await;
                return true;
            }
            Err(error) if error.may_pass() && sshd.try_wait().expect("a process").is_none() => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => return false,
        }
    }
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
