//! `staffetta doctor`: finds what stops jobs before they run.
//!
//! A check looks by `aws::inspect`, which answers plain data, and a pure function judges what was seen. To add one: its id in
//! [`CHECKS`], a function `check(&Subject, &Session) -> Vec<Finding>` in a file of this folder, its line in [`examine`], and
//! its section in docs/troubleshooting.md. A check that finds nothing wrong says so with one good finding for each id.

mod finding;
mod identity;
pub mod report;
mod subject;

use std::time::Duration;

use aws::{CallError, Session};
use tokio::time::timeout;

pub use finding::{Finding, Verdict};
pub use subject::{Manager, Subject, of_config};

/// Every check by its id, in the order in which the findings of an environment are shown. docs/troubleshooting.md has a section for each.
pub const CHECKS: &[&str] = &["aws-identity", "clock"];

/// A network that swallows everything must not hold up the others.
const LONGEST: Duration = Duration::from_secs(90);

/// All findings about one environment, in the order of [`CHECKS`].
pub async fn examine(subject: &Subject) -> Vec<Finding> {
    let fargate = &subject.runner.fargate;
    let session = Session::open(fargate.region.as_deref(), fargate.endpoint_url.as_deref(), subject.as_role.as_ref());
    let mut findings = match session.await {
        Ok(session) => {
            // One line for each file of checks.
            let (identity,) = tokio::join!(within("aws-identity", identity::check(subject, &session)),);
            [identity].concat()
        }
        Err(error) => vec![Finding::bad(
            "aws-identity",
            error.to_string(),
            "Nothing can be asked of AWS.",
            "Set region in [runners.fargate] (Region in ecs.toml), or AWS_REGION.",
        )],
    };
    for finding in &mut findings {
        finding.environment = Some(subject.name.clone());
    }
    findings.sort_by_key(|finding| CHECKS.iter().position(|check| *check == finding.check));
    findings
}

/// A check that takes too long becomes one finding: `check` is the first of its ids.
async fn within(check: &'static str, looking: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    timeout(LONGEST, looking).await.unwrap_or_else(|_| {
        let error = CallError::NoAnswer(format!("gave up after {} s", LONGEST.as_secs()));
        vec![Finding::not_seen(check, "AWS", &error)]
    })
}
