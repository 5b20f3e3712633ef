//! Roles in other accounts: who may take them, and what their keys reach.

use std::time::Duration;

use embedded::fargate::{Role, Server};
use serde_json::{Value, json};

use crate::support::{arn_of, engines, http, run_request, server};

const DEV: &str = "arn:aws:iam::111122223333:role/ci-dev";
const STAGING: &str = "arn:aws:iam::444455556666:role/ci-staging";
const OVER: &str = "arn:aws:iam::444455556666:role/over";

/// One call of ECS, signed with this key.
async fn ecs(server: &Server, key: &str, operation: &str, request: Value) -> (u16, Value) {
    let headers = format!(
        "Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/ecs/aws4_request\r\n\
         X-Amz-Target: AmazonEC2ContainerServiceV20141113.{operation}\r\n"
    );
    let (status, body) = http(server, "POST", "/", &headers, &request.to_string()).await.unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

async fn sts(server: &Server, key: &str, form: &str) -> (u16, String) {
    let headers = format!("Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/sts/aws4_request\r\n");
    http(server, "POST", "/", &headers, form).await.unwrap()
}

/// The access key of a session, or the status and code of the refusal.
async fn assume(server: &Server, key: &str, role: &str, more: &str) -> Result<String, (u16, String)> {
    let form = format!("Action=AssumeRole&Version=2011-06-15&RoleSessionName=it&RoleArn={role}{more}");
    let (status, body) = sts(server, key, &form).await;
    let between = |tag: &str| body.split_once(&format!("<{tag}>"))?.1.split('<').next().map(str::to_owned);
    between("AccessKeyId").ok_or_else(|| (status, between("Code").unwrap_or_default()))
}

async fn world() -> (Server, tempfile::TempDir) {
    server(engines()[0], |config| {
        let cluster = |account: &str, name: &str| format!("arn:aws:ecs:us-east-1:{account}:cluster/{name}");
        config.clusters = vec![cluster("111122223333", "ci"), cluster("444455556666", "staging"), "own".into()];
        config.roles = vec![
            Role { external_id: Some("e1".into()), trusts: vec!["manager".into()], ..Role::new(DEV) },
            Role { trusts: vec![DEV.into()], ..Role::new(STAGING) },
            Role { keys_live: Duration::ZERO, ..Role::new(OVER) },
        ];
    })
    .await
}

#[tokio::test]
async fn a_role_is_given_to_those_that_it_trusts_and_that_say_its_external_id() {
    let (server, _agent) = world().await;
    let denied = Err((403, "AccessDenied".to_owned()));
    for (key, role, more) in [
        ("other", DEV, "&ExternalId=e1"),
        ("manager", DEV, ""),
        ("manager", DEV, "&ExternalId=e2"),
        ("manager", STAGING, ""),
        ("manager", "arn:aws:iam::111122223333:role/nobody", ""),
    ] {
        assert_eq!(assume(&server, key, role, more).await, denied, "{key} {role} {more}");
    }
    let dev = assume(&server, "manager", DEV, "&ExternalId=e1").await.unwrap();
    let (_, identity) = sts(&server, &dev, "Action=GetCallerIdentity&Version=2011-06-15").await;
    assert!(identity.contains("<Arn>arn:aws:sts::111122223333:assumed-role/ci-dev/it</Arn>"), "{identity}");
    assert!(identity.contains("<Account>111122223333</Account>"), "{identity}");

    // A role may take a role, for an hour.
    let too_long = assume(&server, &dev, STAGING, "&DurationSeconds=3601").await;
    assert_eq!(too_long, Err((400, "ValidationError".to_owned())));
    assume(&server, &dev, STAGING, "&DurationSeconds=3600").await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn the_keys_of_a_role_reach_its_account_and_no_other() {
    let (server, _agent) = world().await;
    let dev = assume(&server, "manager", DEV, "&ExternalId=e1").await.unwrap();
    let staging = assume(&server, &dev, STAGING, "").await.unwrap();
    let run = |cluster: &str| {
        let mut request = run_request();
        request["cluster"] = cluster.into();
        request
    };
    let (status, started) = ecs(&server, &dev, "RunTask", run("ci")).await;
    assert_eq!(status, 200, "{started}");
    let task = arn_of(&started);
    assert!(task.starts_with("arn:aws:ecs:us-east-1:111122223333:task/ci/"), "{task}");

    let of_staging = "arn:aws:ecs:us-east-1:444455556666:cluster/staging";
    for (key, operation, request) in [
        (&*dev, "RunTask", run("staging")),
        (&*dev, "RunTask", run(of_staging)),
        (&*dev, "ListTasks", json!({"cluster": of_staging})),
        (&*staging, "StopTask", json!({"cluster": "ci", "task": task})),
        (&*staging, "DescribeTasks", json!({"cluster": "ci", "tasks": [task]})),
        ("manager", "RunTask", run("ci")),
    ] {
        let (status, body) = ecs(&server, key, operation, request.clone()).await;
        assert_eq!((status, &body["__type"]), (400, &json!("ClusterNotFoundException")), "{operation} {request}");
    }
    let (_, clusters) = ecs(&server, &staging, "ListClusters", json!({})).await;
    assert_eq!(clusters["clusterArns"], json!([of_staging]));
    server.shutdown().await;
}

#[tokio::test]
async fn keys_that_are_over_are_refused() {
    let (server, _agent) = world().await;
    let over = assume(&server, "anybody", OVER, "").await.unwrap();
    let (status, body) = ecs(&server, &over, "ListTasks", json!({"cluster": "staging"})).await;
    assert_eq!((status, &body["__type"]), (400, &json!("ExpiredTokenException")));
    assert_eq!(assume(&server, &over, DEV, "").await, Err((403, "ExpiredToken".to_owned())));
    server.shutdown().await;
}
