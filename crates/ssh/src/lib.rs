//! One small protocol over SSH, both ends: how a manager hands a job to the agent in its task, and how the driver runs
//! the scripts of GitLab's own runner there.
//!
//! The client speaks to two kinds of server: the agent itself ([`server`]), and OpenSSH in a user's
//! image, into which it first sends the agent. Ed25519 only: an RSA-4096 key costs seconds on a
//! quarter of a vCPU.

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::{Preferred, SshId, cipher, compression, kex, mac};

pub mod client;
pub mod keys;
pub mod protocol;
pub mod server;

/// One choice of each kind, so that the first guess of both ends is the right one and no slow
/// algorithm can be negotiated. Every OpenSSH since 6.5 (2014) offers all of them.
const ALGORITHMS: Preferred = Preferred {
    kex: Cow::Borrowed(&[
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        // Not key exchanges: they switch on the countermeasure to CVE-2023-48795 ("Terrapin").
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ]),
    key: Cow::Borrowed(&[Algorithm::Ed25519]),
    host_key_certificates: Cow::Borrowed(&[]),
    cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
    mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA256]),
    compression: Cow::Borrowed(&[compression::NONE]),
};

fn software_id() -> SshId {
    SshId::Standard(Cow::Owned(format!("SSH-2.0-{}_{}", job::PRODUCT, job::VERSION)))
}
