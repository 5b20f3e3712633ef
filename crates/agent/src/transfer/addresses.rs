//! The addresses of a job's caches: those of its hand-over, until a manager sends fresh ones.

use std::fs;
use std::path::{Path, PathBuf};

use job::hand_over::RemoteCaches;
use tokio::sync::watch;

/// More than any hand-over has; the job's own code may have written the file.
const MOST: u64 = ssh::protocol::MESSAGE_LIMIT;

/// How fresh addresses come here while the job runs.
#[derive(Debug)]
pub enum Renewals {
    None,
    /// This process is the SSH server.
    Told(watch::Receiver<Option<RemoteCaches>>),
    /// Beside OpenSSH: another process of ours writes this file.
    Written(PathBuf),
}

#[derive(Debug)]
pub struct CacheAddresses {
    handed_over: Option<RemoteCaches>,
    renewals: Renewals,
}

impl CacheAddresses {
    pub fn new(handed_over: Option<RemoteCaches>, renewals: Renewals) -> Self {
        Self { handed_over, renewals }
    }

    /// To be asked anew before each use: signatures end. None: the runner has no store for caches.
    pub fn newest(&self) -> Option<RemoteCaches> {
        let renewed = match &self.renewals {
            Renewals::None => None,
            Renewals::Told(told) => told.borrow().clone(),
            Renewals::Written(file) => read(file),
        };
        renewed.or_else(|| self.handed_over.clone())
    }
}

fn read(file: &Path) -> Option<RemoteCaches> {
    let found = fs::symlink_metadata(file).ok()?;
    if !found.is_file() || found.len() > MOST {
        return None;
    }
    let read = fs::read(file).map_err(|error| error.to_string());
    let parsed = read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
    parsed.inspect_err(|error| tracing::warn!(error, "fresh addresses of caches cannot be read")).ok()
}
