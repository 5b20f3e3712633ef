//! A new token for a runner (protocol 1.3): written over the old one before anything else is done with it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use gitlab::{CallError, Client, Renewed};
use jiff::Timestamp;
use job::secret::SecretString;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use toml_edit::Table;

use super::entries::{Entry, Given, check_there, identify, replace_token};
use super::new_version::NewVersion;
use super::old_tokens;
use crate::config::owner::{folder, give_to_owner_of};

/// Locked while a token is renewed. Not the folder, as for a write: GitLab may take minutes to answer, and `register`
/// is not to wait for that.
const LOCK_FILE: &str = ".staffetta_renewal";

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
    /// GitLab replaced the token, and `config.toml` could not be written. `aside` is a file for the owner only that has
    /// the entry's new lines, if one could be written anywhere.
    #[error("the new token cannot be written: {error:#}")]
    Unwritten { given: Box<Given>, aside: Option<PathBuf>, error: anyhow::Error },
}

/// Everything that can fail at no cost does so before GitLab is asked. One renewal at a time: of two, the one that
/// writes last may have the token that GitLab replaced first.
pub async fn renew(config_file: &Path, entry: &Entry, client: &Client, by: By<'_>) -> Result<Given, Failure> {
    if !entry.has_token_in_file() {
        let file = config_file.display();
        return Err(anyhow!("its token is not in {file} but in the environment: renew it where that is set").into());
    }
    let _alone = lock(config_file)?;
    // Since the entry was read, another one may have renewed its token.
    check_there(config_file, entry)?;
    let place = NewVersion::of(config_file)?;
    old_tokens::keep(config_file, &entry.name, &entry.token, Timestamp::now()).context("cannot keep the old token")?;
    let Renewed { token, token_expires_at } = match by {
        By::Runner => client.reset_token(&entry.token).await?,
        By::Owner { personal, id } => client.reset_token_as_owner(personal, id).await?,
    };
    let given = Given { id: None, token, obtained_at: Timestamp::now(), expires_at: token_expires_at };
    match replace_token(place, config_file, entry, &given) {
        Ok(()) => Ok(given),
        Err(error) => {
            let aside = put_aside(config_file, entry, &given);
            Err(Failure::Unwritten { given: Box::new(given), aside, error })
        }
    }
}

/// Held until dropped; it ends with the process.
fn lock(config_file: &Path) -> anyhow::Result<Flock<File>> {
    let path = config_file.with_file_name(LOCK_FILE);
    let cannot_lock = || format!("cannot lock {}", path.display());
    // A link in a folder of another user must not make root open, or give away, what that user may not touch.
    let open = |options: &mut OpenOptions| options.append(true).mode(0o600).custom_flags(O_NOFOLLOW).open(&path);
    let file = match open(OpenOptions::new().create_new(true)) {
        Ok(new) => {
            give_to_owner_of(config_file, &new);
            new
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            open(&mut OpenOptions::new()).with_context(cannot_lock)?
        }
        Err(error) => return Err(error).with_context(cannot_lock),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(locked),
        Err((_, Errno::EWOULDBLOCK)) => {
            Err(anyhow!("another process renews a token in {} at this moment: try again", config_file.display()))
        }
        Err((_, error)) => Err(error).with_context(cannot_lock),
    }
}

/// Beside the configuration, else where temporary files are.
fn put_aside(config_file: &Path, entry: &Entry, given: &Given) -> Option<PathBuf> {
    let mut lines = Table::new();
    identify(&mut lines, given).ok()?;
    let text = format!("# The new lines of runner {:?} in {:?}\n{lines}", entry.name, config_file);
    [folder(config_file), &std::env::temp_dir()].into_iter().find_map(|folder| {
        // Mode 0600.
        let mut file = tempfile::Builder::new().prefix("staffetta-new-token-").tempfile_in(folder).ok()?;
        give_to_owner_of(config_file, file.as_file());
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).ok()?;
        Some(file.keep().ok()?.1)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use job::secret::ExposeSecret;

    use super::*;
    use crate::registration::entries;

    const FILE: &str = "[[runners]]\nname = \"dev\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"glrt-old\"\n";

    fn one(text: &str) -> (tempfile::TempDir, PathBuf, Entry) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        fs::write(&config, text).unwrap();
        let entry = entries::load(&config).unwrap().remove(0);
        (directory, config, entry)
    }

    async fn not_tried(config: &Path, entry: &Entry) -> String {
        let failure = renew(config, entry, &entry.client().unwrap(), By::Runner).await.unwrap_err();
        assert!(matches!(failure, Failure::NotTried(_)), "{failure}");
        failure.to_string()
    }

    #[tokio::test]
    async fn of_two_renewals_at_once_one_is_not_tried() {
        let (_directory, config, entry) = one(FILE);
        let other = lock(&config).unwrap();
        assert!(not_tried(&config, &entry).await.contains("at this moment"));
        fs::write(&config, FILE.replace("glrt-old", "glrt-new")).unwrap();
        drop(other);
        let told = not_tried(&config, &entry).await;
        assert!(told.contains("no longer in"), "the other one's token is the good one: {told}");
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_not_followed() {
        let (directory, config, _) = one(FILE);
        let other = directory.path().join("other");
        std::os::unix::fs::symlink(&other, directory.path().join(LOCK_FILE)).unwrap();
        assert!(lock(&config).is_err() && !other.exists());
        fs::write(&other, "").unwrap();
        assert!(lock(&config).is_err());
    }

    #[test]
    fn a_token_that_cannot_be_written_is_put_aside_for_its_owner_only() {
        let (directory, config, entry) = one(FILE);
        let given = Given { id: None, token: "glrt-new".into(), obtained_at: Timestamp::UNIX_EPOCH, expires_at: None };
        let aside = put_aside(&config, &entry, &given).unwrap();
        assert_eq!(aside.parent(), Some(directory.path()));
        assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&aside).unwrap();
        assert_eq!(text.parse::<toml_edit::DocumentMut>().unwrap()["token"].as_str(), Some("glrt-new"), "{text}");
        assert_eq!(entry.token.expose_secret(), "glrt-old");
    }
}
