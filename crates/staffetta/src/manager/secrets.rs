//! Secrets: fetched before a task is asked for, and before the job's time-out begins to count (protocol 7.1). A job that
//! does not get them costs no task.

use std::collections::BTreeMap;
use std::time::Duration;

use aws::fargate::Fargate;
use futures::stream::{self, StreamExt};
use job::hand_over::ResolvedSecret;
use job::outcome::Outcome;
use job::payload::{Payload, SecretEntry};
use job::secret::{ExposeSecret, SecretString};
use job::settings::Settings;
use job::variables::Variables;

use super::errand::{End, Errand};
use super::job_log::JobLog;
use crate::secrets::{Secret, SecretError, Servers};

/// A job chooses what its secrets are and which servers have them, and every job's are in the memory of one manager.
const MOST_SECRETS: usize = 200;
const MOST_BYTES: usize = 8 << 20;
const AT_ONCE: usize = 8;

/// Which variable is to get which secret.
type Wanted<'a> = BTreeMap<&'a str, Secret>;

/// Fetches the job's secrets, a few at a time, and puts them among its variables, or says why it cannot have them.
pub async fn resolve(errand: &mut Errand<'_>, payload: &Payload, variables: &mut Variables) -> Result<(), End> {
    let Errand { shared, runner, settings, gitlab, log, interrupts, .. } = errand;
    if payload.secrets.is_empty() {
        return Ok(());
    }
    let attempts = Settings::read(variables, payload, settings.debug_trace_disabled).0.secrets_retrieval_attempts;
    let exponential = variables.flag("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY");
    let mut wanted = Wanted::new();
    let mut known = Vec::new();
    for attempt in 1..=attempts {
        log.section("resolve_secrets", "Resolving secrets");
        if attempt == 1 {
            wanted = read(&payload.secrets, variables, log).map_err(|error| failed(&error))?;
        }
        let fetched = tokio::select! {
            fetched = fetch(&wanted, room(&known), &shared.secret_servers, &runner.fargate) => fetched,
            end = interrupts.next() => return Err(end),
        };
        let fetched = fetched.map_err(|error| failed(&error))?;
        let error = keep(fetched, &mut wanted, &mut known, variables.flag("FF_SECRET_RESOLVING_FAILS_IF_MISSING"));
        let Some(error) = error else { break };
        if attempt == attempts {
            return Err(failed(&error));
        }
        log.warn(&format!("{error}. Retrying..."));
        tokio::select! {
            () = tokio::time::sleep(pause(attempt, exponential)) => {}
            end = interrupts.next() => return Err(end),
        }
    }
    *variables = Variables::resolve(payload, settings, gitlab, &known);
    log.mask(variables.trace_settings(payload, settings));
    errand.secrets = known;
    Ok(())
}

/// Says what will be done about each entry. One that no runner knows the provider of is left out, as GitLab's runner does.
fn read<'a>(
    entries: &'a BTreeMap<String, SecretEntry>,
    variables: &Variables,
    log: &JobLog,
) -> Result<Wanted<'a>, SecretError> {
    if entries.len() > MOST_SECRETS {
        let message = format!("the job has {} secrets, and at most {MOST_SECRETS} are fetched for one", entries.len());
        return Err(SecretError::Configuration(message));
    }
    let mut wanted = Wanted::new();
    for (key, SecretEntry(entry)) in entries {
        log.say(&format!("Resolving secret {key:?}..."));
        match Secret::read(entry, &|text| variables.expand(text)) {
            Ok(Some(secret)) => {
                log.say(&format!("Using {:?} secret resolver...", secret.resolver()));
                wanted.insert(key, secret);
            }
            Ok(None) => log.warn("Not resolved: no resolver that can handle the secret"),
            Err(error) => return Err(named(key, error)),
        }
    }
    Ok(wanted)
}

/// What became of each secret.
type Fetched<'a> = Vec<(&'a str, Result<SecretString, SecretError>)>;

/// Ends as soon as the values are more than `room`: what was asked for and is not there yet is dropped.
async fn fetch<'a>(
    wanted: &Wanted<'a>,
    mut room: usize,
    servers: &Servers,
    fargate: &Fargate,
) -> Result<Fetched<'a>, SecretError> {
    let asked: Vec<_> = wanted.iter().map(async |(key, secret)| (*key, secret.fetch(servers, fargate).await)).collect();
    let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut fetched = Fetched::new();
    while let Some((key, answer)) = answers.next().await {
        let bytes = answer.as_ref().map_or(0, |value| value.expose_secret().len());
        room = room.checked_sub(bytes).ok_or_else(|| {
            let most = MOST_BYTES >> 20;
            SecretError::Configuration(format!("the values of the job's secrets are more than {most} MiB together"))
        })?;
        fetched.push((key, answer));
    }
    // What is said of several does not depend on who was first.
    fetched.sort_by_key(|(key, _)| *key);
    Ok(fetched)
}

/// How many bytes there may still come.
fn room(known: &[ResolvedSecret]) -> usize {
    MOST_BYTES.saturating_sub(known.iter().map(|secret| secret.value.expose_secret().len()).sum())
}

/// Takes those that are there over into `known`; `wanted` keeps the others. The error is the one that matters most: what
/// somebody has to correct, before what may pass.
fn keep<'a>(
    fetched: Fetched<'a>,
    wanted: &mut Wanted<'a>,
    known: &mut Vec<ResolvedSecret>,
    fails_if_missing: bool,
) -> Option<SecretError> {
    let mut worst = None;
    for (key, fetched) in fetched {
        let value = match fetched {
            Ok(value) => value,
            // As in GitLab's runner the variable is there, and empty.
            Err(SecretError::Missing(_)) if !fails_if_missing => SecretString::default(),
            Err(error) => {
                let may_pass = |error: &SecretError| matches!(error, SecretError::Unavailable(_));
                if worst.as_ref().is_none_or(may_pass) {
                    worst = Some(named(key, error));
                }
                continue;
            }
        };
        if let Some(secret) = wanted.remove(key) {
            known.push(ResolvedSecret { key: key.to_owned(), value, file: secret.file });
        }
    }
    worst
}

fn named(key: &str, error: SecretError) -> SecretError {
    match error {
        SecretError::Configuration(reason) => SecretError::Configuration(format!("{key}: {reason}")),
        SecretError::Missing(reason) => SecretError::Missing(format!("{key}: {reason}")),
        SecretError::Unavailable(reason) => SecretError::Unavailable(format!("{key}: {reason}")),
        SecretError::Unexpected(reason) => SecretError::Unexpected(format!("{key}: {reason}")),
    }
}

fn failed(error: &SecretError) -> End {
    Outcome::SystemFailed { failure: error.failure(), message: format!("resolving secrets: {error}") }.into()
}

/// How long to wait after a failed attempt, counted from 1 (protocol 10.7, FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY).
fn pause(attempt: u32, exponential: bool) -> Duration {
    let (first, most) = if exponential { (5, 300) } else { (1, 5) };
    Duration::from_secs(2u64.saturating_pow(attempt - 1).saturating_mul(first).min(most))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(keys: &[&'static str]) -> Wanted<'static> {
        let entry = json!({"aws_secrets_manager": {"secret_id": "db"}, "file": false});
        let secret = || Secret::read(&entry, &str::to_owned).expect("readable").expect("a secret");
        keys.iter().map(|key| (*key, secret())).collect()
    }

    #[test]
    fn pauses_grow_as_those_of_gitlabs_runner() {
        let seconds = |exponential| (1..=10).map(move |attempt| pause(attempt, exponential).as_secs());
        assert_eq!(seconds(true).collect::<Vec<_>>(), [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]);
        assert_eq!(seconds(false).collect::<Vec<_>>(), [1, 2, 4, 5, 5, 5, 5, 5, 5, 5]);
    }

    #[test]
    fn what_is_there_is_not_asked_for_again_and_what_must_be_corrected_is_said_first() {
        let (mut wanted, mut known) = (wanted(&["A", "B", "C"]), Vec::new());
        let fetched = vec![
            ("A", Err(SecretError::Unavailable("away".into()))),
            ("B", Ok("hunter2".into())),
            ("C", Err(SecretError::Configuration("denied".into()))),
        ];
        let error = keep(fetched, &mut wanted, &mut known, true);
        assert_eq!(error, Some(SecretError::Configuration("C: denied".into())));
        assert_eq!(wanted.keys().copied().collect::<Vec<_>>(), ["A", "C"]);
        assert_eq!((known[0].key.as_str(), known[0].value.expose_secret(), known[0].file), ("B", "hunter2", false));
    }

    #[test]
    fn a_missing_value_fails_unless_the_flag_is_off() {
        for fails in [true, false] {
            let (mut wanted, mut known) = (wanted(&["A"]), Vec::new());
            let error = keep(vec![("A", Err(SecretError::Missing("nothing".into())))], &mut wanted, &mut known, fails);
            assert_eq!(error.is_some(), fails);
            assert_eq!(
                known.iter().map(|secret| secret.value.expose_secret()).collect::<Vec<_>>(),
                if fails { vec![] } else { vec![""] }
            );
        }
    }
}
