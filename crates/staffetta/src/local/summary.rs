//! The table and the sentence at the end of a local pipeline.

use std::fmt::Write;
use std::time::Duration;

use embedded::gitlab::Status;
use serde_json::json;

/// What the table says of one job. A phase that did not happen has no duration.
#[derive(Debug, Clone)]
pub struct JobSummary {
    pub name: String,
    /// The tags of the job.
    pub environment: String,
    pub status: Status,
    /// Its failure does not fail the pipeline.
    pub allow_failure: bool,
    /// It failed and a newer job took its place.
    pub retried: bool,
    /// GitLab's word.
    pub failure_reason: Option<String>,
    pub exit_code: Option<i32>,
    /// From the queue until a runner had it.
    pub waiting: Option<Duration>,
    /// From then until its script began: task, clone, artifacts of others.
    pub starting: Option<Duration>,
    /// From then until its end.
    pub script: Option<Duration>,
    /// From the queue to the end.
    pub total: Option<Duration>,
}

/// One line per job, in the order given, columns aligned.
pub fn table(jobs: &[JobSummary], colours: bool) -> String {
    const TITLES: [&str; 7] = ["job", "environment", "state", "waiting", "starting", "script", "total"];
    /// From here on columns hold numbers, which are aligned to the right.
    const NUMBERS: usize = 3;
    let rows: Vec<[String; 7]> = jobs.iter().map(row).collect();
    let mut widths = TITLES.map(|title| title.chars().count());
    for (column, width) in widths.iter_mut().enumerate() {
        *width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(*width);
    }
    let line = |cells: &[String; 7], state_colour: Option<u8>| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let padded = if column < NUMBERS { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            let cell = match state_colour {
                Some(colour) if column == 2 => styled(colour, &padded, colours),
                Some(_) => padded,
                None => styled(1, &padded, colours),
            };
            let _ = write!(line, "{gap}{cell}");
        }
        line + "\n"
    };
    let mut table = line(&TITLES.map(str::to_owned), None);
    for (job, row) in jobs.iter().zip(&rows) {
        table += &line(row, Some(colour(job.status)));
    }
    table
}

fn row(job: &JobSummary) -> [String; 7] {
    let seconds =
        |phase: Option<Duration>| phase.map_or("-".to_owned(), |phase| format!("{:.1} s", phase.as_secs_f64()));
    let mut state = word(job.status).to_owned();
    if job.status == Status::Failed && job.retried {
        state += ", tried again";
    } else if job.status == Status::Failed && job.allow_failure {
        state += ", allowed";
    }
    [
        job.name.clone(),
        job.environment.clone(),
        state,
        seconds(job.waiting),
        seconds(job.starting),
        seconds(job.script),
        seconds(job.total),
    ]
}

/// `Pipeline passed in 41 s`, or what failed and what did not run because of it.
pub fn verdict(status: Status, jobs: &[JobSummary], took: Duration, colours: bool) -> String {
    let counted = || jobs.iter().filter(|job| !job.retried);
    let failed = |job: &&JobSummary| job.status == Status::Failed && !job.allow_failure;
    let mut parts: Vec<String> = Vec::new();
    for job in counted().filter(failed) {
        parts.push(format!("{} failed ({})", job.name, reason(job.failure_reason.as_deref(), job.exit_code)));
    }
    let named = |wanted: &dyn Fn(Status) -> bool| -> Vec<&str> {
        counted().filter(|job| wanted(job.status)).map(|job| job.name.as_str()).collect()
    };
    let mut list = |names: Vec<&str>, what: &str| {
        if !names.is_empty() {
            parts.push(format!("{} {what}", and(&names)));
        }
    };
    list(named(&|status| matches!(status, Status::Canceled | Status::Canceling)), "cancelled");
    list(named(&|status| status == Status::Manual), "waiting for a person");
    if status != Status::Success {
        list(named(&|status| matches!(status, Status::Skipped | Status::Created | Status::Pending)), "did not run");
    }
    let word = match status {
        Status::Success => format!("passed in {}", whole_seconds(took)),
        Status::Manual => "stopped".to_owned(),
        status => word(status).to_owned(),
    };
    let text = format!("Pipeline {word}");
    let text = styled(colour(status), &text, colours);
    if parts.is_empty() { text } else { format!("{text}: {}", parts.join("; ")) }
}

/// The last object of `--json`: `event` is `pipeline`; seconds are null for a phase that did not happen.
pub fn json(status: Status, jobs: &[JobSummary], took: Duration) -> String {
    let seconds = |phase: Option<Duration>| phase.map(|phase| (phase.as_secs_f64() * 1000.0).round() / 1000.0);
    let job = |job: &JobSummary| {
        json!({
            "job": job.name,
            "environment": job.environment,
            "status": job.status.word(),
            "allow_failure": job.allow_failure,
            "retried": job.retried,
            "failure_reason": job.failure_reason,
            "exit_code": job.exit_code,
            "seconds": {
                "waiting": seconds(job.waiting),
                "starting": seconds(job.starting),
                "script": seconds(job.script),
                "total": seconds(job.total),
            },
        })
    };
    let jobs: Vec<serde_json::Value> = jobs.iter().map(job).collect();
    json!({"event": "pipeline", "status": status.word(), "seconds": seconds(Some(took)), "jobs": jobs}).to_string()
}

/// Why a job failed, for people: the exit code of its script, or GitLab's reason in words.
pub(super) fn reason(failure_reason: Option<&str>, exit_code: Option<i32>) -> String {
    match (failure_reason, exit_code) {
        (Some("script_failure") | None, Some(code)) => format!("exit code {code}"),
        (Some(reason), _) => reason.replace('_', " "),
        (None, None) => "unknown reason".to_owned(),
    }
}

/// The state as people call it; GitLab's word everywhere else.
pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::Success => "passed",
        Status::Canceled => "cancelled",
        Status::Canceling => "being cancelled",
        other => other.word(),
    }
}

/// Green, red, yellow for what somebody decided, grey for what did not happen.
pub(super) fn colour(status: Status) -> u8 {
    match status {
        Status::Success => 32,
        Status::Failed => 31,
        Status::Canceled | Status::Canceling | Status::Manual => 33,
        Status::Running => 36,
        Status::Created | Status::Pending | Status::Skipped => 90,
    }
}

pub(super) fn styled(style: u8, text: &str, colours: bool) -> String {
    if colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

fn whole_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

/// `a`, `a and b`, `a, b and c`.
fn and(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, environment: &str, status: Status) -> JobSummary {
        let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds)).filter(|_| status.is_complete());
        JobSummary {
            name: name.into(),
            environment: environment.into(),
            status,
            allow_failure: false,
            retried: false,
            failure_reason: None,
            exit_code: None,
            waiting: seconds(0.02),
            starting: seconds(1.26),
            script: seconds(12.0),
            total: seconds(13.28),
        }
    }

    fn failed(name: &str, reason: &str, code: Option<i32>) -> JobSummary {
        JobSummary { failure_reason: Some(reason.into()), exit_code: code, ..job(name, "dev", Status::Failed) }
    }

    fn skipped(name: &str, status: Status) -> JobSummary {
        JobSummary { waiting: None, starting: None, script: None, total: None, ..job(name, "production", status) }
    }

    fn jobs() -> Vec<JobSummary> {
        vec![
            JobSummary { retried: true, ..failed("build-dev", "runner_system_failure", None) },
            failed("build-dev", "script_failure", Some(3)),
            JobSummary { allow_failure: true, ..failed("lint", "script_failure", Some(1)) },
            job("unit tests", "staging", Status::Success),
            skipped("deploy-dev", Status::Skipped),
            skipped("cleanup", Status::Canceled),
            skipped("release", Status::Manual),
        ]
    }

    #[test]
    fn the_table_is_aligned() {
        insta::assert_snapshot!(table(&jobs(), false));
    }

    #[test]
    fn the_table_has_colours_for_states_only() {
        insta::assert_snapshot!(table(&jobs(), true).replace('\x1b', "␛"));
    }

    #[test]
    fn the_verdict_names_what_failed_and_what_did_not_run() {
        let took = Duration::from_millis(40_600);
        let passed = [job("a", "dev", Status::Success)];
        assert_eq!(verdict(Status::Success, &passed, took, false), "Pipeline passed in 41 s");
        assert_eq!(verdict(Status::Success, &passed, took * 3, true), "\x1b[32mPipeline passed in 2 min 2 s\x1b[0m");
        let failed = [failed("build-dev", "script_failure", Some(3)), skipped("deploy-dev", Status::Skipped)];
        assert_eq!(
            verdict(Status::Failed, &failed, took, false),
            "Pipeline failed: build-dev failed (exit code 3); deploy-dev did not run"
        );
        assert_eq!(
            verdict(Status::Failed, &jobs(), took, false),
            "Pipeline failed: build-dev failed (exit code 3); cleanup cancelled; release waiting for a person; \
             deploy-dev did not run"
        );
        let canceled = [skipped("a", Status::Canceled), skipped("b", Status::Canceled), skipped("c", Status::Skipped)];
        assert_eq!(
            verdict(Status::Canceled, &canceled, took, false),
            "Pipeline cancelled: a and b cancelled; c did not run"
        );
        assert_eq!(
            verdict(Status::Manual, &[skipped("deploy", Status::Manual)], took, false),
            "Pipeline stopped: deploy waiting for a person"
        );
    }

    #[test]
    fn programs_get_every_field() {
        let object: serde_json::Value =
            serde_json::from_str(&json(Status::Failed, &jobs()[1..2], Duration::from_millis(1500))).unwrap();
        let expected = json!({
            "event": "pipeline",
            "status": "failed",
            "seconds": 1.5,
            "jobs": [{
                "job": "build-dev",
                "environment": "dev",
                "status": "failed",
                "allow_failure": false,
                "retried": false,
                "failure_reason": "script_failure",
                "exit_code": 3,
                "seconds": {"waiting": 0.02, "starting": 1.26, "script": 12.0, "total": 13.28},
            }],
        });
        assert_eq!(object, expected);
    }
}
