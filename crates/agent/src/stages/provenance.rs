//! Where an artifact comes from: an in-toto statement in its zip, for `RUNNER_GENERATE_ARTIFACTS_METADATA` (protocol 5.6).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use job::payload::Payload;
use job::secret::ExposeSecret;
use job::variables::Variables;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const BUILD_TYPE: &str = "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/main/PROVENANCE.md";

/// The statement for the regular files among `entries`, which are read whole.
pub fn statement(
    project: &Path,
    entries: &BTreeSet<PathBuf>,
    provenance: &Value,
    abandoned: &AtomicBool,
) -> Result<Value, (PathBuf, io::Error)> {
    let mut subjects = Vec::new();
    for path in entries {
        if abandoned.load(Ordering::Relaxed) {
            return Err((path.clone(), io::Error::other("nobody waits for it")));
        }
        let whole = project.join(path);
        // What vanished will not be archived either.
        if !fs::symlink_metadata(&whole).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let digest = digest(&whole).map_err(|error| (path.clone(), error))?;
        subjects.push(json!({"name": path.to_string_lossy(), "digest": {"sha256": digest}}));
    }
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": subjects,
        "predicate": provenance,
    }))
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut sum, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => sum.update(&buffer[..read]),
        }
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The job as SLSA's version 1 describes a build. Variables are named and not told: they may be secrets.
pub fn provenance(payload: &Payload, variables: &Variables, runner: &str, now: &str) -> Value {
    let variable = |name: &str| variables.get(name).unwrap_or_default();
    let repository = repository(payload.git_info.repo_url.expose_secret());
    let mut parameters: Map<String, Value> =
        variables.exports("").into_keys().map(|name| (name, Value::from(""))).collect();
    parameters.insert("entryPoint".into(), json!(payload.job_info.name));
    parameters.insert("source".into(), json!(repository));
    let job = payload.id.to_string();
    let started = Some(variable("CI_JOB_STARTED_AT")).filter(|time| !time.is_empty()).unwrap_or_else(|| now.to_owned());
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters,
            "internalParameters": {
                "name": runner,
                "executor": "fargate",
                "architecture": variable("CI_RUNNER_EXECUTABLE_ARCH").rsplit('/').next(),
                "job": job,
            },
            "resolvedDependencies": [{"uri": repository, "digest": {"sha256": payload.git_info.sha}}],
        },
        "runDetails": {
            "builder": {
                "id": format!("{repository}/-/runners/{}", variable("CI_RUNNER_ID")),
                "version": {job::PRODUCT: job::VERSION},
            },
            "metadata": {"invocationID": job, "startedOn": started, "finishedOn": now},
        },
    })
}

/// The project's address without credentials.
fn repository(url: &str) -> String {
    let url = url.strip_suffix(".git").unwrap_or(url);
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.find('/').unwrap_or(rest.len());
    let start = rest[..host].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_its_credentials() {
        for (url, clean) in [
            ("https://gitlab-ci-token:t@gitlab.example.com/grp/app.git", "https://gitlab.example.com/grp/app"),
            ("http://gitlab.example.com/a@b", "http://gitlab.example.com/a@b"),
            ("", ""),
        ] {
            assert_eq!(repository(url), clean);
        }
    }

    #[test]
    fn regular_files_are_subjects_with_their_sums() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("file"), "abc").and_then(|()| fs::create_dir(dir.path().join("d"))).expect("files");
        let entries = ["d", "file", "vanished"].map(PathBuf::from).into();
        let statement =
            statement(dir.path(), &entries, &json!({"a": 1}), &AtomicBool::new(false)).expect("a statement");
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(statement["subject"], json!([{"name": "file", "digest": {"sha256": sum}}]));
        assert_eq!(statement["predicate"], json!({"a": 1}));
    }
}
