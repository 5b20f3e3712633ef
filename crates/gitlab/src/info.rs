//! The `info` block (2.2, 2.3).

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// What this runner is and can do. The features are the same for all runners of this program.
#[derive(Debug, Clone)]
pub struct Info {
    /// GitLab shows `unknown` for names that it does not know, and accepts them.
    pub executor: String,
    /// `bash` or `sh`.
    pub shell: String,
    /// `labels` of `config.toml`: those of the file under those of the runner.
    pub labels: BTreeMap<String, String>,
}

impl Info {
    pub fn new(executor: impl Into<String>, shell: impl Into<String>) -> Self {
        Self { executor: executor.into(), shell: shell.into(), labels: BTreeMap::new() }
    }
}

/// Every feature that GitLab knows, with whether we do what it obliges to (2.3). GitLab drops a job
/// that needs a missing one with `runner_unsupported`, and loses a job that needs one we only claim.
const FEATURES: [(&str, bool); 31] = [
    ("variables", true),
    ("image", false),
    ("services", false),
    ("artifacts", true),
    ("cache", true),
    ("fallback_cache_keys", true),
    ("shared", false),
    ("upload_multiple_artifacts", true),
    ("upload_raw_artifacts", true),
    ("session", false),
    ("terminal", false),
    ("refspecs", true),
    ("masking", true),
    ("proxy", false),
    ("raw_variables", true),
    ("artifacts_exclude", true),
    ("multi_build_steps", true),
    ("trace_reset", true),
    ("trace_checksum", true),
    ("trace_size", true),
    ("vault_secrets", true),
    ("cancelable", true),
    ("return_exit_code", true),
    ("service_variables", false),
    ("service_multiple_aliases", false),
    ("image_executor_opts", false),
    ("service_executor_opts", false),
    ("cancel_gracefully", true),
    ("native_steps_integration", false),
    ("two_phase_job_commit", false),
    ("job_inputs", true),
];

impl Serialize for Info {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut info = serializer.serialize_struct("Info", 10)?;
        info.serialize_field("name", job::PRODUCT)?;
        info.serialize_field("version", job::VERSION)?;
        info.serialize_field("revision", "HEAD")?;
        info.serialize_field("platform", std::env::consts::OS)?;
        info.serialize_field("architecture", job::variables::architecture())?;
        info.serialize_field("executor", &self.executor)?;
        info.serialize_field("shell", &self.shell)?;
        info.serialize_field("features", &FEATURES.into_iter().collect::<BTreeMap<_, _>>())?;
        info.serialize_field("config", &BTreeMap::from([("gpus", "")]))?;
        if self.labels.is_empty() {
            info.skip_field("labels")?;
        } else {
            info.serialize_field("labels", &self.labels)?;
        }
        info.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_said_yes_or_no() {
        let info = serde_json::to_value(Info::new("fargate", "bash")).expect("JSON");
        let features = info["features"].as_object().expect("an object");
        assert_eq!(features.len(), 31);
        assert!(features.values().all(serde_json::Value::is_boolean));
        assert_eq!(info["features"]["cancel_gracefully"], true);
        assert_eq!(info["name"], job::PRODUCT);
        assert_eq!(info["config"]["gpus"], "");
    }

    #[test]
    fn labels_are_sent_where_there_are_any() {
        let mut info = Info::new("fargate", "bash");
        assert!(serde_json::to_value(&info).expect("JSON").get("labels").is_none());
        info.labels.insert("team".into(), "platform".into());
        assert_eq!(serde_json::to_value(&info).expect("JSON")["labels"], serde_json::json!({ "team": "platform" }));
    }
}
