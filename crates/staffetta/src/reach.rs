//! Reach: a task is ready when its SSH server lets us in, which is earlier than when ECS says RUNNING.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws::fargate::{Explanation, Phase, Task, explain, phases};
use job::outcome::SystemFailure;
use ssh::client::{ConnectError, Connection, Output, Target};
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;

/// One try to connect. An address whose container is not up yet answers nothing at all.
const TRY: Duration = Duration::from_secs(2);
/// One exchange over the connection: a quarter of a vCPU takes its time, and the agent may have to be sent.
const EXCHANGE: Duration = Duration::from_secs(60);
/// Between two tries: this is what a job waits too long on average, doubled.
const PAUSE: Duration = Duration::from_millis(50);

/// An entrypoint that starts sshd before it has written the key needs this much at most.
const KEY: Duration = Duration::from_secs(5);

/// How waiting for a task ended.
pub enum Reached {
    Connected(Connection),
    /// The task ended, or took too long, before it could be reached.
    NotStarted(Explanation),
    /// The task is there, and another try to get in would change nothing.
    Refused(ConnectError),
}

/// Waits for a task's SSH server for at most `patience`. `say` hears each phase of the task once it is over.
pub async fn reach(
    task: Receiver<Task>,
    patience: Duration,
    target: impl Fn(IpAddr) -> Target,
    say: impl FnMut(&Phase),
) -> Reached {
    tokio::select! {
        connected = connect(task.clone(), target) => match connected {
            Ok(connection) => Reached::Connected(connection),
            Err(error) => Reached::Refused(error),
        },
        ending = until_ending(task, say) => Reached::NotStarted(explain(&ending)),
        () = tokio::time::sleep(patience) => Reached::NotStarted(too_slow(patience)),
    }
}

/// Tries until the task's server lets us in. Returns only errors that another try does not change.
async fn connect(mut task: Receiver<Task>, target: impl Fn(IpAddr) -> Target) -> Result<Connection, ConnectError> {
    let mut refused_since = None;
    loop {
        let address = match task.wait_for(|task| task.address.is_some()).await {
            Ok(task) => task.address,
            Err(_gone) => None,
        };
        // Without a describer there is no address to come; whoever waits beside this sees the end of the task.
        let Some(address) = address else { return std::future::pending().await };
        let target = target(address);
        let Ok(Ok(stream)) = tokio::time::timeout(TRY, TcpStream::connect(target.addr)).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Without it the kernel holds back each small packet of the greeting until the last one is acknowledged.
        let _ = stream.set_nodelay(true);
        match Connection::over(stream, &target, EXCHANGE).await {
            Err(error) if error.may_pass() => tokio::time::sleep(PAUSE).await,
            Err(ConnectError::KeyRefused { .. }) if refused_since.get_or_insert_with(Instant::now).elapsed() < KEY => {
                tokio::time::sleep(PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// Says each phase once it is over; resolves when the task is about to end.
async fn until_ending(mut task: Receiver<Task>, mut say: impl FnMut(&Phase)) -> Task {
    let mut said = 0;
    loop {
        let seen = task.borrow_and_update().clone();
        let over = phases(&seen);
        over.iter().skip(said).for_each(&mut say);
        said = said.max(over.len());
        if seen.is_ending() {
            return seen;
        }
        if task.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Whether commands run over the connection. A login shell such as `nologin` lets us in and ends every command with 1, as if
/// each script had failed.
pub async fn has_shell(connection: &Connection, user: &str) -> Result<(), String> {
    match connection.exec("exit 42", "").await {
        Ok(Output { status: Some(42), .. }) => Ok(()),
        Ok(Output { stdout, stderr, .. }) => {
            let said = [stdout, stderr].concat();
            let said = String::from_utf8_lossy(&said);
            Err(format!("the user {user} of the task's image cannot run commands: {}", said.trim()))
        }
        Err(error) => Err(format!("the task lets us in, and then runs no commands: {error}")),
    }
}

/// For a task that runs and is not reached.
pub const NOT_REACHED: &str = "Check that the task's security group lets the manager in on the SSH port, and that the image starts sshd or the \
                               agent.";

fn too_slow(patience: Duration) -> Explanation {
    Explanation {
        sentence: format!("The task did not become reachable within {} minutes.", patience.as_secs().div_ceil(60)),
        said: String::new(),
        fix: Some(NOT_REACHED),
        retry: false,
        failure: SystemFailure::Runner,
        checks: &["security-groups", "ssh-in", "manager-egress", "manager-path", "task-container"],
    }
}

/// An explanation for a job's log, with who looks further where somebody can. `environment` is the runner's name.
pub fn told(explanation: &Explanation, environment: Option<&str>) -> String {
    // Others a shell would read otherwise.
    let is_plain = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let which = environment.filter(is_plain).map(|name| format!(" --environment {name}")).unwrap_or_default();
    match explanation.checks {
        [] => explanation.to_string(),
        checks => format!("{explanation} `staffetta doctor{which}` looks for the cause ({}).", checks.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CHECKS;

    #[test]
    fn who_looks_for_the_cause_is_told_where_somebody_can() {
        let slow = too_slow(Duration::from_secs(900));
        assert!(told(&slow, Some("dev")).ends_with(
            "`staffetta doctor --environment dev` looks for the cause (security-groups, ssh-in, manager-egress, \
             manager-path, task-container)."
        ));
        assert!(told(&slow, Some("$(x) y")).contains("`staffetta doctor` looks"));
        let nobody = Explanation { checks: &[], ..slow.clone() };
        assert_eq!(told(&nobody, Some("dev")), nobody.to_string());
    }

    #[test]
    fn every_check_that_a_log_names_is_there() {
        let named = aws::fargate::checks_of_doctor().chain(too_slow(Duration::ZERO).checks.iter().copied());
        for check in named {
            assert!(CHECKS.contains(&check), "{check}");
        }
    }
}
