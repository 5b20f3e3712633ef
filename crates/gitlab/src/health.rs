//! Whether and how often a runner is asked for jobs, as pure rules (2.7, 2.8).

use std::time::{Duration, Instant};

/// Whether a runner is worth asking for. Only a refused token is unhealthy.
#[derive(Debug, Clone)]
pub struct Health {
    limit: u32,
    pause: Duration,
    failures: u32,
    /// The last healthy answer or forced request.
    checked: Instant,
}

impl Health {
    /// GitLab's defaults: 3 refusals in a row, then a pause of 60 minutes.
    pub fn new(limit: u32, pause: Duration, now: Instant) -> Self {
        Self { limit, pause, failures: 0, checked: now }
    }

    /// May the runner be asked now? After the pause: yes, once more, with a clean record.
    pub fn may_ask(&mut self, now: Instant) -> bool {
        if self.failures < self.limit {
            return true;
        }
        if now.duration_since(self.checked) > self.pause {
            self.failures = 0;
            self.checked = now;
            return true;
        }
        false
    }

    pub fn record(&mut self, healthy: bool, now: Instant) {
        if healthy {
            self.failures = 0;
            self.checked = now;
        } else {
            self.failures += 1;
        }
    }
}

/// How a request for a job ended, as far as the number of simultaneous requests depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Job,
    /// No job, or no answer.
    Nothing,
    /// The server asked for patience, whatever came after.
    Pressure,
}

/// How many requests for jobs a runner may have under way (`FF_USE_ADAPTIVE_REQUEST_CONCURRENCY`).
#[derive(Debug, Clone)]
pub struct AdaptiveConcurrency {
    most: f64,
    limit: f64,
    adapts: bool,
}

impl AdaptiveConcurrency {
    /// `most` is `request_concurrency`; without the flag it is the limit from the first request on.
    pub fn new(most: u32, adapts: bool) -> Self {
        let most = f64::from(most.max(1));
        Self { most, limit: if adapts { 1.0 } else { most }, adapts }
    }

    /// Requests that may be under way now.
    pub fn limit(&self) -> u32 {
        self.limit.ceil() as u32
    }

    /// What [`Self::limit`] is rounded from.
    pub fn exact(&self) -> f64 {
        self.limit
    }

    pub fn record(&mut self, asked: Asked) {
        if !self.adapts {
            return;
        }
        let factor = match asked {
            Asked::Job => 1.1,
            Asked::Nothing => 0.95,
            Asked::Pressure => 0.5,
        };
        self.limit = (self.limit * factor).clamp(1.0, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_runner_rests_after_three_refusals_and_is_asked_again_after_an_hour() {
        let start = Instant::now();
        let mut health = Health::new(3, HOUR, start);
        for _ in 0..3 {
            assert!(health.may_ask(start));
            health.record(false, start);
        }
        assert!(!health.may_ask(start));
        assert!(!health.may_ask(start + HOUR));
        let later = start + HOUR + Duration::from_secs(1);
        assert!(health.may_ask(later));
        health.record(false, later);
        assert!(health.may_ask(later), "the record was cleared");
    }

    #[test]
    fn only_refusals_in_a_row_count() {
        let now = Instant::now();
        let mut health = Health::new(3, HOUR, now);
        for healthy in [false, false, true, false, false] {
            health.record(healthy, now);
        }
        assert!(health.may_ask(now));
    }

    #[test]
    fn the_number_of_requests_follows_the_answers() {
        let mut concurrency = AdaptiveConcurrency::new(4, true);
        assert_eq!(concurrency.limit(), 1);
        concurrency.record(Asked::Job);
        assert_eq!(concurrency.limit(), 2);
        (0..40).for_each(|_| concurrency.record(Asked::Job));
        assert_eq!(concurrency.limit(), 4);
        concurrency.record(Asked::Pressure);
        assert_eq!(concurrency.limit(), 2);
        (0..40).for_each(|_| concurrency.record(Asked::Nothing));
        assert_eq!(concurrency.limit(), 1);
    }

    #[test]
    fn without_the_flag_the_number_of_requests_is_the_setting() {
        let mut concurrency = AdaptiveConcurrency::new(4, false);
        concurrency.record(Asked::Pressure);
        assert_eq!(concurrency.limit(), 4);
    }
}
