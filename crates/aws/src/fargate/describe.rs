//! One describer per cluster: it looks at all watched tasks in batches of a hundred, often while one of them starts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_ecs::types as ecs;
use job::ids::TaskArn;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::calls::Api;
use super::connect::{Fargate, Region};
use super::public_ip::without_unknown;
use super::task::{Status, Task};
use crate::errors::{CallError, backoff};

/// DescribeTasks takes no more (facts 3.2).
const BATCH: usize = 100;
/// Looks that are asked for one by one are gathered for this long: a thousand jobs that end must not cost a call each.
const GAP: Duration = Duration::from_millis(250);
const STARTING: Duration = Duration::from_secs(1);
const RUNNING: Duration = Duration::from_secs(5);
/// For tasks that have run for minutes. Ten seconds for all would cost more than half a call for a job of five minutes.
const SETTLED: Duration = Duration::from_secs(15);
/// ECS is eventually consistent: a task may be MISSING for a while after RunTask named it.
const GRACE: Duration = Duration::from_secs(60);
/// How long the last look at a task that is not watched any more is kept.
const KEEP: Duration = Duration::from_secs(120);

impl Fargate {
    /// Follows a task to its end: the receiver has each new look, and its sender is gone after the last one
    /// ([`Task::is_over`]). Dropping the receiver ends the watch; taken up again within two minutes, it goes on from
    /// its last look. This `Fargate` must live as long.
    pub fn watch(&self, task: &Task) -> watch::Receiver<Task> {
        self.describer.watch(task)
    }

    /// Has a watched task looked at without waiting for its turn.
    pub fn look_now(&self, arn: &TaskArn) {
        self.describer.look_now(arn);
    }

    /// One look at these tasks. Those that ECS does not know come back as [`Status::Gone`].
    pub async fn describe(&self, arns: &[TaskArn]) -> Result<Vec<Task>, CallError> {
        let mut tasks = Vec::with_capacity(arns.len());
        for batch in arns.chunks(BATCH) {
            let mut seen = self.describer.shared.look(batch).await?;
            for arn in &seen.missing {
                seen.tasks.push(Task { last_status: Status::Gone, ..Task::unseen(arn.clone()) });
            }
            self.describer.shared.find_public_addresses(&mut seen.tasks).await;
            tasks.append(&mut seen.tasks);
        }
        Ok(tasks)
    }
}

/// Watches the tasks of one cluster until it is dropped.
pub(super) struct Describer {
    shared: Arc<Shared>,
    looking: JoinHandle<()>,
}

impl Drop for Describer {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

struct Shared {
    region: Arc<Region>,
    cluster: String,
    use_public_ip: bool,
    watched: Mutex<HashMap<TaskArn, Watched>>,
    /// The last looks at tasks that are not watched any more, and since when.
    left: Mutex<HashMap<TaskArn, (Task, Instant)>>,
    changed: Notify,
}

struct Watched {
    task: watch::Sender<Task>,
    since: Instant,
    last_look: Instant,
    /// ECS has shown it at least once: MISSING means gone from then on.
    seen: bool,
    urgent: bool,
}

/// What the rule must know of a watched task.
#[derive(Debug, Clone)]
struct Due {
    arn: TaskArn,
    last_look: Instant,
    interval: Duration,
    urgent: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing is watched.
    Idle,
    Wait(Duration),
    Look(Vec<TaskArn>),
}

/// One answer of DescribeTasks.
struct Seen {
    tasks: Vec<Task>,
    missing: Vec<TaskArn>,
}

/// How often a task is looked at. The first second of a start is looked at closely, for platforms faster than AWS.
fn interval(starting: bool, watched_for: Duration) -> Duration {
    if starting { (watched_for / 2).clamp(GAP, STARTING) } else { (watched_for / 10).clamp(RUNNING, SETTLED) }
}

/// Whom to look at now: whoever is due, and with them whoever is due next, as far as there is room in the last call.
/// That costs nothing, and it keeps the looks together.
fn decide(due: &[Due], last_round: Option<Instant>, now: Instant) -> Decision {
    let at = |due: &Due| if due.urgent { due.last_look } else { due.last_look + due.interval };
    let Some(first) = due.iter().map(at).min() else { return Decision::Idle };
    let first = last_round.map_or(first, |last| first.max(last + GAP));
    if first > now {
        return Decision::Wait(first - now);
    }
    let mut in_order: Vec<&Due> = due.iter().collect();
    in_order.sort_by_key(|due| at(due));
    let needed = in_order.partition_point(|due| at(due) <= now);
    in_order.truncate(needed.next_multiple_of(BATCH));
    Decision::Look(in_order.into_iter().map(|due| due.arn.clone()).collect())
}

/// Whether a task that ECS calls MISSING is gone.
fn is_gone(seen: bool, watched_for: Duration) -> bool {
    seen || watched_for >= GRACE
}

impl Describer {
    pub fn start(region: Arc<Region>, cluster: &str, use_public_ip: bool) -> Self {
        let shared = Arc::new(Shared {
            region,
            cluster: cluster.to_owned(),
            use_public_ip,
            watched: Mutex::default(),
            left: Mutex::default(),
            changed: Notify::new(),
        });
        let looking = tokio::spawn(shared.clone().keep_looking());
        Self { shared, looking }
    }

    /// A task as this cluster's runners see it.
    pub fn read(&self, task: &ecs::Task) -> Option<Task> {
        self.shared.read(task)
    }

    fn watch(&self, task: &Task) -> watch::Receiver<Task> {
        let now = Instant::now();
        let mut watched = self.shared.watched();
        if let Some(known) = watched.get(&task.arn) {
            return known.task.subscribe();
        }
        let left = self.shared.left().remove(&task.arn);
        let task = left.map_or_else(|| task.clone(), |(task, _)| task);
        let (sender, receiver) = watch::channel(task.clone());
        if task.is_over() {
            self.shared.left().insert(task.arn.clone(), (task, now));
            return receiver;
        }
        watched.insert(task.arn, Watched { task: sender, since: now, last_look: now, seen: false, urgent: false });
        self.shared.changed.notify_one();
        receiver
    }

    fn look_now(&self, arn: &TaskArn) {
        if let Some(watched) = self.shared.watched().get_mut(arn) {
            watched.urgent = true;
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, HashMap<TaskArn, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken after `watched` where both are held.
    fn left(&self) -> MutexGuard<'_, HashMap<TaskArn, (Task, Instant)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a watch, and keeps what it saw for whoever takes it up again.
    fn leave(&self, arn: TaskArn, watched: &Watched, now: Instant) {
        self.left().insert(arn, (watched.task.borrow().clone(), now));
    }

    async fn keep_looking(self: Arc<Self>) {
        let mut last_round = None;
        let mut troubles = 0;
        loop {
            let now = Instant::now();
            let wait = match decide(&self.due(now), last_round, now) {
                Decision::Idle => None,
                Decision::Wait(wait) => Some(wait),
                Decision::Look(arns) => {
                    last_round = Some(now);
                    match self.pass(&arns).await {
                        Ok(()) => {
                            troubles = 0;
                            continue;
                        }
                        // The tasks run on without being looked at; their watchers have deadlines of their own.
                        Err(error) => {
                            tracing::warn!(cluster = self.cluster, %error, "cannot look at the tasks; trying again");
                            let wait = backoff(troubles, STARTING, SETTLED, rand::random());
                            troubles += 1;
                            tokio::time::sleep(wait).await;
                            continue;
                        }
                    }
                }
            };
            match wait {
                None => self.changed.notified().await,
                Some(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    /// What is watched, without what nobody watches any more.
    fn due(&self, now: Instant) -> Vec<Due> {
        let mut watched = self.watched();
        for (arn, entry) in watched.extract_if(|_, entry| entry.task.receiver_count() == 0) {
            self.leave(arn, &entry, now);
        }
        self.left().retain(|_, (_, since)| now.saturating_duration_since(*since) < KEEP);
        let due = watched.iter().map(|(arn, entry)| Due {
            arn: arn.clone(),
            last_look: entry.last_look,
            interval: interval(entry.task.borrow().is_starting(), now.saturating_duration_since(entry.since)),
            urgent: entry.urgent,
        });
        due.collect()
    }

    /// One round: all these tasks, batch by batch.
    async fn pass(&self, arns: &[TaskArn]) -> Result<(), CallError> {
        for batch in arns.chunks(BATCH) {
            // Before the call: what is asked for while it is under way needs another look.
            for arn in batch {
                if let Some(entry) = self.watched().get_mut(arn) {
                    entry.urgent = false;
                    entry.last_look = Instant::now();
                }
            }
            let mut seen = self.look(batch).await?;
            self.keep_addresses(&mut seen.tasks);
            self.find_public_addresses(&mut seen.tasks).await;
            self.show(seen, Instant::now());
        }
        Ok(())
    }

    /// One DescribeTasks for at most [`BATCH`] tasks, repeated through throttles and errors of ECS's own.
    async fn look(&self, arns: &[TaskArn]) -> Result<Seen, CallError> {
        let names: Vec<String> = arns.iter().map(|arn| arn.as_str().to_owned()).collect();
        let call = || self.region.ecs.describe_tasks().cluster(&self.cluster).set_tasks(Some(names.clone())).send();
        let answer = self.region.ask(Api::DescribeTasks, call).await?;
        let tasks: Vec<Task> = answer.tasks().iter().filter_map(|task| self.read(task)).collect();
        let is_missing = |failure: &&ecs::Failure| failure.reason() == Some("MISSING");
        let missing: HashSet<&str> =
            answer.failures().iter().filter(is_missing).filter_map(ecs::Failure::arn).collect();
        let missing = arns.iter().filter(|arn| missing.contains(arn.as_str())).cloned().collect();
        Ok(Seen { tasks, missing })
    }

    /// A task as this runner sees it: by private address, or not yet by the public one.
    fn read(&self, task: &ecs::Task) -> Option<Task> {
        let mut task = Task::read(task)?;
        if self.use_public_ip {
            task.address = None;
        }
        Some(task)
    }

    /// A public address that is known need not be asked for again.
    fn keep_addresses(&self, tasks: &mut [Task]) {
        let watched = self.watched();
        for task in tasks.iter_mut().filter(|task| task.address.is_none()) {
            task.address = watched.get(&task.arn).and_then(|entry| entry.task.borrow().address);
        }
    }

    /// Best effort: whoever is still without an address is asked for at the next look.
    async fn find_public_addresses(&self, tasks: &mut [Task]) {
        if !self.use_public_ip {
            return;
        }
        let waiting = tasks.iter().filter(|task| task.address.is_none() && !task.is_ending());
        let mut interfaces: Vec<String> = waiting.filter_map(|task| task.network_interface.clone()).collect();
        while !interfaces.is_empty() {
            let call = self.region.ec2.public_addresses(&interfaces);
            let error = match self.region.attempt(Api::DescribeNetworkInterfaces, call).await {
                Ok(addresses) => {
                    for task in tasks.iter_mut().filter(|task| task.address.is_none()) {
                        let interface = task.network_interface.as_ref();
                        task.address = interface.and_then(|interface| addresses.get(interface).copied());
                    }
                    return;
                }
                Err(error) => error,
            };
            match &error {
                CallError::Refused(refusal) if let Some(left) = without_unknown(&interfaces, refusal) => {
                    interfaces = left
                }
                _ => {
                    tracing::warn!(%error, "cannot ask EC2 for the public addresses of tasks; trying again");
                    return;
                }
            }
        }
    }

    /// Tells the watchers what is new, and ends the watch of what is over.
    fn show(&self, seen: Seen, now: Instant) {
        let mut watched = self.watched();
        for task in seen.tasks {
            let Some(entry) = watched.get_mut(&task.arn) else { continue };
            entry.seen = true;
            let over = task.is_over();
            let arn = task.arn.clone();
            entry.task.send_if_modified(|known| {
                // Two of ECS's machines may disagree for a moment: the task does not go back.
                let news = task.version >= known.version && task != *known;
                if news {
                    *known = task;
                }
                news
            });
            if over && let Some(entry) = watched.remove(&arn) {
                self.leave(arn, &entry, now);
            }
        }
        for arn in seen.missing {
            let gone = |entry: &Watched| is_gone(entry.seen, now.saturating_duration_since(entry.since));
            if watched.get(&arn).is_some_and(gone)
                && let Some(entry) = watched.remove(&arn)
            {
                entry.task.send_modify(|task| task.last_status = Status::Gone);
                self.leave(arn, &entry, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn due(name: &str, last_look: Instant, interval: Duration) -> Due {
        Due { arn: TaskArn::new(name), last_look, interval, urgent: false }
    }

    #[test]
    fn nothing_watched_is_nothing_to_do() {
        assert_eq!(decide(&[], None, Instant::now()), Decision::Idle);
    }

    #[test]
    fn it_waits_for_the_first_who_is_due() {
        let now = Instant::now();
        let tasks = [due("running", now, 10 * SECOND), due("starting", now, SECOND)];
        assert_eq!(decide(&tasks, Some(now), now), Decision::Wait(SECOND));
    }

    #[test]
    fn whoever_has_room_in_the_call_comes_along() {
        let now = Instant::now();
        let tasks = [due("running", now, 10 * SECOND), due("starting", now, SECOND)];
        let Decision::Look(arns) = decide(&tasks, Some(now), now + SECOND) else { panic!("a look") };
        assert_eq!(arns, [TaskArn::new("starting"), TaskArn::new("running")]);
    }

    #[test]
    fn an_urgent_look_is_at_once_but_many_are_gathered() {
        let now = Instant::now();
        let later = now + 2 * GAP;
        let mut tasks = vec![due("a", now, 10 * SECOND)];
        tasks[0].urgent = true;
        assert_eq!(decide(&tasks, Some(now), later), Decision::Look(vec![TaskArn::new("a")]));
        assert_eq!(decide(&tasks, Some(later), later), Decision::Wait(GAP));
    }

    #[test]
    fn missing_is_gone_only_once_it_was_seen_or_the_grace_is_over() {
        assert!(!is_gone(false, Duration::ZERO));
        assert!(!is_gone(false, GRACE - SECOND));
        assert!(is_gone(false, GRACE));
        assert!(is_gone(true, Duration::ZERO));
    }

    #[test]
    fn a_thousand_jobs_cost_less_than_half_a_describe_each() {
        // Launched 20 a second after a burst of 100; each starts for 12 s and runs for 5 minutes.
        let start = Instant::now();
        let (mut now, mut last_round, mut calls) = (start, None, 0);
        let mut looks: HashMap<u32, Instant> = HashMap::new();
        let began = |number: u32| start + SECOND * (number.saturating_sub(100) / 20);
        let ends = |number: u32| began(number) + 312 * SECOND;
        loop {
            let alive: Vec<u32> = (0..1000).filter(|number| began(*number) <= now && now < ends(*number)).collect();
            if alive.is_empty() {
                break;
            }
            let due: Vec<Due> = alive
                .iter()
                .map(|&number| {
                    let age = now - began(number);
                    let last_look = *looks.entry(number).or_insert_with(|| began(number));
                    due(&number.to_string(), last_look, interval(age < 12 * SECOND, age))
                })
                .collect();
            match decide(&due, last_round, now) {
                Decision::Idle => break,
                // A launch wakes the describer at most a second later.
                Decision::Wait(wait) => now += wait.min(SECOND),
                Decision::Look(arns) => {
                    calls += arns.len().div_ceil(BATCH);
                    last_round = Some(now);
                    for arn in arns {
                        looks.insert(arn.as_str().parse().expect("a number"), now);
                    }
                }
            }
        }
        assert!(calls <= 500, "{calls} DescribeTasks for 1,000 jobs");
    }

    proptest! {
        #[test]
        fn whoever_is_due_is_looked_at_once_and_no_call_is_wasted(
            tasks in prop::collection::vec((0u64..20_000, any::<bool>(), any::<bool>()), 1..350),
        ) {
            let start = Instant::now();
            let now = start + Duration::from_secs(20);
            let tasks: Vec<Due> = tasks
                .into_iter()
                .enumerate()
                .map(|(number, (age, starting, urgent))| Due {
                    urgent,
                    ..due(&number.to_string(), now - Duration::from_millis(age), if starting { STARTING } else { SETTLED })
                })
                .collect();
            match decide(&tasks, None, now) {
                Decision::Idle => prop_assert!(false, "tasks are watched"),
                Decision::Wait(wait) => {
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert!(tasks.iter().all(|due| !due.urgent && due.last_look + due.interval > now));
                }
                Decision::Look(arns) => {
                    let chosen: HashSet<_> = arns.iter().collect();
                    prop_assert_eq!(chosen.len(), arns.len());
                    let needed = tasks.iter().filter(|due| due.urgent || due.last_look + due.interval <= now);
                    prop_assert!(needed.into_iter().all(|due| chosen.contains(&due.arn)));
                    prop_assert!(arns.len() == tasks.len() || arns.len() % BATCH == 0);
                }
            }
        }
    }
}
