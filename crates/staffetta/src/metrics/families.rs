//! The metrics with their names, their labels and what Prometheus is told of them.

use std::collections::HashMap;

use aws::fargate::Calls;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::jobs::Trio;

/// Of one runner.
const TRIO: [&str; 3] = ["runner", "runner_name", "system_id"];

const OF_JOB: &[f64] = &[30., 60., 300., 600., 1800., 3600., 7200., 10800., 18000., 36000.];
const OF_QUEUE: &[f64] = &[1., 3., 10., 30., 60., 120., 300., 900., 1800., 3600.];
const OF_CALL: &[f64] = &[0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30., 60.];
const OF_LAUNCH: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 20., 30., 45., 60., 90., 120., 300., 600.];

pub struct Families {
    pub registry: Registry,
    pub jobs: IntGaugeVec,
    pub jobs_total: IntCounterVec,
    pub failed_jobs: IntCounterVec,
    pub job_duration: HistogramVec,
    pub queue_duration: HistogramVec,
    pub queue_size: GaugeVec,
    pub queue_depth: GaugeVec,
    pub queued_too_long: IntCounterVec,
    pub execution_mode: IntCounterVec,
    pub concurrent: IntGauge,
    pub limit: IntGaugeVec,
    pub requests: IntGaugeVec,
    pub requests_hard_limit: IntGaugeVec,
    pub requests_adaptive_limit: GaugeVec,
    pub requests_used_limit: IntGaugeVec,
    pub worker_slots: IntGauge,
    pub worker_feeds: IntCounterVec,
    pub worker_feed_failures: IntCounterVec,
    pub worker_health_check_failures: IntCounterVec,
    pub worker_processing_failures: IntCounterVec,
    pub api_statuses: IntCounterVec,
    pub api_duration: HistogramVec,
    pub api_attempts: IntCounterVec,
    pub errors: IntCounterVec,
    pub configuration_loaded: IntCounter,
    pub configuration_loading_error: IntCounter,
    pub configuration_saved: IntCounter,
    pub configuration_saving_error: IntCounter,
    pub cpu_seconds: Gauge,
    pub resident_bytes: Gauge,
    pub virtual_bytes: Gauge,
    pub open_fds: Gauge,
    pub max_fds: Gauge,
    pub start_time: Gauge,
    pub launch_seconds: HistogramVec,
    pub tasks_running: IntGaugeVec,
    pub aws_calls: IntCounterVec,
    pub aws_throttles: IntCounter,
}

impl Families {
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let with = |more: &[&'static str]| [&TRIO[..], more].concat();
        let families = Self {
            jobs: gauges(
                r,
                "gitlab_runner_jobs",
                "The current number of running builds.",
                &with(&["state", "stage", "executor_stage"]),
            ),
            jobs_total: counters(r, "gitlab_runner_jobs_total", "Total number of handled jobs", &TRIO),
            failed_jobs: counters(
                r,
                "gitlab_runner_failed_jobs_total",
                "Total number of jobs that the manager itself reported as failed",
                &["runner", "runner_name", "failure_reason", "mode"],
            ),
            job_duration: histograms(
                r,
                "gitlab_runner_job_duration_seconds",
                "Histogram of job durations",
                &with(&["mode"]),
                OF_JOB,
            ),
            queue_duration: histograms(
                r,
                "gitlab_runner_job_queue_duration_seconds",
                "A histogram representing job queue duration.",
                &with(&["project_jobs_running"]),
                OF_QUEUE,
            ),
            queue_size: float_gauges(
                r,
                "gitlab_runner_job_queue_size",
                "A gauge representing the size of the queue for the runner",
                &TRIO,
            ),
            queue_depth: float_gauges(
                r,
                "gitlab_runner_job_queue_depth",
                "A gauge representing the search depth in the queue for the runner",
                &TRIO,
            ),
            queued_too_long: counters(
                r,
                "gitlab_runner_acceptable_job_queuing_duration_exceeded_total",
                "Counts how often jobs exceed the configured queuing time threshold",
                &TRIO,
            ),
            execution_mode: counters(
                r,
                "gitlab_runner_job_execution_mode_total",
                "Total number of jobs grouped by execution mode and executor",
                &["mode", "executor"],
            ),
            concurrent: gauge(r, "gitlab_runner_concurrent", "The current value of concurrent setting"),
            limit: gauges(r, "gitlab_runner_limit", "The current value of limit setting, 0 is no limit", &TRIO),
            requests: gauges(
                r,
                "gitlab_runner_request_concurrency",
                "The current number of concurrent requests for a new job",
                &["runner", "system_id"],
            ),
            requests_hard_limit: gauges(
                r,
                "gitlab_runner_request_concurrency_hard_limit",
                "Configured request_concurrency limit",
                &["runner", "system_id"],
            ),
            requests_adaptive_limit: float_gauges(
                r,
                "gitlab_runner_request_concurrency_adaptive_limit",
                "Computed adaptive request concurrency limit",
                &["runner", "system_id"],
            ),
            requests_used_limit: gauges(
                r,
                "gitlab_runner_request_concurrency_used_limit",
                "Used request concurrency limit",
                &["runner", "system_id"],
            ),
            worker_slots: gauge(r, "gitlab_runner_worker_slots_number", "Current number of places for jobs"),
            worker_feeds: counters(
                r,
                "gitlab_runner_worker_feeds_total",
                "Total number of times that a runner was asked for",
                &TRIO,
            ),
            worker_feed_failures: counters(
                r,
                "gitlab_runner_worker_feed_failures_total",
                "Total number of times that a runner was not asked for because it is not healthy",
                &TRIO,
            ),
            worker_health_check_failures: counters(
                r,
                "gitlab_runner_worker_health_check_failures_total",
                "Total number of runner worker health check failures",
                &TRIO,
            ),
            worker_processing_failures: counters(
                r,
                "gitlab_runner_worker_processing_failures_total",
                "Total number of failures when processing runner worker",
                &with(&["failure_type"]),
            ),
            api_statuses: counters(
                r,
                "gitlab_runner_api_request_statuses_total",
                "The total number of API requests of the manager, by runner, system_id, endpoint, status and method.",
                &["runner", "system_id", "endpoint", "status", "method"],
            ),
            api_duration: histograms(
                r,
                "gitlab_runner_api_request_duration_seconds",
                "Latency histogram of API requests of the manager, by runner, system_id, endpoint, status_class and method.",
                &["runner", "system_id", "endpoint", "status_class", "method"],
                OF_CALL,
            ),
            api_attempts: counters(
                r,
                "gitlab_runner_api_request_retries_total",
                "The total number of attempts that requests took, by path and method.",
                &["path", "method"],
            ),
            errors: counters(r, "gitlab_runner_errors_total", "The number of caught errors.", &["level"]),
            configuration_loaded: counter(
                r,
                "gitlab_runner_configuration_loaded_total",
                "Total number of times the configuration file was loaded",
            ),
            configuration_loading_error: counter(
                r,
                "gitlab_runner_configuration_loading_error_total",
                "Total number of times the configuration file could not be loaded",
            ),
            configuration_saved: counter(
                r,
                "gitlab_runner_configuration_saved_total",
                "Total number of times the configuration file was saved",
            ),
            configuration_saving_error: counter(
                r,
                "gitlab_runner_configuration_saving_error_total",
                "Total number of times the configuration file could not be saved",
            ),
            cpu_seconds: number(r, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
            resident_bytes: number(r, "process_resident_memory_bytes", "Resident memory size in bytes."),
            virtual_bytes: number(r, "process_virtual_memory_bytes", "Virtual memory size in bytes."),
            open_fds: number(r, "process_open_fds", "Number of open file descriptors."),
            max_fds: number(r, "process_max_fds", "Maximum number of open file descriptors."),
            start_time: number(
                r,
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
            launch_seconds: histograms(
                r,
                "staffetta_launch_seconds",
                "Seconds of each phase from a job's arrival to its hand-over: run_task, start, hand_over.",
                &with(&["phase"]),
                OF_LAUNCH,
            ),
            tasks_running: gauges(r, "staffetta_tasks_running", "Jobs that are with the agent in their task.", &TRIO),
            aws_calls: counters(r, "staffetta_aws_calls_total", "Calls to AWS, every attempt counted.", &["api"]),
            aws_throttles: counter(r, "staffetta_aws_throttles_total", "Calls that AWS throttled."),
            registry: registry.clone(),
        };
        families.of_version();
        families
    }

    fn of_version(&self) {
        let labels = ["name", "version", "revision", "branch", "go_version", "built_at", "os", "architecture"];
        let help = "A metric with a constant '1' value labeled by different build stats fields.";
        let values = [job::PRODUCT, job::VERSION, "HEAD", "main", "", "", std::env::consts::OS];
        let values = [&values[..], &[job::variables::architecture()]].concat();
        gauges(&self.registry, "gitlab_runner_version_info", help, &labels).with_label_values(&values).set(1);
    }

    pub fn of_aws(&self, calls: Calls) {
        let Calls { run_task, describe_tasks, stop_task, list_tasks, describe_network_interfaces, throttled } = calls;
        self.aws_calls.reset();
        for (api, count) in [
            ("RunTask", run_task),
            ("DescribeTasks", describe_tasks),
            ("StopTask", stop_task),
            ("ListTasks", list_tasks),
            ("DescribeNetworkInterfaces", describe_network_interfaces),
        ] {
            self.aws_calls.with_label_values(&[api]).inc_by(count);
        }
        self.aws_throttles.reset();
        self.aws_throttles.inc_by(throttled);
    }

    /// Drops every series of a runner that is none of these: who renames runners, or whose tokens are renewed, would have
    /// more of them for ever.
    pub fn keep_only(&self, runners: &[Trio]) {
        for counters in [
            &self.jobs_total,
            &self.failed_jobs,
            &self.queued_too_long,
            &self.worker_feeds,
            &self.worker_feed_failures,
            &self.worker_health_check_failures,
            &self.worker_processing_failures,
            &self.api_statuses,
        ] {
            drop_others(counters, runners);
        }
        // `jobs` and `tasks_running` are made anew for each reader.
        for gauges in [&self.limit, &self.requests, &self.requests_hard_limit, &self.requests_used_limit] {
            drop_others(gauges, runners);
        }
        for gauges in [&self.queue_size, &self.queue_depth, &self.requests_adaptive_limit] {
            drop_others(gauges, runners);
        }
        for histograms in [&self.job_duration, &self.queue_duration, &self.api_duration, &self.launch_seconds] {
            drop_others(histograms, runners);
        }
    }

    /// One of [`Self::launch_seconds`].
    pub fn launch(&self, trio: &[String; 3], phase: &str) -> Histogram {
        let [runner, name, system_id] = trio.each_ref().map(String::as_str);
        self.launch_seconds.with_label_values(&[runner, name, system_id, phase])
    }
}

/// A series without the runner's name stays for as long as any runner has its token.
fn drop_others<T: MetricVecBuilder>(family: &MetricVec<T>, runners: &[Trio]) {
    for gathered in family.collect() {
        for metric in gathered.get_metric() {
            let labels: HashMap<_, _> = metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            let is = |label: &str, value: &str| labels.get(label).is_none_or(|found| *found == value);
            if !runners.iter().any(|trio| is("runner", &trio[0]) && is("runner_name", &trio[1])) {
                // It was there a moment ago; who dropped it meanwhile did the same.
                let _ = family.remove(&labels);
            }
        }
    }
}

const WELL_FORMED: &str = "names and labels are constants of this file, each used once";

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let made = IntGaugeVec::new(Opts::new(name, help), labels).expect(WELL_FORMED);
    registry.register(Box::new(made.clone())).expect(WELL_FORMED);
    made
}

fn float_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let made = GaugeVec::new(Opts::new(name, help), labels).expect(WELL_FORMED);
    registry.register(Box::new(made.clone())).expect(WELL_FORMED);
    made
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let made = IntCounterVec::new(Opts::new(name, help), labels).expect(WELL_FORMED);
    registry.register(Box::new(made.clone())).expect(WELL_FORMED);
    made
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let made = HistogramVec::new(options, labels).expect(WELL_FORMED);
    registry.register(Box::new(made.clone())).expect(WELL_FORMED);
    made
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let made = IntGauge::new(name, help).expect(WELL_FORMED);
    registry.register(Box::new(made.clone())).expect(WELL_FORMED);
    made
}

fn number(registry: &Registry, name: &str, help: &str) -> Gauge {
    let made = Gauge::new(name, help).expect(WELL_FORMED);
    registry.register(Box::new(made.clone())).expect(WELL_FORMED);
    made
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let made = IntCounter::new(name, help).expect(WELL_FORMED);
    registry.register(Box::new(made.clone())).expect(WELL_FORMED);
    made
}
