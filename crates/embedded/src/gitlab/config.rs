//! What can be set of the server before it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ci;
use super::reference::Ref;

#[derive(Debug, Clone)]
pub struct Config {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How the outside reaches it, if not where it listens: `https://host:port` of a proxy in front of it.
    pub external_url: Option<String>,
    /// How long `POST jobs/request` waits for work; GitLab: 50 s. Zero: never waits.
    pub long_poll: Duration,
    /// `X-GitLab-Trace-Update-Interval`; GitLab: 3 s while the log is watched, else 60 s. Whole seconds, at least one.
    pub trace_interval: Duration,
    /// False: traces are counted and summed, and their bytes forgotten (they still come as events).
    pub keep_traces: bool,
    /// Most bytes of a trace before the job fails with `trace_size_exceeded`; GitLab: 100 MB.
    pub trace_limit: u64,
    /// Most bytes of one artifact file (413 above); GitLab: 100 MB.
    pub artifact_limit: u64,
    /// Answer `direct_download` with a redirect to a second port, as GitLab does with object storage.
    pub object_storage: bool,
    /// `group/name`.
    pub project_path: String,
    /// Seconds that a job may take unless it says so itself; GitLab: an hour.
    pub job_timeout: Duration,
    /// Added to the ids of jobs and pipelines: a server that takes the place of another, for the same runners, must not give
    /// the same ids again.
    pub first_ids: u64,
    /// How often the caches were cleared by the button; each time the keys get another number behind them.
    pub cache_index: Option<u64>,
    /// Pipelines of protected branches have caches of their own; GitLab's default.
    pub separated_caches: bool,
    /// Of GitLab's own secrets manager, an OpenBao.
    pub secrets_manager_url: Option<String>,
    /// Variables of the project.
    pub variables: Vec<Variable>,
    /// False: a registration token is answered 410, as GitLab does where it is switched off.
    pub registration_tokens: bool,
    /// How long the token of a runner is good after it was given; GitLab's setting, by default for ever.
    pub runner_token_lifetime: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            external_url: None,
            long_poll: Duration::from_secs(50),
            trace_interval: Duration::from_secs(3),
            keep_traces: true,
            trace_limit: 100 << 20,
            artifact_limit: 100 << 20,
            object_storage: false,
            project_path: "group/project".into(),
            job_timeout: Duration::from_secs(3600),
            first_ids: 0,
            cache_index: None,
            separated_caches: true,
            secrets_manager_url: None,
            variables: Vec::new(),
            registration_tokens: true,
            runner_token_lifetime: None,
        }
    }
}

/// A variable of the project or of one pipeline, as a person sets it in GitLab.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    pub key: String,
    pub value: String,
    pub masked: bool,
    /// The job sees the path of a file with the value.
    pub file: bool,
    /// References to other variables in the value stay as they are.
    pub raw: bool,
}

impl Variable {
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), masked: false, file: false, raw: false }
    }

    pub fn masked(self) -> Self {
        Self { masked: true, ..self }
    }

    pub fn file(self) -> Self {
        Self { file: true, ..self }
    }

    pub fn raw(self) -> Self {
        Self { raw: true, ..self }
    }
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Variable({})", self.key)
    }
}

/// What a pipeline is made from.
#[derive(Debug, Clone)]
pub struct PipelineSource {
    /// A Git repository; it is only read.
    pub repo: PathBuf,
    /// Anything that names a commit there.
    pub commit: String,
    /// What the jobs see as their branch, tag or merge request.
    pub git_ref: Ref,
    pub pipeline: ci::Pipeline,
    /// Variables of this pipeline, above those of the project and of the file.
    pub variables: Vec<Variable>,
}
