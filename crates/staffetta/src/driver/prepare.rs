//! `prepare`: starts the job's task, and waits until its SSH server lets us in.
//!
//! The metadata file is written before RunTask is sent: whenever this call is killed, the next one of the same job
//! knows that a task may have been started.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use aws::fargate::{Fargate, Launch, LaunchError, Task, role_is_allowed};
use job::task;
use ssh::client::Output;
use ssh::keys::{Nonce, TaskKey};

use super::metadata::{Kept, Metadata, Store};
use super::{Call, Failure, StopSignal, cleanup, say, seconds, warn};
use crate::reach::{Reached, reach};

/// A little longer than the longest single RunTask.
const LAST_ANSWER: Duration = Duration::from_secs(25);
/// Beyond the job's time-out: what GitLab's runner may still want of the task.
const GRACE: Duration = Duration::from_secs(60 * 60);

pub async fn prepare(call: &Call) -> Result<(), Failure> {
    let mut stop = StopSignal::listen()?;
    let launch = Launch { environment: BTreeMap::new(), ..launch(call)? };
    let store = call.store()?;
    if !matches!(store.read()?, Kept::Nothing) {
        say("An earlier try of this job left its task behind; ending it first");
        cleanup::end_what_was_started(call, &store).await?;
    }
    let key = TaskKey::random();
    let launch = Launch { environment: environment(call, &key, SystemTime::now()), ..launch };
    let config = &call.settings.fargate;
    let fargate = call.fargate(None).await?;
    let mut metadata = Metadata {
        task_arn: String::new(),
        container_ip: String::new(),
        private_key: key.to_openssh(),
        host_key: None,
        cluster: Some(config.cluster.clone()),
        region: config.region.clone(),
        role: call.job.role(),
        launched_at: seconds(SystemTime::now()),
    };
    store.write(&metadata)?;

    let definition = launch.task_definition.as_ref().unwrap_or(&config.task_definition);
    say(format_args!("Waiting for a Fargate task ({definition}) in cluster {}", config.cluster));
    let began = Instant::now();
    let task = run_task(&fargate, &launch, &mut stop).await?;
    say(format_args!("  RunTask accepted: {:.1} s", began.elapsed().as_secs_f64()));
    match enter(call, &fargate, &task, &key, &store, &mut metadata, &mut stop).await {
        Ok(()) => {
            say(format_args!("Task {} answers after {:.1} s", task.arn.id(), began.elapsed().as_secs_f64()));
            Ok(())
        }
        Err(failure) => {
            // GitLab's runner calls `cleanup` too; should that be killed as well, the task is not left.
            if let Err(error) = fargate.stop_task(&task.arn, "the task could not be used").await {
                warn(format_args!("cannot stop the task {}: {error}; cleanup tries again", task.arn.id()));
            }
            Err(failure)
        }
    }
}

/// What the job may have, and asks for.
fn launch(call: &Call) -> Result<Launch, Failure> {
    let settings = &call.settings;
    let chosen = settings.fargate.choice(|name| call.job.variable(name));
    // A flag is written by whoever writes config.toml, and needs nobody's leave.
    let (task_definition, platform_version) = match (&call.task_definition, chosen) {
        (Some(flag), _) => (flag.clone(), call.job.variable("FARGATE_PLATFORM_VERSION")),
        (None, Ok(chosen)) => (chosen.task_definition, chosen.platform_version),
        (None, Err(error)) => return Err(Failure::Refused(format!("FARGATE_TASK_DEFINITION: {error}"))),
    };
    if let Some(role) = call.job.role()
        && !role_is_allowed(settings.allowed_roles.as_deref(), &role.arn)
    {
        return Err(Failure::Refused(format!(
            "ROLE_ARN: this runner does not allow the role {:?}; `AllowedRoles` of its ecs.toml says which",
            role.arn
        )));
    }
    Ok(Launch {
        // Repetitions of this call's RunTask are one task; another call of the same job starts another one.
        client_token: format!("{}-driver-{}", job::PRODUCT, Nonce::random().as_str()),
        started_by: call.started_by(),
        environment: BTreeMap::new(),
        patience: settings.start_timeout,
        task_definition: Some(task_definition),
        platform_version: call.platform_version.clone().or(platform_version),
    })
}

/// Who the task is for; shown by DescribeTasks and CloudTrail, so nothing in it is secret.
fn environment(call: &Call, key: &TaskKey, now: SystemTime) -> BTreeMap<String, String> {
    [
        (task::SSH_PUBLIC_KEY, key.public_openssh()),
        (task::JOB, call.job.id.to_string()),
        (task::DEADLINE, seconds(now + call.job.timeout + GRACE).to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Told to stop, it still waits for the answer that is under way: it may name a task.
async fn run_task(fargate: &Fargate, launch: &Launch, stop: &mut StopSignal) -> Result<Task, Failure> {
    let mut running = Box::pin(fargate.run_task(launch, |waiting| say(waiting)));
    let ran = tokio::select! {
        ran = &mut running => ran,
        () = stop.received() => {
            if let Ok(Ok(task)) = tokio::time::timeout(LAST_ANSWER, &mut running).await
                && let Err(error) = fargate.stop_task(&task.arn, "the job ended while its task was started").await
            {
                warn(format_args!("cannot stop the task {}: {error}; cleanup tries again", task.arn.id()));
            }
            return Err(Failure::Interrupted);
        }
    };
    ran.map_err(|error| {
        let (LaunchError::Refused { fix, .. } | LaunchError::GaveUp { fix, .. }) = &error;
        Failure::System(format!("{error}. {fix}").trim_end().to_owned())
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
    stop: &mut StopSignal,
) -> Result<(), Failure> {
    metadata.task_arn = task.arn.as_str().to_owned();
    store.write(metadata)?;
    let target = |address| call.target(address, key.clone(), None);
    let said = |phase: &aws::fargate::Phase| say(format_args!("  {}: {:.1} s", phase.name, phase.seconds));
    let task = fargate.watch(task);
    let reached = tokio::select! {
        reached = reach(task.clone(), call.settings.start_timeout, target, said) => reached,
        () = stop.received() => return Err(Failure::Interrupted),
    };
    let connection = match reached {
        Reached::Connected(connection) => connection,
        Reached::NotStarted(explanation) => return Err(Failure::System(explanation.to_string())),
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
    // A login shell such as `nologin` lets us in and ends every command with 1, as if each script had failed.
    let greeted = connection.exec("exit 42", "").await;
    connection.close().await;
    match greeted {
        Ok(Output { status: Some(42), .. }) => Ok(()),
        Ok(Output { stdout, stderr, .. }) => Err(Failure::System(format!(
            "the user {} of the task's image cannot run commands: {}",
            call.settings.fargate.ssh_user,
            String::from_utf8_lossy(&[stdout, stderr].concat()).trim()
        ))),
        Err(error) => Err(Failure::System(format!("the task lets us in, and then runs no commands: {error}"))),
    }
}
