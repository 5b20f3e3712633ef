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
        self.families.limit.reset();
        for runner in &config.runners {
            let limit = runner.limit.map_or(0, |limit| gauge(limit.get()));
            self.of_runner(runner).limit(limit);
        }
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
