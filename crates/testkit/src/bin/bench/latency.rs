//! What one job waits for: jobs that come one by one, so that none waits for another.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use embedded::fargate::Delays;
use embedded::gitlab;
use jiff::Timestamp;
use testkit::Setup;

use crate::scene::{Bench, milliseconds};
use crate::table::Row;

/// Between two jobs.
const GAP: Duration = Duration::from_millis(300);
/// How long the image is pulled: as at AWS, the task's address is known well before its port answers.
const PULL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn measure(bench: &Bench, jobs: usize) -> anyhow::Result<Vec<Row>> {
    eprintln!("One by one: {jobs} jobs");
    let usual = bench.setup();
    let mut fargate = usual.fargate.clone();
    fargate.delays = Delays { pull: PULL, ..Delays::default() };
    let gitlab = gitlab::Config { keep_traces: true, ..usual.gitlab.clone() };
    bench
        .play(Setup { fargate, gitlab, ..usual }, async |scene| {
            let script = [r#"echo "bench begin $EPOCHREALTIME""#, r#"echo "bench end $EPOCHREALTIME""#];
            scene.queue(jobs, "  when: manual\n", &script).await;
            let queued = scene.world.gitlab.jobs();
            for job in &queued {
                scene.world.gitlab.play_job(job.id);
                tokio::time::sleep(GAP).await;
            }
            let over = scene.until_over(PATIENCE).await?;
            let tasks = scene.tasks();
            let (mut launch, mut start, mut end) = (Vec::new(), Vec::new(), Vec::new());
            for job in over {
                let task = tasks.get(&job.id).with_context(|| format!("{} has no task", job.name))?;
                let trace = scene.world.gitlab.trace(job.id)?;
                let text = || String::from_utf8_lossy(&trace).into_owned();
                let said = |what| {
                    stamp(&trace, what)
                        .with_context(|| format!("{} {}, and its log is {:?}", job.name, job.status, text()))
                };
                let log = scene.world.fargate.task_log(&task.arn).unwrap_or_default();
                launch.push(milliseconds(job.started_at.context("never started")?, task.created_at));
                start.push(milliseconds(answers(&log).context("the agent never listened")?, said("begin")?));
                end.push(milliseconds(said("end")?, job.finished_at.context("never finished")?));
            }
            let rows = [
                Row::median("job received → RunTask on the wire", launch, "ms").map(|row| row.at_most(5.0)),
                Row::median("task's port answers → first script line runs", start, "ms").map(|row| row.at_most(100.0)),
                Row::median("script ends → final state accepted by GitLab", end, "ms").map(|row| row.at_most(50.0)),
            ];
            Ok(rows.into_iter().flatten().collect())
        })
        .await
}

/// When the agent began to listen: the line of its own log says so.
fn answers(log: &[u8]) -> Option<SystemTime> {
    let log = String::from_utf8_lossy(log);
    let line = log.lines().find(|line| line.contains("waiting for a job"))?;
    let time: Timestamp = line.split_whitespace().next()?.parse().ok()?;
    Some(time.into())
}

/// The time that the script printed after `bench WHAT`; the line that shows the command has no number there.
fn stamp(trace: &[u8], what: &str) -> Option<SystemTime> {
    let trace = String::from_utf8_lossy(trace);
    let marker = format!("bench {what} ");
    let seconds = trace.split(&marker).skip(1).find_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].parse::<f64>().ok()
    })?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
}
