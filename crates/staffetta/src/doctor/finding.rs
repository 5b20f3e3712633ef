//! What a check found.

use aws::CallError;
use serde::Serialize;

use super::CHECKS;

/// From good to worst: the exit code is by the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    /// Not looked at, for it needs what was not given. Stops nothing.
    Skipped,
    /// Jobs run, but not all, or not as they could.
    Warning,
    /// Could not be looked at: no permission, no answer. Never hides a fault as good.
    Unknown,
    /// Stops jobs.
    Bad,
}

impl Verdict {
    pub fn mark(self) -> char {
        match self {
            Self::Good => '✔',
            Self::Skipped => '-',
            Self::Warning => '!',
            Self::Unknown => '?',
            Self::Bad => '✘',
        }
    }
}

/// For what a stack made and somebody deleted: CloudFormation compares templates, and does not look.
pub const MADE_ANEW: &str = "for an environment of staffetta.toml `staffetta deploy destroy -e ENVIRONMENT` and then \
     `staffetta deploy apply` (alone, `apply` does not make again what was deleted behind its stack)";

/// The answer of one check about one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// One of [`CHECKS`]: stable, for programs and for docs/troubleshooting.md.
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

impl Finding {
    pub fn good(check: &'static str, evidence: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, evidence.into(), String::new(), String::new())
    }

    pub fn bad(
        check: &'static str,
        evidence: impl Into<String>,
        breaks: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(check, Verdict::Bad, evidence.into(), breaks.into(), fix.into())
    }

    pub fn warning(
        check: &'static str,
        evidence: impl Into<String>,
        breaks: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(check, Verdict::Warning, evidence.into(), breaks.into(), fix.into())
    }

    /// `fix` says what would let it be looked at.
    pub fn unknown(check: &'static str, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, evidence.into(), String::new(), fix.into())
    }

    /// `fix` says what to give, so that it is looked at.
    pub fn skipped(check: &'static str, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, evidence.into(), String::new(), fix.into())
    }

    /// For a call of AWS that gave no result; `action` is what the caller may not do if it was refused: `ecs:DescribeClusters`.
    pub fn not_seen(check: &'static str, action: &str, error: &CallError) -> Self {
        let fix = match error {
            CallError::Refused(refusal) | CallError::RoleRefused { refusal, .. } if refusal.is_of_credentials() => {
                "AWS does not take these credentials: log in again, for example with `aws sso login`, or give new ones. This machine's \
                 clock must be right too."
                    .to_owned()
            }
            CallError::Refused(refusal) if refusal.is_denial() => {
                format!("Let whoever runs doctor do {action}; `staffetta deploy policy` prints it.")
            }
            CallError::RoleRefused { role, .. } => format!(
                "Let whoever runs doctor do sts:AssumeRole on {role}, and let the role's trust policy allow it (external id too)."
            ),
            CallError::Refused(_) => "Correct what AWS names, and run doctor again.".to_owned(),
            CallError::NoCredentials(_) => {
                "Log in, for example with `aws sso login`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID.".to_owned()
            }
            CallError::Throttled(_) => "Other tools use up the account's calls: run doctor again.".to_owned(),
            CallError::NoAnswer(_) | CallError::NoRole { .. } => {
                "Check this machine's way to AWS (proxies too), and run doctor again.".to_owned()
            }
        };
        Self::unknown(check, format!("{action}: {error}"), fix)
    }

    fn new(check: &'static str, verdict: Verdict, evidence: String, breaks: String, fix: String) -> Self {
        debug_assert!(CHECKS.contains(&check), "{check} is missing in CHECKS");
        Self { check, environment: None, verdict, evidence, breaks, fix }
    }
}

#[cfg(test)]
mod tests {
    use aws::Refusal;

    use super::*;

    #[test]
    fn a_refusal_asks_for_a_permission_only_where_one_is_missing() {
        let fix = |error: &CallError| Finding::not_seen("cluster", "ecs:DescribeClusters", error).fix;
        let refusal = |code: &str| Refusal { code: code.into(), message: "words".into() };
        for (code, words, others) in [
            ("AccessDeniedException", "do ecs:DescribeClusters", "log in again"),
            ("UnauthorizedOperation", "do ecs:DescribeClusters", "log in again"),
            ("ExpiredToken", "log in again", "DescribeClusters"),
            ("InvalidClientTokenId", "log in again", "DescribeClusters"),
            ("NoSuchResourceException", "what AWS names", "DescribeClusters"),
        ] {
            let fix = fix(&CallError::Refused(refusal(code)));
            assert!(fix.contains(words) && !fix.contains(others), "{code}: {fix}");
        }
        let of_role = |code: &str| CallError::RoleRefused { role: "arn:role".into(), refusal: refusal(code) };
        assert!(fix(&of_role("ExpiredToken")).contains("log in again"));
        assert!(fix(&of_role("AccessDenied")).contains("sts:AssumeRole on arn:role"));
    }
}
