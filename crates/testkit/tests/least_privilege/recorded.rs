//! What the test suite recorded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::AwsCall;

/// How the records are made.
pub const HOW: &str = "`make test` records what its tests call, and compares at its end";

/// Where `make test` has them recorded: `STAFFETTA_AWS_CALLS`, below the folder of the repository.
fn folder() -> PathBuf {
    let name = std::env::var_os("STAFFETTA_AWS_CALLS").unwrap_or_else(|| "target/aws-calls".into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Every recorded call of the test suite. Keys of a role that one server gave out and another was called with have it too.
pub fn calls() -> Vec<AwsCall> {
    let folder = folder();
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}: {HOW}", folder.display()));
    let (mut calls, mut roles) = (Vec::new(), HashMap::new());
    for file in files {
        let path = file.expect("an entry").path();
        for line in std::fs::read_to_string(&path).expect("a record").lines() {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let call = AwsCall::read(&line).unwrap_or_else(|| panic!("{}: no call: {line}", path.display()));
            if let Some(key) = line["gives"].as_str() {
                roles.insert(key.to_owned(), call.text("RoleArn").to_owned());
            }
            calls.push(call);
        }
    }
    assert!(!calls.is_empty(), "{} has no calls: {HOW}", folder.display());
    for call in &mut calls {
        call.role = call.role.take().or_else(|| roles.get(&call.who).cloned());
    }
    calls
}
