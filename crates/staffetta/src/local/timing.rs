//! How long the parts of a job's life took, from what GitLab knows and from the job's own log.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use embedded::gitlab::JobView;

use super::summary::JobSummary;

/// The section in which the job's script runs (protocol 4.9).
const SCRIPT: &str = ":step_script";
/// A marker with its time stamp is shorter.
const WINDOW: usize = 512;

/// Watches the logs for the moment at which each script begins.
#[derive(Default)]
pub struct Timing {
    jobs: HashMap<u64, Watched>,
}

enum Watched {
    /// The end of the log so far.
    Waiting(Vec<u8>),
    Began(SystemTime),
}

impl Timing {
    /// `bytes` of the job's trace came at `now`.
    pub fn trace(&mut self, job: u64, bytes: &[u8], now: SystemTime) {
        let watched = self.jobs.entry(job).or_insert_with(|| Watched::Waiting(Vec::new()));
        let Watched::Waiting(tail) = watched else { return };
        tail.extend_from_slice(bytes);
        if let Some(began) = script_began(tail, now) {
            *watched = Watched::Began(began);
        } else {
            tail.drain(..tail.len().saturating_sub(WINDOW));
        }
    }

    pub fn summary(&self, job: &JobView, environment: String) -> JobSummary {
        let began = match self.jobs.get(&job.id) {
            Some(Watched::Began(began)) => Some(*began),
            _ => None,
        };
        JobSummary {
            name: job.name.clone(),
            environment,
            status: job.status,
            allow_failure: job.allow_failure,
            retried: job.retried,
            failure_reason: job.failure_reason.clone(),
            exit_code: job.exit_code,
            waiting: between(job.queued_at, job.started_at),
            // Without a script all of it was start.
            starting: between(job.started_at, began.or(job.finished_at)),
            script: between(began, job.finished_at),
            total: between(job.queued_at, job.finished_at),
        }
    }
}

/// By the time stamp of the marker's line, because the log comes late; without one, `now`.
fn script_began(log: &[u8], now: SystemTime) -> Option<SystemTime> {
    let log = String::from_utf8_lossy(log);
    let marker = log.match_indices("section_start:").find(|(index, word)| {
        let rest = log[index + word.len()..].trim_start_matches(|c: char| c.is_ascii_digit());
        // The character behind the name shows that the name is whole.
        rest.strip_prefix(SCRIPT).is_some_and(|rest| rest.starts_with(['\r', '[']))
    });
    let (index, _) = marker?;
    let line = log[..index].rsplit('\n').next().unwrap_or_default();
    let stamp = line.split(' ').next().and_then(|stamp| stamp.parse::<jiff::Timestamp>().ok());
    Some(stamp.map_or(now, SystemTime::from))
}

fn between(from: Option<SystemTime>, to: Option<SystemTime>) -> Option<Duration> {
    // Clocks of one machine still step: such a phase took no time.
    Some(to?.duration_since(from?).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: SystemTime = SystemTime::UNIX_EPOCH;

    fn began(pieces: &[&str]) -> Option<u128> {
        let mut timing = Timing::default();
        pieces.iter().for_each(|piece| timing.trace(1, piece.as_bytes(), LATE));
        match timing.jobs.get(&1) {
            Some(Watched::Began(at)) => Some(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()),
            _ => None,
        }
    }

    #[test]
    fn the_script_begins_at_the_stamp_of_its_section() {
        let log = "1970-01-01T00:00:01.000000Z 00O section_start:1:get_sources\r\x1b[0K\n\
                   1970-01-01T00:00:02.500000Z 00O section_start:2:step_script\r\x1b[0K\n";
        assert_eq!(began(&[log]), Some(2500));
        let (one, two) = log.split_at(log.len() - 15);
        assert_eq!(began(&[one]), None);
        assert_eq!(began(&[one, two, "section_start:9:step_script\r"]), Some(2500));
        assert_eq!(began(&[&"x".repeat(5000), "\n", log]), Some(2500));
    }

    #[test]
    fn without_a_stamp_it_begins_when_the_section_is_seen() {
        assert_eq!(began(&["section_start:7:step_script[collapsed=true]\r\x1b[0K"]), Some(0));
        assert_eq!(began(&["section_start:7:step_script_other\r", "section_end:7:step_script\r"]), None);
    }
}
