//! A cache up and down beside `zip`, `aws s3 cp` and `unzip` in the same job, on the same file and the same store: moto's S3.
//! The store is slow, and it is so for both.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use embedded::gitlab;
use testkit::{Moto, Setup};

use crate::archives::{between, took};
use crate::scene::Bench;
use crate::table::Row;

const BYTES: usize = 256 * 1024 * 1024;
const BUCKET: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    eprintln!("Caches");
    let aws = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/aws");
    ensure!(aws.is_file(), "the AWS CLI is not installed (scripts/install-aws-cli)");
    let moto = Moto::shared();
    moto.create_bucket(BUCKET).await;
    let usual = bench.setup();
    let gitlab = gitlab::Config { keep_traces: true, ..usual.gitlab };
    let mut runner = usual.runner.clone();
    let cache = bench.folder.join("cache");
    // Else what lies on disk would be found to be as new as what lies in the store.
    write!(runner, "\ncache_dir = \"{0}\"\npre_get_sources_script = \"rm -rf '{0}'\"\n", cache.display())?;
    write!(
        runner,
        "[runners.cache]\nType = \"s3\"\n[runners.cache.s3]\nServerAddress = \"{}\"\nInsecure = true\nAccessKey = \"a\"\n\
         SecretKey = \"s\"\nBucketName = \"{BUCKET}\"\nBucketLocation = \"us-east-1\"\n",
        moto.address()
    )?;
    let cp = format!(
        "env AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=s AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true \
         {} --endpoint-url {} s3 cp --no-progress",
        aws.display(),
        moto.url()
    );
    let timed = |name: &str, command: &str| {
        format!("    - 'from=$EPOCHREALTIME; {command}; echo \"{name} took $from $EPOCHREALTIME\"'\n")
    };
    // Chance does not compress, so both only store it.
    let mut yaml = "stages: [up, down]\n.it:\n  tags: [dev]\n  cache: {key: bench, paths: [data]}\n  variables: \
                    {GIT_STRATEGY: none, GIT_CLONE_PATH: $CI_BUILDS_DIR/$CI_JOB_ID, CACHE_COMPRESSION_LEVEL: fastest}\n"
        .to_owned();
    write!(
        yaml,
        "up:\n  extends: .it\n  stage: up\n  script:\n    - mkdir data\n    - head -c {BYTES} /dev/urandom > data/it\n"
    )?;
    yaml += &timed("up", &format!("zip -0qry ../up.zip data && {cp} ../up.zip s3://{BUCKET}/theirs"));
    write!(yaml, "    - rm ../up.zip\ndown:\n  extends: .it\n  stage: down\n  script:\n    - rm -r data\n")?;
    yaml += &timed("down", &format!("{cp} s3://{BUCKET}/theirs ../down.zip && unzip -q ../down.zip"));
    let rows = bench.play(Setup { gitlab, runner, ..usual }, async |scene| {
        scene.world.pipeline(&yaml).await;
        scene.until_over(PATIENCE).await?;
        let (up, down) = (scene.world.trace("up"), scene.world.trace("down"));
        Ok(vec![
            row(
                "a cache of 256 MB up, beside zip and aws s3 cp",
                between(&up, "Creating cache", is_saved)?,
                took(&up, "up")?,
            ),
            row(
                "a cache down, beside aws s3 cp and unzip",
                between(&down, "Checking cache", is_found)?,
                took(&down, "down")?,
            ),
        ])
    });
    rows.await
}

fn is_saved(line: &str) -> bool {
    line.contains("Created cache")
}

fn is_found(line: &str) -> bool {
    line.contains("Successfully extracted cache")
}

fn row(what: &str, ours: f64, theirs: f64) -> Row {
    Row::new(what, ours / theirs, "of its time").detail(format!("{ours:.2} s beside {theirs:.2} s"))
}
