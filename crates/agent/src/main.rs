//! `staffetta-agent`: runs one job inside its task.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent::container::Process;
use agent::detached::{self, State};
use agent::process::Orphans;
use agent::transfer::addresses::Renewals;
use agent::{run, serve};
use anyhow::Context;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Runs one GitLab CI job inside a task, and ends the task.
#[derive(Parser)]
#[command(version, name = "staffetta-agent")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Waits for one job over SSH, runs it, and exits 0 when GitLab knows its outcome.
    #[command(
        after_help = "Example, as the entrypoint of a task's image:\n  staffetta-agent serve --listen 0.0.0.0:22"
    )]
    Serve {
        /// Address of the SSH server; the environment's STAFFETTA_LISTEN goes before it.
        #[arg(long, default_value = "0.0.0.0:22")]
        listen: SocketAddr,
        /// Seconds after which it gives up if no job comes.
        #[arg(long, default_value_t = 900, value_name = "SECONDS")]
        idle_timeout: u64,
        /// The public key that is let in.
        #[arg(long, env = job::task::SSH_PUBLIC_KEY, value_name = "LINE")]
        authorized_key: String,
    },
    /// Runs the job whose hand-over stands at standard input, in the foreground.
    #[command(after_help = "Example:\n  staffetta-agent run < hand-over.json")]
    Run {
        /// The file into which `caches` of the same container puts what it takes.
        #[arg(long, hide = true)]
        renewed_caches: Option<PathBuf>,
    },
    /// Takes the job at standard input, starts it in the background and prints a receipt: one line of JSON.
    #[command(after_help = "Example:\n  ssh task staffetta-agent hand-over < hand-over.json")]
    HandOver,
    /// Prints what this container's job is doing: one line of JSON.
    #[command(after_help = "Example:\n  ssh task staffetta-agent status")]
    Status,
    /// Takes fresh addresses of the job's caches at standard input and prints a receipt: one line of JSON.
    #[command(after_help = "Example:\n  ssh task staffetta-agent caches < addresses.json")]
    Caches,
    /// Runs a job for `hand-over` and ends the container afterwards.
    #[command(hide = true)]
    Keep {
        #[arg(long)]
        state: PathBuf,
        #[arg(long)]
        sshd: Option<Process>,
    },
}

fn main() -> ExitCode {
    // glibc keeps freed memory for each thread apart, so that each keeps room for a part of the log of its own: a megabyte
    // more for a job that prints much, and no faster.
    // SAFETY: a call into the C library before there are threads.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing::Level::INFO)
        .with_target(false)
        .init();
    // Two threads: one may be busy with a job's output while the other talks to GitLab.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(execute(Arguments::parse().command));
    // A read of standard input that never ends must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { listen, idle_timeout, authorized_key } => {
            let listen = match std::env::var(job::task::LISTEN) {
                Ok(address) => address.parse().with_context(|| format!("{}={address}", job::task::LISTEN))?,
                Err(_) => listen,
            };
            let idle_timeout = Duration::from_secs(idle_timeout);
            let orphans = Orphans::adopt().context("cannot adopt orphans")?;
            serve::serve(listen, &authorized_key, idle_timeout, terminated()?, orphans).await?;
        }
        Command::Run { renewed_caches } => {
            let hand_over = ssh::protocol::receive_hand_over(input()?).await?;
            let orphans = Orphans::adopt().context("cannot adopt orphans")?;
            let renewals = renewed_caches.map_or(Renewals::None, Renewals::Written);
            run::run(hand_over, renewals, terminated()?, orphans).await?;
        }
        Command::HandOver => print(&detached::hand_over(&State::of_this_container(), input()?).await)?,
        Command::Status => print(&State::of_this_container().status())?,
        Command::Caches => {
            let caches = ssh::protocol::receive_caches(input()?).await?;
            print(&State::of_this_container().renew_caches(&caches).context("cannot keep the addresses")?)?;
        }
        Command::Keep { state, sshd } => {
            let knows = detached::keep(&State::at(state), sshd).await?;
            anyhow::ensure!(knows, "the job's agent ended before GitLab knew the outcome");
        }
    }
    Ok(())
}

fn input() -> anyhow::Result<tokio::fs::File> {
    let input = std::io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?;
    Ok(tokio::fs::File::from_std(input.into()))
}

fn print(answer: &impl Serialize) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(&ssh::protocol::line_of(answer)?)?)
}

/// Becomes true when this process is told to end: ECS sends SIGTERM, a terminal SIGINT.
fn terminated() -> anyhow::Result<watch::Receiver<bool>> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
        // The value stays readable only as long as its sender.
        sender.closed().await;
    });
    Ok(receiver)
}
