//! Keys as `ssh-keygen` writes them.

use std::fs;
use std::process::Command;

use job::secret::SecretString;
use ssh::keys::{KeyError, TaskKey};

/// The two halves of a new key.
fn generate(arguments: &[&str]) -> (SecretString, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-C", "", "-f"]).arg(&file).args(arguments).status();
    assert!(made.expect("ssh-keygen").success());
    let read = |file| fs::read_to_string(file).expect("a key");
    (read(file.clone()).into(), read(file.with_extension("pub")).trim().to_owned())
}

#[test]
fn an_ed25519_key_is_read() {
    let (private, public) = generate(&["-t", "ed25519", "-N", ""]);
    assert_eq!(TaskKey::from_pem(&private).expect("a key").public_openssh(), format!("{public} staffetta"));
}

#[test]
fn an_rsa_key_of_gitlabs_driver_is_refused_with_what_to_do() {
    for format in ["PEM", "PKCS8", "RFC4716"] {
        let (private, _) = generate(&["-t", "rsa", "-b", "1024", "-m", format, "-N", ""]);
        let error = TaskKey::from_pem(&private).expect_err("an RSA key");
        assert!(matches!(error, KeyError::Rsa), "{format}: {error:?}");
        assert!(error.to_string().starts_with("an RSA key of GitLab's driver: "), "{error}");
    }
}

#[test]
fn other_keys_are_refused_by_what_they_are() {
    let refusal = |arguments: &[&str]| TaskKey::from_pem(&generate(arguments).0).expect_err("no key for us");
    let error = refusal(&["-t", "ecdsa", "-N", ""]);
    assert!(matches!(&error, KeyError::NotEd25519(kind) if kind.contains("ecdsa")), "{error:?}");
    let error = refusal(&["-t", "ed25519", "-N", "a passphrase"]);
    assert!(matches!(error, KeyError::Private(_)), "{error:?}");
    assert!(matches!(TaskKey::from_pem(&"".into()), Err(KeyError::Private(_))));
}
