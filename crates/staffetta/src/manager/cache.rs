//! The caches of a job: the manager signs an address for each object that the job may touch, right before the hand-over. The
//! agent never has a credential.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws::fargate::Fargate;
use aws::s3::{Bucket, SignError, Signers};
use job::cache::{Access, Folder, objects};
use job::hand_over::{ObjectAddresses, RemoteCaches};
use job::payload::Payload;
use job::variables::Variables;
use serde::{Deserialize, Serialize};
use ssh::keys::Nonce;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::cache_renewal::Renewal;
use super::cache_seal::seal;
use super::errand::{End, Errand};
use super::runner::Runner;
use crate::config;

/// A job that is about to end is handed over all the same, and its signatures must not have ended before.
const SHORTEST: Duration = Duration::from_secs(60);

/// A runner's store of caches.
pub struct CacheStore {
    bucket: Bucket,
    settings: config::Cache,
}

/// The objects that the caches of one job may touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    folder: Folder,
    objects: BTreeMap<String, Access>,
}

/// Signatures that are being prepared while the job waits for its task.
pub struct Signing {
    wanted: Wanted,
    signers: AbortOnDropHandle<Result<Signers, SignError>>,
}

impl CacheStore {
    /// Nothing is sent yet. None where the runner has none.
    pub async fn connect(runner: &config::Runner, fargate: &Fargate) -> Option<Arc<Self>> {
        let settings = runner.cache.clone()?;
        Some(Arc::new(Self { bucket: Bucket::connect(settings.s3.clone(), fargate.role_keys()).await, settings }))
    }

    pub async fn signers(&self, wanted: &Wanted) -> Result<Signers, SignError> {
        self.bucket.signers(wanted.folder.as_str()).await
    }

    /// Addresses for `valid`, or for as long as the keys live: also answers until when.
    pub fn sign(
        &self,
        wanted: &Wanted,
        signers: &Signers,
        now: SystemTime,
        valid: Duration,
    ) -> (RemoteCaches, SystemTime) {
        let Signers { read, write } = signers;
        let addresses = wanted.objects.iter().map(|(name, access)| {
            let object = wanted.folder.object(name);
            let save = access.save.as_ref();
            let addresses = ObjectAddresses {
                get: access.read.then(|| read.get(&object, now, valid)).flatten(),
                head: read.head(&object, now, valid),
                put: save.and_then(|key| write.put(&object, key, now, valid)),
            };
            (name.clone(), addresses)
        });
        let max_archive_size = self.settings.max_archive_size;
        let caches = RemoteCaches { objects: addresses.collect(), max_archive_size, renewal: None };
        (caches, read.valid_until(now, valid).min(write.valid_until(now, valid)))
    }
}

impl Wanted {
    /// None where there is nothing to sign.
    pub fn of(runner: &Runner, payload: &Payload, variables: &Variables) -> Option<Self> {
        let settings = &runner.caches.as_ref()?.settings;
        let objects = objects(payload, variables);
        let of_runner = (!settings.shared).then_some(&runner.short_token);
        let folder = Folder::new(&settings.path, of_runner, payload.job_info.project_id);
        (!objects.is_empty()).then_some(Self { folder, objects })
    }
}

impl Signing {
    /// The keys are fetched at the same time as the task starts: a role costs a call.
    pub fn begin(runner: &Runner, wanted: Option<&Wanted>) -> Option<Self> {
        let (store, wanted) = (runner.caches.clone()?, wanted?.clone());
        let for_keys = wanted.clone();
        let signers = AbortOnDropHandle::new(tokio::spawn(async move { store.signers(&for_keys).await }));
        Some(Self { wanted, signers })
    }

    /// What the agent gets, and what is needed to give it more where that does not hold until the job's end. A job whose
    /// caches cannot be signed runs without them.
    pub async fn end(
        self,
        errand: &mut Errand<'_>,
        nonce: &Nonce,
    ) -> Result<Option<(RemoteCaches, Option<Renewal>)>, End> {
        let signers = tokio::select! {
            signers = self.signers => signers,
            end = errand.ended() => return Err(end),
        };
        let signers = match signers {
            Ok(Ok(signers)) => signers,
            Ok(Err(error)) => {
                warn!(runner = %errand.runner.settings.name, %error, "a job gets no cache");
                errand.log.warn(&format!("{error}. The job runs without its cache."));
                return Ok(None);
            }
            Err(panicked) => {
                warn!(runner = %errand.runner.settings.name, %panicked, "a job gets no cache");
                errand.log.warn("Signing the addresses of the cache failed. The job runs without its cache.");
                return Ok(None);
            }
        };
        let left = errand.interrupts.deadline.saturating_duration_since(Instant::now()).max(SHORTEST);
        let now = SystemTime::now();
        let Some(store) = &errand.runner.caches else { return Ok(None) };
        let (mut caches, until) = store.sign(&self.wanted, &signers, now, left);
        if until >= now + left {
            return Ok(Some((caches, None)));
        }
        let renewal = Renewal { wanted: self.wanted, until };
        caches.renewal = seal(&errand.runner.settings.token, nonce, &renewal);
        Ok(Some((caches, Some(renewal))))
    }
}
