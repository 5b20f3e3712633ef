//! The driver: the commands by which GitLab's own runner has its jobs run on Fargate (protocol section 9).
//!
//! It is the manager's road in four processes: `prepare` launches a task and waits for it, `run` sends one script
//! over SSH, `cleanup` ends the task. What one call leaves for the next stands in a metadata file; what a killed
//! call leaves behind is found in ECS.

mod cleanup;
mod config;
mod failure;
mod job;
mod metadata;
mod prepare;
mod run;
mod sweep;

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws::fargate::{AssumedRole, Fargate, FargateConfig, Regions};
use ssh::client::Target;
use ssh::keys::{HostKey, TaskKey};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::ecs_toml::EcsToml;
use metadata::{Metadata, Store};

pub use failure::{ExitCodes, Failure};
pub use job::Job;

/// What GitLab's runner asks for.
#[derive(Debug, Clone)]
pub enum Stage {
    Config,
    Prepare,
    Run { script: PathBuf, name: String },
    Cleanup,
}

/// One call of the driver.
pub struct Call {
    pub settings: EcsToml,
    /// Flags of the command line: whoever writes them in config.toml decides, not the job.
    pub task_definition: Option<String>,
    pub platform_version: Option<String>,
    pub job: Job,
}

impl Call {
    pub async fn make(&self, stage: &Stage) -> Result<(), Failure> {
        match stage {
            Stage::Config => config::config(self),
            Stage::Prepare => prepare::prepare(self).await,
            Stage::Run { script, name } => run::run(self, script, name).await,
            Stage::Cleanup => cleanup::cleanup(self).await,
        }
    }

    fn metadata_directory(&self) -> Result<&Path, Failure> {
        self.settings.metadata_directory.as_deref().ok_or_else(|| {
            Failure::System(
                "ecs.toml: `TaskMetadata.Directory` is missing: name a folder that only the runner's user can read, \
                 such as Directory = \"/opt/gitlab-runner/metadata\""
                    .to_owned(),
            )
        })
    }

    fn store(&self) -> Result<Store, Failure> {
        Ok(Store::new(self.metadata_directory()?, &self.job.identifier()))
    }

    /// What ECS knows the tasks of this runner's jobs by; which job each is for stands in its environment.
    fn started_by(&self) -> String {
        format!("{}-driver/{}", ::job::PRODUCT, self.job.runner)
    }

    fn target(&self, address: IpAddr, key: TaskKey, pinned: Option<HostKey>) -> Target {
        let FargateConfig { ssh_user, ssh_port, .. } = &self.settings.fargate;
        Target { addr: SocketAddr::new(address, *ssh_port), user: ssh_user.clone(), key, pinned }
    }

    /// The way to ECS, with the settings and as the role with which the task was started if it was.
    async fn fargate(&self, kept: Option<&Metadata>) -> Result<Fargate, Failure> {
        let mut config = self.settings.fargate.clone();
        let role = match kept {
            Some(kept) => {
                config.cluster = kept.cluster.clone().unwrap_or(config.cluster);
                config.region = kept.region.clone().or(config.region);
                kept.role.clone()
            }
            None => self.job.role(),
        };
        config.role = role.map(|role| AssumedRole {
            arn: role.arn,
            session_name: format!("{}-job-{}", ::job::PRODUCT, self.job.id),
            tags: role.tags,
        });
        Fargate::connect(&config, &Regions::default()).await.map_err(|error| Failure::System(error.to_string()))
    }
}

/// GitLab's runner ends a call with SIGTERM; a person at a terminal with Ctrl-C.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::System(format!("cannot wait for signals: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Resolves when the call is told to stop.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A line for whoever reads the job's log. Nobody may be there any more: that must not end a call half-way.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The same, for what went wrong.
fn warn(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "WARNING: {line}");
}

/// Unix seconds.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
