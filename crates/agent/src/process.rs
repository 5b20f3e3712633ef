//! One process of a job and everything that it starts: a process group that ends with its first process.

use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use job::trace::Stream;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use crate::stop::Stop;

/// What a pipe of Linux holds; one read empties it.
const CHUNK: usize = 64 * 1024;
/// Between SIGTERM and SIGKILL (protocol 4.8).
const GRACE: Duration = Duration::from_secs(5);
/// How long output may still come once every process of the group is dead. Only a process that left the
/// group, and is nobody we can find, holds the pipe open longer.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With its exit code; a signal counts as 128 and its number, as in a shell.
    Exited(i32),
    /// It was ended by us.
    Stopped(Stop),
}

/// Who gets the processes whose parents died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// Somebody else; a process that leaves its group may outlive its stage.
    LeftToOthers,
    /// This process, as PID 1 or in its place: it reaps them, and ends those that are left after a stage.
    Adopted,
}

impl Orphans {
    /// Makes this process the parent of every orphan below it. Its children must all be started by [`run`].
    pub fn adopt() -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Self::Adopted)
    }
}

/// Runs a command to its end, or until `stop` completes, and passes on what it prints. Its standard input
/// is empty unless the caller gave one. When this returns, nothing that it started is alive any more.
pub async fn run(
    command: &mut Command,
    orphans: Orphans,
    mut output: impl FnMut(Stream, &[u8]),
    stop: impl Future<Output = Stop>,
) -> io::Result<Ended> {
    let mut dying = signal(SignalKind::child())?;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let leader = Pid::from_raw(child.id().expect("not waited for yet").cast_signed());
    let _group = Group(leader);
    let (mut out, mut err) = (Pipe::new(child.stdout.take()), Pipe::new(child.stderr.take()));

    let mut stop = pin!(stop);
    let mut stopped = None;
    let mut exited = None;
    let mut deadline = pin!(sleep_until(Instant::now()));

    while exited.is_none() || out.open() || err.open() {
        // In this order: a process that never stops printing must not keep us from seeing anything else.
        tokio::select! {
            biased;
            reason = &mut stop, if stopped.is_none() && exited.is_none() => {
                let (signal, grace) = if reason.is_urgent() { (Signal::SIGKILL, LAST_OUTPUT) } else { (Signal::SIGTERM, GRACE) };
                stopped = Some(reason);
                signal_group(leader, signal);
                deadline.as_mut().reset(Instant::now() + grace);
            }
            () = &mut deadline, if stopped.is_some() || exited.is_some() => {
                if exited.is_some() {
                    break;
                }
                signal_group(leader, Signal::SIGKILL);
                deadline.as_mut().reset(Instant::now() + GRACE);
            }
            status = child.wait(), if exited.is_none() => {
                exited = Some(status?);
                signal_group(leader, Signal::SIGKILL);
                if orphans == Orphans::Adopted {
                    end_children().await;
                }
                deadline.as_mut().reset(Instant::now() + LAST_OUTPUT);
            }
            _ = dying.recv(), if orphans == Orphans::Adopted && exited.is_none() => reap_all_but(leader),
            read = out.read() => if let Some(bytes) = read { output(Stream::Out, bytes) },
            read = err.read() => if let Some(bytes) = read { output(Stream::Err, bytes) },
        }
    }
    Ok(match (stopped, exited) {
        (Some(stop), _) => Ended::Stopped(stop),
        (None, status) => Ended::Exited(exit_code(status.expect("the loop ends after the exit"))),
    })
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Ends the group whatever happens to the future that waits for it.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        signal_group(self.0, Signal::SIGKILL);
    }
}

fn signal_group(group: Pid, signal: Signal) {
    // An error means that nobody is left in the group.
    let _ = killpg(group, signal);
}

/// Reaps the orphans that died, but leaves `leader` to the one who waits for it.
fn reap_all_but(leader: Pid) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, look) {
        match status.pid() {
            Some(pid) if pid != leader => drop(waitpid(pid, Some(WaitPidFlag::WNOHANG))),
            _ => return,
        }
    }
}

/// Ends every process that is our child now, and those that become it while their parents die.
pub async fn end_children() {
    let until = Instant::now() + LAST_OUTPUT;
    while Instant::now() < until {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        // A killed process needs a moment to die; there is no event for "the last one has".
        sleep(Duration::from_millis(1)).await;
    }
}

fn children() -> Vec<Pid> {
    let this = nix::unistd::getpid().as_raw();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| crate::proc::stat(*pid).is_some_and(|stat| stat.parent == this)).map(Pid::from_raw).collect()
}

/// The reading end of an output, until its end.
struct Pipe<R> {
    reader: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(reader: Option<R>) -> Self {
        Self { reader, buffer: vec![0; CHUNK] }
    }

    fn open(&self) -> bool {
        self.reader.is_some()
    }

    /// `None` at the end, which comes once; after it this never completes.
    async fn read(&mut self) -> Option<&[u8]> {
        let Some(reader) = &mut self.reader else { return std::future::pending().await };
        match reader.read(&mut self.buffer).await {
            Ok(length) if length > 0 => Some(&self.buffer[..length]),
            _ => {
                self.reader = None;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    async fn run_to_end(script: &str) -> (Ended, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let sink = |stream, bytes: &[u8]| match stream {
            Stream::Err => err.extend_from_slice(bytes),
            _ => out.extend_from_slice(bytes),
        };
        let ended =
            run(&mut shell(script), Orphans::LeftToOthers, sink, std::future::pending()).await.expect("a shell");
        (ended, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    }

    /// Runs until the script has printed `ready`, then stops it.
    async fn stop_when_ready(script: &str, stop: Stop) -> (Ended, String) {
        let ready = tokio::sync::Notify::new();
        let mut out = Vec::new();
        let sink = |_, bytes: &[u8]| {
            out.extend_from_slice(bytes);
            if out.starts_with(b"ready\n") {
                ready.notify_one();
            }
        };
        let when_ready = async {
            ready.notified().await;
            stop
        };
        let ended = run(&mut shell(script), Orphans::LeftToOthers, sink, when_ready).await.expect("a shell");
        (ended, String::from_utf8(out).expect("text"))
    }

    #[tokio::test]
    async fn output_and_exit_code_arrive_whole() {
        let (ended, out, err) = run_to_end("echo out; echo err >&2; exit 7").await;
        assert_eq!((ended, out.as_str(), err.as_str()), (Ended::Exited(7), "out\n", "err\n"));
        let (ended, out, _) = run_to_end("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done").await;
        assert_eq!((ended, out.len()), (Ended::Exited(0), 220_000));
    }

    #[tokio::test]
    async fn a_process_ended_by_a_signal_has_the_exit_code_of_a_shell() {
        assert_eq!(run_to_end("kill -9 $$").await.0, Ended::Exited(137));
    }

    #[tokio::test]
    async fn standard_input_is_empty() {
        assert_eq!(run_to_end("cat; echo end").await.1, "end\n");
    }

    #[tokio::test]
    async fn children_in_the_background_end_with_their_parent() {
        // The sleeper holds the pipe open; waiting for it would take a minute.
        let started = Instant::now();
        let (ended, out, _) = run_to_end("sleep 60 & echo $!").await;
        assert_eq!(ended, Ended::Exited(0));
        let sleeper: i32 = out.trim().parse().expect("a pid");
        // It has been killed; the kernel may need a moment more.
        while crate::proc::stat(sleeper).is_some_and(|stat| stat.state != 'Z') {
            assert!(started.elapsed() < Duration::from_secs(30), "it is still alive");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_stopped_process_may_say_goodbye() {
        let script = "trap 'echo goodbye; exit 3' TERM; echo ready; sleep 60 & wait";
        let (ended, out) = stop_when_ready(script, Stop::Canceled).await;
        assert_eq!((ended, out.as_str()), (Ended::Stopped(Stop::Canceled), "ready\ngoodbye\n"));
    }

    #[tokio::test]
    async fn an_urgent_stop_asks_nobody() {
        let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
        let (ended, _) = stop_when_ready(script, Stop::Terminated).await;
        assert_eq!(ended, Ended::Stopped(Stop::Terminated));
    }

    #[tokio::test]
    async fn a_process_that_never_stops_printing_can_be_stopped() {
        let (ended, _) = stop_when_ready("echo ready; while :; do echo x; done", Stop::Terminated).await;
        assert_eq!(ended, Ended::Stopped(Stop::Terminated));
    }
}
