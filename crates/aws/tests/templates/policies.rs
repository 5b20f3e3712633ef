//! What each role may do and who may take it, word for word: whoever reviews a change sees it in the snapshots.

use aws::stack::{Deployment, JobRole, ManagerMode, Purpose, Role, document, roles};
use serde_json::{Value, json};

use crate::options::{
    ACCOUNT, deployment, environment, every_option, full, inline_policy, resources, shared, stacks_of,
};

/// As a reviewer reads it.
fn text(roles: &[Role]) -> String {
    let role = |role: &Role| {
        let head = format!("{:?} {} in {}, bounded by {:?}", role.purpose, role.name, role.account, role.boundary);
        let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON");
        let policy = role.policy().unwrap_or(Value::Null);
        format!("{head}\nmanaged: {:?}\ntrust: {}\npolicy: {}\n", role.managed, pretty(&role.trust), pretty(&policy))
    };
    roles.iter().map(role).collect::<Vec<_>>().join("\n")
}

#[test]
fn roles_of_an_environment_with_everything() {
    insta::assert_snapshot!(text(&roles(&full())));
}

#[test]
fn roles_of_a_shared_manager_and_of_an_environment_in_another_account() {
    let mut deployment = shared();
    deployment.environments.truncate(1);
    deployment.environments[0].place.account = "222222222222".into();
    deployment.environments[0].external_id = Some("ci-x".into());
    insta::assert_snapshot!(text(&roles(&deployment)));
}

#[test]
fn a_manager_of_somebodys_own_takes_the_manager_role_and_with_the_external_id_only() {
    let mut deployment = deployment(vec![environment("dev")]);
    let principal = "arn:aws:iam::999999999999:role/our-manager";
    deployment.manager = ManagerMode::Own { principal: principal.into() };
    let trust = |deployment: &Deployment| {
        let roles = roles(deployment);
        let role = roles.into_iter().find(|role| role.purpose == Purpose::Manager).expect("a manager role");
        role.trust["Statement"].clone()
    };
    let expected = json!([{"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}]);
    assert_eq!(trust(&deployment), expected);
    deployment.environments[0].external_id = Some("ci-x".into());
    assert_eq!(trust(&deployment)[0]["Condition"], json!({"StringEquals": {"sts:ExternalId": "ci-x"}}));
    assert!(roles(&deployment).iter().all(|role| role.purpose != Purpose::ManagerExecution));
}

#[test]
fn the_role_of_jobs_is_what_the_file_says_and_no_more() {
    let job = |job_role: JobRole| {
        let mut environment = environment("dev");
        environment.job_role = job_role;
        let roles = roles(&deployment(vec![environment]));
        roles.into_iter().find(|role| role.purpose == Purpose::Job)
    };
    let managed = vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()];
    let role = job(JobRole::Made { policies: managed.clone(), inline: Some(inline_policy()) }).expect("a role");
    assert_eq!((&role.managed, role.policy()), (&managed, Some(inline_policy())));
    let role = job(JobRole::Made { policies: Vec::new(), inline: None }).expect("a role");
    assert_eq!((role.managed.len(), role.policy()), (0, None));
    assert_eq!(job(JobRole::Existing(format!("arn:aws:iam::{ACCOUNT}:role/jobs"))), None);
}

#[test]
fn roles_that_are_brought_along_are_not_made_and_are_passed() {
    let mut environment = environment("dev");
    let arn = |name: &str| format!("arn:aws:iam::{ACCOUNT}:role/theirs/{name}");
    environment.job_role = JobRole::Existing(arn("jobs"));
    environment.execution_role = Some(arn("execution"));
    let roles = roles(&deployment(vec![environment]));
    let purposes: Vec<_> = roles.iter().map(|role| role.purpose).collect();
    assert_eq!(purposes, [Purpose::Manager, Purpose::ManagerExecution]);
    let pass = roles[0].statements.iter().find(|statement| statement.actions == ["iam:PassRole"]).expect("PassRole");
    assert_eq!(pass.resources, [arn("jobs"), arn("execution")]);
}

#[test]
fn an_execution_role_reaches_the_repository_of_its_image_and_ecr_only_if_the_image_is_there() {
    let pull = |image: Option<&str>, region: &str| {
        let mut environment = environment("dev");
        environment.image = image.map(str::to_owned);
        environment.place.region = region.into();
        let roles = roles(&deployment(vec![environment]));
        let role = roles.into_iter().find(|role| role.purpose == Purpose::Execution).expect("a role");
        let statements = role.statements.into_iter().filter(|statement| statement.actions[0].starts_with("ecr:"));
        statements.flat_map(|statement| statement.resources).collect::<Vec<_>>()
    };
    let repository = |text: &str| vec!["*".to_owned(), text.to_owned()];
    assert_eq!(pull(None, "eu-west-1"), repository("arn:aws:ecr:eu-west-1:111111111111:repository/ci-dev/task"));
    assert_eq!(pull(None, "cn-north-1"), repository("arn:aws-cn:ecr:cn-north-1:111111111111:repository/ci-dev/task"));
    for (image, expected) in [
        (
            "222222222222.dkr.ecr.eu-central-1.amazonaws.com/team/node:24",
            "eu-central-1:222222222222:repository/team/node",
        ),
        ("111111111111.dkr.ecr.eu-west-1.amazonaws.com/a@sha256:00", "eu-west-1:111111111111:repository/a"),
        ("111111111111.dkr.ecr.eu-west-1.amazonaws.com/a:1@sha256:00", "eu-west-1:111111111111:repository/a"),
    ] {
        assert_eq!(pull(Some(image), "eu-west-1"), repository(&format!("arn:aws:ecr:{expected}")));
    }
    for image in ["node", "node:24", "registry.gitlab.com/a/b:c", "public.ecr.aws/docker/library/node:24"] {
        assert_eq!(pull(Some(image), "eu-west-1"), Vec::<String>::new(), "{image}");
    }
}

/// The templates are made from the same values as `deploy policy` prints.
#[test]
fn every_role_is_in_one_template_as_it_is_told() {
    for (option, deployment) in every_option() {
        let stacks = stacks_of(&deployment);
        let made: Vec<_> = stacks.iter().flat_map(|stack| resources(&stack.template, "AWS::IAM::Role")).collect();
        let roles = roles(&deployment);
        assert_eq!(made.len(), roles.len(), "{option}");
        for role in &roles {
            let (_, there) = made.iter().find(|(_, it)| it["RoleName"] == *role.name).expect("a resource");
            assert_eq!(there["AssumeRolePolicyDocument"], role.trust, "{option}");
            assert_eq!(there["Policies"][0]["PolicyDocument"], role.policy().unwrap_or_default(), "{option}");
            let managed = there["ManagedPolicyArns"].as_array().cloned().unwrap_or_default();
            assert_eq!(managed, role.managed, "{option}");
            assert_eq!(there["PermissionsBoundary"].as_str(), role.boundary.as_deref(), "{option}");
        }
    }
}

#[test]
fn a_boundary_is_on_every_role_that_is_made() {
    let mut environment = environment("dev");
    environment.permissions_boundary = Some("arn:aws:iam::111111111111:policy/boundary".into());
    let roles = roles(&deployment(vec![environment]));
    assert_eq!(roles.len(), 4);
    assert!(roles.iter().all(|role| role.boundary.as_deref() == Some("arn:aws:iam::111111111111:policy/boundary")));
    let mut deployment = shared();
    deployment.service.permissions_boundary = Some("arn:aws:iam::111111111111:policy/boundary".into());
    let bounded: Vec<_> = aws::stack::roles(&deployment).into_iter().filter(|role| role.boundary.is_some()).collect();
    let names: Vec<_> = bounded.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["ci-manager", "ci-manager-execution"]);
}

#[test]
fn statements_have_names_that_iam_takes_and_are_told_apart_by() {
    for (option, deployment) in every_option() {
        for role in roles(&deployment) {
            let mut sids: Vec<_> = role.statements.iter().map(|statement| statement.sid).collect();
            assert!(sids.iter().all(|sid| sid.bytes().all(|byte| byte.is_ascii_alphanumeric())), "{option}: {sids:?}");
            let count = sids.len();
            sids.sort_unstable();
            sids.dedup();
            assert_eq!(sids.len(), count, "{option}: {}", role.name);
            assert_eq!(document(&role.statements)["Version"], "2012-10-17");
        }
    }
}
