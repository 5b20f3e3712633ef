//! The driver: what its calls cost beside the task's own start and the script's own time.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use embedded::fargate::{Config, Delays};
use nix::unistd::Pid;
use testkit::driver::{Driver, DriverJob, Ended};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::processes::{memory, proportional};
use crate::scene::{Bench, milliseconds};
use crate::table::Row;

/// Drivers that run a script at the same moment.
const AT_ONCE: usize = 50;
/// As at AWS, the task's address is known before its port answers.
const PULL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn measure(bench: &Bench, calls: usize) -> anyhow::Result<Vec<Row>> {
    eprintln!("The driver: {calls} jobs one by one, {AT_ONCE} at once");
    let mut rows = prepare(bench, calls.min(20)).await?;
    rows.extend(run(bench, calls).await?);
    rows.extend(at_once(bench).await?);
    Ok(rows)
}

async fn driver(bench: &Bench, delays: Delays) -> Driver {
    let driver = Driver::with(Config { clusters: vec!["ci".into()], delays, ..Config::new(&bench.agent) }).await;
    // What root has in its profile on this machine would be in no image; a task's files are its own.
    if driver.is_isolated() {
        driver.register("clean", &[], r#"rm -f "$HOME/.bashrc" "$HOME/.profile" "$HOME/.bash_profile""#).await;
        let text = std::fs::read_to_string(driver.ecs_toml()).unwrap_or_default();
        driver.write(&text.replace("staffetta-sshd", "clean"));
    }
    driver
}

/// What `prepare` takes before RunTask arrives and after the task's port answers.
async fn prepare(bench: &Bench, calls: usize) -> anyhow::Result<Vec<Row>> {
    let driver = driver(bench, Delays { pull: PULL, ..Delays::default() }).await;
    let (mut beyond, mut cleanup) = (Vec::new(), Vec::new());
    for index in 0..calls {
        let job = driver.job(&[]);
        let (total, start) = tokio::join!(timed(job.prepare()), start_of_task(&driver, job.id));
        beyond.push(total? - start?);
        let cleaned = timed(job.cleanup()).await?;
        // The first one of a driver looks for forgotten tasks too.
        if index > 0 {
            cleanup.push(cleaned);
        }
    }
    driver.fargate.shutdown().await;
    let rows = [
        Row::median("driver: prepare, beyond the task's own start", beyond, "ms"),
        Row::median("driver: cleanup", cleanup, "ms"),
    ];
    Ok(rows.into_iter().flatten().collect())
}

/// Milliseconds from the arrival of a job's RunTask until the task's port answers.
async fn start_of_task(driver: &Driver, job: u64) -> anyhow::Result<f64> {
    let (job, give_up) = (job.to_string(), Instant::now() + PATIENCE);
    while Instant::now() < give_up {
        let mut tasks = driver.fargate.tasks().into_iter();
        let task = tasks.find(|task| task.environment.get(job::task::JOB) == Some(&job));
        if let Some((task, address)) = task.and_then(|task| Some((task.clone(), task.address?)))
            && TcpStream::connect((address, driver.fargate.ssh_port())).await.is_ok()
        {
            return Ok(milliseconds(task.created_at, SystemTime::now()));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bail!("the task of job {job} never answered")
}

/// A script that does nothing, in a task with OpenSSH; and the same with OpenSSH's own client.
async fn run(bench: &Bench, calls: usize) -> anyhow::Result<Vec<Row>> {
    let driver = driver(bench, Delays::default()).await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let key = job.temporary().join("key");
    let metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(&driver.metadata_files()[0])?)?;
    std::fs::write(&key, testkit::driver::private_key(&metadata))?;
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let address = metadata["ContainerIP"].as_str().context("no address")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // Side by side: the machine may be busy with something else.
    for _ in 0..calls {
        ours.push(timed(job.run(":")).await?);
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(&key).args([
            "-p",
            &driver.fargate.ssh_port().to_string(),
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
        ]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        ssh.arg(format!("root@{address}")).arg("exec bash --login");
        theirs.push(timed(DriverJob::ended(DriverJob::piped(ssh))).await?);
    }
    job.cleanup().await.succeeded();
    driver.end().await;
    let rows = [
        Row::median("driver: run, beyond its script", ours, "ms").map(|row| row.at_most(30.0)),
        Row::median("    the same with OpenSSH's client", theirs, "ms"),
    ];
    Ok(rows.into_iter().flatten().collect())
}

/// Fifty jobs of one runner, each in its script.
async fn at_once(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let driver = driver(bench, Delays::default()).await;
    let jobs: Vec<_> = (0..AT_ONCE).map(|_| driver.job(&[])).collect();
    let prepares: Vec<_> = jobs.iter().map(|job| job.spawn(&["prepare"])).collect();
    for child in prepares {
        ensure!(DriverJob::ended(child).await.code == Some(0), "a task could not be prepared");
    }
    let mut running = Vec::new();
    for job in &jobs {
        let mut child = job.spawn_run("echo ready; until [ -e /tmp/staffetta-bench-go ]; do sleep 0.2; done");
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        ensure!(lines.next_line().await?.as_deref() == Some("ready"), "a script does not run");
        running.push((child, lines));
    }
    let (mut total, mut peak) = (0.0, 0.0_f64);
    for (child, _) in &running {
        let pid = Pid::from_raw(child.id().context("it runs")?.cast_signed());
        total += proportional(pid)?;
        peak = peak.max(memory(pid)?.peak);
    }
    for job in &jobs {
        job.cleanup().await.succeeded();
    }
    for (child, _lines) in running {
        DriverJob::ended(child).await;
    }
    driver.end().await;
    let each = total / AT_ONCE as f64;
    Ok(vec![
        Row::new(format!("driver: memory of {AT_ONCE} runs at once"), total, "MB")
            .detail(format!("{each:.1} MB each, shared pages by their part; {peak:.1} MB resident with them")),
    ])
}

/// Milliseconds of a call that must succeed.
async fn timed(call: impl Future<Output = Ended>) -> anyhow::Result<f64> {
    let started = Instant::now();
    let ended = call.await;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(milliseconds)
}
