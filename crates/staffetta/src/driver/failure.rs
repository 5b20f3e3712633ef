//! How a call ends, and the exit code that says so to GitLab's runner (protocol 9.4).

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why a call did not succeed. Three answers, never two: the script, the system, someone else.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The script of a stage ended with this code, which is not 0.
    #[error("the script ended with exit code {exit_code}")]
    Script { exit_code: i32 },
    /// The job asks for what its environment does not allow; only its author can mend that.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    System(String),
    /// SIGTERM: the job was cancelled, or its time is over.
    #[error("told to stop")]
    Interrupted,
}

/// The codes that GitLab's runner wants to see, from the environment of the call.
#[derive(Debug, PartialEq, Eq)]
pub struct ExitCodes {
    build_failure: u8,
    system_failure: u8,
    /// Where the script's own code goes, for `allow_failure: exit_codes`.
    file: Option<PathBuf>,
}

impl ExitCodes {
    pub fn of(environment: &BTreeMap<String, String>) -> Self {
        // 0 would make a success of every failure.
        let code = |name: &str| environment.get(name)?.parse().ok().filter(|code| *code != 0);
        Self {
            build_failure: code("BUILD_FAILURE_EXIT_CODE").unwrap_or(1),
            system_failure: code("SYSTEM_FAILURE_EXIT_CODE").unwrap_or(2),
            file: environment.get("BUILD_EXIT_CODE_FILE").filter(|file| !file.is_empty()).map(PathBuf::from),
        }
    }

    /// The one mapping of failures to exit codes. Only a build failure is final: GitLab's runner prepares three times
    /// after a system failure.
    pub fn code(&self, failure: &Failure) -> u8 {
        match failure {
            Failure::Script { .. } | Failure::Refused(_) => self.build_failure,
            // Nobody asks for the code of a call that was told to stop.
            Failure::System(_) | Failure::Interrupted => self.system_failure,
        }
    }

    /// Leaves the script's exit code where GitLab's runner looks for it.
    pub fn keep(&self, failure: &Failure) -> std::io::Result<()> {
        match (&self.file, failure) {
            (Some(file), Failure::Script { exit_code }) => std::fs::write(file, exit_code.to_string()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(variables: &[(&str, &str)]) -> ExitCodes {
        ExitCodes::of(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_script_the_system_and_the_rest_have_the_codes_that_the_runner_names() {
        let codes = codes(&[("BUILD_FAILURE_EXIT_CODE", "101"), ("SYSTEM_FAILURE_EXIT_CODE", "102")]);
        assert_eq!(codes.code(&Failure::Script { exit_code: 7 }), 101);
        assert_eq!(codes.code(&Failure::Refused(String::new())), 101);
        assert_eq!(codes.code(&Failure::System(String::new())), 102);
        assert_eq!(codes.code(&Failure::Interrupted), 102);
    }

    #[test]
    fn without_usable_codes_a_failure_is_still_no_success() {
        for variables in [&[][..], &[("BUILD_FAILURE_EXIT_CODE", "0"), ("SYSTEM_FAILURE_EXIT_CODE", "no")]] {
            assert_eq!(codes(variables), ExitCodes { build_failure: 1, system_failure: 2, file: None });
        }
    }
}
