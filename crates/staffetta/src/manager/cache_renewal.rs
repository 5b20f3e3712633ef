//! Signatures end with the keys that made them, and the manager's keys may be those of a role: shorter than a job. Its
//! caches are signed anew in time, and the agent is told.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use job::hand_over::AddressesReceipt;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::cache::Wanted;
use super::errand::GRACE;
use super::supervise::Supervised;

/// So long before the end of the signatures, unless they have less than twice that.
const MARGIN: Duration = Duration::from_secs(10 * 60);
/// Between two renewals, and after one that failed.
const SHORTEST: Duration = Duration::from_secs(5);
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What must be signed again, and by when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    pub wanted: Wanted,
    /// The end of the signatures of the hand-over.
    pub until: SystemTime,
}

impl Supervised {
    /// Renews the job's caches for as long as it is polled; a manager that is gone is followed by one that goes on.
    pub(super) async fn caches_stay_signed(&self) -> Infallible {
        let Some(renewal) = &self.renewal else { return std::future::pending().await };
        let mut until = renewal.until;
        loop {
            tokio::time::sleep(pause(until.duration_since(SystemTime::now()).unwrap_or_default())).await;
            match Box::pin(self.sign_again(renewal)).await {
                Ok(Some(fresh)) => until = fresh,
                Ok(None) => return std::future::pending().await,
                Err(reason) => {
                    warn!(job = %self.access.id, reason, "cannot renew the addresses of a job's caches; trying again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Until when the fresh ones hold; none where no others are needed.
    async fn sign_again(&self, renewal: &Renewal) -> Result<Option<SystemTime>, String> {
        let left = self.deadline.saturating_duration_since(Instant::now() + GRACE);
        let Some(store) = self.runner.caches.as_ref().filter(|_| !left.is_zero()) else { return Ok(None) };
        let signers = store.signers(&renewal.wanted).await.map_err(|error| error.to_string())?;
        let now = SystemTime::now();
        let (caches, until) = store.sign(&renewal.wanted, &signers, now, left);
        let connection = self.connect().await.ok_or("the task does not let us in")?;
        match connection.renew_caches(&caches).await.map_err(|error| error.to_string())? {
            AddressesReceipt::Taken => {
                debug!(job = %self.access.id, "renewed the addresses of a job's caches");
                Ok((until < now + left).then_some(until))
            }
            AddressesReceipt::NoJob => Ok(None),
        }
    }
}

fn pause(left: Duration) -> Duration {
    (left - MARGIN.min(left / 2)).max(SHORTEST)
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    pub fn renewal() -> Renewal {
        let wanted = json!({
            "folder": "runner/abc/project/7",
            "objects": {"main": {"read": true, "save": "main"}},
        });
        let wanted = serde_json::from_value(wanted).expect("what is wanted");
        Renewal { wanted, until: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) }
    }

    #[test]
    fn signatures_are_renewed_before_they_end_and_never_without_a_pause() {
        let seconds = |left| pause(Duration::from_secs(left)).as_secs();
        assert_eq!((seconds(3600), seconds(900), seconds(20), seconds(6), seconds(0)), (3000, 450, 10, 5, 5));
    }
}
