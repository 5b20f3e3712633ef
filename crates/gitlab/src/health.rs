use std::time::{Duration, Instant};

/// Whether a runner is worth asking for (2.8). Only a refused token is unhealthy.
#[derive(Debug, Clone)]
pub struct Health {}

impl Health {
    /// GitLab's defaults: 3 refusals, then a pause of 60 minutes.
    pub fn new(_limit: u32, _pause: Duration, _now: Instant) -> Self {
        todo!()
    }

    /// May the runner be asked now? After the pause: yes, once more, with a clean record.
    pub fn may_ask(&mut self, _now: Instant) -> bool {
        todo!()
    }

    pub fn record(&mut self, _healthy: bool, _now: Instant) {
        todo!()
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

/// How many requests for jobs a runner may have under way (2.7).
#[derive(Debug, Clone)]
pub struct AdaptiveConcurrency {}

impl AdaptiveConcurrency {
    /// `most` is `request_concurrency`.
    pub fn new(_most: u32) -> Self {
        todo!()
    }

    pub fn limit(&self) -> u32 {
        todo!()
    }

    pub fn record(&mut self, _asked: Asked) {
        todo!()
    }
}
