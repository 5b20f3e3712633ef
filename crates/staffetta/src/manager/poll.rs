//! Poll: ask GitLab for jobs, only while there is room for one (protocol 2.5 to 2.8).
//!
//! Every runner has a loop of its own, so an idle runner's long poll delays no other. A request that
//! is under way is never aborted: a 201 may be on the wire, and its job would be lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gitlab::{AdaptiveConcurrency, Asked, Health, JobAnswer, JobRequest};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::runner::Runner;
use super::slots::Slot;
use super::stop::Stop;
use super::{Shared, finish, journey};

/// What a loop sees before it decides.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// The manager stops: no more asking, and requests under way are waited for until then.
    pub stopping: Option<Deadline>,
    pub requests_under_way: usize,
    /// What `request_concurrency` and the server's answers allow right now.
    pub requests_allowed: usize,
    /// A runner whose token was refused again and again rests (protocol 2.8).
    pub healthy: bool,
    /// Asking earlier than this is not wanted: `check_interval`, or a server in trouble.
    pub not_before: Instant,
}

/// How long a request under way is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    Never,
    At(Instant),
}

impl Deadline {
    fn of(stop: Stop, retired: bool, now: Instant) -> Option<Self> {
        match stop {
            Stop::Leave { by } => Some(Self::At(by)),
            Stop::Cancel => Some(Self::At(now)),
            Stop::Drain => Some(Self::Never),
            Stop::No => retired.then_some(Self::Never),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Ask,
    /// Until a request ends, or until the time has come.
    Wait {
        until: Option<Instant>,
    },
    /// No more asking, and no request under way that is worth waiting for.
    End,
}

pub fn plan(observed: &Observed, check_interval: Duration, now: Instant) -> Plan {
    if let Some(deadline) = observed.stopping {
        return match deadline {
            _ if observed.requests_under_way == 0 => Plan::End,
            Deadline::Never => Plan::Wait { until: None },
            Deadline::At(by) if now < by => Plan::Wait { until: Some(by) },
            Deadline::At(_) => Plan::End,
        };
    }
    if observed.requests_under_way >= observed.requests_allowed {
        return Plan::Wait { until: None };
    }
    if !observed.healthy {
        return Plan::Wait { until: Some(now + check_interval) };
    }
    if now < observed.not_before {
        return Plan::Wait { until: Some(observed.not_before) };
    }
    Plan::Ask
}

/// A long poll holds a slot for up to a minute. With fewer free slots than runners that would keep
/// another runner's job waiting, so then everybody asks short.
fn may_poll_long(concurrent: usize, jobs: usize, runners: usize) -> bool {
    concurrent.saturating_sub(jobs) >= runners
}

/// Asks for one runner until the manager stops or the runner leaves the configuration.
pub async fn run(shared: Arc<Shared>, runner: Arc<Runner>) {
    let settings = &runner.settings;
    let mut stop = shared.stop.subscribe();
    let mut health = Health::new(settings.unhealthy_requests_limit, settings.unhealthy_interval, Instant::now());
    let adapts = settings.feature_flags.get("FF_USE_ADAPTIVE_REQUEST_CONCURRENCY").is_none_or(|on| *on);
    let most = u32::try_from(settings.request_concurrency).unwrap_or(u32::MAX);
    let mut adaptive = AdaptiveConcurrency::new(most, adapts);
    let mut requests = JoinSet::new();
    let mut not_before = Instant::now();
    loop {
        let now = Instant::now();
        let observed = Observed {
            stopping: Deadline::of(*stop.borrow_and_update(), runner.retired.is_cancelled(), now),
            requests_under_way: requests.len(),
            requests_allowed: adaptive.limit() as usize,
            healthy: health.may_ask(now),
            not_before,
        };
        runner.metrics.may_ask(&adaptive);
        if !observed.healthy {
            runner.metrics.rests();
        }
        let freed = shared.slots.freed();
        let until = match plan(&observed, shared.check_interval(), now) {
            Plan::End => return,
            Plan::Ask => match shared.take_slot(&runner) {
                Some(slot) => {
                    requests.spawn(ask(shared.clone(), runner.clone(), slot));
                    continue;
                }
                None => None,
            },
            Plan::Wait { until } => until,
        };
        tokio::select! {
            _ = stop.changed() => {}
            () = runner.retired.cancelled(), if observed.stopping.is_none() => {}
            () = freed => {}
            () = sleep_until(until) => {}
            Some(asked) = requests.join_next() => {
                let Ok(asked) = asked else { continue };
                health.record(asked.healthy, Instant::now());
                if !asked.healthy && !health.may_ask(Instant::now()) {
                    let rest = settings.unhealthy_interval;
                    error!(runner = %settings.name, ?rest, "the runner is unhealthy and is left alone for a while; a reload ends that");
                }
                adaptive.record(asked.pressure);
                not_before = Instant::now() + asked.pause(settings.strict_check_interval, shared.check_interval());
            }
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// What one request means for the next one.
struct Finding {
    job: bool,
    healthy: bool,
    pressure: Asked,
    /// GitLab held the request until something changed or its time was up.
    held: bool,
    retry_after: Option<Duration>,
}

impl Finding {
    fn pause(&self, strict: bool, check_interval: Duration) -> Duration {
        if let Some(patience) = self.retry_after {
            return patience;
        }
        let at_once = (self.job && !strict) || self.held;
        if at_once { Duration::ZERO } else { check_interval }
    }
}

async fn ask(shared: Arc<Shared>, runner: Arc<Runner>, slot: Slot) -> Finding {
    let long = may_poll_long(shared.concurrent(), shared.jobs.len() + shared.supervised.len(), shared.runner_count());
    let cursor = if long { runner.state.cursor() } else { None };
    let started = Instant::now();
    let asking = runner.metrics.asks();
    let reply = runner
        .client
        .request_job(&JobRequest {
            token: &runner.settings.token,
            system_id: &shared.system_id,
            last_update: cursor.as_deref(),
        })
        .await;
    drop(asking);
    runner.state.set_cursor(reply.last_update);
    let mut finding = Finding {
        job: false,
        healthy: true,
        pressure: if reply.pressure { Asked::Pressure } else { Asked::Nothing },
        held: cursor.is_some() && started.elapsed() >= Duration::from_secs(1),
        retry_after: None,
    };
    let name = &runner.settings.name;
    match reply.answer {
        JobAnswer::Job(assigned) => {
            finding.job = true;
            if !reply.pressure {
                finding.pressure = Asked::Job;
            }
            info!(runner = %name, job = %assigned.received.payload.id, "received a job");
            shared.start_job(journey::walk(shared.clone(), runner.clone(), slot, *assigned));
        }
        JobAnswer::Unusable(unusable) => {
            error!(runner = %name, job = ?unusable.id, error = %unusable, "failing a job that cannot be read");
            runner.metrics.unreadable();
            shared.start_job(finish::fail_unusable(runner.clone(), unusable));
        }
        JobAnswer::None => debug!(runner = %name, "no job"),
        JobAnswer::Forbidden if runner.retired.is_cancelled() => debug!(runner = %name, "asked with an old token"),
        JobAnswer::Forbidden => {
            finding.healthy = false;
            runner.metrics.refused();
            error!(runner = %name, "GitLab refuses the runner's token: it was removed or reset; register it again");
        }
        JobAnswer::Unavailable { reason, retry_after } => {
            finding.retry_after = retry_after;
            warn!(runner = %name, %reason, "cannot ask GitLab for jobs; trying again");
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(3);

    fn observed(now: Instant) -> Observed {
        Observed { stopping: None, requests_under_way: 0, requests_allowed: 1, healthy: true, not_before: now }
    }

    #[test]
    fn a_request_under_way_is_waited_for_until_the_deadline_of_a_stop() {
        let now = Instant::now();
        let by = now + INTERVAL;
        let stopping = Observed { stopping: Some(Deadline::At(by)), requests_under_way: 1, ..observed(now) };
        assert_eq!(plan(&stopping, INTERVAL, now), Plan::Wait { until: Some(by) });
        assert_eq!(plan(&stopping, INTERVAL, by), Plan::End);
        assert_eq!(plan(&Observed { requests_under_way: 0, ..stopping }, INTERVAL, now), Plan::End);
        let draining = Observed { stopping: Some(Deadline::Never), ..stopping };
        assert_eq!(plan(&draining, INTERVAL, by), Plan::Wait { until: None });
    }

    #[test]
    fn nothing_is_asked_early_twice_or_by_a_runner_at_rest() {
        let now = Instant::now();
        assert_eq!(plan(&observed(now), INTERVAL, now), Plan::Ask);
        let busy = Observed { requests_under_way: 1, ..observed(now) };
        assert_eq!(plan(&busy, INTERVAL, now), Plan::Wait { until: None });
        let early = Observed { not_before: now + INTERVAL, ..observed(now) };
        assert_eq!(plan(&early, INTERVAL, now), Plan::Wait { until: Some(now + INTERVAL) });
        let resting = Observed { healthy: false, ..observed(now) };
        assert_eq!(plan(&resting, INTERVAL, now), Plan::Wait { until: Some(now + INTERVAL) });
    }

    #[test]
    fn an_idle_runner_never_keeps_the_last_slot_for_a_long_poll() {
        assert!(may_poll_long(10, 0, 3));
        assert!(may_poll_long(1, 0, 1));
        assert!(!may_poll_long(1, 0, 3), "one slot and three runners: ask in turn");
        assert!(!may_poll_long(10, 8, 3));
    }
}
