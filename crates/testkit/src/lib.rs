//! The world of the tests: GitLab, ECS and a manager on loopback, with everything real but the two servers,
//! and those real at the wire. Never shipped.

pub mod aws_call;
mod aws_front;
pub mod driver;
mod emulator;
pub mod iam;
mod manager_process;
mod ministack;
mod moto;
mod repository;
mod simulate;
mod store_front;
mod terminal;
pub mod vault;
mod world;

pub use aws_call::AwsCall;
pub use aws_front::{Answer, AwsFront};
pub use manager_process::ManagerProcess;
pub use ministack::Ministack;
pub use moto::Moto;
pub use repository::Repository;
pub use store_front::{StoreFault, StoreFront};
pub use terminal::Terminal;
pub use world::{ENVIRONMENTS, Setup, World};

use std::path::PathBuf;
use std::time::Duration;

/// How long a story waits for something that must happen. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A program of this workspace. Cargo builds programs only for their own package's tests, so `make test` builds
/// all of them first.
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a program knows its own path");
    // A test is target/PROFILE/deps/TEST, the bench target/PROFILE/bench.
    let mut programs = this.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let program = programs.find(|program| program.is_file());
    program.unwrap_or_else(|| panic!("{name} is missing: run `cargo build --workspace --bins` first"))
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
