//! Watch: the wait for a task's SSH server, with everything in the job's log that the wait is for.

use aws::fargate::Explanation;
use job::outcome::{Outcome, SystemFailure};
use ssh::client::Connection;

use super::errand::{End, Errand};
use super::launch::Launched;
use crate::metrics::Phase;
use crate::reach::{self, reach};

/// How waiting for a task ended.
pub enum Reached {
    Connected(Connection),
    /// The task ended, or took too long, before it could be reached.
    NotStarted(Explanation),
}

/// Waits for a task's SSH server, with every phase in the job's log.
pub async fn until_reachable(errand: &mut Errand<'_>, launched: &Launched) -> Result<Reached, End> {
    let Errand { runner, log, interrupts, entry, .. } = errand;
    let task = runner.fargate.watch(&launched.task);
    let target = |address| runner.ssh_target(address, &launched.nonce, None);
    let reached = tokio::select! {
        reached = reach(task, runner.settings.start_timeout, target, |phase| log.phase(phase.name, phase.seconds)) => reached,
        end = interrupts.next() => return Err(end),
    };
    match reached {
        reach::Reached::Connected(connection) => {
            let seconds = launched.at.elapsed().as_secs_f64();
            entry.enters(Phase::HandOver);
            log.say(&format!("Task {} answers after {seconds:.1} s", launched.task.arn.id()));
            Ok(Reached::Connected(connection))
        }
        reach::Reached::NotStarted(explanation) => Ok(Reached::NotStarted(explanation)),
        reach::Reached::Refused(error) => {
            let failure = SystemFailure::Configuration;
            Err(Outcome::SystemFailed { failure, message: error.to_string() }.into())
        }
    }
}
