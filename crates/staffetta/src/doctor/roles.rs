//! The roles of a task: whether they exist, and whether ECS may take them.

use aws::Session;
use aws::fargate::FargateConfig;
use aws::inspect::{self, Container, EcrImage, RoleTrust, TaskDefinition};
use serde_json::Value;

use super::Finding;
use super::finding::MADE_ANEW;
use super::task_definition::short;

const ROLES: &str = "task-roles";

pub async fn check(fargate: &FargateConfig, session: &Session, definition: &TaskDefinition) -> Vec<Finding> {
    let mut findings = missing(fargate, definition);
    let named = [("execution role", &definition.execution_role), ("task role", &definition.task_role)];
    let mut good = Vec::new();
    for (what, arn) in named {
        let Some(arn) = arn else { continue };
        let name = arn.rsplit('/').next().unwrap_or_default();
        match inspect::role(session, name).await {
            Ok(role) => match role_fault(what, arn, session.region(), definition, role.as_ref()) {
                Some(finding) => findings.push(finding),
                None => good.push(format!("{what} {name}")),
            },
            Err(error) => findings.push(Finding::not_seen(ROLES, "iam:GetRole", &error)),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good(
            ROLES,
            match good[..] {
                [] => "the definition has none, and needs none".to_owned(),
                _ => format!("{} trust ECS", good.join(" and ")),
            },
        ));
    }
    findings
}

/// Roles that must be named.
fn missing(fargate: &FargateConfig, definition: &TaskDefinition) -> Vec<Finding> {
    let mut findings = Vec::new();
    let needs = needs_execution_role(definition);
    if definition.execution_role.is_none() && !needs.is_empty() {
        findings.push(Finding::bad(
            ROLES,
            format!("{} has no execution role", short(&definition.arn)),
            format!("No task starts: ECS needs one {}.", needs.join(" and ")),
            "Register a revision with an executionRoleArn; AWS's policy AmazonECSTaskExecutionRolePolicy has the rights.",
        ));
    }
    if definition.task_role.is_none() && fargate.enable_execute_command {
        findings.push(Finding::bad(
            ROLES,
            format!("{} has no task role, and enable_execute_command is set", short(&definition.arn)),
            "Every job fails: RunTask refuses ECS Exec without a task role.",
            "Register a revision with a taskRoleArn, or take enable_execute_command out of [runners.fargate].",
        ));
    }
    findings
}

/// What needs an execution role: ECS takes it before the container is there.
fn needs_execution_role(definition: &TaskDefinition) -> Vec<&'static str> {
    let any = |test: fn(&Container) -> bool| definition.containers.iter().any(test);
    let needs = [
        (any(|container| EcrImage::parse(&container.image).is_some()), "to pull the image from ECR"),
        (any(|container| container.log.as_ref().is_some_and(|log| log.name == "awslogs")), "to write the log"),
        (any(|container| !container.secrets.is_empty()), "to read secrets"),
    ];
    needs.into_iter().filter(|(needed, _)| *needed).map(|(_, why)| why).collect()
}

fn role_fault(
    what: &str,
    arn: &str,
    region: &str,
    definition: &TaskDefinition,
    role: Option<&RoleTrust>,
) -> Option<Finding> {
    let breaks = "Every job fails: \"ECS was unable to assume the role\".";
    let account_of = |arn: &str| arn.split(':').nth(4).unwrap_or_default().to_owned();
    let account = account_of(&definition.arn);
    if account_of(arn) != account {
        return Some(Finding::bad(
            ROLES,
            format!("the {what} {arn} is not in account {account}, where the task runs"),
            breaks,
            format!(
                "Register a revision with a role of account {account}: a role cannot be passed to another account."
            ),
        ));
    }
    // A role is found by its name; the path is a part of what the definition names.
    let Some(role) = role.filter(|role| role.arn == arn) else {
        return Some(Finding::bad(
            ROLES,
            format!("the {what} {arn} does not exist"),
            breaks,
            format!("Make it under this name, or register a revision with a role that exists; or, {MADE_ANEW}."),
        ));
    };
    if trusts_ecs(&role.trust, &account, region) {
        return None;
    }
    let name = arn.rsplit('/').next().unwrap_or_default();
    Some(Finding::bad(
        ROLES,
        format!("the {what} {name} does not trust ecs-tasks.amazonaws.com for account {account} in {region}"),
        breaks,
        format!(
            "`aws iam update-assume-role-policy --role-name {name} --policy-document \
             '{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Allow\",\"Principal\":{{\"Service\":\"ecs-tasks.amazonaws.com\"}},\
             \"Action\":\"sts:AssumeRole\"}}]}}'`; it replaces what the role trusts now."
        ),
    ))
}

/// Whether ECS may take the role for tasks of this account and region. What a condition says of anything else is not judged.
fn trusts_ecs(trust: &Value, account: &str, region: &str) -> bool {
    let statements = match &trust["Statement"] {
        Value::Array(statements) => statements.iter().collect(),
        statement => vec![statement],
    };
    let lets_ecs = |statement: &&Value| {
        texts(&statement["Principal"]["Service"]).any(|service| service == "ecs-tasks.amazonaws.com")
            && texts(&statement["Action"]).any(|action| ["sts:AssumeRole", "sts:*", "*"].contains(&action))
    };
    let applies = |statement: &&Value| {
        let conditions = statement["Condition"].as_object().into_iter().flatten();
        conditions.filter_map(|(_, keys)| keys.as_object()).flatten().all(|(key, values)| {
            match key.to_ascii_lowercase().as_str() {
                "aws:sourceaccount" => texts(values).any(|value| value == account),
                "aws:sourcearn" => texts(values).any(|pattern| is_about(pattern, account, region)),
                _ => true,
            }
        })
    };
    let of_ecs = || statements.iter().copied().filter(lets_ecs).filter(applies);
    of_ecs().any(|statement| statement["Effect"] == "Allow") && !of_ecs().any(|statement| statement["Effect"] == "Deny")
}

/// `arn:aws:ecs:REGION:ACCOUNT:*`, each part of which may be a star. ECS names no cluster there (AWS page "Task IAM role").
fn is_about(pattern: &str, account: &str, region: &str) -> bool {
    let parts: Vec<_> = pattern.splitn(6, ':').collect();
    let is = |part: &str, value: &str| part == "*" || part == value;
    match parts[..] {
        ["arn", _, service, its_region, its_account, resource] => {
            is(service, "ecs") && is(its_region, region) && is(its_account, account) && resource.starts_with('*')
        }
        _ => pattern == "*",
    }
}

/// A text or a list of texts.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(value));
    list.iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use aws::inspect::LogDriver;
    use serde_json::json;

    use super::*;
    use crate::doctor::Verdict::Bad;

    const ROLE: &str = "arn:aws:iam::123456789012:role/ci/ci-dev-execution";

    fn definition() -> TaskDefinition {
        let arn = "arn:aws:ecs:eu-west-1:123456789012:task-definition/ci-dev:3".into();
        TaskDefinition { arn, ..TaskDefinition::default() }
    }

    fn statement(principal: Value, action: Value, condition: Value) -> Value {
        json!({"Statement": [{"Effect": "Allow", "Principal": principal, "Action": action, "Condition": condition}]})
    }

    #[test]
    fn ecs_is_trusted_where_a_statement_lets_it_in() {
        let ecs = || json!({"Service": "ecs-tasks.amazonaws.com"});
        let assume = || json!("sts:AssumeRole");
        let with = |condition| statement(ecs(), assume(), condition);
        let good = [
            with(json!({})),
            json!({"Statement": {"Effect": "Allow", "Principal": ecs(), "Action": "sts:*"}}),
            statement(
                json!({"Service": ["ec2.amazonaws.com", "ecs-tasks.amazonaws.com"]}),
                json!(["sts:TagSession", "sts:AssumeRole"]),
                json!({}),
            ),
            with(
                json!({"StringEquals": {"aws:SourceAccount": "123456789012"}, "ArnLike": {"aws:SourceArn": "arn:aws:ecs:eu-west-1:123456789012:*"}}),
            ),
            with(
                json!({"ArnLike": {"AWS:sourceArn": ["arn:aws:ecs:us-east-1:123456789012:*", "arn:aws:ecs:*:123456789012:*"]}}),
            ),
        ];
        let bad = [
            json!({"Statement": []}),
            json!({}),
            statement(json!({"Service": "ec2.amazonaws.com"}), assume(), json!({})),
            statement(json!({"AWS": "ecs-tasks.amazonaws.com"}), assume(), json!({})),
            statement(ecs(), json!("sts:TagSession"), json!({})),
            with(json!({"StringEquals": {"aws:SourceAccount": "210987654321"}})),
            with(json!({"ArnLike": {"aws:SourceArn": "arn:aws:ecs:us-east-1:123456789012:*"}})),
            with(json!({"ArnLike": {"aws:SourceArn": "arn:aws:ecs:eu-west-1:123456789012:cluster/ci-dev"}})),
            json!({"Statement": [
                {"Effect": "Allow", "Principal": ecs(), "Action": "sts:AssumeRole"},
                {"Effect": "Deny", "Principal": ecs(), "Action": "sts:AssumeRole"},
            ]}),
        ];
        for trust in good {
            assert!(trusts_ecs(&trust, "123456789012", "eu-west-1"), "{trust}");
        }
        for trust in bad {
            assert!(!trusts_ecs(&trust, "123456789012", "eu-west-1"), "{trust}");
        }
    }

    #[test]
    fn a_role_is_there_under_its_whole_name_in_the_tasks_account_and_trusts_ecs() {
        let trust = statement(json!({"Service": "ecs-tasks.amazonaws.com"}), json!("sts:AssumeRole"), json!({}));
        let role = |arn: &str, trust: &Value| Some(RoleTrust { arn: arn.into(), trust: trust.clone() });
        let fault = |arn: &str, role: Option<RoleTrust>| {
            role_fault("execution role", arn, "eu-west-1", &definition(), role.as_ref())
        };
        assert_eq!(fault(ROLE, role(ROLE, &trust)), None);
        let abroad = ROLE.replace("123456789012", "210987654321");
        for (arn, role, words) in [
            (ROLE, None, "does not exist"),
            (ROLE, role(&ROLE.replace("role/ci/", "role/"), &trust), "does not exist"),
            (&abroad, role(&abroad, &trust), "is not in account 123456789012"),
            (ROLE, role(ROLE, &json!({})), "does not trust ecs-tasks.amazonaws.com"),
        ] {
            let finding = fault(arn, role).expect(words);
            assert_eq!(finding.verdict, Bad);
            assert!(finding.evidence.contains(words), "{}", finding.evidence);
        }
    }

    #[test]
    fn an_execution_role_is_needed_for_ecr_logs_and_secrets() {
        let image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci".to_owned();
        let log = LogDriver { name: "awslogs".into(), ..LogDriver::default() };
        let with = |container: Container| {
            missing(&FargateConfig::default(), &TaskDefinition { containers: vec![container], ..definition() })
        };
        assert_eq!(with(Container { image: "alpine:3".into(), ..Container::default() }), []);
        for (container, words) in [
            (Container { image, ..Container::default() }, "to pull the image from ECR"),
            (Container { log: Some(log), ..Container::default() }, "to write the log"),
            (Container { secrets: vec!["arn".into()], ..Container::default() }, "to read secrets"),
        ] {
            let findings = with(container);
            assert_eq!(findings.len(), 1);
            assert!(findings[0].verdict == Bad && findings[0].breaks.contains(words), "{findings:?}");
        }
        let exec = FargateConfig { enable_execute_command: true, ..FargateConfig::default() };
        assert!(missing(&exec, &definition())[0].evidence.contains("no task role"));
        let named = TaskDefinition { task_role: Some(ROLE.into()), ..definition() };
        assert_eq!(missing(&exec, &named), []);
    }
}
