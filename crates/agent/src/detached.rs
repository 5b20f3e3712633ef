//! A job that came through OpenSSH: it must outlive the connection, and come only once per container.
//!
//! `hand-over` starts a *keeper* in a session of its own, which starts `run` and ends the container when
//! that is over, in whatever way: a script may well kill the agent. Until then a file says what is going on.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use job::hand_over::{AddressesReceipt, AgentStatus, HandOver, Receipt, RemoteCaches};
use job::ids::JobId;
use job::payload::Received;
use job::secret::{self, SecretString};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::Command;

use crate::container::{self, Process};
use crate::process::{Orphans, end_children};
use crate::run::remaining;
use crate::workspace::write_secret;

/// What the container's one job is doing.
#[derive(Serialize, Deserialize)]
struct Record {
    job: JobId,
    #[serde(serialize_with = "secret::expose")]
    token: SecretString,
    /// When the job's own time-out ends it; seconds since 1970 by this machine's clock.
    deadline: u64,
    /// Whoever answers for the job; if it is gone, so is the job.
    keeper: Process,
    finished: bool,
    #[serde(default)]
    cache_renewal: Option<String>,
}

/// The directory with the record, which only this user can read.
#[derive(Debug, Clone)]
pub struct State(PathBuf);

impl State {
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The one of this container. Containers may share their `/tmp` (in tests they do), but not their sshd.
    pub fn of_this_container() -> Self {
        let container = container::sshd().map_or_else(|| "0".into(), |sshd| format!("{}-{}", sshd.pid, sshd.started));
        Self(std::env::temp_dir().join(format!("{}-{}-{container}", ssh::protocol::AGENT, nix::unistd::geteuid())))
    }

    fn file(&self) -> PathBuf {
        self.0.join("job.json")
    }

    fn make_directory(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        // Somebody else may have made it first, to read along.
        let found = fs::symlink_metadata(&self.0)?;
        let ours = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0;
        if ours { Ok(()) } else { Err(io::Error::other(format!("{} belongs to somebody else", self.0.display()))) }
    }

    /// Creating the record takes the container's one place; it is never given back. It appears whole: a link to a
    /// finished file, which fails where there is one already.
    fn claim(&self, record: &Record) -> io::Result<()> {
        self.make_directory()?;
        let whole = self.0.join(format!("job.json.{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole)?;
        let claimed = file.write_all(&serde_json::to_vec(record)?).and_then(|()| fs::hard_link(&whole, self.file()));
        fs::remove_file(whole)?;
        claimed
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        let next = self.0.join("job.json.next");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(next, self.file())
    }

    fn read(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.file()).ok()?).ok()
    }

    /// Where the job finds fresh addresses of its caches, once a manager has sent some.
    fn renewed_caches(&self) -> PathBuf {
        self.0.join("caches.json")
    }

    /// Keeps fresh addresses for the process that runs the job.
    pub fn renew_caches(&self, caches: &RemoteCaches) -> io::Result<AddressesReceipt> {
        if !matches!(self.status(), AgentStatus::Running { .. }) {
            return Ok(AddressesReceipt::NoJob);
        }
        let next = self.0.join("caches.json.next");
        write_secret(&next, &serde_json::to_vec(caches)?)?;
        fs::rename(next, self.renewed_caches())?;
        Ok(AddressesReceipt::Taken)
    }

    fn log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.0.join("agent.log"))
    }

    /// What a manager is told.
    pub fn status(&self) -> AgentStatus {
        match self.read() {
            Some(record) if record.finished => AgentStatus::Finished { job: record.job },
            Some(record) if record.keeper.is_alive() => AgentStatus::Running {
                job: record.job,
                token: record.token,
                remaining_seconds: record.deadline.saturating_sub(unix_now()),
                cache_renewal: record.cache_renewal,
            },
            // No job, or one whose agent was killed: the task serves nobody.
            _ => AgentStatus::Idle,
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Takes a job from `input` and starts it, unless this container has had one.
pub async fn hand_over(state: &State, input: impl AsyncRead + Unpin) -> Receipt {
    let refused = |reason: String| Receipt::Refused { reason };
    let message = match ssh::protocol::receive_hand_over(input).await {
        Ok(message) => message,
        Err(error) => return refused(error.to_string()),
    };
    let payload = match Received::parse(message.payload.get().as_bytes()) {
        Ok(received) => received.payload,
        Err(error) => return refused(error.to_string()),
    };
    let Some(this) = Process::find(std::process::id().cast_signed()) else {
        return refused("this container has no /proc".into());
    };
    let left = remaining(&payload, message.elapsed_seconds);
    let mut record = Record {
        job: payload.id,
        token: payload.token,
        deadline: unix_now().saturating_add(left.as_secs()),
        keeper: this,
        finished: false,
        cache_renewal: message.caches.as_ref().and_then(|caches| caches.renewal.clone()),
    };
    match state.claim(&record) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return match state.read() {
                Some(record) if record.finished || record.keeper.is_alive() => Receipt::Busy { job: record.job },
                // The place was taken by a hand-over that died before its job began, or by an agent that was killed.
                _ => refused("this container had a job whose agent is gone".into()),
            };
        }
        Err(error) => return refused(format!("cannot keep the job's state: {error}")),
    }
    match start_keeper(state, &message).await {
        Ok(keeper) => {
            record.keeper = keeper;
            if let Err(error) = state.write(&record) {
                tracing::warn!(%error, "the job's state is not known to later managers");
            }
            Receipt::Accepted
        }
        Err(error) => refused(format!("cannot start the job: {error}")),
    }
}

async fn start_keeper(state: &State, message: &HandOver) -> io::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("keep").arg("--state").arg(&state.0);
    if let Some(sshd) = container::sshd() {
        command.arg("--sshd").arg(sshd.to_string()).envs(container::hidden_environment(sshd));
    }
    // The connection ends when nobody holds its output any more.
    let log = state.log()?;
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.current_dir("/").spawn()?;
    let keeper = child.id().and_then(|pid| Process::find(pid.cast_signed()));
    let mut input = child.stdin.take().expect("it was piped");
    input.write_all(&serde_json::to_vec(message)?).await?;
    input.shutdown().await?;
    keeper.ok_or_else(|| io::Error::other("the agent ended at once"))
}

/// Runs the job that stands at standard input in a process of its own, and afterwards ends the container.
/// Returns whether GitLab knows the outcome.
pub async fn keep(state: &State, sshd: Option<Process>) -> io::Result<bool> {
    // The one who handed the job over must not take it with them. An error means that we lead a session already.
    let _ = nix::unistd::setsid();
    let orphans = Orphans::adopt();
    let knows = run_apart(state).await;
    if let (Ok(true), Some(record)) = (&knows, state.read())
        && let Err(error) = state.write(&Record { finished: true, ..record })
    {
        // The job may have filled the disk; the container must end nevertheless.
        tracing::warn!(%error, "the job's end is not known to later managers");
    }
    if orphans.is_ok() {
        end_children().await;
    }
    if sshd.is_some_and(container::end) {
        // Nobody can ask any more. Containers of tests leave their `/tmp` behind.
        fs::remove_dir_all(&state.0)?;
    }
    knows
}

async fn run_apart(state: &State) -> io::Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg("run").arg("--renewed-caches").arg(state.renewed_caches()).spawn()?;
    Ok(child.wait().await?.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::addresses::{CacheAddresses, Renewals};

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::at(dir.path().join("state"));
        (dir, state)
    }

    fn record(keeper: Process) -> Record {
        let deadline = unix_now() + 100;
        Record { job: JobId(7), token: "t".into(), deadline, keeper, finished: false, cache_renewal: None }
    }

    fn this() -> Process {
        Process::find(std::process::id().cast_signed()).expect("this process")
    }

    #[test]
    fn a_container_has_one_place_for_ever() {
        let (_dir, state) = state();
        assert!(matches!(state.status(), AgentStatus::Idle));
        state.claim(&record(this())).expect("the first");
        let second = state.claim(&record(this())).expect_err("the second");
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        let AgentStatus::Running { job, remaining_seconds, .. } = state.status() else { panic!("it runs") };
        assert_eq!(job, JobId(7));
        assert!((90..=100).contains(&remaining_seconds), "{remaining_seconds}");
        state.write(&Record { finished: true, ..record(this()) }).expect("the state");
        assert!(matches!(state.status(), AgentStatus::Finished { job: JobId(7) }));
        assert!(state.claim(&record(this())).is_err());
    }

    #[test]
    fn a_job_whose_agent_is_gone_is_nobodys() {
        let (_dir, state) = state();
        state.claim(&record(Process { started: 1, ..this() })).expect("the first");
        assert!(matches!(state.status(), AgentStatus::Idle));
    }

    #[test]
    fn fresh_addresses_reach_the_job_while_it_runs_and_only_then() {
        let (_dir, state) = state();
        let caches = RemoteCaches { max_archive_size: 5, ..RemoteCaches::default() };
        assert_eq!(state.renew_caches(&caches).expect("an answer"), AddressesReceipt::NoJob);
        let sealed = Some("sealed".to_owned());
        state.claim(&Record { cache_renewal: sealed.clone(), ..record(this()) }).expect("the job");
        assert!(matches!(state.status(), AgentStatus::Running { cache_renewal, .. } if cache_renewal == sealed));
        let addresses = CacheAddresses::new(None, Renewals::Written(state.renewed_caches()));
        assert!(addresses.newest().is_none());
        for size in [6, 7] {
            let caches = RemoteCaches { max_archive_size: size, ..RemoteCaches::default() };
            assert_eq!(state.renew_caches(&caches).expect("an answer"), AddressesReceipt::Taken);
            assert_eq!(addresses.newest().expect("fresh ones").max_archive_size, size);
        }
        let mode = state.renewed_caches().metadata().expect("the file").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_others_can_read_is_not_used() {
        let (dir, _) = state();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        assert!(State::at(dir.path()).claim(&record(this())).is_err());
    }

    #[tokio::test]
    async fn what_is_no_hand_over_takes_no_place() {
        let (_dir, state) = state();
        assert!(matches!(hand_over(&state, &b"{}"[..]).await, Receipt::Refused { .. }));
        assert!(!state.file().exists());
    }
}
