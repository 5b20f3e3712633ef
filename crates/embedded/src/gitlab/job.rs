//! A job's life: queued, taken by a runner, ended, tried again; and what its end means for its pipeline.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::ci::{self, AllowFailure};
use super::config::Variable;
use super::git::Commit;
use super::progress::{self, Move, Node};
use super::reference::Ref;
use super::runners::{Features, Runner};
use super::state::{Pipeline, State, random_word};
use super::trace::Trace;
use super::view::{ArtifactView, Event, JobId, JobView, PipelineId, Status};

pub(super) struct Job {
    pub id: JobId,
    pub pipeline: PipelineId,
    /// Position of its definition in the pipeline.
    pub index: usize,
    pub definition: Arc<ci::Job>,
    pub status: Status,
    pub failure_reason: Option<String>,
    pub exit_code: Option<i32>,
    pub allow_failure: bool,
    /// A newer job took its place.
    pub retried: bool,
    /// How many jobs of this name ended before it.
    pub retries: u32,
    pub token: String,
    pub runner: Option<u64>,
    pub manager: Option<String>,
    pub created_at: SystemTime,
    pub queued_at: Option<SystemTime>,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    pub trace: Trace,
    pub trace_matches: Option<bool>,
    pub artifacts: Vec<Artifact>,
    /// Variables of its dotenv report.
    pub dotenv: Vec<(String, String)>,
}

pub(super) struct Artifact {
    pub view: ArtifactView,
    pub sha256: [u8; 32],
    /// Opens it in the object storage.
    pub signature: String,
}

/// How a runner says that a job ended.
pub(super) enum End {
    Success,
    Failed { reason: String, exit_code: Option<i32> },
}

impl Job {
    pub(super) fn view(&self) -> JobView {
        JobView {
            id: self.id,
            name: self.definition.name.clone(),
            stage: self.definition.stage.clone(),
            pipeline: self.pipeline,
            tags: self.definition.tags.clone(),
            status: self.status,
            failure_reason: self.failure_reason.clone(),
            exit_code: self.exit_code,
            allow_failure: self.allow_failure,
            retried: self.retried,
            runner: self.runner,
            manager: self.manager.clone(),
            created_at: self.created_at,
            queued_at: self.queued_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            trace_size: self.trace.size(),
            trace_matches: self.trace_matches,
            artifacts: self.artifacts.iter().map(|artifact| artifact.view.clone()).collect(),
        }
    }

    pub(super) fn archive(&self) -> Option<&ArtifactView> {
        self.artifacts.iter().map(|artifact| &artifact.view).find(|view| view.kind == "archive")
    }

    /// The features that GitLab asks of a runner before it gives it this job (protocol 2.3, GATE).
    fn is_supported_by(&self, features: &Features, git_ref: &Ref) -> bool {
        let job = &self.definition;
        let artifacts = job.artifacts.as_ref();
        [
            (job.caches.iter().any(|cache| !cache.fallback_keys.is_empty()), "fallback_cache_keys"),
            (artifacts.is_some_and(|artifacts| !artifacts.reports.is_empty()), "upload_multiple_artifacts"),
            (artifacts.is_some_and(|artifacts| !artifacts.exclude.is_empty()), "artifacts_exclude"),
            (matches!(git_ref, Ref::MergeRequest { .. }), "refspecs"),
            (job.release.is_some(), "multi_build_steps"),
            (!job.secrets.is_empty(), "vault_secrets"),
            (matches!(job.allow_failure, AllowFailure::ExitCodes(_)), "return_exit_code"),
        ]
        .into_iter()
        .all(|(needed, feature)| !needed || features.has(feature))
    }
}

impl State {
    fn add_job(&mut self, pipeline: PipelineId, index: usize, definition: Arc<ci::Job>, now: SystemTime) -> JobId {
        let id = self.new_job_id();
        let job = Job {
            id,
            pipeline,
            index,
            status: Status::Created,
            failure_reason: None,
            exit_code: None,
            allow_failure: definition.allow_failure == AllowFailure::Yes,
            retried: false,
            retries: 0,
            token: format!("glcbt-64_{}", random_word()),
            runner: None,
            manager: None,
            created_at: now,
            queued_at: None,
            started_at: None,
            finished_at: None,
            trace: Trace::new(self.directory.join(id.to_string()), self.keep_traces),
            trace_matches: None,
            artifacts: Vec::new(),
            dotenv: Vec::new(),
            definition,
        };
        self.jobs.insert(id, job);
        id
    }

    /// Adds a pipeline whose id was made by [`State::new_pipeline_id`] and starts its first jobs.
    pub(super) fn add_pipeline(
        &mut self,
        id: PipelineId,
        commit: Arc<Commit>,
        git_ref: Ref,
        jobs: ci::Pipeline,
        variables: Vec<Variable>,
        now: SystemTime,
    ) {
        let position: HashMap<&str, usize> =
            jobs.jobs.iter().enumerate().map(|(index, job)| (job.name.as_str(), index)).collect();
        let find = |need: &ci::Need| position.get(need.job.as_str()).copied();
        let needs: Vec<_> = (jobs.jobs.iter())
            .map(|job| job.needs.as_ref().map(|needs| needs.iter().filter_map(find).collect()))
            .collect();
        let stages = jobs.stages;
        let stage = |job: &ci::Job| stages.iter().position(|stage| *stage == job.stage).unwrap_or(0);
        let stage_of = jobs.jobs.iter().map(stage).collect();
        let definitions: Vec<_> = jobs.jobs.into_iter().map(Arc::new).enumerate().collect();
        let latest: Vec<_> = definitions.into_iter().map(|(at, job)| self.add_job(id, at, job, now)).collect();
        for job in &latest {
            self.tell_state(*job);
        }
        let pipeline = Pipeline {
            id,
            commit,
            git_ref,
            stages,
            variables,
            latest,
            needs,
            stage_of,
            created_at: now,
            finished: None,
        };
        self.pipelines.insert(id, pipeline);
        self.settle(id, now);
    }

    /// Gives the oldest job that the runner may have to this manager of it, and fails the ones that it cannot run.
    pub(super) fn assign(
        &mut self,
        runner: u64,
        system_id: &str,
        features: &Features,
        now: SystemTime,
    ) -> Option<JobId> {
        loop {
            let taker = self.runners.get(&runner)?;
            let fits = |job: &&Job| {
                taker.may_have(&job.definition.tags, self.is_protected(job.pipeline)) && !self.is_resource_taken(job)
            };
            let id = self.queue.iter().filter_map(|id| self.jobs.get(id)).find(fits)?.id;
            let job = self.jobs.get_mut(&id)?;
            self.queue.remove(&id);
            let git_ref = &self.pipelines.get(&job.pipeline)?.git_ref;
            if !job.is_supported_by(features, git_ref) {
                self.fail(id, "runner_unsupported", None, now);
                continue;
            }
            job.runner = Some(runner);
            job.manager = Some(system_id.to_owned());
            job.started_at = Some(now);
            self.set_status(id, Status::Running);
            return Some(id);
        }
    }

    /// Another job of its resource group is on a runner.
    fn is_resource_taken(&self, job: &Job) -> bool {
        let group = &job.definition.resource_group;
        let has_it = |other: &Job| other.status.is_on_runner() && other.definition.resource_group == *group;
        group.is_some() && self.jobs.values().any(has_it)
    }

    /// The embedded project protects its only branch by name: the default branch.
    pub(super) fn is_protected(&self, pipeline: PipelineId) -> bool {
        self.pipelines
            .get(&pipeline)
            .is_some_and(|pipeline| matches!(&pipeline.git_ref, Ref::Branch(name) if name == super::DEFAULT_BRANCH))
    }

    pub(super) fn append_trace(&mut self, id: JobId, bytes: Bytes) -> io::Result<u64> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(0) };
        let offset = job.trace.size();
        job.trace.append(&bytes)?;
        let size = job.trace.size();
        self.tell(Event::TraceAppended { job: id, offset, bytes });
        Ok(size)
    }

    /// A job that was cancelled while a runner had it ends as cancelled, whatever the runner says.
    pub(super) fn end(&mut self, id: JobId, end: End, now: SystemTime) {
        match (self.jobs.get(&id).map(|job| job.status), end) {
            (None, _) => {}
            (Some(Status::Canceling), _) => self.complete(id, Status::Canceled, now),
            (Some(_), End::Success) => self.complete(id, Status::Success, now),
            (Some(_), End::Failed { reason, exit_code }) => self.fail(id, &reason, exit_code, now),
        }
    }

    pub(super) fn fail(&mut self, id: JobId, reason: &str, exit_code: Option<i32>, now: SystemTime) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.failure_reason = Some(reason.to_owned());
        job.exit_code = exit_code;
        if let (AllowFailure::ExitCodes(codes), Some(code)) = (&job.definition.allow_failure, exit_code) {
            job.allow_failure = codes.contains(&code);
        }
        job.retried = job.definition.retry.again(job.retries, reason, exit_code.unwrap_or(0));
        if job.retried {
            let (pipeline, index, retries) = (job.pipeline, job.index, job.retries + 1);
            let definition = job.definition.clone();
            let next = self.add_job(pipeline, index, definition, now);
            if let Some(job) = self.jobs.get_mut(&next) {
                job.retries = retries;
            }
            if let Some(pipeline) = self.pipelines.get_mut(&pipeline) {
                pipeline.latest[index] = next;
            }
            // Queued before the old one ends, so that nobody sees the pipeline without either.
            self.enqueue(next, now);
        }
        self.complete(id, Status::Failed, now);
    }

    /// Ends a job at once when no runner has it or its manager cannot cancel gracefully; otherwise the runner is told
    /// `canceling` and ends it. False: there was nothing to cancel.
    pub(super) fn cancel(&mut self, id: JobId, now: SystemTime) -> bool {
        let Some(job) = self.jobs.get(&id) else { return false };
        match job.status {
            Status::Running if self.is_graceful(job) => self.set_status(id, Status::Canceling),
            Status::Created | Status::Pending | Status::Manual | Status::Running => {
                self.complete(id, Status::Canceled, now);
            }
            Status::Canceling | Status::Success | Status::Failed | Status::Canceled | Status::Skipped => return false,
        }
        true
    }

    /// Ends a job that is being cancelled without waiting for its runner.
    pub(super) fn force_cancel(&mut self, id: JobId, now: SystemTime) -> bool {
        let canceling = self.jobs.get(&id).is_some_and(|job| job.status == Status::Canceling);
        if canceling {
            self.complete(id, Status::Canceled, now);
        }
        canceling
    }

    /// Later jobs first: cancelling an early one must not start or skip one that is cancelled next.
    pub(super) fn cancel_pipeline(&mut self, id: PipelineId, now: SystemTime) -> bool {
        let latest = self.pipelines.get(&id).map(|pipeline| pipeline.latest.clone()).unwrap_or_default();
        latest.into_iter().rev().filter(|job| self.cancel(*job, now)).count() > 0
    }

    /// What a person does with a manual job. Jobs that were skipped because of it get another chance.
    pub(super) fn play(&mut self, id: JobId, now: SystemTime) -> bool {
        let Some(job) = self.jobs.get(&id).filter(|job| job.status == Status::Manual) else { return false };
        let (pipeline, index) = (job.pipeline, job.index);
        self.enqueue(id, now);
        for job in self.skipped_behind(pipeline, index) {
            self.set_status(job, Status::Created);
        }
        self.settle(pipeline, now);
        true
    }

    fn skipped_behind(&self, pipeline: PipelineId, index: usize) -> Vec<JobId> {
        let Some(pipeline) = self.pipelines.get(&pipeline) else { return Vec::new() };
        let mut behind = vec![index];
        let mut skipped = Vec::new();
        // Needs can only name jobs of the same pipeline without circles, so this ends.
        while let Some(of) = behind.pop() {
            for (at, needs) in pipeline.needs.iter().enumerate() {
                let job = pipeline.latest[at];
                let is_skipped = self.jobs.get(&job).is_some_and(|job| job.status == Status::Skipped);
                if is_skipped && needs.as_ref().is_some_and(|needs| needs.contains(&of)) && !skipped.contains(&job) {
                    skipped.push(job);
                    behind.push(at);
                }
            }
        }
        skipped
    }

    fn is_graceful(&self, job: &Job) -> bool {
        let runner = job.runner.and_then(|runner| self.runners.get(&runner));
        let manager = runner.zip(job.manager.as_ref()).and_then(|(runner, id)| runner.managers.get(id));
        manager.is_some_and(|manager| manager.features.has("cancel_gracefully"))
    }

    fn enqueue(&mut self, id: JobId, now: SystemTime) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.queued_at = Some(now);
        self.queue.insert(id);
        self.set_status(id, Status::Pending);
        let Some(job) = self.jobs.get(&id) else { return };
        let protected = self.is_protected(job.pipeline);
        for runner in self.runners.values().filter(|runner| runner.may_have(&job.definition.tags, protected)) {
            runner.tick();
        }
    }

    fn complete(&mut self, id: JobId, status: Status, now: SystemTime) {
        self.queue.remove(&id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.finished_at = Some(now);
        let (pipeline, held_resource) = (job.pipeline, job.definition.resource_group.is_some());
        self.set_status(id, status);
        if held_resource {
            // Somebody who found nothing may have its next job now.
            self.runners.values().for_each(Runner::tick);
        }
        self.settle(pipeline, now);
    }

    fn set_status(&mut self, id: JobId, status: Status) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status = status;
            self.tell_state(id);
        }
    }

    fn tell_state(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.tell(Event::JobState {
            job: id,
            name: job.definition.name.clone(),
            pipeline: job.pipeline,
            status: job.status,
            failure_reason: job.failure_reason.clone(),
            exit_code: job.exit_code,
            retried: job.retried,
        });
    }

    fn nodes<'p>(&self, pipeline: &'p Pipeline) -> Vec<Node<'p>> {
        let node = |((id, needs), stage): ((&JobId, &'p Option<Vec<usize>>), &usize)| {
            let job = self.jobs.get(id)?;
            let (when, status, allow_failure) = (job.definition.when, job.status, job.allow_failure);
            Some(Node { stage: *stage, needs: needs.as_deref(), when, status, allow_failure })
        };
        pipeline.latest.iter().zip(&pipeline.needs).zip(&pipeline.stage_of).filter_map(node).collect()
    }

    pub(super) fn pipeline_status(&self, id: PipelineId) -> Option<Status> {
        self.pipelines.get(&id).map(|pipeline| progress::pipeline_status(&self.nodes(pipeline)))
    }

    /// Lets a pipeline go on as far as it can without a runner or a person.
    fn settle(&mut self, id: PipelineId, now: SystemTime) {
        let status = loop {
            let Some(pipeline) = self.pipelines.get(&id) else { return };
            let nodes = self.nodes(pipeline);
            let due = progress::moves(&nodes);
            if due.is_empty() {
                break progress::pipeline_status(&nodes);
            }
            for (job, step) in due.into_iter().map(|(index, step)| (pipeline.latest[index], step)).collect::<Vec<_>>() {
                match step {
                    Move::Enqueue => self.enqueue(job, now),
                    Move::AwaitPerson => self.set_status(job, Status::Manual),
                    Move::Skip => self.set_status(job, Status::Skipped),
                }
            }
        };
        let finished = (status.is_complete() || status == Status::Manual).then_some(status);
        let Some(pipeline) = self.pipelines.get_mut(&id).filter(|pipeline| pipeline.finished != finished) else {
            return;
        };
        pipeline.finished = finished;
        if let Some(status) = finished {
            self.tell(Event::PipelineFinished { pipeline: id, status });
        }
    }
}
