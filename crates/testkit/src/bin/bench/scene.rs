//! Both servers and the manager as a process of its own, for one part of the measurements; and its end, whatever happens.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use embedded::gitlab::{JobView, PipelineId, Status};
use embedded::{fargate, gitlab};
use testkit::{ENVIRONMENTS, ManagerProcess, Setup, World};
use tokio::sync::watch;

/// Tasks without files of their own must not build in the same folder.
const VARIABLES: &str = "  variables: {GIT_STRATEGY: none, GIT_CLONE_PATH: $CI_BUILDS_DIR/$CI_JOB_ID}\n";

/// How often a state is looked at that no measurement depends on.
const LOOK: Duration = Duration::from_millis(250);

/// What all parts share.
pub struct Bench {
    /// The staffetta-agent that the tasks run.
    pub agent: std::path::PathBuf,
    /// Files of the bench; the jobs build here too, since tasks share this machine's files.
    pub folder: std::path::PathBuf,
    /// Becomes true when somebody wants the bench to end.
    pub stop: watch::Receiver<bool>,
}

pub struct Scene {
    pub world: World,
    pub manager: ManagerProcess,
}

impl Bench {
    /// A world without delays and isolation: a thousand tasks are affordable, and every delay is ours.
    pub fn setup(&self) -> Setup {
        Setup {
            gitlab: gitlab::Config { keep_traces: false, trace_limit: 1 << 30, ..gitlab::Config::default() },
            fargate: fargate::Config {
                clusters: ENVIRONMENTS.map(str::to_owned).to_vec(),
                engine: fargate::EngineMode::ProcessGroup,
                ..fargate::Config::new(&self.agent)
            },
            runner: format!("output_limit = 1000000\nbuilds_dir = \"{}\"", self.folder.join("builds").display()),
            ..Setup::default()
        }
    }

    /// Plays one part. Its processes end before this returns, also when the part fails or the bench is told to end.
    pub async fn play<T>(
        &self,
        setup: Setup,
        part: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let world = World::without_manager(setup).await;
        // The polls of the other two runners need room beside a thousand jobs.
        let config = std::fs::read_to_string(world.config_file())?;
        std::fs::write(world.config_file(), config.replace("concurrent = 1000", "concurrent = 1100"))?;
        let manager = ManagerProcess::start(&world.config_file());
        let mut scene = Scene { world, manager };
        let mut stop = self.stop.clone();
        let result = tokio::select! {
            result = part(&mut scene) => result,
            _ = stop.wait_for(|stop| *stop) => Err(anyhow::anyhow!("interrupted")),
        };
        let Scene { world, manager } = scene;
        // Killed: what it leaves behind are files in the world's folder and tasks, and both end below.
        drop(manager);
        let World { gitlab, fargate, .. } = world;
        fargate.shutdown().await;
        gitlab.shutdown().await;
        result
    }
}

impl Scene {
    /// A pipeline of `count` copies of a job in dev; `lines` are added to the job.
    pub async fn queue(&mut self, count: usize, lines: &str, script: &[&str]) -> PipelineId {
        let mut yaml = String::new();
        // GitLab's limit for `parallel` is 200.
        for (index, part) in copies(count).into_iter().enumerate() {
            let _ = write!(yaml, "j{index}:\n  tags: [dev]\n  parallel: {part}\n{VARIABLES}");
            let _ = writeln!(yaml, "{lines}  script:");
            for line in script {
                let _ = writeln!(yaml, "    - '{line}'");
            }
        }
        self.world.pipeline(&yaml).await
    }

    /// Waits until `done` holds for the jobs, and tells on standard error how far they are.
    pub async fn until(
        &self,
        what: &str,
        patience: Duration,
        done: impl Fn(&[JobView]) -> bool,
    ) -> anyhow::Result<Vec<JobView>> {
        let (started, mut told) = (Instant::now(), Instant::now());
        loop {
            let jobs = self.world.gitlab.jobs();
            if done(&jobs) {
                return Ok(jobs);
            }
            let count = |status| jobs.iter().filter(|job| job.status == status).count();
            let state = || {
                format!(
                    "{} pending, {} running, {} passed, {} failed",
                    count(Status::Pending),
                    count(Status::Running),
                    count(Status::Success),
                    count(Status::Failed)
                )
            };
            if started.elapsed() > patience {
                bail!("waited for {} s until {what}: {}", patience.as_secs(), state());
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                eprintln!("  {:>3} s until {what}: {}", started.elapsed().as_secs(), state());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until all jobs are over and no task is left, and gives the jobs.
    pub async fn until_over(&self, patience: Duration) -> anyhow::Result<Vec<JobView>> {
        let over = |jobs: &[JobView]| jobs.iter().all(|job| job.status.is_complete());
        let jobs = self.until("all jobs are over", patience, over).await?;
        let stopped = |tasks: &[fargate::TaskView]| tasks.iter().all(|task| task.last_status == "STOPPED");
        self.world.fargate.wait_for(patience, stopped).await.context("tasks are left")?;
        Ok(jobs)
    }

    /// The task of each job that has one.
    pub fn tasks(&self) -> HashMap<u64, fargate::TaskView> {
        let id = |task: &fargate::TaskView| task.environment.get(job::task::JOB).and_then(|id| id.parse().ok());
        self.world.fargate.tasks().into_iter().filter_map(|task| Some((id(&task)?, task))).collect()
    }
}

fn copies(count: usize) -> Vec<usize> {
    let mut parts = vec![200; count / 200];
    parts.extend(Some(count % 200).filter(|rest| *rest > 0));
    parts
}

/// From one moment to another in milliseconds; clocks of one machine may be off by a little, never by more.
pub fn milliseconds(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(later) => later.as_secs_f64() * 1e3,
        Err(earlier) => -earlier.duration().as_secs_f64() * 1e3,
    }
}

/// A file with this many lines of 100 bytes.
pub fn log_file(path: &Path, lines: usize) -> std::io::Result<()> {
    let line = |number: usize| {
        format!("{number:8} the quick brown fox compiles src/module_{:05}.rs{:>45}\n", number % 9973, "ok")
    };
    std::fs::write(path, (0..lines).map(line).collect::<String>())
}
