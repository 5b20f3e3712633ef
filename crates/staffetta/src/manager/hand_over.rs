//! Hand over: one connection, one message; from the receipt on the job is the agent's.

use std::time::{Duration, Instant};

use aws::fargate::Explanation;
use job::hand_over::{HandOver, Receipt, VERSION};
use job::outcome::{Outcome, SystemFailure};
use ssh::client::{Connection, HandOverError};
use tracing::warn;

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
    Over(Option<Visit>),
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

/// Waits for the task and gives it the job.
pub async fn hand_over(errand: &mut Errand<'_>, launched: &Launched) -> Result<Handed, End> {
    let mut connection = match watch::until_reachable(errand, launched).await? {
        Reached::Connected(connection) => connection,
        Reached::NotStarted(explanation) => return Ok(Handed::NotStarted(explanation)),
    };
    let job = errand.assigned.received.payload.id;
    errand.log.say("Handing the job over to its task");
    let message = message(errand).await;
    let over = Handed::Over(Visit::needed(&connection, &launched.nonce));
    let give_up = Instant::now() + PATIENCE;
    let (mut may_be_over, mut had_no_receipt) = (false, false);
    let mut interruption;
    loop {
        let answer = connection.hand_over(&message, &errand.shared.agents).await;
        match next(answer, job) {
            Next::Over => return Ok(over),
            Next::Fail(outcome) if !may_be_over => {
                errand.log.reopen(message.trace);
                return Err(outcome.into());
            }
            Next::Fail(_) => return Ok(over),
            Next::NoReceipt { reason } if had_no_receipt => {
                errand.log.reopen(message.trace);
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
        let again = tokio::select! {
            again = connect_again(errand.runner, launched, &connection, give_up) => again,
            // A job that may be the agent's is no longer the manager's to end.
            end = errand.interrupts.next(), if !may_be_over => {
                errand.log.reopen(message.trace);
                return Err(end);
            }
        };
        match again {
            Some(again) => connection = again,
            // Reporting a job that an agent may have would kill a healthy job: the end of the task decides.
            None if may_be_over => return Ok(over),
            None => {
                errand.log.reopen(message.trace);
                return Err(Outcome::system(format!("the hand-over failed again and again: {interruption}")).into());
            }
        }
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

async fn message(errand: &mut Errand<'_>) -> HandOver {
    HandOver {
        version: VERSION,
        payload: errand.assigned.received.text.clone(),
        gitlab: errand.runner.gitlab_access(errand.assigned),
        runner: errand.runner.for_hand_over(&errand.shared.system_id, errand.numbers),
        trace: errand.log.hand_over().await,
        secrets: Vec::new(),
        elapsed_seconds: errand.received_at.elapsed().as_secs_f64(),
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
    fn an_image_that_cannot_run_the_agent_is_a_wrong_setting() {
        let next = next(Err(HandOverError::NoAgent("no exec".into())), JobId(7));
        assert!(matches!(next, Next::Fail(Outcome::SystemFailed { failure: SystemFailure::Configuration, .. })));
    }
}
