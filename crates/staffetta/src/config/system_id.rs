//! The name of this installation towards GitLab: `.runner_system_id` beside `config.toml` (protocol 1.5).
//!
//! It must survive a restart: a new id is a new runner manager in GitLab's list, and leaves a stale one there.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use job::ids::SystemId;
use rand::RngExt;
use sha2::Sha256;

use super::owner::{folder, give_to_owner_of};

const FILE: &str = ".runner_system_id";
/// Where GitLab's runner looks, in its order: the same machine keeps its id when it changes to Staffetta.
const MACHINE_IDS: [&str; 2] = ["/var/lib/dbus/machine-id", "/etc/machine-id"];

/// The id, and why it could not be kept if so: it is then valid for this process only.
pub struct Loaded {
    pub id: SystemId,
    pub not_kept: Option<io::Error>,
}

/// Reads the id that belongs to a configuration file; makes one where there is none, or no valid one.
pub fn load_or_create(config_file: &Path) -> Loaded {
    let file = beside(config_file);
    if let Ok(text) = fs::read_to_string(&file)
        && is_valid(text.trim())
    {
        return Loaded { id: SystemId::new(text.trim()), not_kept: None };
    }
    let machine_id = MACHINE_IDS.iter().find_map(|path| fs::read_to_string(path).ok());
    let id = generate(machine_id.as_deref());
    let not_kept = keep(config_file, &id).err();
    Loaded { id: SystemId::new(id), not_kept }
}

fn beside(config_file: &Path) -> PathBuf {
    config_file.with_file_name(FILE)
}

/// Whole or not at all: half an id would be replaced by another one at the next start.
fn keep(config_file: &Path, id: &str) -> io::Result<()> {
    // Created with mode 0600.
    let mut new = tempfile::NamedTempFile::new_in(folder(config_file))?;
    give_to_owner_of(config_file, new.as_file());
    new.write_all(id.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(beside(config_file))?;
    Ok(())
}

fn is_valid(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("s_").or_else(|| text.strip_prefix("r_")) else { return false };
    rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// An empty machine id, as container images have it, counts as none: all their containers would share one name.
fn generate(machine_id: Option<&str>) -> String {
    match machine_id.map(str::trim).filter(|id| !id.is_empty()) {
        Some(machine_id) => {
            let mut mac = Hmac::<Sha256>::new_from_slice(machine_id.as_bytes()).expect("HMAC takes keys of any length");
            mac.update(b"gitlab-runner");
            let sum = mac.finalize().into_bytes();
            format!("s_{}", sum.iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        None => {
            let mut random = rand::rng();
            format!("r_{}", (0..12).map(|_| random.sample(rand::distr::Alphanumeric) as char).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_id_is_kept_beside_the_configuration_readable_by_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        let first = load_or_create(&config);
        assert!(first.not_kept.is_none());
        assert!(is_valid(first.id.as_str()), "{}", first.id);

        let file = directory.path().join(".runner_system_id");
        assert_eq!(fs::read_to_string(&file).unwrap(), first.id.as_str());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&config).id, first.id);
    }

    #[test]
    fn an_id_that_is_there_is_taken_and_an_invalid_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        let file = directory.path().join(".runner_system_id");
        fs::write(&file, "r_0123456789aB\n").unwrap();
        assert_eq!(load_or_create(&config).id.as_str(), "r_0123456789aB");
        for invalid in ["", "s_short", "x_0123456789ab", "s_0123456789ab!", "s_0123456789abc"] {
            fs::write(&file, invalid).unwrap();
            let id = load_or_create(&config).id;
            assert!(is_valid(id.as_str()), "{invalid} gave {id}");
            assert_eq!(fs::read_to_string(&file).unwrap(), id.as_str());
        }
    }

    #[test]
    fn an_id_that_cannot_be_written_is_used_and_the_reason_told() {
        let directory = tempfile::tempdir().unwrap();
        let loaded = load_or_create(&directory.path().join("missing/config.toml"));
        assert!(is_valid(loaded.id.as_str()));
        assert_eq!(loaded.not_kept.unwrap().kind(), io::ErrorKind::NotFound);
    }

    /// `printf gitlab-runner | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`
    #[test]
    fn the_id_comes_from_the_machine_as_gitlabs_runner_computes_it() {
        assert_eq!(generate(Some("0123456789abcdef0123456789abcdef\n")), "s_ee3af03959fe");
    }

    #[test]
    fn without_a_machine_id_every_installation_has_its_own() {
        let (one, other) = (generate(None), generate(Some("\n")));
        assert!(one.starts_with("r_") && other.starts_with("r_"));
        assert!(is_valid(&one) && is_valid(&other));
        assert_ne!(one, other);
    }
}
