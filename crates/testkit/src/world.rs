//! GitLab, ECS and a manager, usually with one runner for each environment.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use embedded::gitlab::{JobView, PipelineId, PipelineSource, Ref, Status, ci};
use embedded::{fargate, gitlab};
use job::ids::SystemId;
use ssh::client::AgentBinaries;
use staffetta::config::{self, Config};
use staffetta::manager::Manager;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{PATIENCE, Repository, aws_call, program};

/// The environments of every world; each has a runner with its name as tag, and a cluster.
pub const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "production"];

/// What a world differs in from the usual one.
pub struct Setup {
    pub gitlab: gitlab::Config,
    pub fargate: fargate::Config,
    /// The task definition of all runners: `staffetta-agent` or `staffetta-sshd`.
    pub task_definition: &'static str,
    /// The name, which is a cluster, and the tags of each. One without tags takes jobs without tags.
    pub runners: Vec<(&'static str, Vec<&'static str>)>,
    /// Lines for the head of config.toml, and for each `[[runners]]` entry.
    pub global: String,
    pub runner: String,
}

impl Default for Setup {
    fn default() -> Self {
        let clusters = ENVIRONMENTS.map(str::to_owned).to_vec();
        Self {
            gitlab: gitlab::Config { trace_interval: std::time::Duration::from_secs(1), ..gitlab::Config::default() },
            fargate: fargate::Config { clusters, ..fargate::Config::new(program("staffetta-agent")) },
            task_definition: "staffetta-agent",
            runners: ENVIRONMENTS.map(|name| (name, vec![name])).to_vec(),
            global: String::new(),
            runner: String::new(),
        }
    }
}

pub struct World {
    pub gitlab: gitlab::Server,
    pub fargate: fargate::Server,
    manager: Option<Manager>,
    folder: TempDir,
    repositories: Vec<Repository>,
}

impl World {
    /// Both servers and a manager.
    pub async fn start(setup: Setup) -> Self {
        let mut world = Self::without_manager(setup).await;
        world.start_manager().await;
        world
    }

    /// Both servers; the runners are registered and their config.toml is written.
    pub async fn without_manager(setup: Setup) -> Self {
        let gitlab = gitlab::start(setup.gitlab).await.expect("the embedded GitLab");
        let config = fargate::Config { record: aws_call::record_file(), ..setup.fargate };
        let fargate = fargate::start(config).await.expect("the embedded Fargate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut text = format!("concurrent = 1000\ncheck_interval = 1\nshutdown_timeout = 3\n{}\n", setup.global);
        for (name, tags) in setup.runners {
            let token = gitlab.register_runner(name, &tags);
            write!(
                text,
                r#"
[[runners]]
name = "{name}"
url = "{url}"
token = "{token}"
executor = "fargate"
{extra}
[runners.fargate]
cluster = "{name}"
region = "us-east-1"
subnets = ["subnet-1", "subnet-2"]
security_groups = ["sg-1"]
task_definition = "{definition}"
propagate_tags = true
endpoint_url = "{endpoint}"
ssh_port = {port}
"#,
                url = gitlab.url(),
                extra = setup.runner,
                definition = setup.task_definition,
                endpoint = fargate.url(),
                port = fargate.ssh_port(),
            )
            .expect("a text takes text");
        }
        std::fs::write(folder.path().join("config.toml"), text).expect("config.toml");
        Self { gitlab, fargate, manager: None, folder, repositories: Vec::new() }
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    pub async fn start_manager(&mut self) {
        let loaded = config::load(&self.config_file()).expect("a configuration without mistakes");
        let config = with_made_up_credentials(loaded.config);
        let agents = AgentBinaries::in_directory(program("staffetta-agent").parent().unwrap_or(Path::new(".")));
        let manager = Manager::start(config, SystemId::new("s_00000000test"), agents).await.expect("a manager");
        self.manager = Some(manager);
    }

    pub fn manager(&self) -> &Manager {
        self.manager.as_ref().expect("the world has a manager")
    }

    /// Starts a pipeline of one file.
    pub async fn pipeline(&mut self, yaml: &str) -> PipelineId {
        self.pipeline_of(Repository::of(&[(".gitlab-ci.yml", yaml)])).await
    }

    pub async fn pipeline_of(&mut self, repository: Repository) -> PipelineId {
        let pipeline = ci::load(repository.path(), Path::new(".gitlab-ci.yml"), &Ref::branch("main").context());
        let source = PipelineSource {
            repo: repository.path().to_owned(),
            commit: "HEAD".into(),
            git_ref: Ref::branch("main"),
            pipeline: pipeline.expect("a pipeline without mistakes"),
            variables: Vec::new(),
        };
        self.repositories.push(repository);
        self.gitlab.create_pipeline(source).await.expect("a pipeline")
    }

    /// The status of a pipeline once it is over.
    pub async fn finished(&self, pipeline: PipelineId) -> Status {
        let done = |gitlab: &gitlab::Server| gitlab.pipeline_status(pipeline).is_some_and(Status::is_complete);
        self.until("the pipeline is over", done).await;
        self.gitlab.pipeline_status(pipeline).expect("a pipeline")
    }

    /// Runs a pipeline of one job `it` in dev, and gives the job and its log when it is over.
    pub async fn run_job(&mut self, yaml: &str) -> (JobView, String) {
        let pipeline = self.pipeline(&format!("it:\n  tags: [dev]\n{yaml}")).await;
        self.finished(pipeline).await;
        (self.job("it"), self.trace("it"))
    }

    /// Waits for a state of GitLab.
    pub async fn until(&self, what: &str, condition: impl Fn(&gitlab::Server) -> bool) {
        if timeout(PATIENCE, self.gitlab.wait_until(condition)).await.is_err() {
            let jobs = self.gitlab.jobs();
            for job in &jobs {
                eprintln!("--- {} {}\n{}", job.name, job.status, self.trace(&job.name));
            }
            for task in self.fargate.tasks() {
                let log = self.fargate.task_log(&task.arn).unwrap_or_default();
                eprintln!("--- {task:?}\n{}", String::from_utf8_lossy(&log));
            }
            panic!("in vain: waited until {what}");
        }
    }

    /// Waits until the log of a job has this text.
    pub async fn until_trace(&self, job: &str, text: &str) {
        self.until(&format!("the log of {job} has {text:?}"), |gitlab| {
            let id = gitlab.job_named(job).map(|job| job.id);
            let trace = id.and_then(|id| gitlab.trace(id).ok()).unwrap_or_default();
            String::from_utf8_lossy(&trace).contains(text)
        })
        .await;
    }

    pub fn job(&self, name: &str) -> JobView {
        self.gitlab.job_named(name).expect("a job of this name")
    }

    pub fn trace(&self, name: &str) -> String {
        String::from_utf8(self.gitlab.trace(self.job(name).id).expect("a trace")).expect("UTF-8")
    }

    /// Ends the manager as SIGTERM does and waits for it.
    async fn stop_manager(&mut self) {
        if let Some(manager) = self.manager.take() {
            manager.terminate();
            timeout(PATIENCE, manager.ended()).await.expect("the manager ends");
        }
    }

    /// Every story ends so: no task may be left once nothing is to be done.
    pub async fn end(mut self) {
        let stopped = |tasks: &[fargate::TaskView]| tasks.iter().all(|task| task.last_status == "STOPPED");
        let idle = self.fargate.wait_for(PATIENCE, stopped).await;
        assert!(idle.is_some(), "tasks are left: {:?}", self.fargate.tasks());
        self.stop_manager().await;
        self.gitlab.shutdown().await;
        self.fargate.shutdown().await;
    }
}

fn with_made_up_credentials(mut config: Config) -> Config {
    for runner in &mut config.runners {
        runner.fargate.credentials = aws::fargate::Credentials::MadeUp;
    }
    config
}
