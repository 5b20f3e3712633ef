//! What a manager leaves with an agent for the next manager: which objects a job may touch.
//!
//! In a user's image the job's own code may be what answers for the agent. It must not be able to ask for the caches of
//! another project, so a manager believes only what a manager of the same runner wrote for the same task.

use hmac::{Hmac, KeyInit, Mac};
use job::secret::{ExposeSecret, SecretString};
use sha2::Sha256;
use ssh::keys::Nonce;

use super::cache_renewal::Renewal;

/// Hexadecimal digits of the code in front.
const CODE: usize = 64;
/// An agent's whole answer has at most twice as much. A job with more caches than that has them until the keys end.
const MOST: usize = 32 * 1024;

pub fn seal(token: &SecretString, nonce: &Nonce, renewal: &Renewal) -> Option<String> {
    let text = serde_json::to_string(renewal).ok().filter(|text| text.len() < MOST)?;
    let code = code(token, nonce, &text).finalize().into_bytes();
    let code: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(code + &text)
}

/// None for what no manager of this runner wrote for this task.
pub fn open(token: &SecretString, nonce: &Nonce, sealed: &str) -> Option<Renewal> {
    let (given, text) = sealed.split_at_checked(CODE)?;
    let given: Option<Vec<u8>> =
        (0..CODE).step_by(2).map(|at| u8::from_str_radix(given.get(at..at + 2)?, 16).ok()).collect();
    code(token, nonce, text).verify_slice(&given?).ok()?;
    serde_json::from_str(text).ok()
}

/// The token makes the keys of tasks too, by HKDF with the nonce as salt; the first words keep the two uses apart.
fn code(token: &SecretString, nonce: &Nonce, text: &str) -> Hmac<Sha256> {
    let mut code =
        Hmac::<Sha256>::new_from_slice(token.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
    for part in ["staffetta caches of a job\0", nonce.as_str(), "\0", text] {
        code.update(part.as_bytes());
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::cache_renewal::tests::renewal;

    #[test]
    fn only_what_a_manager_of_the_runner_wrote_for_the_task_is_believed() {
        let (token, nonce) = (SecretString::from("glrt-t1_token".to_owned()), Nonce::random());
        let sealed = seal(&token, &nonce, &renewal()).expect("small enough");
        assert_eq!(open(&token, &nonce, &sealed), Some(renewal()));
        assert_eq!(open(&token, &Nonce::random(), &sealed), None, "of another task");
        assert_eq!(open(&"glrt-t1_other".to_owned().into(), &nonce, &sealed), None, "of another runner");
        let forged = sealed.replace("project/7", "project/8");
        assert_ne!(forged, sealed);
        assert_eq!(open(&token, &nonce, &forged), None);
        for text in ["", "{}", "é", &sealed[..CODE], &"é".repeat(64)] {
            assert_eq!(open(&token, &nonce, text), None, "{text}");
        }
    }
}
