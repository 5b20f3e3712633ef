//! The layer of patience under every call (0.4), as pure rules.

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Attempts in total; the last answer goes to the caller as it is.
pub(crate) const ATTEMPTS: u32 = 5;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
const LONGEST_ASKED: Duration = Duration::from_secs(15 * 60);

/// Transport errors are not among them: their callers know better what to do.
pub(crate) fn is_retriable(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 512..)
}

/// How long to wait after the attempt with this answer; attempts count from 1, `jitter` is within 0 and 1.
pub(crate) fn pause(headers: &HeaderMap, attempt: u32, now: SystemTime, jitter: f64) -> Duration {
    asked_for(headers, now).unwrap_or_else(|| backoff(attempt, jitter))
}

/// How long the server asks to be left alone, but not for longer than a job or a runner can wait for what may be a slip.
pub(crate) fn asked_for(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    reset_time(headers, now).or_else(|| retry_after(headers)).map(|pause| pause.min(LONGEST_ASKED))
}

fn reset_time(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get("ratelimit-resettime")?.to_str().ok()?;
    let reset = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Duration::try_from(reset - Timestamp::try_from(now).ok()?).ok().filter(|pause| !pause.is_zero())
}

/// Whole seconds only; GitLab sends no dates here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Half of it is certain, the other half is jitter: managers that failed together do not return together.
fn backoff(attempt: u32, jitter: f64) -> Duration {
    let whole = SHORTEST.saturating_mul(2_u32.saturating_pow(attempt - 1)).min(LONGEST);
    whole.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_answers_that_may_pass_are_asked_again() {
        for status in [408, 429, 500, 502, 503, 504, 512, 599] {
            assert!(is_retriable(status), "{status}");
        }
        for status in [200, 201, 400, 403, 404, 409, 416, 501, 505, 507, 511] {
            assert!(!is_retriable(status), "{status}");
        }
    }

    #[test]
    fn the_server_says_how_long_to_wait() {
        // 1994-11-06 08:49:37 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let both = [("ratelimit-resettime", "Sun, 06 Nov 1994 08:49:47 GMT"), ("retry-after", "60")];
        assert_eq!(pause(&headers(&both), 1, now, 0.0), Duration::from_secs(10));
        let far = [("retry-after", "86400")];
        assert_eq!(pause(&headers(&far), 1, now, 0.0), LONGEST_ASKED);
        let past = [("ratelimit-resettime", "Sun, 06 Nov 1994 08:49:30 GMT"), ("retry-after", "60")];
        assert_eq!(pause(&headers(&past), 1, now, 0.0), Duration::from_secs(60));
        assert_eq!(pause(&headers(&[("retry-after", "0")]), 1, now, 1.0), Duration::from_millis(100));
        assert_eq!(pause(&headers(&[("retry-after", "soon")]), 1, now, 1.0), Duration::from_millis(100));
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute() {
        let none = HeaderMap::new();
        let pauses: Vec<_> =
            (1..=4).map(|attempt| pause(&none, attempt, SystemTime::UNIX_EPOCH, 1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800]);
        assert_eq!(pause(&none, 40, SystemTime::UNIX_EPOCH, 1.0), LONGEST);
        assert_eq!(pause(&none, 1, SystemTime::UNIX_EPOCH, 0.0), Duration::from_millis(50));
    }
}
