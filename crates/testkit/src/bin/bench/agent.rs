//! The agent by itself: how large, how soon ready, how much memory and how fast its log is.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use job::secret::SecretString;
use job::trace::{Pipeline, Stream, TraceSettings};
use ssh::keys::{Nonce, TaskKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::processes::field;
use crate::scene::{Bench, log_file};
use crate::table::Row;

const STARTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    eprintln!("The agent");
    let size = std::fs::metadata(&bench.agent)?.len() as f64 / 1e6;
    let mut rows = vec![Row::new("agent: file", size, "MB").at_most(5.0).detail(bench.agent.display().to_string())];
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(ready(bench).await?);
    }
    rows.extend(Row::median("agent: from its start until its port answers", starts, "ms").map(|row| row.at_most(20.0)));
    rows.push(
        Row::new("agent: log through masking and time stamps", pipeline(), "MB/s")
            .at_least(200.0)
            .detail("in this process, one thread; not the agent's own build"),
    );
    rows.extend(large_log(bench).await?);
    Ok(rows)
}

/// Milliseconds until a connection is accepted.
async fn ready(bench: &Bench) -> anyhow::Result<f64> {
    // Free a moment ago; nobody else is given it so soon.
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let key = TaskKey::derive(&SecretString::from("a token"), &Nonce::random()).public_openssh();
    let started = Instant::now();
    let mut agent = Command::new(&bench.agent)
        .args(["serve", "--listen", &address.to_string(), "--authorized-key", &key])
        .env_remove(job::task::LISTEN)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("the agent")?;
    while TcpStream::connect(address).await.is_err() {
        if started.elapsed() > PATIENCE {
            bail!("the agent does not listen");
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    agent.kill().await?;
    Ok(milliseconds)
}

/// MB of a job's output a second.
fn pipeline() -> f64 {
    let masked = ["s3cr3t-password-of-the-database", "another-masked-variable", "glpat-abcdefghijklmnopqrst"];
    let settings = TraceSettings {
        timestamps: true,
        output_limit: u64::MAX,
        masked: masked.map(SecretString::from).to_vec(),
        mask_default_tokens: true,
        ..TraceSettings::default()
    };
    let line = |number: usize| match number % 1000 {
        0 => format!(
            "{number:8} connecting with s3cr3t-password-of-the-database to the host at the other end{:>14}\n",
            "ok"
        ),
        _ => format!("{number:8} the quick brown fox compiles src/module_{:05}.rs{:>45}\n", number % 9973, "ok"),
    };
    let text: String = (0..10_000).map(line).collect();
    let mut pipeline = Pipeline::new(&settings, 0);
    let (mut out, mut bytes, started) = (Vec::new(), 0, Instant::now());
    while started.elapsed() < Duration::from_secs(2) {
        // A pipe of Linux gives 64 KiB at a time.
        for part in text.as_bytes().chunks(64 * 1024) {
            pipeline.write(Stream::Out, part, SystemTime::now(), &mut out);
            bytes += part.len();
            std::hint::black_box(&out);
            out.clear();
        }
    }
    bytes as f64 / 1e6 / started.elapsed().as_secs_f64()
}

/// A job that prints 100 MB, and then looks at the agent that runs it: its shell's parent.
async fn large_log(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (log, found) = (bench.folder.join("megabyte"), bench.folder.join("agent-status"));
    log_file(&log, 10_000)?;
    let usual = bench.setup();
    bench
        .play(usual, async |scene| {
            let print = format!(r#"for i in {{1..100}}; do cat "{}"; done"#, log.display());
            let note = |what: &str| format!(r#"{what} >> "{}""#, found.display());
            let (time, status) = (note(r#"echo "$EPOCHREALTIME""#), note(r#"cat "/proc/$PPID/status""#));
            scene.queue(1, "", &[&time, &print, &time, &status].map(String::as_str)).await;
            scene.until_over(PATIENCE).await?;
            let status = std::fs::read_to_string(&found).context("the job says nothing of its agent")?;
            let times: Vec<f64> = status.lines().take(2).filter_map(|line| line.parse().ok()).collect();
            let [began, ended] = times[..] else { bail!("the job did not measure its time") };
            Ok(vec![
                Row::new("agent: resident, peak of a job that prints 100 MB", field(&status, "VmHWM:")?, "MB")
                    .at_most(8.0),
                Row::new("agent: 100 MB of log from a script's pipe", 100.0 / (ended - began), "MB/s")
                    .detail("beside its sending to GitLab on the same cores"),
            ])
        })
        .await
}
