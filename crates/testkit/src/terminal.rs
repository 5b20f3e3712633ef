//! `staffetta` on a terminal of its own, as a person runs it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{PATIENCE, eventually, program};

pub struct Terminal {
    child: Child,
    /// Our end, and theirs, which is kept so that the terminal outlives the program.
    ours: File,
    theirs: OwnedFd,
    shown: String,
    seen: usize,
    more: mpsc::UnboundedReceiver<String>,
}

impl Terminal {
    /// With no variables at all: what is not in the arguments is asked for.
    pub fn start(arguments: &[OsString]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// With these variables and no others.
    pub fn start_with(arguments: &[OsString], variables: &[(&str, &str)]) -> Self {
        let pair = openpty(None, None).expect("a terminal");
        let end = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        let child = Command::new(program("staffetta"))
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .kill_on_drop(true)
            .spawn()
            .expect("staffetta starts");
        let ours = File::from(pair.master);
        let (send, more) = mpsc::unbounded_channel();
        let mut reader = ours.try_clone().expect("a descriptor");
        // Ends with the terminal: then reading fails.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if send.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, ours, theirs: pair.slave, shown: String::new(), seen: 0, more }
    }

    /// Waits until the terminal shows this text, beyond what was waited for before.
    pub async fn until(&mut self, text: &str) {
        loop {
            if let Some(at) = self.shown[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            let more = timeout(PATIENCE, self.more.recv()).await.ok().flatten();
            self.shown += &more.unwrap_or_else(|| panic!("in vain: waited for {text:?} in\n{}", self.shown));
        }
    }

    /// Waits until the terminal shows what is typed, or does not.
    pub async fn until_echo(&self, echo: bool) {
        let is = || tcgetattr(&self.theirs).expect("settings").local_flags.contains(LocalFlags::ECHO);
        eventually("the echo of the terminal", || is() == echo).await;
    }

    pub fn answer(&mut self, line: &str) {
        self.ours.write_all(format!("{line}\n").as_bytes()).expect("it listens");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().expect("it runs").cast_signed()), signal).expect("a signal");
    }

    /// The exit code, and everything that the terminal showed.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status");
        drop(self.theirs);
        while let Some(more) = self.more.recv().await {
            self.shown += &more;
        }
        (status.code(), self.shown)
    }
}
