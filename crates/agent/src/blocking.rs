//! Work that keeps its thread busy: files, compression, patterns. The few threads of the runtime are for those who wait: for
//! the job's output, for GitLab, for the deadline.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{JoinError, spawn_blocking};

/// Does work on a thread of its own, and tells it by the flag when nobody waits for it any more. The error is a panic.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Result<T, JoinError> {
    struct Abandoned(Arc<AtomicBool>);
    impl Drop for Abandoned {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let abandoned = Arc::new(AtomicBool::new(false));
    let _guard = Abandoned(abandoned.clone());
    spawn_blocking(move || work(&abandoned)).await
}

/// Takes no more when nobody waits for the work.
pub struct WhileWanted<'a, W> {
    pub into: W,
    pub abandoned: &'a AtomicBool,
}

impl<W: Write> Write for WhileWanted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.abandoned.load(Ordering::Relaxed) {
            true => Err(io::Error::other("nobody waits for it")),
            false => self.into.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_told_so() {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (ended, ends) = mpsc::channel();
        let work = blocking(move |abandoned| {
            begun.send(()).expect("a listener");
            while !abandoned.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            ended.send(()).expect("a listener");
        });
        tokio::select! {
            biased;
            _ = work => panic!("it never ends by itself"),
            _ = begins => {}
        }
        ends.recv_timeout(Duration::from_secs(60)).expect("an end");
    }

    #[test]
    fn an_archive_that_nobody_waits_for_is_not_written_on() {
        let abandoned = AtomicBool::new(false);
        let mut into = WhileWanted { into: Vec::new(), abandoned: &abandoned };
        into.write_all(b"part").expect("room");
        abandoned.store(true, Ordering::Relaxed);
        assert!(into.write_all(b"more").is_err() && into.into == b"part");
    }
}
