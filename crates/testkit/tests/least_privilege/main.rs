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
    let judged = Judged::new();
    let calls = recorded::calls();
    let (asked, mut wrong) = asked(&calls, &judged);
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
