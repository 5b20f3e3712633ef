//! The stages of a job, each a section of its log and, where it runs commands, a shell of its own (protocol 7.1).

use std::future::Future;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use job::outcome::SystemFailure;
use job::trace::{Stream, line};
use tokio::process::Command;

use crate::blocking::blocking;
use crate::note::Note;
use crate::process::{self, Ended};
use crate::run::Run;
use crate::shell;
use crate::stop::{Limits, Stop};

pub mod after_script;
pub mod archive_cache;
mod attempts;
mod cache_store;
pub mod cleanup;
pub mod download_artifacts;
pub mod get_sources;
mod packing;
pub mod prepare;
mod provenance;
pub mod restore_cache;
pub mod step_script;
pub mod upload_artifacts;

/// The value of `CI_JOB_STATUS` until the script has ended.
pub const RUNNING: &str = "running";

/// Why a stage did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A command in the job's environment, or one of our own that stands for GitLab's helper.
    Exit(i32),
    System(SystemFailure, String),
    Stopped(Stop),
}

impl Failure {
    pub fn system(message: impl Into<String>) -> Self {
        Self::System(SystemFailure::Runner, message.into())
    }

    /// Whether no further stage may run.
    pub fn ends_the_job(&self) -> bool {
        matches!(self, Self::Stopped(stop) if stop.ends_the_job())
    }
}

/// One shell of a stage.
pub struct Script<'a> {
    pub body: &'a str,
    pub directory: &'a Path,
    /// `CI_JOB_STATUS`.
    pub status: &'a str,
    /// More of the environment, beside the job's variables.
    pub environment: &'a [(&'static str, String)],
    pub limits: Limits,
}

impl Run {
    /// Runs a stage within its section.
    pub async fn section<T>(&self, name: &str, title: &str, stage: impl Future<Output = T>) -> T {
        let marked = self.payload.features.trace_sections;
        let start = if marked { line::section_start(name, unix_now(), &[]) } else { String::new() };
        self.trace.line(&(start + &line::title(title)));
        let result = stage.await;
        if marked {
            self.trace.line(&line::section_end(name, unix_now()));
        }
        result
    }

    /// A line of a stage that we do ourselves where GitLab's runner starts its helper: it belongs to the job's output.
    pub fn say(&self, line: &str) {
        self.trace.write(Stream::Out, line.as_bytes());
    }

    pub fn tell(&self, note: &Note) {
        match note {
            Note::Info(text) => self.say(&format!("{text}\n")),
            Note::Warning(text) => self.say(&line::warning(text)),
        }
    }

    /// A failure of such a stage: the reason in the log, and the exit code of the helper.
    pub fn helper_failed(&self, reason: &str) -> Failure {
        self.say(&line::error(reason));
        Failure::Exit(1)
    }

    /// Waits for work that is no process, unless the stage must end before.
    pub async fn unless_stopped<T>(&self, limits: Limits, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            stop = self.stops.stopped(limits) => Err(Failure::Stopped(stop)),
            result = work => Ok(result),
        }
    }

    /// The same for work that keeps a thread busy.
    pub async fn blocking<T: Send + 'static>(
        &self,
        limits: Limits,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let done = self.unless_stopped(limits, blocking(work)).await?;
        done.map_err(|error| Failure::system(format!("the agent broke down: {error}")))
    }

    /// Runs a script in the job's shell. Variables reach it through its environment: they are on no command
    /// line, and a script that is traced does not print them.
    pub async fn script(&self, script: Script<'_>) -> Result<(), Failure> {
        let Some(shell) = &self.shell else { return Err(Failure::system(self.no_shell())) };
        if !script.directory.is_dir() {
            return Err(self.helper_failed(&format!("{}: no such directory", script.directory.display())));
        }
        let broken = |what: &str, error: std::io::Error| Failure::system(format!("{what}: {error}"));
        // In GitLab's runner the stage's script writes them, so it is the script that fails.
        let mut environment = self
            .workspace
            .environment(&self.variables, script.status)
            .map_err(|error| self.helper_failed(&format!("cannot write the stage's files: {error}")))?;
        let exports = shell::take_long(&mut environment);
        let text = self.frame().around(&exports, script.body);
        let input = shell::in_memory(&text).map_err(|error| broken("cannot hold the script", error))?;
        let mut command = Command::new(shell);
        command.current_dir(script.directory).env_clear().envs(environment).stdin(input);
        command.envs(script.environment.iter().map(|(key, value)| (key, value)));
        // After everything else: the job's own value would keep git from being let in.
        command.envs(get_sources::user_settings(self).map(|path| ("GIT_CONFIG_GLOBAL", path)));
        let output = |stream, bytes: &[u8]| self.trace.write(stream, bytes);
        let ended = process::run(&mut command, self.orphans, output, self.stops.stopped(script.limits)).await;
        match ended.map_err(|error| broken("cannot start the shell", error))? {
            Ended::Exited(0) => Ok(()),
            Ended::Exited(code) => Err(Failure::Exit(code)),
            Ended::Stopped(stop) => Err(Failure::Stopped(stop)),
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
