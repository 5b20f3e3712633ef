//! `staffetta list`: the runners of a configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::registration::entries;

/// List the runners in config.toml
#[derive(Debug, Args)]
#[command(
    after_help = "Shows every [[runners]] entry, also those that `staffetta run` would refuse. Of a token only the
short form is shown, as in logs.

Exit codes: 0 listed, 2 the file cannot be read.

Example:
  staffetta list --config /etc/gitlab-runner/config.toml --json"
)]
pub struct Arguments {
    /// The configuration file
    #[arg(short, long, env = "CONFIG_FILE", value_name = "FILE", default_value_os_t = super::run::default_config())]
    config: PathBuf,
    /// One JSON array: name, executor, url, id, token (short), token_expires_at
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let entries = entries::load(&arguments.config)?;
    if arguments.json {
        let objects: Vec<_> = entries
            .iter()
            .map(|entry| {
                json!({
                    "name": entry.name,
                    "executor": entry.executor,
                    "url": entry.url,
                    "id": entry.id,
                    "token": entry.short_token(),
                    "token_expires_at": entry.token_expires_at.map(|time| time.to_string()),
                })
            })
            .collect();
        println!("{:#}", serde_json::Value::Array(objects));
        return Ok(ExitCode::SUCCESS);
    }
    super::table::print(&entries, |entry| {
        [entry.name.clone(), entry.executor.clone(), entry.short_token().to_string(), entry.url.clone()]
    });
    Ok(ExitCode::SUCCESS)
}
