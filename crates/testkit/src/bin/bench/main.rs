//! `make bench`: the budgets of the design, measured side by side in one run against the embedded servers.
//!
//! It measures and never judges: a number over its budget is shown as such, and the exit code stays 0.

mod agent;
mod archives;
mod cache;
mod driver;
mod latency;
mod launches;
mod load;
mod processes;
mod scene;
mod sources;
mod table;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use scene::Bench;
use table::Row;

/// Measures how fast and how small Staffetta is, on this machine, without any account.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 everything was measured, 1 something could not be.\n\n\
Example:\n  target/release/bench --quick")]
struct Arguments {
    /// 50 jobs instead of 200 and 1,000
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// The agent that the tasks run [default: staffetta-agent beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Only the part of this name; more than once for several
    #[arg(long, value_name = "PART", value_parser = ["agent", "archives", "cache", "sources", "latency", "driver", "load", "launches"])]
    only: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let folder = tempfile::Builder::new().prefix("staffetta-bench-").tempdir()?;
    let bench = Bench {
        agent: arguments.agent.unwrap_or_else(|| testkit::program("staffetta-agent")).canonicalize()?,
        folder: folder.path().to_owned(),
        stop: told_to_stop()?,
    };
    let machine = machine();
    eprintln!("{machine}");
    let stop = bench.stop.clone();
    let mut results = Results { only: arguments.only, stop, rows: Vec::new(), complete: true };
    let started = Instant::now();
    let (few, loads, observed): (usize, &[usize], u64) =
        if arguments.quick { (20, &[50], 8) } else { (60, &[200, 1000], 20) };
    results.add("agent", agent::measure(&bench)).await;
    results.add("archives", archives::measure(&bench)).await;
    results.add("cache", cache::measure(&bench)).await;
    results.add("sources", sources::measure(&bench)).await;
    results.add("latency", latency::measure(&bench, few)).await;
    results.add("driver", driver::measure(&bench, few)).await;
    for jobs in loads {
        results.add("load", load::measure(&bench, *jobs, Duration::from_secs(observed))).await;
    }
    if let Some(jobs) = loads.last() {
        results.add("launches", launches::measure(&bench, *jobs)).await;
    }
    eprintln!("Measured in {} s", started.elapsed().as_secs());
    if arguments.json {
        let rows: Vec<_> = results.rows.iter().map(Row::json).collect();
        println!("{}", json!({"machine": machine, "rows": rows}));
    } else {
        println!("{machine}\n");
        table::print(&results.rows);
    }
    Ok(if results.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Results {
    only: Vec<String>,
    stop: watch::Receiver<bool>,
    rows: Vec<Row>,
    complete: bool,
}

impl Results {
    /// A part that fails does not take the others' numbers with it.
    async fn add(&mut self, name: &str, part: impl Future<Output = anyhow::Result<Vec<Row>>>) {
        let wanted = self.only.is_empty() || self.only.iter().any(|only| only == name);
        if !wanted || *self.stop.borrow() {
            return;
        }
        match part.await {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => {
                eprintln!("{name} could not be measured: {error:#}");
                self.complete = false;
            }
        }
    }
}

/// The numbers mean little without it: everything shares these cores, and somebody else may use them too.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let build = if cfg!(debug_assertions) { "a debug build, " } else { "" };
    format!("{build}{cores} cores; load average before: {}", load.split(' ').next().unwrap_or("unknown"))
}

/// Becomes true with SIGINT or SIGTERM; the processes of a part are ended before the bench is.
fn told_to_stop() -> anyhow::Result<watch::Receiver<bool>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (told, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("Stopping");
        told.send_replace(true);
        told.closed().await;
    });
    Ok(stop)
}
