//! Finish: the task is made sure to end, and a job that lost its agent is reported to GitLab.

use std::sync::Arc;
use std::time::Duration;

use aws::fargate::Task;
use gitlab::{Client, JobAccess, JobTrace, Reported};
use job::hand_over::TraceSoFar;
use job::ids::TaskArn;
use job::outcome::{Outcome, SystemFailure};
use job::payload::Unusable;
use job::trace::{TraceSettings, line};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::job_log::closing_line;
use super::runner::Runner;

/// StopTask is repeated until it is taken: a task that nobody stops is paid for until its end.
const STOP_RETRY: Duration = Duration::from_secs(5);
const STOP_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What the end of a handed-over task says about its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The agent ended by itself after GitLab took the outcome.
    Reported,
    /// Nobody can be sure: GitLab is told, and will say if it knows better.
    Lost { message: String, failure: SystemFailure },
}

/// The agent exits 0 only when GitLab knows the outcome. Where another process is the container's first one, its
/// exit code says nothing about the agent: sshd exits 0 for the SIGTERM that job code can send it.
pub fn verdict(task: &Task, agent_is_first: bool) -> Verdict {
    if agent_is_first && task.exit_code() == Some(0) && task.stop_code.as_deref() == Some("EssentialContainerExited") {
        return Verdict::Reported;
    }
    let explanation = aws::fargate::explain(task);
    Verdict::Lost { message: format!("the task was lost: {explanation}"), failure: explanation.failure }
}

/// Stops a task and repeats it for minutes: throttles, an ECS that does not answer.
pub async fn stop_task(runner: &Runner, arn: &TaskArn, reason: &str) {
    let patience = Instant::now() + STOP_PATIENCE;
    loop {
        match runner.fargate.stop_task(arn, reason).await {
            Ok(()) => {
                info!(runner = %runner.settings.name, task = %arn.id(), %reason, "stopped a task");
                return;
            }
            Err(error) if Instant::now() < patience => {
                warn!(runner = %runner.settings.name, task = %arn.id(), %error, "cannot stop a task; trying again");
                sleep(STOP_RETRY).await;
            }
            Err(error) => {
                // The next reap pass finds it.
                error!(runner = %runner.settings.name, task = %arn.id(), %error, "giving up stopping a task");
                return;
            }
        }
    }
}

/// Reports a job whose agent was lost. GitLab refuses where the agent was quicker, and that is right.
pub async fn report_lost(
    client: &Client,
    access: &JobAccess,
    settings: &TraceSettings,
    known: &[String],
    rounds: u32,
    outcome: &Outcome,
) {
    let text = closing_line(outcome);
    match JobTrace::report_lost(client, access, settings, &text, outcome, known, rounds).await {
        Ok(Reported::Accepted) => info!(job = %access.id, "reported a job that lost its task"),
        Ok(Reported::AlreadyOver) => info!(job = %access.id, "the job ended"),
        Err(error) => error!(job = %access.id, %error, "cannot report a job that lost its task"),
    }
}

/// Fails a job whose payload cannot be read, with the reason in its log (protocol 0.3: else it is lost).
pub async fn fail_unusable(runner: Arc<Runner>, unusable: Unusable) {
    let (Some(id), Some(token)) = (unusable.id, unusable.token.clone()) else {
        return;
    };
    let settings = TraceSettings { output_limit: runner.settings.output_limit, ..TraceSettings::default() };
    let access = JobAccess { id, token };
    let trace = JobTrace::start(runner.client.clone(), access, &settings, TraceSoFar::default(), false);
    let outcome = Outcome::system(unusable.to_string());
    trace.line(&line::plain(&format!("Running with {} {}", job::PRODUCT, job::VERSION)));
    trace.line(&closing_line(&outcome));
    if let Err(error) = trace.finish(&outcome, &[], runner.settings.job_status_final_update_retry_limit).await {
        error!(job = %id, %error, "cannot report a job that cannot be read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_speaks_for_the_agent_only_where_the_agent_is_the_first_process() {
        let container = aws::fargate::Container { name: job::task::CONTAINER.into(), exit_code: Some(0), reason: None };
        let task = Task {
            stop_code: Some("EssentialContainerExited".into()),
            containers: vec![container],
            ..Task::unseen(TaskArn::new("t/1"))
        };
        assert_eq!(verdict(&task, true), Verdict::Reported);
        assert!(matches!(verdict(&task, false), Verdict::Lost { .. }));
    }
}
