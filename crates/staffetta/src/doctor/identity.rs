//! Who looks, in which account, and by which clock.

use std::time::{Duration, SystemTime};

use aws::inspect::{self, Identity};
use aws::{CallError, Session};

use super::{Finding, Subject};

const IDENTITY: &str = "aws-identity";
const CLOCK: &str = "clock";

/// AWS refuses what was signed so much earlier or later, by its own clock.
const TOLERATED: Duration = Duration::from_secs(5 * 60);
/// The answer was under way, and it tells whole seconds.
const INEXACT: Duration = Duration::from_secs(30);

pub async fn check(subject: &Subject, session: &Session) -> Vec<Finding> {
    let (identity, date) = tokio::join!(inspect::identity(session), session.date());
    let clock = match date {
        Ok(date) => clock(&format!("AWS in {}", session.region()), date, SystemTime::now()),
        // That AWS is not reached is said once, beside this.
        Err(error) => Finding::unknown(CLOCK, format!("AWS's clock: {error}"), "It is seen once AWS is reached."),
    };
    vec![judge(subject.account.as_deref(), session.region(), &identity), clock]
}

fn judge(account: Option<&str>, region: &str, identity: &Result<Identity, CallError>) -> Finding {
    let identity = match identity {
        Ok(identity) => identity,
        Err(error) => return Finding::not_seen(IDENTITY, "sts:GetCallerIdentity", error),
    };
    let evidence = format!("{} in account {}, {region}", identity.arn, identity.account);
    match account {
        Some(expected) if expected != identity.account => Finding::bad(
            IDENTITY,
            format!("{evidence}; the deployment is for account {expected}"),
            "Everything else is looked for in the wrong account.",
            format!("Log in to account {expected}, or give the environment a deploy_role there."),
        ),
        _ => Finding::good(IDENTITY, evidence),
    }
}

/// Our clock against that of `whose`, which read `theirs` when ours read `ours`.
pub fn clock(whose: &str, theirs: SystemTime, ours: SystemTime) -> Finding {
    let (apart, word) = match ours.duration_since(theirs) {
        Ok(apart) => (apart, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let evidence = format!("this machine's clock is {} s {word} that of {whose}", apart.as_secs());
    let fix = "Set this machine's clock by NTP: `timedatectl set-ntp true`.";
    if apart >= TOLERATED {
        let breaks = "AWS refuses every call that is signed here: it allows 5 minutes. Certificates and tokens may seem expired.";
        Finding::bad(CLOCK, evidence, breaks, fix)
    } else if apart > INEXACT {
        Finding::warning(CLOCK, evidence, "Nothing yet; from 5 minutes on AWS refuses every call.", fix)
    } else {
        Finding::good(CLOCK, format!("this machine's clock agrees with that of {whose}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Bad, Good, Warning};

    #[test]
    fn credentials_of_another_account_are_found() {
        let identity = Identity { account: "111111111111".into(), arn: "arn:aws:iam::111111111111:user/ada".into() };
        let judged = |account| judge(account, "eu-west-1", &Ok(identity.clone()));
        assert_eq!(judged(None).verdict, Good);
        assert_eq!(judged(Some("111111111111")).verdict, Good);
        let wrong = judged(Some("222222222222"));
        assert_eq!(wrong.verdict, Bad);
        assert!(wrong.evidence.contains("111111111111") && wrong.fix.contains("222222222222"), "{wrong:?}");
    }

    #[test]
    fn a_clock_is_wrong_from_five_minutes_on_in_either_direction() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (seconds, verdict, words) in [
            (0, Good, "agrees"),
            (30, Good, "agrees"),
            (31, Warning, "31 s"),
            (299, Warning, "299 s"),
            (300, Bad, "300 s"),
        ] {
            let apart = Duration::from_secs(seconds);
            let judged = |theirs: SystemTime| -> (Verdict, String) {
                let finding = clock("AWS", theirs, noon);
                (finding.verdict, finding.evidence)
            };
            for (theirs, word) in [(noon - apart, "ahead of"), (noon + apart, "behind")] {
                let (found, evidence) = judged(theirs);
                assert_eq!(found, verdict, "{seconds}");
                assert!(evidence.contains(words), "{evidence}");
                assert!(found == Good || evidence.contains(word), "{evidence}");
            }
        }
    }
}
