//! The feature flags of GitLab's runner: every one is exported to scripts, and this table says what it does here
//! (protocol 8.2, 10.7).

use std::collections::BTreeMap;

use crate::expansion::expand_text;
use crate::hand_over::RunnerSettings;
use crate::payload::Payload;
use crate::variables::parse_bool;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The flag does here what it does in GitLab's runner.
    ActedOn,
    /// It changes nothing, for a reason that the log gives to whoever sets it.
    None(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub name: &'static str,
    pub default: bool,
    pub effect: Effect,
}

const fn on(name: &'static str, effect: Effect) -> Flag {
    Flag { name, default: true, effect }
}

const fn off(name: &'static str, effect: Effect) -> Flag {
    Flag { name, default: false, effect }
}

const CONTAINERS: Effect = Effect::None("it is for executors that start containers themselves");
const KUBERNETES: Effect = Effect::None("it is for Kubernetes");
const WINDOWS: Effect = Effect::None("it is for Windows and PowerShell");
const FLEETING: Effect = Effect::None("it is for autoscaled machines");
const STEPS: Effect = Effect::None("scripts run in a shell; `run:` needs the program step-runner in the image");
const UMASK: Effect = Effect::None("one user makes all files of a job, so there is no `umask 0000`");
const STORAGE: Effect = Effect::None("there is one way to the cache's storage");

/// In the order in which GitLab's runner lists them.
pub const FLAGS: [Flag; 51] = [
    off("FF_NETWORK_PER_BUILD", Effect::ActedOn),
    off("FF_USE_LEGACY_KUBERNETES_EXECUTION_STRATEGY", KUBERNETES),
    on("FF_USE_DIRECT_DOWNLOAD", Effect::ActedOn),
    on("FF_USE_FASTZIP", Effect::None("there is one archiver")),
    off("FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR", UMASK),
    off("FF_ENABLE_BASH_EXIT_CODE_CHECK", Effect::ActedOn),
    off("FF_USE_WINDOWS_LEGACY_PROCESS_STRATEGY", WINDOWS),
    off("FF_USE_LEGACY_BASH_EVAL", Effect::ActedOn),
    off("FF_USE_POWERSHELL_PATH_RESOLVER", WINDOWS),
    off("FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL", Effect::None("a silent job is reported twice a minute anyway")),
    off("FF_SCRIPT_SECTIONS", Effect::ActedOn),
    off("FF_ENABLE_JOB_CLEANUP", Effect::ActedOn),
    // Whatever the container starts with is in its task definition, and so is whether that is the image's entrypoint.
    off("FF_KUBERNETES_HONOR_ENTRYPOINT", Effect::None("the task definition says what the container starts with")),
    // One kind of quotes is used, which every POSIX shell reads.
    off("FF_POSIXLY_CORRECT_ESCAPES", Effect::None("quotes are always those of POSIX")),
    off("FF_RESOLVE_FULL_TLS_CHAIN", Effect::None("CI_SERVER_TLS_CA_FILE has the whole chain that GitLab sends")),
    off("FF_DISABLE_POWERSHELL_STDIN", WINDOWS),
    on("FF_USE_POD_ACTIVE_DEADLINE_SECONDS", KUBERNETES),
    off("FF_USE_ADVANCED_POD_SPEC_CONFIGURATION", KUBERNETES),
    on("FF_SECRET_RESOLVING_FAILS_IF_MISSING", Effect::ActedOn),
    off("FF_PRINT_POD_EVENTS", KUBERNETES),
    on("FF_USE_GIT_BUNDLE_URIS", Effect::ActedOn),
    off("FF_USE_GIT_NATIVE_CLONE", Effect::ActedOn),
    off("FF_USE_DUMB_INIT_WITH_KUBERNETES_EXECUTOR", KUBERNETES),
    off("FF_USE_INIT_WITH_DOCKER_EXECUTOR", CONTAINERS),
    off("FF_LOG_IMAGES_CONFIGURED_FOR_JOB", CONTAINERS),
    on("FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO", FLEETING),
    off("FF_CLEAN_UP_FAILED_CACHE_EXTRACT", Effect::ActedOn),
    off("FF_USE_WINDOWS_JOB_OBJECT", WINDOWS),
    on("FF_TIMESTAMPS", Effect::ActedOn),
    off("FF_DISABLE_AUTOMATIC_TOKEN_ROTATION", Effect::ActedOn),
    off("FF_USE_LEGACY_GCS_CACHE_ADAPTER", STORAGE),
    off("FF_DISABLE_UMASK_FOR_KUBERNETES_EXECUTOR", UMASK),
    off("FF_USE_LEGACY_S3_CACHE_ADAPTER", STORAGE),
    off("FF_GIT_URLS_WITHOUT_TOKENS", Effect::ActedOn),
    off("FF_WAIT_FOR_POD_TO_BE_REACHABLE", KUBERNETES),
    on("FF_MASK_ALL_DEFAULT_TOKENS", Effect::ActedOn),
    off("FF_EXPORT_HIGH_CARDINALITY_METRICS", Effect::None("the metrics have one set of labels")),
    off("FF_USE_FLEETING_ACQUIRE_HEARTBEATS", FLEETING),
    on("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", Effect::ActedOn),
    on("FF_USE_ADAPTIVE_REQUEST_CONCURRENCY", Effect::ActedOn),
    on("FF_USE_GITALY_CORRELATION_ID", Effect::ActedOn),
    off("FF_USE_GIT_PROACTIVE_AUTH", Effect::ActedOn),
    off("FF_HASH_CACHE_KEYS", Effect::ActedOn),
    on("FF_ENABLE_JOB_INPUTS_INTERPOLATION", Effect::ActedOn),
    off("FF_USE_JOB_ROUTER", Effect::None("jobs are asked for at GitLab's API")),
    off("FF_SCRIPT_TO_STEP_MIGRATION", STEPS),
    off("FF_USE_PARALLEL_CACHE_TRANSFER", STORAGE),
    off("FF_USE_PARALLEL_ARTIFACT_TRANSFER", Effect::None("an artifact comes in one stream")),
    off("FF_CONCRETE", STEPS),
    off("FF_SUSPENDABLE_ENVIRONMENTS", Effect::None("a task ends with its job")),
    off("FF_USE_NATIVE_CONTAINER_STOP", CONTAINERS),
];

/// The flags of one job.
#[derive(Debug, Clone)]
pub struct Flags {
    on: BTreeMap<&'static str, bool>,
    /// About values that are neither true nor false, and about flags without effect.
    pub warnings: Vec<String>,
}

impl Flags {
    /// Job and runner may both set a flag; the runner's word is the last (protocol 8.2). The job's value may hold
    /// references to its variables.
    pub fn resolve(payload: &Payload, runner: &RunnerSettings) -> Self {
        let of_runner = |name: &str| {
            let set = |entry: &&String| entry.split_once('=').is_some_and(|(key, _)| key == name);
            runner.environment.iter().rfind(set).and_then(|entry| Some(entry.split_once('=')?.1))
        };
        let value = |name: &str| payload.variable(name).or_else(|| of_runner(name));
        let mut warnings = Vec::new();
        let mut resolve = |flag: &Flag| {
            let text = value(flag.name).map(|text| expand_text(text, |name| value(name).unwrap_or_default().into()));
            let of_job = text.filter(|text| !text.is_empty()).and_then(|text| {
                let parsed = parse_bool(&text);
                if parsed.is_none() {
                    warnings.push(format!("{}: could not parse feature flag, expected bool, got {text}", flag.name));
                }
                parsed
            });
            if let (Effect::None(reason), Some(on)) = (flag.effect, of_job)
                && on != flag.default
            {
                warnings.push(format!("{} has no effect here: {reason}", flag.name));
            }
            let on = runner.feature_flags.get(flag.name).copied().or(of_job).unwrap_or(flag.default);
            (flag.name, on)
        };
        let on = FLAGS.iter().map(&mut resolve).collect();
        Self { on, warnings }
    }

    /// A name that is no flag is off.
    pub fn on(&self, name: &str) -> bool {
        self.on.get(name).copied().unwrap_or(false)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.on.contains_key(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.on.iter().map(|(name, on)| (*name, *on))
    }

    /// The flags that differ from their defaults, for the head of the log (protocol 4.10): `FF_X:true, FF_Y:false`.
    pub fn unusual(&self) -> String {
        let unusual = FLAGS.iter().map(|flag| (flag, self.on(flag.name))).filter(|(flag, on)| *on != flag.default);
        unusual.map(|(flag, on)| format!("{}:{on}", flag.name)).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::variables::tests::{payload, runner};

    #[test]
    fn the_runner_beats_the_job_and_the_job_beats_the_default() {
        let mut runner = runner();
        runner.environment = vec!["FF_HASH_CACHE_KEYS=true".into(), "FF_SCRIPT_SECTIONS=false".into()];
        runner.feature_flags = BTreeMap::from([("FF_TIMESTAMPS".into(), false)]);
        let payload = payload(
            r#"[{"key":"YES","value":"1"},{"key":"FF_TIMESTAMPS","value":"true"},{"key":"FF_SCRIPT_SECTIONS","value":"$YES"}]"#,
        );
        let flags = Flags::resolve(&payload, &runner);
        assert!(flags.on("FF_HASH_CACHE_KEYS") && flags.on("FF_SCRIPT_SECTIONS") && !flags.on("FF_TIMESTAMPS"));
        assert!(flags.on("FF_USE_DIRECT_DOWNLOAD") && !flags.on("FF_CONCRETE") && !flags.on("FF_NO_FLAG"));
        assert_eq!(flags.unusual(), "FF_SCRIPT_SECTIONS:true, FF_TIMESTAMPS:false, FF_HASH_CACHE_KEYS:true");
        assert!(flags.warnings.is_empty(), "{:?}", flags.warnings);
    }

    /// The Rust sources of the programs, without this table.
    fn sources(directory: &Path) -> String {
        let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        let mut text = String::new();
        for path in entries.filter(|path| !path.ends_with("flags.rs")) {
            match path.extension() {
                None if path.is_dir() => text += &sources(&path),
                Some(extension) if extension == "rs" => text += &std::fs::read_to_string(path).expect("a source"),
                _ => {}
            }
        }
        text
    }

    #[test]
    fn the_table_says_what_the_programs_do() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of all crates");
        let text: String =
            ["job", "gitlab", "agent", "staffetta"].map(|name| sources(&crates.join(name).join("src"))).concat();
        for flag in &FLAGS {
            let asked = text.contains(&format!("\"{}\"", flag.name));
            assert_eq!(asked, flag.effect == Effect::ActedOn, "{}", flag.name);
        }
    }

    #[test]
    fn a_value_that_is_no_bool_and_a_flag_without_effect_are_told() {
        let payload = payload(
            r#"[{"key":"FF_HASH_CACHE_KEYS","value":"perhaps"},{"key":"FF_TIMESTAMPS","value":""},
               {"key":"FF_PRINT_POD_EVENTS","value":"true"},{"key":"FF_USE_FASTZIP","value":"true"}]"#,
        );
        let flags = Flags::resolve(&payload, &runner());
        assert!(flags.on("FF_TIMESTAMPS") && !flags.on("FF_HASH_CACHE_KEYS"));
        assert_eq!(
            flags.warnings,
            [
                "FF_PRINT_POD_EVENTS has no effect here: it is for Kubernetes",
                "FF_HASH_CACHE_KEYS: could not parse feature flag, expected bool, got perhaps",
            ]
        );
    }
}
