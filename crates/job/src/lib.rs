//! The nouns and the rules of a job's journey: ids, payload, outcome, trace, variables, hand-over.
//!
//! No I/O and no clock: rules take the time as an argument, so that a test can ask them anything.

pub mod admission;
pub mod cache;
mod expansion;
pub mod flags;
pub mod hand_over;
pub mod ids;
pub mod inputs;
pub mod moa;
pub mod outcome;
pub mod payload;
pub mod secret;
pub mod settings;
pub mod task;
pub mod trace;
pub mod variables;

/// What this program calls itself towards GitLab, in logs and in user agents.
pub const PRODUCT: &str = "staffetta";
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
