//! `staffetta reset-token`: a new token for a runner, written over the old one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use job::ids::ShortToken;
use job::secret::{ExposeSecret, SecretString};

use super::register::{secret, variable};
use super::{FAILED, UNUSABLE};
use crate::registration::PERSONAL_ACCESS_TOKEN;
use crate::registration::entries::{self, Entry, Given};
use crate::registration::register::is_no;
use crate::registration::renew::{By, Failure, renew};

/// Give runners new tokens, in GitLab and in config.toml
#[derive(Debug, Args)]
#[command(after_help = "GitLab refuses the old token from then on. `staffetta run` does this by itself before a token
expires, and takes up what is changed here; its running jobs go on.

Exit codes: 0 done, 1 GitLab refused, 2 it could not be tried, or the new token could not be
written.

Example:
  staffetta reset-token --name dev")]
pub struct Arguments {
    /// The configuration file
    #[arg(short, long, env = "CONFIG_FILE", value_name = "FILE", default_value_os_t = super::run::default_config())]
    config: PathBuf,
    /// The runner of this name
    #[arg(short, long)]
    name: Option<String>,
    /// The runner at this address …
    #[arg(short, long, requires = "id")]
    url: Option<String>,
    /// … with this id of GitLab's
    #[arg(short, long)]
    id: Option<u64>,
    /// Every runner in the file
    #[arg(long, conflicts_with_all = ["name", "id"])]
    all_runners: bool,
    /// A personal access token, where the runner's own is lost or expired [env: GITLAB_PERSONAL_ACCESS_TOKEN]
    #[arg(long, value_parser = secret, value_name = "TOKEN")]
    pat: Option<SecretString>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let selected = select(&arguments, entries::load(&arguments.config)?)?;
    let personal = arguments.pat.clone().filter(|token| !token.expose_secret().is_empty());
    let personal = personal.or_else(|| variable(PERSONAL_ACCESS_TOKEN).map(SecretString::from));
    let mut worst = 0;
    for entry in selected {
        match reset(&arguments, &entry, personal.as_ref()).await {
            Ok(given) => {
                let (old, new) = (entry.short_token(), ShortToken::of(given.token.expose_secret()));
                println!("{}: {old} is replaced by {new}", entry.name);
            }
            Err(Failure::Refused(error)) => {
                eprintln!("staffetta: {}: {error}", entry.name);
                worst = worst.max(if is_no(&error) { FAILED } else { UNUSABLE });
            }
            Err(Failure::NotTried(error)) => {
                eprintln!("staffetta: {}: {error:#}", entry.name);
                worst = worst.max(UNUSABLE);
            }
            // What went wrong with the file would cost the next runner its token too.
            Err(Failure::Unwritten { error, aside, .. }) => {
                let advice = match aside {
                    Some(file) => {
                        format!("the new one is in {}: write it into the file, then delete that", file.display())
                    }
                    None => "the new one is lost: mend this, then use --pat".to_owned(),
                };
                return Err(
                    error.context(format!("runner {:?}: GitLab has replaced its token, and {advice}", entry.name))
                );
            }
        }
    }
    Ok(ExitCode::from(worst))
}

async fn reset(arguments: &Arguments, entry: &Entry, personal: Option<&SecretString>) -> Result<Given, Failure> {
    let by = match (personal, arguments.id.or(entry.id)) {
        (None, _) => By::Runner,
        (Some(personal), Some(id)) => By::Owner { personal, id },
        (Some(_), None) => {
            return Err(
                anyhow!("a personal access token resets a runner by its id, which the file lacks: give --id").into()
            );
        }
    };
    renew(&arguments.config, entry, &entry.client()?, by).await
}

fn select(arguments: &Arguments, all: Vec<Entry>) -> anyhow::Result<Vec<Entry>> {
    let Arguments { name, url, id, all_runners, .. } = arguments;
    if *all_runners {
        return Ok(all);
    }
    let is_selected = |entry: &Entry| match (name, id) {
        (Some(name), _) => entry.name == *name,
        (None, Some(id)) => entry.id == Some(*id) && url.as_ref().is_none_or(|url| entry.is_at(url)),
        (None, None) => false,
    };
    if name.is_none() && id.is_none() {
        return Err(anyhow!("say which one: --name, --url with --id, or --all-runners"));
    }
    let selected: Vec<_> = all.into_iter().filter(is_selected).collect();
    if selected.is_empty() {
        return Err(anyhow!("no such runner in {}; `staffetta list` shows them", arguments.config.display()));
    }
    Ok(selected)
}
