//! One job, from GitLab's answer to the end of its task: launch, watch, hand over, supervise, finish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws::fargate::Task;
use gitlab::{AssignedJob, JobAccess, JobState, JobUpdate, Signal, UpdateResult};
use jiff::Timestamp;
use job::admission;
use job::flags::Flags;
use job::hand_over::RunnerSettings;
use job::ids::TaskArn;
use job::outcome::Outcome;
use job::payload::{Payload, Received};
use job::trace::TraceSettings;
use job::variables::Variables;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Shared;
use super::cache::Wanted;
use super::cache_renewal::Renewal;
use super::errand::{End, Errand, GRACE, Interrupts};
use super::hand_over::Handed;
use super::job_log::JobLog;
use super::runner::Runner;
use super::slots::Slot;
use super::supervise::{Supervised, Visit};
use super::{finish, hand_over, launch, secrets};
use crate::config::is_exceeded;
use crate::metrics::Phase;
use crate::reach::told;

/// How often a task that never got as far as the script is replaced by a new one (design, decision 11).
const LAUNCHES: u32 = 3;

/// Walks one job. Every way out stops the task that it started, or leaves it to its agent.
pub async fn walk(shared: Arc<Shared>, runner: Arc<Runner>, mut slot: Slot, mut assigned: AssignedJob) {
    let started_at = Instant::now();
    let numbers = slot.number(assigned.received.payload.job_info.project_id);
    let settings = runner.for_hand_over(&shared.system_id, numbers);
    let admitted = admit(&mut assigned.received, &settings);
    let gitlab = runner.gitlab_access(&assigned);
    let Received { payload, text } = assigned.received;
    let held = runner.state.hold(payload.id);
    let durations = &runner.settings.job_queuing_durations;
    let queued_too_long = is_exceeded(durations, &payload.job_info, Timestamp::now());
    let entry = runner.metrics.received(&payload, queued_too_long);
    let access = JobAccess { id: payload.id, token: payload.token.clone() };
    let variables = Variables::resolve(&payload, &settings, &gitlab, &[]);
    let log = JobLog::open(runner.client.clone(), access.clone(), &payload, &settings, &variables);
    let gone = CancellationToken::new();
    if admitted.is_ok() {
        shared.start_job(say_running(runner.clone(), access.clone(), gone.clone()));
    }
    let timeout = Duration::from_secs(payload.timeout_seconds());
    let interrupts = Interrupts {
        signal: log.signal(),
        stop: shared.stop.subscribe(),
        gone,
        deadline: started_at + timeout,
        timeout_seconds: payload.timeout_seconds(),
        prepare: None,
    };
    let known = payload.features.failure_reasons.clone();
    let mut errand = Errand {
        shared: &shared,
        runner: &runner,
        access: &access,
        text,
        settings,
        gitlab,
        entry,
        started_at,
        log,
        interrupts,
        secrets: Vec::new(),
    };
    let mut task = None;
    let reached = match admitted {
        Ok(()) => reach_agent(&mut errand, payload, variables, &mut task).await,
        Err(outcome) => Err(outcome.into()),
    };
    match reached {
        Ok((task, visit, renewal)) => {
            info!(runner = %runner.settings.name, job = %access.id, task = %task.arn.id(), "handed the job to its agent");
            let (settings, deadline) = (errand.log.settings().clone(), errand.started_at + timeout + GRACE);
            let entry = errand.entry;
            entry.enters(Phase::Agent);
            let supervised = Supervised {
                runner: runner.clone(),
                access,
                task,
                settings,
                known,
                deadline,
                visit,
                renewal,
                ours: true,
            };
            shared.supervise(supervised, (held, Some((entry, slot))));
        }
        Err(end) => {
            if let End::Report(outcome) = &end {
                runner.metrics.reported(outcome);
            }
            give_up(errand.log, &runner, &access, task, end).await;
            drop((held, errand.entry, slot));
        }
    }
}

/// Makes the job what it is to be run as. One that must not be run is not called running either (protocol 2.9).
fn admit(received: &mut Received, settings: &RunnerSettings) -> Result<(), Outcome> {
    let flags = Flags::resolve(&received.payload, settings);
    if let Some(rewritten) = admission::admit(received, &flags)? {
        *received = rewritten;
    }
    Ok(())
}

/// GitLab learns at once that the job runs (protocol 2.9); the launch does not wait for its answer.
async fn say_running(runner: Arc<Runner>, access: JobAccess, gone: CancellationToken) {
    let update = JobUpdate { job: access.id, token: &access.token, state: JobState::Running, output: None };
    let answer = runner.client.update_job(&update).await;
    if answer.result == UpdateResult::Gone || answer.signal == Signal::Abort {
        gone.cancel();
    }
}

/// Launches until a task takes the job. `task` holds the ARN of a task that may need stopping.
async fn reach_agent(
    errand: &mut Errand<'_>,
    payload: Payload,
    mut variables: Variables,
    task: &mut Option<TaskArn>,
) -> Result<(Task, Visit, Option<Renewal>), End> {
    secrets::resolve(errand, &payload, &mut variables).await?;
    errand.start_clock();
    errand.log.section("prepare_executor", "Preparing the \"fargate\" executor");
    let choice = launch::choice(errand.runner, &variables)?;
    let wanted = Wanted::of(errand.runner, &payload, &variables);
    // A job that waits for its task needs no more than its text.
    drop((payload, variables));
    for attempt in 1..=LAUNCHES {
        let launched = launch::start(errand, &choice, attempt).await?;
        *task = Some(launched.task.arn.clone());
        let failed = match hand_over::hand_over(errand, &launched, wanted.as_ref()).await? {
            Handed::Over(visit, renewal) => return Ok((launched.task, visit, renewal)),
            Handed::NotStarted(explanation) => explanation,
        };
        *task = None;
        if !errand.runner.fargate.watch(&launched.task).borrow().is_ending() {
            let (runner, arn) = (errand.runner.clone(), launched.task.arn);
            errand.shared.start_job(async move { finish::stop_task(&runner, &arn, "the task did not start").await });
        }
        if !failed.retry || attempt == LAUNCHES {
            let message = told(&failed, Some(&errand.runner.settings.name));
            return Err(Outcome::SystemFailed { failure: failed.failure, message }.into());
        }
        errand.log.warn(&format!("{failed} Starting another task ({} of {LAUNCHES}).", attempt + 1));
    }
    Err(Outcome::system("no task could be started").into())
}

/// The task is stopped and GitLab told at the same time: neither may wait for the other's retries.
async fn give_up(log: JobLog, runner: &Runner, access: &JobAccess, task: Option<TaskArn>, end: End) {
    let stop = async {
        if let Some(arn) = &task {
            finish::stop_task(runner, arn, "the job ended before its hand-over").await;
        }
    };
    let report = async {
        match end {
            End::Aborted => info!(job = %access.id, "GitLab ended the job before its hand-over"),
            End::Report(outcome) => match log.finish(&outcome).await {
                Ok(_) => info!(job = %access.id, ?outcome, "the job ended before its hand-over"),
                Err(error) => error!(job = %access.id, %error, "cannot report a job"),
            },
        }
    };
    tokio::join!(stop, report);
}

/// Takes up a job that an earlier manager handed over.
pub fn adopted(
    runner: Arc<Runner>,
    task: Task,
    access: JobAccess,
    remaining: Duration,
    visit: Visit,
    renewal: Option<Renewal>,
    ours: bool,
) -> Supervised {
    // What the job's flags say is not known; GitLab's default is to stamp.
    let settings = TraceSettings { timestamps: true, ..TraceSettings::default() };
    let deadline = Instant::now() + remaining + GRACE;
    Supervised { runner, access, task, settings, known: Vec::new(), deadline, visit, renewal, ours }
}
