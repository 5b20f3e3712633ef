//! The container around an agent that came in through OpenSSH: what sshd hides from it, and how it ends.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::str::FromStr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::proc;

/// One process for ever: pids are used again, start times are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Process {
    pub pid: i32,
    pub started: u64,
}

impl Process {
    pub fn find(pid: i32) -> Option<Self> {
        proc::stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    pub fn is_alive(self) -> bool {
        proc::stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }
}

/// As it stands on a command line.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.started)
    }
}

impl FromStr for Process {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not PID:START");
        let (pid, started) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { pid: pid.parse().map_err(|_| wrong())?, started: started.parse().map_err(|_| wrong())? })
    }
}

/// The sshd that let us in: the last of the unbroken line of sshd processes among our ancestors. Further up
/// may be another one, by which somebody reached the machine; it is none of our business.
pub fn sshd() -> Option<Process> {
    let is_sshd = |stat: &proc::Stat| stat.name.starts_with("sshd");
    let line: Vec<_> = ancestors(std::process::id().cast_signed()).collect();
    let sessions = line.iter().skip_while(|(_, stat)| !is_sshd(stat)).take_while(|(_, stat)| is_sshd(stat));
    sessions.last().map(|(pid, stat)| Process { pid: *pid, started: stat.started })
}

/// From the parent upwards.
fn ancestors(pid: i32) -> impl Iterator<Item = (i32, proc::Stat)> {
    let parent = |pid: i32| {
        let parent = proc::stat(pid)?.parent;
        Some((parent, proc::stat(parent)?))
    };
    std::iter::successors(parent(pid), move |(pid, _)| parent(*pid))
}

/// Ends the container whose server `sshd` is, and says whether nobody can come in any more. If sshd is not
/// the first process itself, the first one waits for it.
pub fn end(sshd: Process) -> bool {
    let same = proc::stat(sshd.pid).is_some_and(|stat| stat.started == sshd.started && stat.name.starts_with("sshd"));
    if !same {
        return true;
    }
    match kill(Pid::from_raw(sshd.pid), Signal::SIGTERM) {
        Ok(()) => true,
        Err(error) => {
            // The manager sees that the job is over, and stops the task.
            tracing::warn!(pid = sshd.pid, %error, "cannot end the container");
            false
        }
    }
}

/// What ECS gave to the container and sshd did not pass on: without it a job cannot use its task role. Only
/// from processes that the manager's names show to be the container's: where a task is not isolated, the
/// credentials of whoever started everything stand further up.
pub fn hidden_environment(sshd: Process) -> Vec<(OsString, OsString)> {
    let above = ancestors(sshd.pid).map(|(pid, _)| pid);
    let mut environment: Vec<(OsString, OsString)> = Vec::new();
    for pid in [sshd.pid].into_iter().chain(above) {
        let Ok(bytes) = std::fs::read(format!("/proc/{pid}/environ")) else { continue };
        for (key, value) in from_ecs(&bytes) {
            if std::env::var_os(&key).is_none() && environment.iter().all(|(known, _)| *known != key) {
                environment.push((key, value));
            }
        }
    }
    environment
}

fn from_ecs(environ: &[u8]) -> impl Iterator<Item = (OsString, OsString)> {
    let of_the_task =
        |entry: &[u8]| entry.strip_prefix(job::task::JOB.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    let environ = if environ.split(|byte| *byte == 0).any(of_the_task) { environ } else { &[] };
    let root = format!("{}=", job::task::ROOT);
    let wanted: [&[u8]; 3] = [b"AWS_", b"ECS_", root.as_bytes()];
    let ours = |entry: &&[u8]| wanted.iter().any(|prefix| entry.starts_with(prefix));
    let entries: Vec<&[u8]> = environ.split(|byte| *byte == 0).filter(ours).collect();
    entries.into_iter().filter_map(|entry| {
        let equals = entry.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(entry[..equals].to_vec()), OsString::from_vec(entry[equals + 1..].to_vec())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let this = Process::find(std::process::id().cast_signed()).expect("this process");
        assert_eq!(this.to_string().parse(), Ok(this));
        assert!(this.is_alive());
        assert!(!Process { started: this.started + 1, ..this }.is_alive());
        assert!("12".parse::<Process>().is_err());
    }

    #[test]
    fn the_line_of_ancestors_reaches_the_first_process() {
        let line: Vec<_> = ancestors(std::process::id().cast_signed()).map(|(pid, _)| pid).collect();
        assert_eq!(line.first(), Some(&std::os::unix::process::parent_id().cast_signed()));
        assert!(line.len() < 100);
    }

    #[test]
    fn only_what_ecs_gives_is_taken_from_the_container() {
        assert_eq!(from_ecs(b"AWS_SECRET_ACCESS_KEY=of-the-developer\0").count(), 0);
        let environ = b"PATH=/bin\0STAFFETTA_JOB=7\0AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/x\0ECS_A=b=c\0AWS_broken\0SECRET=x\0";
        let taken: Vec<_> = from_ecs(environ).collect();
        assert_eq!(
            taken,
            [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI".into(), "/v2/x".into()), ("ECS_A".into(), "b=c".into())]
        );
    }
}
