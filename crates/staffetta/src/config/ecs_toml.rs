//! `ecs.toml`, the configuration of GitLab's Fargate driver: every key that the driver ever had, and ours in its style.

#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws::fargate::{CapacityProvider, ConfigMistake, FargateConfig, role_pattern_mistake};
use tracing::Level;

use super::read::{in_order, parse, read_text};
use super::section::{ECS_TOML, Report, Section};
use super::{LogFormat, Mistakes, Remark, runner};

/// An `ecs.toml` that can be used.
#[derive(Debug, Clone)]
pub struct EcsToml {
    /// The task definitions that a job may ask for are in it too.
    pub fargate: FargateConfig,
    /// None leaves it to the command line.
    pub log_level: Option<Level>,
    /// Text or JSON.
    pub log_format: LogFormat,
    /// None is standard error.
    pub log_file: Option<PathBuf>,
    /// Where the driver keeps what its four calls share; only the driver needs it.
    pub metadata_directory: Option<PathBuf>,
    /// Which roles a job may ask for, as patterns ([`aws::fargate::role_is_allowed`]); none is every one.
    pub allowed_roles: Option<Vec<String>>,
    /// How long ECS may have no room for a task, and how long a task may then take until it lets us in.
    pub start_timeout: Duration,
    /// One try to connect to a task.
    pub connect_timeout: Duration,
    pub warnings: Vec<Remark>,
}

/// A task that did not let us in for so long is given up.
pub const START_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

pub fn load(file: &Path) -> Result<EcsToml, Mistakes> {
    let mut loaded = read(file, &read_text(file)?)?;
    loaded.warnings.extend(writable_by_others(file));
    Ok(loaded)
}

/// The file decides as whom jobs run, and where.
fn writable_by_others(file: &Path) -> Option<Remark> {
    let mode = fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o002 != 0).then(|| Remark {
        file: file.to_owned(),
        line: None,
        message: format!("every user can change it (mode {:o}); chmod 644 it", mode & 0o777),
    })
}

pub(super) fn read(file: &Path, text: &str) -> Result<EcsToml, Mistakes> {
    let mut report = Report::new(file, text, &ECS_TOML);
    let loaded = read_into(&mut report, text);
    let Report { mistakes, warnings, .. } = report;
    match loaded {
        Some(loaded) if mistakes.is_empty() => Ok(EcsToml { warnings: in_order(file, warnings), ..loaded }),
        _ => Err(Mistakes(in_order(file, mistakes))),
    }
}

/// Answers nothing when the text is not TOML; what it answers beside reported mistakes must not be used.
fn read_into<'t>(report: &mut Report<'t>, text: &'t str) -> Option<EcsToml> {
    parse(report, text).map(|table| ecs_toml(Section::root(report, &table)))
}

fn ecs_toml(mut section: Section) -> EcsToml {
    let log_level = section.one_of("LogLevel", LOG_LEVELS);
    let log_format = section.one_of("LogFormat", LOG_FORMATS).unwrap_or(LogFormat::Text);
    let log_file = section.path("LogFile");
    let metadata_directory = section.section("TaskMetadata").and_then(|mut section| {
        let directory = section.path("Directory");
        section.finish(&[]);
        directory
    });
    let ssh = section.section("SSH").map(ssh).unwrap_or_default();
    let found = section.section("Fargate").map(|section| fargate(section, &ssh));
    let Fargate { config, allowed_roles, start_timeout } = found.unwrap_or_else(|| {
        section
            .missing("Fargate", "add a [Fargate] table with Cluster, Region, Subnet, SecurityGroup and TaskDefinition");
        Fargate { config: FargateConfig::default(), allowed_roles: None, start_timeout: START_TIMEOUT }
    });
    section.finish(&[]);
    EcsToml {
        fargate: config,
        log_level,
        log_format,
        log_file,
        metadata_directory,
        allowed_roles,
        start_timeout,
        connect_timeout: ssh.connect_timeout,
        warnings: Vec::new(),
    }
}

/// The driver's names, which are logrus's; the levels that only logrus has get their neighbour.
pub const LOG_LEVELS: &[(&str, Level)] = &[
    ("trace", Level::TRACE),
    ("debug", Level::DEBUG),
    ("info", Level::INFO),
    ("warn", Level::WARN),
    ("warning", Level::WARN),
    ("error", Level::ERROR),
    ("fatal", Level::ERROR),
    ("panic", Level::ERROR),
];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

struct Ssh {
    username: String,
    port: u16,
    connect_timeout: Duration,
}

impl Default for Ssh {
    fn default() -> Self {
        let FargateConfig { ssh_user, ssh_port, .. } = FargateConfig::default();
        Self { username: ssh_user, port: ssh_port, connect_timeout: CONNECT_TIMEOUT }
    }
}

/// Without a user the driver logged in as nobody, which no sshd lets in: so there is no file that the default of
/// config.toml could mislead.
fn ssh(mut section: Section) -> Ssh {
    let default = Ssh::default();
    let port: Option<i64> = section.number("Port", "a port number");
    let port = match port {
        // As the driver has it: 0 and less is the usual port.
        None | Some(..=0) => default.port,
        Some(port) => port.try_into().unwrap_or_else(|_| {
            section.wrong("Port", "must be a port number");
            default.port
        }),
    };
    let ssh = Ssh {
        username: section.filled_text("Username").map_or(default.username, |found| found.value),
        port,
        connect_timeout: section.waiting_time("ConnectTimeout").unwrap_or(default.connect_timeout),
    };
    section.finish(&[]);
    ssh
}

struct Fargate {
    config: FargateConfig,
    allowed_roles: Option<Vec<String>>,
    start_timeout: Duration,
}

fn fargate(mut section: Section, ssh: &Ssh) -> Fargate {
    let default = FargateConfig::default();
    let config = FargateConfig {
        cluster: section.word("Cluster"),
        region: section.filled_text("Region").map(|found| found.value),
        subnets: one_and_many(&mut section, "Subnet", "Subnets"),
        security_groups: one_and_many(&mut section, "SecurityGroup", "SecurityGroups"),
        task_definition: section.word("TaskDefinition"),
        assign_public_ip: section.flag("EnablePublicIP").unwrap_or(default.assign_public_ip),
        // As the driver has it since it has this key; before, a task with a public address was reached by it.
        use_public_ip: section.flag("UsePublicIP").unwrap_or(default.use_public_ip),
        platform_version: section.filled_text("PlatformVersion").map(|found| found.value),
        capacity_providers: capacity_providers(&mut section),
        ssh_user: ssh.username.clone(),
        ssh_port: ssh.port,
        enable_execute_command: section.flag("EnableExecuteCommand").unwrap_or(default.enable_execute_command),
        propagate_tags: section.flag("PropagateTags").unwrap_or(default.propagate_tags),
        allowed_task_definitions: section.texts("AllowedTaskDefinitions").map(|found| found.value),
        ..default
    };
    let allowed_roles = section.texts("AllowedRoles").map(|found| found.value);
    for mistake in allowed_roles.iter().flatten().filter_map(|pattern| role_pattern_mistake(pattern)) {
        section.wrong("AllowedRoles", &mistake);
    }
    for mistake in config.mistakes() {
        section.wrong(key(&section, &mistake), &mistake.message);
    }
    if config.security_groups.is_empty() {
        section.wrong(one_or_many(&section, "SecurityGroup", "SecurityGroups"), runner::NO_SECURITY_GROUP);
    }
    let start_timeout = section.waiting_time("StartTimeout").unwrap_or(START_TIMEOUT);
    section.finish(&[]);
    Fargate { config, allowed_roles, start_timeout }
}

/// The driver's key for one, and ours for several; both count.
fn one_and_many(section: &mut Section, one: &'static str, many: &'static str) -> Vec<String> {
    let one = section.filled_text(one).map(|found| found.value);
    let mut all = Vec::new();
    for name in one.into_iter().chain(section.words(many)) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// Names alone, or tables that say how tasks are spread over them.
fn capacity_providers(section: &mut Section) -> Vec<CapacityProvider> {
    const KEY: &str = "CapacityProviders";
    if section.holds_texts(KEY) {
        let alone = |name| CapacityProvider { name, weight: 1, base: 0 };
        section.words(KEY).into_iter().map(alone).collect()
    } else {
        section.sections(KEY, |table| runner::capacity_provider(table, ["Name", "Weight", "Base"]))
    }
}

/// Where a mistake about both is told.
fn one_or_many(section: &Section, one: &'static str, many: &'static str) -> &'static str {
    if section.contains(many) { many } else { one }
}

/// The key of `ecs.toml` for a mistake that is named by the key of `[runners.fargate]`.
fn key(section: &Section, mistake: &ConfigMistake) -> &'static str {
    match mistake.key {
        "cluster" => "Cluster",
        "subnets" => one_or_many(section, "Subnet", "Subnets"),
        "security_groups" => one_or_many(section, "SecurityGroup", "SecurityGroups"),
        "task_definition" => "TaskDefinition",
        "use_public_ip" => "UsePublicIP",
        "capacity_providers" => "CapacityProviders",
        "allowed_task_definitions" => "AllowedTaskDefinitions",
        other => other,
    }
}
