//! How a job ended. Three answers, never two: the script failed, the system failed, someone else decided.

use serde::{Deserialize, Serialize};

/// The exit code by which GitLab's runner says that a job's options are not supported (protocol 2.9).
const UNSUPPORTED_OPTIONS: i32 = 3;

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    /// A stage that runs in the job's environment exited non-zero (protocol 7.2.6).
    ScriptFailed {
        exit_code: i32,
    },
    /// The job could not be run, or its environment was lost.
    SystemFailed {
        failure: SystemFailure,
        message: String,
    },
    Decided(Decision),
}

/// Why the system failed, as far as GitLab tells them apart (protocol 4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemFailure {
    /// The runner's side: the cloud refused, the task was lost, an error of ours.
    Runner,
    /// The task's image could not be pulled.
    ImagePull,
    /// Wrong settings, of the runner or of the job, that only the runner can see.
    Configuration,
    /// A registry, network or secret server did not answer.
    ExternalDependency,
    /// The job wants what no runner of this kind can do (protocol 2.9).
    UnsupportedOptions,
}

/// Someone else decided that the job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A person cancelled it; after_script ran where the script had begun.
    Canceled,
    /// The job's own time-out, or its script's.
    TimedOut { message: String },
    /// GitLab ended the job already: nothing more is to be sent.
    Aborted,
    /// The manager was told to stop while it held the job.
    Interrupted { message: String },
}

/// GitLab's `failure_reason` words (protocol 4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    ScriptFailure,
    RunnerSystemFailure,
    JobExecutionTimeout,
    ImagePullFailure,
    RunnerConfigurationError,
    RunnerExternalDependencyFailure,
    RunnerInterrupted,
    UnknownFailure,
}

impl FailureReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScriptFailure => "script_failure",
            Self::RunnerSystemFailure => "runner_system_failure",
            Self::JobExecutionTimeout => "job_execution_timeout",
            Self::ImagePullFailure => "image_pull_failure",
            Self::RunnerConfigurationError => "runner_configuration_error",
            Self::RunnerExternalDependencyFailure => "runner_external_dependency_failure",
            Self::RunnerInterrupted => "runner_interrupted",
            Self::UnknownFailure => "unknown_failure",
        }
    }

    /// What may be sent to a server that understands only `known` (protocol 4.6, the mapping before sending).
    pub fn for_server(self, known: &[String]) -> Self {
        let understood = |reason: Self| known.iter().any(|word| word == reason.as_str());
        match self {
            Self::ScriptFailure | Self::RunnerSystemFailure | Self::JobExecutionTimeout => self,
            reason if understood(reason) => reason,
            Self::ImagePullFailure | Self::RunnerExternalDependencyFailure => Self::RunnerSystemFailure,
            Self::RunnerConfigurationError => Self::ScriptFailure,
            Self::RunnerInterrupted | Self::UnknownFailure => Self::UnknownFailure,
        }
    }
}

impl Outcome {
    pub fn system(message: impl Into<String>) -> Self {
        Self::SystemFailed { failure: SystemFailure::Runner, message: message.into() }
    }

    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Succeeded)
    }

    /// The reason for the final update; `None` for a success. The one mapping of outcomes to GitLab's words.
    pub fn failure_reason(&self) -> Option<FailureReason> {
        Some(match self {
            Self::Succeeded => return None,
            Self::ScriptFailed { .. } => FailureReason::ScriptFailure,
            Self::SystemFailed { failure, .. } => match failure {
                SystemFailure::Runner | SystemFailure::UnsupportedOptions => FailureReason::RunnerSystemFailure,
                SystemFailure::ImagePull => FailureReason::ImagePullFailure,
                SystemFailure::Configuration => FailureReason::RunnerConfigurationError,
                SystemFailure::ExternalDependency => FailureReason::RunnerExternalDependencyFailure,
            },
            Self::Decided(decision) => match decision {
                Decision::Canceled | Decision::Aborted => FailureReason::UnknownFailure,
                Decision::TimedOut { .. } => FailureReason::JobExecutionTimeout,
                Decision::Interrupted { .. } => FailureReason::RunnerInterrupted,
            },
        })
    }

    /// The exit code for the final update; GitLab decides `allow_failure: exit_codes` by it. 0 is left out on the wire.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::ScriptFailed { exit_code } => *exit_code,
            Self::SystemFailed { failure: SystemFailure::UnsupportedOptions, .. } => UNSUPPORTED_OPTIONS,
            Self::Succeeded | Self::SystemFailed { .. } | Self::Decided(_) => 0,
        }
    }

    /// The last line of the job's log, without colours (protocol 4.10, 10).
    pub fn closing_line(&self) -> String {
        match self {
            Self::Succeeded => "Job succeeded".into(),
            Self::ScriptFailed { exit_code } => format!("ERROR: Job failed: exit code {exit_code}"),
            Self::SystemFailed { failure: SystemFailure::Runner | SystemFailure::UnsupportedOptions, message } => {
                format!("ERROR: Job failed (system failure): {message}")
            }
            // These are somebody's to mend, as GitLab's runner says it.
            Self::SystemFailed { message, .. } => format!("ERROR: Job failed: {message}"),
            Self::Decided(Decision::Canceled | Decision::Aborted) => "ERROR: Job failed: canceled".into(),
            Self::Decided(Decision::TimedOut { message } | Decision::Interrupted { message }) => {
                format!("ERROR: Job failed: {message}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_told_only_what_it_understands() {
        let old = vec!["unknown_failure".to_owned()];
        for (reason, sent) in [
            (FailureReason::ScriptFailure, FailureReason::ScriptFailure),
            (FailureReason::RunnerSystemFailure, FailureReason::RunnerSystemFailure),
            (FailureReason::JobExecutionTimeout, FailureReason::JobExecutionTimeout),
            (FailureReason::ImagePullFailure, FailureReason::RunnerSystemFailure),
            (FailureReason::RunnerConfigurationError, FailureReason::ScriptFailure),
            (FailureReason::RunnerExternalDependencyFailure, FailureReason::RunnerSystemFailure),
            (FailureReason::RunnerInterrupted, FailureReason::UnknownFailure),
            (FailureReason::UnknownFailure, FailureReason::UnknownFailure),
        ] {
            assert_eq!(reason.for_server(&old), sent, "{reason:?}");
        }
    }

    #[test]
    fn a_new_server_is_told_the_exact_reason() {
        let known = vec!["runner_interrupted".to_owned(), "image_pull_failure".to_owned()];
        assert_eq!(FailureReason::RunnerInterrupted.for_server(&known), FailureReason::RunnerInterrupted);
        assert_eq!(FailureReason::ImagePullFailure.for_server(&known), FailureReason::ImagePullFailure);
    }

    #[test]
    fn script_system_and_decision_never_mix() {
        let script = Outcome::ScriptFailed { exit_code: 137 };
        assert_eq!((script.failure_reason(), script.exit_code()), (Some(FailureReason::ScriptFailure), 137));
        let system = Outcome::system("the host died");
        assert_eq!((system.failure_reason(), system.exit_code()), (Some(FailureReason::RunnerSystemFailure), 0));
        let failure = SystemFailure::UnsupportedOptions;
        let unsupported = Outcome::SystemFailed { failure, message: String::new() };
        assert_eq!(
            (unsupported.failure_reason(), unsupported.exit_code()),
            (Some(FailureReason::RunnerSystemFailure), 3)
        );
        let canceled = Outcome::Decided(Decision::Canceled);
        assert_eq!(canceled.failure_reason(), Some(FailureReason::UnknownFailure));
    }
}
