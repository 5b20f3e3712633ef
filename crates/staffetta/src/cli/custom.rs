//! `staffetta custom`: the Fargate driver, as GitLab's runner calls it. The flags may stand before `custom`, where
//! GitLab's driver has them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use tracing::Level;

use super::logging;
use crate::config::{LogFormat, ecs_toml};
use crate::driver::{Call, ExitCodes, Failure, Job, Stage};

/// Be the Fargate driver of GitLab's own runner: the commands of its custom executor
#[derive(Debug, Args)]
#[command(
    after_help = "Called by gitlab-runner, in place of GitLab's Fargate driver and with its arguments. All that is
needed in config.toml is the path of this program:

  [runners.custom]
    prepare_exec = \"/usr/local/bin/staffetta\"
    prepare_args = [\"--config\", \"/etc/gitlab-runner/ecs.toml\", \"custom\", \"prepare\"]

Exit codes: 0 done; those that gitlab-runner names in BUILD_FAILURE_EXIT_CODE (the script failed, or the job
asked for what it may not have) and SYSTEM_FAILURE_EXIT_CODE (anything else); without them 1 and 2.

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
    #[command(subcommand)]
    stage: Command,
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
    match name.to_lowercase().as_str() {
        "trace" => Ok(Level::TRACE),
        "debug" => Ok(Level::DEBUG),
        "info" => Ok(Level::INFO),
        "warn" | "warning" => Ok(Level::WARN),
        "error" | "fatal" | "panic" => Ok(Level::ERROR),
        _ => Err("one of debug, info, warn, error, fatal, panic".to_owned()),
    }
}

/// Flags with a value, which may stand before the word `custom`.
const WITH_VALUE: [&str; 5] = ["--config", "--log-level", "--log-format", "--task-def", "--platform-version"];

/// Brings `--config FILE custom prepare` into the order of every other command here: the command first.
pub fn command_first(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
        if matches!(word, "custom" | "c") {
            arguments[1..=at].rotate_right(1);
            break;
        }
        if !word.starts_with('-') {
            break;
        }
        at += if WITH_VALUE.contains(&word) { 2 } else { 1 };
    }
    arguments
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let environment = std::env::vars_os().filter_map(text).collect();
    let codes = ExitCodes::of(&environment);
    let done = match call(&arguments, &environment) {
        Ok(call) => call.make(&stage(arguments.stage)).await,
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
    let level = arguments.log_level.or(arguments.debug.then_some(Level::DEBUG)).or(settings.log_level);
    let format = match arguments.log_format {
        Some(Format::Runner) => LogFormat::Runner,
        Some(Format::Text) => LogFormat::Text,
        Some(Format::Json) => LogFormat::Json,
        None => settings.log_format,
    };
    logging::start_in(settings.log_file.as_deref(), format, level.unwrap_or(Level::INFO))
        .map_err(|error| Failure::System(format!("cannot write `LogFile` of {}: {error}", file.display())))?;
    Ok(Call {
        job: Job::of(environment, |file| std::fs::read(file))?,
        task_definition: arguments.task_def.clone(),
        platform_version: arguments.platform_version.clone(),
        settings,
    })
}

fn stage(command: Command) -> Stage {
    match command {
        Command::Config => Stage::Config,
        Command::Prepare => Stage::Prepare,
        Command::Run { script, stage } => Stage::Run { script, name: stage },
        Command::Cleanup => Stage::Cleanup,
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
