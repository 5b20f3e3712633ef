//! `staffetta completion`: shell completion, made from the same definitions as `--help`.

use std::process::ExitCode;

use clap::{Args, CommandFactory};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  staffetta completion bash > /etc/bash_completion.d/staffetta")]
pub struct Arguments {
    shell: clap_complete::Shell,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "staffetta", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
