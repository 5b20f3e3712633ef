//! `staffetta unregister`: takes runners out of GitLab and out of `config.toml`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use gitlab::{CallError, Client};
use job::ids::SystemId;
use job::secret::SecretString;

use super::register::{secret, variable};
use super::{FAILED, UNUSABLE};
use crate::config::system_id;
use crate::registration::entries::{self, Selection};
use crate::registration::register::{is_authentication_token, is_no};

/// Take runners out of GitLab and out of config.toml
#[derive(Debug, Args)]
#[command(
    after_help = "A runner that was made in GitLab (glrt-) stays there: only this manager of it is deleted. A runner
that a registration token made is deleted. An entry that GitLab did not let go stays in the file.

Exit codes: 0 done, 1 GitLab refused, 2 it could not be tried.

Example:
  staffetta unregister --name dev"
)]
pub struct Arguments {
    /// The configuration file
    #[arg(short, long, env = "CONFIG_FILE", value_name = "FILE", default_value_os_t = super::run::default_config())]
    config: PathBuf,
    /// The runner of this name
    #[arg(short, long)]
    name: Option<String>,
    /// Every runner in the file
    #[arg(long, conflicts_with = "name")]
    all_runners: bool,
    // Read by hand: a variable that is set for something else must not narrow what --name chooses.
    /// The runner at this address … [env: CI_SERVER_URL]
    #[arg(short, long)]
    url: Option<String>,
    /// … with this token [env: CI_SERVER_TOKEN]
    #[arg(short, long, value_parser = secret)]
    token: Option<SecretString>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { config, name, all_runners, url, token } = arguments;
    let all = entries::load(&config)?;
    let selected = if all_runners {
        all
    } else if name.is_some() {
        Selection { name, url, token }.of(all)?
    } else if let Some(token) = token.or_else(|| variable("CI_SERVER_TOKEN").map(SecretString::from)) {
        let url = url.or_else(|| variable("CI_SERVER_URL"));
        Selection { name: None, url, token: Some(token) }.of(all)?
    } else {
        return Err(anyhow!("say which one: --name, --url with --token, or --all-runners"));
    };
    let system_id = system_id::load_or_create(&config).id;
    let mut worst = 0;
    for entry in selected {
        let client = match entry.client() {
            Ok(client) => client,
            Err(error) => {
                eprintln!("staffetta: {} stays: {error:#}", entry.name);
                worst = worst.max(UNUSABLE);
                continue;
            }
        };
        match unregister(&client, &entry.token, &system_id).await {
            // 404: GitLab never heard of this manager; nothing is left to delete.
            Ok(()) | Err(CallError::Refused { status: 404, .. }) => {
                let told = || format!("GitLab let {} go, and its entry is still there", entry.name);
                entries::remove(&config, std::slice::from_ref(&entry)).with_context(told)?;
                println!("{} is unregistered", entry.name);
            }
            Err(CallError::Forbidden(_)) => {
                let advice = "`staffetta verify --delete` takes it out of the file";
                eprintln!("staffetta: {} stays: GitLab does not know its token; {advice}", entry.name);
                worst = worst.max(FAILED);
            }
            Err(error) => {
                eprintln!("staffetta: {} stays: {error}", entry.name);
                worst = worst.max(if is_no(&error) { FAILED } else { UNUSABLE });
            }
        }
    }
    Ok(ExitCode::from(worst))
}

async fn unregister(client: &Client, token: &SecretString, system_id: &SystemId) -> Result<(), CallError> {
    if is_authentication_token(token) {
        client.unregister_manager(token, system_id).await
    } else {
        client.unregister(token).await
    }
}
