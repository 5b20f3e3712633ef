//! What a job's variables tell the runner itself: how to get the sources, how often to try, how long to wait.

use std::time::Duration;

use crate::payload::Payload;
use crate::variables::{Variables, parse_bool};

/// GitLab's default for `RUNNER_AFTER_SCRIPT_TIMEOUT` (protocol 7.5).
const AFTER_SCRIPT_TIMEOUT: Duration = Duration::from_secs(300);
/// `CACHE_REQUEST_TIMEOUT`: no job of GitLab's may take longer than a month.
const MOST_MINUTES: i64 = 31 * 24 * 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitStrategy {
    Clone,
    Fetch,
    /// The directory stays as it is.
    None,
    /// The directory is made anew and nothing is put into it.
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submodules {
    None,
    Normal,
    Recursive,
    /// Any other word: the stage must fail.
    Unknown,
}

/// The settings of one job (protocol 7.3.1, 7.5, 7.6). Values that cannot be used are replaced by the
/// default, with a warning for the job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub strategy: GitStrategy,
    pub checkout: bool,
    /// Empty: no `git clean`.
    pub clean_flags: Vec<String>,
    pub fetch_flags: Vec<String>,
    pub submodules: Submodules,
    pub submodule_depth: u32,
    pub submodule_paths: Vec<String>,
    pub submodule_update_flags: Vec<String>,
    /// SSH addresses of GitLab are read as HTTPS ones.
    pub submodules_over_https: bool,
    /// For `git clone`, with `FF_USE_GIT_NATIVE_CLONE`.
    pub clone_flags: Vec<String>,
    /// LFS files stay pointers; otherwise they are pulled after the checkout.
    pub lfs_skip_smudge: bool,
    pub get_sources_attempts: u32,
    pub restore_cache_attempts: u32,
    /// For one request to the store of caches, its body included.
    pub cache_request_timeout: Duration,
    pub artifact_download_attempts: u32,
    /// The manager's: secrets are there before a task is.
    pub secrets_retrieval_attempts: u32,
    pub script_timeout: Option<Duration>,
    pub after_script_timeout: Duration,
    pub after_script_ignores_errors: bool,
    /// Scripts are traced.
    pub debug_trace: bool,
    /// Services are not started, so all that this does is to hide the log.
    pub debug_services: bool,
}

impl Settings {
    pub fn read(variables: &Variables, payload: &Payload, debug_trace_disabled: bool) -> (Self, Vec<String>) {
        let mut reader = Reader { variables, warnings: variables.warnings.clone() };
        let timeout = Duration::from_secs(payload.timeout_seconds());
        // A stage cannot be repeated in another environment once scripts have run, and a task that is lost earlier is
        // replaced anyway: only what is wrong with the number is said.
        reader.attempts("EXECUTOR_JOB_SECTION_ATTEMPTS");
        let mut debug = |key| {
            let on = reader.boolean(key, false);
            if on && debug_trace_disabled {
                reader.warnings.push(format!("{key}: usage is disabled on this Runner"));
            }
            on && !debug_trace_disabled
        };
        let (debug_trace, debug_services) = (debug("CI_DEBUG_TRACE"), debug("CI_DEBUG_SERVICES"));
        let settings = Self {
            strategy: reader.strategy(if payload.allow_git_fetch { GitStrategy::Fetch } else { GitStrategy::Clone }),
            checkout: reader.boolean("GIT_CHECKOUT", true),
            clean_flags: reader.words_or("GIT_CLEAN_FLAGS", "-ffdx"),
            fetch_flags: reader.words_or("GIT_FETCH_EXTRA_FLAGS", "--prune --quiet"),
            submodules: match reader.text("GIT_SUBMODULE_STRATEGY").as_str() {
                "" | "none" => Submodules::None,
                "normal" => Submodules::Normal,
                "recursive" => Submodules::Recursive,
                _ => Submodules::Unknown,
            },
            submodule_depth: u32::try_from(reader.number("GIT_SUBMODULE_DEPTH", payload.git_info.depth.into()))
                .unwrap_or(0),
            submodule_paths: words(&reader.text("GIT_SUBMODULE_PATHS")),
            submodule_update_flags: words(&reader.text("GIT_SUBMODULE_UPDATE_FLAGS")),
            submodules_over_https: reader.boolean("GIT_SUBMODULE_FORCE_HTTPS", false),
            clone_flags: words(&reader.text("GIT_CLONE_EXTRA_FLAGS")),
            lfs_skip_smudge: reader.boolean("GIT_LFS_SKIP_SMUDGE", false),
            get_sources_attempts: reader.attempts("GET_SOURCES_ATTEMPTS"),
            restore_cache_attempts: reader.attempts("RESTORE_CACHE_ATTEMPTS"),
            cache_request_timeout: reader.minutes("CACHE_REQUEST_TIMEOUT", 10),
            artifact_download_attempts: reader.attempts("ARTIFACT_DOWNLOAD_ATTEMPTS"),
            secrets_retrieval_attempts: reader.attempts("SECRETS_RETRIEVAL_ATTEMPTS"),
            script_timeout: reader.timeout("RUNNER_SCRIPT_TIMEOUT", timeout),
            after_script_timeout: reader
                .timeout("RUNNER_AFTER_SCRIPT_TIMEOUT", timeout)
                .unwrap_or(AFTER_SCRIPT_TIMEOUT),
            after_script_ignores_errors: reader.boolean("AFTER_SCRIPT_IGNORE_ERRORS", true),
            debug_trace,
            debug_services,
        };
        (settings, reader.warnings)
    }

    /// Whether GitLab shows the log to those only who may change the project: it may hold secrets (protocol 8.6).
    pub fn hides_the_log(&self) -> bool {
        self.debug_trace || self.debug_services
    }
}

struct Reader<'a> {
    variables: &'a Variables,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> String {
        self.variables.get(key).unwrap_or_default().trim().to_owned()
    }

    fn boolean(&mut self, key: &str, default: bool) -> bool {
        let text = self.text(key);
        parse_bool(&text).unwrap_or_else(|| {
            if !text.is_empty() {
                self.warnings.push(format!("{key}: expected bool got {text:?}, using default value: {default}"));
            }
            default
        })
    }

    fn number(&mut self, key: &str, default: i64) -> i64 {
        let text = self.text(key);
        text.parse().unwrap_or_else(|_| {
            if !text.is_empty() {
                self.warnings.push(format!("{key}: expected int got {text:?}, using default value: {default}"));
            }
            default
        })
    }

    fn minutes(&mut self, key: &str, default: i64) -> Duration {
        let number = self.number(key, default);
        if number > MOST_MINUTES {
            self.warnings.push(format!("{key}: number of minutes out of range, clamping to: {MOST_MINUTES}"));
        }
        let minutes = if number > 0 { number.min(MOST_MINUTES) } else { default };
        Duration::from_secs(60 * minutes.unsigned_abs())
    }

    fn attempts(&mut self, key: &str) -> u32 {
        let number = self.number(key, 1);
        let clamped = number.clamp(1, 10);
        if clamped != number {
            self.warnings.push(format!("{key}: number of attempts out of the range [1, 10], clamping to: {clamped}"));
        }
        // 1 to 10.
        clamped as u32
    }

    /// 0 and anything unusable leave the default; longer than the job is as long as the job.
    fn timeout(&mut self, key: &str, of_job: Duration) -> Option<Duration> {
        let text = self.text(key);
        if text.is_empty() {
            return None;
        }
        match parse_duration(&text) {
            None => {
                let how = if parse_duration(text.trim_start_matches('-')).is_some() { "relative" } else { "malformed" };
                self.warnings.push(format!("Ignoring {how} {key} timeout: {text}"));
                None
            }
            Some(Duration::ZERO) => None,
            Some(duration) if duration > of_job => {
                self.warnings.push(format!("{key} timeout: {text} is longer than job timeout. Setting to job timeout"));
                Some(of_job)
            }
            Some(duration) => Some(duration),
        }
    }

    fn strategy(&mut self, default: GitStrategy) -> GitStrategy {
        match self.text("GIT_STRATEGY").as_str() {
            "" => default,
            "clone" => GitStrategy::Clone,
            "fetch" => GitStrategy::Fetch,
            "none" => GitStrategy::None,
            "empty" => GitStrategy::Empty,
            other => {
                let used = if default == GitStrategy::Fetch { "fetch" } else { "clone" };
                self.warnings.push(format!(
                    "GIT_STRATEGY: expected either 'clone', 'fetch', 'none' or 'empty' got {other:?}, using default value '{used}'"
                ));
                default
            }
        }
    }

    fn words_or(&self, key: &str, default: &str) -> Vec<String> {
        match self.text(key).as_str() {
            "" => words(default),
            "none" => Vec::new(),
            text => words(text),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A Go duration: `1h30m`, `90s`, `1.5h`, `250ms`. Negative ones are refused.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| digits + at);
        seconds += number
            * match &rest[digits..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Received;
    use crate::variables::tests::{gitlab, runner};

    fn read(variables: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let variables: Vec<_> =
            variables.iter().map(|(key, value)| serde_json::json!({"key": key, "value": value})).collect();
        let body = serde_json::json!({
            "id": 1, "allow_git_fetch": true, "git_info": {"depth": 20}, "runner_info": {"timeout": 3600}, "variables": variables,
        });
        let payload = Received::parse(body.to_string().as_bytes()).expect("a payload").payload;
        Settings::read(&Variables::resolve(&payload, &runner(), &gitlab(), &[]), &payload, false)
    }

    #[test]
    fn a_job_without_settings_gets_gitlabs_defaults() {
        let (settings, warnings) = read(&[]);
        assert_eq!(settings.strategy, GitStrategy::Fetch);
        assert_eq!(settings.clean_flags, ["-ffdx"]);
        assert_eq!(settings.fetch_flags, ["--prune", "--quiet"]);
        assert_eq!(settings.submodule_depth, 20);
        assert_eq!(settings.get_sources_attempts, 1);
        assert_eq!((settings.script_timeout, settings.after_script_timeout), (None, Duration::from_secs(300)));
        assert!(settings.checkout && settings.after_script_ignores_errors && !settings.debug_trace);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn every_unusable_value_is_named_once_and_replaced() {
        let (settings, warnings) = read(&[
            ("GIT_STRATEGY", "svn"),
            ("GIT_CHECKOUT", "maybe"),
            ("GET_SOURCES_ATTEMPTS", "12"),
            ("ARTIFACT_DOWNLOAD_ATTEMPTS", "many"),
            ("RUNNER_SCRIPT_TIMEOUT", "-5s"),
            ("RUNNER_AFTER_SCRIPT_TIMEOUT", "2h"),
        ]);
        assert_eq!((settings.strategy, settings.checkout), (GitStrategy::Fetch, true));
        assert_eq!((settings.get_sources_attempts, settings.artifact_download_attempts), (10, 1));
        assert_eq!((settings.script_timeout, settings.after_script_timeout), (None, Duration::from_secs(3600)));
        assert_eq!(
            warnings,
            [
                "GIT_STRATEGY: expected either 'clone', 'fetch', 'none' or 'empty' got \"svn\", using default value 'fetch'",
                "GIT_CHECKOUT: expected bool got \"maybe\", using default value: true",
                "GET_SOURCES_ATTEMPTS: number of attempts out of the range [1, 10], clamping to: 10",
                "ARTIFACT_DOWNLOAD_ATTEMPTS: expected int got \"many\", using default value: 1",
                "Ignoring relative RUNNER_SCRIPT_TIMEOUT timeout: -5s",
                "RUNNER_AFTER_SCRIPT_TIMEOUT timeout: 2h is longer than job timeout. Setting to job timeout",
            ]
        );
    }

    #[test]
    fn a_request_to_the_store_of_caches_has_minutes_within_reason() {
        for (text, minutes, warned) in [
            ("", 10, false),
            ("0", 10, false),
            ("-1", 10, false),
            ("90", 90, false),
            ("9223372036854775807", 44640, true),
            ("many", 10, true),
        ] {
            let (settings, warnings) = read(&[("CACHE_REQUEST_TIMEOUT", text)]);
            assert_eq!(settings.cache_request_timeout, Duration::from_secs(60 * minutes), "{text}");
            assert_eq!(!warnings.is_empty(), warned, "{text}: {warnings:?}");
        }
    }

    #[test]
    fn none_turns_git_flags_off() {
        let (settings, _) = read(&[("GIT_CLEAN_FLAGS", "none"), ("GIT_FETCH_EXTRA_FLAGS", " --tags  -v ")]);
        assert!(settings.clean_flags.is_empty());
        assert_eq!(settings.fetch_flags, ["--tags", "-v"]);
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in
            [("90s", 90.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("250ms", 0.25), ("0", 0.0), ("10µs", 1e-5)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "5", "-1s", "1 s", "s", "1x", "1.2.3s", "1e400s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
