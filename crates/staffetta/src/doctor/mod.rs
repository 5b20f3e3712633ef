//! `staffetta doctor`: finds what stops jobs before they run.

mod finding;

pub use finding::{Finding, Verdict};
