//! Questions on the terminal. They go to standard error: standard output is for results.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::{Context, anyhow};
use job::secret::SecretString;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// Nobody can be asked where standard input is no terminal.
pub fn is_possible() -> bool {
    io::stdin().is_terminal()
}

/// Asks until there is an answer; an empty one takes the default.
pub async fn text(question: &str, default: Option<&str>) -> anyhow::Result<String> {
    loop {
        match default {
            Some(default) => eprint!("{question} [{default}]: "),
            None => eprint!("{question}: "),
        }
        let answer = line().await?;
        match (answer.is_empty(), default) {
            (false, _) => return Ok(answer),
            (true, Some(default)) => return Ok(default.to_owned()),
            (true, None) => {}
        }
    }
}

/// Asks once; nothing is an answer.
pub async fn optional(question: &str) -> anyhow::Result<String> {
    eprint!("{question}: ");
    line().await
}

/// Asks until there is an answer, which the terminal does not show.
pub async fn secret(question: &str) -> anyhow::Result<SecretString> {
    loop {
        // Before the question: whoever sees it may type.
        let quiet = Quiet::start()?;
        eprint!("{question}: ");
        let answer = line().await;
        drop(quiet);
        eprintln!();
        let answer = answer?;
        if !answer.is_empty() {
            return Ok(answer.into());
        }
    }
}

/// A thread of its own waits for the line: whoever gives up asking need not wait for it.
async fn line() -> anyhow::Result<String> {
    io::stderr().flush()?;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|length| (length, line))
    });
    let (length, line) = read.await?.context("cannot read the answer")?;
    if length == 0 {
        return Err(anyhow!("the input ended before all was answered"));
    }
    Ok(line.trim().to_owned())
}

/// The terminal shows nothing of what is typed, until dropped.
struct Quiet(Termios);

impl Quiet {
    fn start() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd()).context("cannot hide what is typed")?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &quiet).context("cannot hide what is typed")?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}
