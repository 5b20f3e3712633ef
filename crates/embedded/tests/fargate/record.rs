//! Every call as a line of a file.

use serde_json::{Value, json};

use crate::support::{engines, http, must, server};

fn signed(service: &str, key: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/{service}/aws4_request, Signature=no\r\n"
    )
}

#[tokio::test]
async fn every_call_becomes_a_line_that_says_who_asked_for_what() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let engine = *engines().last().unwrap();
    let (server, _agent) = server(engine, |config| config.record = Some(file.path().to_owned())).await;
    must(&server, "ListTasks", json!({"cluster": "default", "startedBy": "me"})).await;
    let role = "arn:aws:iam::000000000000:role/manager";
    let form = format!("Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=it");
    let (_, answer) = http(&server, "POST", "/", &signed("sts", "me"), &form).await.unwrap();
    let (_, rest) = answer.split_once("<AccessKeyId>").unwrap();
    let (key, _) = rest.split_once("</AccessKeyId>").unwrap();
    http(&server, "POST", "/", &signed("ec2", key), "Action=DescribeSubnets&SubnetId.1=subnet-1").await.unwrap();
    server.shutdown().await;

    let text = std::fs::read_to_string(file.path()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = json!([
        {"who": "", "role": null, "service": "ecs", "region": "", "action": "ListTasks",
            "parameters": {"cluster": "default", "startedBy": "me"}},
        {"who": "me", "role": null, "service": "sts", "region": "eu-west-1", "action": "AssumeRole", "gives": key,
            "parameters": {"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": role, "RoleSessionName": "it"}},
        {"who": key, "role": role, "service": "ec2", "region": "eu-west-1", "action": "DescribeSubnets",
            "parameters": {"Action": "DescribeSubnets", "SubnetId.1": "subnet-1"}},
    ]);
    assert_eq!(Value::from(lines), expected);
}
