//! The world of the tests: GitLab, ECS and a manager on loopback, with everything real but the two servers,
//! and those real at the wire. Never shipped.

mod manager_process;
mod repository;
mod world;

pub use manager_process::ManagerProcess;
pub use repository::Repository;
pub use world::{Setup, World};

use std::path::PathBuf;
use std::time::Duration;

/// How long a story waits for something that must happen. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A program of this workspace. Cargo builds programs only for their own package's tests, so `make test` builds
/// all of them first.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let program = folder.join(name);
    assert!(program.is_file(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    program
}

/// Waits until `condition` holds, looking often. For conditions that no event announces: a process that ends.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while !condition() {
        assert!(tokio::time::Instant::now() < give_up, "in vain: waited for {what}");
        look.tick().await;
    }
}
