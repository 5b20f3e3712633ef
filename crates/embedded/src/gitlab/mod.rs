//! A small strict GitLab on loopback ports: the runner API, Git over smart HTTP, artifacts, and pipelines.
//!
//! It decides from what it is sent and never from who sent it, refuses what GitLab refuses, and shares no code with
//! the client. What it does is stated in the runner protocol's notes marked [S]: registration (1), `jobs/request`
//! (2), the payload (3), trace and job updates (4), artifacts (5). The state is in memory, the bytes in a directory
//! that goes with the server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

mod answers;
mod artifacts;
mod cache_keys;
pub mod ci;
mod config;
mod dotenv;
mod faults;
mod git;
mod git_http;
mod id_token;
mod job;
mod multipart;
mod payload;
mod progress;
mod read;
mod reference;
mod release;
mod request;
mod runners;
mod secrets;
mod server;
mod state;
mod trace;
mod update;
mod variables;
mod view;
mod wire;

pub use config::{Config, PipelineSource, Variable};
pub use faults::{Endpoint, Fault, Faults, Rule};
pub use git::GitError;
pub use reference::Ref;
pub use view::{ArtifactView, Event, JobId, JobView, PipelineId, RequestLog, RunnerView, Status};

use state::Shared;

/// The version that it says to be.
const VERSION: &str = "19.4.0";
/// The only project.
pub const PROJECT_ID: u64 = 1;
/// The branch that is protected.
pub const DEFAULT_BRANCH: &str = "main";
/// Ids of pipelines and jobs begin far apart, so that one taken for the other is found.
const FIRST_PIPELINE: PipelineId = 101;
const FIRST_JOB: JobId = 100_001;

/// A running server. Dropping it ends it like [`Server::shutdown`], without waiting.
pub struct Server {
    shared: Arc<Shared>,
    gate: wire::Gate,
    storage_gate: Option<wire::Gate>,
    tasks: Vec<JoinHandle<()>>,
    /// Removed when dropped, after everything that uses it.
    _directory: tempfile::TempDir,
}

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("job {job}: the pipeline has no stage {stage}")]
    UnknownStage { job: String, stage: String },
    #[error("job {job} needs {need}, which is not in the pipeline")]
    UnknownNeed { job: String, need: String },
}

/// Starts a server. Fails when the address is taken or the project's path is not one.
pub async fn start(config: Config) -> io::Result<Server> {
    check_project_path(&config.project_path)?;
    let directory = tempfile::Builder::new().prefix("embedded-gitlab-").tempdir()?;
    for part in ["traces", "artifacts"] {
        std::fs::create_dir(directory.path().join(part))?;
    }
    let (listener, gate) = wire::Listener::bind(config.listen).await?;
    let url = config.external_url.clone().unwrap_or_else(|| format!("http://{}", listener.address()));
    let storage = match config.object_storage {
        true => Some(wire::Listener::bind(SocketAddr::new(config.listen.ip(), 0)).await?),
        false => None,
    };
    let storage_url = storage.as_ref().map(|(listener, _)| format!("http://{}", listener.address()));
    let shared = Arc::new(Shared::new(config, listener.address(), url, storage_url, directory.path().to_owned()));
    let mut tasks = vec![tokio::spawn(serve(listener, server::gitlab(&shared)))];
    let storage_gate = storage.map(|(listener, gate)| {
        tasks.push(tokio::spawn(serve(listener, server::object_storage(&shared))));
        gate
    });
    Ok(Server { shared, gate, storage_gate, tasks, _directory: directory })
}

fn check_project_path(path: &str) -> io::Result<()> {
    if git_http::is_project_path(path) {
        return Ok(());
    }
    let message = format!("{path:?} is not a project's path (letters, digits, - _ . and a /)");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

async fn serve(listener: wire::Listener, router: axum::Router) {
    let service = router.into_make_service_with_connect_info::<wire::Wire>();
    if let Err(error) = axum::serve(listener, service).await {
        tracing::warn!(%error, "the embedded GitLab stopped listening");
    }
}

impl Server {
    /// `http://host:port`, or what was set as its external URL, for a runner's `url`.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// For the legacy registration, `POST runners`.
    pub fn registration_token(&self) -> &str {
        &self.shared.registration_token
    }

    /// For `POST user/runners` and the calls that read.
    pub fn personal_access_token(&self) -> &str {
        &self.shared.personal_access_token
    }

    /// Signs the ID tokens of jobs (HS256), for those who are to trust them.
    pub fn id_token_key(&self) -> &str {
        &self.shared.id_token_key
    }

    /// Makes a runner as the user interface does, and returns its token (`glrt-`). Without tags it takes untagged jobs.
    pub fn register_runner(&self, description: &str, tags: &[&str]) -> String {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self.shared.change(|state| state.add_runner("glrt-t1_", description.to_owned(), tags).token.clone())
    }

    /// A runner that has its token already, as after a move from another GitLab.
    pub fn adopt_runner(&self, token: &str, description: &str, tags: &[&str]) {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self.shared.change(|state| state.add_runner("glrt-t1_", description.to_owned(), tags).token = token.to_owned());
    }

    /// All runners, oldest first.
    pub fn runners(&self) -> Vec<RunnerView> {
        self.shared.look(|state| state.runners.values().map(|runner| runner.view()).collect())
    }

    /// Makes the commit known to the served repository and starts the pipeline's first jobs.
    pub async fn create_pipeline(&self, source: PipelineSource) -> Result<PipelineId, PipelineError> {
        let PipelineSource { repo, commit, git_ref, mut pipeline, variables } = source;
        for job in &pipeline.jobs {
            if !pipeline.stages.contains(&job.stage) {
                return Err(PipelineError::UnknownStage { job: job.name.clone(), stage: job.stage.clone() });
            }
            let known = |need: &&ci::Need| !pipeline.jobs.iter().any(|other| other.name == need.job);
            if let Some(need) = job.needs.iter().flatten().find(known) {
                return Err(PipelineError::UnknownNeed { job: job.name.clone(), need: need.job.clone() });
            }
        }
        let commit = git::read_commit(&repo, &commit).await?;
        cache_keys::settle(&mut pipeline, &repo, &commit.sha).await?;
        let id = self.shared.change(|state| state.new_pipeline_id());
        let one_at_a_time = self.shared.repository.lock().await;
        let project = &self.shared.config.project_path;
        git::serve(&self.shared.directory, project, &repo, &commit, &git_ref, id).await?;
        drop(one_at_a_time);
        self.shared
            .change(|state| state.add_pipeline(id, Arc::new(commit), git_ref, pipeline, variables, SystemTime::now()));
        Ok(id)
    }

    /// Serves the branches and tags of another repository, for submodules: whoever may read the one may read the other.
    /// `project_path` is `group/name`.
    pub async fn serve_repository(&self, project_path: &str, repo: &std::path::Path) -> Result<(), GitError> {
        check_project_path(project_path)?;
        let _one_at_a_time = self.shared.repository.lock().await;
        git::serve_other(&self.shared.directory, project_path, repo).await
    }

    /// Everything from now on, in order and complete however slowly it is read. An unread receiver keeps the bytes of
    /// all traces in memory: drop it when it is not needed.
    pub fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        self.shared.change(|state| state.subscribe())
    }

    pub fn job(&self, id: JobId) -> Option<JobView> {
        self.shared.look(|state| state.jobs.get(&id).map(|job| job.view()))
    }

    /// The newest job of this name.
    pub fn job_named(&self, name: &str) -> Option<JobView> {
        self.shared.look(|state| state.newest_named(name).map(|job| job.view()))
    }

    /// All jobs of all pipelines, the retried ones too, oldest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.shared.look(|state| state.views())
    }

    /// The bytes of a trace; empty with `keep_traces: false`.
    pub fn trace(&self, id: JobId) -> io::Result<Vec<u8>> {
        self.shared.look(|state| state.jobs.get(&id).map_or(Ok(Vec::new()), |job| job.trace.read()))
    }

    pub fn pipeline_status(&self, id: PipelineId) -> Option<Status> {
        self.shared.look(|state| state.pipeline_status(id))
    }

    /// As the button does. False: the job was over.
    pub fn cancel_job(&self, id: JobId) -> bool {
        self.shared.change(|state| state.cancel(id, SystemTime::now()))
    }

    /// Ends a job in `canceling` without waiting for its runner.
    pub fn force_cancel_job(&self, id: JobId) -> bool {
        self.shared.change(|state| state.force_cancel(id, SystemTime::now()))
    }

    pub fn cancel_pipeline(&self, id: PipelineId) -> bool {
        self.shared.change(|state| state.cancel_pipeline(id, SystemTime::now()))
    }

    /// Starts a manual job.
    pub fn play_job(&self, id: JobId) -> bool {
        self.shared.change(|state| state.play(id, SystemTime::now()))
    }

    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// Every answered request so far, oldest first (the newest 200,000).
    pub fn requests(&self) -> Vec<RequestLog> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// How many requests the predicate holds for, without copying the log.
    pub fn count_requests(&self, predicate: impl Fn(&RequestLog) -> bool) -> usize {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|request| predicate(request)).count()
    }

    /// Down: open connections are cut and new ones refused, until it is up again. The port stays ours.
    pub async fn set_down(&self, down: bool) {
        self.gate.set_down(down).await;
    }

    /// Waits until the predicate holds; it is asked again after every change.
    pub async fn wait_until(&self, predicate: impl Fn(&Self) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if predicate(self) {
                return;
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = changed.changed().await;
        }
    }

    /// Cuts all connections, frees the ports and removes the files.
    pub async fn shutdown(mut self) {
        self.stop();
        for task in std::mem::take(&mut self.tasks) {
            // An error is the abort that was just asked for.
            let _ = task.await;
        }
    }

    fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.gate.cut_all();
        if let Some(gate) = &self.storage_gate {
            gate.cut_all();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
