//! Token buckets: ECS counts calls per account and region, so every attempt of every runner takes a turn here first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::calls::Api;

/// Two throttles further apart than this have nothing to do with each other.
const REPEATED_THROTTLE: Duration = Duration::from_secs(1);
/// What is left of the rate when an emptied bucket is throttled again: another tool, or a smaller region.
const SLOWER: f64 = 0.7;
const SLOWEST: f64 = 0.1;
/// Share of the nominal rate that comes back in each second without a throttle.
const RECOVERY: f64 = 0.02;

/// A token bucket as ECS keeps it, seen from the caller's side. It learns from throttles: the account is shared with
/// other tools, and small regions have smaller buckets than the documentation's.
#[derive(Debug, Clone)]
pub struct Bucket {
    burst: f64,
    nominal: f64,
    per_second: f64,
    tokens: f64,
    at: Instant,
    throttled_at: Option<Instant>,
}

impl Bucket {
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let (burst, nominal) = (f64::from(burst), f64::from(per_second));
        Self { burst, nominal, per_second: nominal, tokens: burst, at: now, throttled_at: None }
    }

    /// Takes one token, or says when to come again.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        // The sum of many small refills may miss a whole token by rounding.
        if self.tokens >= 1.0 - 1e-6 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second).max(Duration::from_micros(100)))
    }

    /// ECS said that its own bucket is empty, so ours is too; when it says so again soon, the rate is too high. Calls
    /// that were `sent` before the last throttle was known have nothing new to say.
    pub fn throttled(&mut self, sent: Instant, now: Instant) {
        if self.throttled_at.is_some_and(|at| sent <= at) {
            return;
        }
        self.refill(now);
        if self.throttled_at.is_some_and(|at| now.saturating_duration_since(at) < REPEATED_THROTTLE) {
            self.per_second = (self.per_second * SLOWER).max(self.nominal * SLOWEST);
        }
        self.tokens = 0.0;
        self.throttled_at = Some(now);
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.per_second).min(self.burst);
        self.per_second = (self.per_second + seconds * self.nominal * RECOVERY).min(self.nominal);
        self.at = self.at.max(now);
    }
}

/// A bucket that callers queue at: first come, first served.
#[derive(Debug)]
struct Gate {
    bucket: Mutex<Bucket>,
    /// Tokio's mutex is fair: whoever holds it is at the head of the queue and sleeps until there is a token.
    head: tokio::sync::Mutex<()>,
}

impl Gate {
    fn new(burst: u32, per_second: u32) -> Self {
        Self { bucket: Mutex::new(Bucket::new(burst, per_second, Instant::now())), head: tokio::sync::Mutex::new(()) }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody queues and a token was free.
    fn at_once(&self) -> bool {
        self.head.try_lock().is_ok_and(|_head| self.bucket().take(Instant::now()).is_ok())
    }

    async fn turn(&self) {
        let _head = self.head.lock().await;
        loop {
            let taken = self.bucket().take(Instant::now());
            match taken {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

/// The buckets of one account and region (facts 3.1, 3.2).
#[derive(Debug)]
pub struct Buckets {
    /// Fargate would start 100 tasks at once, but takes only 20 RunTask calls at once, then 20 a second, and a job is
    /// one call (facts 3.1). Smaller regions are learned from their throttles.
    launches: Gate,
    /// Shared by RunTask, StopTask and other changes.
    changes: Gate,
    /// Shared by DescribeTasks, ListTasks and other reads.
    reads: Gate,
    /// EC2's own, for DescribeNetworkInterfaces.
    interfaces: Gate,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            launches: Gate::new(20, 20),
            changes: Gate::new(100, 40),
            reads: Gate::new(100, 20),
            interfaces: Gate::new(100, 20),
        }
    }
}

impl Buckets {
    /// Waits for the call's turn; `queued` hears when there is something to wait for.
    pub async fn turn(&self, api: Api, queued: impl FnOnce()) {
        let mut queued = Some(queued);
        for gate in self.gates(api) {
            if !gate.at_once() {
                if let Some(queued) = queued.take() {
                    queued();
                }
                gate.turn().await;
            }
        }
    }

    pub fn throttled(&self, api: Api, sent: Instant) {
        // ECS does not say which of its buckets was empty; the call's narrowest comes first.
        if let Some(gate) = self.gates(api).first() {
            gate.bucket().throttled(sent, Instant::now());
        }
    }

    /// The narrowest first. A launch queues there, so that a thousand launches do not stand before one StopTask.
    fn gates(&self, api: Api) -> Vec<&Gate> {
        match api {
            Api::RunTask => vec![&self.launches, &self.changes],
            Api::StopTask => vec![&self.changes],
            Api::DescribeTasks | Api::ListTasks => vec![&self.reads],
            Api::DescribeNetworkInterfaces => vec![&self.interfaces],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many tokens a caller gets who always comes back exactly when told to.
    fn served(bucket: &mut Bucket, from: Instant, within: Duration) -> u32 {
        let (mut now, mut count) = (from, 0);
        loop {
            match bucket.take(now) {
                Ok(()) => count += 1,
                Err(wait) => now += wait,
            }
            if now.duration_since(from) > within {
                return count;
            }
        }
    }

    #[test]
    fn a_thousand_launches_take_the_time_of_the_bucket_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, 20, start);
        // 100 at once, then 20 a second: the thousandth after 45 s.
        let count = served(&mut bucket, start, Duration::from_secs(45));
        assert!((998..=1001).contains(&count), "{count}");
    }

    #[test]
    fn a_throttle_empties_the_bucket_but_one_alone_does_not_slow_it() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, 20, start);
        bucket.throttled(start, start);
        assert!(bucket.take(start + Duration::from_millis(10)).is_err());
        // The others of the same burst learn of it a little later.
        bucket.throttled(start, start + Duration::from_millis(100));
        let count = served(&mut bucket, start + Duration::from_millis(100), Duration::from_secs(10));
        assert!((200..=204).contains(&count), "{count}");
    }

    #[test]
    fn repeated_throttles_find_the_rate_of_a_smaller_region() {
        let start = Instant::now();
        let (mut ours, mut theirs) = (Bucket::new(100, 20, start), Bucket::new(25, 5, start));
        let (mut now, mut refused, mut accepted) = (start, 0, 0);
        while now < start + Duration::from_secs(120) {
            match ours.take(now) {
                Ok(()) if theirs.take(now).is_ok() => accepted += 1,
                Ok(()) => {
                    ours.throttled(now, now);
                    now += Duration::from_millis(1);
                    refused += 1;
                }
                Err(wait) => now += wait,
            }
        }
        // 25 and 5 a second is 625 in two minutes.
        assert!(accepted > 500, "{accepted}");
        assert!(refused < accepted / 2, "{refused} refused, {accepted} accepted");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(gaps in prop::collection::vec(0u64..200, 1..400), burst in 1u32..50, rate in 1u32..50) {
            let start = Instant::now();
            let mut bucket = Bucket::new(burst, rate, start);
            let (mut now, mut taken) = (start, 0u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                taken += u32::from(bucket.take(now).is_ok());
                let most = f64::from(burst) + now.duration_since(start).as_secs_f64() * f64::from(rate);
                prop_assert!(f64::from(taken) <= most + 1e-3, "{taken} of {most}");
            }
        }

        #[test]
        fn whoever_comes_back_when_told_is_served(burst in 1u32..50, rate in 1u32..50, throttles in 0u32..20) {
            let start = Instant::now();
            let mut bucket = Bucket::new(burst, rate, start);
            let mut now = start;
            for _ in 0..throttles {
                now += Duration::from_secs(1);
                bucket.throttled(now, now);
            }
            for _ in 0..100 {
                if let Err(wait) = bucket.take(now) {
                    now += wait;
                    prop_assert!(bucket.take(now).is_ok());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_token_goes_to_whoever_came_first() {
        let gate = Gate::new(1, 1);
        assert!(gate.at_once());
        let (mut first, mut second) = (Box::pin(gate.turn()), Box::pin(gate.turn()));
        assert!(futures::poll!(&mut first).is_pending());
        // A token comes back before the first in the queue has woken up.
        gate.bucket().tokens = 1.0;
        assert!(!gate.at_once());
        assert!(futures::poll!(&mut second).is_pending());
        first.await;
        gate.bucket().tokens = 1.0;
        second.await;
    }

    #[tokio::test]
    async fn only_those_who_must_wait_are_told_so() {
        let buckets = Buckets { launches: Gate::new(1, 1000), ..Buckets::default() };
        let mut told = 0;
        buckets.turn(Api::RunTask, || told += 1).await;
        assert_eq!(told, 0);
        buckets.turn(Api::RunTask, || told += 1).await;
        assert_eq!(told, 1);
    }
}
