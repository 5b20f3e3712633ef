//! The three keys of a task: the one that opens it, the one that it accepts, the one that it shows.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hkdf::Hkdf;
use job::secret::{ExposeSecret, SecretString};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use sha2::Sha256;

/// Binds derived keys to their one purpose; a change of it locks every manager out of running tasks.
const PURPOSE: &[u8] = b"staffetta task key 1";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not a nonce (32 hexadecimal digits): {0:?}")]
    Nonce(String),
    #[error("not a public key in OpenSSH's format: {0}")]
    Unreadable(String),
    #[error("a key of the kind {0}; only ssh-ed25519 is accepted")]
    NotEd25519(String),
}

/// Makes the key of a task its own. It is no secret: it stands in the task's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As it stands in the task's environment.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Nonce(text.to_owned()))
        }
    }
}

/// The key that opens one task. It is never stored: every manager that knows the runner's token
/// derives it again from the nonce in the task's environment.
#[derive(Clone)]
pub struct TaskKey(Arc<PrivateKey>);

impl TaskKey {
    /// HKDF-SHA256 with the token as key material and the nonce as salt.
    pub fn derive(runner_token: &SecretString, nonce: &Nonce) -> Self {
        let mut seed = [0; 32];
        Hkdf::<Sha256>::new(Some(nonce.0.as_bytes()), runner_token.expose_secret().as_bytes())
            .expand(PURPOSE, &mut seed)
            .expect("32 bytes are within HKDF's limit of 255 blocks");
        Self(Arc::new(ed25519(&seed)))
    }

    /// One line for the task's `SSH_PUBLIC_KEY`: `ssh-ed25519 AAAA… staffetta`.
    pub fn public_openssh(&self) -> String {
        let key = PublicKey::new(self.0.public_key().key_data().clone(), job::PRODUCT);
        key.to_openssh().expect("an Ed25519 key has a text form")
    }

    pub(crate) fn private(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskKey({})", self.0.fingerprint(HashAlg::Sha256))
    }
}

/// The key by which a task's server proves that it is the same task as before.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey(Ed25519PublicKey);

impl HostKey {
    /// `None` for the other kinds, which are never negotiated.
    pub(crate) fn of(key: &PublicKey) -> Option<Self> {
        key.key_data().ed25519().copied().map(Self)
    }
}

/// The fingerprint as `ssh-keygen -l` prints it.
impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        KeyData::Ed25519(self.0).fingerprint(HashAlg::Sha256).fmt(f)
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({self})")
    }
}

/// The secret side of a [`HostKey`], made anew by each agent's server.
pub struct ServerKey(PrivateKey);

impl ServerKey {
    pub fn random() -> Self {
        Self(ed25519(&rand::random()))
    }

    pub fn host_key(&self) -> HostKey {
        HostKey::of(self.0.public_key()).expect("it was made as an Ed25519 key")
    }

    pub(crate) fn into_private(self) -> PrivateKey {
        self.0
    }
}

/// Reads one line of an `authorized_keys` file without options.
pub(crate) fn parse_public(line: &str) -> Result<PublicKey, KeyError> {
    let key = PublicKey::from_openssh(line.trim()).map_err(|error| KeyError::Unreadable(error.to_string()))?;
    match key.algorithm() {
        Algorithm::Ed25519 => Ok(key),
        other => Err(KeyError::NotEd25519(other.to_string())),
    }
}

fn ed25519(seed: &[u8; 32]) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(seed)), "")
        .expect("an unencrypted Ed25519 pair is a valid key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce() -> Nonce {
        "000102030405060708090a0b0c0d0e0f".parse().expect("a nonce")
    }

    /// The expected key was computed apart from this code, with Python's `hmac` and `cryptography`.
    #[test]
    fn every_manager_of_a_runner_derives_the_same_key() {
        let key = TaskKey::derive(&"glrt-t1_0123456789".into(), &nonce());
        assert_eq!(
            key.public_openssh(),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzTeJwMYLkRx0/C5XWRNMBV0S3zcTSy19cfhRrLe5EX staffetta"
        );
    }

    #[test]
    fn another_token_or_another_nonce_gives_another_key() {
        let key = TaskKey::derive(&"one".into(), &nonce()).public_openssh();
        assert_ne!(key, TaskKey::derive(&"two".into(), &nonce()).public_openssh());
        assert_ne!(key, TaskKey::derive(&"one".into(), &Nonce::random()).public_openssh());
    }

    #[test]
    fn a_nonce_survives_the_environment_and_nothing_else_is_taken_for_one() {
        let nonce = Nonce::random();
        assert_eq!(nonce.as_str().parse::<Nonce>().expect("a nonce"), nonce);
        assert!("".parse::<Nonce>().is_err());
        assert!("g".repeat(32).parse::<Nonce>().is_err());
        assert!("0".repeat(33).parse::<Nonce>().is_err());
    }

    #[test]
    fn only_ed25519_keys_are_accepted() {
        let ours = TaskKey::derive(&"token".into(), &nonce()).public_openssh();
        assert!(parse_public(&format!("{ours}\n")).is_ok());
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBG7wfSUPU+T/+JNK/mZHZBkgDDVQgzKjjTUZ9bBt0553XYKVwkb1s+kkiL1uf/VVyhRydvtQZ/MmUunfZBsea0w= x";
        assert!(matches!(parse_public(ecdsa), Err(KeyError::NotEd25519(_))));
        assert!(matches!(parse_public("nonsense"), Err(KeyError::Unreadable(_))));
    }

    #[test]
    fn keys_do_not_print_their_secret() {
        let key = TaskKey::derive(&"token".into(), &nonce());
        assert!(format!("{key:?}").starts_with("TaskKey(SHA256:"));
    }
}
