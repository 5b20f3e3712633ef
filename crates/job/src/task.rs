//! What manager and task agree on beside the hand-over: the names in a task's environment.

/// The public key that the task's SSH server accepts; the name is the Fargate driver's.
pub const SSH_PUBLIC_KEY: &str = "SSH_PUBLIC_KEY";
/// The nonce from which, with the runner's token, any manager of the runner derives the task's key.
pub const NONCE: &str = "STAFFETTA_NONCE";
/// The system id of the manager that started the task: after a restart it knows its own launches.
pub const MANAGER: &str = "STAFFETTA_MANAGER";
/// The id of the job that the task was started for. Not a secret.
pub const JOB: &str = "STAFFETTA_JOB";
/// Unix seconds after which no manager lets the task live: the job's time-out and every grace are over then.
pub const DEADLINE: &str = "STAFFETTA_DEADLINE";
/// The address that the agent's SSH server binds; an engine whose tasks share one network sets it.
pub const LISTEN: &str = "STAFFETTA_LISTEN";
/// The folder that stands for the root of the task's files; an engine whose tasks share one file system sets it.
pub const ROOT: &str = "STAFFETTA_ROOT";
/// The container of a task definition that runs the job; the name is the Fargate driver's. Others are sidecars.
pub const CONTAINER: &str = "ci-coordinator";
