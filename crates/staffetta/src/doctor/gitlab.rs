//! GitLab's side: is it reached, does it know the token, and does it give this runner the jobs that are meant for it?

use std::collections::BTreeSet;
use std::time::SystemTime;

use gitlab::{CallError, Client, ClientConfig, Info, Known, RunnerDetails, Seen, Unreached, Verified};
use jiff::{Timestamp, ToSpan};
use job::secret::SecretString;

use super::{Finding, Subject, Verdict, identity};
use crate::config::Runner;
use crate::registration::PERSONAL_ACCESS_TOKEN as PERSONAL;

const REACHABLE: &str = "gitlab-reachable";
const TOKEN: &str = "runner-token";
const TAGS: &str = "runner-tags";
const SETTINGS: &str = "runner-settings";

/// Whether GitLab is reached, and the clock; the client if it is.
async fn reach(runner: &Runner) -> (Vec<Finding>, Option<Client>) {
    let Runner { url, tls_ca_file, tls_cert_file, tls_key_file, shell, .. } = runner;
    let client = Client::new(ClientConfig {
        tls_ca_file: tls_ca_file.clone(),
        tls_cert_file: tls_cert_file.clone(),
        tls_key_file: tls_key_file.clone(),
        ..ClientConfig::new(url, Info::new("fargate", shell))
    });
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            let fix = "Correct `url` and the TLS files of the runner.";
            return (vec![Finding::bad(REACHABLE, error.to_string(), "No job comes.", fix)], None);
        }
    };
    let looked = client.look().await;
    let mut findings = vec![reachable(url, &looked)];
    let Ok(seen) = looked else { return (findings, None) };
    let clock = seen.date.map(|date| identity::clock(url, date, SystemTime::now()));
    // AWS's clock says so as well.
    findings.extend(clock.filter(|clock| clock.verdict != Verdict::Good));
    (findings, Some(client))
}

/// All that can be asked without knowing the token.
pub async fn check_reach(runner: &Runner) -> Vec<Finding> {
    reach(runner).await.0
}

/// `personal` may read what the runner's owner set.
pub async fn check(subject: &Subject, personal: Option<&SecretString>) -> Vec<Finding> {
    let (mut findings, client) = reach(&subject.runner).await;
    let Some(client) = client else { return findings };
    let token = match &subject.token {
        Ok(token) => token,
        Err(reason) => {
            let fix = "Run doctor where the manager runs, or let whoever runs it read the token.";
            findings.push(Finding::unknown(TOKEN, format!("the token is not known here: {reason}"), fix));
            return findings;
        }
    };
    let verified = client.verify(token, None).await;
    findings.push(judge_token(&verified, Timestamp::now()));
    let Verified::Valid(Known { id: Some(id), .. }) = verified else { return findings };
    let details = match personal {
        Some(personal) => Some(client.runner(personal, id).await),
        None => None,
    };
    findings.extend(judge_settings(id, subject.tags.as_deref(), details));
    findings
}

fn reachable(url: &str, looked: &Result<Seen, Unreached>) -> Finding {
    let error = match looked {
        Ok(seen) => {
            return Finding::good(
                REACHABLE,
                format!("{url} answers in {:.2} s, seen from here", seen.took.as_secs_f64()),
            );
        }
        Err(error) => error,
    };
    let fix = match error {
        Unreached::Name(_) => {
            "Correct `url`, or the name servers of this network (a VPC: its DNS settings and private zones)."
        }
        Unreached::Connection(_) => {
            "Open the way to GitLab's port: routes, security groups, firewalls; or name the proxy in HTTPS_PROXY."
        }
        Unreached::Tls(_) => {
            "Name the authority that signed GitLab's certificate in `tls-ca-file`; http:// if this port has no TLS."
        }
        Unreached::Answer(_) => "Correct the port in `url`: what listens there speaks no HTTP.",
        Unreached::Elsewhere(_) => {
            "Correct `url` (a GitLab below a path needs it too), or get past the proxy or log-in page."
        }
        Unreached::Ill { .. } => "Wait until GitLab is well again, and run doctor again.",
    };
    Finding::bad(REACHABLE, format!("{url}: {error}"), "No job comes, and no job can fetch its sources.", fix)
}

fn judge_token(verified: &Verified, now: Timestamp) -> Finding {
    const BREAKS: &str = "GitLab gives this runner no jobs.";
    match verified {
        Verified::Valid(known) => {
            let id = known.id.map(|id| format!(" (runner {id})")).unwrap_or_default();
            match known.token_expires_at {
                Some(end) if end < now + (3 * 24).hours() => Finding::warning(
                    TOKEN,
                    format!("GitLab knows the token{id}; it expires at {end}"),
                    "From then on GitLab gives this runner no jobs.",
                    "`staffetta reset-token`, or let the manager write its config.toml: it renews tokens in time.",
                ),
                end => {
                    let end = end.map_or_else(|| "never expires".to_owned(), |end| format!("expires at {end}"));
                    Finding::good(TOKEN, format!("GitLab knows the token{id}, which {end}"))
                }
            }
        }
        Verified::Invalid => Finding::bad(
            TOKEN,
            "GitLab does not know the token: the runner was deleted, or its token was reset or is expired",
            BREAKS,
            "Create the runner anew in GitLab and put its glrt- token where this one is; or `staffetta reset-token --pat`.",
        ),
        Verified::Orphaned(reason) => Finding::bad(
            TOKEN,
            format!("the runner is in no project or group any more: {reason}"),
            BREAKS,
            "Create the runner anew in the group whose jobs it is to run.",
        ),
        Verified::Unknown(reason) => Finding::unknown(
            TOKEN,
            format!("GitLab could not say whether it knows the token: {reason}"),
            "Run doctor again.",
        ),
    }
}

/// What only the owner of the runner can see. `details` is none if nobody gave a personal access token.
fn judge_settings(
    id: u64,
    wanted: Option<&[String]>,
    details: Option<Result<RunnerDetails, CallError>>,
) -> Vec<Finding> {
    let details = match details {
        Some(Ok(details)) => details,
        Some(Err(error)) => {
            let fix = format!(
                "Give {PERSONAL} a token with the scope read_api, of an owner of the runner's group or project."
            );
            let unknown = |check| Finding::unknown(check, format!("runner {id}: {error}"), fix.clone());
            return [TAGS, SETTINGS].map(unknown).into();
        }
        None => {
            let fix = format!(
                "Set {PERSONAL}: a token with the scope read_api, of an owner of the runner's group or project."
            );
            let skipped = |check| Finding::skipped(check, "GitLab shows it to the runner's owners only", fix.clone());
            return [TAGS, SETTINGS].map(skipped).into();
        }
    };
    vec![judge_tags(id, wanted, &details), judge_openness(id, &details)]
}

fn judge_tags(id: u64, wanted: Option<&[String]>, details: &RunnerDetails) -> Finding {
    let has: BTreeSet<&str> = details.tag_list.iter().map(String::as_str).collect();
    let list = |tags: &BTreeSet<&str>| tags.iter().copied().collect::<Vec<_>>().join(", ");
    let untagged = if details.run_untagged { ", and jobs without tags" } else { "" };
    let evidence = format!("runner {id} takes jobs with the tags {}{untagged}", list(&has));
    let wanted: BTreeSet<&str> = wanted.unwrap_or_default().iter().map(String::as_str).collect();
    let missing: BTreeSet<&str> = wanted.difference(&has).copied().collect();
    let more: BTreeSet<&str> = has.difference(&wanted).copied().collect();
    if !missing.is_empty() {
        return Finding::bad(
            TAGS,
            format!("{evidence}; the file says {}", list(&wanted)),
            format!("Jobs with the tag {} wait for ever: no runner takes them.", list(&missing)),
            format!("GitLab, Settings > CI/CD > Runners, runner {id}, Edit: add {}.", list(&missing)),
        );
    }
    if has.is_empty() && !details.run_untagged {
        return Finding::bad(
            TAGS,
            format!("runner {id} has no tags, and takes no jobs without tags"),
            "No job fits it.",
            format!("GitLab, Settings > CI/CD > Runners, runner {id}, Edit: add the tag of its environment."),
        );
    }
    if !wanted.is_empty() && (!more.is_empty() || details.run_untagged) {
        let more = if more.is_empty() { "without tags".to_owned() } else { format!("with the tag {}", list(&more)) };
        return Finding::warning(
            TAGS,
            format!("{evidence}; the file says {}", list(&wanted)),
            format!("Jobs {more} run in this environment, under its roles."),
            format!("GitLab, Settings > CI/CD > Runners, runner {id}, Edit; or write it into runner_tags."),
        );
    }
    Finding::good(TAGS, evidence)
}

fn judge_openness(id: u64, details: &RunnerDetails) -> Finding {
    let edit = format!("GitLab, Settings > CI/CD > Runners, runner {id}");
    if details.paused {
        let breaks = "GitLab gives this runner no jobs.";
        return Finding::bad(SETTINGS, format!("runner {id} is paused"), breaks, format!("{edit}: Resume."));
    }
    if details.access_level == "ref_protected" {
        return Finding::warning(
            SETTINGS,
            format!("runner {id} is protected"),
            "Only jobs of protected branches and tags run; others wait for ever.",
            format!("Right for production; else {edit}, Edit: clear Protected."),
        );
    }
    let locked = if details.locked { ", locked to its projects" } else { "" };
    Finding::good(SETTINGS, format!("runner {id} is not paused{locked}, and takes jobs of every branch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Warning};

    /// Of a list with commas.
    fn tags(list: &str) -> Vec<String> {
        list.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
    }

    fn details(has: &str, run_untagged: bool) -> RunnerDetails {
        RunnerDetails {
            paused: false,
            locked: false,
            access_level: "not_protected".into(),
            run_untagged,
            tag_list: tags(has),
        }
    }

    #[test]
    fn tags_are_compared_with_those_of_the_file() {
        for (has, untagged, wanted, verdict, breaks) in [
            ("dev", false, Some("dev"), Good, ""),
            ("fargate,dev", false, Some("dev,fargate"), Good, ""),
            ("fargate", false, Some("dev"), Bad, "Jobs with the tag dev wait for ever"),
            ("dev,production", false, Some("dev"), Warning, "Jobs with the tag production run"),
            ("dev", true, Some("dev"), Warning, "Jobs without tags run"),
            ("", false, None, Bad, "No job fits it"),
            ("", true, None, Good, ""),
            ("dev", false, None, Good, ""),
        ] {
            let wanted = wanted.map(tags);
            let found = judge_tags(7, wanted.as_deref(), &details(has, untagged));
            assert_eq!(found.verdict, verdict, "{has:?} {wanted:?}: {found:?}");
            assert!(found.breaks.contains(breaks), "{found:?}");
            assert!(verdict == Good || found.fix.contains("runner 7"), "{found:?}");
        }
    }

    #[test]
    fn a_token_is_told_in_time_before_it_ends() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().expect("a time");
        let known = |end: Option<&str>| {
            let token_expires_at = end.map(|end| end.parse().expect("a time"));
            judge_token(&Verified::Valid(Known { id: Some(7), token_expires_at }), now).verdict
        };
        assert_eq!(known(None), Good);
        assert_eq!(known(Some("2026-11-25T00:00:01Z")), Good);
        assert_eq!(known(Some("2026-11-24T23:59:59Z")), Warning);
    }
}
