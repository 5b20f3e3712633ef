//! The three keys of a task: the one that opens it, the one that it accepts, the one that it shows.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hkdf::Hkdf;
use job::secret::{ExposeSecret, SecretString};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey, decode_secret_key};
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
    #[error("not a private key without a passphrase in OpenSSH's or PKCS#8's format: {0}")]
    Private(String),
    #[error(
        "an RSA key of GitLab's driver: no RSA signatures are made here (RUSTSEC-2023-0071); \
         let that driver end the jobs that it began, or run them again"
    )]
    Rsa,
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

/// The key that opens one task. A manager never stores it: every one that knows the runner's token derives it again
/// from the nonce in the task's environment. The driver has no token, and keeps a random key in the job's file.
#[derive(Clone)]
pub struct TaskKey(Arc<PrivateKey>);

impl TaskKey {
    pub fn random() -> Self {
        Self(Arc::new(ed25519(&rand::random())))
    }

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

    /// The secret side, as `ssh-keygen` writes it to a file without a passphrase.
    pub fn to_openssh(&self) -> SecretString {
        let text = self.0.to_openssh(LineEnding::LF).expect("an Ed25519 key has a text form");
        text.as_str().into()
    }

    /// Reads the secret side: OpenSSH's format, or the PKCS#8 of other programs.
    pub fn from_pem(text: &SecretString) -> Result<Self, KeyError> {
        use russh::keys::Error;
        let key = match decode_secret_key(text.expose_secret(), None) {
            Ok(key) => key,
            // PKCS#1 says RSA in its first line, PKCS#8 by a number.
            Err(Error::UnsupportedKeyType { key_type_string, .. }) if key_type_string == "RSA" => {
                return Err(KeyError::Rsa);
            }
            Err(Error::UnknownAlgorithm(kind)) if kind.to_string() == "1.2.840.113549.1.1.1" => {
                return Err(KeyError::Rsa);
            }
            Err(error) => return Err(KeyError::Private(error.to_string())),
        };
        match key.algorithm() {
            Algorithm::Ed25519 => Ok(Self(Arc::new(key))),
            Algorithm::Rsa { .. } => Err(KeyError::Rsa),
            other => Err(KeyError::NotEd25519(other.to_string())),
        }
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

    /// The whole key, as it stands in a `known_hosts` file: `ssh-ed25519 AAAA…`. It is read again by `parse`.
    pub fn text(&self) -> String {
        PublicKey::from(self.0).to_openssh().expect("an Ed25519 key has a text form")
    }
}

impl FromStr for HostKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = parse_public(text)?;
        Self::of(&key).ok_or_else(|| KeyError::NotEd25519(key.algorithm().to_string()))
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
    fn a_random_key_survives_the_drivers_file() {
        let key = TaskKey::random();
        let text = key.to_openssh();
        assert!(text.expose_secret().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert_eq!(TaskKey::from_pem(&text).expect("a key").public_openssh(), key.public_openssh());
        assert_ne!(TaskKey::random().public_openssh(), key.public_openssh());
    }

    /// The example of RFC 8410, sections 10.1 and 10.3.
    #[test]
    fn a_key_of_another_program_is_read() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        assert_eq!(
            TaskKey::from_pem(&pem.into()).expect("a key").public_openssh(),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm/RAlphM3+hUG6wWfcO5bIUIaqMLa2ywxcOK1wMWbh staffetta"
        );
    }

    #[test]
    fn a_host_key_survives_the_drivers_file() {
        let key = ServerKey::random().host_key();
        let text = key.text();
        assert_eq!(text.split(' ').count(), 2, "{text}");
        assert!(text.starts_with("ssh-ed25519 AAAA"), "{text}");
        assert_eq!(text.parse::<HostKey>().expect("a key"), key);
        assert_eq!(format!("{text} a comment\n").parse::<HostKey>().expect("a key"), key);
        assert!(matches!(key.to_string().parse::<HostKey>(), Err(KeyError::Unreadable(_))), "a fingerprint is no key");
    }

    #[test]
    fn keys_do_not_print_their_secret() {
        let key = TaskKey::derive(&"token".into(), &nonce());
        assert!(format!("{key:?}").starts_with("TaskKey(SHA256:"));
    }
}
