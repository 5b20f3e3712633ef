//! One `[[runners]]` entry at work: one token, one environment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use aws::fargate::{Fargate, FargateConfig, Regions};
use gitlab::{AssignedJob, Client, ClientConfig, Info};
use job::hand_over::{GitLabAccess, RunnerSettings};
use job::ids::{JobId, ShortToken, SystemId};
use job::secret::ExposeSecret;
use ssh::client::Target;
use ssh::keys::{HostKey, Nonce, TaskKey};
use tokio_util::sync::CancellationToken;

use super::cache::CacheStore;
use super::lock;
use super::slots::RunnerSlots;
use crate::config;
use crate::metrics::{Metrics, RunnerMetrics};

/// What GitLab shows as the executor of a runner.
const EXECUTOR: &str = "fargate";

pub struct Runner {
    pub settings: config::Runner,
    pub short_token: ShortToken,
    /// What ECS knows the runner's tasks by.
    pub started_by: String,
    pub client: Client,
    pub fargate: Fargate,
    /// None: caches stay in their tasks.
    pub caches: Option<Arc<CacheStore>>,
    pub metrics: RunnerMetrics,
    /// Set when the entry left the configuration or changed: no more asking with these settings.
    pub retired: CancellationToken,
    pub state: Arc<RunnerState>,
}

/// What a runner keeps when its settings are read again.
#[derive(Debug, Default)]
pub struct RunnerState {
    pub slots: Arc<RunnerSlots>,
    cursor: Mutex<Option<String>>,
    /// A job is there once for each part of the manager that has it.
    held: Mutex<BTreeMap<JobId, usize>>,
}

/// A job that this manager is responsible for, from GitLab's answer on; until dropped.
#[derive(Debug)]
pub struct Held {
    state: Arc<RunnerState>,
    job: JobId,
}

impl Runner {
    pub async fn connect(
        settings: config::Runner,
        regions: &Regions,
        metrics: &Metrics,
        state: Arc<RunnerState>,
        system_id: &SystemId,
    ) -> anyhow::Result<Self> {
        let metrics = metrics.of_runner(&settings);
        let short_token = ShortToken::of(settings.token.expose_secret());
        let info = Info { labels: settings.labels.clone(), ..Info::new(EXECUTOR, &settings.shell) };
        let client = Client::new(ClientConfig {
            tls_ca_file: settings.tls_ca_file.clone(),
            tls_cert_file: settings.tls_cert_file.clone(),
            tls_key_file: settings.tls_key_file.clone(),
            connection_max_age: settings.connection_max_age,
            ..ClientConfig::new(&settings.url, info)
        })
        .with_context(|| format!("runner {:?}", settings.name))?;
        let observer = metrics.clone();
        let client = client.observed(move |called| observer.called(called));
        let role = settings.fargate.runner_role(&format!("{}.{system_id}.{}", job::PRODUCT, settings.name));
        let fargate = FargateConfig { role, ..settings.fargate.clone() };
        let fargate =
            Fargate::connect(&fargate, regions).await.with_context(|| format!("runner {:?}", settings.name))?;
        let caches = CacheStore::connect(&settings, &fargate).await;
        let started_by = started_by(&short_token);
        let retired = CancellationToken::new();
        Ok(Self { settings, short_token, started_by, client, fargate, caches, metrics, retired, state })
    }

    /// The jobs of one are the jobs of the other. The token alone decides, as it does for ECS: a URL that is written
    /// anew must not make the jobs that are held look like those of an earlier manager.
    pub fn has_identity_of(&self, settings: &config::Runner) -> bool {
        self.settings.token.expose_secret() == settings.token.expose_secret()
    }

    /// How to reach a task of this runner: the key comes from the runner's token and the task's nonce.
    pub fn ssh_target(&self, address: IpAddr, nonce: &Nonce, pinned: Option<HostKey>) -> Target {
        Target {
            addr: SocketAddr::new(address, self.settings.fargate.ssh_port),
            user: self.settings.fargate.ssh_user.clone(),
            key: TaskKey::derive(&self.settings.token, nonce),
            pinned,
        }
    }

    /// How the job's agent, and the job itself, reach GitLab.
    pub fn gitlab_access(&self, assigned: &AssignedJob) -> GitLabAccess {
        GitLabAccess {
            url: self.settings.url.clone(),
            tls_ca: assigned.tls_chain_pem.clone(),
            tls_client: self.client.certificate(),
            correlation_id: assigned.correlation_id.clone(),
        }
    }

    /// What of the settings the agent needs.
    pub fn for_hand_over(&self, system_id: &SystemId, numbers: (u32, u32)) -> RunnerSettings {
        let settings = &self.settings;
        RunnerSettings {
            name: settings.name.clone(),
            short_token: self.short_token.clone(),
            system_id: system_id.clone(),
            builds_dir: settings.builds_dir.clone(),
            cache_dir: settings.cache_dir.clone(),
            environment: settings.environment.clone(),
            feature_flags: settings.feature_flags.clone(),
            output_limit: settings.output_limit,
            shell: settings.shell.clone(),
            pre_get_sources_script: settings.pre_get_sources_script.clone(),
            post_get_sources_script: settings.post_get_sources_script.clone(),
            pre_build_script: settings.pre_build_script.clone(),
            post_build_script: settings.post_build_script.clone(),
            clone_url: settings.clone_url.clone(),
            custom_build_dir: settings.custom_build_dir,
            safe_directory_checkout: settings.safe_directory_checkout,
            clean_git_config: settings.clean_git_config,
            get_sources_timeout: settings.get_sources_timeout.map(|timeout| timeout.as_secs()),
            artifact_upload_timeout: settings.artifact_upload_timeout.as_secs(),
            artifact_response_header_timeout: settings.artifact_response_header_timeout.as_secs(),
            debug_trace_disabled: settings.debug_trace_disabled,
            final_update_retries: settings.job_status_final_update_retry_limit,
            concurrent_id: numbers.0,
            concurrent_project_id: numbers.1,
        }
    }
}

impl RunnerState {
    pub fn hold(self: &Arc<Self>, job: JobId) -> Held {
        *lock(&self.held).entry(job).or_default() += 1;
        Held { state: self.clone(), job }
    }

    pub fn held(&self) -> BTreeSet<JobId> {
        lock(&self.held).keys().copied().collect()
    }

    /// The cursor of `jobs/request`: with it GitLab may hold the request until there is work (protocol 2.5).
    pub fn cursor(&self) -> Option<String> {
        lock(&self.cursor).clone()
    }

    pub fn set_cursor(&self, cursor: Option<String>) {
        if cursor.is_some() {
            *lock(&self.cursor) = cursor;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = lock(&self.state.held);
        let holders = held.entry(self.job).or_default();
        *holders = holders.saturating_sub(1);
        held.retain(|_, holders| *holders > 0);
    }
}

/// `startedBy` takes letters, digits, `-`, `/` and `_` (facts 1.1). The runner's identity lives there
/// because StopTask removes a task's tags.
fn started_by(short_token: &ShortToken) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    format!("{}/{}", job::PRODUCT, short_token.as_str().chars().map(safe).collect::<String>())
}
