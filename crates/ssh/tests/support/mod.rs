//! What both ends of every test need.

use std::net::SocketAddr;
use std::time::Duration;

use ssh::client::Target;
use ssh::keys::{Nonce, TaskKey};

/// Never reached unless something hangs: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn key() -> TaskKey {
    TaskKey::derive(&"glrt-t1_a-runner-of-the-tests".into(), &Nonce::random())
}

pub fn target(addr: SocketAddr, user: &str, key: &TaskKey) -> Target {
    Target { addr, user: user.to_owned(), key: key.clone(), pinned: None }
}
