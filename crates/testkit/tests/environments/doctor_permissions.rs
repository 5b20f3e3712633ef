//! The manager's role: what is missing is found by IAM's simulator, which the front before moto stands in for.

use aws::stack::{ManagerWork, document, execution_statements, manager_statements};
use serde_json::Value;
use testkit::{AwsFront, Moto};

use crate::findings::Findings;
use crate::operator::{ACCOUNT, Operator, REGION};

const CONFIG: [&str; 2] = ["--config", "config.toml"];

/// Each test has its own role in the one account.
fn role_arn(role: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{role}")
}

fn arn(resource: &str) -> String {
    format!("arn:aws:ecs:{REGION}:{ACCOUNT}:{resource}")
}

/// A manager that does its work as a role, and a task definition without roles.
async fn operator(role: &str) -> (AwsFront, Operator) {
    let front = AwsFront::start(Moto::shared().url()).await;
    let operator = Operator::at(front.url());
    operator.write(
        "config.toml",
        &format!(
            r#"
concurrent = 4

[[runners]]
name = "dev"
url = "https://gitlab.invalid"
token = "glrt-a"
executor = "fargate"

[runners.fargate]
cluster = "ci-dev"
region = "{REGION}"
subnets = ["subnet-1"]
security_groups = ["sg-1"]
task_definition = "{role}"
role_arn = "{}"
"#,
            role_arn(role)
        ),
    );
    (front, operator)
}

/// What the manager of that file needs.
fn needed(role: &str) -> Vec<aws::stack::Statement> {
    manager_statements(&ManagerWork {
        cluster: arn("cluster/ci-dev"),
        task_definitions: vec![arn(&format!("task-definition/{role}:*"))],
        task_roles: Vec::new(),
        tags_tasks: false,
        finds_public_addresses: false,
        cache_bucket: None,
    })
}

async fn make_role(operator: &Operator, role: &str, policy: &Value) {
    let trust = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    ]});
    operator.write("trust.json", &trust.to_string());
    operator.aws(&format!("iam create-role --role-name {role} --assume-role-policy-document file://trust.json")).await;
    operator.write("policy.json", &policy.to_string());
    let put = format!("iam put-role-policy --role-name {role} --policy-name p --policy-document file://policy.json");
    operator.aws(&put).await;
}

#[tokio::test]
async fn a_role_that_has_what_it_needs_is_good() {
    let (_front, operator) = operator("good-manager").await;
    make_role(&operator, "good-manager", &document(&needed("good-manager"))).await;
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    found.expect("dev", "aws-identity", "good", &["assumed-role/good-manager", ACCOUNT]);
    found.expect("dev", "manager-role", "good", &[&role_arn("good-manager")]);
    found.expect("dev", "manager-permissions", "good", &["may do all that it has to"]);
}

#[tokio::test]
async fn each_missing_permission_is_named_with_the_statement_to_add() {
    let (_front, operator) = operator("poor-manager").await;
    // All but the statement with DescribeTasks and StopTask.
    let (missing, rest): (Vec<_>, Vec<_>) =
        needed("poor-manager").into_iter().partition(|statement| statement.actions.contains(&"ecs:StopTask"));
    make_role(&operator, "poor-manager", &document(&rest)).await;
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    let findings = found.of_check("dev", "manager-permissions");
    let evidence: Vec<_> = findings.iter().map(|(_, evidence, _)| *evidence).collect();
    let on = arn("task/ci-dev/1");
    let expected = ["ecs:DescribeTasks", "ecs:StopTask"]
        .map(|action| format!("{} may not {action} on {on}: no statement allows it", role_arn("poor-manager")));
    assert_eq!(evidence, expected);
    for (verdict, _, fix) in &findings {
        assert_eq!(*verdict, "bad");
        let (_, policy) = fix.split_once('\n').expect("a policy");
        assert_eq!(serde_json::from_str::<Value>(policy).expect("JSON"), document(&missing));
    }
    assert_eq!(found.code, Some(1));
}

#[tokio::test]
async fn what_the_execution_role_may_not_do_is_named_too() {
    let (_front, operator) = operator("execution").await;
    let image = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/ci/task:1");
    make_role(&operator, "execution", &document(&execution_statements(&[&image], &[], &[]))).await;
    let containers = serde_json::json!([{
        "name": "ci-coordinator",
        "image": image,
        "secrets": [{"name": "TOKEN", "valueFrom": "npm-token"}],
    }]);
    operator.write("containers.json", &containers.to_string());
    let register = "ecs register-task-definition --family execution --container-definitions file://containers.json \
                    --requires-compatibilities FARGATE --network-mode awsvpc --cpu 256 --memory 512";
    operator.aws(&format!("{register} --execution-role-arn {}", role_arn("execution"))).await;
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    let parameter = format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/npm-token");
    found.expect("dev", "execution-permissions", "bad", &["ssm:GetParameters", &parameter, "ReadParameters"]);
}

#[tokio::test]
async fn a_role_that_is_not_there_is_found() {
    let (_front, operator) = operator("no-manager").await;
    Findings::of(&operator, &CONFIG, &[]).await.expect(
        "dev",
        "manager-role",
        "bad",
        &[&role_arn("no-manager"), "not there"],
    );
}

#[tokio::test]
async fn who_may_not_simulate_hears_what_it_needs() {
    let (front, operator) = operator("hidden-manager").await;
    make_role(&operator, "hidden-manager", &document(&needed("hidden-manager"))).await;
    front.fail("iam:SimulatePrincipalPolicy", "AccessDenied", "not you");
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    found.expect("dev", "manager-permissions", "unknown", &["iam:SimulatePrincipalPolicy", "not you"]);
    front.fail("iam:GetRole", "AccessDenied", "nor this");
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    found.expect("dev", "manager-role", "unknown", &["iam:GetRole"]);
}

#[tokio::test]
async fn a_role_that_is_not_given_is_told_with_its_name() {
    let (front, operator) = operator("locked-manager").await;
    front.fail("sts:AssumeRole", "AccessDenied", "you are not trusted");
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    found.expect(
        "dev",
        "aws-identity",
        "unknown",
        &[&role_arn("locked-manager"), "you are not trusted", "trust policy"],
    );
}
