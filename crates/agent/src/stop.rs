//! What may end a stage before its time.

use std::future::pending;

use gitlab::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A person cancelled the job; it may still clean up.
    Canceled,
    /// The job is over for GitLab: nothing more may be done or said.
    Aborted,
    JobTimedOut,
    /// `RUNNER_SCRIPT_TIMEOUT` or `RUNNER_AFTER_SCRIPT_TIMEOUT`.
    StageTimedOut,
    /// `get_sources_timeout` of the runner.
    SourcesTimedOut,
    /// The task is being stopped (SIGTERM); ECS kills it after 30 seconds.
    Terminated,
}

impl Stop {
    /// There is no time to ask a process to end.
    pub fn is_urgent(self) -> bool {
        matches!(self, Self::Terminated)
    }

    /// Whether no further stage may run. A cancelled script still gets its after_script (protocol 4.8).
    pub fn ends_the_job(self) -> bool {
        matches!(self, Self::Aborted | Self::JobTimedOut | Self::SourcesTimedOut | Self::Terminated)
    }
}

/// Everybody who can stop a job.
#[derive(Clone)]
pub struct Stops {
    pub gitlab: watch::Receiver<Signal>,
    pub terminated: watch::Receiver<bool>,
    /// When the job's own time is over.
    pub deadline: Instant,
}

/// What one stage listens to, beside what ends every job.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// A cancel is heard once: before and during the script, never after it.
    pub deaf_to_cancel: bool,
    pub until: Option<Instant>,
}

impl Stops {
    /// Completes when the stage must end.
    pub async fn stopped(&self, limits: Limits) -> Stop {
        let (mut gitlab, mut terminated) = (self.gitlab.clone(), self.terminated.clone());
        let wanted = |signal: &Signal| match signal {
            Signal::Run => false,
            Signal::Cancel => !limits.deaf_to_cancel,
            Signal::Abort => true,
        };
        let by_gitlab = async {
            // Copied before anything else is awaited: the value is borrowed from the channel.
            let signal = gitlab.wait_for(wanted).await.map(|signal| *signal);
            match signal {
                Ok(Signal::Abort) => Stop::Aborted,
                Ok(_) => Stop::Canceled,
                Err(_) => pending().await,
            }
        };
        let by_the_task = async {
            if terminated.wait_for(|terminated| *terminated).await.is_err() {
                pending::<()>().await;
            }
        };
        let stage_over = async {
            match limits.until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = by_the_task => Stop::Terminated,
            stop = by_gitlab => stop,
            () = sleep_until(self.deadline) => Stop::JobTimedOut,
            () = stage_over => Stop::StageTimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct World {
        gitlab: watch::Sender<Signal>,
        terminated: watch::Sender<bool>,
        stops: Stops,
    }

    fn world(seconds: u64) -> World {
        let (gitlab, wishes) = watch::channel(Signal::Run);
        let (terminated, ended) = watch::channel(false);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        World { gitlab, terminated, stops: Stops { gitlab: wishes, terminated: ended, deadline } }
    }

    #[tokio::test]
    async fn a_deaf_stage_hears_an_abort_but_no_cancel() {
        let world = world(3600);
        world.gitlab.send(Signal::Cancel).expect("a listener");
        assert_eq!(world.stops.stopped(Limits::default()).await, Stop::Canceled);
        let deaf = Limits { deaf_to_cancel: true, until: Some(Instant::now()) };
        assert_eq!(world.stops.stopped(deaf).await, Stop::StageTimedOut);
        world.gitlab.send(Signal::Abort).expect("a listener");
        assert_eq!(world.stops.stopped(deaf).await, Stop::Aborted);
    }

    #[tokio::test]
    async fn the_end_of_the_task_comes_before_everything_else() {
        let world = world(0);
        world.gitlab.send(Signal::Abort).expect("a listener");
        world.terminated.send(true).expect("a listener");
        assert_eq!(world.stops.stopped(Limits::default()).await, Stop::Terminated);
    }

    #[tokio::test]
    async fn a_job_without_time_left_is_over_even_if_nobody_can_stop_it_any_more() {
        let World { stops, .. } = world(0);
        assert_eq!(stops.stopped(Limits::default()).await, Stop::JobTimedOut);
    }
}
