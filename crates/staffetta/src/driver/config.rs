//! `config`: tells GitLab's runner who the driver is. Being called first, it is also where a wrong `ecs.toml` shows.

use serde_json::json;

use super::{Call, Failure, say, warn};

pub fn config(call: &Call) -> Result<(), Failure> {
    call.metadata_directory()?;
    // Once for each job, not with each of its calls.
    call.settings.warnings.iter().for_each(warn);
    say(answer(&call.job.identifier()));
    Ok(())
}

/// What GitLab's runner reads from standard output (protocol 9.3). `builds_dir` and `cache_dir` are left to config.toml:
/// what is said here would win over it.
fn answer(identifier: &str) -> serde_json::Value {
    json!({"driver": {"name": "Staffetta", "version": job::VERSION}, "hostname": identifier})
}
