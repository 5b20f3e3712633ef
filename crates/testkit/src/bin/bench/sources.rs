//! How long a job waits for its sources, beside plain git: jobs of one project with 50,000 objects, one after the other.

use std::fmt::Write as _;
use std::process::Stdio;

use anyhow::{Context, ensure};
use embedded::gitlab::Status;
use jiff::Timestamp;
use testkit::{Repository, Setup, World};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::scene::Bench;
use crate::table::Row;

const FOLDERS: usize = 400;
/// In each folder at the start: a blob each, and a tree for each folder.
const FILES: usize = 50;
/// Each changes one file in each of ten folders: 10 blobs, 10 trees, the tree above and the commit.
const COMMITS: usize = 1350;
const DEPTH: usize = 20;
const ROUNDS: usize = 3;

/// The script of the first is what the stage of the others does, by hand.
const JOBS: [(&str, &str, &str); 3] = [
    (
        "step_script",
        "plain git",
        "  variables: { GIT_STRATEGY: none }\n  script:\n    - git init -q .\n    \
         - git fetch -q --depth 20 \"$CI_REPOSITORY_URL\" \"+refs/heads/main:refs/remotes/origin/main\"\n    \
         - git checkout -f -q \"$CI_COMMIT_SHA\"\n    - git clean -ffdx",
    ),
    ("get_sources", "the image's git", "  variables: { GIT_STRATEGY: clone }\n  script: ['true']"),
    (
        "get_sources",
        "the agent, without git",
        "  variables: { GIT_STRATEGY: clone, PATH: /nowhere }\n  script: ['true']",
    ),
];

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    eprintln!("Sources");
    let mut setup = Setup { runners: vec![("dev", vec!["dev"])], ..Setup::default() };
    setup.fargate.agent = bench.agent.clone();
    let mut world = World::start(setup).await;
    let mut yaml = String::from("stages: [");
    let names: Vec<Vec<String>> =
        (0..ROUNDS).map(|round| (0..JOBS.len()).map(|job| format!("round-{round}-{job}")).collect()).collect();
    // A stage for each job: they must not disturb one another.
    yaml.push_str(&names.concat().join(", "));
    yaml.push_str("]\n");
    for (name, (_, _, job)) in names.iter().flat_map(|round| round.iter().zip(JOBS)) {
        writeln!(yaml, "{name}:\n  stage: {name}\n  tags: [dev]\n{job}")?;
    }
    let pipeline = world.pipeline_of(repository(&yaml).await?).await;
    let status = world.finished(pipeline).await;
    let mut taken = [const { Vec::new() }; JOBS.len()];
    for round in &names {
        for (name, ((section, _, _), taken)) in round.iter().zip(JOBS.iter().zip(&mut taken)) {
            let trace = world.trace(name);
            ensure!(status == Status::Success, "a job failed:\n{trace}");
            taken.push(milliseconds(&trace, section).context("the log has no such section")?);
        }
    }
    world.end().await;
    let medians = taken.map(|mut values| {
        values.sort_by(f64::total_cmp);
        values[ROUNDS / 2]
    });
    let what = format!("sources: 50,000 objects at depth {DEPTH}");
    let mut rows = vec![Row::new(format!("{what}, {}", JOBS[0].1), medians[0], "ms")];
    for ((_, name, _), median) in JOBS.iter().zip(medians).skip(1) {
        let detail = format!("{median:.0} ms; p50 of {ROUNDS}");
        rows.push(Row::new(format!("{what}, {name}, of plain git"), median / medians[0], "x").detail(detail));
    }
    Ok(rows)
}

/// From the head of a section to its end, by the time stamps of the log: they are finer than those of the section.
fn milliseconds(trace: &str, section: &str) -> Option<f64> {
    let at = |mark: &str| -> Option<Timestamp> {
        let line = trace.lines().find(|line| line.contains(mark) && line.contains(&format!(":{section}\r")))?;
        line.split(' ').next()?.parse().ok()
    };
    let seconds = at("section_end:")?.duration_since(at("section_start:")?).as_secs_f64();
    Some(seconds * 1e3)
}

/// Made by `git fast-import` in a second or two; the last commit has the pipeline.
async fn repository(pipeline: &str) -> anyhow::Result<Repository> {
    let mut stream = String::new();
    for commit in 0..=COMMITS {
        let message = format!("Commit {commit}");
        writeln!(
            stream,
            "commit refs/heads/main\ncommitter Bench <bench@example.com> {} +0000",
            1_700_000_000 + commit
        )?;
        writeln!(stream, "data {}\n{message}", message.len())?;
        let files: Vec<(usize, usize)> = match commit {
            0 => (0..FOLDERS).flat_map(|folder| (0..FILES).map(move |file| (folder, file))).collect(),
            // Spread over the folders, so that no two commits share a tree.
            _ => (0..10).map(|number| ((commit * 7 + number * 41) % FOLDERS, commit % FILES)).collect(),
        };
        for (folder, file) in files {
            let mut text = format!("file {file} of folder {folder} since commit {commit}\n");
            text.push_str(&"some lines that are alike in all files\n".repeat(20 + file));
            writeln!(stream, "M 100644 inline folder-{folder}/file-{file}.txt\ndata {}\n{text}", text.len())?;
        }
        if commit == COMMITS {
            writeln!(stream, "M 100644 inline .gitlab-ci.yml\ndata {}\n{pipeline}", pipeline.len())?;
        }
    }
    let repository = Repository::empty("sha1");
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(repository.path())
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = import.stdin.take().context("it was piped")?;
    input.write_all(stream.as_bytes()).await?;
    drop(input);
    ensure!(import.wait().await?.success(), "git fast-import failed");
    // The pipeline is read from the files.
    repository.git(&["checkout", "-q", "-f", "main"]);
    Ok(repository)
}
