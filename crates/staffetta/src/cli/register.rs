//! `staffetta register`: the flags and variables of `gitlab-runner register` (protocol 1.6), and ours for Fargate.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use gitlab::{Registration, RunnerScope};
use job::ids::ShortToken;
use job::secret::{ExposeSecret, SecretString};
use tokio::signal::unix::{Signal, SignalKind, signal};
use toml_edit::{Array, Value};

use super::{FAILED, INTERRUPTED};
use crate::config;
use crate::registration::new_entry::{Setting, Template};
use crate::registration::register::{Access, Done, Failure, Order, is_authentication_token, register};
use crate::registration::{PERSONAL_ACCESS_TOKEN, ask};

/// Register a runner in GitLab and write its [[runners]] entry
#[derive(Debug, Args)]
#[command(after_help = "A token on the command line can be seen by every user of the machine; the environment
(CI_SERVER_TOKEN) or the terminal keeps it. What is not given is asked for, where there is a
terminal.

Exit codes: 0 registered, 1 GitLab refuses, 2 it could not be tried, 130 Ctrl-C (nothing is left
behind).

Examples:
  staffetta register --url https://gitlab.example.com --name dev
  CI_SERVER_TOKEN=glrt-… staffetta register --non-interactive --url https://gitlab.example.com --name dev \\
      --fargate-cluster ci-dev --fargate-subnets subnet-1,subnet-2 --fargate-security-groups sg-1 \\
      --fargate-task-definition ci-dev")]
pub struct Arguments {
    /// The configuration file; it and its folder are made if they are missing
    #[arg(short, long, env = "CONFIG_FILE", value_name = "FILE", default_value_os_t = super::run::default_config())]
    config: PathBuf,
    /// A file with one [[runners]] entry that the new one begins with
    #[arg(long, env = "TEMPLATE_CONFIG_FILE", value_name = "FILE")]
    template_config: Option<PathBuf>,
    /// Ask nothing
    #[arg(short, long, env = "REGISTER_NON_INTERACTIVE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", value_parser = switch, value_name = "BOOL")]
    non_interactive: bool,
    /// Leave the runner in GitLab if its entry cannot be written
    #[arg(long, env = "REGISTER_LEAVE_RUNNER", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", value_parser = switch, value_name = "BOOL")]
    leave_runner: bool,
    #[command(flatten)]
    access: AccessFlags,
    #[command(flatten)]
    record: RecordFlags,
    #[command(flatten)]
    entry: EntryFlags,
    #[command(flatten)]
    fargate: FargateFlags,
    #[command(flatten)]
    custom: CustomFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "GitLab")]
struct AccessFlags {
    /// Address of GitLab, such as https://gitlab.example.com
    #[arg(short, long, env = "CI_SERVER_URL")]
    url: Option<String>,
    // The variables of tokens are read by hand: one that is there by chance must not contradict a flag.
    /// The runner's authentication token (glrt-…), which GitLab shows when a runner is created [env: CI_SERVER_TOKEN]
    #[arg(short, long, value_parser = secret)]
    token: Option<SecretString>,
    /// A legacy registration token [env: REGISTRATION_TOKEN]
    #[arg(short, long, value_parser = secret, value_name = "TOKEN")]
    registration_token: Option<SecretString>,
    /// Create the runner with this token of yours (scope create_runner): for the whole instance, or for --group-id or
    /// --project-id [env: GITLAB_PERSONAL_ACCESS_TOKEN]
    #[arg(long, visible_alias = "pat", value_parser = secret, value_name = "TOKEN")]
    personal_access_token: Option<SecretString>,
    #[arg(long, value_name = "ID", conflicts_with = "project_id")]
    group_id: Option<u64>,
    #[arg(long, value_name = "ID")]
    project_id: Option<u64>,
    /// Certificate authority of GitLab, beside the usual ones
    #[arg(long, env = "CI_SERVER_TLS_CA_FILE", value_name = "FILE")]
    tls_ca_file: Option<String>,
    /// Client certificate for GitLab
    #[arg(long, env = "CI_SERVER_TLS_CERT_FILE", value_name = "FILE")]
    tls_cert_file: Option<String>,
    /// Its private key
    #[arg(long, env = "CI_SERVER_TLS_KEY_FILE", value_name = "FILE")]
    tls_key_file: Option<String>,
}

/// GitLab keeps these; a runner with an authentication token has them already.
#[derive(Debug, Args)]
#[command(next_help_heading = "For a runner that is made (with a registration token or a personal access token)")]
struct RecordFlags {
    /// Tags, with commas
    #[arg(long, env = "RUNNER_TAG_LIST", default_value = "", hide_default_value = true)]
    tag_list: String,
    /// Take jobs without tags too [default: true without tags]
    #[arg(long, env = "REGISTER_RUN_UNTAGGED", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true,
          value_parser = switch, value_name = "BOOL")]
    run_untagged: bool,
    /// Keep the runner to its project [default: true with a registration token]
    #[arg(long, env = "REGISTER_LOCKED", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = switch, value_name = "BOOL")]
    locked: Option<bool>,
    /// not_protected, or ref_protected for jobs of protected branches only
    #[arg(long, env = "REGISTER_ACCESS_LEVEL", default_value = "", hide_default_value = true, value_name = "LEVEL")]
    access_level: String,
    /// Seconds that a job may take, at least 600
    #[arg(long, env = "REGISTER_MAXIMUM_TIMEOUT", value_parser = number, value_name = "SECONDS")]
    maximum_timeout: Option<Number>,
    /// Give it no jobs yet
    #[arg(long, env = "REGISTER_PAUSED", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", value_parser = switch, value_name = "BOOL")]
    paused: bool,
    /// A note for administrators
    #[arg(long, env = "REGISTER_MAINTENANCE_NOTE", default_value = "", hide_default_value = true, value_name = "TEXT")]
    maintenance_note: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The entry in config.toml")]
struct EntryFlags {
    /// Name of the runner here, and its description in GitLab where it is made [default: this host's]
    #[arg(long, visible_alias = "description", env = "RUNNER_NAME")]
    name: Option<String>,
    /// fargate, or custom with the files of GitLab's Fargate driver [default: the template's, else fargate]
    #[arg(long, env = "RUNNER_EXECUTOR")]
    executor: Option<String>,
    /// Jobs of this runner at once
    #[arg(long, env = "RUNNER_LIMIT", value_parser = number, value_name = "N")]
    limit: Option<Number>,
    /// Requests for a job at once
    #[arg(long, env = "RUNNER_REQUEST_CONCURRENCY", value_parser = number, value_name = "N")]
    request_concurrency: Option<Number>,
    /// KiB of log that a job may write
    #[arg(long, env = "RUNNER_OUTPUT_LIMIT", value_parser = number, value_name = "KIB")]
    output_limit: Option<Number>,
    /// Folder for projects, in the task
    #[arg(long, env = "RUNNER_BUILDS_DIR", value_name = "DIR")]
    builds_dir: Option<String>,
    /// Folder for caches, in the task
    #[arg(long, env = "RUNNER_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<String>,
    /// A variable of every job; may be repeated
    #[arg(long = "env", env = "RUNNER_ENV", value_name = "KEY=VALUE")]
    environment: Vec<String>,
    /// bash or sh
    #[arg(long, env = "RUNNER_SHELL")]
    shell: Option<String>,
    /// Another address of GitLab, for git clone
    #[arg(long, env = "CLONE_URL", value_name = "URL")]
    clone_url: Option<String>,
    #[arg(long, env = "RUNNER_PRE_GET_SOURCES_SCRIPT", value_name = "SCRIPT")]
    pre_get_sources_script: Option<String>,
    #[arg(long, env = "RUNNER_POST_GET_SOURCES_SCRIPT", value_name = "SCRIPT")]
    post_get_sources_script: Option<String>,
    #[arg(long, env = "RUNNER_PRE_BUILD_SCRIPT", value_name = "SCRIPT")]
    pre_build_script: Option<String>,
    #[arg(long, env = "RUNNER_POST_BUILD_SCRIPT", value_name = "SCRIPT")]
    post_build_script: Option<String>,
}

/// The variables are not called FARGATE_…: jobs choose their task definition by FARGATE_TASK_DEFINITION.
#[derive(Debug, Args)]
#[command(next_help_heading = "With executor fargate: [runners.fargate]")]
struct FargateFlags {
    #[arg(long, env = "RUNNER_FARGATE_CLUSTER", value_name = "NAME")]
    fargate_cluster: Option<String>,
    #[arg(long, env = "RUNNER_FARGATE_REGION", value_name = "REGION")]
    fargate_region: Option<String>,
    /// With commas, or repeated
    #[arg(long, env = "RUNNER_FARGATE_SUBNETS", value_delimiter = ',', value_name = "IDS")]
    fargate_subnets: Vec<String>,
    /// With commas, or repeated
    #[arg(long, env = "RUNNER_FARGATE_SECURITY_GROUPS", value_delimiter = ',', value_name = "IDS")]
    fargate_security_groups: Vec<String>,
    #[arg(long, env = "RUNNER_FARGATE_TASK_DEFINITION", value_name = "NAME")]
    fargate_task_definition: Option<String>,
    #[arg(long, env = "RUNNER_FARGATE_ASSIGN_PUBLIC_IP", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = switch, value_name = "BOOL")]
    fargate_assign_public_ip: Option<bool>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "With executor custom: [runners.custom]")]
struct CustomFlags {
    #[arg(long, env = "CUSTOM_CONFIG_EXEC", value_name = "PROGRAM")]
    custom_config_exec: Option<String>,
    #[arg(long, allow_hyphen_values = true, value_name = "ARGUMENT")]
    custom_config_args: Vec<String>,
    #[arg(long, env = "CUSTOM_CONFIG_EXEC_TIMEOUT", value_parser = number, value_name = "SECONDS")]
    custom_config_exec_timeout: Option<Number>,
    #[arg(long, env = "CUSTOM_PREPARE_EXEC", value_name = "PROGRAM")]
    custom_prepare_exec: Option<String>,
    #[arg(long, allow_hyphen_values = true, value_name = "ARGUMENT")]
    custom_prepare_args: Vec<String>,
    #[arg(long, env = "CUSTOM_PREPARE_EXEC_TIMEOUT", value_parser = number, value_name = "SECONDS")]
    custom_prepare_exec_timeout: Option<Number>,
    #[arg(long, env = "CUSTOM_RUN_EXEC", value_name = "PROGRAM")]
    custom_run_exec: Option<String>,
    #[arg(long, allow_hyphen_values = true, value_name = "ARGUMENT")]
    custom_run_args: Vec<String>,
    #[arg(long, env = "CUSTOM_CLEANUP_EXEC", value_name = "PROGRAM")]
    custom_cleanup_exec: Option<String>,
    #[arg(long, allow_hyphen_values = true, value_name = "ARGUMENT")]
    custom_cleanup_args: Vec<String>,
    #[arg(long, env = "CUSTOM_CLEANUP_EXEC_TIMEOUT", value_parser = number, value_name = "SECONDS")]
    custom_cleanup_exec_timeout: Option<Number>,
    #[arg(long, env = "CUSTOM_GRACEFUL_KILL_TIMEOUT", value_parser = number, value_name = "SECONDS")]
    custom_graceful_kill_timeout: Option<Number>,
    #[arg(long, env = "CUSTOM_FORCE_KILL_TIMEOUT", value_parser = number, value_name = "SECONDS")]
    custom_force_kill_timeout: Option<Number>,
}

/// For clap: a token that its own messages cannot show.
pub fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.trim().to_owned().into())
}

/// As GitLab's runner reads a switch; an empty variable is off.
fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" | "" => Ok(false),
        _ => Err("true or false is wanted"),
    }
}

/// A number, or nothing where the variable is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Number(Option<u32>);

fn number(text: &str) -> Result<Number, std::num::ParseIntError> {
    if text.is_empty() { Ok(Number(None)) } else { text.parse().map(|number| Number(Some(number))) }
}

/// A variable of the environment; an empty one counts as absent.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// An empty variable counts as absent.
fn filled(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// The tokens that are given, by flags or by variables. An empty one counts as absent.
#[derive(Debug)]
struct Tokens {
    runner: Option<SecretString>,
    registration: Option<SecretString>,
    personal: Option<SecretString>,
}

impl Tokens {
    /// Variables speak where no flag does.
    fn of(flags: &AccessFlags, variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let filled = |secret: &Option<SecretString>| secret.clone().filter(|secret| !secret.expose_secret().is_empty());
        let mut tokens = Self {
            runner: filled(&flags.token),
            registration: filled(&flags.registration_token),
            personal: filled(&flags.personal_access_token),
        };
        if tokens.runner.is_none() && tokens.registration.is_none() && tokens.personal.is_none() {
            tokens = Self {
                runner: variable("CI_SERVER_TOKEN").map(SecretString::from),
                registration: variable("REGISTRATION_TOKEN").map(SecretString::from),
                personal: variable(PERSONAL_ACCESS_TOKEN).map(SecretString::from),
            };
        }
        if tokens.personal.is_some() && (tokens.runner.is_some() || tokens.registration.is_some()) {
            return Err(anyhow!(
                "a personal access token makes a new runner: give it, or a token of the runner (--token, \
                 --registration-token), and not both"
            ));
        }
        if tokens.personal.is_none() && (flags.group_id.is_some() || flags.project_id.is_some()) {
            return Err(anyhow!("--group-id and --project-id go with --personal-access-token, which makes the runner"));
        }
        Ok(tokens)
    }
}

/// SIGINT and SIGTERM.
struct Interrupt(Signal, Signal);

impl Interrupt {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    let order = tokio::select! {
        order = order(arguments) => order?,
        () = interrupt.next() => {
            eprintln!();
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    match register(&order, async || interrupt.next().await).await {
        Ok(done) => {
            tell(&order, &done);
            Ok(ExitCode::SUCCESS)
        }
        Err(Failure::Refused(reason)) => {
            eprintln!("staffetta: {reason}");
            Ok(ExitCode::from(FAILED))
        }
        Err(interrupted @ Failure::Interrupted(_)) => {
            eprintln!("staffetta: {interrupted}");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(Failure::Impossible(error)) => Err(error),
    }
}

fn tell(order: &Order, done: &Done) {
    let file = order.config_file.display();
    let token = ShortToken::of(done.token.expose_secret());
    let id = done.id.map(|id| format!("runner {id}, ")).unwrap_or_default();
    eprintln!("Registered {:?} ({id}token {token}…) at {}; its entry is in {file}.", order.name, order.url);
    if let Some(error) = &done.system_id_not_kept {
        eprintln!("The system id cannot be kept ({error}): GitLab will show one manager more after a restart.");
    }
    match config::load(&order.config_file) {
        Ok(_) => eprintln!("`staffetta run` takes it up at once, if it runs already."),
        Err(mistakes) => eprintln!("Before `staffetta run` takes the file, this is to be mended:\n{mistakes}"),
    }
}

/// Fills in what is not given: from the template, or from the terminal.
async fn order(arguments: Arguments) -> anyhow::Result<Order> {
    let Arguments { config, template_config, non_interactive, leave_runner, .. } = &arguments;
    let (access, record, entry) = (&arguments.access, &arguments.record, &arguments.entry);
    let template = match template_config.as_deref().filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => Template::load(file)?,
        None => Template::blank(),
    };
    let executor = filled(&entry.executor).or_else(|| template.text(&["executor"])).unwrap_or("fargate".into());
    if !["fargate", "custom"].contains(&executor.as_str()) {
        return Err(anyhow!(
            "Staffetta runs jobs on Fargate only: --executor is fargate, or custom with the files of GitLab's Fargate \
             driver, and not {executor}"
        ));
    }
    if !["", "not_protected", "ref_protected"].contains(&record.access_level.as_str()) {
        return Err(anyhow!("--access-level is not_protected or ref_protected, not {:?}", record.access_level));
    }
    let url = filled(&access.url).or_else(|| template.text(&["url"]));
    let Tokens { runner, registration: registration_token, personal } = Tokens::of(access, &variable)?;
    // Of tokens without glrt- only the flag tells what they are; one that is asked for is taken as GitLab's runner does.
    let registers = runner.is_none();
    let token = runner.or(registration_token);
    let asks = !non_interactive && ask::is_possible();
    if !asks {
        let why = if *non_interactive { "--non-interactive asks nothing" } else { "there is no terminal to ask on" };
        nothing_missing(why, url.is_some(), personal.is_some() || token.is_some())?;
    }
    let url = match url {
        Some(url) => url,
        None => ask::text("Address of GitLab, such as https://gitlab.example.com", None).await?,
    };
    let token = match token {
        None if personal.is_none() => {
            ask::secret("Authentication token of the runner, or a registration token").await?
        }
        token => token.unwrap_or_default(),
    };
    // Not the template's, as GitLab's runner has it: one template serves many machines.
    let default_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = match filled(&entry.name) {
        Some(name) => name,
        None if asks => ask::text("Name of the runner", default_name.as_deref()).await?,
        None => default_name.context("--name is missing, and this machine has no name to take")?,
    };
    let access = if let Some(personal) = personal {
        let scope = match (access.group_id, access.project_id) {
            (Some(group_id), _) => RunnerScope::Group { group_id },
            (None, Some(project_id)) => RunnerScope::Project { project_id },
            (None, None) => RunnerScope::Instance,
        };
        Access::Owner(personal, scope, registration(record, &name, false, asks).await?)
    } else if is_authentication_token(&token) {
        record_is_gitlabs(record, registers)?;
        Access::Runner(token)
    } else if registers {
        Access::RegistrationToken(token, registration(record, &name, true, asks).await?)
    } else {
        Access::Runner(token)
    };
    let mut settings = settings(&arguments);
    if asks && executor == "fargate" {
        ask_for_fargate(&template, &mut settings).await?;
    }
    let (config_file, leave_runner) = (config.clone(), *leave_runner);
    Ok(Order { config_file, name, url, executor, access, template, settings, leave_runner })
}

fn nothing_missing(why: &str, has_url: bool, has_token: bool) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    if !has_url {
        missing.push("--url (or CI_SERVER_URL): the address of GitLab");
    }
    if !has_token {
        missing.push("--token (or CI_SERVER_TOKEN): the glrt- token that GitLab shows when a runner is created");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!("{why}, and this is missing:\n  {}", missing.join("\n  ")))
}

async fn registration(record: &RecordFlags, name: &str, locked: bool, asks: bool) -> anyhow::Result<Registration> {
    let mut tag_list = record.tag_list.trim().to_owned();
    if asks && tag_list.is_empty() {
        tag_list = ask::optional("Tags, with commas (none: it takes jobs without tags)").await?;
    }
    Ok(Registration {
        description: name.to_owned(),
        maintenance_note: record.maintenance_note.clone(),
        // A runner that takes no job at all is refused by GitLab.
        run_untagged: record.run_untagged || tag_list.is_empty(),
        tag_list,
        locked: record.locked.unwrap_or(locked),
        access_level: record.access_level.clone(),
        maximum_timeout: record.maximum_timeout.and_then(|number| number.0).unwrap_or(0).into(),
        paused: record.paused,
    })
}

/// A runner that exists has its record in GitLab; what is said here would be lost (protocol 1.2). Scripts from the
/// time of registration tokens go on working, with a warning.
fn record_is_gitlabs(record: &RecordFlags, came_as_registration_token: bool) -> anyhow::Result<()> {
    let given = [
        ("--locked", record.locked == Some(false)),
        ("--access-level", !record.access_level.is_empty()),
        ("--run-untagged", record.run_untagged),
        ("--maximum-timeout", record.maximum_timeout.and_then(|number| number.0).is_some_and(|seconds| seconds != 0)),
        ("--paused", record.paused),
        ("--tag-list", !record.tag_list.is_empty()),
        ("--maintenance-note", !record.maintenance_note.is_empty()),
    ];
    let given: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
    if given.is_empty() {
        return Ok(());
    }
    let given = given.join(", ");
    if came_as_registration_token {
        eprintln!(
            "Without effect: {given}. An authentication token was given by --registration-token, and such a runner has its settings in GitLab."
        );
        return Ok(());
    }
    Err(anyhow!(
        "a runner with an authentication token has its settings in GitLab: set {given} there, and leave it out here"
    ))
}

/// What the jobs of an environment cannot do without, where neither flags nor template say it.
async fn ask_for_fargate(template: &Template, settings: &mut Vec<Setting>) -> anyhow::Result<()> {
    let questions: [(&'static [&'static str], &str, bool); 5] = [
        (&["fargate", "cluster"], "ECS cluster", false),
        (&["fargate", "region"], "AWS region (none: as the environment says)", false),
        (&["fargate", "subnets"], "Subnets, with commas", true),
        (&["fargate", "security_groups"], "Security groups, with commas", true),
        (&["fargate", "task_definition"], "Task definition", false),
    ];
    for (path, question, is_list) in questions {
        if template.has(path) || settings.iter().any(|setting| setting.path == path) {
            continue;
        }
        let answer = match path {
            ["fargate", "region"] => ask::optional(question).await?,
            _ => ask::text(question, None).await?,
        };
        let words = answer.split(',').map(str::trim).filter(|word| !word.is_empty());
        let value = if is_list { Value::from(words.collect::<Array>()) } else { answer.as_str().into() };
        if !answer.is_empty() {
            settings.push(Setting { path, value });
        }
    }
    Ok(())
}

/// The keys that flags and variables set. What is empty sets nothing, as in GitLab's runner.
fn settings(arguments: &Arguments) -> Vec<Setting> {
    let Arguments { access, entry, fargate, custom, .. } = arguments;
    let text = |text: &Option<String>| filled(text).map(Value::from);
    let number =
        |number: Option<Number>| number.and_then(|number| number.0).map(|number| Value::from(i64::from(number)));
    let list = |words: &[String]| {
        let words = words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).collect::<Array>();
        (!words.is_empty()).then(|| Value::from(words))
    };
    // An argument may be empty; where it stands matters.
    let arguments = |words: &[String]| (!words.is_empty()).then(|| Value::from(words.iter().collect::<Array>()));
    let all: [(&'static [&'static str], Option<Value>); 34] = [
        (&["limit"], number(entry.limit)),
        (&["output_limit"], number(entry.output_limit)),
        (&["request_concurrency"], number(entry.request_concurrency)),
        (&["tls-ca-file"], text(&access.tls_ca_file)),
        (&["tls-cert-file"], text(&access.tls_cert_file)),
        (&["tls-key-file"], text(&access.tls_key_file)),
        (&["builds_dir"], text(&entry.builds_dir)),
        (&["cache_dir"], text(&entry.cache_dir)),
        (&["clone_url"], text(&entry.clone_url)),
        (&["environment"], list(&entry.environment)),
        (&["pre_get_sources_script"], text(&entry.pre_get_sources_script)),
        (&["post_get_sources_script"], text(&entry.post_get_sources_script)),
        (&["pre_build_script"], text(&entry.pre_build_script)),
        (&["post_build_script"], text(&entry.post_build_script)),
        (&["shell"], text(&entry.shell)),
        (&["fargate", "cluster"], text(&fargate.fargate_cluster)),
        (&["fargate", "region"], text(&fargate.fargate_region)),
        (&["fargate", "subnets"], list(&fargate.fargate_subnets)),
        (&["fargate", "security_groups"], list(&fargate.fargate_security_groups)),
        (&["fargate", "task_definition"], text(&fargate.fargate_task_definition)),
        (&["fargate", "assign_public_ip"], fargate.fargate_assign_public_ip.map(Value::from)),
        (&["custom", "config_exec"], text(&custom.custom_config_exec)),
        (&["custom", "config_args"], arguments(&custom.custom_config_args)),
        (&["custom", "config_exec_timeout"], number(custom.custom_config_exec_timeout)),
        (&["custom", "prepare_exec"], text(&custom.custom_prepare_exec)),
        (&["custom", "prepare_args"], arguments(&custom.custom_prepare_args)),
        (&["custom", "prepare_exec_timeout"], number(custom.custom_prepare_exec_timeout)),
        (&["custom", "run_exec"], text(&custom.custom_run_exec)),
        (&["custom", "run_args"], arguments(&custom.custom_run_args)),
        (&["custom", "cleanup_exec"], text(&custom.custom_cleanup_exec)),
        (&["custom", "cleanup_args"], arguments(&custom.custom_cleanup_args)),
        (&["custom", "cleanup_exec_timeout"], number(custom.custom_cleanup_exec_timeout)),
        (&["custom", "graceful_kill_timeout"], number(custom.custom_graceful_kill_timeout)),
        (&["custom", "force_kill_timeout"], number(custom.custom_force_kill_timeout)),
    ];
    all.into_iter().filter_map(|(path, value)| Some(Setting { path, value: value? })).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        register: Arguments,
    }

    /// The three tokens: of the runner, for registration, personal.
    fn tokens(flags: &[&str], variables: &[(&str, &str)]) -> Result<[String; 3], String> {
        let arguments = Program::try_parse_from([&["register"], flags].concat()).map_err(|error| error.to_string())?;
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        };
        let tokens = Tokens::of(&arguments.register.access, &variable).map_err(|error| error.to_string())?;
        let text = |token: Option<SecretString>| token.unwrap_or_default().expose_secret().to_owned();
        Ok([text(tokens.runner), text(tokens.registration), text(tokens.personal)])
    }

    #[test]
    fn a_token_that_is_a_flag_beats_those_in_the_environment() {
        let (runner, personal) = (("CI_SERVER_TOKEN", "glrt-a"), (PERSONAL_ACCESS_TOKEN, "glpat-a"));
        let given = |tokens: [&str; 3]| Ok(tokens.map(str::to_owned));
        assert_eq!(tokens(&["--pat", "glpat-b"], &[runner]), given(["", "", "glpat-b"]));
        assert_eq!(tokens(&["--token", "glrt-b"], &[runner, personal]), given(["glrt-b", "", ""]));
        assert_eq!(tokens(&["-r", "legacy"], &[runner]), given(["", "legacy", ""]));
        assert_eq!(tokens(&["--pat", "", "--token", "glrt-b"], &[]), given(["glrt-b", "", ""]));
        assert_eq!(tokens(&["--token", ""], &[personal]), given(["", "", "glpat-a"]));
        assert!(tokens(&[], &[runner, personal]).unwrap_err().contains("not both"));
        assert!(tokens(&["--pat", "glpat-b", "--token", "glrt-b"], &[]).unwrap_err().contains("not both"));
        assert!(tokens(&["--group-id", "3"], &[runner]).unwrap_err().contains("--personal-access-token"));
    }

    #[test]
    fn an_empty_number_counts_as_absent() {
        assert_eq!(number(""), Ok(Number(None)));
        assert_eq!(number("600"), Ok(Number(Some(600))));
        assert!(number("x").is_err());
        let arguments = Program::try_parse_from(["register", "--maximum-timeout", "", "--limit", ""]).unwrap();
        assert!(settings(&arguments.register).iter().all(|setting| setting.path != ["limit"]));
    }
}
