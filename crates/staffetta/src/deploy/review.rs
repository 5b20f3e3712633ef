//! The policies of a deployment for people who review them, and for programs.

use std::fmt::Write;

use aws::stack::{Operator, Purpose, Role, Statement, managed_policies};
use serde_json::{Map, Value, json};

/// What the role is for.
fn purpose(role: &Role) -> String {
    let of = role.environment.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
    match role.purpose {
        Purpose::Job => format!("what the jobs{of} may do: only what the file gives them"),
        Purpose::Execution => format!("ECS takes it to prepare the tasks{of}: jobs never see it"),
        Purpose::Manager => format!("the manager takes it for the tasks{of}, and for no others"),
        Purpose::SharedManager => {
            "the shared manager's own: it may only take the environments' manager roles".to_owned()
        }
        Purpose::ManagerExecution => format!("ECS takes it to prepare the manager's own task{of}"),
    }
}

fn word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Job => "job",
        Purpose::Execution => "execution",
        Purpose::Manager => "manager",
        Purpose::SharedManager => "shared_manager",
        Purpose::ManagerExecution => "manager_execution",
    }
}

/// For programs: the policy as IAM has it, and why each statement is there.
pub fn json(role: &Role) -> Value {
    json!({
        "role": role.name,
        "account": role.account,
        "environment": role.environment,
        "purpose": word(role.purpose),
        "trust": role.trust,
        "managed_policies": role.managed,
        "policy": role.policy(),
        "why": why(&role.statements),
        "permissions_boundary": role.boundary,
    })
}

/// The same of whoever runs `deploy` and `doctor`: policies that are short enough to be attached.
pub fn operator_json(operator: &Operator) -> Value {
    json!({
        "role": operator.role,
        "account": operator.account,
        "policies": managed_policies(&operator.statements),
        "why": why(&operator.statements),
    })
}

fn why(statements: &[Statement]) -> Map<String, Value> {
    statements.iter().map(|statement| (statement.sid.to_owned(), json!(statement.why))).collect()
}

/// For people.
pub fn text(role: &Role) -> String {
    let mut text = format!("{} (account {})\n  {}\n", role.name, role.account, purpose(role));
    for (word, list) in [("may be taken by", trusted(&role.trust)), ("managed policies", role.managed.clone())] {
        if !list.is_empty() {
            let _ = writeln!(text, "  {word}: {}", list.join(", "));
        }
    }
    if let Some(boundary) = &role.boundary {
        let _ = writeln!(text, "  bounded by: {boundary}");
    }
    if let Some(given) = &role.given {
        let _ = writeln!(text, "  the policy of the file: {given}");
    }
    text.push_str(&statements(&role.statements));
    if role.managed.is_empty() && role.policy().is_none() {
        text.push_str("  it may do nothing\n");
    }
    text
}

/// The same of whoever runs `deploy` and `doctor`.
pub fn operator_text(operator: &Operator) -> String {
    let who = operator.role.as_deref().unwrap_or("operator");
    let account = operator.account.as_ref().map(|account| format!(" (account {account})")).unwrap_or_default();
    let what = match operator.role {
        Some(_) => "`deploy` and `doctor` take it",
        None => "whoever runs `deploy` and `doctor`",
    };
    format!("{who}{account}\n  {what}\n{}", statements(&operator.statements))
}

/// Each with its reason.
fn statements(statements: &[Statement]) -> String {
    let mut text = String::new();
    for Statement { sid, actions, resources, conditions, why } in statements {
        let _ = writeln!(text, "  {sid}: {why}");
        let _ = writeln!(text, "    may {}", actions.join(", "));
        for resource in resources {
            let _ = writeln!(text, "    on  {resource}");
        }
        for condition in conditions {
            let (operator, key, values) = (condition.operator, condition.key, condition.values.join(" or "));
            let _ = writeln!(text, "    if  {key} {operator} {values}");
        }
    }
    text
}

/// Who stands in a trust policy.
fn trusted(trust: &Value) -> Vec<String> {
    let statements = trust["Statement"].as_array().into_iter().flatten();
    let principals = statements.filter_map(|statement| statement["Principal"].as_object()).flatten();
    let names = principals.flat_map(|(_, names)| match names {
        Value::Array(names) => names.clone(),
        name => vec![name.clone()],
    });
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use aws::stack::Condition;

    use super::*;

    #[test]
    fn a_reviewer_sees_who_may_do_what_where_when_and_why() {
        let role = Role {
            purpose: Purpose::Manager,
            name: "ci-dev-manager".into(),
            account: "111122223333".into(),
            environment: Some("dev".into()),
            trust: json!({"Statement": [{"Principal": {"Service": "ecs-tasks.amazonaws.com"}}]}),
            managed: Vec::new(),
            given: None,
            statements: vec![Statement {
                sid: "StartTasks",
                actions: vec!["ecs:RunTask"],
                resources: vec!["arn:aws:ecs:eu-west-1:1:task-definition/ci-dev:*".into()],
                conditions: vec![Condition { operator: "ArnEquals", key: "ecs:cluster", values: vec!["arn:c".into()] }],
                why: "one task for each job",
            }],
            boundary: Some("arn:boundary".into()),
        };
        assert_eq!(
            text(&role),
            "ci-dev-manager (account 111122223333)
  the manager takes it for the tasks of dev, and for no others
  may be taken by: ecs-tasks.amazonaws.com
  bounded by: arn:boundary
  StartTasks: one task for each job
    may ecs:RunTask
    on  arn:aws:ecs:eu-west-1:1:task-definition/ci-dev:*
    if  ecs:cluster ArnEquals arn:c
"
        );
        assert_eq!(json(&role)["why"]["StartTasks"], "one task for each job");
    }

    #[test]
    fn an_operator_is_told_the_policies_to_attach() {
        let statements = vec![Statement {
            sid: "TakeDeployRoles",
            actions: vec!["sts:AssumeRole"],
            resources: vec!["arn:aws:iam::1:role/deploy".into()],
            conditions: Vec::new(),
            why: "other accounts",
        }];
        let mut operator = Operator { role: None, account: None, statements };
        let told = "  TakeDeployRoles: other accounts\n    may sts:AssumeRole\n    on  arn:aws:iam::1:role/deploy\n";
        assert_eq!(operator_text(&operator), format!("operator\n  whoever runs `deploy` and `doctor`\n{told}"));
        let json = operator_json(&operator);
        assert_eq!(json["policies"][0]["Statement"][0]["Action"], json!(["sts:AssumeRole"]));
        assert_eq!(json["why"]["TakeDeployRoles"], "other accounts");
        operator.role = Some("arn:r".into());
        operator.account = Some("1".into());
        assert!(operator_text(&operator).starts_with("arn:r (account 1)\n  `deploy` and `doctor` take it\n"));
    }
}
