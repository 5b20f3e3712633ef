//! `run`: one script of a stage in the job's task, over one SSH connection.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use aws::fargate::{Status, Task, explain};
use nix::sys::signal::Signal;
use ssh::client::{ConnectError, Connection, ScriptEnd, ScriptError, Target, script_shell};
use ssh::keys::{HostKey, TaskKey};
use tokio::fs::File;
use tokio::time::{sleep, timeout};

use super::metadata::{Kept, Metadata};
use super::{Call, Failure, StopSignal};

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(250);
/// How long ECS may take to notice that a task is gone: the connection to it breaks first.
const NOTICE: Duration = Duration::from_secs(8);
/// How long it may then take to tell the whole reason: exit codes come with the last state only.
const REASON: Duration = Duration::from_secs(30);
/// What a script gets for its own cleaning up before it is killed. GitLab's runner gives the driver ten minutes.
const GRACE: Duration = Duration::from_secs(10);

pub async fn run(call: &Call, script: &Path, stage: &str) -> Result<(), Failure> {
    let mut stop = StopSignal::listen()?;
    let text = std::fs::read(script)
        .map_err(|error| Failure::System(format!("cannot read the script {}: {error}", script.display())))?;
    let store = call.store()?;
    let mut metadata = match store.read()? {
        Kept::Metadata(metadata) => metadata,
        Kept::Unreadable(reason) => return Err(Failure::System(reason)),
        Kept::Nothing => {
            return Err(Failure::System(format!(
                "nothing is known of a task for job {}: `prepare` must have succeeded before, with the same \
                 `Directory` in [TaskMetadata] of ecs.toml",
                call.job.id
            )));
        }
    };
    let target = target(call, &metadata)?;
    tracing::debug!(job = %call.job.id, stage, task = metadata.task_arn, "connecting");
    let connected = tokio::select! {
        connected = connect(&target, call.settings.connect_timeout) => connected,
        () = stop.received() => return Err(Failure::Interrupted),
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) if error.may_pass() => return Err(lost(call, &metadata, &error.to_string()).await),
        Err(error) => return Err(Failure::System(error.to_string())),
    };
    if metadata.host_key.is_none() {
        // The file is GitLab's driver's, which looks at no host key; from here on it is this one.
        metadata.host_key = Some(connection.host_key().text());
        store.write(&metadata)?;
    }
    let (stdout, stderr) = (unbuffered(io::stdout())?, unbuffered(io::stderr())?);
    let ran = connection.run_script(&script_shell(), text.into(), stdout, stderr, stop.received(), GRACE).await;
    match ran {
        Ok(ScriptEnd::Exited(0)) => Ok(()),
        Ok(ScriptEnd::Exited(code)) => Err(Failure::Script { exit_code: code.cast_signed() }),
        Ok(ScriptEnd::Killed(signal)) => Err(Failure::Script { exit_code: as_a_shell_says(&signal) }),
        Ok(ScriptEnd::Stopped) | Err(ScriptError::Unheard(_)) => Err(Failure::Interrupted),
        Err(ScriptError::NotStarted(reason)) => Err(Failure::System(format!("the script was not started: {reason}"))),
        Err(ScriptError::Lost(reason)) => Err(lost(call, &metadata, &reason).await),
    }
}

/// The job's log, without the lines into which the standard library would cut the script's output.
fn unbuffered(stream: impl AsFd) -> Result<File, Failure> {
    let stream = stream.as_fd().try_clone_to_owned();
    let stream = stream.map_err(|error| Failure::System(format!("cannot write to the job's log: {error}")))?;
    Ok(File::from_std(stream.into()))
}

/// The exit code that a shell gives for a command which a signal ended.
fn as_a_shell_says(signal: &str) -> i32 {
    128 + Signal::from_str(&format!("SIG{signal}")).map_or(0, |signal| signal as i32)
}

/// Where the task is, by what `prepare` left.
fn target(call: &Call, metadata: &Metadata) -> Result<Target, Failure> {
    let broken = |what: &str| Failure::System(format!("the metadata of job {} has {what}", call.job.id));
    let address = metadata.address().ok_or_else(|| broken("no address of the task: `prepare` did not succeed"))?;
    let key = TaskKey::from_pem(&metadata.private_key).map_err(|error| broken(&format!("no usable key: {error}")))?;
    let pinned = metadata.host_key.as_deref().map(str::parse::<HostKey>).transpose();
    let pinned = pinned.map_err(|error| broken(&format!("no usable host key: {error}")))?;
    Ok(call.target(address, key, pinned))
}

/// Nothing of the script ran yet, so it may be tried again: sshd refuses connections while many are made at once.
async fn connect(target: &Target, patience: Duration) -> Result<Connection, ConnectError> {
    let give_up = Instant::now() + patience;
    loop {
        match Connection::open(target, patience).await {
            Err(error) if error.may_pass() && Instant::now() + PAUSE < give_up => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// The task does not answer any more: ECS is asked what became of it.
async fn lost(call: &Call, metadata: &Metadata, reason: &str) -> Failure {
    let why = match ending(call, metadata).await {
        Ok(Some(task)) => explain(&task).to_string(),
        Ok(None) => "ECS says that the task itself still runs.".to_owned(),
        Err(error) => format!("ECS cannot be asked why: {error}"),
    };
    Failure::System(format!("the connection to the task was lost ({reason}). {why}"))
}

/// The task's last state, if it is ending.
async fn ending(call: &Call, metadata: &Metadata) -> Result<Option<Task>, Failure> {
    let Some(arn) = metadata.arn() else { return Ok(None) };
    let fargate = call.fargate_of(metadata).await?;
    let mut task = fargate.watch(&Task { last_status: Status::Running, ..Task::unseen(arn.clone()) });
    fargate.look_now(&arn);
    let is_ending = timeout(NOTICE, task.wait_for(Task::is_ending)).await.is_ok_and(|seen| seen.is_ok());
    if is_ending {
        // What is there by then must do.
        let _ = timeout(REASON, task.wait_for(Task::is_over)).await;
    }
    let task = task.borrow().clone();
    Ok(Some(task).filter(Task::is_ending))
}
