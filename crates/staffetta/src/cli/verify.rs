//! `staffetta verify`: does GitLab still know the runners?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use gitlab::Verified;
use job::ids::SystemId;
use job::secret::SecretString;

use super::{FAILED, UNUSABLE};
use crate::config::system_id;
use crate::registration::entries::{self, Entry, Selection};

/// Ask GitLab whether it still accepts the runners in config.toml
#[derive(Debug, Args)]
#[command(
    after_help = "A runner is \"not valid\" only if GitLab says so. Where GitLab cannot be asked it is \"unknown\",
and stays.

Exit codes: 0 all are valid (or were removed by --delete), 1 one is not valid or orphaned, 2 one
is unknown, or the file cannot be used.

Example:
  staffetta verify --name dev"
)]
pub struct Arguments {
    /// The configuration file
    #[arg(short, long, env = "CONFIG_FILE", value_name = "FILE", default_value_os_t = super::run::default_config())]
    config: PathBuf,
    /// Only the runner of this name
    #[arg(short, long)]
    name: Option<String>,
    // No variables for these two: what is in the environment by chance must not choose.
    /// Only the runner at this address …
    #[arg(short, long, requires = "token")]
    url: Option<String>,
    /// … with this token
    #[arg(short, long, value_parser = super::register::secret, requires = "url")]
    token: Option<SecretString>,
    /// Remove the runners from the file that GitLab does not know
    #[arg(long)]
    delete: bool,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { config, name, url, token, delete } = arguments;
    let selected = Selection { name, url, token }.of(entries::load(&config)?)?;
    let system_id = system_id::load_or_create(&config).id;
    let mut asked = Vec::new();
    for entry in selected {
        let answer = ask(&entry, &system_id).await;
        asked.push((entry, answer));
    }
    super::table::print(&asked, |(entry, answer)| {
        let answer = match answer {
            Verified::Valid(_) => "valid".to_owned(),
            Verified::Invalid => "not valid".to_owned(),
            Verified::Orphaned(reason) => format!("orphaned, in no project or group: {reason}"),
            Verified::Unknown(reason) => format!("unknown: {reason}"),
        };
        [entry.name.clone(), entry.short_token().to_string(), entry.url.clone(), answer]
    });
    let gone: Vec<Entry> = asked
        .iter()
        .filter(|(_, answer)| matches!(answer, Verified::Invalid))
        .map(|(entry, _)| entry.clone())
        .collect();
    if delete && !gone.is_empty() {
        entries::remove(&config, &gone)?;
        let names: Vec<_> = gone.iter().map(|entry| entry.name.as_str()).collect();
        eprintln!("Removed from {}: {}", config.display(), names.join(", "));
    }
    // Its record is there: what becomes of it is for GitLab's administrator to say.
    let is_orphaned = asked.iter().any(|(_, answer)| matches!(answer, Verified::Orphaned(_)));
    let is_unknown = asked.iter().any(|(_, answer)| matches!(answer, Verified::Unknown(_)));
    Ok(match ((gone.is_empty() || delete) && !is_orphaned, is_unknown) {
        (false, _) => ExitCode::from(FAILED),
        (true, true) => ExitCode::from(UNUSABLE),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// An entry that GitLab cannot be asked about is no reason not to ask about the others.
async fn ask(entry: &Entry, system_id: &SystemId) -> Verified {
    match entry.client() {
        Ok(client) => client.verify(&entry.token, Some(system_id)).await,
        Err(error) => Verified::Unknown(format!("{error:#}")),
    }
}
