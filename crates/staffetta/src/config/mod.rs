//! GitLab's `config.toml`, with `executor = "fargate"` and a `[runners.fargate]` table (protocol 10.2, 10.3), or with
//! `executor = "custom"` and GitLab's Fargate driver, whose `ecs.toml` is read then.
//!
//! Same keys, same meaning. A file is taken whole or not at all: an unknown key or a wrong value is
//! refused by name, and all mistakes are reported at once.

mod cache;
mod custom;
pub mod ecs_toml;
pub(crate) mod keys;
mod labels;
mod listen;
pub mod owner;
mod queuing;
pub(crate) mod read;
pub mod reload;
mod runner;
pub(crate) mod section;
pub mod system_id;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws::fargate::FargateConfig;
use jiff::Timestamp;
use job::secret::SecretString;

pub use cache::Cache;
use ecs_toml::EcsToml;
pub use listen::listen_address;
pub use queuing::{QueuingDuration, is_exceeded};
pub use read::{Certificates, Loaded, load, load_as};
pub use runner::expand;
pub(crate) use runner::{capacity_provider, host};

#[derive(Debug, Clone)]
pub struct Config {
    /// Jobs at once over all runners, at least 1.
    pub concurrent: usize,
    /// In this time every runner is asked for a job once (protocol 2.6).
    pub check_interval: Duration,
    pub log_level: tracing::Level,
    pub log_format: LogFormat,
    /// How long a manager that stops waits for what it still has in hand.
    pub shutdown_timeout: Duration,
    /// Where metrics are served, as HOST:PORT; an empty host is every address of the machine.
    pub listen_address: Option<String>,
    /// In the order of the file, each with its own name and its own token.
    pub runners: Vec<Runner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: coloured on a terminal.
    Runner,
    /// `key=value`, never coloured.
    Text,
    /// One object per line.
    Json,
}

/// One `[[runners]]` entry: one token, one environment.
#[derive(Debug, Clone)]
pub struct Runner {
    pub name: String,
    pub url: String,
    pub token: SecretString,
    /// The token is renewed when three quarters of the time between the two are over (protocol 1.4).
    pub token_obtained_at: Option<Timestamp>,
    /// None never expires.
    pub token_expires_at: Option<Timestamp>,
    pub tls_ca_file: Option<PathBuf>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// A connection to GitLab that is older is not used again; zero: none is too old. One value for the whole file.
    pub connection_max_age: Duration,
    /// Jobs at once of this runner; none is no limit beside `concurrent`.
    pub limit: Option<NonZeroUsize>,
    /// Job requests under way at once, at least 1 (protocol 2.7).
    pub request_concurrency: usize,
    /// Waits for `check_interval` also after a job came (protocol 2.6).
    pub strict_check_interval: bool,
    /// Failed requests in a row after which the runner rests for `unhealthy_interval` (protocol 2.8).
    pub unhealthy_requests_limit: u32,
    pub unhealthy_interval: Duration,
    /// Bytes of trace; what a job writes beyond is dropped (protocol 4.5).
    pub output_limit: u64,
    /// How often the final state of a job is sent again (protocol 4.4).
    pub job_status_final_update_retry_limit: u32,
    /// Absolute paths inside the task.
    pub builds_dir: String,
    pub cache_dir: String,
    /// `bash`, `sh`, or empty: the agent takes the first that the image has.
    pub shell: String,
    pub clone_url: String,
    /// `GIT_CLONE_PATH` may be used.
    pub custom_build_dir: bool,
    pub safe_directory_checkout: bool,
    /// None: the strategy of the job decides (protocol 7.3.8).
    pub clean_git_config: Option<bool>,
    /// None is the job's own time-out.
    pub prepare_timeout: Option<Duration>,
    pub get_sources_timeout: Option<Duration>,
    /// For one upload of artifacts, and for the head of GitLab's answer (protocol 5.1).
    pub artifact_upload_timeout: Duration,
    pub artifact_response_header_timeout: Duration,
    /// `KEY=VALUE`, weaker than the variables of the job.
    pub environment: Vec<String>,
    pub pre_get_sources_script: String,
    pub post_get_sources_script: String,
    pub pre_build_script: String,
    pub post_build_script: String,
    /// Stronger than the variable of the same name in a job.
    pub feature_flags: BTreeMap<String, bool>,
    pub debug_trace_disabled: bool,
    /// Told to GitLab with every request: those of the whole file, and over them those of the entry.
    pub labels: BTreeMap<String, String>,
    /// How long jobs may be in GitLab's queue before they are counted.
    pub job_queuing_durations: Vec<QueuingDuration>,
    /// None: caches stay in the task.
    pub cache: Option<Cache>,
    pub fargate: FargateConfig,
    /// How long ECS may have no room for a task, and how long a task may then take until it lets us in.
    pub start_timeout: Duration,
}

/// What a file is read with beside its text.
struct Outside<'a> {
    /// The value of `$NAME`.
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// The file that the commands of `[runners.custom]` name.
    ecs_toml: &'a dyn Fn(&Path) -> Result<EcsToml, Mistakes>,
}

/// One thing to tell about a file: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    pub file: PathBuf,
    /// From 1; none when it is about the file as a whole.
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why a file is not taken: every mistake in it, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Remark>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}
