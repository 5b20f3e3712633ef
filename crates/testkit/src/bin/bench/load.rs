//! Many jobs that all run at once: what the manager needs for them, and what ECS is asked.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::Context;
use embedded::fargate;
use embedded::gitlab::Status;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use testkit::Setup;

use crate::processes::{cpu_seconds, memory};
use crate::scene::{Bench, Scene, log_file, milliseconds};
use crate::table::Row;

/// Lines of 100 bytes, and 32 more of time stamp each in GitLab's log: as much as its default limit of 4 MiB takes.
const LINES: usize = 30_000;
const LOG: u64 = LINES as u64 * 132;
/// As many RunTask calls as ECS takes at once: the later ones wait for its rate, not for us.
const AT_ONCE: usize = 20;
const PATIENCE: Duration = Duration::from_secs(240);

/// `observed` is how long the manager is watched while all jobs run.
pub async fn measure(bench: &Bench, jobs: usize, observed: Duration) -> anyhow::Result<Vec<Row>> {
    eprintln!("{jobs} jobs at once, each with 4 MB of log");
    let (log, gate) = (bench.folder.join("log"), bench.folder.join(format!("gate-{jobs}")));
    log_file(&log, LINES)?;
    mkfifo(&gate, Mode::S_IRWXU).context("a gate for the jobs")?;
    let usual = bench.setup();
    // Elsewhere each task has its own cores. Here a thousand would take them from the manager and both servers.
    let agent = bench.folder.join("agent-behind-the-others");
    std::fs::write(&agent, format!("#!/bin/sh\nexec nice -n 15 \"{}\" \"$@\"\n", bench.agent.display()))?;
    std::fs::set_permissions(&agent, Permissions::from_mode(0o700))?;
    let fargate = fargate::Config { agent, ..usual.fargate.clone() };
    bench
        .play(Setup { fargate, ..usual }, async |scene| {
            // The shell waits in open(2), and costs nothing, until somebody opens the other end.
            let script = [&format!(r#"cat "{}""#, log.display()), &format!(r#": < "{}""#, gate.display())];
            scene.manager.until_log("ready for jobs").await;
            let (idle, empty) = (scene.manager_cpu()?, memory(scene.manager.pid())?.now);
            scene.queue(jobs, "", &script.map(String::as_str)).await;
            let written = |job: &embedded::gitlab::JobView| job.status == Status::Running && job.trace_size >= LOG;
            scene.until("all jobs run and have their log", PATIENCE, |jobs| jobs.iter().all(written)).await?;

            let launched = scene.manager_cpu()?;
            tokio::time::sleep(observed / 4).await;
            let (before, since) = (scene.manager_cpu()?, Instant::now());
            tokio::time::sleep(observed).await;
            let cores = (scene.manager_cpu()? - before) / since.elapsed().as_secs_f64();
            let resident = memory(scene.manager.pid())?.now;

            let _open = OpenOptions::new().read(true).write(true).open(&gate)?;
            let over = scene.until_over(PATIENCE).await?;
            let peak = memory(scene.manager.pid())?.peak;
            let whole = scene.manager_cpu()? - idle;

            let passed = over.iter().filter(|job| job.status == Status::Success).count();
            let tasks = scene.tasks();
            let mut launches: Vec<_> = over
                .iter()
                .filter_map(|job| Some((tasks.get(&job.id)?.created_at, job.started_at?)))
                .map(|(launched, received)| (launched, milliseconds(received, launched)))
                .collect();
            launches.sort_by_key(|(launched, _)| *launched);
            let first: Vec<f64> = launches.into_iter().take(AT_ONCE).map(|(_, waited)| waited).collect();
            let calls = scene.world.fargate.calls();
            let per_job = |api: &str| calls.get(api).copied().unwrap_or(0) as f64 / jobs as f64;

            let name = |what: &str| format!("{jobs} jobs at once: {what}");
            let mut rows = vec![Row::new(name("passed"), passed as f64, "jobs").at_least(jobs as f64)];
            rows.extend(
                Row::median(name("job received → RunTask, the first 20"), first, "ms").map(|row| row.at_most(5.0)),
            );
            rows.extend([
                Row::new(name("manager resident, peak"), peak, "MB")
                    .at_most(60.0)
                    .detail(format!("{resident:.1} MB while all run, {empty:.1} MB without jobs")),
                Row::new(name("manager, while all run"), cores, "core").at_most(0.05),
                Row::new(name("manager, from the queue to the end, per job"), whole * 1e3 / jobs as f64, "ms of CPU")
                    .detail(format!("{:.1} ms until all run", (launched - idle) * 1e3 / jobs as f64)),
                Row::new(name("RunTask per job"), per_job("RunTask"), "calls").at_most(1.0),
                Row::new(name("DescribeTasks per job"), per_job("DescribeTasks"), "calls").at_most(0.5),
                Row::new(name("StopTask per job"), per_job("StopTask"), "calls").at_most(1.0),
            ]);
            Ok(rows)
        })
        .await
}

impl Scene {
    fn manager_cpu(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.manager.pid())
    }
}
