//! `staffetta custom`: the Fargate driver, as GitLab's runner calls it. The flags may stand before `custom`, where
//! GitLab's driver has them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use tracing::Level;

use super::logging;
use crate::config::LogFormat;
use crate::config::ecs_toml::{self, LOG_LEVELS};
use crate::driver::{self, Call, ExitCodes, Failure, Job};

/// Be the Fargate driver of GitLab's own runner: the commands of its custom executor
#[derive(Debug, Args)]
#[command(
    after_help = "Called by gitlab-runner, in place of GitLab's Fargate driver and with its arguments. All that is
needed in config.toml is the path of this program:

  [runners.custom]
    prepare_exec = \"/usr/local/bin/staffetta\"
    prepare_args = [\"--config\", \"/etc/gitlab-runner/ecs.toml\", \"custom\", \"prepare\"]

Exit codes: 0 done; those that gitlab-runner names in BUILD_FAILURE_EXIT_CODE (the script failed,
or the job asked for what it may not have) and SYSTEM_FAILURE_EXIT_CODE (anything else); without
them 1 and 2.

Example:
  staffetta --config /etc/gitlab-runner/ecs.toml custom config"
)]
pub struct Arguments {
    /// The driver's configuration, ecs.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The same as --log-level debug
    #[arg(long, global = true)]
    debug: bool,
    /// Instead of LogLevel in ecs.toml
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level)]
    log_level: Option<Level>,
    /// Instead of LogFormat in ecs.toml
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Instead of TaskDefinition in ecs.toml, and of the job's FARGATE_TASK_DEFINITION
    #[arg(long, global = true, value_name = "NAME")]
    task_def: Option<String>,
    /// Instead of PlatformVersion in ecs.toml, and of the job's FARGATE_PLATFORM_VERSION
    #[arg(long, global = true, value_name = "VERSION")]
    platform_version: Option<String>,
    /// Instead of LogFile in ecs.toml
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print who the driver is, as JSON
    #[command(alias = "co")]
    Config,
    /// Start the job's task and wait until it can be reached
    #[command(alias = "p")]
    Prepare,
    /// Run a script in the job's task
    #[command(alias = "r")]
    Run {
        /// The script to run
        script: PathBuf,
        /// The stage that it belongs to
        stage: String,
    },
    /// End the job's task
    #[command(alias = "cl")]
    Cleanup,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Runner,
    Text,
    Json,
}

/// GitLab's driver knows logrus' names.
fn level(name: &str) -> Result<Level, String> {
    let known = LOG_LEVELS.iter().find(|(known, _)| *known == name.to_lowercase());
    known.map(|(_, level)| *level).ok_or_else(|| {
        let names: Vec<_> = LOG_LEVELS.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// Flags with a value, which may stand before the word `custom`.
const WITH_VALUE: [&str; 6] =
    ["--config", "--log-level", "--log-format", "--log-file", "--task-def", "--platform-version"];

/// Brings `--config FILE custom prepare` into the order of every other command here: the command first. GitLab's driver
/// takes its flags with one dash too.
pub fn command_first(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut ordered = arguments.clone();
    let mut at = 1;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
        if matches!(word, "custom" | "c") {
            ordered[1..=at].rotate_right(1);
            return ordered;
        }
        let Some(flag) = word.strip_prefix('-') else { break };
        let flag = format!("--{}", flag.trim_start_matches('-'));
        at += if WITH_VALUE.contains(&flag.as_str()) { 2 } else { 1 };
        let place = if WITH_VALUE.contains(&flag.as_str()) { at - 2 } else { at - 1 };
        ordered[place] = flag.into();
    }
    arguments
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let environment = std::env::vars_os().filter_map(text).collect();
    let codes = ExitCodes::of(&environment);
    let done = match call(&arguments, &environment) {
        Ok(call) => call.make(&command(arguments.command)).await,
        Err(failure) => Err(failure),
    };
    let Err(failure) = done else { return Ok(ExitCode::SUCCESS) };
    match &failure {
        // Its output is in the log already, and GitLab's runner adds the code.
        Failure::Script { .. } => {}
        failure => eprintln!("ERROR: {failure}"),
    }
    if let Err(error) = codes.keep(&failure) {
        eprintln!("ERROR: cannot write the script's exit code to BUILD_EXIT_CODE_FILE: {error}");
    }
    Ok(ExitCode::from(codes.code(&failure)))
}

fn call(arguments: &Arguments, environment: &BTreeMap<String, String>) -> Result<Call, Failure> {
    let Some(file) = &arguments.config else {
        return Err(Failure::System("--config FILE is missing: name the driver's ecs.toml".to_owned()));
    };
    let settings = ecs_toml::load(file)
        .map_err(|mistakes| Failure::System(format!("the driver's configuration cannot be used\n{mistakes}")))?;
    let level = arguments.debug.then_some(Level::DEBUG).or(arguments.log_level).or(settings.log_level);
    let format = match arguments.log_format {
        Some(Format::Runner) => LogFormat::Runner,
        Some(Format::Text) => LogFormat::Text,
        Some(Format::Json) => LogFormat::Json,
        None => settings.log_format,
    };
    let log_file = arguments.log_file.as_ref().or(settings.log_file.as_ref());
    let level = level.unwrap_or(Level::INFO);
    if let Err(error) = logging::start_in(log_file.map(PathBuf::as_path), format, level) {
        logging::start(format, level);
        // No reason to leave a task running, or not to run a job.
        tracing::warn!(%error, "cannot write the driver's log file");
    }
    // An empty flag is what a template leaves of a variable that is not set.
    let filled = |flag: &Option<String>| flag.clone().filter(|value| !value.is_empty());
    Ok(Call {
        job: Job::of(environment, |file| std::fs::read(file))?,
        task_definition: filled(&arguments.task_def),
        platform_version: filled(&arguments.platform_version),
        settings,
    })
}

fn command(command: Command) -> driver::Command {
    match command {
        Command::Config => driver::Command::Config,
        Command::Prepare => driver::Command::Prepare,
        Command::Run { script, stage } => driver::Command::Run { script, stage },
        Command::Cleanup => driver::Command::Cleanup,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_may_stand_before_the_command_as_with_gitlabs_driver() {
        for (given, wanted) in [
            ("fargate --config /etc/ecs.toml custom run a b", "fargate custom --config /etc/ecs.toml run a b"),
            ("fargate --debug --config=/ecs.toml c p", "fargate c --debug --config=/ecs.toml p"),
            ("fargate -debug -config /ecs.toml custom p", "fargate custom --debug --config /ecs.toml p"),
            ("staffetta -h", "staffetta -h"),
            ("staffetta custom --config e.toml cl", "staffetta custom --config e.toml cl"),
            ("staffetta run --config custom", "staffetta run --config custom"),
            ("staffetta --config custom", "staffetta --config custom"),
            ("staffetta", "staffetta"),
        ] {
            let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(command_first(words(given)), words(wanted));
        }
    }
}
