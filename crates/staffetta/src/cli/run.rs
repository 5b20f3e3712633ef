//! `staffetta run`: the manager.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Args;
use ssh::client::AgentBinaries;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::logging;
use crate::config::reload::{self, Pass, Reload};
use crate::config::{self, Remark, system_id};
use crate::manager::{Manager, Stop};
use crate::metrics;

/// Run the manager: ask GitLab for jobs and start a Fargate task for each
#[derive(Debug, Args)]
#[command(after_help = "Signals:
  SIGQUIT          ask for no more jobs, wait for those that run, then exit
  SIGTERM, SIGINT  ask for no more jobs, finish the hand-overs under way, leave running jobs to their tasks, exit;
                   a second one stops all tasks
  SIGHUP           read the configuration again (also done when the file changes)

Exit codes: 0 stopped as asked; 2 could not start: the configuration or a file of TLS that it
names cannot be used, or the port of listen_address is taken.

Example:
  staffetta run --config /etc/gitlab-runner/config.toml")]
pub struct Arguments {
    /// GitLab's config.toml, with executor = "fargate"
    #[arg(short, long, env = "CONFIG_FILE", value_name = "FILE", default_value_os_t = default_config())]
    config: PathBuf,
    /// Folder with the agents that are sent into images without one [default: beside this program]
    #[arg(long, value_name = "DIR")]
    agents: Option<PathBuf>,
    /// Where metrics are served, such as :9252 [default: listen_address of the configuration]
    #[arg(long, env = "LISTEN_ADDRESS", value_name = "HOST:PORT", value_parser = config::listen_address)]
    listen_address: Option<String>,
    #[command(flatten)]
    of_gitlab_runner: OfGitlabRunner,
}

/// Flags that service units and images give to `gitlab-runner run`. They say as whom and where scripts run on its own
/// machine; here scripts run in tasks.
#[derive(Debug, Args)]
struct OfGitlabRunner {
    #[arg(short, long, hide = true)]
    user: Option<String>,
    #[arg(short = 'd', long, hide = true)]
    working_directory: Option<PathBuf>,
    #[arg(short = 'n', long, hide = true)]
    service: Option<String>,
    #[arg(long, hide = true)]
    syslog: bool,
}

impl OfGitlabRunner {
    fn tell(&self) {
        let given = [
            ("--user", self.user.is_some()),
            ("--working-directory", self.working_directory.is_some()),
            ("--service", self.service.is_some()),
            ("--syslog", self.syslog),
        ];
        for (flag, _) in given.iter().filter(|(_, given)| *given) {
            info!("{flag} is gitlab-runner's and has no effect: scripts run in tasks");
        }
    }
}

/// GitLab's own places (protocol 10.1).
pub(super) fn default_config() -> PathBuf {
    if nix::unistd::Uid::effective().is_root() {
        return PathBuf::from("/etc/gitlab-runner/config.toml");
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    home.join(".gitlab-runner/config.toml")
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (mut watched, loaded) = match Reload::start(&arguments.config) {
        Ok(started) => started,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            eprintln!("staffetta: nothing was started; mend the configuration and try again");
            return Ok(ExitCode::from(super::UNUSABLE));
        }
    };
    logging::start(loaded.config.log_format, loaded.config.log_level);
    tell(&loaded.warnings);
    arguments.of_gitlab_runner.tell();
    let system_id = system_id::load_or_create(&arguments.config);
    if let Some(error) = &system_id.not_kept {
        warn!(%error, "the system id cannot be kept: after a restart GitLab shows a second manager");
    }
    let agents = match arguments.agents {
        Some(folder) => AgentBinaries::in_directory(folder),
        None => AgentBinaries::beside_this_program()?,
    };
    let configured = loaded.config.listen_address.clone();
    let listen_address = arguments.listen_address.or_else(|| configured.clone());
    let listener = match &listen_address {
        Some(address) => {
            let bound = metrics::http::bind(address).await;
            Some(bound.with_context(|| format!("cannot serve metrics on {address} (listen_address)"))?)
        }
        None => None,
    };
    let mut signals = Signals::listen()?;
    info!(config = %arguments.config.display(), runners = loaded.config.runners.len(), concurrent = loaded.config.concurrent, system_id = %system_id.id, "staffetta {} starts", job::VERSION);
    let manager = Manager::start(loaded.config, system_id.id, agents).await?;
    if let Some(listener) = listener {
        info!(address = %listener.local_addr()?, "metrics are served");
        tokio::spawn(metrics::http::serve(listener, manager.metrics()));
    }
    manager.renew_tokens_in(&arguments.config).await;
    serve(&manager, &mut watched, &mut signals, configured.as_deref()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Listened to before the manager starts, and acted on after: a signal in between would end the manager with jobs in its
/// hands, or be lost where it is a container's first process, which the kernel spares signals that it has no handler for.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Signals and the configuration file, until nothing is left to do.
async fn serve(
    manager: &Manager,
    watched: &mut Reload,
    signals: &mut Signals,
    listen_address: Option<&str>,
) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(reload::INTERVAL);
    loop {
        let told = tokio::select! {
            () = manager.ended(), if manager.stopping() != Stop::No => {
                info!(jobs_left_to_their_tasks = manager.running(), "stopped");
                return Ok(());
            }
            _ = signals.terminate.recv() => { stop(manager); continue }
            _ = signals.interrupt.recv() => { stop(manager); continue }
            _ = signals.quit.recv() => {
                info!(jobs = manager.running(), "draining: no more jobs are asked for; running ones are waited for");
                manager.quit();
                continue
            }
            _ = signals.hang_up.recv() => true,
            () = manager.renewed() => true,
            _ = look.tick() => false,
        };
        match watched.pass(told, SystemTime::now()) {
            Pass::Unchanged => {}
            Pass::Refused(mistakes) => {
                for mistake in &mistakes.0 {
                    error!("{mistake}");
                }
                manager.metrics().configuration_refused();
                error!("the configuration is not taken; going on with the one before");
            }
            Pass::Changed(loaded) => {
                tell(&loaded.warnings);
                if loaded.config.listen_address.as_deref() != listen_address {
                    warn!("a changed `listen_address` needs a restart");
                }
                match manager.reload(loaded.config).await {
                    Ok(()) => info!("configuration read again"),
                    Err(error) => error!(%error, "the configuration is not taken; going on with the one before"),
                }
            }
        }
    }
}

fn stop(manager: &Manager) {
    manager.terminate();
    let jobs = manager.running();
    if manager.stopping() == Stop::Cancel {
        warn!(jobs, "stopping the tasks of all jobs");
    } else {
        info!(
            jobs,
            "stopping: hand-overs under way are finished, running jobs are left to their tasks; a second signal stops them"
        );
    }
}

fn tell(warnings: &[Remark]) {
    for warning in warnings {
        warn!("{warning}");
    }
}
