//! What the manager writes into a job's log: who runs it, what is awaited, and how long each phase took.

use std::time::SystemTime;

use gitlab::{Client, JobAccess, JobTrace, ReportError, Reported};
use job::hand_over::{RunnerSettings, TraceSoFar};
use job::outcome::Outcome;
use job::payload::Payload;
use job::trace::{Stream, TraceSettings, line};
use job::variables::{Variables, parse_bool};

/// The log of one job until the agent takes it over.
pub struct JobLog {
    trace: JobTrace,
    client: Client,
    access: JobAccess,
    settings: TraceSettings,
    debug: bool,
    known_failure_reasons: Vec<String>,
    final_update_retries: u32,
    sections: bool,
    /// The section that is open.
    section: Option<&'static str>,
}

impl JobLog {
    /// Starts the trace of a job that has none yet.
    pub fn open(
        client: Client,
        access: JobAccess,
        payload: &Payload,
        runner: &RunnerSettings,
        variables: &Variables,
    ) -> Self {
        let settings = variables.trace_settings(payload, runner);
        let on = |key| payload.variable(key).is_some_and(|on| parse_bool(on) == Some(true));
        let debug = (on("CI_DEBUG_TRACE") || on("CI_DEBUG_SERVICES")) && !runner.debug_trace_disabled;
        let trace = JobTrace::start(client.clone(), access.clone(), &settings, TraceSoFar::default(), debug);
        let log = Self {
            trace,
            client,
            access,
            settings,
            debug,
            known_failure_reasons: payload.features.failure_reasons.clone(),
            final_update_retries: runner.final_update_retries,
            sections: payload.features.trace_sections,
            section: None,
        };
        log.say(&format!("Running with {} {}", job::PRODUCT, job::VERSION));
        log.say(&format!("  on {} {}, system ID: {}", runner.name, runner.short_token, runner.system_id));
        let flags = variables.unusual_flags();
        if !flags.is_empty() {
            log.say(&format!("  feature flags: {flags}"));
        }
        log
    }

    /// Masks what the job's secrets turned out to be, too.
    pub fn mask(&mut self, settings: TraceSettings) {
        self.settings = settings;
        self.trace.follow(&self.settings);
    }

    /// Begins a section (protocol 4.9) and ends the one before it.
    pub fn section(&mut self, name: &'static str, title: &str) {
        self.close_section();
        self.section = Some(name);
        self.marker(|now| line::section_start(name, now, &[]));
        self.trace.line(&line::title(title));
    }

    pub fn say(&self, text: &str) {
        self.trace.line(&line::plain(text));
    }

    pub fn warn(&self, text: &str) {
        self.trace.line(&line::warning(text));
    }

    /// A phase that is over. Seconds with one digit: nobody waits for milliseconds of a cold start.
    pub fn phase(&self, name: &str, seconds: f64) {
        self.say(&format!("  {name}: {seconds:.1} s"));
    }

    pub fn settings(&self) -> &TraceSettings {
        &self.settings
    }

    pub fn signal(&self) -> tokio::sync::watch::Receiver<gitlab::Signal> {
        self.trace.signal()
    }

    /// Closes the manager's part and gives the trace to the agent.
    pub async fn hand_over(&mut self) -> TraceSoFar {
        self.close_section();
        self.trace.suspend().await
    }

    /// The hand-over failed: the trace is the manager's again.
    pub fn reopen(&mut self, so_far: TraceSoFar) {
        self.trace = JobTrace::start(self.client.clone(), self.access.clone(), &self.settings, so_far, self.debug);
    }

    /// The end of a job that no agent took over.
    pub async fn finish(mut self, outcome: &Outcome) -> Result<Reported, ReportError> {
        self.close_section();
        self.trace.line(&closing_line(outcome));
        self.trace.finish(outcome, &self.known_failure_reasons, self.final_update_retries).await
    }

    fn close_section(&mut self) {
        if let Some(name) = self.section.take() {
            self.marker(|now| line::section_end(name, now));
        }
    }

    fn marker(&self, marker: impl FnOnce(u64) -> String) {
        if self.sections {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.trace.write(Stream::Runner, marker(now).as_bytes());
        }
    }
}

/// The last line of a job's log.
pub fn closing_line(outcome: &Outcome) -> String {
    let text = outcome.closing_line();
    match text.strip_prefix("ERROR: ") {
        Some(error) => line::error(error),
        None => line::info(&text),
    }
}
