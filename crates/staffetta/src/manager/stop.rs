//! Stopping is not cancelling: what a signal means for polls, for launches and for running jobs.

use std::time::Instant;

use tokio::sync::watch;

/// How far the manager is with stopping. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    No,
    /// SIGQUIT: ask for no more jobs, wait for those there are, without limit.
    Drain,
    /// SIGTERM, SIGINT: ask for no more jobs, finish the hand-overs under way, leave running jobs to their agents.
    Leave {
        by: Instant,
    },
    /// A second signal: end every task.
    Cancel,
}

impl Stop {
    /// What the state becomes when SIGTERM or SIGINT arrives: the second one cancels.
    pub fn on_terminate(self, by: Instant) -> Self {
        match self {
            Self::No | Self::Drain => Self::Leave { by },
            Self::Leave { .. } | Self::Cancel => Self::Cancel,
        }
    }

    /// What the state becomes when SIGQUIT arrives.
    pub fn on_quit(self) -> Self {
        match self {
            Self::No => Self::Drain,
            other => other,
        }
    }

    pub fn asks_for_jobs(self) -> bool {
        self == Self::No
    }
}

/// Resolves when jobs that are not handed over yet must be given up.
pub async fn give_up_launches(stop: &mut watch::Receiver<Stop>) -> Stop {
    loop {
        let state = *stop.borrow_and_update();
        let changed = match state {
            Stop::No | Stop::Drain => stop.changed().await,
            Stop::Leave { by } => match tokio::time::timeout_at(by.into(), stop.changed()).await {
                Ok(changed) => changed,
                Err(_elapsed) => return state,
            },
            Stop::Cancel => return state,
        };
        if changed.is_err() {
            // The manager itself is gone: nobody will ever say more.
            return Stop::Cancel;
        }
    }
}

/// Resolves when the tasks of running jobs must end.
pub async fn cancelled(stop: &mut watch::Receiver<Stop>) {
    if stop.wait_for(|state| *state == Stop::Cancel).await.is_err() {
        // Nobody is left to say it: the jobs are their agents'.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_cancels_and_nothing_goes_back() {
        let by = Instant::now();
        assert_eq!(Stop::No.on_terminate(by), Stop::Leave { by });
        assert_eq!(Stop::Drain.on_terminate(by), Stop::Leave { by });
        assert_eq!(Stop::Leave { by }.on_terminate(by), Stop::Cancel);
        assert_eq!(Stop::Leave { by }.on_quit(), Stop::Leave { by });
        assert_eq!(Stop::No.on_quit(), Stop::Drain);
    }
}
