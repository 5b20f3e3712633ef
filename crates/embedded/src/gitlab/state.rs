//! All that the server knows, behind one lock, and the events that tell of its changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rand::distr::{Alphanumeric, SampleString};
use tokio::sync::{mpsc, watch};

use super::config::{Config, Variable};
use super::faults::Faults;
use super::git::Commit;
use super::job::Job;
use super::reference::Ref;
use super::runners::Runner;
use super::view::{Event, JobId, JobView, PipelineId, RequestLog, Status};

/// A server that runs for weeks must not grow by its log: the oldest requests are forgotten.
const MOST_REQUESTS: usize = 200_000;

/// What the handlers share.
pub(super) struct Shared {
    pub config: Config,
    /// `http://host:port`, or the external URL.
    pub url: String,
    pub address: SocketAddr,
    pub storage_url: Option<String>,
    /// Traces, artifacts and the served repository; nobody else's.
    pub directory: PathBuf,
    pub registration_token: String,
    pub personal_access_token: String,
    /// Signs ID tokens.
    pub id_token_key: String,
    pub faults: Faults,
    pub requests: Mutex<VecDeque<RequestLog>>,
    /// Held while a commit is added to the served repository.
    pub repository: tokio::sync::Mutex<()>,
    /// Ticks after every change of the state.
    pub changed: watch::Sender<()>,
    pub state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(
        config: Config,
        address: SocketAddr,
        url: String,
        storage_url: Option<String>,
        directory: PathBuf,
    ) -> Self {
        let state = State {
            directory: directory.join("traces"),
            keep_traces: config.keep_traces,
            first_ids: config.first_ids,
            ..State::default()
        };
        Self {
            config,
            url,
            address,
            storage_url,
            directory,
            registration_token: format!("GR1348941{}", random_word()),
            personal_access_token: format!("glpat-{}", random_word()),
            id_token_key: random_word() + &random_word(),
            faults: Faults::default(),
            requests: Mutex::default(),
            repository: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(()),
            state: Mutex::new(state),
        }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A handler that panicked leaves a state that is at worst one job behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self, request: RequestLog) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() == MOST_REQUESTS {
            requests.pop_front();
        }
        requests.push_back(request);
    }

    pub(super) fn project_url(&self) -> String {
        format!("{}/{}", self.url, self.config.project_path)
    }
}

/// Twenty letters and digits that nobody can guess.
pub(super) fn random_word() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 20)
}

#[derive(Default)]
pub(super) struct State {
    pub directory: PathBuf,
    pub keep_traces: bool,
    pub runners: BTreeMap<u64, Runner>,
    pub pipelines: BTreeMap<PipelineId, Pipeline>,
    pub jobs: BTreeMap<JobId, Job>,
    /// The jobs with status pending, oldest first.
    pub queue: BTreeSet<JobId>,
    subscribers: Vec<mpsc::UnboundedSender<Event>>,
    first_ids: u64,
    last_runner: u64,
    last_pipeline: PipelineId,
    last_job: JobId,
}

pub(super) struct Pipeline {
    pub id: PipelineId,
    pub commit: Arc<Commit>,
    pub git_ref: Ref,
    pub stages: Vec<String>,
    pub variables: Vec<Variable>,
    /// The newest job of each definition, in the order of the file.
    pub latest: Vec<JobId>,
    /// By definition: positions of the jobs that it needs.
    pub needs: Vec<Option<Vec<usize>>>,
    /// By definition: position of its stage.
    pub stage_of: Vec<usize>,
    pub created_at: SystemTime,
    /// What was told to the subscribers as its end.
    pub finished: Option<Status>,
}

impl State {
    pub(super) fn subscribe(&mut self) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.push(sender);
        receiver
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    pub(super) fn new_runner_id(&mut self) -> u64 {
        self.last_runner += 1;
        self.last_runner
    }

    pub(super) fn new_pipeline_id(&mut self) -> PipelineId {
        self.last_pipeline = (self.last_pipeline + 1).max(super::FIRST_PIPELINE + self.first_ids);
        self.last_pipeline
    }

    pub(super) fn new_job_id(&mut self) -> JobId {
        self.last_job = (self.last_job + 1).max(super::FIRST_JOB + self.first_ids);
        self.last_job
    }

    pub(super) fn runner_by_token(&mut self, token: &str) -> Option<&mut Runner> {
        let now = SystemTime::now();
        self.runners.values_mut().find(|runner| runner.has_token(token, now))
    }

    pub(super) fn views(&self) -> Vec<JobView> {
        self.jobs.values().map(|job| job.view()).collect()
    }

    /// The newest job of this name, in the newest pipeline that has one.
    pub(super) fn newest_named(&self, name: &str) -> Option<&Job> {
        self.jobs.values().rev().find(|job| job.definition.name == name)
    }
}
