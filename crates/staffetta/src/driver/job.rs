//! Whose call it is: what GitLab's runner tells of the job (protocol 9.2).
//!
//! `CUSTOM_ENV_*` holds the job's variables, and a job can set any of them. So everything that decides something is
//! taken from the payload that GitLab sent, where the runner names its file (`JOB_RESPONSE_FILE`).

use std::collections::BTreeMap;
use std::time::Duration;

use job::ids::JobId;
use job::payload::Payload;
use job::variables::of_payload;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Failure;

/// The job that a call is for.
pub struct Job {
    pub id: JobId,
    /// The runner's short token: letters, digits, `-` and `_`.
    pub runner: String,
    /// None if nobody says.
    pub timeout: Option<Duration>,
    /// Secrets are among them.
    variables: BTreeMap<String, String>,
}

/// `ROLE_ARN`: the role as which the driver calls AWS for this job, and `SESSION_VARS`: the job variables that become
/// the session's tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub arn: String,
    pub tags: Vec<(String, String)>,
}

/// GitLab's driver writes this for a variable that it misses.
const UNKNOWN: &str = "unknown";
const SHORT_TOKEN: &str = "CI_RUNNER_SHORT_TOKEN";

impl Job {
    /// `environment` is that of the call; `read` answers for files.
    pub fn of(
        environment: &BTreeMap<String, String>,
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Self, Failure> {
        // Runners before 13.0 write no such file.
        let file = environment.get("JOB_RESPONSE_FILE").filter(|file| !file.is_empty());
        let payload = file.map(|file| payload(file, read)).transpose()?;
        // What GitLab did not send is not the job's: it is the runner's own, such as `environment` of config.toml.
        let of_runner = environment.iter().filter_map(|(name, value)| Some((name.strip_prefix("CUSTOM_ENV_")?, value)));
        let mut variables: BTreeMap<_, _> = of_runner.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        variables.extend(payload.iter().flat_map(of_payload));
        // GitLab never sends this one: the runner sets it, and a job that sets it too would win.
        let forged = payload.as_ref().is_some_and(|payload| payload.variable(SHORT_TOKEN).is_some());
        let runner = variables.get(SHORT_TOKEN).filter(|token| !forged && !token.is_empty());
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let runner = runner.map_or(UNKNOWN, String::as_str).chars().map(safe).take(64).collect();
        let number = |name: &str| variables.get(name).and_then(|value| value.parse().ok());
        let (id, timeout) = match &payload {
            Some(payload) => (payload.id, Some(payload.timeout_seconds())),
            None => (JobId(number("CI_JOB_ID").unwrap_or(0)), number("CI_JOB_TIMEOUT")),
        };
        if id == JobId(0) {
            return Err(Failure::System(
                "neither JOB_RESPONSE_FILE nor CUSTOM_ENV_CI_JOB_ID says which job this is for: the driver is called by \
                 gitlab-runner; to try it by hand, set CUSTOM_ENV_CI_JOB_ID=1"
                    .to_owned(),
            ));
        }
        Ok(Self { id, runner, timeout: timeout.map(Duration::from_secs), variables })
    }

    /// None if it is empty.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// Whether the job may have it is not looked at here.
    pub fn role(&self) -> Option<Role> {
        let arn = self.variable("ROLE_ARN")?;
        let names = self.variable("SESSION_VARS").unwrap_or_default();
        let names = names.split([',', ';', ' ', '\n']).filter(|name| !name.is_empty());
        Some(Role { arn, tags: names.filter_map(|name| Some((name.to_owned(), self.variable(name)?))).collect() })
    }

    /// Names the job as GitLab's driver does, so that each understands the other's metadata files while one replaces
    /// the other: the short token, and a hash of project, pipeline and job.
    pub fn identifier(&self) -> String {
        let project = self.variable("CI_PROJECT_URL").unwrap_or_else(|| UNKNOWN.to_owned());
        let pipeline = self.variable("CI_PIPELINE_ID").and_then(|id| id.parse::<u64>().ok());
        let sum = Sha256::digest(format!("{project}-{}-{}", pipeline.unwrap_or(0), self.id));
        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{sum}", self.runner)
    }
}

/// No other source is taken where the file is named but cannot be read: the job could choose its own answers then.
fn payload(file: &String, read: impl Fn(&str) -> std::io::Result<Vec<u8>>) -> Result<Payload, Failure> {
    let text =
        read(file).map_err(|error| Failure::System(format!("JOB_RESPONSE_FILE {file} cannot be read: {error}")))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::System(format!("JOB_RESPONSE_FILE {file} is not a job as GitLab sends it: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &str = r#"{"id": 7, "token": "secret", "runner_info": {"timeout": 60}, "run": [], "variables": [
        {"key": "CI_JOB_ID", "value": "8"}, {"key": "CI_PIPELINE_ID", "value": "1"}, {"key": "TEAM", "value": "web"},
        {"key": "CI_PROJECT_URL", "value": "http://gitlab.example.com/my/project"}, {"key": "EMPTY", "value": ""},
        {"key": "ROLE_ARN", "value": "arn:aws:iam::1:role/$TEAM"}, {"key": "SESSION_VARS", "value": "TEAM, EMPTY;NONE"}]}"#;

    fn job(environment: &[(&str, &str)]) -> Result<Job, Failure> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Job::of(&environment, |file| match file {
            "payload" => Ok(PAYLOAD.into()),
            "half" => Ok(PAYLOAD[..40].into()),
            "forged" => Ok(PAYLOAD.replace("EMPTY", SHORT_TOKEN).into()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn what_gitlab_sent_counts_and_not_what_the_job_made_of_it() {
        let job = job(&[("JOB_RESPONSE_FILE", "payload"), ("CUSTOM_ENV_CI_JOB_ID", "9"), ("CUSTOM_ENV_TEAM", "ops")])
            .unwrap();
        assert_eq!((job.id, job.timeout), (JobId(7), Some(Duration::from_secs(60))));
        let tags = vec![("TEAM".to_owned(), "web".to_owned())];
        assert_eq!(job.role(), Some(Role { arn: "arn:aws:iam::1:role/web".into(), tags }));
    }

    #[test]
    fn what_gitlab_did_not_send_is_the_runners_own() {
        let job = job(&[("JOB_RESPONSE_FILE", "payload"), ("CUSTOM_ENV_FARGATE_TASK_DEFINITION", "mine")]).unwrap();
        assert_eq!(job.variable("FARGATE_TASK_DEFINITION").as_deref(), Some("mine"));
    }

    #[test]
    fn a_job_cannot_pass_for_one_of_another_runner() {
        let token = ("CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN", "abcdefghi");
        assert_eq!(job(&[("JOB_RESPONSE_FILE", "payload"), token]).unwrap().runner, "abcdefghi");
        assert_eq!(job(&[("JOB_RESPONSE_FILE", "forged"), token]).unwrap().runner, "unknown");
    }

    #[test]
    fn without_a_payload_the_time_out_is_the_runners_word_or_none() {
        let id = ("CUSTOM_ENV_CI_JOB_ID", "1");
        assert_eq!(job(&[id]).unwrap().timeout, None);
        assert_eq!(
            job(&[id, ("CUSTOM_ENV_CI_JOB_TIMEOUT", "36000")]).unwrap().timeout,
            Some(Duration::from_secs(36_000))
        );
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_not_replaced_by_what_the_job_can_set() {
        for file in ["missing", "half"] {
            let read = job(&[("JOB_RESPONSE_FILE", file), ("CUSTOM_ENV_CI_JOB_ID", "9")]);
            assert!(matches!(read, Err(Failure::System(reason)) if reason.contains(file)));
        }
        assert!(matches!(job(&[]), Err(Failure::System(reason)) if reason.contains("CUSTOM_ENV_CI_JOB_ID")));
    }

    /// The hashes are those of GitLab's driver.
    #[test]
    fn the_identifier_is_that_of_gitlabs_driver() {
        let name = |id: &str| {
            job(&[
                ("CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN", "test"),
                ("CUSTOM_ENV_CI_PROJECT_URL", "http://gitlab.example.com/my/project"),
                ("CUSTOM_ENV_CI_PIPELINE_ID", "1"),
                ("CUSTOM_ENV_CI_JOB_ID", id),
            ])
            .unwrap()
            .identifier()
        };
        assert_eq!(name("1"), "test-293ac3a36135714f5953037b893ee39de22e40d9c8622a626308e13b91fa0c3f");
        assert_ne!(name("2"), name("1"));
    }

    #[test]
    fn a_job_cannot_lead_out_of_the_metadata_directory() {
        let job = job(&[("CUSTOM_ENV_CI_JOB_ID", "1"), ("CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN", "../../a b\0")]).unwrap();
        assert_eq!(job.runner, "______a_b_");
        assert!(!job.identifier().contains(['/', '.']));
    }
}
