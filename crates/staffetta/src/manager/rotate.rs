//! Rotate: a token that expires is replaced in time, in GitLab and in `config.toml` (protocol 1.4).
//!
//! It stays the same runner: its jobs go on, and its tasks are found by the old token until the last one is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use aws::fargate::Regions;
use jiff::Timestamp;
use job::ids::ShortToken;
use job::secret::ExposeSecret;
use tracing::{error, info, warn};

use super::runner::Runner;
use super::{LAST_REPORTS, Shared, lock};
use crate::config;
use crate::registration::entries::{self, Entry, Given, replace_token};
use crate::registration::new_version::NewVersion;
use crate::registration::old_tokens::{self, OldToken};
use crate::registration::renew::{By, Failure, renew};

/// Tokens live for days at least; a look at the clock is cheap.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// After a token could not be renewed; and where that is for a person to change.
const REST: Duration = Duration::from_secs(10 * 60);
const LONG_REST: Duration = Duration::from_secs(24 * 3600);
/// Between two tries to write down a token that GitLab gave.
const WRITE_AGAIN: Duration = Duration::from_secs(5);
/// A launch that was under way when the token was replaced still starts its task under the old one.
const LAST_LAUNCH: Duration = Duration::from_secs(3600);
const SWITCHED_OFF: &str = "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION";

/// A runner as it was under a token that was replaced: it is not asked for jobs, but its tasks are looked for.
pub struct Former {
    pub runner: Arc<Runner>,
    replaced_at: Timestamp,
}

/// Whether a token is to be replaced: at three quarters of its life. Of one whose beginning nobody wrote down, at once.
fn due(now: Timestamp, obtained_at: Option<Timestamp>, expires_at: Option<Timestamp>) -> bool {
    let Some(expires_at) = expires_at else { return false };
    let Some(obtained_at) = obtained_at else { return true };
    let life = expires_at.duration_since(obtained_at);
    // A quarter before the end: three quarters of a very long life could not be added.
    now.duration_since(expires_at) >= -(life / 4)
}

/// An old token is of no use once ECS has no task of it, and none can come any more.
fn may_be_forgotten(listed: Option<usize>, replaced_at: Timestamp, now: Timestamp) -> bool {
    listed == Some(0) && now.duration_since(replaced_at).unsigned_abs() > LAST_LAUNCH
}

/// What a pass decides about one runner.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Leave,
    Warn,
    Renew,
}

fn decide(runner: &config::Runner, now: Timestamp) -> Decision {
    if !due(now, runner.token_obtained_at, runner.token_expires_at) {
        return Decision::Leave;
    }
    if runner.feature_flags.get(SWITCHED_OFF) == Some(&true) { Decision::Warn } else { Decision::Renew }
}

/// Until the manager stops.
pub async fn run(shared: Arc<Shared>, config_file: PathBuf) {
    let mut stop = shared.stop.subscribe();
    let mut rests = BTreeMap::<ShortToken, Instant>::new();
    loop {
        let runners = lock(&shared.runners).clone();
        for runner in runners {
            if rests.get(&runner.short_token).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            let rest = match decide(&runner.settings, Timestamp::now()) {
                Decision::Leave => continue,
                Decision::Warn => {
                    let settings = &runner.settings;
                    warn!(runner = %settings.name, expires_at = ?settings.token_expires_at, "the runner's token is about to expire, and {SWITCHED_OFF} forbids to renew it");
                    LONG_REST
                }
                // Seen to its end: between GitLab's answer and the file, the token is nowhere else.
                Decision::Renew => tokio::select! {
                    rest = one(&shared, &runner, &config_file) => rest,
                    () = too_late(&shared) => {
                        error!(runner = %runner.settings.name, "stopped while the runner's token was renewed: should GitLab refuse the one in the file, reset it there");
                        return;
                    }
                },
            };
            rests.insert(runner.short_token.clone(), Instant::now() + rest);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            // What was changed may be what was in the way.
            () = shared.reloaded.notified() => rests.clear(),
            _ = stop.wait_for(|stop| !stop.asks_for_jobs()) => return,
        }
    }
}

async fn too_late(shared: &Shared) {
    let mut stop = shared.stop.subscribe();
    let _ = stop.wait_for(|stop| !stop.asks_for_jobs()).await;
    tokio::time::sleep(LAST_REPORTS).await;
}

/// Renews one token. Answers how long this token is left alone now.
async fn one(shared: &Shared, runner: &Runner, config_file: &Path) -> Duration {
    let name = &runner.settings.name;
    let entry = match entry_of(runner, config_file) {
        Ok(entry) => entry,
        Err(error) => {
            warn!(runner = %name, %error, "the runner's token is due, and cannot be renewed yet");
            return REST;
        }
    };
    let given = match renew(config_file, &entry, &runner.client, By::Runner).await {
        Ok(given) => given,
        Err(Failure::Unwritten { given, error }) => {
            error!(runner = %name, error = %format!("{error:#}"), "GitLab renewed the runner's token, and it cannot be written; trying again");
            write_again(config_file, &entry, &given).await;
            *given
        }
        Err(Failure::Refused(error)) => {
            error!(runner = %name, %error, expires_at = ?runner.settings.token_expires_at, "GitLab does not renew the runner's token; trying again later");
            return REST;
        }
        Err(Failure::NotTried(error)) => {
            warn!(runner = %name, error = %format!("{error:#}"), expires_at = ?runner.settings.token_expires_at, "the runner's token is about to expire, and cannot be renewed");
            return if entry.has_token_in_file() { REST } else { LONG_REST };
        }
    };
    let token = ShortToken::of(given.token.expose_secret());
    info!(runner = %name, old = %runner.short_token, new = %token, expires_at = ?given.expires_at, "renewed the runner's token");
    shared.renewed.notify_one();
    LONG_REST
}

/// A file that the manager would not take must not get a token that only the file has.
fn entry_of(runner: &Runner, config_file: &Path) -> anyhow::Result<Entry> {
    config::load(config_file).map_err(|_| anyhow!("{} has mistakes", config_file.display()))?;
    let token = runner.settings.token.expose_secret();
    let entry = entries::load(config_file)?.into_iter().find(|entry| entry.token.expose_secret() == token);
    entry.context("the file has another token for it, and was not taken up yet")
}

async fn write_again(config_file: &Path, entry: &Entry, given: &Given) {
    loop {
        tokio::time::sleep(WRITE_AGAIN).await;
        let written = NewVersion::of(config_file).and_then(|place| replace_token(place, config_file, entry, given));
        match written {
            Ok(()) => return,
            Err(error) => {
                error!(runner = %entry.name, error = %format!("{error:#}"), "the new token cannot be written")
            }
        }
    }
}

/// The tokens that the runners of a configuration had before. A file that cannot be read costs the supervision of
/// some tasks, which run on by themselves.
pub fn old_tokens_beside(config_file: Option<&PathBuf>) -> Vec<OldToken> {
    let loaded = config_file.map(|file| old_tokens::load(file)).unwrap_or(Ok(Vec::new()));
    loaded.unwrap_or_else(|error| {
        error!(%error, "the old tokens cannot be read: tasks that were started with them are not looked for");
        Vec::new()
    })
}

/// Whether `settings` are the runner's with a token that replaced its own.
pub fn is_renewal(runner: &Runner, settings: &config::Runner, old: &[OldToken]) -> bool {
    let token = runner.settings.token.expose_secret();
    old.iter().any(|old| old.runner == settings.name && old.token.expose_secret() == token)
}

/// The runners as they were under their old tokens.
pub async fn former(old: Vec<OldToken>, runners: &[Arc<Runner>], regions: &Regions) -> Vec<Arc<Former>> {
    let mut former = Vec::new();
    for OldToken { runner: name, token, replaced_at } in old {
        let Some(now) = runners.iter().find(|runner| runner.settings.name == name) else { continue };
        if now.settings.token.expose_secret() == token.expose_secret() {
            continue;
        }
        let settings = config::Runner { token, ..now.settings.clone() };
        match Runner::connect(settings, regions, now.state.clone()).await {
            Ok(runner) => former.push(Arc::new(Former { runner: Arc::new(runner), replaced_at })),
            Err(error) => error!(runner = %name, %error, "cannot look for the tasks of an old token"),
        }
    }
    former
}

/// Called after a look at ECS.
pub fn forget_if_useless(shared: &Shared, former: &Arc<Former>, listed: Option<usize>) {
    if !may_be_forgotten(listed, former.replaced_at, Timestamp::now()) {
        return;
    }
    let Some(config_file) = shared.config_file.get() else { return };
    match old_tokens::forget(config_file, &former.runner.settings.token) {
        Ok(()) => {
            lock(&shared.former).retain(|other| !Arc::ptr_eq(other, former));
            info!(runner = %former.runner.settings.name, token = %former.runner.short_token, "the last task of an old token is gone");
        }
        Err(error) => warn!(runner = %former.runner.settings.name, %error, "cannot forget an old token"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_is_due_at_three_quarters_of_its_life() {
        let (obtained, expires) = (Some(at("2026-01-01T00:00:00Z")), Some(at("2026-01-05T00:00:00Z")));
        assert!(!due(at("2026-01-03T23:59:59Z"), obtained, expires));
        assert!(due(at("2026-01-04T00:00:00Z"), obtained, expires));
        assert!(due(at("2026-02-01T00:00:00Z"), obtained, expires), "GitLab may still take it: it is worth a try");
        assert!(!due(at("2025-01-01T00:00:00Z"), obtained, expires), "a clock that was set back");
    }

    #[test]
    fn a_token_without_an_end_is_never_due_and_one_without_a_beginning_at_once() {
        let now = at("2026-01-01T00:00:00Z");
        assert!(!due(now, Some(at("2020-01-01T00:00:00Z")), None));
        assert!(due(now, None, Some(at("2030-01-01T00:00:00Z"))));
        assert!(!due(now, Some(Timestamp::MIN), Some(Timestamp::MAX)), "the longest life that there is");
    }

    #[test]
    fn an_old_token_is_kept_while_a_task_of_it_is_there_or_may_come() {
        let (replaced, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T02:00:00Z"));
        assert!(may_be_forgotten(Some(0), replaced, now));
        assert!(!may_be_forgotten(Some(1), replaced, now));
        assert!(!may_be_forgotten(None, replaced, now), "ECS could not be asked");
        assert!(!may_be_forgotten(Some(0), replaced, at("2026-01-01T00:30:00Z")), "a launch may be under way");
    }
}
