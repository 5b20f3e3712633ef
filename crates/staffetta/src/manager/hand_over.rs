//! Hand over: one connection, one message; from the receipt on the job is the agent's.

use std::pin::pin;
use std::time::{Duration, Instant};

use aws::fargate::{Explanation, Task, explain};
use job::hand_over::{HandOver, Receipt, RemoteCaches, VERSION};
use job::outcome::{Outcome, SystemFailure};
use ssh::client::{Connection, HandOverError};
use tracing::warn;

use super::cache::{Signing, Wanted};
use super::cache_renewal::Renewal;
use super::errand::{End, Errand};
use super::launch::Launched;
use super::runner::Runner;
use super::supervise::Visit;
use super::watch::{self, Reached};

/// How long a connection that breaks during the hand-over is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
const TRY: Duration = Duration::from_secs(30);

pub enum Handed {
    /// The job is the agent's, or may be: from here on only the end of the task tells.
    Over(Visit, Option<Renewal>),
    /// The task never got as far as a hand-over.
    NotStarted(Explanation),
}

/// What the answer to one try means.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Over,
    /// `may_be_over`: the message was sent and nobody knows whether it arrived.
    Again {
        may_be_over: bool,
        reason: String,
    },
    /// The command ended without a receipt. Twice in a row is certain: an agent that has the job says so.
    NoReceipt {
        reason: String,
    },
    Fail(Outcome),
}

/// Waits for the task and gives it the job, with addresses for the objects of its caches.
pub async fn hand_over(errand: &mut Errand<'_>, launched: &Launched, wanted: Option<&Wanted>) -> Result<Handed, End> {
    let signing = Signing::begin(errand.runner, wanted);
    let mut connection = match watch::until_reachable(errand, launched).await? {
        Reached::Connected(connection) => connection,
        Reached::NotStarted(explanation) => return Ok(Handed::NotStarted(explanation)),
    };
    let job = errand.access.id;
    errand.log.say("Handing the job over to its task");
    let (caches, renewal) = match signing {
        Some(signing) => signing.end(errand, &launched.nonce).await?.unzip(),
        None => (None, None),
    };
    let message = message(errand, caches).await;
    let over = Handed::Over(Visit::of(&connection, &launched.nonce), renewal.flatten());
    let give_up = Instant::now() + PATIENCE;
    let (mut may_be_over, mut had_no_receipt) = (false, false);
    let mut interruption;
    loop {
        let answer = match exchange(errand, launched, &connection, &message, may_be_over).await {
            Exchanged::Answer(answer) => answer,
            Exchanged::TaskEnded(_) if connection.may_have_handed_over() || may_be_over => return Ok(over),
            Exchanged::TaskEnded(explanation) => {
                errand.take_back(message.trace);
                return Ok(Handed::NotStarted(explanation));
            }
            Exchanged::Interrupted(end) => {
                errand.take_back(message.trace);
                return Err(end);
            }
        };
        match next(answer, job) {
            Next::Over => return Ok(over),
            Next::Fail(outcome) if !may_be_over => {
                errand.take_back(message.trace);
                return Err(outcome.into());
            }
            Next::Fail(_) => return Ok(over),
            Next::NoReceipt { reason } if had_no_receipt => {
                errand.take_back(message.trace);
                let message = format!("the task's image cannot run the agent: {reason}");
                return Err(Outcome::SystemFailed { failure: SystemFailure::Configuration, message }.into());
            }
            Next::NoReceipt { reason } => {
                (may_be_over, had_no_receipt) = (true, true);
                warn!(%job, task = %launched.task.arn.id(), %reason, "the hand-over brought no receipt; trying again");
                interruption = reason;
            }
            Next::Again { may_be_over: this_try, reason } => {
                (may_be_over, had_no_receipt) = (may_be_over | this_try, false);
                warn!(%job, task = %launched.task.arn.id(), %reason, "the hand-over was interrupted; trying again");
                interruption = reason;
            }
        }
        let mut task = errand.runner.fargate.watch(&launched.task);
        let again = tokio::select! {
            again = connect_again(errand.runner, launched, &connection, give_up) => again,
            Ok(ending) = task.wait_for(Task::is_ending) => {
                if may_be_over {
                    return Ok(over);
                }
                errand.take_back(message.trace);
                return Ok(Handed::NotStarted(explain(&ending)));
            }
            // A job that may be the agent's is no longer the manager's to end.
            end = errand.ended(), if !may_be_over => {
                errand.take_back(message.trace);
                return Err(end);
            }
        };
        match again {
            Some(again) => connection = again,
            // Reporting a job that an agent may have would kill a healthy job: the end of the task decides.
            None if may_be_over => return Ok(over),
            None => {
                errand.take_back(message.trace);
                return Err(Outcome::system(format!("the hand-over failed again and again: {interruption}")).into());
            }
        }
    }
}

/// What one try came to.
enum Exchanged {
    Answer(Result<Receipt, HandOverError>),
    TaskEnded(Explanation),
    /// No agent has the job.
    Interrupted(End),
}

/// One try, which the end of the task and of the job end too. From the moment when an agent may have the job only its
/// receipt counts: the job is no longer the manager's to end, and the agent hears of a cancel by itself.
async fn exchange(
    errand: &mut Errand<'_>,
    launched: &Launched,
    connection: &Connection,
    message: &HandOver,
    may_be_over: bool,
) -> Exchanged {
    let shared = errand.shared.clone();
    let mut task = errand.runner.fargate.watch(&launched.task);
    let mut answer = pin!(connection.hand_over(message, &shared.agents));
    let mut interrupted = None;
    loop {
        // It may have been sent to an image without agent, which has nobody who could take it.
        if !connection.may_have_handed_over()
            && let Some(end) = interrupted.take()
        {
            return Exchanged::Interrupted(end);
        }
        tokio::select! {
            answer = &mut answer => return match interrupted {
                Some(end) if is_still_ours(&answer) => Exchanged::Interrupted(end),
                _ => Exchanged::Answer(answer),
            },
            Ok(ending) = task.wait_for(Task::is_ending) => return Exchanged::TaskEnded(explain(&ending)),
            end = errand.ended(), if !may_be_over && interrupted.is_none() => interrupted = Some(end),
            () = tokio::time::sleep(PAUSE), if interrupted.is_some() => {}
        }
    }
}

/// Whether it is certain that no agent has the job.
fn is_still_ours(answer: &Result<Receipt, HandOverError>) -> bool {
    match answer {
        Ok(Receipt::Accepted | Receipt::Busy { .. }) => false,
        Ok(Receipt::Refused { .. }) => true,
        Err(HandOverError::TooLarge { .. } | HandOverError::NotDelivered(_) | HandOverError::NoAgent(_)) => true,
        Err(HandOverError::Unknown(_) | HandOverError::NoReceipt(_)) => false,
    }
}

fn next(answer: Result<Receipt, HandOverError>, job: job::ids::JobId) -> Next {
    let fail = |failure, message: String| Next::Fail(Outcome::SystemFailed { failure, message });
    match answer {
        Ok(Receipt::Accepted) => Next::Over,
        // An earlier answer was lost.
        Ok(Receipt::Busy { job: had }) if had == job => Next::Over,
        Ok(Receipt::Busy { job: had }) => fail(SystemFailure::Runner, format!("the task runs job {had} already")),
        Ok(Receipt::Refused { reason }) => fail(SystemFailure::Runner, format!("the agent refused the job: {reason}")),
        Err(error @ HandOverError::TooLarge { .. }) => fail(
            SystemFailure::Configuration,
            format!("{error}. Make its variables smaller, above all those of the type file"),
        ),
        Err(HandOverError::NotDelivered(reason)) => Next::Again { may_be_over: false, reason },
        Err(HandOverError::Unknown(reason)) => Next::Again { may_be_over: true, reason },
        Err(HandOverError::NoReceipt(reason)) => Next::NoReceipt { reason },
        Err(HandOverError::NoAgent(reason)) => {
            fail(SystemFailure::Configuration, format!("the agent cannot run in the task's image: {reason}"))
        }
    }
}

/// The same task must show the same host key.
async fn connect_again(
    runner: &Runner,
    launched: &Launched,
    before: &Connection,
    give_up: Instant,
) -> Option<Connection> {
    let address = runner.fargate.watch(&launched.task).borrow().address?;
    let target = runner.ssh_target(address, &launched.nonce, Some(before.host_key().clone()));
    // Also before the first try: a command that fails at once must not be repeated as fast as the network allows.
    while Instant::now() < give_up {
        // The end of the task is what mostly breaks a connection.
        runner.fargate.look_now(&launched.task.arn);
        tokio::time::sleep(PAUSE).await;
        match Connection::open(&target, TRY).await {
            Ok(connection) => return Some(connection),
            Err(error) if error.may_pass() => {}
            Err(error) => {
                warn!(task = %launched.task.arn.id(), %error, "cannot reach the task again");
                return None;
            }
        }
    }
    None
}

async fn message(errand: &mut Errand<'_>, caches: Option<RemoteCaches>) -> HandOver {
    HandOver {
        version: VERSION,
        payload: errand.text.clone(),
        gitlab: errand.gitlab.clone(),
        runner: errand.settings.clone(),
        trace: errand.log.hand_over().await,
        secrets: errand.secrets.clone(),
        caches,
        elapsed_seconds: errand.started_at.elapsed().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use job::ids::JobId;

    use super::*;

    #[test]
    fn a_lost_answer_is_no_second_job_and_no_failure() {
        assert_eq!(next(Ok(Receipt::Busy { job: JobId(7) }), JobId(7)), Next::Over);
        let lost = Err(HandOverError::Unknown("closed".into()));
        assert_eq!(next(lost, JobId(7)), Next::Again { may_be_over: true, reason: "closed".into() });
        let never_sent = Err(HandOverError::NotDelivered("closed".into()));
        assert_eq!(next(never_sent, JobId(7)), Next::Again { may_be_over: false, reason: "closed".into() });
    }

    #[test]
    fn a_job_that_is_too_large_fails_at_once_and_says_why() {
        let Next::Fail(Outcome::SystemFailed { failure, message }) =
            next(Err(HandOverError::TooLarge { bytes: 33_554_433, most: 33_554_432 }), JobId(7))
        else {
            panic!("tried again")
        };
        assert_eq!(failure, SystemFailure::Configuration);
        assert!(message.contains("33554433 bytes") && message.contains("variables"), "{message}");
    }

    #[test]
    fn an_image_that_cannot_run_the_agent_is_a_wrong_setting() {
        let next = next(Err(HandOverError::NoAgent("no exec".into())), JobId(7));
        assert!(matches!(next, Next::Fail(Outcome::SystemFailed { failure: SystemFailure::Configuration, .. })));
    }
}
