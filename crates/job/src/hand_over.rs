//! The one message from the manager to the agent, and the agent's answers.
//!
//! It carries the payload's own text: manager and agent of different versions then agree on a job
//! as long as both can read GitLab.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{JobId, ShortToken, SystemId};
use crate::secret::{self, SecretString};

/// Raised when an older agent could misread a newer manager.
pub const VERSION: u32 = 1;

/// Everything that the agent needs to run one job and to report it by itself.
#[derive(Clone, Serialize, Deserialize)]
pub struct HandOver {
    pub version: u32,
    /// The body of GitLab's 201, unchanged.
    pub payload: Box<RawValue>,
    pub gitlab: GitLabAccess,
    pub runner: RunnerSettings,
    pub trace: TraceSoFar,
    /// What the manager resolved for the job's `secrets` (protocol 3.14).
    #[serde(default)]
    pub secrets: Vec<ResolvedSecret>,
    /// None: the runner has no store for caches, or it cannot be used just now (protocol 6).
    #[serde(default)]
    pub caches: Option<RemoteCaches>,
    /// Seconds of the job's time-out that had passed when the manager sent this: the task's clock is not the manager's.
    pub elapsed_seconds: f64,
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver").field("version", &self.version).field("runner", &self.runner).finish_non_exhaustive()
    }
}

/// How the agent reaches GitLab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GitLabAccess {
    /// The `url` of the runner, as in `config.toml`.
    pub url: String,
    /// PEM of the authority that GitLab's certificate is checked against, beside the usual ones.
    pub tls_ca: Option<String>,
    /// PEM of the certificate that the runner shows to GitLab, with its key (protocol 0.6).
    #[serde(default)]
    pub tls_client: Option<ClientCertificate>,
    /// GitLab's id of the job request, for correlation in Gitaly (protocol 7.3.4).
    pub correlation_id: Option<String>,
}

/// A certificate and its key, as `tls-cert-file` and `tls-key-file` of the runner hold them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClientCertificate {
    pub certificate: String,
    #[serde(serialize_with = "secret::expose")]
    pub key: SecretString,
}

/// One secret of a job. It becomes a variable that is masked and never expanded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResolvedSecret {
    /// Name of the variable.
    pub key: String,
    #[serde(serialize_with = "secret::expose")]
    pub value: SecretString,
    /// The variable is the path of a file with the value.
    pub file: bool,
}

/// The job's caches in the runner's store: addresses that are signed for these objects alone, and for a time (protocol 6.6).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RemoteCaches {
    /// By the object's name below the project's folder, see [`crate::cache::Place::object`].
    pub objects: BTreeMap<String, ObjectAddresses>,
    /// Bytes of the largest archive that is uploaded; 0 is no limit.
    pub max_archive_size: u64,
    /// What a later manager needs to sign anew: it cannot know the job's payload. Sealed, since the job's own code may be what
    /// gives it back; to the agent it is just a text.
    pub renewal: Option<String>,
}

/// What may be done with one object; none is not allowed, or cannot be signed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ObjectAddresses {
    pub get: Option<SignedRequest>,
    pub head: Option<SignedRequest>,
    pub put: Option<SignedRequest>,
}

/// Whoever has it may send the request until its time is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignedRequest {
    #[serde(serialize_with = "secret::expose")]
    pub url: SecretString,
    /// To be sent exactly so.
    pub headers: BTreeMap<String, String>,
}

/// The settings of the `[[runners]]` entry that a job can see (protocol 10.3).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunnerSettings {
    pub name: String,
    pub short_token: ShortToken,
    pub system_id: SystemId,
    pub builds_dir: String,
    pub cache_dir: String,
    /// `KEY=VALUE`, weaker than the job's own variables.
    pub environment: Vec<String>,
    pub feature_flags: BTreeMap<String, bool>,
    /// Bytes of trace after which the rest is dropped.
    pub output_limit: u64,
    /// Bash or sh as the config names it; empty lets the agent look.
    pub shell: String,
    pub pre_get_sources_script: String,
    pub post_get_sources_script: String,
    pub pre_build_script: String,
    pub post_build_script: String,
    pub clone_url: String,
    /// `GIT_CLONE_PATH` may be used.
    pub custom_build_dir: bool,
    /// Git trusts the project directory whoever owns it.
    pub safe_directory_checkout: bool,
    /// None: the strategy decides (protocol 7.3.8).
    pub clean_git_config: Option<bool>,
    /// Seconds for all attempts together; none is the job's own time-out (protocol 7.5).
    pub get_sources_timeout: Option<u64>,
    /// Seconds for one upload, and for the head of its answer (protocol 5.1).
    pub artifact_upload_timeout: u64,
    pub artifact_response_header_timeout: u64,
    pub debug_trace_disabled: bool,
    pub final_update_retries: u32,
    pub concurrent_id: u32,
    pub concurrent_project_id: u32,
}

impl RunnerSettings {
    /// A variable of `environment`; of two, the later one.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let pairs = self.environment.iter().rev().filter_map(|entry| entry.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// The trace as the manager leaves it. It is a few hundred bytes, so it travels whole: GitLab may
/// ask for any of it again (416, protocol 4.1).
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct TraceSoFar {
    /// Valid UTF-8, masked and time-stamped already.
    pub text: String,
    /// How many bytes of `text` GitLab has accepted.
    pub sent: u64,
    /// Seconds between two updates as GitLab last asked for.
    pub interval_seconds: u64,
}

impl fmt::Debug for TraceSoFar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceSoFar({} bytes, {} sent)", self.text.len(), self.sent)
    }
}

/// The agent's answer to a hand-over: one JSON line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Receipt {
    /// The job is the agent's now; the manager must not report it unless the task is lost.
    Accepted,
    /// This agent has a job already. The same id means that an earlier answer was lost.
    Busy { job: JobId },
    /// The message cannot be used; the job is still the manager's.
    Refused { reason: String },
}

/// The agent's answer to fresh addresses of its job's caches: one JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "addresses", rename_all = "snake_case")]
pub enum AddressesReceipt {
    Taken,
    /// No job runs here.
    NoJob,
}

/// What an agent says when a manager that does not know its task asks for it: one JSON line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum AgentStatus {
    /// No job was handed over: the task serves nobody.
    Idle,
    /// Enough for another manager to supervise the job, and to report it if the task is lost.
    Running {
        job: JobId,
        #[serde(serialize_with = "secret::expose")]
        token: SecretString,
        /// Seconds until the job's own time-out ends it.
        remaining_seconds: u64,
        /// [`RemoteCaches::renewal`] of the hand-over.
        #[serde(default)]
        cache_renewal: Option<String>,
    },
    /// GitLab knows the outcome; the task is about to end.
    Finished { job: JobId },
}

impl fmt::Debug for AgentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("Idle"),
            Self::Running { job, .. } => write!(f, "Running({job:?})"),
            Self::Finished { job } => write!(f, "Finished({job:?})"),
        }
    }
}
