//! RunTask on the wire: what is sent, and what follows from each kind of answer.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::roles::{HOUR, keys};
use crate::scripted::{Answer, Scripted, launch, task};
use aws::fargate::{CapacityProvider, Fargate, FargateConfig, LaunchError, Regions, Waiting};
use job::outcome::SystemFailure;
use serde_json::json;

const NO_CAPACITY: &str =
    "Capacity is unavailable at this time. Please try again later or in a different availability zone";

fn started(id: &str) -> Answer {
    Answer::Json(json!({ "tasks": [task(id, "PROVISIONING")], "failures": [] }))
}

/// Answers with the list in turn, then with a started task.
async fn answering(answers: Vec<Answer>) -> Scripted {
    let answers = Mutex::new(answers.into_iter());
    Scripted::start(move |_| answers.lock().expect("the answers").next().unwrap_or_else(|| started("0a"))).await
}

#[tokio::test]
async fn run_task_sends_exactly_this() {
    let ecs = answering(vec![]).await;
    let fargate = ecs.connect(&ecs.config()).await;
    let task =
        fargate.run_task(&launch("job-7-1"), |_| panic!("nothing to wait for"), pending()).await.expect("a task");
    assert_eq!(task.arn.id(), "0a");
    assert_eq!(task.started_by.as_deref(), Some("staffetta/abc"));
    let call = &ecs.calls("RunTask")[0];
    assert_eq!(
        call.body,
        json!({
            "cluster": "ci-dev",
            "taskDefinition": "ci-dev:3",
            "launchType": "FARGATE",
            "count": 1,
            "clientToken": "job-7-1",
            "startedBy": "staffetta/abc",
            "networkConfiguration": { "awsvpcConfiguration": {
                "subnets": ["subnet-1", "subnet-2"],
                "securityGroups": ["sg-1"],
                "assignPublicIp": "DISABLED",
            } },
            "overrides": { "containerOverrides": [{
                "name": "ci-coordinator",
                "environment": [{ "name": "SSH_PUBLIC_KEY", "value": "ssh-ed25519 AAAA" }],
            }] },
        })
    );
    assert_eq!(call.headers["content-type"], "application/x-amz-json-1.1");
    assert_eq!(call.headers["x-amz-target"], "AmazonEC2ContainerServiceV20141113.RunTask");
    let signature = call.headers["authorization"].to_str().expect("text");
    assert!(signature.contains("/eu-west-1/ecs/aws4_request"), "{signature}");
    assert_eq!(fargate.calls().run_task, 1);
}

#[tokio::test]
async fn what_the_job_asks_for_replaces_what_the_runner_has() {
    let ecs = answering(vec![]).await;
    let config = FargateConfig {
        platform_version: Some("1.4.0".into()),
        enable_execute_command: true,
        propagate_tags: true,
        ..ecs.config()
    };
    let fargate = ecs.connect(&config).await;
    let asking = aws::fargate::Launch {
        task_definition: Some("big:7".into()),
        platform_version: Some("LATEST".into()),
        ..launch("b")
    };
    for launch in [launch("a"), asking] {
        fargate.run_task(&launch, |_| panic!("nothing to wait for"), pending()).await.expect("a task");
    }
    let calls = ecs.calls("RunTask");
    let sent = |key: &str| calls.iter().map(|call| call.body[key].clone()).collect::<Vec<_>>();
    assert_eq!(sent("taskDefinition"), ["ci-dev:3", "big:7"]);
    assert_eq!(sent("platformVersion"), ["1.4.0", "LATEST"]);
    assert_eq!(sent("enableExecuteCommand"), [true, true]);
    assert_eq!(sent("propagateTags"), ["TASK_DEFINITION", "TASK_DEFINITION"]);
}

#[tokio::test]
async fn capacity_providers_replace_the_launch_type() {
    let ecs = answering(vec![]).await;
    let config = FargateConfig {
        assign_public_ip: true,
        platform_version: Some("1.4.0".into()),
        security_groups: vec![],
        capacity_providers: vec![
            CapacityProvider { name: "FARGATE_SPOT".into(), weight: 3, base: 0 },
            CapacityProvider { name: "FARGATE".into(), weight: 1, base: 1 },
        ],
        ..ecs.config()
    };
    ecs.connect(&config).await.run_task(&launch("t"), |_| (), pending()).await.expect("a task");
    let body = &ecs.calls("RunTask")[0].body;
    assert_eq!(body.get("launchType"), None);
    assert_eq!(body["platformVersion"], "1.4.0");
    assert_eq!(
        body["networkConfiguration"]["awsvpcConfiguration"],
        json!({ "subnets": ["subnet-1", "subnet-2"], "assignPublicIp": "ENABLED" })
    );
    assert_eq!(
        body["capacityProviderStrategy"],
        json!([
            { "capacityProvider": "FARGATE_SPOT", "weight": 3, "base": 0 },
            { "capacityProvider": "FARGATE", "weight": 1, "base": 1 },
        ])
    );
}

#[tokio::test]
async fn throttles_errors_and_empty_answers_are_repeated_with_the_same_token() {
    let hidden = "Error retrieving security group information for [sg-1]: Request limit exceeded. (ErrorCode: \
                  RequestLimitExceeded)";
    let ecs = answering(vec![
        Answer::Error(400, "ThrottlingException", "Rate exceeded"),
        Answer::Error(400, "InvalidParameterException", hidden),
        Answer::Error(500, "ServerException", "Service Unavailable"),
        Answer::Json(json!({ "tasks": [], "failures": [] })),
    ])
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let mut told = Vec::new();
    fargate.run_task(&launch("t"), |waiting| told.push(waiting.clone()), pending()).await.expect("a task");
    assert_eq!(ecs.tokens(), ["t"; 5]);
    let kinds = told.iter().filter(|waiting| **waiting != Waiting::Turn).map(|waiting| match waiting {
        Waiting::Throttled { .. } => "throttled",
        Waiting::NoAnswer { .. } => "no answer",
        _ => "else",
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["throttled", "throttled", "no answer", "no answer"]);
    assert_eq!((fargate.calls().run_task, fargate.calls().throttled), (5, 2));
}

#[tokio::test]
async fn a_repeated_run_task_starts_one_task() {
    // ECS as it is: a token names a task, whether or not its answer arrived.
    let (tasks, count) = (Mutex::new(HashMap::new()), AtomicUsize::new(0));
    let ecs = Scripted::start(move |call| {
        let token = call.body["clientToken"].to_string();
        let mut tasks = tasks.lock().expect("the tasks");
        let number = tasks.len();
        let number = *tasks.entry(token).or_insert(number);
        match count.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Answer::Lost,
            _ => started(&number.to_string()),
        }
    })
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let mut told = Vec::new();
    let task =
        fargate.run_task(&launch("t"), |waiting| told.push(waiting.to_string()), pending()).await.expect("a task");
    assert_eq!((task.arn.id(), ecs.tokens().len()), ("0", 3));
    assert!(told[0].starts_with("RunTask got no answer ("), "{told:?}");
}

#[tokio::test]
async fn without_spot_capacity_it_goes_on_demand_and_says_so() {
    let failure = json!({ "tasks": [], "failures": [{ "reason": NO_CAPACITY }] });
    let ecs = answering(vec![Answer::Json(failure)]).await;
    let config = FargateConfig {
        capacity_providers: vec![
            CapacityProvider { name: "FARGATE_SPOT".into(), weight: 1, base: 0 },
            CapacityProvider { name: "FARGATE".into(), weight: 0, base: 0 },
        ],
        ..ecs.config()
    };
    let mut told = Vec::new();
    let fargate = ecs.connect(&config).await;
    fargate.run_task(&launch("t"), |waiting| told.push(waiting.to_string()), pending()).await.expect("a task");
    assert_eq!(told, [format!("no room in FARGATE_SPOT ({NO_CAPACITY}); trying FARGATE now")]);
    assert_eq!(ecs.tokens(), ["t", "t-1"], "another request needs another token");
    let second = &ecs.calls("RunTask")[1].body["capacityProviderStrategy"];
    assert_eq!(*second, json!([{ "capacityProvider": "FARGATE", "weight": 1, "base": 0 }]));
}

#[tokio::test]
async fn a_lasting_refusal_is_not_repeated_and_names_the_fix() {
    let denied = "User: arn:aws:sts::1:assumed-role/m/i is not authorized to perform: iam:PassRole on resource: \
                  arn:aws:iam::1:role/task because no identity-based policy allows the iam:PassRole action";
    let ecs = answering(vec![Answer::Error(400, "AccessDeniedException", denied)]).await;
    let fargate = ecs.connect(&ecs.config()).await;
    let error = fargate.run_task(&launch("t"), |_| (), pending()).await.expect_err("a refusal");
    let LaunchError::Refused { reason, fix, failure, perhaps_started: false } = error else { panic!("{error}") };
    assert_eq!(reason, format!("AccessDeniedException: {denied}"));
    assert_eq!(fix, "Allow iam:PassRole on arn:aws:iam::1:role/task in the manager's IAM policy.");
    assert_eq!((failure, ecs.tokens().len()), (SystemFailure::Configuration, 1));
}

#[tokio::test]
async fn overrides_beyond_the_limit_are_not_sent() {
    let ecs = answering(vec![]).await;
    let mut launch = launch("t");
    launch.environment.insert("BIG".into(), "x".repeat(8192));
    let error = ecs.connect(&ecs.config()).await.run_task(&launch, |_| (), pending()).await.expect_err("a refusal");
    assert!(matches!(&error, LaunchError::Refused { fix, .. } if fix.contains("8192")), "{error}");
    assert_eq!(ecs.tokens(), [""; 0]);
}

#[tokio::test]
async fn a_token_that_ecs_knows_with_another_request_is_our_task() {
    let ecs = Scripted::start(|call| match call.api.as_str() {
        "RunTask" => Answer::Conflict(crate::scripted::arn("0b")),
        _ => crate::scripted::all_are("PENDING", call),
    })
    .await;
    let task = ecs.connect(&ecs.config()).await.run_task(&launch("t"), |_| (), pending()).await.expect("a task");
    assert_eq!((task.arn.id(), task.address), ("0b", Some("10.0.0.7".parse().expect("an address"))));
}

#[tokio::test]
async fn patience_is_bounded_and_tells_that_a_task_may_run() {
    let ecs = Scripted::start(|_| Answer::Lost).await;
    let launch = aws::fargate::Launch { patience: Duration::ZERO, ..launch("t") };
    let error =
        ecs.connect(&ecs.config()).await.run_task(&launch, |_| (), pending()).await.expect_err("the end of patience");
    assert!(matches!(error, LaunchError::GaveUp { perhaps_started: true, .. }), "{error}");
}

#[tokio::test]
async fn launches_of_all_runners_of_an_account_together_keep_to_the_bucket() {
    const LAUNCHES: usize = 40;
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let ecs = Scripted::start({
        let arrivals = arrivals.clone();
        move |call| {
            if call.api == "AssumeRole" {
                return keys("ASIAROLE", HOUR);
            }
            arrivals.lock().expect("the arrivals").push(Instant::now());
            started("0a")
        }
    })
    .await;
    let regions = Regions::default();
    let as_role = async |arn: &str| {
        let role = FargateConfig { role_arn: Some(arn.to_owned()), ..ecs.config() }.runner_role("s");
        Fargate::connect(&FargateConfig { role, ..ecs.config() }, &regions).await.expect("a connection")
    };
    let first = as_role("arn:aws:iam::111122223333:role/ci-dev").await;
    let second = as_role("arn:aws:iam::111122223333:role/ci-prod").await;
    let elsewhere = as_role("arn:aws:iam::444455556666:role/ci-prod").await;
    let began = Instant::now();
    let mut launches = Vec::new();
    for number in 0..LAUNCHES {
        let fargate = if number % 2 == 0 { first.clone() } else { second.clone() };
        launches.push(tokio::spawn(async move {
            let mut waited = false;
            let launch = launch(&format!("t{number}"));
            fargate.run_task(&launch, |waiting| waited |= *waiting == Waiting::Turn, pending()).await.expect("a task");
            waited
        }));
    }
    let mut waited = 0;
    for launch in launches {
        waited += usize::from(launch.await.expect("a launch"));
    }
    assert!((1..=LAUNCHES - 20).contains(&waited), "{waited} were told to wait");
    let arrivals = std::mem::take(&mut *arrivals.lock().expect("the arrivals"));
    assert_eq!(arrivals.len(), LAUNCHES);
    for (beyond, arrival) in arrivals[20..].iter().enumerate() {
        // 20 at once, then 20 a second.
        let earliest = Duration::from_millis(50) * u32::try_from(beyond).expect("small");
        let after = arrival.duration_since(began);
        assert!(after >= earliest, "call {} came after {after:?}", 21 + beyond);
    }
    // Each account has a bucket of its own.
    elsewhere.run_task(&launch("t"), |waiting| panic!("{waiting}"), pending()).await.expect("a task");
}

#[tokio::test]
async fn once_nobody_wants_the_task_no_other_call_is_sent() {
    let ecs = answering(vec![Answer::Error(400, "ThrottlingException", "Rate exceeded")]).await;
    let fargate = ecs.connect(&ecs.config()).await;
    let unwanted = tokio::sync::Notify::new();
    let ran = fargate.run_task(&launch("t"), |_| unwanted.notify_one(), unwanted.notified()).await;
    assert!(matches!(ran, Err(LaunchError::GaveUp { perhaps_started: false, .. })), "{ran:?}");
    assert_eq!(ecs.calls("RunTask").len(), 1);
}

#[tokio::test]
async fn a_task_that_nobody_wants_any_more_leaves_the_queue_without_a_call() {
    let ecs = answering(vec![]).await;
    let fargate = ecs.connect(&ecs.config()).await;
    // Twenty calls at once are all that the bucket has; whoever has to wait for a turn is not wanted any more.
    let mut launches = tokio::task::JoinSet::new();
    for number in 0..40 {
        let fargate = fargate.clone();
        launches.spawn(async move {
            let unwanted = tokio::sync::Notify::new();
            let launch = launch(&format!("t{number}"));
            fargate.run_task(&launch, |_| unwanted.notify_one(), unwanted.notified()).await.is_ok()
        });
    }
    let started = launches.join_all().await.into_iter().filter(|started| *started).count();
    assert!((20..40).contains(&started), "{started}");
    assert_eq!(ecs.calls("RunTask").len(), started);
}
