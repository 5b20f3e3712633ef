//! Launch: one RunTask for a job. Nothing secret goes into it: a public key, a nonce, and who asks for whom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws::fargate::{Choice, Launch, LaunchError, Task, Waiting};
use job::ids::{JobId, SystemId};
use job::outcome::{Outcome, SystemFailure};
use job::task;
use job::variables::Variables;
use sha2::{Digest, Sha256};
use ssh::keys::{Nonce, TaskKey};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::errand::{End, Errand, GRACE};
use super::finish;
use super::runner::Runner;
use crate::metrics::Phase;

/// A task that ECS has accepted.
pub struct Launched {
    pub task: Task,
    pub nonce: Nonce,
    /// When it was asked for.
    pub at: Instant,
}

/// What the job asks for, if the runner allows it.
pub fn choice(runner: &Runner, variables: &Variables) -> Result<Choice, End> {
    let misconfigured = |message| Outcome::SystemFailed { failure: SystemFailure::Configuration, message };
    // Its agent would refuse it just so; this way it costs no task.
    if let Some(message) = &variables.refused {
        return Err(misconfigured(message.clone()).into());
    }
    let choice = runner.settings.fargate.choice(|name| variables.get(name));
    choice.map_err(|error| misconfigured(error.to_string()).into())
}

/// Starts a task for the job, or says why not. Retries that only need time are ECS's client's.
pub async fn start(errand: &mut Errand<'_>, choice: &Choice, attempt: u32) -> Result<Launched, End> {
    let Errand { shared, runner, access, log, interrupts, entry, .. } = errand;
    let at = Instant::now();
    entry.enters(Phase::RunTask);
    let _waiting = shared.wait_for_ecs();
    let nonce = Nonce::random();
    let Choice { task_definition, platform_version } = choice.clone();
    log.say(&format!("Waiting for a Fargate task ({task_definition}) in cluster {}", runner.settings.fargate.cluster));
    let launch = Launch {
        client_token: client_token(&runner.settings.url, access.id, attempt),
        started_by: runner.started_by.clone(),
        environment: environment(runner, &nonce, access.id, interrupts.timeout_seconds, &shared.system_id),
        task_definition: Some(task_definition),
        platform_version,
        patience: runner.settings.start_timeout,
    };
    let (say, mut said) = mpsc::unbounded_channel();
    // On its own, because a RunTask that is under way when the job is cancelled may still start a task.
    let unwanted = CancellationToken::new();
    let mut running = tokio::spawn({
        let (runner, unwanted) = (runner.clone(), unwanted.clone());
        async move {
            // A job that stopped listening was cancelled; its task is stopped once it has a name.
            let tell = |waiting: &Waiting| drop(say.send(waiting.to_string()));
            runner.fargate.run_task(&launch, tell, unwanted.cancelled()).await
        }
    });
    loop {
        tokio::select! {
            Some(text) = said.recv() => log.say(&text),
            ran = &mut running => return match ran {
                Ok(Ok(task)) => {
                    log.phase("RunTask accepted", at.elapsed().as_secs_f64());
                    entry.enters(Phase::Start);
                    Ok(Launched { task, nonce, at })
                }
                Ok(Err(error)) => Err(refused(&error).into()),
                Err(panicked) => Err(Outcome::system(format!("starting the task failed: {panicked}")).into()),
            },
            end = interrupts.next() => {
                unwanted.cancel();
                shared.start_job(stop_what_starts(runner.clone(), running));
                return Err(end);
            }
        }
    }
}

fn refused(error: &LaunchError) -> Outcome {
    let (LaunchError::Refused { fix, failure, .. } | LaunchError::GaveUp { fix, failure, .. }) = error;
    let message = format!("{error}. {fix}").trim_end().to_owned();
    Outcome::SystemFailed { failure: *failure, message }
}

/// Nobody waits for this task any more: it is stopped as soon as it has a name. Should a RunTask have taken effect whose
/// answer was lost, the next reap pass finds the task.
async fn stop_what_starts(runner: Arc<Runner>, running: JoinHandle<Result<Task, LaunchError>>) {
    if let Ok(Ok(task)) = running.await {
        finish::stop_task(&runner, &task.arn, "the job ended while its task was started").await;
    }
}

/// Who the task is for; shown by DescribeTasks and CloudTrail, so nothing in it is secret.
fn environment(
    runner: &Runner,
    nonce: &Nonce,
    job: JobId,
    timeout_seconds: u64,
    manager: &SystemId,
) -> BTreeMap<String, String> {
    let key = TaskKey::derive(&runner.settings.token, nonce);
    let deadline = SystemTime::now() + Duration::from_secs(timeout_seconds) + 2 * GRACE;
    let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    [
        (task::SSH_PUBLIC_KEY, key.public_openssh()),
        (task::NONCE, nonce.as_str().to_owned()),
        (task::MANAGER, manager.as_str().to_owned()),
        (task::JOB, job.to_string()),
        (task::DEADLINE, deadline.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The same for every repetition of one try, and for no other: a repeated RunTask starts one task.
/// At most 58 characters, as the launch wants it; the hash keeps the job numbers of two GitLabs apart.
fn client_token(url: &str, id: JobId, attempt: u32) -> String {
    let hash = Sha256::digest(url.trim_end_matches('/'));
    format!(
        "{}-{}-{id}-{attempt}",
        job::PRODUCT,
        hash[..6].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_has_the_same_token_and_another_try_or_gitlab_has_not() {
        let token = client_token("https://gitlab.example.com/", JobId(u64::MAX), 1);
        assert!(token.len() <= 58, "{token}");
        assert_eq!(token, client_token("https://gitlab.example.com", JobId(u64::MAX), 1));
        assert_ne!(token, client_token("https://gitlab.example.com", JobId(u64::MAX), 2));
        assert_ne!(token, client_token("https://other.example.com", JobId(u64::MAX), 1));
    }
}
