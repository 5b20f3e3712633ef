//! Reads one `[[runners]]` entry.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use aws::fargate::{CapacityProvider, FargateConfig};
use job::flags::{Effect, FLAGS, Flag};
use job::ids::ShortToken;
use job::secret::SecretString;

use super::cache::cache;
use super::ecs_toml::START_TIMEOUT;
use super::section::{Found, Section};
use super::{Outside, Runner, custom, keys, labels, queuing};

pub fn runner(mut section: Section, outside: &Outside) -> Runner {
    let url = url(&mut section, outside);
    let token = expanded(&mut section, "token", outside);
    if token.is_none() {
        section.missing("token", "put the `glrt-…` token here that GitLab shows when the runner is created");
    }
    // A secret that was made with `echo` ends in a line end, which no header may have.
    let token = token.map(|found| found.value.trim().to_owned()).unwrap_or_default();
    section.skip("id");
    let name = section.filled_text("name").map(|found| found.value);
    let (tls_cert_file, tls_key_file) = (section.path("tls-cert-file"), section.path("tls-key-file"));
    if tls_cert_file.is_some() != tls_key_file.is_some() {
        section.mistake(section.at, "`tls-cert-file` and `tls-key-file` belong together: give both or none");
    }
    let (artifact_upload_timeout, artifact_response_header_timeout) = artifact_timeouts(&mut section);
    let Place { fargate, start_timeout } = executor(&mut section, outside).unwrap_or_else(Place::unknown);
    let runner = Runner {
        name: name.unwrap_or_else(|| ShortToken::of(&token).as_str().to_owned()),
        url,
        token: SecretString::from(token),
        token_obtained_at: section.date("token_obtained_at"),
        token_expires_at: section.date("token_expires_at"),
        tls_ca_file: section.path("tls-ca-file"),
        tls_cert_file,
        tls_key_file,
        // Stands at the head of the file.
        connection_max_age: gitlab::CONNECTION_MAX_AGE,
        limit: section.number("limit", "a whole number (0 is no limit)").and_then(NonZeroUsize::new),
        request_concurrency: section.at_least_one("request_concurrency").unwrap_or(1),
        strict_check_interval: section.flag("strict_check_interval").unwrap_or(false),
        unhealthy_requests_limit: section.at_least_one("unhealthy_requests_limit").unwrap_or(3),
        unhealthy_interval: section.duration("unhealthy_interval").unwrap_or(Duration::from_secs(60 * 60)),
        output_limit: output_limit(&mut section),
        job_status_final_update_retry_limit: section
            .number("job_status_final_update_retry_limit", "a whole number")
            .unwrap_or(10),
        builds_dir: directory(&mut section, "builds_dir", "/builds"),
        cache_dir: directory(&mut section, "cache_dir", "/cache"),
        shell: section.one_of("shell", SHELLS).unwrap_or_default().to_owned(),
        clone_url: section.word("clone_url"),
        custom_build_dir: custom_build_dir(&mut section),
        safe_directory_checkout: section.flag("safe_directory_checkout").unwrap_or(true),
        clean_git_config: section.flag("clean_git_config"),
        prepare_timeout: section.waiting_time("prepare_timeout"),
        get_sources_timeout: section.waiting_time("get_sources_timeout"),
        artifact_upload_timeout,
        artifact_response_header_timeout,
        environment: environment_of_jobs(&mut section),
        pre_get_sources_script: section.word("pre_get_sources_script"),
        post_get_sources_script: section.word("post_get_sources_script"),
        pre_build_script: section.word("pre_build_script"),
        post_build_script: section.word("post_build_script"),
        feature_flags: feature_flags(&mut section),
        debug_trace_disabled: section.flag("debug_trace_disabled").unwrap_or(false),
        labels: labels::labels(&mut section),
        job_queuing_durations: queuing::queuing_durations(&mut section),
        cache: cache(&mut section),
        fargate,
        start_timeout,
    };
    section.finish(keys::RUNNER_WITHOUT_EFFECT);
    runner
}

const SHELLS: &[(&str, &str)] = &[("bash", "bash"), ("sh", "sh")];

fn url(section: &mut Section, outside: &Outside) -> String {
    let Some(found) = expanded(section, "url", outside) else {
        section.missing("url", "name the GitLab server, such as `url = \"https://gitlab.example.com\"`");
        return String::new();
    };
    if host(&found.value).is_none() {
        let name = section.name_of("url");
        section.mistake(found.at, format!("`{name}` must begin with http:// or https:// and name a host"));
    }
    found.value
}

/// Without port and user.
pub fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let host = match authority.strip_prefix('[') {
        Some(ipv6) => ipv6.split(']').next()?,
        None => authority.split(':').next()?,
    };
    (!host.is_empty() && !host.contains(char::is_whitespace)).then_some(host)
}

/// A name that is not set is a mistake: an empty token would be refused by GitLab much later, and without the reason.
fn expanded(section: &mut Section, key: &'static str, outside: &Outside) -> Option<Found<String>> {
    let found = section.filled_text(key)?;
    let (value, missing) = expand(&found.value, outside.environment);
    for name in missing {
        let key = section.name_of(key);
        section.mistake(found.at, format!("`{key}` takes ${name} from the environment, where it is not set"));
    }
    Some(Found { value, ..found })
}

/// The text with `$NAME` and `${NAME}` replaced, and the names that are not set (protocol 0.1).
pub fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> (String, Vec<String>) {
    let (mut value, mut missing) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        value.push_str(before);
        let name_end = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, after_name) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(name_end(after)),
        };
        rest = after_name;
        if name.is_empty() {
            value.push('$');
            continue;
        }
        match environment(name).filter(|value| !value.is_empty()) {
            Some(variable) => value.push_str(&variable),
            None => missing.push(name.to_owned()),
        }
    }
    value.push_str(rest);
    (value, missing)
}

/// KiB in the file, as GitLab has it.
fn output_limit(section: &mut Section) -> u64 {
    let kibibytes: Option<u32> = section.number("output_limit", "a whole number of KiB");
    u64::from(kibibytes.filter(|limit| *limit > 0).unwrap_or(4096)) * 1024
}

fn directory(section: &mut Section, key: &'static str, default: &str) -> String {
    let Some(found) = section.filled_text(key) else { return default.to_owned() };
    if !found.value.starts_with('/') {
        let name = section.name_of(key);
        section.mistake(found.at, format!("`{name}` must be an absolute path inside the task, such as \"{default}\""));
    }
    found.value
}

/// Every job has its own file system, so it may choose where its project lies.
fn custom_build_dir(section: &mut Section) -> bool {
    let Some(mut table) = section.section("custom_build_dir") else { return true };
    let enabled = table.flag("enabled").unwrap_or(true);
    table.finish(&[]);
    enabled
}

/// For one upload, and for the head of GitLab's answer to it.
fn artifact_timeouts(section: &mut Section) -> (Duration, Duration) {
    const UPLOAD: Duration = Duration::from_secs(60 * 60);
    const RESPONSE_HEADER: Duration = Duration::from_secs(10 * 60);
    let Some(mut table) = section.section("artifact") else { return (UPLOAD, RESPONSE_HEADER) };
    let upload = table.duration("upload_timeout").unwrap_or(UPLOAD);
    let header = table.duration("response_header_timeout").unwrap_or(RESPONSE_HEADER);
    table.finish(&[]);
    (upload, header)
}

fn environment_of_jobs(section: &mut Section) -> Vec<String> {
    let Some(found) = section.texts("environment") else { return Vec::new() };
    for (index, entry) in found.value.iter().enumerate() {
        if entry.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
            let name = section.name_of("environment");
            section.mistake(found.at, format!("entry {} of `{name}` must have the form \"KEY=VALUE\"", index + 1));
        }
    }
    found.value
}

fn feature_flags(section: &mut Section) -> BTreeMap<String, bool> {
    let flags = section.flags("feature_flags");
    for (name, found) in &flags {
        match FLAGS.iter().find(|flag| flag.name == name) {
            None => {
                let advice = keys::nearest(name, FLAGS.iter().map(|flag| flag.name))
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                section.report.warning(found.at, format!("{name} is not a feature flag of GitLab's runner{advice}"));
            }
            Some(Flag { effect: Effect::None(reason), default, .. }) if found.value != *default => {
                section.report.warning(found.at, format!("{name} has no effect: {reason}"));
            }
            Some(_) => {}
        }
    }
    flags.into_iter().map(|(name, found)| (name, found.value)).collect()
}

/// Where the jobs of a runner run.
pub struct Place {
    pub fargate: FargateConfig,
    pub start_timeout: Duration,
}

impl Place {
    /// Stands for what could not be read, beside the mistakes that say why.
    fn unknown() -> Self {
        Self { fargate: FargateConfig::default(), start_timeout: START_TIMEOUT }
    }
}

/// `executor` decides which table says where the jobs run. Answers nothing beside a mistake.
fn executor(section: &mut Section, outside: &Outside) -> Option<Place> {
    match section.text("executor") {
        Some(found) if found.value == "fargate" => {}
        Some(found) if found.value == "custom" => return custom::custom(section, outside),
        Some(found) => {
            // The entry's own table is no mistake beside this one.
            section.skip("fargate");
            let advice =
                "Staffetta runs jobs on Fargate only: write executor = \"fargate\" and a [runners.fargate] table";
            section.mistake(found.at, format!("executor = \"{}\": {advice}", found.value));
            return None;
        }
        None => section.missing("executor", "write `executor = \"fargate\"`"),
    }
    match section.section("fargate") {
        Some(table) => Some(fargate(table)),
        None => {
            section.missing("fargate", "add a [runners.fargate] table that says where the jobs run");
            None
        }
    }
}

fn fargate(mut section: Section) -> Place {
    let default = FargateConfig::default();
    let config = FargateConfig {
        cluster: section.word("cluster"),
        region: section.filled_text("region").map(|found| found.value),
        subnets: section.words("subnets"),
        security_groups: section.words("security_groups"),
        task_definition: section.word("task_definition"),
        assign_public_ip: section.flag("assign_public_ip").unwrap_or(default.assign_public_ip),
        use_public_ip: section.flag("use_public_ip").unwrap_or(default.use_public_ip),
        platform_version: section.filled_text("platform_version").map(|found| found.value),
        capacity_providers: section
            .sections("capacity_providers", |table| capacity_provider(table, ["name", "weight", "base"])),
        endpoint_url: section.filled_text("endpoint_url").map(|found| found.value),
        ssh_user: section.filled_text("ssh_user").map_or(default.ssh_user, |found| found.value),
        ssh_port: section.number("ssh_port", "a port number").unwrap_or(default.ssh_port),
        enable_execute_command: section.flag("enable_execute_command").unwrap_or(default.enable_execute_command),
        propagate_tags: section.flag("propagate_tags").unwrap_or(default.propagate_tags),
        allowed_task_definitions: section.texts("allowed_task_definitions").map(|found| found.value),
        role_arn: section.filled_text("role_arn").map(|found| found.value),
        external_id: section.filled_text("external_id").map(|found| found.value),
        credentials: default.credentials,
        role: default.role,
    };
    for mistake in config.mistakes() {
        section.wrong(mistake.key, &mistake.message);
    }
    if config.security_groups.is_empty() {
        section.wrong("security_groups", NO_SECURITY_GROUP);
    }
    let start_timeout = section.waiting_time("start_timeout").unwrap_or(START_TIMEOUT);
    section.finish(&[]);
    Place { fargate: config, start_timeout }
}

/// ECS would take the VPC's default group, which lets nobody from outside it reach port 22.
pub const NO_SECURITY_GROUP: &str = "must name a security group that lets the manager reach the task's SSH port";

/// `keys` are the file's names for name, weight and base.
pub fn capacity_provider(mut section: Section, keys: [&'static str; 3]) -> CapacityProvider {
    let name = section.word(keys[0]);
    if name.is_empty() {
        section.missing(keys[0], "write \"FARGATE\" or \"FARGATE_SPOT\"");
    }
    let weight = section.number(keys[1], "a whole number from 0 to 1000").unwrap_or(1);
    let base = section.number(keys[2], "a whole number from 0 to 100000").unwrap_or(0);
    section.finish(&[]);
    CapacityProvider { name, weight, base }
}
