//! What the manager counts, for Prometheus: GitLab's names and labels where they have a meaning here (protocol 10.6),
//! and a few of our own, which begin with `staffetta_`. docs/metrics.md tells each.
//!
//! Counting is an addition to a number in memory; text is made only for who asks.

mod api;
mod families;
pub mod http;
mod jobs;
pub mod log;
mod process;
mod runner;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws::fargate::Regions;
use job::ids::SystemId;
use prometheus::TextEncoder;
use tokio::sync::Mutex;

use crate::config::Config;
use families::Families;
use jobs::Jobs;
pub use jobs::{JobEntry, Phase};
pub use runner::RunnerMetrics;

pub struct Metrics {
    system_id: SystemId,
    families: Arc<Families>,
    jobs: Arc<Jobs>,
    regions: Regions,
    /// No more jobs are asked for.
    stopping: AtomicBool,
    /// One text at a time: some numbers are set for it.
    text: Mutex<()>,
}

impl Metrics {
    /// `regions` are those that the runners are connected with.
    pub fn new(system_id: SystemId, regions: Regions) -> Self {
        let families = Arc::new(Families::new());
        let jobs = Arc::default();
        Self { system_id, families, jobs, regions, stopping: AtomicBool::new(false), text: Mutex::new(()) }
    }

    /// To be called with the first configuration and with each later one.
    pub fn configured(&self, config: &Config) {
        self.families.concurrent.set(gauge(config.concurrent));
        self.families.worker_slots.set(gauge(config.concurrent));
        let mut configured = Vec::new();
        for runner in &config.runners {
            let limit = runner.limit.map_or(0, |limit| gauge(limit.get()));
            let metrics = self.of_runner(runner);
            metrics.limit(limit);
            configured.push(metrics.trio);
        }
        self.families.keep_only(&self.jobs.keep_only(&configured));
        self.families.configuration_loaded.inc();
    }

    pub fn configuration_refused(&self) {
        self.families.configuration_loading_error.inc();
    }

    /// Whether a renewed token could be written into the configuration.
    pub fn configuration_saved(&self, saved: bool) {
        let counter =
            if saved { &self.families.configuration_saved } else { &self.families.configuration_saving_error };
        counter.inc();
    }

    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Everything, as Prometheus reads it (text format 0.0.4).
    async fn text(&self) -> String {
        let _alone = self.text.lock().await;
        self.jobs.count_into(&self.families, self.system_id.as_str());
        self.families.of_aws(self.regions.calls().await);
        log::count_into(&self.families);
        process::measure_into(&self.families);
        let gathered = self.families.registry.gather();
        TextEncoder::new().encode_to_string(&gathered).unwrap_or_default()
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, token: &str) -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.toml");
        let text = format!(
            "concurrent = 2\n[[runners]]\nname = {name:?}\nurl = \"https://gitlab.example.com\"\ntoken = {token:?}\nexecutor = \"fargate\"\n\
             [runners.fargate]\ncluster = \"ci\"\nsubnets = [\"subnet-1\"]\nsecurity_groups = [\"sg-1\"]\ntask_definition = \"ci\"\n"
        );
        std::fs::write(&file, text).expect("a file");
        crate::config::load(&file).expect("a configuration").config
    }

    #[tokio::test]
    async fn series_of_a_runner_that_is_gone_go_with_its_last_job() {
        const OLD: &str = "glrt-t1_aaaaaaaaaaaa";
        const NEW: &str = "glrt-t1_bbbbbbbbbbbb";
        let metrics = Metrics::new(SystemId::new("s_000000000000"), Regions::default());
        let old = config("dev", OLD);
        metrics.configured(&old);
        let runner = metrics.of_runner(&old.runners[0]);
        drop(runner.asks());
        let job = runner.took_up().is_with_its_agent();
        let lines = async |text: &str| metrics.text().await.lines().filter(|line| line.contains(text)).count();

        metrics.configured(&config("renamed", OLD));
        assert!(lines("runner_name=\"dev\"").await > 0, "it has a job");
        drop(job);
        metrics.configured(&config("renamed", OLD));
        assert_eq!(lines("runner_name=\"dev\"").await, 0);
        assert!(lines("gitlab_runner_request_concurrency{").await > 0, "these are of the token");

        metrics.configured(&config("renamed", NEW));
        assert_eq!(lines("aaaaaaaa").await, 0);
        assert!(lines("bbbbbbbb").await > 0);
        assert!(lines("gitlab_runner_configuration_loaded_total 4").await > 0, "what is of no runner stays");
    }
}
