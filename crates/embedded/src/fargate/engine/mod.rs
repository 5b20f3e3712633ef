//! The process engine: starts what a container starts, tells when it has ended, and leaves nothing of it.

mod images;
mod launcher;
mod log;
mod namespaces;
mod process_group;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

pub(super) use images::Image;
pub(super) use log::Log;

use super::EngineMode;
use launcher::Launcher;

/// The engine could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("tasks cannot have namespaces of their own here: {0}")]
    NoNamespaces(io::Error),
    #[error("a root directory for tasks needs namespaces, and they do not work here: {0}")]
    RootNeedsNamespaces(io::Error),
    #[error("the engine cannot start: {0}")]
    Start(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct Engine {
    kind: Kind,
    description: String,
    launcher: Launcher,
}

#[derive(Debug)]
enum Kind {
    Namespaces { views: namespaces::Views, path: String },
    ProcessGroups { agent: PathBuf, path: String },
}

/// One container to be started.
#[derive(Debug)]
pub(super) struct Container {
    pub image: Image,
    /// Entry point and command; empty: the image's own.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub working_directory: Option<String>,
    pub log: Log,
}

/// A container that was started. Dropping it kills all its processes.
#[derive(Debug)]
pub(super) struct Process {
    orders: mpsc::UnboundedSender<Order>,
    code: watch::Receiver<Option<i32>>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Terminate,
    Kill,
}

impl Engine {
    /// Tries what `mode` asks for. Must be called inside a tokio runtime.
    pub(super) async fn start(mode: EngineMode, root: Option<&Path>, agent: &Path) -> Result<Engine, EngineError> {
        if mode == EngineMode::ProcessGroup && root.is_none() {
            return Engine::process_groups(agent, "as asked");
        }
        match Engine::namespaces(root, agent).await {
            Ok(engine) => Ok(engine),
            Err(error) if mode == EngineMode::Namespaces => Err(EngineError::NoNamespaces(error)),
            Err(error) if root.is_some() => Err(EngineError::RootNeedsNamespaces(error)),
            Err(error) => Engine::process_groups(agent, &error.to_string()),
        }
    }

    async fn namespaces(root: Option<&Path>, agent: &Path) -> io::Result<Engine> {
        if !nix::unistd::geteuid().is_root() {
            return Err(io::Error::other("they need root"));
        }
        let path = match root {
            Some(_) => STANDARD_PATH.into(),
            None => machine_path(),
        };
        let engine = Engine {
            kind: Kind::Namespaces { views: namespaces::Views::plan(root, agent)?, path },
            description: format!(
                "namespaces: each task sees {} copy-on-write, and only its own processes",
                root.map_or("this machine's files".into(), |root| root.display().to_string()),
            ),
            launcher: Launcher::start(true)?,
        };
        // The only way to know whether this kernel and this container let us is to do it.
        let nothing = ["/bin/sh", "-c", ":"].map(String::from).to_vec();
        let (image, log) = (Image::Agent, Log::default());
        let probe = Container { image, command: nothing, environment: vec![], working_directory: None, log };
        match engine.run(probe).await?.ended().await {
            0 => Ok(engine),
            code => Err(io::Error::other(format!("a first task ended with {code}"))),
        }
    }

    fn process_groups(agent: &Path, why: &str) -> Result<Engine, EngineError> {
        Ok(Engine {
            kind: Kind::ProcessGroups { agent: agent.canonicalize()?, path: machine_path() },
            description: format!("process groups: tasks share this machine's files and processes ({why})"),
            launcher: Launcher::start(false)?,
        })
    }

    /// Which engine this is, and why.
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    pub(super) async fn run(&self, container: Container) -> io::Result<Process> {
        let Container { image, command: asked, environment, working_directory, log } = container;
        let agent = match &self.kind {
            Kind::Namespaces { .. } => Path::new(namespaces::AGENT_INSIDE),
            Kind::ProcessGroups { agent, .. } => agent,
        };
        let argv = if asked.is_empty() { image.command(&agent.to_string_lossy()) } else { asked };
        let Some((program, arguments)) = argv.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command"));
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear();

        let directories = match &self.kind {
            Kind::Namespaces { views, path } => {
                command.env("PATH", path).env("HOME", "/root");
                views.enter(&mut command, image, namespaces::working_directory(working_directory.as_deref())?);
                None
            }
            Kind::ProcessGroups { path, .. } => {
                let directories = process_group::Directories::make()?;
                command.env("PATH", path).env("HOME", directories.home()).env("TMPDIR", directories.temporary());
                // The agent keeps its builds below it: jobs share the paths of the configuration and no files.
                command.env("STAFFETTA_ROOT", directories.root());
                let home = directories.home();
                process_group::enter(&mut command, working_directory.as_ref().map_or(&home, Path::new));
                Some(directories)
            }
        };
        command.envs(environment);

        let (child, output) = self.launcher.launch(command).await?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let (code, outcome) = watch::channel(None);
        let kill = if directories.is_some() { process_group::KILL } else { Signal::SIGKILL };
        tokio::spawn(async move {
            let reading = tokio::spawn(keep(output, log));
            let ended_with = attend(child, inbox, kill).await;
            // Every writer is dead, so this ends; a supervisor that was itself killed may have left one.
            let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
            drop(directories);
            code.send_replace(Some(ended_with));
        });
        Ok(Process { orders, code: outcome })
    }
}

impl Process {
    /// Asks the first process to end, as a container runtime does: SIGTERM to it alone.
    pub(super) fn terminate(&self) {
        let _ = self.orders.send(Order::Terminate);
    }

    /// Kills every process.
    pub(super) fn kill(&self) {
        let _ = self.orders.send(Order::Kill);
    }

    /// Waits until no process is left, and gives the exit code of the first one; 128 + n for signal n.
    pub(super) fn ended(&self) -> impl Future<Output = i32> + Send + 'static {
        let mut code = self.code.clone();
        async move {
            match code.wait_for(Option::is_some).await {
                Ok(code) => code.unwrap_or(KILLED),
                // The runtime is shutting down; `Guard` has killed the process.
                Err(_) => KILLED,
            }
        }
    }
}

const KILLED: i32 = 128 + Signal::SIGKILL as i32;

/// Kills the process when the runtime drops what attends to it.
struct Guard {
    pid: Pid,
    kill: Signal,
    reaped: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, self.kill);
        }
    }
}

async fn attend(mut child: Child, mut orders: mpsc::UnboundedReceiver<Order>, kill_signal: Signal) -> i32 {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw) else {
        return KILLED;
    };
    let mut guard = Guard { pid, kill: kill_signal, reaped: false };
    let mut abandoned = false;
    loop {
        tokio::select! {
            status = child.wait() => {
                guard.reaped = true;
                return status.map_or(KILLED, code_of);
            }
            order = orders.recv(), if !abandoned => {
                let signal = match order {
                    Some(Order::Terminate) => Signal::SIGTERM,
                    Some(Order::Kill) => kill_signal,
                    None => { abandoned = true; kill_signal }
                };
                let _ = kill(pid, signal);
            }
        }
    }
}

fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(KILLED)
}

async fn keep(mut output: pipe::Receiver, log: Log) {
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        log.append(&buffer[..length]);
    }
}

const STANDARD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tasks that see this machine's files find its programs where its user does.
fn machine_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| STANDARD_PATH.into())
}
