//! `prepare`: starts the job's task, and waits until its SSH server lets us in.
//!
//! The metadata file is written before RunTask is sent: whenever this call is killed, the next one of the same job
//! knows that a task may have been started.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ::job::task;
use aws::fargate::{Fargate, Launch, LaunchError, Phase, Task};
use ssh::keys::{Nonce, TaskKey};

use super::metadata::{Kept, Metadata, Store};
use super::{Call, Failure, StopSignal, cleanup, say, seconds, warn};
use crate::reach::{Reached, has_shell, reach, told};

/// Beyond the job's time-out: what GitLab's runner may still want of the task.
const GRACE: Duration = Duration::from_secs(60 * 60);

pub async fn prepare(call: &Call) -> Result<(), Failure> {
    let mut stop = StopSignal::listen()?;
    let role = call.role()?;
    let key = TaskKey::random();
    let launch = launch(call, &key, SystemTime::now())?;
    let store = call.store()?;
    if !matches!(store.read()?, Kept::Nothing) {
        say("An earlier try of this job did not clean up; looking for its task");
        tokio::select! {
            ended = cleanup::end_what_was_started(call, &store) => ended?,
            () = stop.received() => return Err(Failure::Interrupted),
        }
    }
    let config = &call.settings.fargate;
    let fargate = call.fargate(role.clone()).await?;
    let mut metadata = Metadata {
        task_arn: String::new(),
        container_ip: String::new(),
        private_key: key.to_openssh(),
        host_key: None,
        cluster: Some(config.cluster.clone()),
        region: config.region.clone(),
        role,
    };
    store.write(&metadata)?;

    let definition = launch.task_definition.as_ref().unwrap_or(&config.task_definition);
    say(format_args!("Waiting for a Fargate task ({definition}) in cluster {}", config.cluster));
    let began = Instant::now();
    let stopped = Cell::new(false);
    let stop_asking = async {
        stop.received().await;
        stopped.set(true);
    };
    let task = match fargate.run_task(&launch, |waiting| say(waiting), stop_asking).await {
        Ok(task) => task,
        Err(error) => {
            let (LaunchError::Refused { fix, perhaps_started, .. } | LaunchError::GaveUp { fix, perhaps_started, .. }) =
                &error;
            // Otherwise `cleanup` would look for a task that cannot be there.
            if !perhaps_started {
                store.remove()?;
            }
            return Err(match stopped.get() {
                true => Failure::Interrupted,
                false => Failure::System(format!("{error}. {fix}").trim_end().to_owned()),
            });
        }
    };
    say(format_args!("  RunTask accepted: {:.1} s", began.elapsed().as_secs_f64()));
    let entered = tokio::select! {
        entered = enter(call, &fargate, &task, &key, &store, &mut metadata) => entered,
        () = stop.received() => Err(Failure::Interrupted),
    };
    match entered {
        Ok(()) => say(format_args!("Task {} answers after {:.1} s", task.arn.id(), began.elapsed().as_secs_f64())),
        Err(_) => stop_task(&fargate, &task, "the task could not be used").await,
    }
    entered
}

/// One task, as the job may have it.
fn launch(call: &Call, key: &TaskKey, now: SystemTime) -> Result<Launch, Failure> {
    let job = &call.job;
    // A flag is written by whoever writes config.toml, and needs nobody's leave.
    let (task_definition, platform_version) =
        match (&call.task_definition, call.settings.fargate.choice(|name| job.variable(name))) {
            (Some(flag), _) => (flag.clone(), job.variable("FARGATE_PLATFORM_VERSION")),
            (None, Ok(chosen)) => (chosen.task_definition, chosen.platform_version),
            (None, Err(error)) => return Err(Failure::Refused(format!("FARGATE_TASK_DEFINITION: {error}"))),
        };
    let mut environment = BTreeMap::from([
        (task::SSH_PUBLIC_KEY.to_owned(), key.public_openssh()),
        (task::JOB.to_owned(), job.id.to_string()),
    ]);
    if let Some(timeout) = job.timeout {
        environment.insert(task::DEADLINE.to_owned(), seconds(now + timeout + GRACE).to_string());
    }
    Ok(Launch {
        // Repetitions of this call's RunTask are one task; another call of the same job starts another one.
        client_token: format!("{}-driver-{}", ::job::PRODUCT, Nonce::random().as_str()),
        started_by: call.started_by(),
        environment,
        patience: call.settings.start_timeout,
        task_definition: Some(task_definition),
        platform_version: call.platform_version.clone().or(platform_version),
    })
}

/// Gets into the task once, so that the calls to come know its address and its host key.
async fn enter(
    call: &Call,
    fargate: &Fargate,
    task: &Task,
    key: &TaskKey,
    store: &Store,
    metadata: &mut Metadata,
) -> Result<(), Failure> {
    metadata.task_arn = task.arn.as_str().to_owned();
    store.write(metadata)?;
    let target = |address| call.target(address, key.clone(), None);
    let said = |phase: &Phase| say(format_args!("  {}: {:.1} s", phase.name, phase.seconds));
    let task = fargate.watch(task);
    let connection = match reach(task.clone(), call.settings.start_timeout, target, said).await {
        Reached::Connected(connection) => connection,
        Reached::NotStarted(explanation) => return Err(Failure::System(told(&explanation, None))),
        Reached::Refused(error) => return Err(Failure::System(error.to_string())),
    };
    metadata.container_ip = task.borrow().address.map(|address| address.to_string()).unwrap_or_default();
    metadata.host_key = Some(connection.host_key().text());
    store.write(metadata)?;
    if connection.is_agent_itself() {
        let reason =
            "the task's image starts staffetta-agent, which takes whole jobs of `staffetta run`; scripts need OpenSSH";
        return Err(Failure::System(reason.to_owned()));
    }
    let shell = has_shell(&connection, &call.settings.fargate.ssh_user).await;
    connection.close().await;
    shell.map_err(Failure::System)
}

/// GitLab's runner calls `cleanup` too; should that be killed as well, the task is not left.
async fn stop_task(fargate: &Fargate, task: &Task, reason: &str) {
    if let Err(error) = fargate.stop_task(&task.arn, reason).await {
        warn(format_args!("cannot stop the task {}: {error}; cleanup tries again", task.arn.id()));
    }
}
