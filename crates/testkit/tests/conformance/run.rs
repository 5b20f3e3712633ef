//! Runs one case: a GitLab of its own, a runner that takes the jobs, and what the case asks for while they run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use embedded::gitlab::{self, Endpoint, Fault, PipelineSource, Ref, Rule, Server, Status, ci};
use testkit::vault::{self, Vault};
use testkit::{PATIENCE, Repository, Setup, World};
use tokio::time::timeout;

use crate::case::{self, Case, FaultKind, File, GitRef, Variable};
use crate::expect;
use crate::store::{self, CaseStore};
use crate::text;

/// Who takes the jobs.
#[derive(Clone)]
pub enum Runner {
    /// The manager and the agent of this project.
    Ours,
    /// Somebody else's, started by somebody else with this URL and token.
    External(External),
}

impl Runner {
    /// Where the caches of a case lie. Another runner is told of one for all, when it is started.
    fn bucket(&self, case: &Case) -> String {
        match self {
            Self::Ours => store::bucket_of(&case.name),
            Self::External(_) => "conformance".into(),
        }
    }
}

#[derive(Clone)]
pub struct External {
    /// Every case has a GitLab of its own, one after the other, all at this address.
    pub listen: SocketAddr,
    pub token: String,
    /// Its version, such as 17.7: cases of newer ones are skipped.
    pub version: Option<String>,
    /// It was told of the store of caches.
    pub has_store: bool,
    /// It gives each job a container of its own.
    pub has_containers: bool,
}

/// An empty list: the case passed.
pub async fn run(area: &str, case: &Case, runner: &Runner) -> Vec<String> {
    let vault = if case.vault.is_empty() { None } else { Some(start_vault(case).await) };
    let store = match &case.store {
        Some(store) => Some(CaseStore::filled(runner.bucket(case), store).await),
        None => None,
    };
    let config = gitlab_config(area, case, runner, vault.as_ref());
    match runner {
        Runner::Ours => {
            let setup = Setup {
                gitlab: config,
                global: case.config.global.clone(),
                runner: case.config.runner.clone() + &store.as_ref().map(CaseStore::config).unwrap_or_default(),
                runners: vec![("dev", Vec::new())],
                ..Setup::default()
            };
            let world = World::start(setup).await;
            let wrong = judge(case, store.as_ref(), &world.gitlab).await;
            if wrong.is_empty() {
                world.end().await;
            }
            wrong
        }
        Runner::External(external) => {
            let gitlab = gitlab::start(config).await.expect("the embedded GitLab");
            gitlab.adopt_runner(&external.token, "external", &[]);
            let wrong = judge(case, store.as_ref(), &gitlab).await;
            gitlab.shutdown().await;
            wrong
        }
    }
}

/// A Vault in which both engines have the case's secrets.
async fn start_vault(case: &Case) -> Vault {
    let vault = Vault::start().await;
    for (path, data) in &case.vault {
        vault.put(path, data.clone());
        vault.put_in_version_1(path, data.clone());
    }
    vault
}

fn gitlab_config(area: &str, case: &Case, runner: &Runner, vault: Option<&Vault>) -> gitlab::Config {
    let (listen, first_ids) = match runner {
        Runner::Ours => (SocketAddr::from(([127, 0, 0, 1], 0)), 0),
        // A runner that stays takes all these servers for one, which never gives an id twice; no case has as many jobs as it
        // takes milliseconds.
        Runner::External(external) => (external.listen, milliseconds_of_the_clock()),
    };
    // A project of its own for each case, so that a runner that keeps folders keeps them apart.
    let project_path = format!("{area}/{}", case.name.replace('_', "-"));
    let mut variables: Vec<_> = case.variables.iter().map(|(key, variable)| project_variable(key, variable)).collect();
    if let Some(vault) = vault {
        let given = [("VAULT_SERVER_URL", vault.url()), ("VAULT_AUTH_ROLE", vault::ROLE), ("VAULT_JWT", vault::JWT)];
        variables.extend(given.map(|(key, value)| gitlab::Variable::new(key, value)));
    }
    gitlab::Config {
        listen,
        first_ids,
        project_path,
        variables,
        trace_interval: Duration::from_secs(1),
        object_storage: true,
        ..Default::default()
    }
}

fn milliseconds_of_the_clock() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since_1970.as_millis()).expect("a clock before the year 500,000,000")
}

fn project_variable(key: &str, variable: &Variable) -> gitlab::Variable {
    match variable {
        Variable::Value(value) => gitlab::Variable::new(key, value),
        Variable::Full(full) => {
            let case::FullVariable { value, masked, file, raw } = full;
            gitlab::Variable { key: key.into(), value: value.clone(), masked: *masked, file: *file, raw: *raw }
        }
    }
}

async fn judge(case: &Case, store: Option<&CaseStore<'_>>, gitlab: &Server) -> Vec<String> {
    if !case.payload.is_empty() {
        let fault = Fault::Payload(case.payload.clone());
        gitlab.faults().add(Rule::new(Endpoint::JobRequest, fault).times(u32::MAX));
    }
    for fault in &case.faults {
        gitlab.faults().add(rule(fault));
    }
    // All of them live as long as the case: the embedded GitLab only borrows their objects.
    let projects = projects(case);
    for (path, repository) in &projects {
        gitlab.serve_repository(path, repository.path()).await.expect("a project");
    }
    let repository = repository(case, &projects);
    let git_ref = git_ref(case, &repository);
    let pipeline = ci::load(repository.path(), Path::new(".gitlab-ci.yml"), &git_ref.context());
    let pipeline = match pipeline {
        Ok(pipeline) => pipeline,
        Err(mistakes) => return mistakes.iter().map(ToString::to_string).collect(),
    };
    let source = PipelineSource {
        repo: repository.path().to_owned(),
        commit: "HEAD".into(),
        git_ref,
        pipeline,
        variables: Vec::new(),
    };
    let id = gitlab.create_pipeline(source).await.expect("a pipeline");
    if let Some(cancel) = &case.cancel
        && let Err(message) = cancel_at_line(cancel, gitlab).await
    {
        return vec![message, logs(gitlab)];
    }
    let over = |gitlab: &Server| gitlab.pipeline_status(id).is_some_and(Status::is_complete);
    if timeout(PATIENCE, gitlab.wait_until(over)).await.is_err() {
        return vec![format!("not over after {} seconds", PATIENCE.as_secs()), logs(gitlab)];
    }
    let mut wrong = expect::differences(case, gitlab);
    if let Some(store) = store {
        wrong.extend(store.differences().await);
    }
    if !wrong.is_empty() {
        wrong.push(logs(gitlab));
    }
    wrong
}

fn repository(case: &Case, projects: &BTreeMap<String, Repository>) -> Repository {
    let repository = Repository::empty(case.object_format.as_deref().unwrap_or("sha1"));
    for number in 1..=case.earlier_commits {
        repository.commit(&format!("Earlier commit {number}"));
    }
    repository.write(".gitlab-ci.yml", case.pipeline.as_bytes());
    fill(&repository, &case.files, &case.submodules, projects);
    repository
}

/// The other projects; one is made after those that are its submodules.
fn projects(case: &Case) -> BTreeMap<String, Repository> {
    let mut made = BTreeMap::new();
    while made.len() < case.projects.len() {
        let ready = case.projects.iter().find(|(path, project)| {
            !made.contains_key(*path) && project.submodules.values().all(|project| made.contains_key(project))
        });
        let (path, project) = ready.expect("submodules are projects, and none contains itself");
        let repository = Repository::empty("sha1");
        fill(&repository, &project.files, &project.submodules, &made);
        made.insert(path.clone(), repository);
    }
    made
}

fn fill(
    repository: &Repository,
    files: &BTreeMap<String, File>,
    submodules: &BTreeMap<String, String>,
    projects: &BTreeMap<String, Repository>,
) {
    for (name, file) in files {
        match file {
            File::Text(text) => repository.write(name, text.as_bytes()),
            File::Full(case::FullFile { link: Some(target), .. }) => repository.link(name, target),
            File::Full(full) => {
                repository.write(name, full.text.as_deref().unwrap_or_default().as_bytes());
                if full.executable {
                    repository.make_executable(name);
                }
            }
        }
    }
    for (path, project) in submodules {
        repository.submodule(path, projects.get(project).expect("a submodule is a project"));
    }
    repository.commit("A commit of the tests");
}

/// What the pipeline runs for; a tag is made.
fn git_ref(case: &Case, repository: &Repository) -> Ref {
    match &case.git_ref {
        GitRef::Branch(name) => Ref::branch(name),
        GitRef::Tag(name) => {
            repository.git(&["tag", "-a", "-m", "A tag of the tests", name]);
            Ref::Tag(name.clone())
        }
        GitRef::MergeRequest(iid) => {
            Ref::MergeRequest { iid: *iid, source: "topic".to_owned(), target: "main".to_owned() }
        }
    }
}

fn rule(fault: &case::Fault) -> Rule {
    let endpoint = match fault.at {
        case::Endpoint::JobUpdate => Endpoint::JobUpdate,
        case::Endpoint::FinalUpdate => Endpoint::FinalUpdate,
        case::Endpoint::Trace => Endpoint::Trace,
        case::Endpoint::ArtifactUpload => Endpoint::ArtifactUpload,
        case::Endpoint::ArtifactDownload => Endpoint::ArtifactDownload,
        case::Endpoint::ObjectStorage => Endpoint::ObjectStorage,
        case::Endpoint::Git => Endpoint::Git,
    };
    let kind = match fault.fault {
        FaultKind::Dropped => Fault::Dropped,
        FaultKind::AnswerLost => Fault::AnswerLost,
        FaultKind::Status(status) => Fault::Status(status),
        FaultKind::RetryAfterSeconds(s) => Fault::TooManyRequests { retry_after: Duration::from_secs(s) },
        FaultKind::SlowMs(ms) => Fault::Slow(Duration::from_millis(ms)),
        FaultKind::Html => Fault::Html,
        FaultKind::StillArchiving => Fault::StillArchiving,
        FaultKind::TraceLostAfter(keep) => Fault::TraceLost { keep },
        FaultKind::TraceAhead => Fault::TraceAhead,
    };
    Rule::new(endpoint, kind).after(fault.skip).times(fault.times)
}

async fn cancel_at_line(cancel: &case::Cancel, gitlab: &Server) -> Result<(), String> {
    let has_line = |gitlab: &Server| {
        let trace = gitlab.job_named(&cancel.job).and_then(|job| gitlab.trace(job.id).ok()).unwrap_or_default();
        text::read(&trace).text.lines().any(|line| line == cancel.at_line)
    };
    if timeout(PATIENCE, gitlab.wait_until(has_line)).await.is_err() {
        return Err(format!("the log of {} never had the line {:?}", cancel.job, cancel.at_line));
    }
    let job = gitlab.job_named(&cancel.job).expect("its log was just read").id;
    gitlab.cancel_job(job);
    if cancel.force {
        gitlab.force_cancel_job(job);
    }
    Ok(())
}

fn logs(gitlab: &Server) -> String {
    let of = |job: &gitlab::JobView| {
        let trace = gitlab.trace(job.id).unwrap_or_default();
        format!("--- the log of {}, which is {}\n{}", job.name, job.status, text::read(&trace).text)
    };
    gitlab.jobs().iter().map(of).collect()
}
