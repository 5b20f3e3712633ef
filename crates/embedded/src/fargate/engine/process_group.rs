//! A task without isolation, for everybody who is not root: a supervisor and, in a session of its own, the first
//! process with a home and a temporary directory of its own.
//!
//! The supervisor is what process 1 of a container is: every orphan of the task becomes its child
//! (PR_SET_CHILD_SUBREAPER), whatever session or group it went to. When the first process ends, or the server does,
//! it kills them until none is left, and ends with the first process's code. It is a fork of the server that never
//! calls exec: it needs nothing installed, and shares its memory with the server.

use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid, setsid};
use tempfile::TempDir;
use tokio::process::Command;

/// Tells a supervisor to kill its task; SIGTERM it hands on to the first process.
pub(super) const KILL: Signal = Signal::SIGUSR1;

/// The directories of one task, removed with it.
#[derive(Debug)]
pub(super) struct Directories(TempDir);

impl Directories {
    pub(super) fn make() -> io::Result<Directories> {
        let directories = Directories(tempfile::Builder::new().prefix("staffetta-task-").tempdir()?);
        std::fs::create_dir(directories.home())?;
        std::fs::create_dir(directories.temporary())?;
        Ok(directories)
    }

    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.0.path().join("tmp")
    }
}

/// Makes `command` start under a supervisor in `directory`.
pub(super) fn enter(command: &mut Command, directory: &Path) {
    command.current_dir(directory);
    let server = Pid::this();
    let prepare = move || {
        let mut orders = SigSet::empty();
        orders.extend([Signal::SIGCHLD, Signal::SIGTERM, KILL]);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&orders), None)?;
        setsid()?;
        prctl::set_child_subreaper(true)?;
        prctl::set_pdeathsig(KILL)?;
        if getppid() != server {
            return Err(io::ErrorKind::BrokenPipe.into()); // The server died before the kernel knew that we care.
        }
        // SAFETY: this process has one thread; both branches make only system calls on memory that they own.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => supervise(child, &orders),
            ForkResult::Child => {
                setsid()?;
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&orders), None)?;
                Ok(())
            }
        }
    };
    // SAFETY: between fork and exec only system calls; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(prepare) };
}

/// The life of a supervisor. No memory is allocated: the fork of a process with threads may hold the allocator's lock.
fn supervise(first: Pid, orders: &SigSet) -> ! {
    close_everything();
    let mut code = None;
    let mut killing = false;
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(WaitStatus::Exited(pid, status)) if pid == first => code = Some(status),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == first => code = Some(128 + signal as i32),
                Ok(_) => {}
                // No child is left. SAFETY: _exit runs nothing of the server's.
                Err(_) => unsafe { libc::_exit(code.unwrap_or(128 + Signal::SIGKILL as i32)) },
            }
        }
        if killing || code.is_some() {
            // Each death hands us its orphans and wakes us again.
            kill_children();
        }
        match orders.wait() {
            Ok(Signal::SIGTERM) if code.is_none() => _ = kill(first, Signal::SIGTERM),
            Ok(KILL) => killing = true,
            _ => {}
        }
    }
}

/// `spawn` waits until nobody holds its error pipe any more, and the task's log ends with its last writer.
fn close_everything() {
    // SAFETY: closes descriptors of this process, none of which is used again.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) != 0 {
            (0..65_536).for_each(|descriptor| _ = libc::close(descriptor));
        }
    }
}

fn kill_children() {
    let mut list = MaybeUninit::<[u8; 4096]>::uninit();
    // SAFETY: system calls on a buffer of our own; `length` bytes of it were written by read(2).
    let list = unsafe {
        let file = libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY);
        let length = libc::read(file, list.as_mut_ptr().cast(), 4096);
        libc::close(file);
        ptr::slice_from_raw_parts(list.as_ptr().cast::<u8>(), usize::try_from(length).unwrap_or(0)).as_ref()
    };
    for pid in pids(list.unwrap_or_default()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The numbers of a list that each end with a space; a last one that the buffer cut off is left for the next time.
fn pids(list: &[u8]) -> impl Iterator<Item = i32> + '_ {
    let mut number = 0;
    list.iter().filter_map(move |byte| match byte {
        b'0'..=b'9' => {
            number = number * 10 + i32::from(byte - b'0');
            None
        }
        _ => Some(std::mem::take(&mut number)).filter(|pid| *pid > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_cut_off_is_no_process() {
        assert_eq!(pids(b"12 345 6").collect::<Vec<_>>(), [12, 345]);
        assert_eq!(pids(b"").count(), 0);
    }
}
