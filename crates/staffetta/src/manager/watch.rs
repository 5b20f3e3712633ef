//! Watch: a task is ready when its port answers, which is earlier than when ECS says RUNNING.

use std::time::Duration;

use aws::fargate::{Explanation, Task, explain, phases};
use job::outcome::{Outcome, SystemFailure};
use ssh::client::{ConnectError, Connection};
use ssh::keys::Nonce;
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;

use super::errand::{End, Errand};
use super::job_log::JobLog;
use super::launch::Launched;
use super::runner::Runner;

/// A capacity provider may queue a task for half an hour before it fails it; no job waits that long.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// One try to connect. An address whose container is not up yet answers nothing at all.
const TRY: Duration = Duration::from_secs(2);
/// One exchange over the connection: a quarter of a vCPU takes its time, and the agent may have to be sent.
const EXCHANGE: Duration = Duration::from_secs(60);
/// Between two tries: this is what a job waits too long on average, doubled.
const PAUSE: Duration = Duration::from_millis(50);

/// How waiting for a task ended.
pub enum Reached {
    Connected(Connection),
    /// The task ended, or took too long, before it could be reached.
    NotStarted(Explanation),
}

/// Waits for a task's SSH server, with every phase in the job's log.
pub async fn until_reachable(errand: &mut Errand<'_>, launched: &Launched) -> Result<Reached, End> {
    let Errand { runner, log, interrupts, .. } = errand;
    let task = runner.fargate.watch(&launched.task);
    tokio::select! {
        connected = connect(runner, task.clone(), &launched.nonce) => match connected {
            Ok(connection) => {
                log.say(&format!("Task {} answers after {:.1} s", launched.task.arn.id(), launched.at.elapsed().as_secs_f64()));
                Ok(Reached::Connected(connection))
            }
            Err(error) => {
                let failure = SystemFailure::Configuration;
                Err(Outcome::SystemFailed { failure, message: error.to_string() }.into())
            }
        },
        ending = until_ending(task, log) => Ok(Reached::NotStarted(explain(&ending))),
        end = interrupts.next() => Err(end),
        () = tokio::time::sleep(PATIENCE) => Ok(Reached::NotStarted(too_slow())),
    }
}

/// Tries until the task's server lets us in. Returns only errors that another try does not change.
pub async fn connect(runner: &Runner, mut task: Receiver<Task>, nonce: &Nonce) -> Result<Connection, ConnectError> {
    loop {
        let address = match task.wait_for(|task| task.address.is_some()).await {
            Ok(task) => task.address,
            Err(_gone) => None,
        };
        // Without a describer there is no address to come; whoever waits beside this sees the end of the task.
        let Some(address) = address else { return std::future::pending().await };
        let target = runner.ssh_target(address, nonce, None);
        let Ok(Ok(stream)) = tokio::time::timeout(TRY, TcpStream::connect(target.addr)).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Without it the kernel holds back each small packet of the greeting until the last one is acknowledged.
        let _ = stream.set_nodelay(true);
        match Connection::over(stream, &target, EXCHANGE).await {
            Err(error) if error.may_pass() => tokio::time::sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// Says each phase once it is over; resolves when the task is about to end.
async fn until_ending(mut task: Receiver<Task>, log: &JobLog) -> Task {
    let mut said = 0;
    loop {
        let seen = task.borrow_and_update().clone();
        let over = phases(&seen);
        for phase in over.iter().skip(said) {
            log.phase(phase.name, phase.seconds);
        }
        said = said.max(over.len());
        if seen.is_ending() {
            return seen;
        }
        if task.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn too_slow() -> Explanation {
    Explanation {
        sentence: format!("The task did not become reachable within {} minutes.", PATIENCE.as_secs() / 60),
        said: String::new(),
        fix: Some(
            "Check that the task's security group lets the manager in on the SSH port, and that the image starts sshd or the agent.",
        ),
        retry: false,
        failure: SystemFailure::Runner,
    }
}
