//! One job, from its hand-over to its final state (protocol 7.1).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use gitlab::{Client, ClientConfig, ClientError, Info, JobAccess, JobTrace, Proxies, ReportError, Reported};
use job::hand_over::{GitLabAccess, HandOver, RunnerSettings};
use job::outcome::{Decision, Outcome, SystemFailure};
use job::payload::{Payload, Received, Unusable};
use job::settings::Settings;
use job::trace::line;
use job::variables::Variables;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::blocking::blocking;
use crate::process::Orphans;
use crate::shell::{self, Echo, Frame};
use crate::stages::{self, Failure};
use crate::stop::{Stop, Stops};
use crate::transfer::addresses::{CacheAddresses, Renewals};
use crate::workspace::Workspace;

/// ECS kills a task 30 seconds after it told it to stop; the last word must be out by then.
const LAST_WORD: Duration = Duration::from_secs(25);

/// What is still to be removed may be much, and GitLab waits for the outcome.
const LAST_CLEAN_UP: Duration = Duration::from_secs(5);

/// A job that could not even be begun here: GitLab does not know how it ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Payload(#[from] Unusable),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("the task ended before GitLab knew how the job did")]
    OutOfTime,
    /// GitLab knows; the task must still not look as if it had ended by itself.
    #[error("the task was stopped from outside")]
    Terminated,
    /// A mistake of ours.
    #[error("the agent broke down: {0}")]
    Broken(String),
}

/// Everything that the stages of one job share.
pub struct Run {
    pub payload: Payload,
    pub runner: RunnerSettings,
    pub gitlab: GitLabAccess,
    pub variables: Variables,
    pub settings: Settings,
    pub workspace: Workspace,
    /// `None`: this image has none.
    pub shell: Option<PathBuf>,
    /// For the job's files.
    pub client: Client,
    pub trace: JobTrace,
    pub stops: Stops,
    pub orphans: Orphans,
    pub caches: CacheAddresses,
    warnings: Vec<String>,
}

/// Runs the job to its end and reports it. Returns when GitLab knows the outcome, or cannot be told.
pub async fn run(
    hand_over: HandOver,
    renewals: Renewals,
    terminated: watch::Receiver<bool>,
    orphans: Orphans,
) -> Result<Reported, RunError> {
    let run = Run::new(hand_over, renewals, terminated.clone(), orphans)?;
    let outcome = run.journey().await;
    // A job that ended before its last stage leaves nothing secret either.
    let cleaned_up = timeout(LAST_CLEAN_UP, run.clean_up()).await;
    if let Err(error) = cleaned_up.unwrap_or_else(|late| Err(late.into())) {
        tracing::warn!(%error, "cannot remove the job's temporary files");
    }
    let stopped = *terminated.borrow();
    let reported = run.report(&outcome, terminated).await?;
    if stopped { Err(RunError::Terminated) } else { Ok(reported) }
}

impl Run {
    fn new(
        hand_over: HandOver,
        renewals: Renewals,
        terminated: watch::Receiver<bool>,
        orphans: Orphans,
    ) -> Result<Self, RunError> {
        let HandOver { payload, gitlab, mut runner, trace, secrets, caches, elapsed_seconds, .. } = hand_over;
        // Where tasks share one file system, and its root may not be ours to write.
        if let Ok(root) = std::env::var(job::task::ROOT) {
            for path in [&mut runner.builds_dir, &mut runner.cache_dir] {
                *path = format!("{root}{path}");
            }
        }
        let payload = Received::parse(payload.get().as_bytes())?.payload;
        let variables = Variables::resolve(&payload, &runner, &gitlab, &secrets);
        let (settings, warnings) = Settings::read(&variables, &payload, runner.debug_trace_disabled);
        let shell = shell::detect(&runner.shell);

        let shell_name =
            shell.as_ref().and_then(|path| path.file_name()).map_or("sh".into(), |name| name.to_string_lossy());
        let config = ClientConfig {
            tls_ca_pem: gitlab.tls_ca.clone(),
            tls_client: gitlab.tls_client.clone(),
            proxies: Proxies::of(|name| runner.variable(name).map(str::to_owned).or_else(|| std::env::var(name).ok())),
            ..ClientConfig::new(&gitlab.url, Info::new("fargate", shell_name))
        };
        // As in GitLab's runner: files go through the job's own proxies, and what is told of the job goes through the
        // runner's, which no job can break.
        let of_job = Proxies::of(|name| variables.get(name).or_else(|| std::env::var(name).ok()));
        let control = Client::new(config.clone())?;
        let client = match of_job == config.proxies {
            true => control.clone(),
            false => Client::new(ClientConfig { proxies: of_job, ..config })?,
        };
        let access = JobAccess { id: payload.id, token: payload.token.clone() };
        let trace_settings = variables.trace_settings(&payload, &runner);
        let trace = JobTrace::start(control, access, &trace_settings, trace, settings.hides_the_log());

        let deadline = Instant::now() + remaining(&payload, elapsed_seconds);
        let stops = Stops { gitlab: trace.signal(), terminated, deadline };
        let workspace = Workspace::new(&variables, &runner.builds_dir, std::env::vars_os());
        Ok(Self {
            payload,
            runner,
            gitlab,
            variables,
            settings,
            workspace,
            shell,
            client,
            trace,
            stops,
            orphans,
            caches: CacheAddresses::new(caches, renewals),
            warnings,
        })
    }

    /// How the commands of scripts are shown.
    pub fn echo(&self) -> Echo {
        Echo {
            sections: self.variables.flag("FF_SCRIPT_SECTIONS") && self.payload.features.trace_sections,
            check_exit_codes: self.variables.flag("FF_ENABLE_BASH_EXIT_CODE_CHECK"),
        }
    }

    /// How they run.
    pub fn frame(&self) -> Frame {
        Frame { trace: self.settings.debug_trace, legacy_eval: self.variables.flag("FF_USE_LEGACY_BASH_EVAL") }
    }

    /// What to say of an image without a shell that may be used.
    pub fn no_shell(&self) -> String {
        match self.runner.shell.as_str() {
            "" => "shell not found in this image".into(),
            configured => format!("shell not found in this image: there is no {configured}, which the runner asks for"),
        }
    }

    async fn journey(&self) -> Outcome {
        // What would silently run without a part of itself is not run.
        if let Some(message) = self.variables.refused.clone() {
            return Outcome::SystemFailed { failure: SystemFailure::Configuration, message };
        }
        for warning in &self.warnings {
            self.trace.line(&line::warning(warning));
        }
        match self.stages().await {
            Ok(()) => Outcome::Succeeded,
            Err(failure) => self.outcome_of(failure),
        }
    }

    /// Walks the stages in GitLab's order; a failure before the script skips the scripts only.
    async fn stages(&self) -> Result<(), Failure> {
        stages::prepare::run(self).await?;
        let (mut result, mut status) = (self.before_the_script().await, stages::RUNNING);
        match &result {
            Ok(()) => (result, status) = self.scripts().await,
            // Before the script a cancel ends the job outright (protocol 4.8).
            Err(Failure::Stopped(_)) => return result,
            Err(_) => {}
        }
        if result.as_ref().is_err_and(Failure::ends_the_job) {
            return result;
        }
        let succeeded = result.is_ok();
        let saved = stages::archive_cache::run(self, succeeded, status).await;
        if saved.as_ref().is_err_and(Failure::ends_the_job) {
            return saved;
        }
        match stages::upload_artifacts::run(self, succeeded, status).await {
            Err(failure) if failure.ends_the_job() => return Err(failure),
            // A lost artifact fails a job that was fine; it does not hide why one was not.
            uploaded => result = result.and(saved).and(uploaded),
        }
        stages::cleanup::run(self, status).await;
        result
    }

    async fn before_the_script(&self) -> Result<(), Failure> {
        stages::get_sources::run(self).await?;
        stages::restore_cache::run(self).await?;
        stages::download_artifacts::run(self).await
    }

    /// With the `CI_JOB_STATUS` of all later stages, as GitLab's runner has it.
    async fn scripts(&self) -> (Result<(), Failure>, &'static str) {
        let result = stages::step_script::run(self).await;
        let status = match &result {
            Ok(()) => "success",
            Err(failure) if failure.ends_the_job() => return (result, stages::RUNNING),
            Err(Failure::Stopped(Stop::StageTimedOut)) => {
                let hint = "https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after-script-timeouts";
                self.trace.line(&line::warning(&format!("the script was ended by RUNNER_SCRIPT_TIMEOUT, see {hint}")));
                "timedout"
            }
            Err(Failure::Stopped(_)) => {
                self.trace.line(&line::warning("script canceled externally (UI, API)"));
                "canceled"
            }
            Err(Failure::Exit(_) | Failure::System(..)) => "failed",
        };
        let result = match stages::after_script::run(self, status).await {
            Err(failure) if failure.ends_the_job() => Err(failure),
            after => result.and(after),
        };
        (result, status)
    }

    /// Removes what must not stay of a job.
    pub async fn clean_up(&self) -> io::Result<()> {
        let (workspace, variables) = (self.workspace.clone(), self.variables.clone());
        blocking(move |_| workspace.clean_up(&variables)).await?
    }

    fn outcome_of(&self, failure: Failure) -> Outcome {
        let timed_out = |limit| Outcome::Decided(Decision::TimedOut { message: took_longer_than(limit) });
        match failure {
            Failure::Exit(exit_code) => Outcome::ScriptFailed { exit_code },
            Failure::System(failure, message) => Outcome::SystemFailed { failure, message },
            Failure::Stopped(Stop::Canceled) => Outcome::Decided(Decision::Canceled),
            Failure::Stopped(Stop::Aborted) => Outcome::Decided(Decision::Aborted),
            Failure::Stopped(Stop::JobTimedOut) => timed_out(Duration::from_secs(self.payload.timeout_seconds())),
            Failure::Stopped(Stop::StageTimedOut) => {
                let limit = self.settings.script_timeout.unwrap_or_default();
                let message = format!("script timeout: {}", took_longer_than(limit));
                Outcome::Decided(Decision::TimedOut { message })
            }
            Failure::Stopped(Stop::SourcesTimedOut) => {
                let limit = go_duration(Duration::from_secs(self.runner.get_sources_timeout.unwrap_or_default()));
                let message = format!("get sources timeout: exceeded timeout of {limit}");
                Outcome::Decided(Decision::TimedOut { message })
            }
            Failure::Stopped(Stop::Terminated) => Outcome::system("the task was stopped from outside"),
        }
    }

    async fn report(&self, outcome: &Outcome, mut terminated: watch::Receiver<bool>) -> Result<Reported, RunError> {
        if *outcome == Outcome::Decided(Decision::Aborted) {
            // GitLab ended the job itself; it takes nothing more.
            return Ok(Reported::AlreadyOver);
        }
        let closing = outcome.closing_line();
        self.trace.line(&match closing.strip_prefix("ERROR: ") {
            Some(error) => line::error(error),
            None => line::info(&closing),
        });
        let known = &self.payload.features.failure_reasons;
        let reporting = self.trace.finish(outcome, known, self.runner.final_update_retries);
        let out_of_time = async {
            // A sender that is gone will never tell.
            if terminated.wait_for(|terminated| *terminated).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LAST_WORD).await;
        };
        tokio::select! {
            reported = reporting => Ok(reported?),
            () = out_of_time => Err(RunError::OutOfTime),
        }
    }
}

/// What is left of the job's time when it arrives here.
pub fn remaining(payload: &Payload, elapsed_seconds: f64) -> Duration {
    let elapsed = Duration::try_from_secs_f64(elapsed_seconds).unwrap_or_default();
    Duration::from_secs(payload.timeout_seconds()).saturating_sub(elapsed)
}

/// GitLab's own words (protocol 7.5).
fn took_longer_than(limit: Duration) -> String {
    format!("execution took longer than {} seconds", go_duration(limit))
}

/// Go's way to write a duration.
fn go_duration(limit: Duration) -> String {
    let (hours, minutes, seconds) = (limit.as_secs() / 3600, limit.as_secs() / 60 % 60, limit.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{}s", limit.as_secs_f64()),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_jobs_time_began_before_it_came_here() {
        let payload = fixtures::payload(serde_json::json!({"runner_info": {"timeout": 60}}));
        assert_eq!(remaining(&payload, 12.5), Duration::from_secs_f64(47.5));
        assert_eq!(remaining(&payload, 600.0), Duration::ZERO);
        assert_eq!(remaining(&payload, f64::NAN), Duration::from_secs(60));
    }

    #[test]
    fn a_time_out_is_told_in_gitlabs_words() {
        for (seconds, text) in [(3600.0, "1h0m0s"), (90.0, "1m30s"), (10.0, "10s"), (0.5, "0.5s")] {
            let told = took_longer_than(Duration::from_secs_f64(seconds));
            assert_eq!(told, format!("execution took longer than {text} seconds"));
        }
    }
}
