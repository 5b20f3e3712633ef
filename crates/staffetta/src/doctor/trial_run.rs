//! `--run`: a real task goes through the whole journey of a job, up to a command in its shell. It is stopped in the end,
//! whatever became of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use aws::CallError;
use aws::fargate::{Fargate, FargateConfig, Launch, LaunchError, Phase, Regions, Status, Task};
use aws::stack::MANAGER_CONTAINER;
use job::ids::TaskArn;
use job::task;
use serde_json::json;
use ssh::client::{ConnectError, Connection, Target};
use ssh::keys::{Nonce, TaskKey};
use tokio::sync::watch::Receiver;

use super::subject::ManagerPlace;
use super::{Finding, Subject, Wishes};
use crate::reach::{NOT_REACHED, Reached, has_shell, reach};

const TRIAL: &str = "trial-run";

/// How long ECS may have no room for the task.
const LAUNCH: Duration = Duration::from_secs(3 * 60);
/// A task that runs answers on its port within seconds, or never.
const AFTER_START: Duration = Duration::from_secs(60);

/// What else the journey may need, from the connection to the last StopTask.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Of every trial, so that the next one finds what a killed one left.
const STARTED_BY: &str = "staffetta-doctor";

const NO_TASK: &str = "No job gets a task.";

/// Once `wishes.stop` is cancelled no more is tried, and the task is stopped.
pub async fn check(subject: &Subject, wishes: &Wishes) -> Vec<Finding> {
    let stop = &wishes.stop;
    let nonce = Nonce::random();
    let config = FargateConfig { role: subject.as_role.clone(), ..subject.runner.fargate.clone() };
    let fargate = match Fargate::connect(&config, &Regions::default()).await {
        Ok(fargate) => fargate,
        Err(error) => return vec![Finding::bad(TRIAL, error.to_string(), NO_TASK, "Correct [runners.fargate].")],
    };
    let mut findings = stop_overdue(&fargate).await;
    let key = TaskKey::random();
    let patience = LAUNCH.min(subject.runner.start_timeout);
    let end = SystemTime::now() + patience + subject.runner.start_timeout + AFTER_START + GRACE;
    let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let launch = Launch {
        client_token: format!("{}-doctor-{}", job::PRODUCT, nonce.as_str()),
        started_by: STARTED_BY.to_owned(),
        environment: BTreeMap::from([
            (task::SSH_PUBLIC_KEY.to_owned(), key.public_openssh()),
            (task::DEADLINE.to_owned(), end.to_string()),
        ]),
        task_definition: None,
        platform_version: None,
        patience,
    };
    let cluster = &config.cluster;
    wishes.leaves(&subject.name, format!("aws ecs list-tasks --cluster {cluster} --started-by {STARTED_BY}"));
    let began = Instant::now();
    let task = match fargate.run_task(&launch, |waiting| tracing::info!("{waiting}"), stop.cancelled()).await {
        Ok(task) => task,
        Err(error) => {
            let (LaunchError::Refused { fix, perhaps_started, .. } | LaunchError::GaveUp { fix, perhaps_started, .. }) =
                &error;
            if !stop.is_cancelled() {
                findings.push(Finding::bad(TRIAL, error.to_string(), NO_TASK, fix.as_str()));
            }
            if *perhaps_started {
                findings.extend(stop_what_started(&fargate, &key).await);
            }
            return findings;
        }
    };
    wishes.leaves(&subject.name, stop_command(&task.arn));
    let tried = tokio::select! {
        tried = journey(subject, &fargate, &task, key, began) => Some(tried),
        () = stop.cancelled() => None,
    };
    let stopped = stop_task(&fargate, &task.arn).await;
    findings.extend(tried.into_iter().chain(stopped));
    findings
}

/// From the accepted task to a command in its shell; RunTask was sent when it `began`.
async fn journey(subject: &Subject, fargate: &Fargate, task: &Task, key: TaskKey, began: Instant) -> Finding {
    let mut told = format!("task {}: RunTask accepted {:.1} s", task.arn.id(), began.elapsed().as_secs_f64());
    let runner = &subject.runner;
    let FargateConfig { ssh_user, ssh_port, .. } = &runner.fargate;
    let target = |address| Target {
        addr: SocketAddr::new(address, *ssh_port),
        user: ssh_user.clone(),
        key: key.clone(),
        pinned: None,
    };
    let watched = fargate.watch(task);
    let say = |phase: &Phase| told.push_str(&format!(", {} {:.1} s", phase.name, phase.seconds));
    let reached = tokio::select! {
        reached = reach(watched.clone(), runner.start_timeout, target, say) => Some(reached),
        () = long_running(watched.clone()) => None,
    };
    match reached {
        Some(Reached::Connected(connection)) => {
            let reached = began.elapsed().as_secs_f64();
            try_shell(connection, ssh_user, &format!("{told}; answers after {reached:.1} s")).await
        }
        Some(Reached::NotStarted(explanation)) => {
            let said =
                if explanation.said.is_empty() { String::new() } else { format!(" (ECS: {})", explanation.said) };
            let evidence = format!("{told}; {}{said}", explanation.sentence);
            Finding::bad(TRIAL, evidence, NO_TASK, explanation.fix.unwrap_or("Run doctor again."))
        }
        Some(Reached::Refused(error)) => Finding::bad(TRIAL, format!("{told}; {error}"), NO_TASK, fix_of(&error)),
        None => unreached(
            subject,
            &format!("{told}; it runs"),
            watched.borrow().address.map(|it| SocketAddr::new(it, *ssh_port)),
        ),
    }
}

/// Resolves when the task has run for longer than its server may need.
async fn long_running(mut task: Receiver<Task>) {
    if task.wait_for(|task| task.last_status >= Status::Running).await.is_err() {
        return std::future::pending().await;
    }
    tokio::time::sleep(AFTER_START).await;
}

async fn try_shell(connection: Connection, user: &str, told: &str) -> Finding {
    if connection.is_agent_itself() {
        connection.close().await;
        return Finding::good(TRIAL, format!("{told}; the image starts staffetta-agent, which is ready for a job"));
    }
    let asked = Instant::now();
    let shell = has_shell(&connection, user).await;
    connection.close().await;
    match shell {
        Ok(()) => {
            Finding::good(TRIAL, format!("{told}; a command in its shell {:.1} s", asked.elapsed().as_secs_f64()))
        }
        Err(reason) => Finding::bad(
            TRIAL,
            format!("{told}; {reason}"),
            "Every job fails before its script.",
            format!(
                "Give the user {user} of the image a login shell such as /bin/sh, or name another user in ssh_user."
            ),
        ),
    }
}

fn fix_of(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::KeyRefused { .. } => {
            "Let the image's entrypoint write SSH_PUBLIC_KEY into the authorized_keys of ssh_user; docs/images.md has one."
        }
        ConnectError::HostKeyChanged { .. } => {
            "Another machine answers under the task's address: look at the subnet's addresses."
        }
        _ => {
            "Let the image start OpenSSH's sshd with an Ed25519 host key, or staffetta-agent; docs/images.md tells how."
        }
    }
}

/// The task runs and nobody answers: the network between here and there, or the image.
fn unreached(subject: &Subject, told: &str, address: Option<SocketAddr>) -> Finding {
    let address = address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
    let evidence = format!("{told}, and {address} was not reached from here within {} s", AFTER_START.as_secs());
    match &subject.manager.place {
        // Whoever deploys is rarely let in where only the manager is.
        Some(place) => Finding::unknown(
            TRIAL,
            evidence,
            format!(
                "Only the manager is let in, so let a task in its place try it:\n{}",
                place.trial(&subject.runner.name)
            ),
        ),
        None => Finding::bad(TRIAL, evidence, "The manager gives up each task.", NOT_REACHED),
    }
}

impl ManagerPlace {
    /// Commands for the AWS CLI: a task of the manager's own definition runs this doctor, and its log has the result.
    fn trial(&self, runner: &str) -> String {
        let Self { name, log_group, region, subnets, security_group, assign_public_ip, .. } = self;
        let subnets = subnets.join(",");
        let public = if *assign_public_ip { "ENABLED" } else { "DISABLED" };
        let command = json!(["doctor", "--run", "--environment", runner]);
        let overrides = json!({"containerOverrides": [{"name": MANAGER_CONTAINER, "command": command}]});
        format!(
            "aws ecs run-task --region {region} --cluster {name} --task-definition {name} --launch-type FARGATE \
             --network-configuration 'awsvpcConfiguration={{subnets=[{subnets}],securityGroups=[{security_group}],\
             assignPublicIp={public}}}' --overrides '{overrides}'\n\
             aws logs tail {log_group} --region {region} --follow"
        )
    }
}

/// None, if it went well.
async fn stop_task(fargate: &Fargate, task: &TaskArn) -> Option<Finding> {
    let error = fargate.stop_task(task, "the trial of staffetta doctor is over").await.err()?;
    Some(Finding::bad(
        TRIAL,
        format!("the trial's task {} could not be stopped: {error}", task.as_str()),
        "It runs on and is paid for.",
        format!("`{}`", stop_command(task)),
    ))
}

fn stop_command(task: &TaskArn) -> String {
    let cluster = task.as_str().split('/').nth(1).unwrap_or_default();
    format!("aws ecs stop-task --cluster {cluster} --task {}", task.as_str())
}

/// The tasks of all trials in this cluster, whoever started them.
async fn of_trials(fargate: &Fargate) -> Result<Vec<Task>, CallError> {
    fargate.describe(&fargate.list_tasks(STARTED_BY).await?).await
}

/// A doctor that was killed could not stop its task. That they cannot be listed tells the trial itself.
async fn stop_overdue(fargate: &Fargate) -> Vec<Finding> {
    let now = SystemTime::now();
    let mut findings = Vec::new();
    for task in of_trials(fargate).await.unwrap_or_default() {
        if task.is_ending() || task.deadline().is_none_or(|deadline| deadline > now) {
            continue;
        }
        let stopped = Finding::good(TRIAL, format!("stopped {}, which an earlier trial left", task.arn.as_str()));
        findings.push(stop_task(fargate, &task.arn).await.unwrap_or(stopped));
    }
    findings
}

/// An answer was lost: the task is found by its key.
async fn stop_what_started(fargate: &Fargate, key: &TaskKey) -> Vec<Finding> {
    let key = key.public_openssh();
    let mut findings = Vec::new();
    match of_trials(fargate).await {
        Ok(tasks) => {
            for task in tasks.iter().filter(|task| task.environment.get(task::SSH_PUBLIC_KEY) == Some(&key)) {
                findings.extend(stop_task(fargate, &task.arn).await);
            }
        }
        Err(error) => findings.push(Finding::bad(
            TRIAL,
            format!("a task may have been started by the trial, and cannot be looked for: {error}"),
            "It runs on and is paid for.",
            format!("`aws ecs list-tasks --started-by {STARTED_BY}` finds it; stop it with `aws ecs stop-task`."),
        )),
    }
    findings
}
