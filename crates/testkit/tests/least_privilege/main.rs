//! Least privilege, proved: every call of AWS that the manager, the driver, `deploy` and `doctor` made in the whole test suite is
//! allowed by the policies that `deploy` makes, and everything that those allow is used by some call.
//!
//! The calls are recorded at the wire, by the embedded Fargate and by a front before the emulators. The judge of policies is
//! `testkit::iam`, since moto does not evaluate policies and ministack knows no conditions (facts 11.3, 11.4).

mod comparison;
mod deployment;
mod recorded;
mod requirements;

use std::collections::{BTreeMap, BTreeSet};

use testkit::AwsCall;

use crate::comparison::{Asked, Principal, Unseen, mistakes, reaching_others};
use crate::deployment::Judged;
use crate::requirements::Means;

/// What ECS does with a role before the task runs.
const BY_ECS: &[&str] = &[
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
];

const UNSEEN: &[Unseen] = &[
    Unseen { kind: "execution role", actions: BY_ECS, why: "ECS pulls the image and opens the log itself" },
    Unseen { kind: "manager's execution role", actions: BY_ECS, why: "ECS pulls the image and opens the log itself" },
    Unseen {
        kind: "manager's execution role",
        actions: &["secretsmanager:GetSecretValue"],
        why: "ECS puts the runner tokens into the manager's environment itself",
    },
];

/// What a manager whose config.toml `deploy` made has to be seen with in each environment: there nothing stands for anything else.
const BY_GENERATED_CONFIG: [&str; 5] =
    ["ecs:RunTask", "ecs:DescribeTasks", "ecs:ListTasks", "s3:PutObject", "s3:GetObject"];

/// What IAM was asked because of these calls, and what of them the table does not know.
fn asked(calls: &[AwsCall], judged: &Judged) -> (BTreeSet<Asked>, Vec<String>) {
    let (mut asked, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for call in calls {
        match requirements::of(call, judged) {
            Means::Asks(principal, questions) => asked.extend(questions.into_iter().map(|question| Asked {
                principal: principal.clone(),
                question,
                call: call.name(),
            })),
            Means::Nothing(_) => {}
            Means::Unknown => {
                let AwsCall { who, role, .. } = call;
                let role = role.as_ref().map(|role| format!(" as {role}")).unwrap_or_default();
                unknown.insert(format!("{who}{role} calls {}, of which requirements.rs says nothing", call.name()));
            }
        }
    }
    (asked, unknown.into_iter().collect())
}

/// Without what CloudFormation does in the operator's name: no emulator makes those calls. That each of them belongs to a type of
/// resource in our templates is compared with CloudFormation's own schemas in `aws/tests/templates`.
fn without_cloudformation(mut principals: Vec<Principal>) -> Vec<Principal> {
    for principal in &mut principals {
        principal.statements.retain(|statement| !statement.conditions.iter().any(|it| it.key == "aws:CalledVia"));
    }
    principals
}

#[test]
#[ignore = "reads what the whole test suite called: make test runs it last"]
fn every_call_is_allowed_and_every_allowed_action_is_called() {
    let calls = recorded::calls();
    let judged = Judged::new(&calls);
    let (asked, mut wrong) = asked(&calls, &judged);
    for name in BY_GENERATED_CONFIG {
        let without = judged.without_generated(&calls, name);
        let told = without.iter().map(|environment| format!("no {name} of {environment} by a generated config.toml"));
        wrong.extend(told);
    }
    let principals = without_cloudformation(judged.principals());
    wrong.extend(mistakes(&principals, &asked, UNSEEN));
    wrong.extend(reaching_others(&principals, &asked));
    let mut by_principal: BTreeMap<&str, usize> = BTreeMap::new();
    for asked in &asked {
        *by_principal.entry(&asked.principal).or_default() += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} recorded calls, {by_principal:?} ({}):\n{}",
        calls.len(),
        recorded::HOW,
        wrong.join("\n")
    );
    println!("{} recorded calls, questions: {by_principal:?}", calls.len());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(who: &str, service: &str, action: &str, parameters: serde_json::Value) -> AwsCall {
        let line = json!({
            "who": who, "role": null, "service": service, "region": "us-east-1", "action": action, "parameters": parameters,
        });
        AwsCall::read(&line).expect("a call")
    }

    #[test]
    fn run_task_asks_for_the_definition_the_roles_that_are_passed_and_the_tags() {
        let judged = Judged::new(&[]);
        let run =
            json!({"cluster": "staging", "taskDefinition": "staffetta-agent", "propagateTags": "TASK_DEFINITION"});
        let (asked, unknown) = asked(&[call("manager", "ecs", "RunTask", run)], &judged);
        assert_eq!(unknown, [""; 0]);
        let all: Vec<_> = asked.iter().map(|it| (it.question.action.as_str(), it.question.resource.as_str())).collect();
        let expected = [
            ("ecs:RunTask", "arn:aws:ecs:us-east-1:123456789012:task-definition/ci-staging:1"),
            ("ecs:TagResource", "arn:aws:ecs:us-east-1:123456789012:task/ci-staging/any"),
            ("iam:PassRole", "arn:aws:iam::123456789012:role/ci-staging-execution"),
            ("iam:PassRole", "arn:aws:iam::123456789012:role/ci-staging-job"),
        ];
        assert_eq!(all, expected);
        assert!(asked.iter().all(|it| it.principal == "manager of staging"));
        assert_eq!(comparison::reaching_others(&judged.principals(), &asked), [""; 0]);
    }

    /// `taskDefinition` and cluster of a RunTask by a manager with a generated config.toml, and what is wrong with it.
    fn generated(cluster: &str, definition: &str) -> Vec<String> {
        let register = |family: &str| {
            let role = |kind: &str| format!("arn:aws:iam::123456789012:role/{family}-{kind}");
            let roles = json!({"family": family, "taskRoleArn": role("job"), "executionRoleArn": role("execution")});
            call("peer", "ecs", "RegisterTaskDefinition", roles)
        };
        let judged = Judged::new(&["ci-dev", "ci-staging", "other"].map(register));
        let mut run = call("KEY", "ecs", "RunTask", json!({"cluster": cluster, "taskDefinition": definition}));
        run.role = Some("arn:aws:iam::123456789012:role/ci-dev-manager".to_owned());
        let (asked, unknown) = asked(&[run], &judged);
        let principals = without_cloudformation(judged.principals());
        let refused = mistakes(&principals, &asked, UNSEEN).into_iter().filter(|it| it.starts_with("a recorded"));
        refused.chain(unknown).collect()
    }

    #[test]
    fn a_generated_config_is_judged_by_what_it_names() {
        assert_eq!(generated("ci-dev", "ci-dev"), [""; 0]);
        for (cluster, definition, refused) in [
            ("ci-dev", "other", "needs ecs:RunTask on arn:aws:ecs:us-east-1:123456789012:task-definition/other:1"),
            ("ci-dev", "other", "needs iam:PassRole on arn:aws:iam::123456789012:role/other-job"),
            ("ci-dev", "ci-staging", "needs iam:PassRole on arn:aws:iam::123456789012:role/ci-staging-job"),
            ("ci-staging", "ci-dev", "[ecs:cluster=arn:aws:ecs:us-east-1:123456789012:cluster/ci-staging]"),
            ("ci-dev", "unheard-of", "calls ecs:RunTask, of which requirements.rs says nothing"),
        ] {
            let wrong = generated(cluster, definition);
            assert!(wrong.iter().any(|wrong| wrong.contains(refused)), "{cluster} {definition}: {wrong:#?}");
        }
    }

    #[test]
    fn what_deploy_calls_about_another_deployment_is_refused_and_a_role_that_it_takes_must_be_named() {
        let judged = Judged::new(&[]);
        let principals = without_cloudformation(judged.principals());
        let role = |name: &str| json!({"RoleArn": format!("arn:aws:iam::222222222222:role/{name}")});
        let wrong = |action: (&str, &str), parameters| {
            let (asked, unknown) = asked(&[call("deploy", action.0, action.1, parameters)], &judged);
            assert_eq!(unknown, [""; 0]);
            mistakes(&principals, &asked, UNSEEN).into_iter().filter(|it| it.starts_with("a recorded")).count()
        };
        assert_eq!(wrong(("sts", "AssumeRole"), role("staffetta-deploy")), 0);
        assert_eq!(wrong(("sts", "AssumeRole"), role("admin")), 1);
        assert_eq!(wrong(("cloudformation", "DescribeStacks"), json!({"StackName": "ci-dev"})), 0);
        assert_eq!(wrong(("cloudformation", "DescribeStacks"), json!({"StackName": "other-dev"})), 1);
    }

    #[test]
    fn a_call_that_no_policy_has_is_told_whether_the_table_knows_it_or_not() {
        let judged = Judged::new(&[]);
        let update = call("manager", "ecs", "UpdateService", json!({"cluster": "dev", "service": "s"}));
        let (_, unknown) = asked(&[update], &judged);
        assert_eq!(unknown, ["manager calls ecs:UpdateService, of which requirements.rs says nothing"]);
        for (who, action) in [("deploy", "UpdateService"), ("doctor", "UpdateService"), ("somebody", "ListTasks")] {
            let of_nobody = call(who, "ecs", action, json!({"cluster": "ci-dev"}));
            assert_eq!(requirements::of(&of_nobody, &judged), Means::Unknown, "{who} {action}");
        }
        let foreign = call("doctor", "ecr", "BatchGetImage", json!({"repositoryName": "ci-other/task"}));
        let (asked, unknown) = asked(&[foreign], &judged);
        assert_eq!(unknown, [""; 0]);
        let wrong = mistakes(&without_cloudformation(judged.principals()), &asked, UNSEEN);
        let refused = "a recorded ecr:BatchGetImage of the operator needs ecr:BatchGetImage on \
                       arn:aws:ecr:us-east-1:123456789012:repository/ci-other/task []";
        assert!(wrong.iter().any(|wrong| wrong.starts_with(refused)), "{wrong:#?}");
    }
}
