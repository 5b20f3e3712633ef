//! Calls that are made as another role, and calls to another server than AWS's.

use std::future::pending;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws::AssumedRole;
use aws::CallError;
use aws::fargate::{Credentials, Fargate, FargateConfig, LaunchError, Regions};
use job::outcome::SystemFailure;
use serde_json::json;

use crate::scripted::{Answer, Scripted, all_are, launch, task, unseen, until};

const ROLE: &str = "arn:aws:iam::111122223333:role/ci-dev";

fn role() -> AssumedRole {
    AssumedRole {
        arn: ROLE.into(),
        session_name: "staffetta-7".into(),
        external_id: None,
        tags: vec![("project".into(), "a/b c".into()), ("ref".into(), String::new())],
    }
}

/// STS's answer, with keys that last so long.
pub fn keys(id: &str, lifetime: Duration) -> Answer {
    let expires = (SystemTime::now() + lifetime).duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    let expires = aws_smithy_types::DateTime::from_secs(expires);
    let expires = expires.fmt(aws_smithy_types::date_time::Format::DateTime).expect("a date");
    Answer::Xml(format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
         <Expiration>{expires}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    ))
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    Answer::XmlError(
        status,
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        ),
    )
}

pub const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn all_calls_are_signed_with_the_roles_keys_which_are_asked_for_once() {
    let ecs = Scripted::start(|call| match call.api.as_str() {
        "AssumeRole" => keys("ASIAROLE", HOUR),
        "RunTask" => Answer::Json(json!({ "tasks": [task("0a", "PROVISIONING")], "failures": [] })),
        "EC2" => Answer::Xml(
            "<R><networkInterfaceSet><item><networkInterfaceId>eni-0a</networkInterfaceId><association>\
             <publicIp>192.0.2.1</publicIp></association></item></networkInterfaceSet></R>"
                .into(),
        ),
        _ => all_are("PENDING", call),
    })
    .await;
    let config = FargateConfig { assign_public_ip: true, use_public_ip: true, role: Some(role()), ..ecs.config() };
    let fargate = ecs.connect(&config).await;
    let started = fargate.run_task(&launch("t"), |_| (), pending()).await.expect("a task");
    let mut watch = fargate.watch(&started);
    until(&mut watch, |task| task.address.is_some()).await;

    let assumed = ecs.calls("AssumeRole");
    let form = assumed[0].body.as_str().expect("a form");
    assert_eq!(
        form,
        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fci-dev\
         &RoleSessionName=staffetta-7&Tags.member.1.Key=project&Tags.member.1.Value=a%2Fb%20c\
         &Tags.member.2.Key=ref&Tags.member.2.Value="
    );
    assert!(assumed.iter().all(|call| call.key() == "staffetta"), "the manager's own keys sign it");
    for api in ["RunTask", "DescribeTasks", "EC2"] {
        let calls = ecs.calls(api);
        assert!(!calls.is_empty() && calls.iter().all(|call| call.key() == "ASIAROLE"), "{api}");
        assert_eq!(calls[0].headers["x-amz-security-token"], "token", "{api}");
    }
    assert_eq!(assumed.len(), 1);
}

#[tokio::test]
async fn two_roles_of_one_process_do_not_share_keys() {
    let ecs = Scripted::start(|call| match call.api.as_str() {
        "AssumeRole" if call.body.as_str().expect("a form").contains("ci-dev") => keys("ASIADEV", HOUR),
        "AssumeRole" => keys("ASIAPROD", HOUR),
        _ => Answer::Json(json!({ "taskArns": [] })),
    })
    .await;
    let regions = Regions::default();
    let prod = AssumedRole { arn: "arn:aws:iam::444455556666:role/ci-prod".into(), ..role() };
    for role in [Some(role()), Some(prod), None] {
        let config = FargateConfig { role, ..ecs.config() };
        Fargate::connect(&config, &regions).await.expect("a connection").list_tasks("s").await.expect("a list");
    }
    let keys: Vec<_> = ecs.calls("ListTasks").iter().map(|call| call.key().to_owned()).collect();
    assert_eq!(keys, ["ASIADEV", "ASIAPROD", "staffetta"]);
}

#[tokio::test]
async fn a_role_that_is_not_given_ends_the_launch_at_once_with_what_to_check() {
    let ecs = Scripted::start(|_| {
        let message =
            "User: arn:aws:sts::1:assumed-role/m/x is not authorized to perform: sts:AssumeRole on resource: r";
        refusal(403, "AccessDenied", message)
    })
    .await;
    let fargate = ecs.connect(&FargateConfig { role: Some(role()), ..ecs.config() }).await;
    let error = fargate.run_task(&launch("t"), |waiting| panic!("{waiting}"), pending()).await.expect_err("no role");
    let LaunchError::Refused { reason, fix, failure, perhaps_started: false } = error else { panic!("{error}") };
    assert!(reason.starts_with(&format!("AWS does not give the role {ROLE} (AccessDenied: User: ")), "{reason}");
    assert!(fix.contains("trust policy") && fix.contains("sts:TagSession") && fix.contains(ROLE), "{fix}");
    assert_eq!(failure, SystemFailure::Configuration);
    assert_eq!(ecs.calls("RunTask").len(), 0);

    let error = fargate.list_tasks("s").await.expect_err("no role");
    assert!(matches!(&error, CallError::RoleRefused { role, .. } if role == ROLE), "{error}");
}

#[tokio::test]
async fn the_role_of_a_runner_is_taken_with_its_external_id_and_a_refusal_names_the_runners_keys() {
    let ecs = Scripted::start(|_| refusal(403, "AccessDenied", "no")).await;
    let config = FargateConfig { role_arn: Some(ROLE.into()), external_id: Some("ci/dev".into()), ..ecs.config() };
    let config = FargateConfig { role: config.runner_role("staffetta.s_1.dev"), ..config };
    let fargate = ecs.connect(&config).await;
    let error = fargate.run_task(&launch("t"), |waiting| panic!("{waiting}"), pending()).await.expect_err("no role");
    let LaunchError::Refused { fix, .. } = error else { panic!("{error}") };
    assert!(fix.contains(ROLE) && fix.contains("external_id in [runners.fargate]"), "{fix}");
    assert!(!fix.contains("SESSION_VARS"), "the job did not ask for it: {fix}");
    let assumed = ecs.calls("AssumeRole");
    let form = assumed[0].body.as_str().expect("a form");
    assert!(form.contains("&RoleSessionName=staffetta.s_1.dev&ExternalId=ci%2Fdev"), "{form}");
}

#[tokio::test]
async fn an_sts_that_is_busy_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let ecs = Scripted::start(move |call| match call.api.as_str() {
        "AssumeRole" => match asked.fetch_add(1, Ordering::Relaxed) {
            0 => refusal(400, "Throttling", "Rate exceeded"),
            1 => refusal(503, "ServiceUnavailable", "later"),
            _ => keys("ASIAROLE", HOUR),
        },
        _ => Answer::Json(json!({ "taskArns": [] })),
    })
    .await;
    let fargate = ecs.connect(&FargateConfig { role: Some(role()), ..ecs.config() }).await;
    fargate.list_tasks("s").await.expect("a list");
    assert_eq!(ecs.calls("AssumeRole").len(), 3);
}

#[tokio::test]
async fn keys_that_are_about_to_expire_are_renewed() {
    let asked = AtomicUsize::new(0);
    let ecs = Scripted::start(move |call| match call.api.as_str() {
        "AssumeRole" => match asked.fetch_add(1, Ordering::Relaxed) {
            0 => keys("ASIAOLD", Duration::from_secs(1)),
            _ => keys("ASIANEW", HOUR),
        },
        _ => Answer::Json(json!({ "taskArns": [] })),
    })
    .await;
    let fargate = ecs.connect(&FargateConfig { role: Some(role()), ..ecs.config() }).await;
    for _ in 0..2 {
        fargate.list_tasks("s").await.expect("a list");
    }
    let keys: Vec<_> = ecs.calls("ListTasks").iter().map(|call| call.key().to_owned()).collect();
    assert_eq!(keys.last().map(String::as_str), Some("ASIANEW"));
}

/// `ecs.toml` has no key for the endpoint: the driver is pointed at another server as every AWS tool is.
#[tokio::test]
async fn the_environment_names_the_endpoint_of_every_service() {
    const CHILD: &str = "STAFFETTA_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let config = FargateConfig {
            cluster: "ci-dev".into(),
            region: Some("eu-west-1".into()),
            assign_public_ip: true,
            use_public_ip: true,
            role: Some(role()),
            credentials: Credentials::UsualChain,
            ..FargateConfig::default()
        };
        let fargate = Fargate::connect(&config, &Regions::default()).await.expect("a connection");
        until(&mut fargate.watch(&unseen("0a")), |task| task.address.is_some()).await;
        return;
    }
    // In a process of its own, for the environment belongs to all tests of this one.
    for names in [&["AWS_ENDPOINT_URL"][..], &["AWS_ENDPOINT_URL_ECS", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_EC2"]]
    {
        let server = Scripted::start(|call| match call.api.as_str() {
            "AssumeRole" => keys("ASIAROLE", HOUR),
            "EC2" => Answer::Xml(
                "<R><networkInterfaceSet><item><networkInterfaceId>eni-0a</networkInterfaceId><association>\
                 <publicIp>192.0.2.1</publicIp></association></item></networkInterfaceSet></R>"
                    .into(),
            ),
            _ => all_are("PENDING", call),
        })
        .await;
        let url = server.config().endpoint_url.expect("an endpoint");
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "roles::the_environment_names_the_endpoint_of_every_service"]);
        child.env_clear().env(CHILD, "1").env("AWS_ACCESS_KEY_ID", "AKIAENV").env("AWS_SECRET_ACCESS_KEY", "x");
        child.envs(names.iter().map(|name| (name, &url)));
        let output = tokio::task::spawn_blocking(move || child.output()).await.expect("a thread").expect("a process");
        assert!(output.status.success(), "{names:?}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(server.calls("AssumeRole").iter().all(|call| call.key() == "AKIAENV"));
        assert_eq!((server.calls("EC2").len(), server.calls("DescribeTasks").is_empty()), (1, false), "{names:?}");
    }
}
