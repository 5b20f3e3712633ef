//! What ECS says when a task ends, and what it means: facts 2.2 as data.

use job::outcome::SystemFailure;
use job::outcome::SystemFailure::{Configuration, ExternalDependency, ImagePull, Runner};

/// One kind of end. It applies when the stop code is listed, or when the words hold one of each of its groups.
pub(super) struct Row {
    pub codes: &'static [&'static str],
    pub words: &'static [&'static [&'static str]],
    pub sentence: &'static str,
    pub fix: Option<&'static str>,
    pub retry: bool,
    pub failure: SystemFailure,
    /// The checks of `staffetta doctor` that look for the cause.
    pub checks: &'static [&'static str],
}

/// What ECS's texts contain when a server was not reached, whatever was asked of it.
const UNREACHED: &[&str] = &[
    "there is a connection issue",
    "check your network configuration",
    "dial tcp",
    "i/o timeout",
    "tls handshake timeout",
    "client.timeout exceeded",
    "request canceled while waiting",
    "context deadline exceeded",
    "signal: killed",
];
const DENIED: &[&str] = &["accessdenied", "access denied", "not authorized", "403 forbidden", "check that the role"];
const CREDENTIALS: &[&str] = &["unable to pull secrets or registry auth", "cannot pull registry authentication"];
const PULL: &[&str] = &["cannotpullcontainer", "can't pull the image", "cannot pull the image"];

const WAY_OUT: &str = "Public subnet: assign_public_ip = true and a route to an internet gateway. Private subnet: a NAT \
    gateway, or endpoints for ecr.api, ecr.dkr, s3, logs and secretsmanager whose security group admits port 443. The \
    task's security group must allow port 443 outwards.";
const EXECUTION_ROLE: &str = "Give the task definition's execution role AmazonECSTaskExecutionRolePolicy and what its \
    secrets need.";
const NAME_OF_IMAGE: &str = "Correct the image in the task definition: repository, tag and region must exist.";

/// The first that applies counts. Words are in lower case.
pub(super) const ROWS: &[Row] = &[
    // What is certain by its code comes first: the reason of a StopTask is free text.
    Row {
        codes: &["UserInitiated"],
        words: &[],
        sentence: "The task was stopped by StopTask.",
        fix: None,
        retry: false,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &["SpotInterruption", "TerminationNotice"],
        words: &[&["spot task was interrupted", "spot interruption"]],
        sentence: "AWS took the Spot capacity of the task back.",
        fix: Some("Run the job again; long jobs belong on FARGATE rather than FARGATE_SPOT."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["performing maintenance on the underlying infrastructure"]],
        sentence: "AWS retired the machine of the task for maintenance.",
        fix: Some("Run the job again."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &["InfrastructureHealth"],
        words: &[],
        sentence: "The machine of the task failed.",
        fix: Some("Run the job again."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &["ServiceSchedulerInitiated"],
        words: &[&["scaling activity initiated by"]],
        sentence: "A deployment of an ECS service replaced the task.",
        fix: Some("Jobs are standalone tasks: let no ECS service use their task definition."),
        retry: false,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["outofmemory", "killed due to memory usage"]],
        sentence: "A container of the task ran out of memory and was killed (exit code 137).",
        fix: Some("Give the task definition more memory."),
        retry: false,
        failure: Runner,
        checks: &[],
    },
    // Secrets and registries, the particular before the general.
    Row {
        codes: &[],
        words: &[&["can't retrieve the secret", "can't find the specified secret", "awscurrent"]],
        sentence: "A secret that the task definition names could not be read.",
        fix: Some("Correct the secret's ARN and region in the task definition; it needs a version AWSCURRENT."),
        retry: false,
        failure: Configuration,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[CREDENTIALS, DENIED],
        sentence: "The execution role may not read the image's registry or the secrets.",
        fix: Some(EXECUTION_ROLE),
        retry: false,
        failure: Configuration,
        checks: &["execution-permissions"],
    },
    Row {
        codes: &[],
        words: &[CREDENTIALS, UNREACHED],
        sentence: "The task did not reach the image's registry or the secrets.",
        fix: Some(WAY_OUT),
        retry: true,
        failure: ExternalDependency,
        checks: &["way-out", "vpc-endpoints", "task-egress"],
    },
    Row {
        codes: &[],
        words: &[CREDENTIALS],
        sentence: "The task could not read the image's registry or the secrets.",
        fix: Some("Check the task's way to AWS's endpoints, then its execution role."),
        retry: false,
        failure: ExternalDependency,
        checks: &["way-out", "vpc-endpoints", "task-egress", "execution-permissions"],
    },
    Row {
        codes: &[],
        words: &[&["failed to initialize logging driver", "cloudwatch log group", "log group"]],
        sentence: "The log group that the task definition names could not be used.",
        fix: Some(
            "Create the log group, or set awslogs-create-group and allow logs:CreateLogGroup; a private subnet needs \
             the logs endpoint.",
        ),
        retry: false,
        failure: Configuration,
        checks: &["task-log", "execution-permissions", "vpc-endpoints"],
    },
    Row {
        codes: &[],
        words: &[&["failed to download env files"]],
        sentence: "The environment files that the task definition names could not be read from S3.",
        fix: Some("Allow the execution role s3:GetObject on them; a private subnet needs the s3 endpoint."),
        retry: false,
        failure: Configuration,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["failed to invoke efs utils"]],
        sentence: "The EFS file system that the task definition names could not be mounted.",
        fix: Some("Check its mount targets, their security group (port 2049) and the VPC's DNS."),
        retry: false,
        failure: Configuration,
        checks: &[],
    },
    // Images.
    Row {
        codes: &[],
        words: &[&["toomanyrequests", "pull rate limit"]],
        sentence: "The registry refused the image: its pull rate limit is reached.",
        // A new task at once would meet the same limit and count against it.
        fix: Some("Pull through an ECR pull-through cache, or set repositoryCredentials."),
        retry: false,
        failure: ImagePull,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["no space left on device"]],
        sentence: "The image does not fit on the task's disk, packed and unpacked together.",
        fix: Some("Raise ephemeralStorage in the task definition."),
        retry: false,
        failure: Configuration,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["descriptor matching platform", "exec format error"]],
        sentence: "The image has no variant for the processor of the task.",
        fix: Some("Set runtimePlatform.cpuArchitecture to the image's, or build the image for it."),
        retry: false,
        failure: ImagePull,
        checks: &["task-architecture"],
    },
    Row {
        codes: &[],
        words: &[&["pull access denied", "repository does not exist"]],
        sentence: "The registry does not show the image to the task.",
        fix: Some(
            "Correct the image's name, set repositoryCredentials, or allow the execution role in the ECR policy.",
        ),
        retry: false,
        failure: ImagePull,
        checks: &["task-image", "execution-permissions"],
    },
    Row {
        codes: &[],
        words: &[
            &["failed to copy: httpreaderseeker"],
            &["unexpected status code 5", "unexpected status: 5", "status from get request: 5"],
        ],
        sentence: "The registry failed while the image was being pulled.",
        fix: Some("Run the job again."),
        retry: true,
        failure: ImagePull,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["failed to copy: httpreaderseeker"]],
        sentence: "A layer of the image could not be downloaded.",
        fix: Some(
            "Route the s3 gateway endpoint to the subnet and let its policy allow prod-REGION-starport-layer-bucket.",
        ),
        retry: false,
        failure: ImagePull,
        checks: &["way-out", "vpc-endpoints"],
    },
    Row {
        codes: &[],
        words: &[PULL, DENIED],
        sentence: "The execution role may not pull the image.",
        fix: Some("Allow ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer to it."),
        retry: false,
        failure: ImagePull,
        checks: &["execution-permissions"],
    },
    Row {
        codes: &[],
        words: &[PULL, &["check whether the image exists", "not found", "manifest unknown"]],
        sentence: "The image does not exist.",
        fix: Some(NAME_OF_IMAGE),
        retry: false,
        failure: ImagePull,
        checks: &["task-image"],
    },
    Row {
        codes: &[],
        words: &[PULL, UNREACHED],
        sentence: "The task did not reach the image's registry.",
        fix: Some(WAY_OUT),
        retry: true,
        failure: ImagePull,
        checks: &["way-out", "vpc-endpoints", "task-egress"],
    },
    Row {
        codes: &[],
        words: &[PULL, &["eof", "connection reset"]],
        sentence: "The connection to the image's registry broke.",
        fix: Some("Run the job again."),
        retry: true,
        failure: ImagePull,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[PULL],
        sentence: "The image could not be pulled.",
        fix: Some(NAME_OF_IMAGE),
        retry: false,
        failure: ImagePull,
        checks: &["task-image", "way-out", "vpc-endpoints", "execution-permissions"],
    },
    // Fargate's own ways to fail before a container runs.
    Row {
        codes: &[],
        words: &[&[
            "timeout waiting for network interface provisioning",
            "network interface provision complete error timeout",
            "while preparing network interface to be attached",
        ]],
        sentence: "AWS did not attach the task's network interface in time.",
        fix: Some("Run the job again; if it lasts, look for free addresses in the subnets."),
        retry: true,
        failure: Runner,
        checks: &["subnet-addresses"],
    },
    Row {
        codes: &[],
        words: &[&["timeout waiting for ephemeralstorage provisioning"]],
        sentence: "AWS did not attach the task's disk in time.",
        fix: Some("Run the job again."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["attempting to create network interface"], &["authfailure"]],
        sentence: "AWS could not create the task's network interface for a moment.",
        fix: Some("Run the job again."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["attempting to create network interface", "insufficientfreeaddresses"]],
        sentence: "The subnet has no free address for the task.",
        fix: Some("Add subnets, or larger ones: a task needs one address for its whole life."),
        retry: false,
        failure: Configuration,
        checks: &["subnet-addresses"],
    },
    Row {
        codes: &[],
        words: &[&["not compatible with the selected compute strategy"]],
        sentence: "The task definition does not fit Fargate.",
        fix: Some("Set requiresCompatibilities to FARGATE and networkMode to awsvpc in the task definition."),
        retry: false,
        failure: Configuration,
        checks: &["task-definition"],
    },
    // Containers that do not start.
    Row {
        codes: &[],
        words: &[&["containerruntimetimeouterror", "could not transition to"]],
        sentence: "The container runtime did not start the container in time.",
        fix: Some("Run the job again."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["cannotinspectcontainer", "cannotstopcontainer"]],
        sentence: "The container runtime failed.",
        fix: Some("Run the job again."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["containerruntimeerror", "cannotstartcontainer", "cannotcreatecontainer"]],
        sentence: "The container could not be started.",
        fix: Some("Correct entry point, command and user of the image: the container must run its SSH server."),
        retry: false,
        failure: Configuration,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["dependency graph:", "dependson", "starttimeout"]],
        sentence: "A container on which another depends did not reach its condition in time.",
        fix: Some("Check dependsOn and startTimeout in the task definition, and the log of that container."),
        retry: false,
        failure: Configuration,
        checks: &[],
    },
    // Some of the texts above begin so as well.
    Row {
        codes: &[],
        words: &[&["internalerror"]],
        sentence: "ECS failed inside.",
        fix: Some("Run the job again."),
        retry: true,
        failure: Runner,
        checks: &[],
    },
    Row {
        codes: &[],
        words: &[&["resourceinitializationerror"]],
        sentence: "ECS could not prepare the task.",
        fix: Some("Correct in the task definition what ECS names."),
        retry: false,
        failure: Configuration,
        checks: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_row() {
        const MANUAL: &str = include_str!("../../../../docs/troubleshooting.md");
        let words = MANUAL.to_lowercase();
        for row in ROWS {
            let again = if row.retry { "yes" } else { "no" };
            let line = format!(" | {} | {} | {again} |", row.sentence, row.fix.unwrap_or("—"));
            let line = MANUAL.lines().find(|written| written.ends_with(&line));
            let line = line.unwrap_or_else(|| panic!("no line for: {}", row.sentence));
            for code in row.codes {
                assert!(line.contains(&format!("`{code}`")), "{code} is missing: {line}");
            }
            for word in row.words.iter().copied().flatten() {
                assert!(words.contains(word), "nothing on the page has {word:?}, of: {}", row.sentence);
            }
        }
    }
}
