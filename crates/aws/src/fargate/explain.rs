//! Why a task ended: ECS's stop reasons turned into one sentence and its fix.

use std::fmt;

use job::outcome::SystemFailure;
use job::task::CONTAINER;

use super::stop_reasons::{ROWS, Row};
use super::task::{Status, Task};

/// Why a task ended before its job did, for the job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub sentence: String,
    /// ECS's own words, in one line; empty if it gave none.
    pub said: String,
    /// What a person can do about it; `None` where nothing needs to be done.
    pub fix: Option<&'static str>,
    /// Whether a new task is likely to do better. Only to be used before the job's script began.
    pub retry: bool,
    pub failure: SystemFailure,
    /// The checks of `staffetta doctor` that look for the cause; empty where none can find it.
    pub checks: &'static [&'static str],
}

/// What happened, in ECS's own words too, and what to do about it.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        if !self.said.is_empty() {
            write!(f, " (ECS: {})", self.said)?;
        }
        match self.fix {
            Some(fix) => write!(f, " {fix}"),
            None => Ok(()),
        }
    }
}

/// Why the task ended.
pub fn explain(task: &Task) -> Explanation {
    let said = words(task);
    let lower = said.to_lowercase();
    let code = task.stop_code.as_deref().unwrap_or_default();
    let applies = |row: &&Row| {
        let all = |groups: &[&[&str]]| groups.iter().all(|group| group.iter().any(|word| lower.contains(word)));
        row.codes.contains(&code) || (!row.words.is_empty() && all(row.words))
    };
    match ROWS.iter().find(applies) {
        Some(row) => Explanation {
            sentence: row.sentence.to_owned(),
            said,
            fix: row.fix,
            retry: row.retry,
            failure: row.failure,
            checks: row.checks,
        },
        None => by_what_is_left(task, code, said),
    }
}

/// The ids of all checks of `staffetta doctor` that explanations name.
pub fn checks_of_doctor() -> impl Iterator<Item = &'static str> {
    ROWS.iter().flat_map(|row| row.checks.iter().copied())
}

/// The stopped reason and what the containers add to it, without repetition.
fn words(task: &Task) -> String {
    let mut words = task.stopped_reason.clone().unwrap_or_default().trim().to_owned();
    for container in &task.containers {
        let Some(reason) = container.reason.as_deref().map(str::trim).filter(|reason| !words.contains(reason)) else {
            continue;
        };
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(&format!("{}: {reason}", container.name));
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// No known words: the exit code and the states are left.
fn by_what_is_left(task: &Task, code: &str, said: String) -> Explanation {
    let (sentence, fix, retry) = match task.exit_code() {
        Some(137) => (
            format!("The container {CONTAINER} was killed (exit code 137), but not by ECS for its memory."),
            Some(
                "SIGKILL comes from a stop that took too long, from the job itself, or from the kernel: look at memory.",
            ),
            false,
        ),
        Some(exit_code) => (format!("The container {CONTAINER} ended with exit code {exit_code}."), None, false),
        None if task.last_status == Status::Gone => (
            "ECS does not know the task any more.".to_owned(),
            Some("Ended tasks are shown for an hour; CloudTrail keeps who stopped it."),
            true,
        ),
        None if code == "TaskFailedToStart" || said.to_lowercase().contains("task failed to start") => {
            ("The task did not start.".to_owned(), Some("Look at what ECS said, and at the task definition."), false)
        }
        None if said.is_empty() => ("The task ended, and ECS gave no reason.".to_owned(), None, false),
        None => ("The task ended.".to_owned(), None, false),
    };
    Explanation { sentence, said, fix, retry, failure: SystemFailure::Runner, checks: &[] }
}

#[cfg(test)]
mod tests {
    use job::ids::TaskArn;
    use job::outcome::SystemFailure::{Configuration, ExternalDependency, ImagePull, Runner};

    use super::*;
    use crate::fargate::task::Container;

    fn task(code: &str, reason: &str, containers: &[(&str, Option<i32>, &str)]) -> Task {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let container = |(name, exit_code, reason): &(&str, Option<i32>, &str)| Container {
            name: (*name).to_owned(),
            exit_code: *exit_code,
            reason: text(reason),
        };
        Task {
            last_status: Status::Stopped,
            stop_code: text(code),
            stopped_reason: text(reason),
            containers: containers.iter().map(container).collect(),
            ..Task::unseen(TaskArn::new("arn"))
        }
    }

    /// One row per row of facts 2.2: stop code, stopped reason, container reason; what the sentence or the fix holds,
    /// whether to try again, and the class.
    const FACTS: &[(&str, &str, &str, &str, bool, SystemFailure)] = &[
        (
            "TaskFailedToStart",
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: \
             unable to retrieve ecr registry auth: service call has been retried 3 time(s): RequestError: send request \
             failed caused by: Post \"https://api.ecr.eu-west-1.amazonaws.com/\": dial tcp 52.1.2.3:443: i/o timeout",
            "",
            "did not reach the image's registry",
            true,
            ExternalDependency,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: unable to pull secrets or registry auth: The task cannot pull registry \
             authentication from Amazon ECR. There is a connection issue between the task and Amazon ECR.",
            "",
            "NAT",
            true,
            ExternalDependency,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: \
             AccessDeniedException: User: arn:aws:sts::1:assumed-role/exec is not authorized to perform: \
             ecr:GetAuthorizationToken",
            "",
            "execution role may not read",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed",
            "",
            "could not read the image's registry",
            false,
            ExternalDependency,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: unable to pull secrets or registry auth: The task can't retrieve the secret with \
             ARN 'arn:aws:secretsmanager:eu-west-1:1:secret:x' from AWS Secrets Manager.",
            "",
            "secret that the task definition names",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: unable to pull secrets or registry auth: ResourceNotFoundException: Secrets \
             Manager can't find the specified secret.",
            "",
            "AWSCURRENT",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: failed to initialize logging driver: failed to create Cloudwatch log stream: \
             ResourceNotFoundException: The specified log group does not exist.",
            "",
            "log group",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: The task cannot find the Amazon CloudWatch log group defined in the task \
             definition. There is a connection issue between the task and Amazon CloudWatch.",
            "",
            "log group",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: failed to download env files: file download command: non empty error stream",
            "",
            "environment files",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: failed to invoke EFS utils commands to set up EFS volumes: stderr: Failed to resolve",
            "",
            "EFS",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
             1.dkr.ecr.eu-west-1.amazonaws.com/x:nope: 1.dkr.ecr.eu-west-1.amazonaws.com/x:nope: not found",
            "",
            "does not exist",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref x: \
             unexpected status from HEAD request: 403 Forbidden",
            "",
            "may not pull",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
             docker.io/library/x: failed to do request: dial tcp 1.2.3.4:443: i/o timeout",
            "",
            "did not reach the image's registry",
            true,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "Task failed to start",
            "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref x: EOF",
            "connection to the image's registry broke",
            true,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: ref pull has been retried 5 time(s): failed to copy: httpReaderSeeker: failed open: \
             unexpected status code https://prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com/x: 403 Forbidden",
            "",
            "starport-layer-bucket",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: ref pull has been retried 5 time(s): failed to copy: httpReaderSeeker: failed open: \
             unexpected status code 503 Service Unavailable",
            "",
            "registry failed",
            true,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: The task can't pull the image. Check that the role has the permissions to pull \
             images from the registry.",
            "",
            "may not pull",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: The task can't pull the image 'x'. Check your network configuration.",
            "",
            "did not reach",
            true,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: The task can't pull the image 'x'. Check whether the image exists.",
            "",
            "does not exist",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: inspect image has been retried 1 time(s): httpReaderSeeker: failed open: toomanyrequests: \
             You have reached your pull rate limit.",
            "",
            "pull rate limit",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: ref pull has been retried 1 time(s): failed to extract layer: write /x: no space \
             left on device",
            "",
            "ephemeralStorage",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: failed to resolve ref x: pull access denied, repository does not exist or may \
             require authorization",
            "",
            "repositoryCredentials",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: pull command failed: something new",
            "",
            "could not be pulled",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "CannotPullContainerError: image Manifest does not contain descriptor matching platform 'linux/arm64'",
            "",
            "runtimePlatform",
            false,
            ImagePull,
        ),
        (
            "EssentialContainerExited",
            "Essential container in task exited",
            "CannotStartContainerError: exec /usr/sbin/sshd: exec format error",
            "no variant for the processor",
            false,
            ImagePull,
        ),
        (
            "TaskFailedToStart",
            "Timeout waiting for network interface provisioning to complete.",
            "",
            "network interface in time",
            true,
            Runner,
        ),
        (
            "TaskFailedToStart",
            "Network interface provision complete error timeout expired",
            "",
            "network interface in time",
            true,
            Runner,
        ),
        (
            "TaskFailedToStart",
            "Rate limit exceeded while preparing network interface to be attached to instance",
            "",
            "network interface in time",
            true,
            Runner,
        ),
        (
            "TaskFailedToStart",
            "Timeout waiting for EphemeralStorage provisioning to complete.",
            "",
            "disk in time",
            true,
            Runner,
        ),
        (
            "TaskFailedToStart",
            "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet \
             'subnet-1': InsufficientFreeAddressesInSubnet",
            "",
            "no free address",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet \
             'subnet-1': AuthFailure",
            "",
            "for a moment",
            true,
            Runner,
        ),
        (
            "TaskFailedToStart",
            "InternalError: unable to create a network interface",
            "",
            "ECS failed inside",
            true,
            Runner,
        ),
        (
            "TaskFailedToStart",
            "The selected task definition is not compatible with the selected compute strategy.",
            "",
            "requiresCompatibilities",
            false,
            Configuration,
        ),
        ("TaskFailedToStart", "Task failed to start", "", "did not start", false, Runner),
        (
            "TaskFailedToStart",
            "Task failed to start",
            "CannotStartContainerError: failed to create containerd task: exec: \"/entry\": no such file or directory",
            "could not be started",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ContainerRuntimeError: failed to create container: unable to find user ci",
            "",
            "user of the image",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "Task failed to start",
            "ContainerRuntimeTimeoutError: Could not transition to running; timed out after waiting 1m0s",
            "in time",
            true,
            Runner,
        ),
        (
            "",
            "Essential container in task exited",
            "CannotInspectContainerError: no answer",
            "runtime failed",
            true,
            Runner,
        ),
        (
            "",
            "Essential container in task exited",
            "CannotStopContainerError: no answer",
            "runtime failed",
            true,
            Runner,
        ),
        (
            "EssentialContainerExited",
            "Essential container in task exited",
            "OutOfMemoryError: container killed due to memory usage",
            "more memory",
            false,
            Runner,
        ),
        ("EssentialContainerExited", "Essential container in task exited", "", "exit code 1", false, Runner),
        ("UserInitiated", "cannot pull: toomanyrequests, says the person", "", "StopTask", false, Runner),
        ("SpotInterruption", "Your Spot Task was interrupted.", "", "Spot", true, Runner),
        ("TerminationNotice", "", "", "Spot", true, Runner),
        ("", "Your Spot Task was interrupted.", "", "Spot", true, Runner),
        (
            "",
            "ECS is performing maintenance on the underlying infrastructure hosting the task",
            "",
            "maintenance",
            true,
            Runner,
        ),
        ("InfrastructureHealth", "", "", "machine of the task failed", true, Runner),
        (
            "ServiceSchedulerInitiated",
            "Scaling activity initiated by (deployment ecs-svc/1)",
            "",
            "service",
            false,
            Runner,
        ),
        (
            "TaskFailedToStart",
            "dependency graph: container ordering dependency [helper] for target [ci-coordinator] has timed out.",
            "",
            "dependsOn",
            false,
            Configuration,
        ),
        (
            "TaskFailedToStart",
            "ResourceInitializationError: something new",
            "",
            "prepare the task",
            false,
            Configuration,
        ),
    ];

    #[test]
    fn every_row_of_the_facts_is_explained() {
        for &(code, reason, container, holds, retry, failure) in FACTS {
            let exit_code = (code == "EssentialContainerExited").then_some(1);
            let task = task(code, reason, &[("helper", None, ""), (CONTAINER, exit_code, container)]);
            let explanation = explain(&task);
            let text = format!("{} {}", explanation.sentence, explanation.fix.unwrap_or_default());
            assert!(text.contains(holds), "{code} {reason} {container}: {explanation:?}");
            assert_eq!((explanation.retry, explanation.failure), (retry, failure), "{code} {reason}: {explanation:?}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_reached() {
        let sentences: Vec<String> =
            FACTS.iter().map(|fact| explain(&task(fact.0, fact.1, &[(CONTAINER, None, fact.2)])).sentence).collect();
        for row in ROWS {
            assert!(sentences.iter().any(|sentence| sentence == row.sentence), "never chosen: {}", row.sentence);
        }
        for word in ROWS.iter().flat_map(|row| row.words).flat_map(|group| group.iter()) {
            assert_eq!(*word, word.to_lowercase(), "can never be found");
        }
    }

    #[test]
    fn an_end_without_containers_or_words_is_no_riddle() {
        assert_eq!(explain(&task("", "", &[])).sentence, "The task ended, and ECS gave no reason.");
        let explanation = explain(&task("TaskFailedToStart", "", &[]));
        assert_eq!((explanation.sentence.as_str(), explanation.said.as_str()), ("The task did not start.", ""));
        let gone = Task { last_status: Status::Gone, ..Task::unseen(TaskArn::new("arn")) };
        assert_eq!(explain(&gone).sentence, "ECS does not know the task any more.");
    }

    #[test]
    fn a_kill_is_not_called_out_of_memory_unless_ecs_says_so() {
        let stopped =
            task("EssentialContainerExited", "Essential container in task exited", &[(CONTAINER, Some(137), "")]);
        assert!(explain(&stopped).sentence.contains("137"));
        assert!(!explain(&stopped).sentence.contains("ran out of memory"));
        let oom = "OutOfMemoryError: container killed due to memory usage";
        let killed =
            task("EssentialContainerExited", "Essential container in task exited", &[(CONTAINER, Some(137), oom)]);
        assert!(explain(&killed).sentence.contains("ran out of memory"));
    }

    #[test]
    fn ecs_words_are_kept_in_one_line_and_once() {
        let task =
            task("", "Task failed\nto start", &[(CONTAINER, None, "E1"), ("helper", None, "E1"), ("x", None, "E2")]);
        assert_eq!(explain(&task).said, "Task failed to start; ci-coordinator: E1; x: E2");
    }
}
