//! `staffetta doctor`: what stops jobs before they run.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use job::secret::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::register::variable;
use super::{FAILED, INTERRUPTED, UNUSABLE, logging};
use crate::deploy::file;
use crate::doctor::{self, Finding, Verdict, Wishes, Written, report};
use crate::registration::PERSONAL_ACCESS_TOKEN;
use crate::terminal;

/// Find what stops jobs before they run, and say how to fix it
#[derive(Debug, Args)]
#[command(after_help = "Each line is one check, and docs/troubleshooting.md has a section for each:
  ✔ good                       - not looked at, needs what was not given
  ! hinders some jobs          ? could not be looked at
  ✘ stops jobs

GITLAB_PERSONAL_ACCESS_TOKEN, with the scope read_api, shows the runner's tags
and settings too.

--json prints one object: `verdict` (the worst of all) and `findings`, each
with `check`, `environment`, `verdict` (good, skipped, warning, unknown, bad),
`evidence`, `breaks` and `fix`.

Exit codes, by the worst finding:
  0    nothing stops jobs (✔ - !)
  1    something stops jobs (✘)
  2    something could not be looked at (?), or the file cannot be used
  130  Ctrl-C: the task of --run is stopped; a second one does not wait for that

Example:
  staffetta doctor --environment dev")]
pub struct Arguments {
    /// The deployment file [default: that of STAFFETTA_FILE, or staffetta.toml in this folder, if --config is not given]
    #[arg(short, long, value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Instead of it, the config.toml of a manager, of any installation [default: as `staffetta run` has it]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this environment: the name of its runner; may be given several times
    #[arg(short, long = "environment", value_name = "NAME")]
    environments: Vec<String>,
    /// Let a real task go through the whole journey of a job, and stop it in the end: it costs what a minute of a job costs
    #[arg(long)]
    run: bool,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    logging::start_if_asked_for();
    let Arguments { file, config, environments, run, json } = arguments;
    let written = selected(written(file, config)?, &environments)?;
    let names: Vec<String> = written.iter().map(|written| written.name().to_owned()).collect();
    let personal = variable(PERSONAL_ACCESS_TOKEN).map(SecretString::from);
    let wishes = Wishes { personal, trial_run: run, ..Wishes::default() };
    let enough = CancellationToken::new();
    let mut looking = JoinSet::new();
    for (index, written) in written.into_iter().enumerate() {
        let wishes = wishes.clone();
        looking.spawn(async move { (index, doctor::examine(written, &wishes).await) });
    }
    let signals = stop_at_signals(wishes.stop.clone(), enough.clone())?;
    let progress = progress(&names);
    if !io::stderr().is_terminal() {
        // Nothing turns there, and a network that swallows everything takes half a minute.
        eprintln!("Looking at {}", names.join(", "));
    }
    let colours = terminal::colours(&io::stdout());
    let mut blocks: Vec<Option<Vec<Finding>>> = names.iter().map(|_| None).collect();
    let mut shown = 0;
    loop {
        let looked = tokio::select! {
            looked = looking.join_next() => looked,
            () = enough.cancelled() => {
                progress.finish_and_clear();
                for (environment, command) in wishes.left.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    eprintln!("The task of --run in {environment} may go on, and is paid for: {command}");
                }
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        let Some(looked) = looked else { break };
        let (index, found) = looked?;
        blocks[index] = Some(found);
        // In the order of the file, whoever answered first.
        while let Some(Some(block)) = blocks.get(shown) {
            if !json && !block.is_empty() {
                progress.suspend(|| println!("{}", report::block(&names[shown], block, colours)));
            }
            shown += 1;
        }
    }
    progress.finish_and_clear();
    signals.abort();
    let findings: Vec<Finding> = blocks.into_iter().flatten().flatten().collect();
    let verdict = report::worst(&findings);
    if json {
        println!("{}", serde_json::to_string_pretty(&report::Report { verdict, findings: &findings })?);
    } else {
        println!("{}", report::summary(&findings));
    }
    if wishes.stop.is_cancelled() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(match verdict {
        Verdict::Good | Verdict::Skipped | Verdict::Warning => ExitCode::SUCCESS,
        Verdict::Bad => ExitCode::from(FAILED),
        Verdict::Unknown => ExitCode::from(UNUSABLE),
    })
}

/// A trial's task must not be left when somebody is tired of waiting: `stop` at the first signal, `enough` at the second.
fn stop_at_signals(stop: CancellationToken, enough: CancellationToken) -> io::Result<JoinHandle<()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::spawn(async move {
        for token in [stop, enough] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            token.cancel();
        }
    }))
}

/// What is named counts, then what lies here, then what `staffetta run` would take.
fn written(file: Option<PathBuf>, config: Option<PathBuf>) -> anyhow::Result<Vec<Written>> {
    let named = || variable("STAFFETTA_FILE").map(PathBuf::from).filter(|_| config.is_none());
    let here = || Some(PathBuf::from(file::FILE)).filter(|file| config.is_none() && file.is_file());
    match file.or_else(named).or_else(here) {
        Some(file) => {
            let loaded = file::load(&file)?;
            for warning in &loaded.warnings {
                eprintln!("{warning}");
            }
            Ok(doctor::of_deployment(&file, loaded.deployment))
        }
        None => {
            let usual = || variable("CONFIG_FILE").map_or_else(super::run::default_config, PathBuf::from);
            Ok(doctor::of_config(&config.unwrap_or_else(usual))?)
        }
    }
}

fn selected(written: Vec<Written>, names: &[String]) -> anyhow::Result<Vec<Written>> {
    let is_unknown = |name: &&String| !written.iter().any(|written| written.is_called(name));
    if let Some(unknown) = names.iter().find(is_unknown) {
        let known: Vec<_> = written.iter().map(Written::name).collect();
        return Err(anyhow!("there is no environment {unknown:?}; the file has {}", known.join(", ")));
    }
    let is_meant = |written: &Written| names.is_empty() || names.iter().any(|name| written.is_called(name));
    Ok(written.into_iter().filter(is_meant).collect())
}

/// Draws nothing where standard error is no terminal.
pub(super) fn progress(names: &[String]) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} looking at {msg} ({elapsed})");
    let bar = ProgressBar::new_spinner().with_message(names.join(", "));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
