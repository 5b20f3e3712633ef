//! The command line: names, flags and exit codes are an interface (ARCHITECTURE.md, "Command line").

mod completion;
mod container;
mod custom;
mod deploy;
mod deploy_init;
mod doctor;
mod embedded;
mod foreign_flags;
mod list;
mod local;
mod log_format;
mod logging;
mod register;
mod reset_token;
mod run;
mod table;
mod unregister;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command did what it was asked for, but the answer is no: a pipeline failed.
const FAILED: u8 = 1;
/// The command could not start: wrong arguments, a configuration with mistakes, a port that is taken.
const UNUSABLE: u8 = 2;
/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Serverless GitLab CI on AWS: every job runs in its own Fargate task, in the environment that its tags name.
#[derive(Debug, Parser)]
#[command(name = "staffetta", version, max_term_width = 100, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    #[command(visible_alias = "c")]
    Custom(custom::Arguments),
    Container(container::Arguments),
    Local(local::Arguments),
    Register(Box<register::Arguments>),
    Verify(verify::Arguments),
    Unregister(unregister::Arguments),
    List(list::Arguments),
    ResetToken(reset_token::Arguments),
    #[command(subcommand)]
    Deploy(deploy::Command),
    Doctor(doctor::Arguments),
    #[command(subcommand)]
    Embedded(embedded::Command),
    Completion(completion::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::try_parse_from(custom::command_first(std::env::args_os().collect()));
    let arguments = arguments.unwrap_or_else(|error| foreign_flags::or_foreign_flag(error).exit());
    let mut runtime = match arguments.command {
        // There is one for each running job.
        Command::Custom(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("staffetta: cannot start the runtime: {error}");
            return ExitCode::from(UNUSABLE);
        }
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Run(arguments) => run::run(arguments).await,
            Command::Custom(arguments) => custom::run(arguments).await,
            Command::Container(arguments) => container::run(&arguments),
            Command::Local(arguments) => local::run(arguments).await,
            Command::Register(arguments) => register::run(*arguments).await,
            Command::Verify(arguments) => verify::run(arguments).await,
            Command::Unregister(arguments) => unregister::run(arguments).await,
            Command::List(arguments) => list::run(&arguments),
            Command::ResetToken(arguments) => reset_token::run(arguments).await,
            Command::Deploy(command) => deploy::run(command).await,
            Command::Doctor(arguments) => doctor::run(arguments).await,
            Command::Embedded(command) => embedded::run(command).await,
            Command::Completion(arguments) => completion::run(&arguments),
        }
    });
    // A thread that waits for a terminal or a name server must not hold up the end of the process.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| {
        eprintln!("staffetta: {error:#}");
        ExitCode::from(UNUSABLE)
    })
}
