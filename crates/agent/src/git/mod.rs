//! Git without git: clone and checkout for images that have none (protocol 7.3).
//!
//! It speaks version 2 of Git's protocol by itself, which for one fetch without history of its own is two requests
//! ([`fetch`]); packs, trees and files are gitoxide's business ([`store`], [`checkout`]). The repository is always made
//! anew, so there is nothing to negotiate, and a shallow one never has to be deepened.

mod checkout;
mod fetch;
mod packets;
mod refspecs;
mod store;
mod untracked;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

pub use checkout::checkout;
pub use fetch::fetch;
use job::payload::GitInfo;
pub use untracked::untracked;

/// What is to be fetched, and where to.
#[derive(Clone)]
pub struct Sources {
    pub project: PathBuf,
    /// For `.git/config`, beside what every repository has there: no credentials.
    pub settings: String,
    pub refspecs: Vec<String>,
    /// Commits of history; 0 is all.
    pub depth: u32,
    /// `sha1` or `sha256`.
    pub object_format: String,
}

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error(transparent)]
    Call(#[from] gitlab::CallError),
    /// What the server says to the person who reads the log.
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("couldn't find remote ref {0}")]
    NoSuchReference(String),
    #[error("reference is not a tree: {0}")]
    NoSuchCommit(String),
    #[error("the server does not speak version 2 of Git's protocol: {0}")]
    Protocol(String),
    #[error("cannot write the repository: {0}")]
    Disk(#[from] io::Error),
    #[error(
        "this image has no git, and without it no file of the repository, in any commit that is fetched, may be larger than \
         {limit} MiB: add the package git to the image",
        limit = store::LARGEST >> 20
    )]
    TooLarge,
    /// A pack, an object or a tree that is none, or one that would write outside of the project.
    #[error("{0}")]
    Broken(String),
}

/// An error of gitoxide with its causes.
fn broken<E: std::error::Error>(what: &str) -> impl Fn(E) -> GitError + '_ {
    move |error| {
        let mut text = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        GitError::Broken(text)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    crate::blocking::blocking(work).await.unwrap_or_else(|error| Err(GitError::Broken(error.to_string())))
}

/// `sha1` or `sha256`: how the job's repository names its objects.
pub fn object_format(git: &GitInfo) -> String {
    if git.repo_object_format.is_empty() { "sha1".into() } else { git.repo_object_format.clone() }
}
