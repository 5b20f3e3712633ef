//! The manager as a process of its own, as users run it: for signals, and for deaths that a library cannot die.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{PATIENCE, program};

pub struct ManagerProcess {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    log: String,
}

impl ManagerProcess {
    pub fn start(config: &Path) -> Self {
        let mut command = Command::new(program("staffetta"));
        command.args(["run", "--config"]).arg(config);
        Self::of(command)
    }

    /// The same, started by another command.
    pub fn of(mut command: Command) -> Self {
        let mut child = command
            .env("AWS_ACCESS_KEY_ID", "manager")
            .env("AWS_SECRET_ACCESS_KEY", "made-up")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the manager starts");
        let (send, lines) = mpsc::unbounded_channel();
        let stderr = child.stderr.take().expect("a pipe");
        tokio::spawn(async move {
            let mut stderr = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = stderr.next_line().await {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, log: String::new() }
    }

    /// Waits until the manager's own log has a line with this text, and gives that line.
    pub async fn until_log(&mut self, text: &str) -> String {
        let said = timeout(PATIENCE, async {
            while let Some(line) = self.lines.recv().await {
                self.log += &format!("{line}\n");
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        });
        let line = said.await.ok().flatten();
        line.unwrap_or_else(|| panic!("the manager never said {text:?}:\n{}", self.log))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("the manager lives").cast_signed())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("a signal");
    }

    /// What it said until its end, and how it ended.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the manager ends").expect("a status");
        while let Some(line) = self.lines.recv().await {
            self.log += &format!("{line}\n");
        }
        (status, self.log)
    }
}
