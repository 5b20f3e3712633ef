//! A new token for a runner (protocol 1.3): written over the old one before anything else is done with it.

use std::path::Path;

use anyhow::{Context, anyhow};
use gitlab::{CallError, Client, Renewed};
use jiff::Timestamp;
use job::secret::SecretString;

use super::entries::{Entry, Given, replace_token};
use super::new_version::NewVersion;
use super::old_tokens;

/// Who asks GitLab for the new token.
pub enum By<'a> {
    Runner,
    /// With a personal access token; the runner's own may be lost or expired. The id is GitLab's.
    Owner {
        personal: &'a SecretString,
        id: u64,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was asked of GitLab.
    #[error(transparent)]
    NotTried(#[from] anyhow::Error),
    #[error(transparent)]
    Refused(#[from] CallError),
    /// GitLab replaced the token and the file could not be written: this is the only copy.
    #[error("the new token cannot be written: {error:#}")]
    Unwritten { given: Box<Given>, error: anyhow::Error },
}

/// Everything that can fail at no cost does so before GitLab is asked.
pub async fn renew(config_file: &Path, entry: &Entry, client: &Client, by: By<'_>) -> Result<Given, Failure> {
    if !entry.has_token_in_file() {
        let file = config_file.display();
        return Err(anyhow!("its token is not in {file} but in the environment: renew it where that is set").into());
    }
    let place = NewVersion::of(config_file)?;
    old_tokens::keep(config_file, &entry.name, &entry.token, Timestamp::now()).context("cannot keep the old token")?;
    let Renewed { token, token_expires_at } = match by {
        By::Runner => client.reset_token(&entry.token).await?,
        By::Owner { personal, id } => client.reset_token_as_owner(personal, id).await?,
    };
    let given = Given { id: None, token, obtained_at: Timestamp::now(), expires_at: token_expires_at };
    match replace_token(place, config_file, entry, &given) {
        Ok(()) => Ok(given),
        Err(error) => Err(Failure::Unwritten { given: Box::new(given), error }),
    }
}
