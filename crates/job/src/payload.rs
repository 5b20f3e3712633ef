//! What GitLab sends for a job (protocol section 3), read leniently: a job whose JSON is refused is
//! lost (GitLab believes that it runs), so every field may be absent or `null` and unknown ones are ignored.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::ids::JobId;
use crate::secret::{self, SecretString};

fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Lists may hold `null`s too; they are dropped.
fn nullable_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list: Option<Vec<Option<T>>> = Option::deserialize(deserializer)?;
    Ok(list.unwrap_or_default().into_iter().flatten().collect())
}

/// The whole payload of a 201 from `POST /jobs/request`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Payload {
    #[serde(deserialize_with = "nullable")]
    pub id: JobId,
    #[serde(deserialize_with = "secret::lenient")]
    pub token: SecretString,
    #[serde(deserialize_with = "nullable")]
    pub allow_git_fetch: bool,
    #[serde(deserialize_with = "nullable")]
    pub job_info: JobInfo,
    #[serde(deserialize_with = "nullable")]
    pub git_info: GitInfo,
    #[serde(deserialize_with = "nullable")]
    pub runner_info: RunnerInfo,
    #[serde(deserialize_with = "nullable_list")]
    pub inputs: Vec<Input>,
    #[serde(deserialize_with = "nullable_list")]
    pub variables: Vec<Variable>,
    #[serde(deserialize_with = "nullable_list")]
    pub steps: Vec<Step>,
    pub image: Option<Image>,
    #[serde(deserialize_with = "nullable_list")]
    pub services: Vec<Image>,
    #[serde(deserialize_with = "nullable_list")]
    pub artifacts: Vec<Artifact>,
    #[serde(deserialize_with = "nullable_list")]
    pub cache: Vec<Cache>,
    #[serde(deserialize_with = "nullable_list")]
    pub dependencies: Vec<Dependency>,
    #[serde(deserialize_with = "nullable")]
    pub features: Features,
    /// Name of the variable → provider (protocol 3.14).
    #[serde(deserialize_with = "nullable")]
    pub secrets: BTreeMap<String, SecretEntry>,
    #[serde(deserialize_with = "nullable_list")]
    pub hooks: Vec<Hook>,
    /// GitLab Steps, double encoded (protocol 3.16); not advertised.
    pub run: Option<serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub policy_options: PolicyOptions,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct JobInfo {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub stage: String,
    #[serde(deserialize_with = "nullable")]
    pub pipeline_id: u64,
    #[serde(deserialize_with = "nullable")]
    pub project_id: u64,
    #[serde(deserialize_with = "nullable")]
    pub project_name: String,
    #[serde(deserialize_with = "nullable")]
    pub project_full_path: String,
    #[serde(deserialize_with = "nullable")]
    pub time_in_queue_seconds: f64,
    /// `0`, `5+`, `+Inf`: how many jobs of the project instance runners have.
    #[serde(deserialize_with = "nullable")]
    pub project_jobs_running_on_instance_runners_count: String,
    #[serde(deserialize_with = "nullable")]
    pub queue_size: f64,
    #[serde(deserialize_with = "nullable")]
    pub queue_depth: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GitInfo {
    /// Carries the job token as its password.
    #[serde(deserialize_with = "secret::lenient")]
    pub repo_url: SecretString,
    #[serde(deserialize_with = "nullable")]
    pub repo_object_format: String,
    #[serde(rename = "ref", deserialize_with = "nullable")]
    pub reference: String,
    #[serde(deserialize_with = "nullable")]
    pub sha: String,
    #[serde(deserialize_with = "nullable")]
    pub before_sha: String,
    #[serde(deserialize_with = "nullable")]
    pub ref_type: String,
    #[serde(deserialize_with = "nullable_list")]
    pub refspecs: Vec<String>,
    /// 0 is the whole history.
    #[serde(deserialize_with = "nullable")]
    pub depth: u32,
    pub protected: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunnerInfo {
    /// Seconds; 0 or less means that GitLab did not say (see [`Payload::timeout_seconds`]).
    #[serde(deserialize_with = "nullable")]
    pub timeout: i64,
}

/// One variable of the payload; later duplicates win (protocol 3.6).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Variable {
    #[serde(deserialize_with = "nullable")]
    pub key: String,
    #[serde(deserialize_with = "nullable")]
    pub value: String,
    #[serde(deserialize_with = "nullable")]
    pub public: bool,
    #[serde(deserialize_with = "nullable")]
    pub file: bool,
    #[serde(deserialize_with = "nullable")]
    pub masked: bool,
    #[serde(deserialize_with = "nullable")]
    pub raw: bool,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variable({})", self.key)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    /// `script`, `release`, … or `after_script`.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable_list")]
    pub script: Vec<String>,
}

/// An image or a service (protocol 3.8).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Image {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub alias: String,
    pub executor_opts: serde_json::Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Artifact {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub untracked: bool,
    #[serde(deserialize_with = "nullable_list")]
    pub paths: Vec<String>,
    #[serde(deserialize_with = "nullable_list")]
    pub exclude: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub when: When,
    #[serde(deserialize_with = "nullable")]
    pub artifact_type: String,
    #[serde(deserialize_with = "nullable")]
    pub artifact_format: String,
    #[serde(deserialize_with = "nullable")]
    pub expire_in: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Cache {
    #[serde(deserialize_with = "nullable")]
    pub key: String,
    #[serde(deserialize_with = "nullable")]
    pub untracked: bool,
    /// May hold variables.
    #[serde(deserialize_with = "nullable")]
    pub policy: String,
    #[serde(deserialize_with = "nullable_list")]
    pub paths: Vec<String>,
    /// Of saving only.
    #[serde(deserialize_with = "nullable")]
    pub when: When,
    #[serde(deserialize_with = "nullable_list")]
    pub fallback_keys: Vec<String>,
}

/// A value that the job's author chose among those that its inputs allow (protocol 3.5).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Input {
    #[serde(deserialize_with = "nullable")]
    pub key: String,
    #[serde(deserialize_with = "nullable")]
    pub value: InputValue,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct InputValue {
    /// `string`, `number`, `boolean`, `array` or `struct`.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    pub content: serde_json::Value,
    #[serde(deserialize_with = "nullable")]
    pub sensitive: bool,
}

impl fmt::Debug for InputValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InputValue({})", self.kind)
    }
}

/// What a variable is to hold, and who keeps it. There may be a JWT in it.
#[derive(Clone, Deserialize)]
pub struct SecretEntry(pub serde_json::Value);

impl fmt::Debug for SecretEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretEntry")
    }
}

/// A job whose artifacts are downloaded before the script (protocol 3.12).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Dependency {
    #[serde(deserialize_with = "nullable")]
    pub id: JobId,
    #[serde(deserialize_with = "secret::lenient")]
    pub token: SecretString,
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub artifacts_file: ArtifactsFile,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ArtifactsFile {
    #[serde(deserialize_with = "nullable")]
    pub filename: String,
    #[serde(deserialize_with = "nullable")]
    pub size: u64,
}

/// What the server can do (protocol 3.13).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Features {
    #[serde(deserialize_with = "nullable")]
    pub trace_sections: bool,
    #[serde(deserialize_with = "nullable_list")]
    pub token_mask_prefixes: Vec<String>,
    #[serde(deserialize_with = "nullable_list")]
    pub failure_reasons: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable_list")]
    pub script: Vec<String>,
}

/// Of a job that a policy put into the pipeline (protocol 3.17).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PolicyOptions {
    #[serde(deserialize_with = "nullable")]
    pub execution_policy_job: bool,
    #[serde(deserialize_with = "nullable")]
    pub policy_name: String,
    pub policy_variables_override_allowed: Option<bool>,
    #[serde(deserialize_with = "nullable_list")]
    pub policy_variables_override_exceptions: Vec<String>,
}

/// When artifacts are kept; anything unknown counts as the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    OnSuccess,
    OnFailure,
    Always,
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::<String>::deserialize(deserializer)?.unwrap_or_default().as_str() {
            "on_failure" => Self::OnFailure,
            "always" => Self::Always,
            _ => Self::OnSuccess,
        })
    }
}

impl When {
    pub fn applies(self, succeeded: bool) -> bool {
        match self {
            Self::OnSuccess => succeeded,
            Self::OnFailure => !succeeded,
            Self::Always => true,
        }
    }
}

/// A payload that cannot be run. What could be read of it is kept, so that the job can be failed
/// with the reason in its log instead of being lost.
#[derive(Debug, thiserror::Error)]
#[error("GitLab sent a job that cannot be read: {reason}")]
pub struct Unusable {
    pub id: Option<JobId>,
    pub token: Option<SecretString>,
    pub reason: String,
}

/// A payload as it came and as it was understood: the text is what the hand-over carries.
#[derive(Clone)]
pub struct Received {
    pub payload: Payload,
    pub text: Box<RawValue>,
}

impl Received {
    /// Reads the body of a 201.
    pub fn parse(body: &[u8]) -> Result<Self, Unusable> {
        let parsed = serde_json::from_slice::<Box<RawValue>>(body)
            .and_then(|text| Ok((serde_json::from_str::<Payload>(text.get())?, text)));
        match parsed {
            Ok((payload, text)) if payload.id.0 > 0 => Ok(Self { payload, text }),
            Ok((payload, _)) => Err(Unusable { id: None, token: Some(payload.token), reason: "it has no id".into() }),
            Err(error) => Err(Self::salvage(body, &error)),
        }
    }

    fn salvage(body: &[u8], error: &serde_json::Error) -> Unusable {
        #[derive(Deserialize)]
        struct Essentials {
            id: Option<JobId>,
            token: Option<SecretString>,
        }
        // serde's own text may quote a value, and this one goes into logs.
        let what = if error.is_data() { "a field has the wrong type" } else { "it is not JSON" };
        let reason = format!("{what} (line {}, column {})", error.line(), error.column());
        let essentials = serde_json::from_slice(body).unwrap_or(Essentials { id: None, token: None });
        Unusable { id: essentials.id, token: essentials.token, reason }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({:?})", self.payload.id)
    }
}

impl Payload {
    /// The time that the whole job may take, in seconds (protocol 3.4).
    pub fn timeout_seconds(&self) -> u64 {
        match self.runner_info.timeout {
            given if given > 0 => given.unsigned_abs(),
            _ => 7200,
        }
    }

    /// The value of a variable; the last duplicate wins.
    pub fn variable(&self, key: &str) -> Option<&str> {
        self.variables.iter().rfind(|variable| variable.key == key).map(|variable| variable.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    #[test]
    fn every_field_may_be_null() {
        let keys = [
            "token",
            "allow_git_fetch",
            "job_info",
            "git_info",
            "runner_info",
            "variables",
            "steps",
            "image",
            "services",
            "artifacts",
            "cache",
            "dependencies",
            "features",
            "secrets",
            "hooks",
            "run",
            "credentials",
            "inputs",
            "policy_options",
        ];
        let body = format!(r#"{{"id":7,{}}}"#, keys.map(|key| format!(r#""{key}":null"#)).join(","));
        let received = Received::parse(body.as_bytes()).expect("a payload of nulls");
        assert_eq!(received.payload.id, JobId(7));
        assert_eq!(received.payload.timeout_seconds(), 7200);
    }

    #[test]
    fn every_nested_field_may_be_null() {
        let body = br#"{"id":7,"token":"t","git_info":{"repo_url":null,"depth":null,"refspecs":[null]},
            "variables":[{"key":"A","value":null,"public":null},null],
            "artifacts":[{"name":null,"paths":null,"when":null}],
            "steps":[{"name":"script","script":null}],
            "dependencies":[{"id":1,"artifacts_file":null}],
            "image":{"name":null}}"#;
        let payload = Received::parse(body).expect("nested nulls").payload;
        assert_eq!(payload.variables.len(), 1);
        assert_eq!(payload.artifacts[0].when, When::OnSuccess);
        assert!(payload.git_info.refspecs.is_empty());
    }

    #[test]
    fn an_unusable_payload_keeps_what_is_needed_to_fail_the_job() {
        let unusable = Received::parse(br#"{"id":7,"token":"t","steps":"not a list"}"#).expect_err("a wrong type");
        assert_eq!(unusable.id, Some(JobId(7)));
        assert_eq!(unusable.token.expect("the token").expose_secret(), "t");
        assert_eq!(unusable.reason, "a field has the wrong type (line 1, column 40)");
    }

    #[test]
    fn what_is_not_json_is_said_to_be_so() {
        let unusable = Received::parse(b"<html>").expect_err("HTML");
        assert!(unusable.id.is_none());
    }

    #[test]
    fn the_last_duplicate_of_a_variable_wins_and_its_value_is_not_printed() {
        let body = br#"{"id":1,"variables":[{"key":"A","value":"one"},{"key":"A","value":"two"}]}"#;
        let payload = Received::parse(body).expect("a payload").payload;
        assert_eq!(payload.variable("A"), Some("two"));
        assert!(!format!("{payload:?}").contains("two"));
    }
}
