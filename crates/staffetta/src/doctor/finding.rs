//! What a check found.

use serde::Serialize;

/// From good to worst: the exit code is by the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    /// Could not be looked at: no permission, or nothing to look with. Never hides a fault as good.
    Unknown,
    /// Jobs run, but not all, or not as they could.
    Warning,
    /// Stops jobs.
    Bad,
}

/// The answer of one check about one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `cluster-default-provider`: stable, for programs and for docs/troubleshooting.md.
    pub check: &'static str,
    /// The runner's name; none for what is common to all.
    pub environment: Option<String>,
    pub verdict: Verdict,
    /// What was seen, with names and numbers.
    pub evidence: String,
    /// What it breaks; empty for a good one.
    pub breaks: String,
    /// What to do, exactly; empty for a good one.
    pub fix: String,
}
