//! Sends the agent into a task whose image does not have it.
//!
//! Needs of the image only what every one with an sshd has: a POSIX shell and `cat`, `chmod`, `mkdir`,
//! `mv`, `rm`, `uname`, `wc`. The sum of what arrived is checked where there is a `sha256sum`, its size everywhere.

use std::path::{Path, PathBuf};
use std::{env, io};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::remote_shell::posix;
use super::{CallError, Connection, Output};
use crate::protocol::{AGENT, Command};

/// Directories of our own, so that neither a job's checkout nor its cache is touched; the first one
/// that can be written to and executed from is used.
const DIRECTORIES: &str = r#""${HOME:-/root}/.staffetta" /var/lib/staffetta /var/tmp/.staffetta /dev/shm/.staffetta"#;

/// Prints `machine ARCHITECTURE`, then `SIZE SUM PATH` of every agent that was delivered before; `-` for an unknown sum.
/// A file of another user is not ours, whatever its name.
const LOOK: &str = r#"echo "machine $(uname -m)"
for f in FILES; do
  [ -f "$f" ] && [ -x "$f" ] && [ -O "$f" ] || continue
  if command -v sha256sum >/dev/null 2>&1; then sum=$(sha256sum < "$f"); else sum=-; fi
  echo $(wc -c < "$f") "${sum%% *}" "$f"
done"#;

/// Takes the agent on its input: `$1` is its size, `$2` its sum. Prints its path.
/// It is run from where it is written to, since a mount may forbid that; it gets its name when it is whole.
const RECEIVE: &str = r##"umask 077
for d in DIRECTORIES; do
  mkdir -p "$d" 2>/dev/null && [ -O "$d" ] || continue
  t="$d/.new.$$"
  { printf "#!/bin/sh\n" > "$t" && chmod 700 "$t" && "$t"; } 2>/dev/null || { rm -f "$t"; continue; }
  trap "rm -f \"$t\"" EXIT
  cat > "$t" || exit 1
  [ $(wc -c < "$t") -eq "$1" ] || { echo "the agent arrived incomplete" >&2; exit 1; }
  if command -v sha256sum >/dev/null 2>&1; then
    sum=$(sha256sum < "$t")
    [ "${sum%% *}" = "$2" ] || { echo "the agent arrived damaged" >&2; exit 1; }
  fi
  mv -f "$t" "$d/AGENT" && echo "$d/AGENT"
  exit
done
exit 3"##;

/// The status of [`RECEIVE`] when no directory can be used.
const NO_DIRECTORY: u32 = 3;

/// The architectures that Fargate has, as `uname -m` says them.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// The agents on this machine: `staffetta-agent-x86_64` and `staffetta-agent-aarch64`, or
/// `staffetta-agent` for this machine's own architecture. Each is read once, when a task first needs it.
#[derive(Debug)]
pub struct AgentBinaries {
    directory: PathBuf,
    read: [OnceCell<Binary>; ARCHITECTURES.len()],
}

#[derive(Debug, Clone)]
struct Binary {
    bytes: Bytes,
    /// SHA-256 in hexadecimal digits.
    sum: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("there is no agent for the architecture {0}")]
    Architecture(String),
    #[error("the agent for {architecture} is not in {}: {error}", directory.display())]
    Missing { architecture: &'static str, directory: PathBuf, error: io::Error },
}

pub(super) enum DeliveryError {
    /// Another try may succeed.
    Connection(String),
    /// It will not.
    Impossible(String),
}

impl AgentBinaries {
    /// Those in the directory of the running program.
    pub fn beside_this_program() -> io::Result<Self> {
        let program = env::current_exe()?;
        Ok(Self::in_directory(program.parent().unwrap_or(Path::new("/"))))
    }

    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), read: Default::default() }
    }

    async fn find(&self, architecture: &str) -> Result<&Binary, BinaryError> {
        let index = ARCHITECTURES.iter().position(|known| *known == architecture);
        let index = index.ok_or_else(|| BinaryError::Architecture(architecture.to_owned()))?;
        self.read[index].get_or_try_init(|| self.read(ARCHITECTURES[index])).await
    }

    async fn read(&self, architecture: &'static str) -> Result<Binary, BinaryError> {
        let mut read = tokio::fs::read(self.directory.join(format!("{AGENT}-{architecture}"))).await;
        if read.is_err() && architecture == env::consts::ARCH {
            read = tokio::fs::read(self.directory.join(AGENT)).await;
        }
        let bytes =
            read.map_err(|error| BinaryError::Missing { architecture, directory: self.directory.clone(), error })?;
        let sum = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Binary { bytes: bytes.into(), sum })
    }
}

impl Connection {
    /// Makes sure that the agent is in the task; returns its path there.
    pub(super) async fn deliver_agent(&self, agents: &AgentBinaries) -> Result<String, DeliveryError> {
        let found = self.exec(&posix(&LOOK.replace("FILES", &delivered_files()), ""), Bytes::new()).await?;
        let found = found.text()?;
        let architecture = found.lines().find_map(|line| line.strip_prefix("machine ")).unwrap_or_default();
        let agent = agents.find(architecture).await.map_err(|error| DeliveryError::Impossible(error.to_string()))?;
        if let Some(path) = found.lines().find_map(|line| delivered_before(line, agent)) {
            return Ok(path.to_owned());
        }

        tracing::debug!(architecture, bytes = agent.bytes.len(), "sending the agent");
        let arguments = format!("{} {}", agent.bytes.len(), agent.sum);
        let script = RECEIVE.replace("DIRECTORIES", DIRECTORIES).replace("AGENT", AGENT);
        let received = self.exec(&posix(&script, &arguments), agent.bytes.clone()).await?;
        if received.status == Some(NO_DIRECTORY) {
            let reason = format!("it can be written to and run from none of {DIRECTORIES}");
            return Err(DeliveryError::Impossible(reason));
        }
        let received = received.text()?;
        // A shell's own greeting may come before it.
        let path = received.lines().rfind(|line| line.starts_with('/') && line.ends_with(AGENT));
        path.map(str::to_owned).ok_or_else(|| DeliveryError::Connection(format!("unexpected answer: {received}")))
    }
}

impl Output {
    fn text(self) -> Result<String, DeliveryError> {
        if self.status != Some(0) {
            return Err(DeliveryError::Connection(self.complaint()));
        }
        String::from_utf8(self.stdout).map_err(|error| DeliveryError::Connection(error.to_string()))
    }
}

impl From<CallError> for DeliveryError {
    fn from(error: CallError) -> Self {
        Self::Connection(error.reason)
    }
}

/// The path in a line of [`LOOK`], if it is this very agent.
fn delivered_before<'a>(line: &'a str, agent: &Binary) -> Option<&'a str> {
    let mut words = line.splitn(3, ' ');
    let (size, sum, path) = (words.next()?, words.next()?, words.next()?);
    let same_size = size.parse() == Ok(agent.bytes.len());
    (same_size && (sum == agent.sum || sum == "-")).then_some(path)
}

/// The command line that calls a delivered agent.
pub(super) fn call(program: &str, command: Command) -> String {
    format!("exec '{}' {}", program.replace('\'', r"'\''"), command.name())
}

/// The command line that calls whichever agent was delivered, of any version.
pub(super) fn call_delivered(command: Command) -> String {
    let script = r#"for f in FILES; do [ -x "$f" ] && [ -O "$f" ] && exec "$f" COMMAND; done; exit 127"#;
    posix(&script.replace("FILES", &delivered_files()).replace("COMMAND", command.name()), "")
}

fn delivered_files() -> String {
    DIRECTORIES.split(' ').map(|directory| format!("{directory}/{AGENT} ")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{self, Stdio};

    use super::*;

    fn agent() -> Binary {
        Binary { bytes: Bytes::from_static(b"12345"), sum: "abc".into() }
    }

    #[test]
    fn only_the_very_same_agent_is_used_again() {
        let agent = agent();
        assert_eq!(
            delivered_before("5 abc /root/.staffetta/staffetta-agent", &agent),
            Some("/root/.staffetta/staffetta-agent")
        );
        assert_eq!(
            delivered_before("5 abc /a home/.staffetta/staffetta-agent", &agent),
            Some("/a home/.staffetta/staffetta-agent")
        );
        assert_eq!(delivered_before("5 - /x", &agent), Some("/x"), "without sha256sum the size decides");
        assert_eq!(delivered_before("5 def /x", &agent), None);
        assert_eq!(delivered_before("6 abc /x", &agent), None);
        assert_eq!(delivered_before("5 abc", &agent), None);
    }

    #[tokio::test]
    async fn an_agent_is_found_by_its_architecture_or_as_this_machines_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str| std::fs::write(directory.path().join(name), name).expect("a file");
        let agents = AgentBinaries::in_directory(directory.path());
        assert!(matches!(agents.find(env::consts::ARCH).await, Err(BinaryError::Missing { .. })));
        assert!(matches!(agents.find("riscv64").await, Err(BinaryError::Architecture(_))));

        write("staffetta-agent");
        let foreign = ARCHITECTURES.into_iter().find(|known| *known != env::consts::ARCH).expect("another one");
        assert_eq!(agents.find(env::consts::ARCH).await.expect("our own").bytes, "staffetta-agent");
        assert!(matches!(agents.find(foreign).await, Err(BinaryError::Missing { .. })));

        write(&format!("staffetta-agent-{foreign}"));
        let found = agents.find(foreign).await.expect("the other one");
        assert_eq!(found.bytes, format!("staffetta-agent-{foreign}"));
        assert_eq!(found.sum.len(), 64);
    }

    #[test]
    fn a_path_with_a_quote_stays_one_word() {
        assert_eq!(call("/it's/staffetta-agent", Command::Status), r"exec '/it'\''s/staffetta-agent' status");
    }

    /// Runs the receiving script here, as a task's shell would.
    fn receive(shell: &str, directories: &str, path: &str, input: &[u8], agent: &Binary) -> std::process::Output {
        let script = RECEIVE.replace("DIRECTORIES", directories).replace("AGENT", AGENT);
        let mut command = process::Command::new(shell);
        command.args(["-c", &script, "sh", &agent.bytes.len().to_string(), &agent.sum]).env("PATH", path);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
        // It may have given up before it read.
        let _ = child.stdin.take().expect("a pipe").write_all(input);
        child.wait_with_output().expect("an end")
    }

    const USUAL_PATH: &str = "/usr/bin:/bin";

    fn hello() -> Binary {
        let sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        Binary { bytes: Bytes::from_static(b"hello\n"), sum: sum.into() }
    }

    fn left_in(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_first_directory_that_can_be_used_is_used() {
        for shell in ["sh", "bash"] {
            let home = tempfile::tempdir().expect("a directory");
            let wanted = home.path().join("a b");
            let directories = format!("/proc/none \"{}\" {}", wanted.display(), home.path().join("later").display());
            let output = receive(shell, &directories, USUAL_PATH, b"hello\n", &hello());
            let path = String::from_utf8(output.stdout).expect("text");
            assert_eq!(path.trim_end(), wanted.join(AGENT).to_str().expect("text"), "{:?}", output.stderr);
            assert_eq!(std::fs::read(path.trim_end()).expect("the agent"), b"hello\n");
            assert_eq!(left_in(home.path()), ["a b"]);
            assert_eq!(left_in(&wanted), [AGENT]);
        }
    }

    #[test]
    fn a_task_without_a_usable_directory_is_told_from_a_lost_connection() {
        let output = receive("sh", "/proc/none", USUAL_PATH, b"hello\n", &hello());
        assert_eq!(output.status.code(), i32::try_from(NO_DIRECTORY).ok());
    }

    #[test]
    fn what_arrives_incomplete_or_damaged_gets_no_name() {
        for (input, complaint) in [(&b"hell"[..], "incomplete"), (b"HELLO\n", "damaged")] {
            let home = tempfile::tempdir().expect("a directory");
            let output = receive("sh", &home.path().display().to_string(), USUAL_PATH, input, &hello());
            assert!(!output.status.success());
            assert!(String::from_utf8_lossy(&output.stderr).contains(complaint));
            assert_eq!(left_in(home.path()), [""; 0]);
        }
    }

    #[test]
    fn an_image_without_sha256sum_is_served_by_size() {
        let home = tempfile::tempdir().expect("a directory");
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        for tool in ["cat", "chmod", "mkdir", "mv", "rm", "wc", "sh"] {
            std::os::unix::fs::symlink(format!("/bin/{tool}"), bin.join(tool)).expect("a link");
        }
        let target = home.path().join("target");
        let output =
            receive("/bin/sh", &target.display().to_string(), bin.to_str().expect("text"), b"HELLO\n", &hello());
        assert!(output.status.success(), "{:?}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(left_in(&target), [AGENT]);
    }
}
