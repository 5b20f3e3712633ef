//! The embedded Fargate against a client that is not ours: AWS's own command line.

use crate::support::*;
use embedded::fargate::{EngineMode, Server};
use serde_json::Value;
use tokio::process::Command;

/// Runs `aws ARGUMENTS`; the output as JSON, or what it complains about.
async fn aws(server: &Server, arguments: &str) -> Result<Value, String> {
    let mut command = Command::new("aws");
    command.args(["--endpoint-url", server.url(), "--output", "json"]).args(arguments.split_whitespace());
    // Neither this machine's configuration nor the address of instance metadata is looked at.
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_ACCESS_KEY_ID", "embedded").env("AWS_SECRET_ACCESS_KEY", "embedded");
    command
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let output = command.output().await.expect("the AWS CLI is needed: `make test` installs it");
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap().trim().to_owned()),
    }
}

#[tokio::test]
async fn the_aws_cli_runs_a_task_from_its_definition_to_its_end() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;

    let identity = aws(&server, "sts get-caller-identity").await.unwrap();
    assert_eq!(identity["Account"], "000000000000");

    let role = "sts assume-role --role-arn arn:aws:iam::111122223333:role/ci-dev --role-session-name job-7 \
                --tags Key=project,Value=a/b Key=ref,Value=main";
    let assumed = aws(&server, role).await.unwrap();
    assert_eq!(assumed["AssumedRoleUser"]["Arn"], "arn:aws:sts::000000000000:assumed-role/ci-dev/job-7");
    assert!(assumed["Credentials"]["Expiration"].as_str().unwrap().starts_with("20"), "{assumed}");

    let containers = r#"[{"name":"ci-coordinator","image":"staffetta/agent","portMappings":[{"containerPort":22}]}]"#;
    let register = format!(
        "ecs register-task-definition --family job --network-mode awsvpc --requires-compatibilities FARGATE --cpu 256 \
         --memory 512 --container-definitions {containers}"
    );
    let definition = aws(&server, &register).await.unwrap()["taskDefinition"]["taskDefinitionArn"].clone();
    assert!(definition.as_str().unwrap().ends_with("task-definition/job:1"));

    let run = "ecs run-task --cluster default --task-definition job --launch-type FARGATE --started-by me \
               --network-configuration awsvpcConfiguration={subnets=[subnet-1],securityGroups=[sg-1],assignPublicIp=ENABLED}";
    let arn = arn_of(&aws(&server, run).await.unwrap());
    let address = until(&server, &arn, "RUNNING").await.address.unwrap().to_string();
    let listed = aws(&server, "ecs list-tasks --cluster default --started-by me").await.unwrap();
    assert_eq!(listed["taskArns"][0], arn);

    let described = aws(&server, &format!("ecs describe-tasks --cluster default --tasks {arn}")).await.unwrap();
    assert_eq!(described["tasks"][0]["lastStatus"], "RUNNING");
    assert_eq!(described["tasks"][0]["attachments"][0]["details"][4]["value"], address.as_str());
    let interface = described["tasks"][0]["attachments"][0]["details"][1]["value"].as_str().unwrap();
    let ask = format!("ec2 describe-network-interfaces --network-interface-ids {interface}");
    let interfaces = aws(&server, &ask).await.unwrap();
    assert_eq!(interfaces["NetworkInterfaces"][0]["Association"]["PublicIp"], address.as_str());
    let subnets = aws(&server, "ec2 describe-subnets --subnet-ids subnet-1").await.unwrap();
    assert_eq!(subnets["Subnets"][0]["State"], "available");

    let stopped = aws(&server, &format!("ecs stop-task --cluster default --task {arn} --reason enough")).await.unwrap();
    assert_eq!(stopped["task"]["desiredStatus"], "STOPPED");
    assert_eq!(until(&server, &arn, "STOPPED").await.stopped_reason.as_deref(), Some("enough"));
    server.shutdown().await;
}

#[tokio::test]
async fn the_aws_cli_understands_refusals() {
    let (server, _agent) = server(EngineMode::ProcessGroup, |_| {}).await;
    let refusal = aws(&server, "ecs list-tasks --cluster nowhere").await.unwrap_err();
    let expected =
        "An error occurred (ClusterNotFoundException) when calling the ListTasks operation: Cluster not found.";
    assert!(refusal.ends_with(expected), "{refusal}");
    let refusal = aws(&server, "ec2 describe-network-interfaces --network-interface-ids eni-0").await.unwrap_err();
    assert!(refusal.contains("(InvalidNetworkInterfaceID.NotFound)"), "{refusal}");
    server.shutdown().await;
}
