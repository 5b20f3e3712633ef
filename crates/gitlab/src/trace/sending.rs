//! The background loop (4.2): what is written goes out, and a silent job says that it lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::update::{JobState, JobUpdate, PatchResult, UpdateResult};

/// The most that one PATCH may carry.
const LARGEST_PATCH: usize = 1024 * 1024;
/// Up to this interval GitLab says that somebody watches.
const WATCHED: Duration = Duration::from_secs(3);
/// The pace for people who watch.
const LIVE: Duration = Duration::from_secs(1);
/// Lets lines that are written together go out together.
const GATHER: Duration = Duration::from_millis(50);
/// After a call that failed.
const PAUSE: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a job may be silent. Only an answer brings a cancel, so a silent job that somebody watches asks more often:
/// who presses the button waits for it.
fn keep_alive_after(interval: Duration) -> Duration {
    (4 * interval).min(KEEP_ALIVE)
}

/// The time between two PATCHes, given the interval that GitLab asked for.
fn pace(interval: Duration) -> Duration {
    if interval <= WATCHED { interval.min(LIVE) } else { interval }
}

/// Until `stop`, or until GitLab wants nothing more of the job. A request under way is always
/// completed: who cannot wait for it drops this future.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    // The first bytes go out at once, whatever the pace.
    let mut next_patch = Instant::now();
    let mut keep_alive = Instant::now() + keep_alive_after(shared.buffer().interval);
    loop {
        let pending = shared.has_news();
        let due = if pending { next_patch.max(Instant::now() + GATHER) } else { keep_alive };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.written.notified(), if !pending => continue,
            () = tokio::time::sleep_until(due) => {}
        }
        let reached = if pending { shared.send_news().await } else { shared.say_alive().await };
        if shared.aborted() {
            return;
        }
        let now = Instant::now();
        let interval = shared.buffer().interval;
        let pace = pace(interval);
        match reached {
            Reached::Yes => (next_patch, keep_alive) = (now + pace, now + keep_alive_after(interval)),
            Reached::No => (next_patch, keep_alive) = (now + pace.max(PAUSE), keep_alive.max(now + PAUSE)),
            Reached::NotTried => {}
        }
    }
}

/// Whether GitLab took what was sent.
enum Reached {
    Yes,
    No,
    NotTried,
}

/// How one PATCH changed what GitLab holds.
pub(super) enum Sent {
    /// Nothing is left before the given end.
    All,
    Some,
    /// The offset was wrong, and is right now.
    Moved,
    /// 404: not while the job runs.
    NotFound,
    Failed(String),
}

impl Shared {
    fn has_news(&self) -> bool {
        let buffer = self.buffer();
        buffer.touched || buffer.sent < buffer.spool.len()
    }

    /// Sends what is there now. What is written meanwhile waits for its turn: GitLab limits the
    /// number of calls.
    async fn send_news(&self) -> Reached {
        let end = {
            let mut buffer = self.buffer();
            buffer.touched = false;
            buffer.keep(|pipeline, out| pipeline.flush_lines(out));
            buffer.spool.len()
        };
        let mut reached = Reached::NotTried;
        let mut moved = false;
        loop {
            match self.send_once(end).await {
                Sent::All => return reached,
                Sent::Some => {}
                // Twice in a row means that somebody else writes as well: not faster than the pace.
                Sent::Moved if moved => return Reached::Yes,
                Sent::Moved => moved = true,
                Sent::NotFound => return Reached::No,
                Sent::Failed(reason) => {
                    tracing::debug!(job = %self.job.id, reason, "the trace is kept until GitLab takes it");
                    return Reached::No;
                }
            }
            reached = Reached::Yes;
        }
    }

    /// Sends the next part of what GitLab lacks before `end`.
    pub(super) async fn send_once(&self, end: u64) -> Sent {
        let (start, text) = {
            let buffer = self.buffer();
            let most = end.saturating_sub(buffer.sent).min(LARGEST_PATCH as u64) as usize;
            match buffer.spool.read(buffer.sent, most) {
                _ if most == 0 => return Sent::All,
                Ok(text) => (buffer.sent, text),
                Err(error) => return Sent::Failed(error.to_string()),
            }
        };
        let length = text.len() as u64;
        let answer = self.client.patch_trace(self.job.id, &self.job.token, start, text, self.debug_trace).await;
        self.obey(answer.signal, answer.interval);
        match answer.result {
            PatchResult::Accepted => {
                self.buffer().sent = start + length;
                if start + length == end { Sent::All } else { Sent::Some }
            }
            PatchResult::ContinueAt { at } => {
                self.buffer().sent = at;
                Sent::Moved
            }
            PatchResult::NotFound => Sent::NotFound,
            PatchResult::Forbidden => Sent::Failed("the job is not running".into()),
            PatchResult::Unavailable(reason) => Sent::Failed(reason),
        }
    }

    async fn say_alive(&self) -> Reached {
        let update = JobUpdate {
            job: self.job.id,
            token: &self.job.token,
            state: JobState::Running,
            output: Some(self.output()),
        };
        let answer = self.client.update_job(&update).await;
        self.obey(answer.signal, answer.interval);
        match answer.result {
            UpdateResult::Done => Reached::Yes,
            _ => Reached::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_see_the_trace_every_second_and_nobody_costs_nothing() {
        for (interval, expected) in [(1, 1), (2, 1), (3, 1), (4, 4), (60, 60)] {
            assert_eq!(pace(Duration::from_secs(interval)), Duration::from_secs(expected));
        }
    }
}
