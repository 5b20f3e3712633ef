//! Deliberate faults: rules that say which requests go wrong, how often, and how.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::view::JobId;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Any,
    /// `POST runners`, `POST user/runners`.
    Register,
    /// `POST runners/verify`.
    Verify,
    /// The rest below `runners`: delete and reset.
    Runner,
    /// `POST jobs/request`.
    JobRequest,
    /// `PUT jobs/:id` with state `running` (or `pending`).
    JobUpdate,
    /// `PUT jobs/:id` with any other state.
    FinalUpdate,
    /// `PATCH jobs/:id/trace`.
    Trace,
    ArtifactUpload,
    ArtifactDownload,
    /// The second port, where `direct_download` redirects to.
    ObjectStorage,
    /// Anything of the Git repository.
    Git,
    /// The rest, for example the read API.
    Other,
}

/// How a request goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The connection is cut before anything took effect.
    Dropped,
    /// The request takes effect and the connection is cut instead of an answer.
    AnswerLost,
    /// This status without effect, with a message as GitLab words it; 403 means that the job is over.
    Status(u16),
    /// 429 with `Retry-After` in whole seconds, without effect.
    TooManyRequests { retry_after: Duration },
    /// Takes effect and is answered after this time.
    Slow(Duration),
    /// A 200 with a page of HTML, without effect: a proxy in between.
    Html,
    /// The final update is answered 202, "repeat it", without effect: the trace is being archived.
    StillArchiving,
    /// GitLab lost a part: the stored trace is first cut to this many bytes.
    TraceLost { keep: u64 },
    /// GitLab has more than the client knows: the bytes are stored, and the answer is 416 with the new size.
    TraceAhead,
    /// A job is assigned, and these fields of its payload replaced: a wrong type makes it unusable.
    Payload(serde_json::Map<String, serde_json::Value>),
}

/// A fault and where it strikes.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    endpoint: Endpoint,
    fault: Fault,
    job: Option<JobId>,
    skip: u32,
    times: u32,
}

impl Rule {
    /// Strikes the next request of the endpoint, once.
    pub fn new(endpoint: Endpoint, fault: Fault) -> Self {
        Self { endpoint, fault, job: None, skip: 0, times: 1 }
    }

    /// Strikes so many requests; `u32::MAX` is for ever.
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Lets so many requests pass first.
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Strikes only requests of this job (not [`Endpoint::JobRequest`], which has no job yet).
    pub fn job(self, job: JobId) -> Self {
        Self { job: Some(job), ..self }
    }

    fn concerns(&self, endpoint: Endpoint, job: Option<JobId>) -> bool {
        (self.endpoint == Endpoint::Any || self.endpoint == endpoint) && (self.job.is_none() || self.job == job)
    }
}

/// The rules in force. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Rule>>>);

impl Faults {
    pub fn add(&self, rule: Rule) {
        self.rules().push(rule);
    }

    pub fn clear(&self) {
        self.rules().clear();
    }

    /// Rules that can still strike.
    pub fn left(&self) -> usize {
        self.rules().len()
    }

    /// The fault that strikes this request; every rule counts the request, the oldest one that is due strikes.
    pub(super) fn strike(&self, endpoint: Endpoint, job: Option<JobId>) -> Option<Fault> {
        let mut rules = self.rules();
        let mut struck = None;
        for rule in rules.iter_mut().filter(|rule| rule.concerns(endpoint, job)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if struck.is_none() && rule.times > 0 {
                rule.times = if rule.times == u32::MAX { u32::MAX } else { rule.times - 1 };
                struck = Some(rule.fault.clone());
            }
        }
        rules.retain(|rule| rule.times > 0);
        struck
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.0.lock().expect("no code that holds the rules can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_strikes_its_endpoint_so_many_times_after_those_it_lets_pass() {
        let faults = Faults::default();
        faults.add(Rule::new(Endpoint::Trace, Fault::Status(500)).after(1).times(2));
        assert_eq!(faults.strike(Endpoint::JobUpdate, Some(1)), None);
        let struck: Vec<bool> = (0..4).map(|_| faults.strike(Endpoint::Trace, Some(1)).is_some()).collect();
        assert_eq!(struck, [false, true, true, false]);
        assert_eq!(faults.left(), 0);
    }

    #[test]
    fn a_rule_of_one_job_leaves_the_others_alone() {
        let faults = Faults::default();
        faults.add(Rule::new(Endpoint::Any, Fault::Dropped).job(7).times(u32::MAX));
        assert_eq!(faults.strike(Endpoint::Trace, Some(8)), None);
        assert_eq!(faults.strike(Endpoint::Trace, Some(7)), Some(Fault::Dropped));
        assert_eq!(faults.strike(Endpoint::FinalUpdate, Some(7)), Some(Fault::Dropped));
        assert_eq!(faults.left(), 1);
    }

    #[test]
    fn the_oldest_rule_strikes_first() {
        let faults = Faults::default();
        faults.add(Rule::new(Endpoint::Trace, Fault::Status(500)));
        faults.add(Rule::new(Endpoint::Any, Fault::Status(503)));
        assert_eq!(faults.strike(Endpoint::Trace, None), Some(Fault::Status(500)));
        assert_eq!(faults.strike(Endpoint::Trace, None), Some(Fault::Status(503)));
    }
}
