//! What a file says, and what its writer is told.

mod caches;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use job::payload::JobInfo;
use job::secret::ExposeSecret;
use toml::de::DeTable;

use super::ecs_toml::EcsToml;
use super::read::{self, load, read_into};
use super::runner::host;
use super::section::{CONFIG_TOML, Report};
use super::{Loaded, Mistakes, Outside, Remark, is_exceeded, keys};

const EXAMPLE: &str = include_str!("../../../../examples/config.toml");

const MINIMAL: &str = r#"concurrent = 2
[[runners]]
name = "dev"
url = "https://gitlab.example.com"
token = "glrt-t1_abcdefghijkl"
executor = "fargate"
[runners.fargate]
cluster = "ci-dev"
subnets = ["subnet-1"]
security_groups = ["sg-1"]
task_definition = "ci-dev"
"#;

fn no_environment(_: &str) -> Option<String> {
    None
}

fn no_ecs_toml(file: &Path) -> Result<EcsToml, Mistakes> {
    panic!("{} is not named", file.display())
}

/// The file alone: no entry of the Fargate driver is in it.
fn read(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Mistakes> {
    read::read(Path::new("config.toml"), text, &Outside { environment, ecs_toml: &no_ecs_toml })
}

fn usable(text: &str) -> Loaded {
    read(text, &|name| Some(format!("value of {name}"))).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

fn mistakes(text: &str) -> String {
    let mistakes = read(text, &no_environment).map(|_| ()).unwrap_err();
    assert!(!mistakes.0.is_empty());
    mistakes.to_string()
}

pub fn uncommented(text: &str) -> String {
    let is_key = |line: &str| line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[');
    text.lines().fold(String::new(), |mut all, line| {
        let line = line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line);
        writeln!(all, "{line}").unwrap();
        all
    })
}

/// Full paths of all keys, those of tables as well.
pub fn keys_of(table: &DeTable, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        let list = value.get_ref().as_array().into_iter().flatten();
        let tables = list.filter_map(|item| item.get_ref().as_table()).chain(value.get_ref().as_table());
        tables.for_each(|table| keys_of(table, &name, into));
        into.insert(name);
    }
}

#[test]
fn the_smallest_file_gets_gitlabs_defaults() {
    let Loaded { config, warnings } = usable(MINIMAL);
    assert_eq!(warnings, []);
    assert_eq!((config.concurrent, config.check_interval), (2, Duration::from_secs(3)));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(30));
    let [runner] = &config.runners[..] else { panic!("{config:?}") };
    assert_eq!((runner.limit, runner.request_concurrency, runner.strict_check_interval), (None, 1, false));
    assert_eq!((runner.unhealthy_requests_limit, runner.unhealthy_interval), (3, Duration::from_secs(3600)));
    assert_eq!((runner.output_limit, runner.job_status_final_update_retry_limit), (4 << 20, 10));
    assert_eq!(
        (runner.builds_dir.as_str(), runner.cache_dir.as_str(), runner.shell.as_str()),
        ("/builds", "/cache", "")
    );
    assert_eq!((runner.fargate.ssh_user.as_str(), runner.fargate.ssh_port), ("root", 22));
}

#[test]
fn every_key_of_the_example_is_read_and_every_key_that_is_read_stands_in_it() {
    assert_eq!(usable(EXAMPLE).warnings, []);
    let text = uncommented(EXAMPLE);
    assert_eq!(usable(&text).warnings, []);

    let mut report = Report::new(Path::new("config.toml"), &text, &CONFIG_TOML);
    let outside = Outside { environment: &|_| Some("set".to_owned()), ecs_toml: &no_ecs_toml };
    read_into(&mut report, &text, &outside).unwrap();
    let mut in_example = BTreeSet::new();
    keys_of(DeTable::parse(&text).unwrap().get_ref(), "", &mut in_example);
    // The names of flags and labels are free.
    for free in ["runners.feature_flags.FF_TIMESTAMPS", "labels.team", "runners.labels.network"] {
        assert!(in_example.remove(free), "{free}");
    }
    assert_eq!(report.asked, in_example);
}

/// A value that is read but thrown away would be the default in spite of the file.
#[test]
fn every_value_of_the_file_arrives() {
    let text = r#"
concurrent = 0x10
check_interval = 7
log_level = "panic"
log_format = "json"
shutdown_timeout = 90
listen_address = "localhost"
connection_max_age = "5m"
[labels]
team = "of-the-file"
site = "of-the-file"
[[runners]]
name = "prod"
url = "http://[::1]:8080/gitlab"
token = "glrt-x"
token_obtained_at = 2026-01-01T00:00:00Z
token_expires_at = 2026-01-31T00:00:00Z
executor = "fargate"
tls-ca-file = "ca"
tls-cert-file = "cert"
tls-key-file = "key"
limit = 4
request_concurrency = 5
strict_check_interval = true
unhealthy_requests_limit = 6
unhealthy_interval = "1m30s"
output_limit = 1
job_status_final_update_retry_limit = 0
builds_dir = "/b"
cache_dir = "/c"
shell = "sh"
clone_url = "http://clone"
environment = ["A=1", "B="]
pre_get_sources_script = "s1"
post_get_sources_script = "s2"
pre_build_script = "s3"
post_build_script = "s4"
debug_trace_disabled = true
safe_directory_checkout = false
clean_git_config = false
prepare_timeout = "10m"
get_sources_timeout = "11m"
[runners.custom_build_dir]
enabled = false
[runners.artifact]
upload_timeout = "12m"
response_header_timeout = "13m"
[runners.labels]
site = "of-the-runner"
[runners.feature_flags]
FF_TIMESTAMPS = false
[runners.fargate]
cluster = "c"
region = "r"
subnets = ["s"]
security_groups = ["g"]
task_definition = "t"
assign_public_ip = true
use_public_ip = true
platform_version = "1.4.0"
endpoint_url = "http://e"
ssh_user = "ci"
ssh_port = 2222
enable_execute_command = true
propagate_tags = true
allowed_task_definitions = ["t-*"]
role_arn = "arn:aws:iam::111122223333:role/ci"
external_id = "e1"
start_timeout = "5m"
capacity_providers = [{ name = "FARGATE_SPOT", weight = 3 }, { name = "FARGATE", weight = 0, base = 2 }]
"#;
    insta::assert_debug_snapshot!(usable(text).config);
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_line() {
    let text = r#"concurrent = 0
[[runners]]
name = "dev"
url = "gitlab.example.com"
limit = "many"
executor = "fargate"
environment = ["A=1", "B"]
shell = "pwsh"
tls-cert-file = "client.crt"
unhealthy_interval = "soon"
builds_dir = "builds"
[runners.fargate]
cluster = "ci-dev"
subnets = "subnet-1"
use_public_ip = true
ssh_port = 99999
[[runners.fargate.capacity_providers]]
weight = 1
[[runners]]
name = "dev"
executor = "shell"
"#;
    insta::assert_snapshot!(mistakes(text), @r#"
config.toml:1: `concurrent` must be a whole number of 1 or more; it is 0
config.toml:2: `runners.token` is missing: put the `glrt-…` token here that GitLab shows when the runner is created
config.toml:2: `tls-cert-file` and `tls-key-file` belong together: give both or none
config.toml:4: `runners.url` must begin with http:// or https:// and name a host
config.toml:5: `runners.limit` must be a whole number (0 is no limit); it is a text
config.toml:7: entry 2 of `runners.environment` must have the form "KEY=VALUE"
config.toml:8: `runners.shell` must be one of "bash", "sh"
config.toml:10: `runners.unhealthy_interval` must be a duration such as "90s", "15m" or "1h30m"
config.toml:11: `runners.builds_dir` must be an absolute path inside the task, such as "/builds"
config.toml:12: `runners.fargate.task_definition` must name a task definition
config.toml:12: `runners.fargate.security_groups` must name a security group that lets the manager reach the task's SSH port
config.toml:14: `runners.fargate.subnets` must be a list of texts, such as ["one", "two"]; it is a text
config.toml:15: `runners.fargate.use_public_ip` asks for a public address, but tasks are not given any: set both or none
config.toml:16: `runners.fargate.ssh_port` must be a port number; it is 99999
config.toml:17: `runners.fargate.capacity_providers.name` is missing: write "FARGATE" or "FARGATE_SPOT"
config.toml:19: `runners.url` is missing: name the GitLab server, such as `url = "https://gitlab.example.com"`
config.toml:19: `runners.token` is missing: put the `glrt-…` token here that GitLab shows when the runner is created
config.toml:19: a runner before this one is called "dev" too: rename one
config.toml:21: executor = "shell": Staffetta runs jobs on Fargate only: write executor = "fargate" and a [runners.fargate] table"#);
}

#[test]
fn unknown_keys_are_refused_by_name_at_every_level() {
    let text = MINIMAL
        .replace("concurrent = 2", "concurrent = 2\nconcurent = 2\nflavour = \"sweet\"")
        .replace("executor", "tls_ca_file = \"ca.pem\"\nexecutor")
        .replace("cluster", "clusters = [\"ci\"]\ncapacity_providers = [{ name = \"FARGATE\", wieght = 1 }]\ncluster");
    insta::assert_snapshot!(mistakes(&text), @r#"
config.toml:2: `concurent` is not a key of config.toml: did you mean `concurrent`?
config.toml:3: `flavour` is not a key of config.toml: remove it, or see examples/config.toml for the keys there are
config.toml:8: `runners.tls_ca_file` is not a key of config.toml: did you mean `tls-ca-file`?
config.toml:11: `runners.fargate.clusters` is not a key of config.toml: did you mean `cluster`?
config.toml:12: `runners.fargate.capacity_providers.wieght` is not a key of config.toml: did you mean `weight`?"#);
}

#[test]
fn the_file_of_a_fargate_driver_is_recognised() {
    let said = mistakes("LogLevel = \"info\"\n[Fargate]\nCluster = \"ci\"\n[TaskMetadata]\nDirectory = \"/tmp\"\n");
    assert!(said.contains("Fargate driver") && said.contains("docs/migrate.md"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
}

#[test]
fn what_gitlab_knows_and_staffetta_does_not_do_is_a_warning() {
    // As `gitlab-runner register` leaves a file: empty tables, and dates that say "never".
    let registered = "id = 7\ntoken_obtained_at = 2026-01-01T00:00:00Z\ntoken_expires_at = 0001-01-01T00:00:00Z\n\
                      cache.s3 = {}\ncache.gcs = {}\n[runners.fargate]";
    assert_eq!(usable(&MINIMAL.replace("[runners.fargate]", registered)).warnings, []);

    let without_effect = "proxy_exec = true\n\
                          feature_flags.FF_TIMESTAMP = true\n[runners.docker]\nimage = \"a\"\n[runners.fargate]";
    let text = MINIMAL.replace("[runners.fargate]", without_effect);
    let warnings = usable(&format!(
        "sentry_dsn = \"https://sentry.example.com\"\n{text}[session_server]\nsession_timeout = 1800\n"
    ))
    .warnings;
    let lines: Vec<_> = warnings.iter().map(Remark::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
config.toml:1: `sentry_dsn` is understood but has no effect: errors go to the log
config.toml:8: `runners.proxy_exec` is understood but has no effect: the agent masks the whole log
config.toml:9: FF_TIMESTAMP is not a feature flag of GitLab's runner; did you mean FF_TIMESTAMPS?
config.toml:10: `runners.docker` is understood but has no effect: it belongs to another executor than this entry's
config.toml:17: `session_server` is understood but has no effect: there is no web terminal"#);
}

#[test]
fn labels_of_a_runner_stand_over_those_of_the_file_and_are_what_gitlab_takes() {
    let with = |global: &str, own: &str| {
        let text = MINIMAL.replace("concurrent = 2\n", &format!("concurrent = 2\n[labels]\n{global}\n"));
        text.replace("executor", &format!("labels = {{ {own} }}\nexecutor"))
    };
    let runner = usable(&with("team = \"a\"\nsite = \"one\"", "site = \"two\"")).config.runners.remove(0);
    let labels: Vec<_> = runner.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["site=two", "team=a"]);

    let many: String = (0..30).map(|number| format!("label{number} = \"x\"\n")).collect();
    usable(&with(&many, "other1 = \"x\", other2 = \"x\""));
    let told = mistakes(&with(&many, "other1 = \"x\", other2 = \"x\", other3 = \"x\""));
    assert!(told.contains("runner \"dev\" has 33 labels, and GitLab takes 32"), "{told}");
    let told = mistakes(&with("a = \"x\"\nsite = \"two words\"", "deep = 7"));
    insta::assert_snapshot!(told, @r#"
config.toml:3: `labels.a` is not the name of a label: 3 to 65 letters, digits, `.`, `_` or `-`, and neither `.` nor `-` first
config.toml:4: `labels.site` must be 1 to 256 letters, digits, `.`, `_` or `-`
config.toml:9: `runners.labels.deep` must be a text in quotes; it is 7"#);
}

#[test]
fn what_waits_too_long_in_the_queue() {
    let with = |entry: &str| {
        let table = format!("[[runners.monitoring.job_queuing_durations]]\n{entry}\n[runners.fargate]");
        MINIMAL.replace("[runners.fargate]", &table)
    };
    let good = "periods = [\"* * * * * * *\"]\ntimezone = \"UTC\"\nthreshold = \"10s\"";
    let runner = usable(&with(good)).config.runners.remove(0);
    let waited = |seconds| JobInfo { time_in_queue_seconds: seconds, ..JobInfo::default() };
    for (seconds, expected) in [(9.0, false), (11.0, true)] {
        assert_eq!(is_exceeded(&runner.job_queuing_durations, &waited(seconds), jiff::Timestamp::now()), expected);
    }
    let told = mistakes(&with(
        "periods = [\"always\"]\ntimezone = \"Moon/Crater\"\nthreshold = \"soon\"\njobs_running_for_project = \"(\"",
    ));
    insta::assert_snapshot!(told, @r#"
config.toml:8: `runners.monitoring.job_queuing_durations.periods` has "always", which is no period: write seven fields as in crontab(5), for second, minute, hour, day, month, day of the week and year, such as "* * 10-18 * * mon-fri *"
config.toml:9: `runners.monitoring.job_queuing_durations.timezone` must be a time zone such as "Europe/Rome" that this machine knows (tzdata)
config.toml:10: `runners.monitoring.job_queuing_durations.threshold` must be a duration such as "90s", "15m" or "1h30m"
config.toml:11: `runners.monitoring.job_queuing_durations.jobs_running_for_project` must be a regular expression"#);
    let told = mistakes(&with("threshold = \"10s\""));
    insta::assert_snapshot!(told, @r#"config.toml:7: `runners.monitoring.job_queuing_durations.periods` is missing: without one the entry never applies; ["* * * * * * *"] is always"#);
}

/// A key that the manual does not tell is not found by those who need it.
#[test]
fn the_manual_has_every_key() {
    const MANUAL: &str = include_str!("../../../../docs/configuration.md");
    let (text, without_effect) = (uncommented(EXAMPLE), [keys::GLOBAL_WITHOUT_EFFECT, keys::RUNNER_WITHOUT_EFFECT]);
    let mut keys = BTreeSet::new();
    keys_of(DeTable::parse(&text).unwrap().get_ref(), "", &mut keys);
    keys.extend(without_effect.concat().iter().map(|(key, _)| (*key).to_owned()));
    let is_free = |key: &String| key.starts_with("labels.") || key.contains(".labels.") || key.contains("FF_");
    for key in keys.iter().filter(|key| !is_free(key)) {
        let last = key.rsplit('.').next().unwrap();
        let told = [format!("`{last}`"), format!(".{last}]`"), format!("`[{last}]`")];
        assert!(told.iter().any(|told| MANUAL.contains(told)), "{key}");
    }
}

#[test]
fn where_metrics_are_served() {
    let address = |text: &str| usable(&format!("listen_address = {text}\n{MINIMAL}")).config.listen_address;
    assert_eq!(address("\":9100\"").as_deref(), Some(":9100"));
    assert_eq!(address("\"\""), None);
    let told = mistakes(&format!("listen_address = \"http://localhost\"\n{MINIMAL}"));
    assert!(told.starts_with("config.toml:1: `listen_address` "), "{told}");
}

#[test]
fn connections_grow_fifteen_minutes_old_unless_the_file_says_otherwise() {
    let age = |line: &str| usable(&format!("{line}\n{MINIMAL}")).config.runners[0].connection_max_age;
    assert_eq!(age(""), Duration::from_secs(900));
    assert_eq!(age("connection_max_age = \"30s\""), Duration::from_secs(30));
    assert_eq!(age("connection_max_age = \"0s\""), Duration::ZERO, "0 is no limit");
}

#[test]
fn a_file_without_runners_is_taken_and_says_so() {
    let loaded = usable("concurrent = 1\n");
    assert!(loaded.config.runners.is_empty());
    assert!(loaded.warnings[0].message.contains("no [[runners]] entry"));
}

#[test]
fn two_runners_share_neither_a_name_nor_a_token() {
    let entry = &MINIMAL["concurrent = 2\n".len()..];
    let text = format!("{MINIMAL}{entry}");
    let told = mistakes(&text);
    assert!(told.contains("config.toml:12: a runner before this one is called \"dev\" too"), "{told}");
    assert!(told.contains("config.toml:12: a runner before this one has the same token"), "{told}");
    usable(&format!("{MINIMAL}{}", entry.replace("\"dev\"", "\"prod\"").replace("abcdef", "fedcba")));
}

#[test]
fn a_runner_without_a_name_is_called_by_its_short_token() {
    let Loaded { config, .. } = usable(&MINIMAL.replace("name = \"dev\"\n", ""));
    assert_eq!(config.runners[0].name, "abcdefghi");
}

#[test]
fn url_and_token_take_names_from_the_environment() {
    let text =
        MINIMAL.replace("glrt-t1_abcdefghijkl", "${TOKEN}-$PART$").replace("gitlab.example.com", "$HOST:8443/sub");
    let environment = |name: &str| match name {
        "TOKEN" => Some("glrt".to_owned()),
        "PART" => Some("x$HOST".to_owned()),
        "HOST" => Some("h".to_owned()),
        _ => None,
    };
    let loaded = read(&text, &environment).unwrap();
    let runner = &loaded.config.runners[0];
    assert_eq!(runner.url, "https://h:8443/sub");
    assert_eq!(runner.token.expose_secret(), "glrt-x$HOST$", "a value is not looked into again");

    assert_eq!(
        mistakes(&text.replace("$HOST", "h").replace("-$PART$", "")),
        "config.toml:5: `runners.token` takes $TOKEN from the environment, where it is not set"
    );
}

#[test]
fn the_times_of_a_token_are_points_in_time() {
    let with = |line: &str| MINIMAL.replace("executor", &format!("{line}\nexecutor"));
    let text = with("token_obtained_at = 2026-01-01T00:00:00Z\ntoken_expires_at = 2026-01-31 01:00:00+01:00");
    let runner = usable(&text).config.runners.remove(0);
    assert_eq!(runner.token_obtained_at.unwrap().to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(runner.token_expires_at.unwrap().to_string(), "2026-01-31T00:00:00Z");
    for not_one in ["2026-01-01T00:00:00", "2026-01-01", "\"2026-01-01T00:00:00Z\"", "7"] {
        let told = mistakes(&with(&format!("token_expires_at = {not_one}")));
        assert!(told.contains("`runners.token_expires_at` must be a date with its offset"), "{not_one}: {told}");
    }
}

#[test]
fn the_host_of_an_address() {
    for (url, expected) in [
        ("https://gitlab.example.com", Some("gitlab.example.com")),
        ("http://user:pw@gitlab:8080/path", Some("gitlab")),
        ("https://[::1]:8443/", Some("::1")),
        ("gitlab.example.com", None),
        ("https://", None),
        ("https:///path", None),
        ("ssh://gitlab", None),
        ("https://two words", None),
    ] {
        assert_eq!(host(url), expected, "{url}");
    }
}

#[test]
fn no_message_shows_a_token() {
    for broken in [
        MINIMAL.replace("\"glrt-t1_abcdefghijkl\"", "glrt-t1_abcdefghijkl"),
        MINIMAL.replace("\"glrt-t1_abcdefghijkl\"", "\"glrt-t1_abcdefghijkl"),
        MINIMAL.replace("\"glrt-t1_abcdefghijkl\"", "[\"glrt-t1_abcdefghijkl\"]"),
        MINIMAL.replace("concurrent = 2", "concurrent = \"glrt-t1_abcdefghijkl\""),
        MINIMAL.replace("executor", "shell = \"glrt-t1_abcdefghijkl\"\nexecutor"),
    ] {
        let told = mistakes(&broken);
        assert!(!told.contains("abcdefghi"), "{told}");
    }
    assert!(!format!("{:?}", usable(MINIMAL)).contains("abcdefghi"));
}

/// A file that is being written: whatever part of it is there, the answer is a mistake with a line or a config.
#[test]
fn every_beginning_of_a_file_is_answered() {
    let text = uncommented(EXAMPLE);
    let lines = text.lines().count();
    for end in (0..text.len()).step_by(5).filter(|end| text.is_char_boundary(*end)) {
        if let Err(mistakes) = read(&text[..end], &|_| Some("set".to_owned())) {
            assert!(!mistakes.0.is_empty());
            assert!(mistakes.0.iter().all(|mistake| mistake.line.unwrap() <= lines), "{mistakes}");
        }
    }
}

#[test]
fn a_file_that_is_not_toml_tells_where() {
    let told = mistakes(&MINIMAL.replace("cluster = \"ci-dev\"", "cluster = \"ci-dev"));
    assert!(told.starts_with("config.toml:8: not valid TOML: "), "{told}");
}

#[test]
fn a_file_that_is_not_text_or_not_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    assert!(load(&file).unwrap_err().to_string().contains("cannot be read: No such file"));
    fs::write(&file, b"concurrent = 1\nlog_level = \"\xff\"\n").unwrap();
    let told = load(&file).unwrap_err().to_string();
    assert_eq!(told, format!("{}:2: this line is not UTF-8 text; save the file as UTF-8", file.display()));
}

#[test]
fn a_file_that_others_can_read_is_taken_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    fs::write(&file, MINIMAL).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o644, 1), (0o640, 1)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load(&file).unwrap().warnings.len(), warnings, "mode {mode:o}");
    }
}

#[test]
fn certificates_beside_the_file_serve_a_runner_that_names_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    fs::write(&file, MINIMAL).unwrap();
    assert_eq!(load(&file).unwrap().config.runners[0].tls_ca_file, None);

    let certificates = directory.path().join("certs");
    fs::create_dir(&certificates).unwrap();
    fs::write(certificates.join("ca.crt"), "pem").unwrap();
    assert_eq!(load(&file).unwrap().config.runners[0].tls_ca_file, Some(certificates.join("ca.crt")));

    for name in ["gitlab.example.com.crt", "gitlab.example.com.auth.crt", "gitlab.example.com.auth.key"] {
        fs::write(certificates.join(name), "pem").unwrap();
    }
    let runner = load(&file).unwrap().config.runners.remove(0);
    assert_eq!(runner.tls_ca_file, Some(certificates.join("gitlab.example.com.crt")));
    assert_eq!(runner.tls_key_file, Some(certificates.join("gitlab.example.com.auth.key")));

    fs::write(&file, MINIMAL.replace("executor", "tls-ca-file = \"mine.pem\"\nexecutor")).unwrap();
    assert_eq!(load(&file).unwrap().config.runners[0].tls_ca_file, Some("mine.pem".into()));
}
