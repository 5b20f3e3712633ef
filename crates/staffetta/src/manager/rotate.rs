//! Rotate: a token that expires is replaced in time, in GitLab and in `config.toml` (protocol 1.4).
//!
//! It stays the same runner: its jobs go on, and its tasks are found by the old token until the last one is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use aws::fargate::Regions;
use jiff::{SignedDuration, Timestamp};
use job::ids::{ShortToken, SystemId};
use job::secret::ExposeSecret;
use tracing::{error, info, warn};

use super::runner::Runner;
use super::{LAST_REPORTS, Shared, lock};
use crate::config;
use crate::metrics::Metrics;
use crate::registration::entries::{self, Entry, Given, Gone, replace_token};
use crate::registration::new_version::NewVersion;
use crate::registration::old_tokens::{self, OldToken};
use crate::registration::renew::{By, Failure, renew};

/// Tokens live for days at least; a look at the clock is cheap.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// After a token was renewed or could not be; and where that is for a person to change.
const REST: Duration = Duration::from_secs(10 * 60);
const LONG_REST: Duration = Duration::from_secs(24 * 3600);
/// Between two tries to write down a token that GitLab gave.
const WRITE_AGAIN: Duration = Duration::from_secs(5);
/// A launch that was under way when the token was replaced still starts its task under the old one.
const LAST_LAUNCH: Duration = Duration::from_secs(3600);
/// After this, no task of a runner that left the configuration is looked for, should it come back.
const LEFT: SignedDuration = SignedDuration::from_hours(30 * 24);
const SWITCHED_OFF: &str = "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION";

/// A runner as it was under a token that was replaced: it is not asked for jobs, but its tasks are looked for.
pub struct Former {
    pub runner: Arc<Runner>,
    replaced_at: Timestamp,
}

/// Whether a token is to be replaced: at three quarters of its life. Of one whose beginning nobody wrote down, at once. One
/// that was given without any life is not: the next would be the same.
fn due(now: Timestamp, obtained_at: Option<Timestamp>, expires_at: Option<Timestamp>) -> bool {
    let Some(expires_at) = expires_at else { return false };
    let Some(obtained_at) = obtained_at else { return true };
    let life = expires_at.duration_since(obtained_at);
    // A quarter before the end: three quarters of a very long life could not be added.
    life.is_positive() && now.duration_since(expires_at) >= -(life / 4)
}

/// An old token is of no use once ECS has no task of it, and none can come any more.
fn may_be_forgotten(listed: Option<usize>, replaced_at: Timestamp, now: Timestamp) -> bool {
    listed == Some(0) && now.duration_since(replaced_at).unsigned_abs() > LAST_LAUNCH
}

/// Of a runner that is in the configuration no more nothing can be asked of ECS; it may be back soon.
fn is_long_gone(replaced_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(replaced_at) > LEFT
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

/// Until when a runner's token is left alone. By the runner's name: a new token must not make it due again at once.
struct Rest {
    until: Instant,
    /// What was changed in the file may be what was in the way.
    ends_with_reload: bool,
}

impl Rest {
    fn after_renewal() -> Self {
        Self { until: Instant::now() + REST, ends_with_reload: false }
    }

    fn until_changed(most: Duration) -> Self {
        Self { until: Instant::now() + most, ends_with_reload: true }
    }
}

/// Until the manager stops.
pub async fn run(shared: Arc<Shared>, config_file: PathBuf) {
    let mut stop = shared.stop.subscribe();
    let mut rests = BTreeMap::<String, Rest>::new();
    loop {
        let runners = lock(&shared.runners).clone();
        for runner in runners {
            let settings = &runner.settings;
            if rests.get(&settings.name).is_some_and(|rest| Instant::now() < rest.until) {
                continue;
            }
            let rest = match decide(settings, Timestamp::now()) {
                Decision::Leave => continue,
                Decision::Warn => {
                    warn!(runner = %settings.name, expires_at = ?settings.token_expires_at, "the runner's token is about to expire, and {SWITCHED_OFF} forbids to renew it");
                    Rest::until_changed(LONG_REST)
                }
                // Seen to its end: GitLab's answer is the only copy of the token.
                Decision::Renew => tokio::select! {
                    rest = one(&shared, &runner, &config_file) => rest,
                    () = too_late(&shared) => {
                        error!(runner = %settings.name, "stopped while the runner's token was renewed: should GitLab refuse the one in the file, reset it there");
                        return;
                    }
                },
            };
            rests.insert(settings.name.clone(), rest);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = shared.reloaded.notified() => rests.retain(|_, rest| !rest.ends_with_reload),
            _ = stop.wait_for(|stop| !stop.asks_for_jobs()) => return,
        }
    }
}

async fn too_late(shared: &Shared) {
    let mut stop = shared.stop.subscribe();
    let _ = stop.wait_for(|stop| !stop.asks_for_jobs()).await;
    tokio::time::sleep(LAST_REPORTS).await;
}

/// Renews one token. Answers how long the runner is left alone now.
async fn one(shared: &Arc<Shared>, runner: &Runner, config_file: &Path) -> Rest {
    let name = &runner.settings.name;
    let entry = match entry_of(runner, config_file) {
        Ok(entry) => entry,
        Err(error) => {
            warn!(runner = %name, %error, "the runner's token is due, and cannot be renewed yet");
            return Rest::until_changed(REST);
        }
    };
    match renew(config_file, &entry, &runner.client, By::Runner).await {
        Ok(given) => {
            take_up(shared, &entry, &given);
            Rest::after_renewal()
        }
        Err(Failure::Unwritten { given, aside, error }) => {
            shared.metrics.configuration_saved(false);
            error!(runner = %name, error = %format!("{error:#}"), also_in = ?aside, "GitLab renewed the runner's token, and it cannot be written; trying again");
            // Beside this loop: the tokens of the other runners are not to expire meanwhile.
            shared.start_job(write_again(shared.clone(), config_file.to_owned(), entry, *given, aside));
            Rest::after_renewal()
        }
        Err(Failure::Refused(error)) => {
            error!(runner = %name, %error, expires_at = ?runner.settings.token_expires_at, "GitLab does not renew the runner's token; trying again later");
            Rest::until_changed(REST)
        }
        Err(Failure::NotTried(error)) => {
            warn!(runner = %name, error = %format!("{error:#}"), expires_at = ?runner.settings.token_expires_at, "the runner's token is about to expire, and cannot be renewed");
            Rest::until_changed(if entry.has_token_in_file() { REST } else { LONG_REST })
        }
    }
}

fn take_up(shared: &Shared, entry: &Entry, given: &Given) {
    let new = ShortToken::of(given.token.expose_secret());
    info!(runner = %entry.name, old = %entry.short_token(), %new, expires_at = ?given.expires_at, "renewed the runner's token");
    shared.metrics.configuration_saved(true);
    shared.renewed.notify_one();
}

/// A file that the manager would not take must not get a token that only the file has.
fn entry_of(runner: &Runner, config_file: &Path) -> anyhow::Result<Entry> {
    config::load(config_file).map_err(|_| anyhow!("{} has mistakes", config_file.display()))?;
    let token = runner.settings.token.expose_secret();
    let entry = entries::load(config_file)?.into_iter().find(|entry| entry.token.expose_secret() == token);
    entry.context("the file has another token for it, and was not taken up yet")
}

/// Until the token is written, or nobody has a place for it any more. A stop waits for one more try only: what could not
/// be written for so long will not be in a moment.
async fn write_again(shared: Arc<Shared>, config_file: PathBuf, entry: Entry, given: Given, aside: Option<PathBuf>) {
    let mut stop = shared.stop.subscribe();
    loop {
        let is_last = tokio::select! {
            () = tokio::time::sleep(WRITE_AGAIN) => false,
            _ = stop.wait_for(|stop| !stop.asks_for_jobs()) => true,
        };
        let written = NewVersion::of(&config_file).and_then(|place| replace_token(place, &config_file, &entry, &given));
        let Err(error) = written else { break };
        let error_text = format!("{error:#}");
        if is_last || error.is::<Gone>() {
            error!(runner = %entry.name, error = %error_text, also_in = ?aside, "the new token is not written; where the runner is wanted on, take it from that file or reset it in GitLab");
            return;
        }
        error!(runner = %entry.name, error = %error_text, "the new token cannot be written");
    }
    if let Some(aside) = aside {
        let _ = std::fs::remove_file(aside);
    }
    take_up(&shared, &entry, &given);
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

/// The runners as they were under their old tokens. Those of runners that left the file long ago are forgotten.
pub async fn former(
    config_file: Option<&PathBuf>,
    old: Vec<OldToken>,
    runners: &[Arc<Runner>],
    regions: &Regions,
    metrics: &Metrics,
    system_id: &SystemId,
) -> Vec<Arc<Former>> {
    let mut former = Vec::new();
    for OldToken { runner: name, token, replaced_at } in old {
        let Some(now) = runners.iter().find(|runner| runner.settings.name == name) else {
            if let Some(config_file) = config_file.filter(|_| is_long_gone(replaced_at, Timestamp::now()))
                && let Err(error) = old_tokens::forget(config_file, &token)
            {
                warn!(runner = %name, %error, "cannot forget an old token");
            }
            continue;
        };
        if now.settings.token.expose_secret() == token.expose_secret() {
            continue;
        }
        let settings = config::Runner { token, ..now.settings.clone() };
        match Runner::connect(settings, regions, metrics, now.state.clone(), system_id).await {
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
    fn a_token_that_was_given_without_a_life_is_not_due_for_the_next_would_be_the_same() {
        let given = at("2026-01-01T00:00:00Z");
        for expires in ["2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z"] {
            assert!(!due(given, Some(given), Some(at(expires))));
            assert!(!due(at("2026-03-01T00:00:00Z"), Some(given), Some(at(expires))));
        }
    }

    #[test]
    fn a_token_that_was_renewed_rests_through_a_reload() {
        assert!(!Rest::after_renewal().ends_with_reload && Rest::until_changed(LONG_REST).ends_with_reload);
        assert!(Rest::after_renewal().until > Instant::now() + LOOK_INTERVAL, "not with every look at the clock");
    }

    #[test]
    fn an_old_token_of_a_runner_that_left_is_kept_for_some_time() {
        let replaced = at("2026-01-01T00:00:00Z");
        assert!(!is_long_gone(replaced, at("2026-01-30T00:00:00Z")));
        assert!(is_long_gone(replaced, at("2026-02-01T00:00:00Z")));
        assert!(!is_long_gone(replaced, at("2025-01-01T00:00:00Z")), "a clock that was set back");
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
