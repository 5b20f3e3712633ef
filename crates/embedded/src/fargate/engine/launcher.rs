//! The one thread that starts the first processes of all tasks.
//!
//! A process asks the kernel to be told when its parent dies (PR_SET_PDEATHSIG), so that nothing outlives a server
//! that is killed. To the kernel the parent is the thread that forked, and tokio's threads come and go: hence a thread
//! that lives exactly as long as the engine.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

#[derive(Debug)]
pub(super) struct Launcher(mpsc::Sender<Order>);

struct Order {
    command: Command,
    reply: oneshot::Sender<io::Result<(Child, pipe::Receiver)>>,
}

impl Launcher {
    /// With `new_process_namespaces` each process that is started is the first one of its own process namespace.
    pub(super) fn start(new_process_namespaces: bool) -> io::Result<Launcher> {
        let own_namespace = new_process_namespaces.then(|| File::open("/proc/self/ns/pid")).transpose()?;
        let (orders, inbox) = mpsc::channel::<Order>();
        let runtime = Handle::current();
        thread::Builder::new().name("fargate-launcher".into()).spawn(move || {
            let _context = runtime.enter();
            for Order { command, reply } in inbox {
                let started = match &own_namespace {
                    None => spawn(command),
                    Some(own) => in_new_process_namespace(own, || spawn(command)),
                };
                // Nobody waits any more: the engine is being dropped, and the child dies with this thread.
                let _ = reply.send(started);
            }
        })?;
        Ok(Launcher(orders))
    }

    /// Starts a process; what it writes to standard output and error comes out of the pipe.
    pub(super) async fn launch(&self, command: Command) -> io::Result<(Child, pipe::Receiver)> {
        let (reply, started) = oneshot::channel();
        let gone = |_| io::Error::other("the launcher thread has ended");
        self.0.send(Order { command, reply }).map_err(|_| io::Error::other("the launcher thread has ended"))?;
        started.await.map_err(gone)?
    }
}

fn spawn(mut command: Command) -> io::Result<(Child, pipe::Receiver)> {
    let (mut output, write_end) = io::pipe()?;
    command.stdin(std::process::Stdio::null()).stdout(write_end.try_clone()?).stderr(write_end);
    let started = command.spawn();
    drop(command); // holds our copies of the write end
    match started {
        Ok(child) => Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(output))?)),
        Err(error) => {
            // The child is gone, so this ends; it may have said which step failed, the error says only why.
            let mut said = String::new();
            output.read_to_string(&mut said)?;
            Err(if said.is_empty() { error } else { io::Error::new(error.kind(), format!("{said}: {error}")) })
        }
    }
}

/// `unshare` moves only the children of this thread that come afterwards; a second call is refused until the thread
/// has gone back to the namespace that it lives in itself.
fn in_new_process_namespace<T>(own: &File, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let done = act();
    setns(own, CloneFlags::CLONE_NEWPID)?;
    done
}
