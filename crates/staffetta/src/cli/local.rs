//! `staffetta local`: a pipeline on this machine, without an account.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use embedded::fargate::Delays;
use embedded::gitlab::Status;

use super::INTERRUPTED;
use crate::local::render::{Display, Look, Mode, Screen};
use crate::local::{pipeline, summary};

/// Run a pipeline here, through the real manager, SSH and agent, without GitLab or AWS
#[derive(Debug, Args)]
#[command(
    after_help = "The folder's present state is committed to a repository of its own; nothing in the folder changes.
Each job runs in a task of the embedded Fargate, one environment for each set of tags. Ctrl-C
cancels the pipeline; a second one does not wait for its jobs.

Exit codes: 0 the pipeline passed, 1 it did not, 2 it could not be started, 130 it was
interrupted.

Example:
  staffetta local examples/three-environments"
)]
pub struct Arguments {
    /// Folder with the sources
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// The pipeline, below the folder
    #[arg(long, default_value = ".gitlab-ci.yml", value_name = "FILE")]
    file: PathBuf,
    /// Run only this job, without those that it needs; may be repeated
    #[arg(long, value_name = "NAME")]
    job: Vec<String>,
    /// Take as long as Fargate takes to start a task: about 20 seconds
    #[arg(long)]
    real_delays: bool,
    /// One line for each job when it ends instead of its log
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
    /// One JSON object for each event
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Some(mut chosen) = pipeline::load(&arguments.folder, &arguments.file)? else {
        return Ok(ExitCode::from(super::UNUSABLE));
    };
    pipeline::keep_only(&mut chosen, &arguments.job)?;
    super::logging::start_if_asked_for();
    let mode = match (arguments.json, arguments.quiet) {
        (true, _) => Mode::Json,
        (_, true) => Mode::Quiet,
        _ => Mode::Live,
    };
    let look = Look::of_stdout(mode);
    let display = Display::start(Screen::new(look, chosen.jobs.iter().map(|job| job.name.as_str())), io::stdout());
    let delays = if arguments.real_delays { Delays::fargate() } else { Delays::default() };
    let started = Instant::now();
    let ended = pipeline::run(&arguments.folder, chosen, delays, |event| display.tell(event)).await;
    display.finish();
    let ended = ended?;
    let took = started.elapsed();
    if mode == Mode::Json {
        println!("{}", summary::json(ended.status, &ended.jobs, took));
    } else {
        println!("\n{}", summary::table(&ended.jobs, look.colours));
        println!("{}", summary::verdict(ended.status, &ended.jobs, took, look.colours));
    }
    Ok(match ended.status {
        _ if ended.interrupted => ExitCode::from(INTERRUPTED),
        Status::Success => ExitCode::SUCCESS,
        _ => ExitCode::from(super::FAILED),
    })
}
