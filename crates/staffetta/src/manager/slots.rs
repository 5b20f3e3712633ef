//! Room for jobs: `concurrent` over all runners, `limit` per runner, and the small numbers that a
//! job sees as `CI_CONCURRENT_ID` (protocol 8.1).

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::lock;

/// Counts of one runner. Lives as long as the runner's entry in the configuration or one of its jobs.
#[derive(Debug, Default)]
pub struct RunnerSlots {
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Numbers in use by jobs of the runner.
    numbers: BTreeSet<u32>,
    /// Numbers in use by jobs of the runner, with their project.
    by_project: BTreeSet<(u64, u32)>,
    /// Slots taken, with or without a job yet.
    taken: usize,
}

/// All the room that a manager has.
#[derive(Debug, Default)]
pub struct Slots {
    taken: Mutex<usize>,
    freed: Notify,
}

/// A place for one job; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    all: Arc<Slots>,
    runner: Arc<RunnerSlots>,
    number: Option<(u64, u32, u32)>,
}

impl Slots {
    /// Takes a place if the manager and the runner both have one.
    pub fn take(
        self: &Arc<Self>,
        concurrent: usize,
        runner: &Arc<RunnerSlots>,
        limit: Option<NonZeroUsize>,
    ) -> Option<Slot> {
        let mut all = lock(&self.taken);
        let mut used = lock(&runner.used);
        if *all >= concurrent || limit.is_some_and(|limit| used.taken >= limit.get()) {
            return None;
        }
        *all += 1;
        used.taken += 1;
        Some(Slot { all: self.clone(), runner: runner.clone(), number: None })
    }

    /// Takes a place beyond every limit: for a job that an earlier manager started and that runs anyway.
    pub fn take_regardless(self: &Arc<Self>, runner: &Arc<RunnerSlots>) -> Slot {
        *lock(&self.taken) += 1;
        lock(&runner.used).taken += 1;
        Slot { all: self.clone(), runner: runner.clone(), number: None }
    }

    /// Wakes whoever waits for room: a slot is free, or a launch is over.
    pub fn make_known(&self) {
        self.freed.notify_waiters();
    }

    /// Resolves when a slot was given back, or a launch is over, after this call, also before the answer is first awaited.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }
}

impl Slot {
    /// The lowest numbers that no other job of the runner, and of the runner and project, has.
    pub fn number(&mut self, project: u64) -> (u32, u32) {
        let mut used = lock(&self.runner.used);
        let of_runner = (0..).find(|number| !used.numbers.contains(number)).unwrap_or_default();
        let of_project = (0..).find(|number| !used.by_project.contains(&(project, *number))).unwrap_or_default();
        used.numbers.insert(of_runner);
        used.by_project.insert((project, of_project));
        self.number = Some((project, of_runner, of_project));
        (of_runner, of_project)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut all = lock(&self.all.taken);
            let mut used = lock(&self.runner.used);
            *all = all.saturating_sub(1);
            used.taken = used.taken.saturating_sub(1);
            if let Some((project, of_runner, of_project)) = self.number {
                used.numbers.remove(&of_runner);
                used.by_project.remove(&(project, of_project));
            }
        }
        self.all.make_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_and_limit_both_hold() {
        let slots = Arc::new(Slots::default());
        let (one, two) = (Arc::new(RunnerSlots::default()), Arc::new(RunnerSlots::default()));
        let first = slots.take(2, &one, NonZeroUsize::new(1)).expect("room for the first");
        assert!(slots.take(2, &one, NonZeroUsize::new(1)).is_none(), "the runner's limit is 1");
        let _second = slots.take(2, &two, None).expect("room for the second");
        assert!(slots.take(2, &two, None).is_none(), "concurrent is 2");
        drop(first);
        assert!(slots.take(2, &one, NonZeroUsize::new(1)).is_some(), "a slot was given back");
    }

    #[test]
    fn jobs_get_the_lowest_free_numbers() {
        let slots = Arc::new(Slots::default());
        let runner = Arc::new(RunnerSlots::default());
        let mut first = slots.take(9, &runner, None).expect("room");
        let mut second = slots.take(9, &runner, None).expect("room");
        let mut third = slots.take(9, &runner, None).expect("room");
        assert_eq!(first.number(7), (0, 0));
        assert_eq!(second.number(8), (1, 0));
        drop(first);
        assert_eq!(third.number(8), (0, 1));
    }
}
