//! What the test suite recorded.

use std::path::{Path, PathBuf};

use testkit::AwsCall;

/// How the records are made.
pub const HOW: &str = "`make test` records what its tests call, and compares at its end";

/// Where `make test` has them recorded: `STAFFETTA_AWS_CALLS`, below the folder of the repository.
fn folder() -> PathBuf {
    let name = std::env::var_os("STAFFETTA_AWS_CALLS").unwrap_or_else(|| "target/aws-calls".into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Every recorded call of the test suite.
pub fn calls() -> Vec<AwsCall> {
    let folder = folder();
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}: {HOW}", folder.display()));
    let mut calls = Vec::new();
    for file in files {
        let path = file.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a record");
        calls.extend(text.lines().map(|line| {
            let read = serde_json::from_str(line).ok().and_then(|line| AwsCall::read(&line));
            read.unwrap_or_else(|| panic!("{}: no call: {line}", path.display()))
        }));
    }
    assert!(!calls.is_empty(), "{} has no calls: {HOW}", folder.display());
    calls
}
