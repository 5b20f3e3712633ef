//! The manager: asks GitLab for jobs, starts a task for each, hands the job over, and sees to the task's end.
//!
//! Each file is one part of the journey. Rules are pure (`plan`, `decide`, `verdict`); what runs them
//! is one loop per runner for polling, one pass per minute for reaping, and one straight line per job.

mod cache;
mod cache_renewal;
mod cache_seal;
mod errand;
mod finish;
mod hand_over;
mod job_log;
mod journey;
mod launch;
mod poll;
mod reap;
mod rotate;
mod runner;
mod secrets;
mod slots;
mod stop;
mod supervise;
mod watch;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws::fargate::Regions;
use gitlab::{JobAccess, Verified};
use job::ids::SystemId;
use ssh::client::AgentBinaries;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::metrics::{JobEntry, Metrics};
use crate::secrets::Servers;
use rotate::Former;
use runner::{Held, Runner, RunnerState};
use slots::{Slot, Slots};
pub use stop::Stop;
use supervise::Supervised;

/// How often ECS is asked for tasks that nobody here knows.
const REAP_INTERVAL: Duration = Duration::from_secs(60);

/// Beyond `shutdown_timeout`, for reports and stops that are under way.
const LAST_REPORTS: Duration = Duration::from_secs(30);
/// Jobs that wait for RunTask at once. It starts 20 a second; more are better off in GitLab's queue, where they cost no
/// memory here and any manager may take them.
const MOST_WAITING: usize = 100;

/// Counts a job that waits for RunTask, until dropped.
struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.slots.make_known();
    }
}

/// A running manager. Dropping it does not stop it; see [`Manager::terminate`].
pub struct Manager {
    shared: Arc<Shared>,
}

/// What all loops and jobs of a manager share.
pub struct Shared {
    config: Mutex<Arc<Config>>,
    runners: Mutex<Vec<Arc<Runner>>>,
    /// The same under tokens that were replaced, while tasks of these may be there.
    former: Mutex<Vec<Arc<Former>>>,
    /// Where tokens are renewed; unset, they are not.
    config_file: OnceLock<PathBuf>,
    renewed: Notify,
    reloaded: Notify,
    /// Sets off a pass of the reaper at once.
    reap_now: Notify,
    slots: Arc<Slots>,
    regions: Regions,
    metrics: Arc<Metrics>,
    stop: tokio::sync::watch::Sender<Stop>,
    system_id: SystemId,
    agents: AgentBinaries,
    /// Of the secrets that jobs ask for.
    secret_servers: Servers,
    /// Jobs whose RunTask is not answered yet.
    waiting: AtomicUsize,
    /// Jobs that are not handed over yet, and the few short tasks that must end before the process may.
    jobs: TaskTracker,
    /// Jobs that an agent has.
    supervised: TaskTracker,
    polls: TaskTracker,
}

impl Shared {
    fn concurrent(&self) -> usize {
        lock(&self.config).concurrent
    }

    fn check_interval(&self) -> Duration {
        lock(&self.config).check_interval
    }

    fn runner_count(&self) -> usize {
        lock(&self.runners).len()
    }

    fn take_slot(&self, runner: &Runner) -> Option<Slot> {
        if self.waiting.load(Ordering::Relaxed) >= MOST_WAITING {
            return None;
        }
        self.slots.take(self.concurrent(), &runner.state.slots, runner.settings.limit)
    }

    /// The slot is taken and the job held until its task has ended and GitLab knows it.
    fn supervise(self: &Arc<Self>, job: Supervised, taken: (Held, Option<(JobEntry, Slot)>)) {
        let shared = self.clone();
        self.supervised.spawn(async move {
            let mut stop = shared.stop.subscribe();
            let outcome = tokio::select! {
                outcome = job.until_ended(shared.stop.subscribe()) => outcome,
                // A job of another manager is that one's: a stop here does not wait for its end.
                _ = stop.wait_for(|stop| !stop.asks_for_jobs()), if !job.ours => return,
            };
            if let Some(outcome) = outcome {
                // Beside the jobs that are not handed over: no later manager finds a task that has ended.
                shared.start_job(async move {
                    job.report(&outcome).await;
                    drop(taken);
                });
            }
        });
    }

    fn wait_for_ecs(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    fn start_job(&self, job: impl Future<Output = ()> + Send + 'static) {
        self.jobs.spawn(job);
    }
}

impl Manager {
    /// Starts to ask for jobs. Fails only on settings that cannot work; an unreachable GitLab or AWS is waited out.
    pub async fn start(config: Config, system_id: SystemId, agents: AgentBinaries) -> anyhow::Result<Self> {
        let regions = Regions::default();
        let metrics = Arc::new(Metrics::new(system_id.clone(), regions.clone()));
        let mut runners = Vec::new();
        for settings in &config.runners {
            let connected = Runner::connect(settings.clone(), &regions, &metrics, Arc::default(), &system_id);
            runners.push(Arc::new(connected.await?));
        }
        metrics.configured(&config);
        let shared = Arc::new(Shared {
            config: Mutex::new(Arc::new(config)),
            runners: Mutex::new(runners.clone()),
            former: Mutex::default(),
            config_file: OnceLock::new(),
            renewed: Notify::new(),
            reloaded: Notify::new(),
            reap_now: Notify::new(),
            slots: Arc::default(),
            regions,
            metrics,
            stop: tokio::sync::watch::Sender::new(Stop::No),
            system_id,
            agents,
            secret_servers: Servers::new()?,
            waiting: AtomicUsize::new(0),
            jobs: TaskTracker::new(),
            supervised: TaskTracker::new(),
            polls: TaskTracker::new(),
        });
        for runner in runners {
            shared.polls.spawn(serve(shared.clone(), runner));
        }
        shared.polls.spawn(reap_regularly(shared.clone()));
        Ok(Self { shared })
    }

    /// Takes new settings. Running jobs keep those that they started with.
    pub async fn reload(&self, config: Config) -> anyhow::Result<()> {
        let before = lock(&self.shared.runners).clone();
        let old = rotate::old_tokens_beside(self.shared.config_file.get());
        let mut runners = Vec::new();
        for settings in &config.runners {
            let is_known =
                |runner: &&Arc<Runner>| runner.has_identity_of(settings) || rotate::is_renewal(runner, settings, &old);
            let known = before.iter().find(is_known);
            let state = known.map_or_else(Arc::<RunnerState>::default, |runner| runner.state.clone());
            let Shared { regions, metrics, system_id, .. } = &*self.shared;
            let connected = Runner::connect(settings.clone(), regions, metrics, state, system_id);
            runners.push(Arc::new(connected.await?));
        }
        let Shared { regions, metrics, system_id, .. } = &*self.shared;
        let former = rotate::former(self.shared.config_file.get(), old, &runners, regions, metrics, system_id).await;
        metrics.configured(&config);
        *lock(&self.shared.former) = former;
        *lock(&self.shared.runners) = runners.clone();
        *lock(&self.shared.config) = Arc::new(config);
        for runner in before {
            runner.retired.cancel();
        }
        for runner in runners {
            self.shared.polls.spawn(serve(self.shared.clone(), runner));
        }
        self.shared.reloaded.notify_one();
        self.shared.reap_now.notify_one();
        Ok(())
    }

    /// Renews tokens before they expire, in this file, which [`Manager::renewed`] tells to read again. To be called once.
    pub async fn renew_tokens_in(&self, config_file: &Path) {
        let config_file = self.shared.config_file.get_or_init(|| config_file.to_owned());
        let runners = lock(&self.shared.runners).clone();
        let old = rotate::old_tokens_beside(Some(config_file));
        let Shared { regions, metrics, system_id, .. } = &*self.shared;
        let former = rotate::former(Some(config_file), old, &runners, regions, metrics, system_id).await;
        *lock(&self.shared.former) = former;
        // The first pass may have been without these.
        self.shared.reap_now.notify_one();
        self.shared.polls.spawn(rotate::run(self.shared.clone(), config_file.clone()));
    }

    /// Resolves when a token in the file is newer than the one that its runner asks with.
    pub async fn renewed(&self) {
        self.shared.renewed.notified().await;
    }

    /// What is counted, for [`crate::metrics::http::serve`].
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.metrics.clone()
    }

    /// SIGTERM and SIGINT: leave, and on the second call cancel.
    pub fn terminate(&self) {
        self.shared.metrics.stopping();
        let by = Instant::now() + lock(&self.shared.config).shutdown_timeout;
        self.shared.stop.send_modify(|stop| *stop = stop.on_terminate(by));
    }

    /// SIGQUIT: drain.
    pub fn quit(&self) {
        self.shared.metrics.stopping();
        self.shared.stop.send_modify(|stop| *stop = stop.on_quit());
    }

    pub fn stopping(&self) -> Stop {
        *self.shared.stop.borrow()
    }

    /// Jobs that agents have and this manager supervises.
    pub fn running(&self) -> usize {
        self.shared.supervised.len()
    }

    /// Resolves when nothing is left to do after [`Manager::terminate`] or [`Manager::quit`].
    pub async fn ended(&self) {
        for tracker in [&self.shared.polls, &self.shared.jobs, &self.shared.supervised] {
            tracker.close();
        }
        self.shared.polls.wait().await;
        self.jobs_done().await;
        let mut stop = self.shared.stop.subscribe();
        tokio::select! {
            () = self.shared.supervised.wait() => {}
            _ = stop.wait_for(|stop| matches!(stop, Stop::Leave { .. })) => {}
        }
        // What supervising a job to its end left to report.
        self.jobs_done().await;
    }

    /// Reports and stops are repeated for minutes while GitLab or ECS is away. A manager that was told to stop does not
    /// wait that long: GitLab calls an unreported job stuck, and the next manager finds a task that was not stopped.
    async fn jobs_done(&self) {
        let mut stop = self.shared.stop.subscribe();
        let limit = async {
            let state = stop.wait_for(|stop| matches!(stop, Stop::Leave { .. } | Stop::Cancel)).await.map(|stop| *stop);
            let from = if let Ok(Stop::Leave { by }) = state { by.max(Instant::now()) } else { Instant::now() };
            tokio::time::sleep_until((from + LAST_REPORTS).into()).await;
        };
        tokio::select! {
            () = self.shared.jobs.wait() => {}
            () = limit => warn!(left = self.shared.jobs.len(), "not everything could be reported or stopped in time"),
        }
    }
}

/// A runner's life: say hello until GitLab answers, then ask for jobs.
async fn serve(shared: Arc<Shared>, runner: Arc<Runner>) {
    let mut stop = shared.stop.subscribe();
    tokio::select! {
        () = verify(&shared, &runner) => {}
        _ = stop.wait_for(|stop| !stop.asks_for_jobs()) => return,
        () = runner.retired.cancelled() => return,
    }
    poll::run(shared, runner).await;
}

/// The first request of a manager tells GitLab what it can do; without it GitLab believes for up to an
/// hour that it can do nothing, and a cancelled job loses its after_script (protocol 1.3).
async fn verify(shared: &Shared, runner: &Runner) {
    let name = &runner.settings.name;
    loop {
        match runner.client.verify(&runner.settings.token, Some(&shared.system_id)).await {
            Verified::Valid(_) => {
                let cluster = &runner.settings.fargate.cluster;
                info!(runner = %name, url = %runner.settings.url, %cluster, "ready for jobs");
                return;
            }
            // The poll loop asks on, and rests as the protocol has it: the token may be made valid again.
            Verified::Invalid => {
                error!(runner = %name, url = %runner.settings.url, "GitLab refuses the runner's token; register the runner again");
                return;
            }
            Verified::Orphaned(reason) => {
                error!(runner = %name, url = %runner.settings.url, %reason, "the runner belongs to no project or group in GitLab any more; register another one");
                return;
            }
            Verified::Unknown(reason) => {
                warn!(runner = %name, url = %runner.settings.url, %reason, "GitLab does not verify the runner's token; trying again");
                tokio::time::sleep(shared.check_interval()).await;
            }
        }
    }
}

async fn reap_regularly(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    loop {
        tokio::select! {
            () = reap_once(&shared) => {}
            _ = stop.wait_for(|stop| !stop.asks_for_jobs()) => return,
        }
        tokio::select! {
            () = tokio::time::sleep(REAP_INTERVAL) => {}
            () = shared.reap_now.notified() => {}
            _ = stop.wait_for(|stop| !stop.asks_for_jobs()) => return,
        }
    }
}

/// One pass over all runners: look, decide, do.
async fn reap_once(shared: &Arc<Shared>) {
    let runners = lock(&shared.runners).clone();
    for runner in runners {
        reap_one(shared, &runner).await;
    }
    let former = lock(&shared.former).clone();
    for former in former {
        let listed = reap_one(shared, &former.runner).await;
        rotate::forget_if_useless(shared, &former, listed);
    }
}

/// Answers how many tasks of the runner ECS has, if it could be asked.
async fn reap_one(shared: &Arc<Shared>, runner: &Arc<Runner>) -> Option<usize> {
    let observed = reap::observe(runner).await;
    for action in reap::plan(&observed.seen, &runner.state.held(), &shared.system_id) {
        match action {
            reap::Action::Stop { arn, why } => {
                let runner = runner.clone();
                shared.start_job(async move { finish::stop_task(&runner, &arn, why).await });
            }
            reap::Action::Adopt { task, job, token, remaining, visit, cache_renewal, ours } => {
                info!(runner = %runner.settings.name, %job, task = %task.arn.id(), "found a running job of an earlier manager");
                let held = runner.state.hold(job);
                // A job of another manager that is alive counts there.
                let counted = ours.then(|| {
                    let entry = runner.metrics.took_up().is_with_its_agent();
                    (entry, shared.slots.take_regardless(&runner.state.slots))
                });
                let access = JobAccess { id: job, token };
                let renewal = cache_renewal.and_then(|sealed| visit.opened(runner, &sealed));
                let supervised = journey::adopted(runner.clone(), *task, access, remaining, visit, renewal, ours);
                shared.supervise(supervised, (held, counted));
            }
        }
    }
    observed.listed
}

/// The data stays whole when a task panicked while it held the lock: nothing under one of these locks is done half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
