//! Many launches against ECS's own rates. The tasks never start: what counts is when ECS was asked.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use embedded::fargate::{Stuck, TaskFault};
use testkit::Setup;

use crate::scene::{Bench, milliseconds};
use crate::table::Row;

/// RunTask on Fargate: calls at once, and calls a second afterwards (facts 3.1). One call starts one job's task, so
/// this is narrower than the bucket of launches (100, then 20 a second; facts 3.2).
const CALLS: (f64, f64) = (20.0, 20.0);
const LAUNCHES: (f64, f64) = (100.0, 20.0);
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn measure(bench: &Bench, jobs: usize) -> anyhow::Result<Vec<Row>> {
    eprintln!("{jobs} launches at ECS's rates");
    let usual = bench.setup();
    let mut fargate = usual.fargate.clone();
    fargate.real_rates = true;
    bench
        .play(Setup { fargate, ..usual }, async |scene| {
            let never = TaskFault::NeverStarts { stuck_in: Stuck::Provisioning };
            scene.world.fargate.faults().on_task(u32::try_from(jobs)?, never);
            scene.queue(jobs, "", &["true"]).await;
            let started = Instant::now();
            let mut told = Instant::now();
            loop {
                let launched = scene.tasks().len();
                if launched >= jobs {
                    break;
                }
                if started.elapsed() > PATIENCE {
                    bail!("only {launched} tasks after {} s", PATIENCE.as_secs());
                }
                if told.elapsed() > Duration::from_secs(5) {
                    told = Instant::now();
                    eprintln!("  {:>3} s: {launched} launched", started.elapsed().as_secs());
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let mut times: Vec<SystemTime> = scene.tasks().into_values().map(|task| task.created_at).collect();
            times.sort();
            let (first, last) = (times.first().context("no task")?, times.last().context("no task")?);
            let seconds = milliseconds(*first, *last) / 1e3;
            let limit = |(burst, rate): (f64, f64)| ((jobs as f64 - burst) / rate).max(0.0);
            let calls = scene.world.fargate.calls().get("RunTask").copied().unwrap_or(0);
            Ok(vec![
                Row::new(format!("{jobs} launches: the last one"), seconds, "s").at_most(limit(CALLS) * 1.05).detail(
                    format!(
                        "RunTask's bucket allows {:.1} s (20 calls at once, then 20/s); that of launches {:.1} s",
                        limit(CALLS),
                        limit(LAUNCHES)
                    ),
                ),
                Row::new(
                    format!("{jobs} launches: RunTask calls that ECS throttled"),
                    calls as f64 - jobs as f64,
                    "calls",
                ),
            ])
        })
        .await
}
