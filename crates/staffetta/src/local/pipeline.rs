//! Runs one pipeline from its file to its end, and tells what happens as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use embedded::fargate::Delays;
use embedded::gitlab::ci::{self, Pipeline};
use embedded::gitlab::{self, Event as Wire, Ref, Status};
use tokio::signal::unix::{SignalKind, signal};

use super::event::Event;
use super::git_snapshot;
use super::servers::{Servers, environment};
use super::summary::JobSummary;
use super::timing::Timing;

/// Reads a pipeline, whose `rules` see a push to the branch that the folder is on. `None`: it has mistakes, which are on the screen now.
pub fn load(folder: &Path, file: &Path) -> anyhow::Result<Option<Pipeline>> {
    let folder = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
    let branch = Ref::branch(git_snapshot::branch_of(&folder));
    match ci::load(&folder, file, &branch.context()) {
        Ok(pipeline) => Ok(Some(pipeline)),
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("{mistake}");
            }
            eprintln!("staffetta: nothing was started; mend the pipeline and try again");
            Ok(None)
        }
    }
}

/// Leaves only these jobs: they no longer wait for the others, nor get their artifacts.
pub fn keep_only(pipeline: &mut Pipeline, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let known: Vec<&str> = pipeline.jobs.iter().map(|job| job.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("the pipeline has no job {unknown:?}; its jobs are {}", known.join(", "));
    }
    pipeline.jobs.retain(|job| names.contains(&job.name));
    for job in &mut pipeline.jobs {
        if let Some(needs) = &mut job.needs {
            needs.retain(|need| names.contains(&need.job));
        }
        if let Some(dependencies) = &mut job.dependencies {
            dependencies.retain(|name| names.contains(name));
        }
    }
    Ok(())
}

/// How a pipeline ended, for the exit code and the table.
pub struct Ended {
    pub status: Status,
    pub interrupted: bool,
    /// Interrupted twice: nothing more was waited for.
    pub abandoned: bool,
    pub jobs: Vec<JobSummary>,
}

/// Runs the pipeline; `tell` hears every event. Nothing is left behind, also when Ctrl-C ends it.
pub async fn run(
    folder: &Path,
    pipeline: Pipeline,
    delays: Delays,
    mut tell: impl FnMut(Event),
) -> anyhow::Result<Ended> {
    let tags: BTreeSet<Vec<String>> = pipeline.jobs.iter().map(|job| job.tags.clone()).collect();
    let snapshot = git_snapshot::commit_of(folder)?;
    let servers = Servers::start(&tags, delays).await?;
    let ended = walk(&servers, snapshot.source(pipeline), &mut tell).await;
    match &ended {
        Ok(ended) if !ended.abandoned => servers.end().await,
        _ => servers.abandon().await,
    }
    ended
}

async fn walk(
    servers: &Servers,
    source: gitlab::PipelineSource,
    tell: &mut impl FnMut(Event),
) -> anyhow::Result<Ended> {
    let gitlab = &servers.gitlab;
    tell(Event::Started { engine: servers.engine().to_owned() });
    let mut events = gitlab.events();
    let pipeline = gitlab.create_pipeline(source).await?;
    let mut names = BTreeMap::new();
    let mut timing = Timing::default();
    let mut interrupts = 0;
    // One listener for all of them: the second Ctrl-C may come before the first is dealt with.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let status = loop {
        let asked = async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        };
        let event = tokio::select! {
            event = events.recv() => event.context("the embedded GitLab ended")?,
            () = asked => {
                interrupts += 1;
                if interrupts > 1 {
                    break Status::Canceled;
                }
                tell(Event::Interrupted);
                gitlab.cancel_pipeline(pipeline);
                continue;
            }
        };
        match event {
            Wire::JobState { job, name, status, failure_reason, exit_code, retried, .. } => {
                names.insert(job, name.clone());
                tell(Event::JobState { job, name, status, failure_reason, exit_code, retried });
            }
            Wire::TraceAppended { job, bytes, offset } => {
                timing.trace(job, &bytes, SystemTime::now());
                let name = names.get(&job).cloned().unwrap_or_default();
                tell(Event::Log { job, name, offset, bytes });
            }
            Wire::PipelineFinished { status, .. } => break status,
        }
    };
    let jobs = gitlab.jobs().iter().map(|job| timing.summary(job, environment(&job.tags))).collect();
    Ok(Ended { status, interrupted: interrupts > 0, abandoned: interrupts > 1, jobs })
}
