//! What to do about a call of ECS that gave no result: the words of a refusal count (facts 1.3, 1.4).

use job::outcome::SystemFailure;

use crate::errors::Refusal;

/// What to do about a refused RunTask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// No room here: another provider, another zone, later.
    Elsewhere,
    /// May pass within a minute: something fresh has not reached all of AWS yet.
    ForAMinute,
    /// Says the same tomorrow.
    End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    pub course: Course,
    pub failure: SystemFailure,
    pub fix: String,
}

/// One kind of refusal. It applies when the code and the words do; an empty list is "any".
struct Rule {
    codes: &'static [&'static str],
    words: &'static [&'static str],
    course: Course,
    failure: SystemFailure,
    fix: &'static str,
}

use Course::{Elsewhere, End, ForAMinute};
use SystemFailure::{Configuration, Runner};

/// Facts 1.3 and 1.4 as data; the first that applies counts. Words are in lower case.
const RULES: &[Rule] = &[
    Rule {
        codes: &[],
        words: &["capacity is unavailable", "capacity unavailable"],
        course: Elsewhere,
        failure: Runner,
        fix: "Add subnets in other availability zones, or FARGATE beside FARGATE_SPOT in capacity_providers.",
    },
    Rule {
        codes: &[],
        words: &["above your limit"],
        course: End,
        failure: Configuration,
        fix: "Ask for less cpu and memory in the task definition, or raise the account's Fargate quota in Service Quotas.",
    },
    Rule {
        codes: &[],
        words: &["reached the limit on", "reached your limit on", "limitexceeded"],
        course: Elsewhere,
        failure: Runner,
        fix: "Raise the Fargate vCPU quota of the account in Service Quotas (L-3032A538 on demand, L-36FBB829 Spot), \
              or lower concurrent in config.toml.",
    },
    Rule {
        codes: &["LimitExceededException"],
        words: &[],
        course: Elsewhere,
        failure: Runner,
        fix: "Raise the quota that ECS names in Service Quotas, or lower concurrent in config.toml.",
    },
    Rule {
        codes: &[],
        words: &["unable to assume the service linked role"],
        course: ForAMinute,
        failure: Configuration,
        fix: "Run: aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com",
    },
    Rule {
        codes: &[],
        words: &["unable to assume the role"],
        course: ForAMinute,
        failure: Configuration,
        fix: "Let ecs-tasks.amazonaws.com assume the roles that the task definition names, and check that they exist.",
    },
    Rule {
        codes: &[],
        words: &["taskdefinition is inactive", "task definition is inactive"],
        course: ForAMinute,
        failure: Configuration,
        fix: "Name the family without a revision in task_definition, or register the definition again.",
    },
    Rule {
        codes: &[],
        words: &["unable to find task definition", "taskdefinition not found", "task definition does not exist"],
        course: End,
        failure: Configuration,
        fix: "Register the task definition in this region and account, or correct task_definition.",
    },
    Rule {
        codes: &[],
        words: &["invalidgroup.notfound", "security group", "securitygroup"],
        course: End,
        failure: Configuration,
        fix: "Correct security_groups: each must exist in the VPC of the subnets.",
    },
    Rule {
        codes: &[],
        words: &["invalidsubnetid.notfound", "subnet"],
        course: End,
        failure: Configuration,
        fix: "Correct subnets: each must exist in this region and account, all in one VPC.",
    },
    Rule {
        codes: &[],
        words: &["length must be at most 8192"],
        course: End,
        failure: Configuration,
        fix: "Shorten what RunTask sets in the task's environment: ECS allows 8192 characters for all overrides.",
    },
    Rule {
        codes: &[],
        words: &["is not a container in the taskdefinition"],
        course: End,
        failure: Configuration,
        fix: "Name the job's container ci-coordinator in the task definition.",
    },
    Rule {
        codes: &[],
        words: &["network configuration must be provided", "networkmode", "network mode"],
        course: End,
        failure: Configuration,
        fix: "Use networkMode awsvpc in the task definition.",
    },
    Rule {
        codes: &[],
        words: &["capacity provider"],
        course: End,
        failure: Configuration,
        fix: "Associate the providers of capacity_providers with the cluster (aws ecs put-cluster-capacity-providers).",
    },
    Rule {
        codes: &[],
        words: &["no fargate configuration exists", "invalid 'cpu' setting", "invalid 'memory' setting", "invalid cpu"],
        course: End,
        failure: Configuration,
        fix: "Give the task definition a pair of cpu and memory that Fargate has.",
    },
    Rule {
        codes: &[],
        words: &["compatib", "does not support launch_type"],
        course: End,
        failure: Configuration,
        fix: "Set requiresCompatibilities to FARGATE and networkMode to awsvpc in the task definition.",
    },
    Rule {
        codes: &["ClusterNotFoundException"],
        words: &[],
        course: End,
        failure: Configuration,
        fix: "Correct cluster and region: ECS has no such active cluster in this account and region.",
    },
    Rule {
        codes: &["PlatformUnknownException", "PlatformTaskDefinitionIncompatibilityException"],
        words: &[],
        course: End,
        failure: Configuration,
        fix: "Remove platform_version (the newest is used then), or name one that has what the task definition asks for.",
    },
    Rule {
        codes: &["UnsupportedFeatureException"],
        words: &[],
        course: End,
        failure: Configuration,
        fix: "This region does not have what the task definition asks for: change it, or use another region.",
    },
    Rule {
        codes: &["ConflictException"],
        words: &[],
        course: ForAMinute,
        failure: Runner,
        fix: "Another launch used the same client token; run the job again.",
    },
    Rule {
        codes: &["BlockedException"],
        words: &[],
        course: End,
        failure: Runner,
        fix: "AWS has blocked the account: only AWS Support can help.",
    },
    Rule {
        codes: &[
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidSignatureException",
            "InvalidClientTokenId",
            "MissingAuthenticationTokenException",
            "UnrecognizedClientException",
        ],
        words: &[],
        course: ForAMinute,
        failure: Configuration,
        fix: NO_CREDENTIALS,
    },
    Rule {
        codes: &[],
        words: &["internal error", "internalerror"],
        course: Elsewhere,
        failure: Runner,
        fix: "Check that every subnet is in an availability zone that has Fargate.",
    },
];

pub(super) const NO_CREDENTIALS: &str =
    "Give the manager AWS credentials: a task role, an instance profile, a profile, or the AWS_* variables.";

/// What a refused RunTask calls for.
pub(super) fn judge(refusal: &Refusal) -> Judgement {
    if let Some(fix) = missing_permission(refusal) {
        return Judgement { course: End, failure: Configuration, fix };
    }
    let words = refusal.message.to_lowercase();
    let applies = |rule: &&Rule| {
        (rule.codes.is_empty() || rule.codes.contains(&refusal.code.as_str()))
            && (rule.words.is_empty() || rule.words.iter().any(|word| words.contains(word)))
    };
    match RULES.iter().find(applies) {
        Some(rule) => Judgement { course: rule.course, failure: rule.failure, fix: rule.fix.to_owned() },
        // An unknown entry of failures[] is about a place; an unknown exception is about the request.
        None if refusal.code.is_empty() => Judgement {
            course: ForAMinute,
            failure: Runner,
            fix: "Look the reason up in the ECS guide under \"API failure reasons\".".into(),
        },
        None => Judgement {
            course: End,
            failure: Configuration,
            fix: "Correct what ECS names in [runners.fargate] or in the task definition.".into(),
        },
    }
}

/// `… is not authorized to perform: iam:PassRole on resource: arn… because …`, in every service's spelling.
fn missing_permission(refusal: &Refusal) -> Option<String> {
    let (_, rest) = refusal.message.split_once("not authorized to perform: ")?;
    let action = rest.split_whitespace().next()?;
    let resource = rest.split_once("resource: ").or(rest.split_once("resource ")).map(|(_, rest)| rest);
    let resource = resource.and_then(|rest| rest.split_whitespace().next()).unwrap_or("*");
    Some(format!("Allow {action} on {} in the manager's IAM policy.", resource.trim_end_matches(['.', ','])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, message: &str) -> Refusal {
        Refusal { code: code.into(), message: message.into() }
    }

    #[test]
    fn every_refusal_of_the_facts_has_its_course_and_its_fix() {
        let capacity =
            "Capacity is unavailable at this time. Please try again later or in a different availability zone";
        let role = "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task. Please \
                    verify that the role being passed has the proper trust relationship and permissions and that your \
                    IAM user has permissions to pass this role.";
        for (code, message, course, failure, fix) in [
            ("", capacity, Elsewhere, Runner, "other availability zones"),
            (
                "",
                "You've reached the limit on the number of vCPUs you can run concurrently",
                Elsewhere,
                Runner,
                "quota",
            ),
            (
                "ClientException",
                "You've reached the limit on the number of tasks you can run concurrently",
                Elsewhere,
                Runner,
                "quota",
            ),
            ("", "The requested CPU configuration is above your limit", End, Configuration, "less cpu"),
            ("", "Internal error", Elsewhere, Runner, "availability zone"),
            ("", "RESOURCE:ENI", ForAMinute, Runner, "API failure reasons"),
            ("LimitExceededException", "", Elsewhere, Runner, "quota"),
            ("ClientException", role, ForAMinute, Configuration, "ecs-tasks.amazonaws.com"),
            ("ClientException", "TaskDefinition is inactive", ForAMinute, Configuration, "without a revision"),
            (
                "InvalidParameterException",
                "TaskDefinition is inactive",
                ForAMinute,
                Configuration,
                "without a revision",
            ),
            ("ClientException", "Unable to find task definition: x", End, Configuration, "Register"),
            ("ClientException", "TaskDefinition not found.", End, Configuration, "Register"),
            (
                "InvalidParameterException",
                "Error retrieving security group information for [sg-1]: The security group 'sg-1' does not exist (ErrorCode: InvalidGroup.NotFound)",
                End,
                Configuration,
                "security_groups",
            ),
            (
                "InvalidParameterException",
                "Error retrieving subnet information for [subnet-1]: The subnet ID 'subnet-1' does not exist (ErrorCode: InvalidSubnetID.NotFound)",
                End,
                Configuration,
                "Correct subnets",
            ),
            (
                "InvalidParameterException",
                "Container Overrides length must be at most 8192",
                End,
                Configuration,
                "8192",
            ),
            (
                "InvalidParameterException",
                "Override for container named ci-coordinator is not a container in the TaskDefinition.",
                End,
                Configuration,
                "ci-coordinator",
            ),
            (
                "InvalidParameterException",
                "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
                End,
                Configuration,
                "awsvpc",
            ),
            (
                "InvalidParameterException",
                "The specified capacity provider 'FARGATE_SPOT' was not found.",
                End,
                Configuration,
                "capacity_providers",
            ),
            ("ClientException", "No Fargate configuration exists for given values.", End, Configuration, "pair of cpu"),
            ("ClientException", "Invalid 'cpu' setting for task.", End, Configuration, "pair of cpu"),
            (
                "InvalidParameterException",
                "Task definition does not support launch_type FARGATE.",
                End,
                Configuration,
                "requiresCompatibilities",
            ),
            ("ClusterNotFoundException", "Cluster not found.", End, Configuration, "cluster and region"),
            (
                "ClusterNotFoundException",
                "The referenced cluster was inactive.",
                End,
                Configuration,
                "cluster and region",
            ),
            ("PlatformUnknownException", "", End, Configuration, "platform_version"),
            ("PlatformTaskDefinitionIncompatibilityException", "", End, Configuration, "platform_version"),
            ("UnsupportedFeatureException", "", End, Configuration, "another region"),
            ("BlockedException", "", End, Runner, "AWS Support"),
            (
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
                ForAMinute,
                Configuration,
                "credentials",
            ),
            (
                "InvalidParameterException",
                "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
                ForAMinute,
                Configuration,
                "create-service-linked-role",
            ),
            ("InvalidParameterException", "something new", End, Configuration, "[runners.fargate]"),
        ] {
            let judgement = judge(&refused(code, message));
            assert_eq!((judgement.course, judgement.failure), (course, failure), "{code} {message}");
            assert!(judgement.fix.contains(fix), "{code} {message}: {}", judgement.fix);
        }
    }

    #[test]
    fn a_missing_permission_is_named_with_its_resource() {
        for (message, fix) in [
            (
                "User: arn:aws:sts::1:assumed-role/m/i is not authorized to perform: ecs:RunTask on resource: \
                 arn:aws:ecs:eu-west-1:1:task-definition/ci-dev:3 because no identity-based policy allows the ecs:RunTask action",
                "Allow ecs:RunTask on arn:aws:ecs:eu-west-1:1:task-definition/ci-dev:3 in the manager's IAM policy.",
            ),
            (
                "User: arn:aws:sts::1:assumed-role/m/i is not authorized to perform: iam:PassRole on resource: \
                 arn:aws:iam::1:role/task.",
                "Allow iam:PassRole on arn:aws:iam::1:role/task in the manager's IAM policy.",
            ),
            ("x is not authorized to perform: ecs:ListTasks", "Allow ecs:ListTasks on * in the manager's IAM policy."),
        ] {
            let judgement = judge(&refused("AccessDeniedException", message));
            assert_eq!((judgement.course, judgement.fix.as_str()), (End, fix));
        }
    }

    #[test]
    fn the_manual_has_every_rule() {
        const MANUAL: &str = include_str!("../../../../docs/troubleshooting.md");
        for rule in RULES {
            let line = MANUAL.lines().find(|line| line.ends_with(&format!(" | {} |", rule.fix)));
            let line = line.unwrap_or_else(|| panic!("no line for: {}", rule.fix));
            for code in rule.codes {
                assert!(line.contains(&format!("`{code}")), "{code} is missing: {line}");
            }
            for word in rule.words {
                assert!(line.to_lowercase().contains(word), "{word:?} is missing: {line}");
            }
        }
    }

    #[test]
    fn words_of_the_tables_are_in_lower_case() {
        for word in RULES.iter().flat_map(|rule| rule.words) {
            assert_eq!(*word, word.to_lowercase(), "can never be found");
        }
    }
}
