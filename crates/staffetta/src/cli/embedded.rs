//! `staffetta embedded`: one of the two servers for other clients. Each prints one JSON line when it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use embedded::{fargate, gitlab};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::local::git_snapshot;
use crate::local::pipeline::load;

/// Serve the embedded GitLab or the embedded Fargate for other clients
#[derive(Debug, Subcommand)]
pub enum Command {
    Fargate(FargateArguments),
    Gitlab(GitlabArguments),
}

/// Serve ECS (and the few EC2 and STS calls around it) on one loopback port, with tasks that really run
#[derive(Debug, Args)]
#[command(after_help = "Prints one JSON line: url, engine, clusters, ssh_port. Ends with Ctrl-C, and ends all tasks.

Example:
  staffetta embedded fargate --listen 127.0.0.1:4566 --cluster ci &
  aws ecs list-tasks --cluster ci --endpoint-url http://127.0.0.1:4566")]
pub struct FargateArguments {
    /// Loopback address; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// A cluster that exists from the start; may be repeated
    #[arg(long, default_value = "default", value_name = "NAME")]
    cluster: Vec<String>,
    /// The agent that the image staffetta/agent runs [default: beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Take as long as Fargate takes to start a task: about 20 seconds
    #[arg(long)]
    real_delays: bool,
    /// Throttle as ECS does
    #[arg(long)]
    real_rates: bool,
    /// Append a line of JSON for each call: who signed it, service, region, action and parameters
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Serve the runner API, Git and artifacts for one repository, and run its pipeline
#[derive(Debug, Args)]
#[command(after_help = "Prints one JSON line: url, registration_token, personal_access_token, pipeline, and runners: a
token for each set of tags in the pipeline. Ends with Ctrl-C, or with the pipeline.

Exit codes with --until-done: 0 the pipeline passed, 1 it did not, 2 it could not be started.

Example:
  staffetta embedded gitlab --repo . --until-done")]
pub struct GitlabArguments {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// Folder with the sources; its present state is committed to a repository of the server's own
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The pipeline, below the folder
    #[arg(long, default_value = ".gitlab-ci.yml", value_name = "FILE")]
    file: PathBuf,
    /// End with the pipeline
    #[arg(long)]
    until_done: bool,
}

pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Fargate(arguments) => serve_fargate(arguments).await,
        Command::Gitlab(arguments) => serve_gitlab(arguments).await,
    }
}

async fn serve_fargate(arguments: FargateArguments) -> anyhow::Result<ExitCode> {
    let agent = match arguments.agent {
        Some(agent) => agent,
        None => std::env::current_exe()?.with_file_name("staffetta-agent"),
    };
    let server = fargate::start(fargate::Config {
        listen: arguments.listen,
        clusters: arguments.cluster.clone(),
        delays: if arguments.real_delays { fargate::Delays::fargate() } else { fargate::Delays::default() },
        real_rates: arguments.real_rates,
        record: arguments.record,
        ..fargate::Config::new(agent)
    })
    .await
    .with_context(|| format!("cannot serve on {}", arguments.listen))?;
    say(&json!({
        "url": server.url(),
        "engine": server.engine(),
        "clusters": arguments.cluster,
        "ssh_port": server.ssh_port(),
    }));
    asked_to_stop().await?;
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn serve_gitlab(arguments: GitlabArguments) -> anyhow::Result<ExitCode> {
    let Some(pipeline) = load(&arguments.repo, &arguments.file)? else {
        return Ok(ExitCode::from(super::UNUSABLE));
    };
    let snapshot = git_snapshot::commit_of(&arguments.repo)?;
    let server = gitlab::start(gitlab::Config { listen: arguments.listen, ..gitlab::Config::default() })
        .await
        .with_context(|| format!("cannot serve on {}", arguments.listen))?;
    let tags: BTreeSet<Vec<String>> = pipeline.jobs.iter().map(|job| job.tags.clone()).collect();
    let runners: BTreeMap<String, String> = tags
        .iter()
        .map(|tags| {
            let words: Vec<&str> = tags.iter().map(String::as_str).collect();
            (tags.join(","), server.register_runner(&crate::local::servers::environment(tags), &words))
        })
        .collect();
    let id = server.create_pipeline(snapshot.source(pipeline)).await?;
    say(&json!({
        "url": server.url(),
        "registration_token": server.registration_token(),
        "personal_access_token": server.personal_access_token(),
        "pipeline": id,
        "runners": runners,
    }));
    let done = server.wait_until(|server| server.pipeline_status(id).is_some_and(gitlab::Status::is_complete));
    tokio::select! {
        () = done, if arguments.until_done => {}
        stopped = asked_to_stop() => stopped?,
    }
    let status = server.pipeline_status(id);
    server.shutdown().await;
    let passed = !arguments.until_done || status == Some(gitlab::Status::Success);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}

/// One line, and at once: the reader on the other side of a pipe waits for it.
fn say(line: &serde_json::Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody to tell.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
