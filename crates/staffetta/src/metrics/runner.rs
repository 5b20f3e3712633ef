//! What is counted of one runner.

use std::sync::Arc;
use std::time::Instant;

use gitlab::{AdaptiveConcurrency, Called};
use job::ids::ShortToken;
use job::outcome::Outcome;
use job::payload::Payload;
use job::secret::ExposeSecret;
use prometheus::IntGauge;

use super::families::Families;
use super::jobs::{JobEntry, Jobs, Trio};
use super::{Metrics, api, gauge};
use crate::config;

/// The one way in which jobs run here; GitLab's runner has `steps` too.
const MODE: &str = "traditional";
const EXECUTOR: &str = "fargate";

/// A clone counts the same runner.
#[derive(Clone)]
pub struct RunnerMetrics {
    families: Arc<Families>,
    jobs: Arc<Jobs>,
    pub(super) trio: Trio,
    url: Arc<str>,
}

/// A request for a job that is under way; until dropped.
pub struct Asking(IntGauge);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Every number of the runner is there from now on, at 0.
    pub fn of_runner(&self, settings: &config::Runner) -> RunnerMetrics {
        let short_token = ShortToken::of(settings.token.expose_secret());
        let trio = [short_token.as_str().to_owned(), settings.name.clone(), self.system_id.as_str().to_owned()];
        let metrics = RunnerMetrics {
            families: self.families.clone(),
            jobs: self.jobs.clone(),
            trio: Arc::new(trio),
            url: settings.url.trim_end_matches('/').into(),
        };
        let families = &self.families;
        for counter in [
            &families.jobs_total,
            &families.worker_feeds,
            &families.worker_feed_failures,
            &families.worker_health_check_failures,
            &families.queued_too_long,
        ] {
            counter.with_label_values(&metrics.trio());
        }
        for kind in ["other", "job_failure"] {
            metrics.processing_failure(kind, 0);
        }
        families.requests_hard_limit.with_label_values(&metrics.pair()).set(gauge(settings.request_concurrency));
        self.jobs.known(&metrics.trio);
        metrics
    }
}

impl RunnerMetrics {
    fn trio(&self) -> [&str; 3] {
        self.trio.each_ref().map(String::as_str)
    }

    fn pair(&self) -> [&str; 2] {
        [&self.trio[0], &self.trio[2]]
    }

    pub(super) fn limit(&self, limit: i64) {
        self.families.limit.with_label_values(&self.trio()).set(limit);
    }

    /// A request for a job goes out.
    pub fn asks(&self) -> Asking {
        self.families.worker_feeds.with_label_values(&self.trio()).inc();
        let requests = self.families.requests.with_label_values(&self.pair());
        requests.inc();
        Asking(requests)
    }

    pub fn may_ask(&self, concurrency: &AdaptiveConcurrency) {
        self.families.requests_adaptive_limit.with_label_values(&self.pair()).set(concurrency.exact());
        self.families.requests_used_limit.with_label_values(&self.pair()).set(concurrency.limit().into());
    }

    /// The runner rests (protocol 2.8).
    pub fn rests(&self) {
        self.families.worker_feed_failures.with_label_values(&self.trio()).inc();
    }

    pub fn refused(&self) {
        self.families.worker_health_check_failures.with_label_values(&self.trio()).inc();
    }

    pub fn called(&self, called: &Called) {
        let method = called.method.as_str().to_ascii_lowercase();
        let template = api::template(called.path);
        self.families.api_attempts.with_label_values(&[&template, &method]).inc_by(called.attempts.into());
        let Some(endpoint) = api::endpoint(called) else { return };
        let [runner, system_id] = self.pair();
        let (status, class) = (api::status(called), api::status_class(called));
        let families = &self.families;
        families.api_statuses.with_label_values(&[runner, system_id, endpoint, &status, &method]).inc();
        let durations = families.api_duration.with_label_values(&[runner, system_id, endpoint, class, &method]);
        durations.observe(called.took.as_secs_f64());
    }

    /// A job came. `queued_too_long`: longer than `job_queuing_durations` has it.
    pub fn received(&self, payload: &Payload, queued_too_long: bool) -> JobEntry {
        let (families, trio, info) = (&self.families, self.trio(), &payload.job_info);
        families.jobs_total.with_label_values(&trio).inc();
        let [runner, name, system_id] = trio;
        let running = info.project_jobs_running_on_instance_runners_count.as_str();
        let queued = families.queue_duration.with_label_values(&[runner, name, system_id, running]);
        queued.observe(info.time_in_queue_seconds);
        families.queue_size.with_label_values(&trio).set(info.queue_size);
        families.queue_depth.with_label_values(&trio).set(info.queue_depth);
        if queued_too_long {
            families.queued_too_long.with_label_values(&trio).inc();
        }
        let url = match info.project_full_path.as_str() {
            "" => String::new(),
            project => format!("{}/{project}/-/jobs/{}", self.url, payload.id),
        };
        families.execution_mode.with_label_values(&[MODE, EXECUTOR]).inc();
        self.entry(url)
    }

    /// A job that an earlier manager received.
    pub fn took_up(&self) -> JobEntry {
        self.entry(String::new())
    }

    fn entry(&self, url: String) -> JobEntry {
        let [runner, name, system_id] = self.trio();
        let duration = self.families.job_duration.with_label_values(&[runner, name, system_id, MODE]);
        self.jobs.enter(self.families.clone(), self.trio.clone(), url, duration, Instant::now())
    }

    /// The manager itself reports how a job ended: its agent did not.
    pub fn reported(&self, outcome: &Outcome) {
        let Some(reason) = outcome.failure_reason() else { return };
        let [runner, name, _] = self.trio();
        self.families.failed_jobs.with_label_values(&[runner, name, reason.as_str(), MODE]).inc();
        self.processing_failure("job_failure", 1);
    }

    /// A job came that could not be read.
    pub fn unreadable(&self) {
        self.processing_failure("other", 1);
    }

    fn processing_failure(&self, kind: &str, count: u64) {
        let [runner, name, system_id] = self.trio();
        let failures = &self.families.worker_processing_failures;
        failures.with_label_values(&[runner, name, system_id, kind]).inc_by(count);
    }
}
