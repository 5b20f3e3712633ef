//! What `apply` makes, changes and takes away, read back with the AWS CLI from ministack, which keeps most of it (facts 10.2). It
//! keeps neither zone rebalancing, nor runtime platform, ephemeral storage, secrets and capabilities of containers, nor the
//! bucket's lifecycle: those are held by tests of the templates.

use aws::stack::{Deployment, ManagerOf, roles};
use serde_json::{Value, json};
use staffetta::deploy::file;
use testkit::Ministack;

use crate::operator::{ACCOUNT, Network, Operator, REGION};

fn deployment_file(Network { vpc, subnets }: &Network) -> String {
    format!(
        r#"
name = "ci"
gitlab_url = "https://gitlab.example.com"
account = "123456789012"
region = "{REGION}"
tags = {{ team = "platform" }}

[environments.dev]
vpc = "{vpc}"
subnets = {subnets:?}
capacity_providers = [{{ name = "FARGATE_SPOT", weight = 3 }}, {{ name = "FARGATE", weight = 1, base = 1 }}]
cache_expire_days = 14
log_retention_days = 7
job_role_inline_policy = '{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}}]}}'
"#
    )
}

/// One that has written this file.
fn operator_with(ministack: &Ministack, text: &str) -> (Operator, Deployment) {
    // To a signed address ministack's S3 admits only key ids that are accounts.
    let operator = Operator::in_account(ministack.url(), ACCOUNT);
    operator.write("staffetta.toml", text);
    let deployment = file::load(&operator.path("staffetta.toml")).expect("a file without mistakes").deployment;
    (operator, deployment)
}

/// The only one of a list.
#[track_caller]
fn only<'v>(list: &'v Value, what: &str) -> &'v Value {
    match list.as_array().map(Vec::as_slice) {
        Some([one]) => one,
        other => panic!("one {what} was expected: {other:?}"),
    }
}

async fn output(operator: &Operator, stack: &str, name: &str) -> String {
    let stacks = operator.aws(&format!("cloudformation describe-stacks --stack-name {stack}")).await;
    let outputs = stacks["Stacks"][0]["Outputs"].as_array().cloned().unwrap_or_default();
    let found = outputs.iter().find(|output| output["OutputKey"] == name);
    found
        .and_then(|output| output["OutputValue"].as_str())
        .unwrap_or_else(|| panic!("{stack} has no {name}"))
        .to_owned()
}

/// Rules for what comes into a security group.
async fn ingress(operator: &Operator, group: &str) -> Value {
    let groups = operator.aws(&format!("ec2 describe-security-groups --group-ids {group}")).await;
    only(&groups["SecurityGroups"], "security group")["IpPermissions"].clone()
}

async fn cluster(operator: &Operator, name: &str) -> Value {
    let clusters = operator.aws(&format!("ecs describe-clusters --clusters {name} --include TAGS")).await;
    only(&clusters["clusters"], "cluster").clone()
}

async fn task_definition(operator: &Operator, name: &str) -> Value {
    let definition = operator.aws(&format!("ecs describe-task-definition --task-definition {name}")).await;
    definition["taskDefinition"].clone()
}

async fn retention(operator: &Operator, group: &str) -> Value {
    let groups = operator.aws(&format!("logs describe-log-groups --log-group-name-prefix {group}")).await;
    let groups = groups["logGroups"].as_array().expect("log groups").clone();
    groups.iter().find(|found| found["logGroupName"] == group).expect("the log group")["retentionInDays"].clone()
}

#[tokio::test]
async fn what_apply_makes_is_what_aws_then_has() {
    let ministack = Ministack::start();
    let network = Operator::at(ministack.url()).default_network().await;
    let (operator, deployment) = operator_with(&ministack, &deployment_file(&network));
    operator.staffetta(&["deploy", "apply"]).await.good();

    let dev = cluster(&operator, "ci-dev").await;
    assert_eq!(dev["capacityProviders"], json!(["FARGATE", "FARGATE_SPOT"]));
    let strategy = json!([
        {"capacityProvider": "FARGATE_SPOT", "weight": 3, "base": 0},
        {"capacityProvider": "FARGATE", "weight": 1, "base": 1},
    ]);
    assert_eq!(dev["defaultCapacityProviderStrategy"], strategy);
    for (key, value) in [("staffetta:deployment", "ci"), ("staffetta:environment", "dev"), ("team", "platform")] {
        let tags = dev["tags"].as_array().expect("tags");
        assert!(tags.contains(&json!({"key": key, "value": value})), "{key}: {tags:?}");
    }

    // Port 22 of the tasks is open to the manager's group, and nothing else is to anybody.
    let (tasks, manager) = (
        output(&operator, "ci-dev", "TaskSecurityGroup").await,
        output(&operator, "ci-dev", "ManagerSecurityGroup").await,
    );
    let rules = ingress(&operator, &tasks).await;
    let rule = only(&rules, "rule");
    assert_eq!((&rule["IpProtocol"], &rule["FromPort"], &rule["ToPort"]), (&json!("tcp"), &json!(22), &json!(22)));
    assert_eq!(only(&rule["UserIdGroupPairs"], "group")["GroupId"], manager.as_str());
    assert_eq!(rule["IpRanges"], json!([]));
    assert_eq!(ingress(&operator, &manager).await, json!([]));

    for role in roles(&deployment) {
        let name = &role.name;
        let made = operator.aws(&format!("iam get-role --role-name {name}")).await;
        assert_eq!(made["Role"]["AssumeRolePolicyDocument"], role.trust, "{name}");
        let policy = operator.aws(&format!("iam get-role-policy --role-name {name} --policy-name {name}")).await;
        assert_eq!(Some(&policy["PolicyDocument"]), role.policy().as_ref(), "{name}");
    }

    let definition = task_definition(&operator, "ci-dev").await;
    for (key, value) in [
        ("networkMode", json!("awsvpc")),
        ("requiresCompatibilities", json!(["FARGATE"])),
        ("cpu", json!("1024")),
        ("memory", json!("2048")),
        ("taskRoleArn", json!("arn:aws:iam::123456789012:role/ci-dev-job")),
        ("executionRoleArn", json!("arn:aws:iam::123456789012:role/ci-dev-execution")),
    ] {
        assert_eq!(definition[key], value, "{key}");
    }
    let container = only(&definition["containerDefinitions"], "container");
    assert_eq!(container["name"], "ci-coordinator");
    assert_eq!(container["portMappings"], json!([{"containerPort": 22, "protocol": "tcp"}]));
    assert_eq!(container["image"], deployment.task_image(&deployment.environments[0]).as_str());
    assert_eq!(container["logConfiguration"]["options"]["awslogs-group"], "/staffetta/ci-dev");
    assert_eq!(retention(&operator, "/staffetta/ci-dev").await, 7);

    let services = operator.aws("ecs describe-services --cluster ci-dev-manager --services ci-dev-manager").await;
    let service = only(&services["services"], "service");
    let settings = json!({
        "deploymentCircuitBreaker": {"enable": true, "rollback": true}, "maximumPercent": 100, "minimumHealthyPercent": 0,
    });
    assert_eq!(service["deploymentConfiguration"], settings);
    assert_eq!(service["desiredCount"], 0, "there is no image of the manager yet");
    let interface = &service["networkConfiguration"]["awsvpcConfiguration"];
    assert_eq!(interface["securityGroups"], json!([manager]));
    assert_eq!(interface["subnets"], json!(network.subnets));
    let of_manager = task_definition(&operator, "ci-dev-manager").await;
    let of_manager = only(&of_manager["containerDefinitions"], "container");
    let config = of_manager["environment"][0]["value"].as_str().expect("CONFIG_TOML");
    assert!(config.contains(&format!("\"{tasks}\"")), "its tasks get their security group: {config}");
    assert_eq!(of_manager["readonlyRootFilesystem"], true);

    let manager_repository = deployment.manager_repository(ManagerOf::One(&deployment.environments[0]));
    for repository in ["ci-dev/task", &manager_repository] {
        let policy = operator.aws(&format!("ecr get-lifecycle-policy --repository-name {repository}")).await;
        let rules: Value = serde_json::from_str(policy["lifecyclePolicyText"].as_str().expect("a text")).expect("JSON");
        assert_eq!(rules["rules"][1]["selection"]["countNumber"], 20, "{repository}");
    }

    let bucket = "ci-dev-cache-123456789012-us-east-1";
    let encryption = operator.aws(&format!("s3api get-bucket-encryption --bucket {bucket}")).await;
    let rule = &encryption["ServerSideEncryptionConfiguration"]["Rules"][0];
    assert_eq!(rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256");
    let block = operator.aws(&format!("s3api get-public-access-block --bucket {bucket}")).await;
    let block = block["PublicAccessBlockConfiguration"].as_object().expect("settings").clone();
    assert!(block.len() == 4 && block.values().all(|blocked| blocked == true), "{block:?}");
    operator.aws("secretsmanager describe-secret --secret-id ci-dev-runner-token").await;
}

#[tokio::test]
async fn apply_changes_what_the_file_changes_and_destroy_takes_all_away() {
    let ministack = Ministack::start();
    let network = Operator::at(ministack.url()).default_network().await;
    let text = deployment_file(&network);
    let (operator, deployment) = operator_with(&ministack, &text);
    operator.staffetta(&["deploy", "apply"]).await.good();
    let first = task_definition(&operator, "ci-dev").await;

    let changed = text
        .replace("weight = 3", "weight = 5")
        .replace("log_retention_days = 7", "log_retention_days = 30\ncpu = 2048\nmemory = 4096");
    operator.write("staffetta.toml", &changed);
    let plan = operator.staffetta(&["deploy", "plan"]).await.good();
    for resource in ["Cluster", "LogGroup", "TaskDefinition"] {
        assert!(
            plan.lines().any(|line| line.trim_start().starts_with('~') && line.contains(resource)),
            "{resource}: {plan}"
        );
    }
    assert_eq!(task_definition(&operator, "ci-dev").await, first, "a plan changed something");
    operator.staffetta(&["deploy", "apply"]).await.good();
    let second = task_definition(&operator, "ci-dev").await;
    assert_eq!((&second["cpu"], &second["memory"]), (&json!("2048"), &json!("4096")));
    assert_eq!(cluster(&operator, "ci-dev").await["defaultCapacityProviderStrategy"][0]["weight"], 5);
    assert_eq!(retention(&operator, "/staffetta/ci-dev").await, 30);
    let again = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(again.to_lowercase().contains("no change"), "{again}");

    operator.write("cached", "content");
    let bucket = deployment.cache_bucket(&deployment.environments[0]);
    operator.aws(&format!("s3api put-object --bucket {bucket} --key project/1/cache.zip --body cached")).await;
    operator.staffetta(&["deploy", "destroy", "--yes"]).await.good();
    for (question, answer) in [
        ("ecr describe-repositories", "repositories"),
        ("logs describe-log-groups --log-group-name-prefix /staffetta/", "logGroups"),
        ("s3api list-buckets", "Buckets"),
        ("secretsmanager list-secrets", "SecretList"),
        ("iam list-roles --path-prefix /", "Roles"),
        ("ecs list-clusters", "clusterArns"),
        ("ec2 describe-security-groups --filters Name=tag:staffetta:deployment,Values=ci", "SecurityGroups"),
    ] {
        assert_eq!(operator.aws(question).await[answer], json!([]), "{question}");
    }
    operator.staffetta(&["deploy", "apply"]).await.good();
}
