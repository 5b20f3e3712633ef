//! Artifacts beside `zip` and `unzip`: 10,000 small files, and one of 1 GB, packed by a job's agent while it sends them and
//! unpacked by the next one. The other programs run in the same job, on the same files.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use embedded::gitlab;
use jiff::Timestamp;
use testkit::Setup;

use crate::scene::Bench;
use crate::table::Row;

const FILES: usize = 10_000;
const LARGE: usize = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    eprintln!("Archives");
    for program in ["zip", "unzip"] {
        let found = Command::new(program).arg("-v").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            bail!("{program} is not installed (scripts/install-packages bench)");
        }
    }
    let data = bench.folder.join("data");
    small_files(&data)?;
    let mut rows = beside(bench, &data, "10,000 files").await?;
    large_file(&data)?;
    rows.extend(beside(bench, &data, "1 GB").await?);
    Ok(rows)
}

/// A pipeline of two jobs; the first takes the data away.
async fn beside(bench: &Bench, data: &Path, what: &str) -> anyhow::Result<Vec<Row>> {
    let usual = bench.setup();
    let gitlab = gitlab::Config { keep_traces: true, artifact_limit: 4 << 30, ..usual.gitlab };
    let timed = |name: &str, command: &str| {
        format!("    - 'from=$EPOCHREALTIME; {command}; echo \"{name} took $from $EPOCHREALTIME\"'\n")
    };
    let mut yaml = "stages: [pack, unpack]\n.it:\n  tags: [dev]\n  \
                    variables: {GIT_STRATEGY: none, GIT_CLONE_PATH: $CI_BUILDS_DIR/$CI_JOB_ID}\n"
        .to_owned();
    // 5 is GitLab's level; zip would take 6 by itself.
    let (zip, unzip) = (timed("zip", "zip -5qry ../zip.zip data"), timed("unzip", "unzip -q ../zip.zip -d ../unzip"));
    writeln!(yaml, "pack:\n  extends: .it\n  stage: pack\n  artifacts: {{paths: [data]}}\n  script:")?;
    // What both programs made stays until the end: ext4 is slow to make files where many were deleted a moment ago.
    write!(yaml, "    - mv \"{}\" data\n{zip}{unzip}", data.display())?;
    writeln!(yaml, "unpack:\n  extends: .it\n  stage: unpack\n  script: [rm -r data]")?;
    bench
        .play(Setup { gitlab, ..usual }, async |scene| {
            scene.world.pipeline(&yaml).await;
            scene.until_over(PATIENCE).await?;
            let (pack, unpack) = (scene.world.trace("pack"), scene.world.trace("unpack"));
            let packing = between(&pack, "matching artifact files", |line| line.contains("201 Created"))?;
            let unpacking = between(&unpack, "Downloading artifacts from coordinator... ok", |_| true)?;
            Ok(vec![
                row(&format!("zip of {what}, with its upload, beside zip"), packing, took(&pack, "zip")?),
                row(&format!("unzip of {what} beside unzip"), unpacking, took(&pack, "unzip")?),
            ])
        })
        .await
}

fn row(what: &str, ours: f64, theirs: f64) -> Row {
    Row::new(what, ours / theirs, "of its time")
        .at_most(1.0)
        .detail(format!("{ours:.2} s beside {theirs:.2} s, both at level 5"))
}

/// Seconds from the line with `from` to the first one after it that is the end.
pub fn between(trace: &str, from: &str, end: impl Fn(&str) -> bool) -> anyhow::Result<f64> {
    let mut lines = trace.lines().skip_while(|line| !line.contains(from));
    let begins = lines.next().with_context(|| format!("{from:?} is not in the log:\n{trace}"))?;
    let ends = lines.find(|line| end(line)).with_context(|| format!("nothing after {from:?} in the log:\n{trace}"))?;
    let at = |line: &str| line.get(..27).unwrap_or_default().parse::<Timestamp>();
    Ok((at(ends)? - at(begins)?).total(jiff::Unit::Second)?)
}

/// Seconds of one of the other programs, as the script told them.
pub fn took(trace: &str, name: &str) -> anyhow::Result<f64> {
    let start = format!(" {name} took ");
    let times =
        trace.lines().find_map(|line| line.split_once(&start)).with_context(|| format!("{name} did not end"))?.1;
    let mut times = times.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(from)), Some(Ok(to))) = (times.next(), times.next()) else { bail!("{name} told no times") };
    Ok(to - from)
}

/// Words by chance, as compressible as a program's text.
fn text(length: usize) -> Vec<u8> {
    let words =
        ["let", "match", "struct", "return", "self", "error", "path", "into", "(", ")", "{", "}", "=", "->", "\n    "];
    let (mut text, mut chance) = (Vec::with_capacity(length + 16), 1_u64);
    while text.len() < length {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(chance >> 40).unwrap_or(0);
        text.extend_from_slice(words[pick % words.len()].as_bytes());
        text.extend_from_slice(if pick % 3 == 0 { pick.to_string().into_bytes() } else { vec![b' '] }.as_slice());
    }
    text.truncate(length);
    text
}

fn small_files(data: &Path) -> std::io::Result<()> {
    let text = text(4 << 20);
    for number in 0..FILES {
        let directory = data.join(format!("d{}", number % 100));
        std::fs::create_dir_all(&directory)?;
        // 0 to 12 kB, each another part of the text.
        let (start, length) = (number * 397 % (text.len() - 16_384), number * 7919 % 12_289);
        std::fs::write(directory.join(format!("file{number}.rs")), &text[start..start + length])?;
    }
    Ok(())
}

fn large_file(data: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data)?;
    let mut file = std::fs::File::create(data.join("large"))?;
    // Deflate looks back 32 KiB only: that it begins anew nobody sees.
    let (text, mut left) = (text(20_000_000), LARGE);
    while left > 0 {
        let part = &text[..left.min(text.len())];
        file.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}
