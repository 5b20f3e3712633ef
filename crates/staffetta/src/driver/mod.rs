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

use aws::AssumedRole;
use aws::fargate::{Fargate, FargateConfig, Regions, role_is_allowed};
use ssh::client::Target;
use ssh::keys::{HostKey, TaskKey};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::job::Role;
use crate::config::ecs_toml::EcsToml;
use metadata::{Metadata, Store};

pub use failure::{ExitCodes, Failure};
pub use job::Job;

/// What GitLab's runner asks for.
#[derive(Debug, Clone)]
pub enum Command {
    Config,
    Prepare,
    Run { script: PathBuf, stage: String },
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
    pub async fn make(&self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Config => config::config(self),
            Command::Prepare => prepare::prepare(self).await,
            Command::Run { script, stage } => run::run(self, script, stage).await,
            Command::Cleanup => cleanup::cleanup(self).await,
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

    /// The role that the job asks for, if it may have it.
    fn role(&self) -> Result<Option<Role>, Failure> {
        let Some(role) = self.job.role() else { return Ok(None) };
        if role_is_allowed(self.settings.allowed_roles.as_deref(), &role.arn) {
            return Ok(Some(role));
        }
        Err(Failure::Refused(format!(
            "ROLE_ARN: this runner does not allow the role {:?}; `AllowedRoles` of its ecs.toml says which",
            role.arn
        )))
    }

    /// The way to ECS of a task that was started: with the settings and as the role of that time.
    async fn fargate_of(&self, task: &Metadata) -> Result<Fargate, Failure> {
        let mut config = self.settings.fargate.clone();
        // A file of GitLab's driver says none of it, so it is what it would be for a new task.
        let Some(cluster) = &task.cluster else { return self.fargate(self.role().unwrap_or(None)).await };
        config.cluster.clone_from(cluster);
        config.region = task.region.clone().or(config.region);
        self.connect(config, task.role.clone()).await
    }

    /// The way to ECS as ecs.toml has it.
    async fn fargate(&self, role: Option<Role>) -> Result<Fargate, Failure> {
        self.connect(self.settings.fargate.clone(), role).await
    }

    async fn connect(&self, mut config: FargateConfig, role: Option<Role>) -> Result<Fargate, Failure> {
        config.role = role.map(|role| AssumedRole {
            arn: role.arn,
            session_name: format!("{}-job-{}", ::job::PRODUCT, self.job.id),
            external_id: None,
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
