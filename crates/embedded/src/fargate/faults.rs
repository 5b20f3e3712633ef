//! What goes wrong, where and how often: faults that a test or another client asks for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One fault and how many calls or tasks it hits.
///
/// As JSON for `POST /_embedded/faults`: `{"call":"RunTask","fault":"throttle","times":2}` or
/// `{"task":{"spot_interruption":{"after_ms":500,"notice_ms":1000}}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Rule {
    /// The next calls of one API, by its AWS name (`RunTask`, `DescribeNetworkInterfaces`, …).
    Call {
        call: String,
        fault: CallFault,
        #[serde(default = "once")]
        times: u32,
    },
    /// The next tasks that are started.
    Task {
        task: TaskFault,
        #[serde(default = "once")]
        times: u32,
    },
}

fn once() -> u32 {
    1
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CallFault {
    /// ThrottlingException (EC2: RequestLimitExceeded); nothing is done.
    Throttle,
    /// An answer with this status, 500 to 599; nothing is done.
    ServerError { status: u16 },
    /// Done at once, answered later.
    Slow {
        #[serde(rename = "by_ms", with = "milliseconds")]
        by: Duration,
    },
    /// Done, and the connection ends without an answer.
    AnswerLost,
    /// RunTask only: HTTP 200 with "Capacity is unavailable" in `failures[]`; nothing is started.
    CapacityUnavailable,
}

/// What happens to a task. Times count from the start of its first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskFault {
    /// The image cannot be pulled: TaskFailedToStart.
    CannotPull,
    /// The network interface is never attached: TaskFailedToStart.
    NetworkInterfaceTimeout,
    /// The task stays in this state until it is stopped.
    NeverStarts { stuck_in: Stuck },
    /// The Spot notice and SIGTERM, then SIGKILL when `notice` is over (two minutes at AWS).
    SpotInterruption {
        #[serde(rename = "after_ms", with = "milliseconds")]
        after: Duration,
        #[serde(rename = "notice_ms", with = "milliseconds")]
        notice: Duration,
    },
    /// Every process is gone at once, without a signal that it could handle.
    HostLost {
        #[serde(rename = "after_ms", with = "milliseconds")]
        after: Duration,
    },
    /// Killed for its memory: exit code 137 and OutOfMemoryError.
    OutOfMemory {
        #[serde(rename = "after_ms", with = "milliseconds")]
        after: Duration,
    },
}

/// Where a task that never starts stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stuck {
    Provisioning,
    Pending,
}

/// The faults that are still to happen. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Rule>>>);

impl Faults {
    pub fn add(&self, rule: Rule) {
        self.rules().push(rule);
    }

    /// The next `times` calls of `api` meet `fault`.
    pub fn on_call(&self, api: &str, times: u32, fault: CallFault) {
        self.add(Rule::Call { call: api.into(), fault, times });
    }

    /// The next `times` tasks meet `fault`.
    pub fn on_task(&self, times: u32, fault: TaskFault) {
        self.add(Rule::Task { task: fault, times });
    }

    pub fn clear(&self) {
        self.rules().clear();
    }

    /// The fault for a call of `api` that has just arrived, used up once.
    pub(super) fn next_for_call(&self, api: &str) -> Option<CallFault> {
        self.take(|rule| match rule {
            Rule::Call { call, fault, times } if call == api => Some((fault.clone(), times)),
            _ => None,
        })
    }

    /// The fault for a task that is being started, used up once.
    pub(super) fn next_for_task(&self) -> Option<TaskFault> {
        self.take(|rule| match rule {
            Rule::Task { task, times } => Some((task.clone(), times)),
            Rule::Call { .. } => None,
        })
    }

    fn take<F>(&self, matches: impl Fn(&mut Rule) -> Option<(F, &mut u32)>) -> Option<F> {
        let mut rules = self.rules();
        rules.retain(|(Rule::Call { times, .. } | Rule::Task { times, .. })| *times > 0);
        let (fault, times) = rules.iter_mut().find_map(matches)?;
        *times -= 1;
        Some(fault)
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_hits_as_often_as_it_says_and_only_its_call() {
        let faults = Faults::default();
        faults.on_call("RunTask", 2, CallFault::Throttle);
        assert_eq!(faults.next_for_call("StopTask"), None);
        assert_eq!(faults.next_for_call("RunTask"), Some(CallFault::Throttle));
        assert_eq!(faults.next_for_call("RunTask"), Some(CallFault::Throttle));
        assert_eq!(faults.next_for_call("RunTask"), None);
        assert_eq!(faults.next_for_task(), None);
    }

    #[test]
    fn rules_are_written_in_json_as_documented() {
        let call: Rule = serde_json::from_str(r#"{"call":"RunTask","fault":"throttle","times":2}"#).unwrap();
        assert_eq!(call, Rule::Call { call: "RunTask".into(), fault: CallFault::Throttle, times: 2 });
        let task: Rule =
            serde_json::from_str(r#"{"task":{"spot_interruption":{"after_ms":500,"notice_ms":1000}}}"#).unwrap();
        let (after, notice) = (Duration::from_millis(500), Duration::from_secs(1));
        assert_eq!(task, Rule::Task { task: TaskFault::SpotInterruption { after, notice }, times: 1 });
        assert!(serde_json::from_str::<Rule>(r#"{"call":"RunTask","fault":"thrott","times":2}"#).is_err());
    }
}
