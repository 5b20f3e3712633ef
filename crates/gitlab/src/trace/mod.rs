//! One job's trace on its way to GitLab, whatever happens to the network in between.

mod report;
mod sending;
mod spool;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use job::hand_over::TraceSoFar;
use job::ids::JobId;
use job::secret::SecretString;
use job::trace::{Pipeline, Stream, TraceSettings};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use report::{ReportError, Reported};
use spool::Spool;

use crate::client::Client;
use crate::update::{Signal, TraceOutput};

/// Until GitLab says otherwise.
const FIRST_INTERVAL: Duration = Duration::from_secs(3);
/// How long a hand-over waits for a request under way; the next holder learns of its effect by a 416.
const SUSPEND_PATIENCE: Duration = Duration::from_secs(1);

/// The job and the key to it.
#[derive(Debug, Clone)]
pub struct JobAccess {
    pub id: JobId,
    pub token: SecretString,
}

/// A job's trace: takes bytes at any speed, sends them in the background, and carries GitLab's
/// wishes back. A clone writes to the same trace; sending ends with the last clone.
#[derive(Clone)]
pub struct JobTrace {
    shared: Arc<Shared>,
    background: Arc<Background>,
}

struct Shared {
    client: Client,
    job: JobAccess,
    debug_trace: bool,
    buffer: Mutex<Buffer>,
    written: Notify,
    signal: watch::Sender<Signal>,
}

struct Background {
    stop: CancellationToken,
    _stop_with_the_last_clone: DropGuard,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What was written and how much of it GitLab has.
struct Buffer {
    pipeline: Pipeline,
    spool: Spool,
    scratch: Vec<u8>,
    /// Bytes that GitLab holds; may be more than there are if somebody else wrote.
    sent: u64,
    interval: Duration,
    /// Something was written since unfinished lines were last let out.
    touched: bool,
    closed: bool,
}

impl Buffer {
    /// Runs one step of the pipeline and keeps what comes out.
    fn keep(&mut self, step: impl FnOnce(&mut Pipeline, &mut Vec<u8>)) {
        step(&mut self.pipeline, &mut self.scratch);
        self.spool.append(&self.scratch);
        self.scratch.clear();
    }

    fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.keep(|pipeline, out| pipeline.finish(SystemTime::now(), out));
        }
    }
}

impl Shared {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self) -> TraceOutput {
        let buffer = self.buffer();
        TraceOutput { crc32: buffer.spool.crc32(), bytes: buffer.spool.len() }
    }

    /// What every answer may carry.
    fn obey(&self, signal: Signal, interval: Option<Duration>) {
        if let Some(interval) = interval {
            self.buffer().interval = interval;
        }
        self.signal.send_if_modified(|current| {
            let rises = signal > *current;
            *current = signal.max(*current);
            rises
        });
    }

    fn aborted(&self) -> bool {
        *self.signal.borrow() == Signal::Abort
    }
}

impl JobTrace {
    /// Starts sending. `so_far` is what an earlier holder of the job wrote, or the default.
    /// Must be called within a tokio runtime.
    pub fn start(
        client: Client,
        job: JobAccess,
        settings: &TraceSettings,
        so_far: TraceSoFar,
        debug_trace: bool,
    ) -> Self {
        let mut spool = Spool::new();
        spool.append(so_far.text.as_bytes());
        let interval = match so_far.interval_seconds {
            0 => FIRST_INTERVAL,
            seconds => Duration::from_secs(seconds),
        };
        let buffer = Buffer {
            pipeline: Pipeline::new(settings, spool.len()),
            spool,
            scratch: Vec::new(),
            sent: so_far.sent,
            interval,
            touched: false,
            closed: false,
        };
        let shared = Arc::new(Shared {
            client,
            job,
            debug_trace,
            buffer: Mutex::new(buffer),
            written: Notify::new(),
            signal: watch::Sender::new(Signal::Run),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(sending::run(shared.clone(), stop.clone()));
        let background =
            Background { _stop_with_the_last_clone: stop.clone().drop_guard(), stop, task: Mutex::new(Some(task)) };
        Self { shared, background: Arc::new(background) }
    }

    /// Takes bytes of any kind; never waits for the network. After [`Self::suspend`] or
    /// [`Self::finish`] they are dropped.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut buffer = self.shared.buffer();
        if buffer.closed {
            return;
        }
        buffer.keep(|pipeline, out| pipeline.write(stream, bytes, SystemTime::now(), out));
        buffer.touched = true;
        drop(buffer);
        self.shared.written.notify_one();
    }

    /// One of the runner's own lines, made by [`job::trace::line`].
    pub fn line(&self, line: &str) {
        self.write(Stream::Runner, line.as_bytes());
    }

    /// What is written from here on follows other settings: there may be more to mask than when the trace began.
    pub fn follow(&self, settings: &TraceSettings) {
        let mut buffer = self.shared.buffer();
        if !buffer.closed {
            buffer.keep(|pipeline, out| pipeline.finish(SystemTime::now(), out));
            buffer.pipeline = Pipeline::new(settings, buffer.spool.len());
        }
    }

    /// What GitLab wants, as it changes.
    pub fn signal(&self) -> watch::Receiver<Signal> {
        self.shared.signal.subscribe()
    }

    /// Stops sending and gives the trace to the next holder, with what was not sent yet: that is
    /// quicker for the job than sending it first.
    pub async fn suspend(&self) -> TraceSoFar {
        self.shared.buffer().close();
        self.stop_sending(SUSPEND_PATIENCE).await;
        let buffer = self.shared.buffer();
        let mut text = Vec::new();
        while let Ok(bytes) = buffer.spool.read(text.len() as u64, usize::MAX)
            && !bytes.is_empty()
        {
            text.extend_from_slice(&bytes);
        }
        TraceSoFar {
            text: String::from_utf8_lossy(&text).into_owned(),
            sent: buffer.sent,
            interval_seconds: buffer.interval.as_secs(),
        }
    }

    /// Lets a request under way end, but not for longer than `patience`.
    async fn stop_sending(&self, patience: Duration) {
        self.background.stop.cancel();
        let task = self.background.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(patience, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}
