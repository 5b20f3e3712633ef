//! From the bytes of `config.toml` to a [`Config`], or to every mistake in them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use job::secret::ExposeSecret;
use toml::de::DeTable;

use super::runner::{host, runner};
use super::section::{CONFIG_TOML, Report, Section};
use super::{Config, LogFormat, Mistakes, Outside, Remark, Runner, ecs_toml, keys, labels, listen};

/// A file that can be used.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// What the file says without effect, and what is unwise in it.
    pub warnings: Vec<Remark>,
}

/// Reads a configuration file. `$NAME` and `${NAME}` in `url` and `token` are taken from the environment.
pub fn load(file: &Path) -> Result<Loaded, Mistakes> {
    load_noting(file, &|_| ())
}

/// The same; `note` hears of every file before it is read.
pub(super) fn load_noting(file: &Path, note: &dyn Fn(&Path)) -> Result<Loaded, Mistakes> {
    let ecs_toml = |file: &Path| {
        note(file);
        ecs_toml::load(file)
    };
    note(file);
    let outside = Outside { environment: &|name| env::var(name).ok(), ecs_toml: &ecs_toml };
    let mut loaded = read_beside(file, &read_text(file)?, &outside)?;
    loaded.warnings.extend(readable_by_others(file));
    Ok(loaded)
}

/// For whoever is not the manager: `text` as it would be in `file`, and `environment` answers for `$NAME`.
pub fn load_as(file: &Path, text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Mistakes> {
    read_beside(file, text, &Outside { environment, ecs_toml: &ecs_toml::load })
}

fn read_beside(file: &Path, text: &str, outside: &Outside) -> Result<Loaded, Mistakes> {
    let mut loaded = read(file, text, outside)?;
    for runner in &mut loaded.config.runners {
        use_certificates_beside(file, runner);
    }
    Ok(loaded)
}

pub(crate) fn read_text(file: &Path) -> Result<String, Mistakes> {
    let mistake = |line, message| Mistakes(vec![Remark { file: file.to_owned(), line, message }]);
    let bytes = fs::read(file).map_err(|error| mistake(None, format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        mistake(Some(line), "this line is not UTF-8 text; save the file as UTF-8".to_owned())
    })
}

/// What serves a runner that names no certificates: `certs/<host>.crt` and its siblings beside `config.toml` (protocol 0.6).
pub struct Certificates {
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Certificates {
    pub fn beside(config_file: &Path, url: &str) -> Self {
        let certificates = config_file.with_file_name("certs");
        let host = host(url).unwrap_or_default();
        let existing = |ending: &str| Some(certificates.join(format!("{host}{ending}"))).filter(|path| path.is_file());
        Self {
            ca: existing(".crt").or_else(|| private_authority(&certificates)),
            client: existing(".auth.crt").zip(existing(".auth.key")),
        }
    }
}

fn use_certificates_beside(file: &Path, runner: &mut Runner) {
    let beside = Certificates::beside(file, &runner.url);
    runner.tls_ca_file = runner.tls_ca_file.take().or(beside.ca);
    if let (None, Some((cert, key))) = (&runner.tls_cert_file, beside.client) {
        (runner.tls_cert_file, runner.tls_key_file) = (Some(cert), Some(key));
    }
}

/// As the images of GitLab's runner have it: the file `CA_CERTIFICATES_PATH`, or `certs/ca.crt`.
fn private_authority(certificates: &Path) -> Option<PathBuf> {
    let named = env::var_os("CA_CERTIFICATES_PATH").filter(|path| !path.is_empty());
    Some(named.map_or_else(|| certificates.join("ca.crt"), PathBuf::from)).filter(|path| path.is_file())
}

fn readable_by_others(file: &Path) -> Option<Remark> {
    let mode = fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| Remark {
        file: file.to_owned(),
        line: None,
        message: format!("other users can read the tokens in it (mode {:o}); chmod 600 it", mode & 0o777),
    })
}

/// The pure part.
pub(super) fn read(file: &Path, text: &str, outside: &Outside) -> Result<Loaded, Mistakes> {
    let mut report = Report::new(file, text, &CONFIG_TOML);
    let config = read_into(&mut report, text, outside);
    let Report { mistakes, warnings, .. } = report;
    match config {
        Some(config) if mistakes.is_empty() => Ok(Loaded { config, warnings: in_order(file, warnings) }),
        _ => Err(Mistakes(in_order(file, mistakes))),
    }
}

/// By lines, each once; those of other files that this one names come last.
pub(crate) fn in_order(file: &Path, mut remarks: Vec<Remark>) -> Vec<Remark> {
    let key = |remark: &Remark| (remark.file != file, remark.file.clone(), remark.line);
    remarks.sort_by_key(key);
    remarks.dedup();
    remarks
}

/// Answers nothing when the text is not TOML; what it answers beside reported mistakes must not be used.
pub(super) fn read_into<'t>(report: &mut Report<'t>, text: &'t str, outside: &Outside) -> Option<Config> {
    let table = parse(report, text)?;
    let has = |name: &str| table.keys().any(|key| key.get_ref() == name);
    if has("Fargate") && !has("runners") {
        // A word on each of its keys would say less.
        report.mistake(0, "this is the file of a Fargate driver (ecs.toml), not a config.toml: see docs/migrate.md");
        return None;
    }
    Some(config(Section::root(report, &table), outside))
}

pub(crate) fn parse<'t>(report: &mut Report<'t>, text: &'t str) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        report.mistake(at, format!("not valid TOML: {}", error.message()));
    }
    // What a broken file seems to say further on would only bury the real mistake.
    errors.is_empty().then(|| table.into_inner())
}

fn config(mut section: Section, outside: &Outside) -> Config {
    let concurrent = section.at_least_one("concurrent");
    if concurrent.is_none() {
        section.missing("concurrent", "say how many jobs may run at once, such as `concurrent = 10`");
    }
    let labels = labels::labels(&mut section);
    let mut config = Config {
        concurrent: concurrent.unwrap_or(1),
        check_interval: section.seconds("check_interval").unwrap_or(Duration::from_secs(3)),
        log_level: section.one_of("log_level", LOG_LEVELS).unwrap_or(tracing::Level::INFO),
        log_format: section.one_of("log_format", LOG_FORMATS).unwrap_or(LogFormat::Runner),
        shutdown_timeout: section.seconds("shutdown_timeout").unwrap_or(Duration::from_secs(30)),
        listen_address: listen::listen_address_in(&mut section),
        runners: runners(&mut section, outside),
    };
    let connection_max_age = section.duration("connection_max_age").unwrap_or(gitlab::CONNECTION_MAX_AGE);
    config.runners.iter_mut().for_each(|runner| runner.connection_max_age = connection_max_age);
    labels::spread(&mut section, labels, &mut config.runners);
    section.finish(keys::GLOBAL_WITHOUT_EFFECT);
    config
}

/// GitLab's names; `fatal` and `panic` are levels that only its runner has.
const LOG_LEVELS: &[(&str, tracing::Level)] = &[
    ("debug", tracing::Level::DEBUG),
    ("info", tracing::Level::INFO),
    ("warn", tracing::Level::WARN),
    ("error", tracing::Level::ERROR),
    ("fatal", tracing::Level::ERROR),
    ("panic", tracing::Level::ERROR),
];

const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("runner", LogFormat::Runner), ("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Two entries with one name could not be told apart in the log; two with one token would each end the other's
/// tasks, for ECS knows a runner by its token.
fn runners(section: &mut Section, outside: &Outside) -> Vec<Runner> {
    let read = section.sections("runners", |section| {
        let at = section.at;
        (at, runner(section, outside))
    });
    if read.is_empty() {
        section.report.warning(0, "there is no [[runners]] entry: no job will come until one is added");
    }
    for (index, (at, runner)) in read.iter().enumerate() {
        let earlier = &read[..index];
        if earlier.iter().any(|(_, other)| other.name == runner.name) {
            section.mistake(*at, format!("a runner before this one is called \"{}\" too: rename one", runner.name));
        }
        let token = runner.token.expose_secret();
        if !token.is_empty() && earlier.iter().any(|(_, other)| other.token.expose_secret() == token) {
            section.mistake(*at, "a runner before this one has the same token: register a runner for each environment");
        }
    }
    read.into_iter().map(|(_, runner)| runner).collect()
}
