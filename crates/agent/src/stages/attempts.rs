//! Stages that are tried again: `GET_SOURCES_ATTEMPTS`, `RESTORE_CACHE_ATTEMPTS`, `ARTIFACT_DOWNLOAD_ATTEMPTS`.

use std::time::Duration;

use tokio::time::sleep;

use super::Failure;
use crate::run::Run;
use crate::stop::Limits;

/// Between two tries (protocol 7.3.2): the first wait, doubled each time, and its limit.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The same without `FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY`.
const SHORT_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Runs a stage, which is told its number from 1 on, until it succeeds, is stopped, or was tried so often.
pub async fn attempts<F: Future<Output = Result<(), Failure>>>(
    run: &Run,
    most: u32,
    limits: Limits,
    stage: impl Fn(u32) -> F,
) -> Result<(), Failure> {
    let exponential = run.variables.flag("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY");
    let mut attempt = 1;
    loop {
        match stage(attempt).await {
            Err(Failure::Exit(_) | Failure::System(..)) if attempt < most => {}
            result => return result,
        }
        run.unless_stopped(limits, sleep(pause_after(attempt, exponential))).await?;
        attempt += 1;
    }
}

/// The wait after a failed attempt; the first one is 1.
fn pause_after(attempt: u32, exponential: bool) -> Duration {
    let (first, longest) = if exponential { BACKOFF } else { SHORT_BACKOFF };
    first.saturating_mul(2u32.saturating_pow(attempt - 1)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_ever_further_apart_up_to_a_limit() {
        let pauses = |exponential| [1, 2, 3, 4, 7, 9].map(|attempt| pause_after(attempt, exponential).as_secs());
        assert_eq!(pauses(true), [5, 10, 20, 40, 300, 300]);
        assert_eq!(pauses(false), [1, 2, 4, 5, 5, 5]);
    }
}
