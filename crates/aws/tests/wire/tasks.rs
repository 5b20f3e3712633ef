//! Watching, stopping and listing tasks on the wire.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::scripted::{Answer, Scripted, all_are, all_are_missing, arn, asked, task, unseen, until};
use aws::CallError;
use aws::fargate::{Fargate, FargateConfig, Regions, Status};
use job::ids::TaskArn;
use serde_json::json;

#[tokio::test]
async fn tasks_are_described_a_hundred_at_a_time() {
    let ecs = Scripted::start(|call| all_are("RUNNING", call)).await;
    let fargate = ecs.connect(&ecs.config()).await;
    let unseen: Vec<_> = (0..250).map(|number| unseen(&format!("{number:03}"))).collect();
    let arns: Vec<_> = unseen.iter().map(|task| task.arn.clone()).collect();
    assert_eq!(fargate.describe(&arns).await.expect("an answer").len(), 250);
    let sizes: Vec<usize> = ecs.calls("DescribeTasks").iter().map(|call| asked(call).len()).collect();
    assert_eq!(sizes, [100, 100, 50]);

    let mut watches: Vec<_> = unseen.iter().map(|task| fargate.watch(task)).collect();
    for watch in &mut watches {
        let task = until(watch, |task| task.last_status == Status::Running).await;
        assert_eq!(task.address, Some("10.0.0.7".parse().expect("an address")));
    }
    let batches: Vec<_> = ecs.calls("DescribeTasks").iter().skip(3).map(asked).collect();
    assert!(batches.iter().all(|batch| batch.len() <= 100));
    assert_eq!(batches.concat().into_iter().collect::<HashSet<_>>().len(), 250);
    assert_eq!(fargate.calls().describe_tasks, ecs.calls("DescribeTasks").len() as u64);
}

#[tokio::test]
async fn missing_after_run_task_is_not_gone_but_missing_after_it_was_seen_is() {
    let looks = AtomicUsize::new(0);
    let ecs = Scripted::start(move |call| match looks.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => all_are_missing(call),
        2 => all_are("RUNNING", call),
        _ => all_are_missing(call),
    })
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let mut watch = fargate.watch(&unseen("0a"));
    let seen = until(&mut watch, |task| task.last_status != Status::Provisioning).await;
    assert_eq!(seen.last_status, Status::Running);
    fargate.look_now(&seen.arn);
    let gone = until(&mut watch, |task| task.is_over()).await;
    assert_eq!(gone.last_status, Status::Gone);
    assert_eq!(gone.address, seen.address, "what was known stays known");
    assert!(watch.changed().await.is_err(), "the watch is over");
}

#[tokio::test]
async fn a_watch_ends_with_the_stopped_task_and_its_exit_code() {
    let ecs = Scripted::start(|_| {
        let mut stopped = task("0a", "STOPPED");
        stopped["stopCode"] = "EssentialContainerExited".into();
        stopped["containers"] = json!([
            { "name": "aws-guardduty-agent-x", "cpu": "null", "exitCode": 0 },
            { "name": "ci-coordinator", "exitCode": 3 },
        ]);
        Answer::Json(json!({ "tasks": [stopped] }))
    })
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let mut watch = fargate.watch(&unseen("0a"));
    let task = until(&mut watch, |task| task.is_over()).await;
    assert_eq!((task.exit_code(), task.stop_code.as_deref()), (Some(3), Some("EssentialContainerExited")));
    assert!(watch.changed().await.is_err(), "the watch is over");
}

#[tokio::test]
async fn looking_goes_on_after_throttles_and_errors() {
    let looks = AtomicUsize::new(0);
    let ecs = Scripted::start(move |call| match looks.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::Error(400, "ThrottlingException", "Rate exceeded"),
        1 => Answer::Error(500, "ServerException", ""),
        2 => Answer::Lost,
        3 => Answer::Error(400, "AccessDeniedException", "not yet"),
        _ => all_are("RUNNING", call),
    })
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let mut watch = fargate.watch(&unseen("0a"));
    until(&mut watch, |task| task.last_status == Status::Running).await;
    assert_eq!(fargate.calls().throttled, 1);
}

#[tokio::test]
async fn what_nobody_watches_is_not_looked_at() {
    let ecs = Scripted::start(|call| all_are("RUNNING", call)).await;
    let fargate = ecs.connect(&ecs.config()).await;
    let mut kept = fargate.watch(&unseen("0a"));
    let mut dropped = fargate.watch(&unseen("0b"));
    until(&mut kept, |task| task.last_status == Status::Running).await;
    until(&mut dropped, |task| task.last_status == Status::Running).await;
    drop(dropped);
    let before = ecs.calls("DescribeTasks").len();
    fargate.look_now(&kept.borrow().arn.clone());
    ecs.wait_for("DescribeTasks", before + 1).await;
    assert_eq!(asked(&ecs.calls("DescribeTasks")[before]), ["0a"]);
}

#[tokio::test]
async fn a_watch_that_is_taken_up_again_goes_on_from_its_last_look() {
    let looks = AtomicUsize::new(0);
    let ecs = Scripted::start(move |call| match looks.fetch_add(1, Ordering::Relaxed) {
        0 => all_are("RUNNING", call),
        _ => all_are("STOPPED", call),
    })
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let launched = unseen("0a");
    until(&mut fargate.watch(&launched), |task| task.last_status == Status::Running).await;
    let mut again = fargate.watch(&launched);
    assert_eq!(again.borrow().last_status, Status::Running);
    fargate.look_now(&launched.arn);
    until(&mut again, |task| task.is_over()).await;
    assert_eq!(fargate.watch(&launched).borrow().last_status, Status::Stopped);
    assert_eq!(fargate.watch(&launched).borrow().last_status, Status::Stopped, "as often as it is asked");
}

#[tokio::test]
async fn runners_of_one_cluster_share_one_describer() {
    let ecs = Scripted::start(|call| all_are("RUNNING", call)).await;
    let regions = Regions::default();
    let first = Fargate::connect(&ecs.config(), &regions).await.expect("a connection");
    let other = FargateConfig { task_definition: "other".into(), ..ecs.config() };
    let second = Fargate::connect(&other, &regions).await.expect("a connection");
    let mut watches = [first.watch(&unseen("0a")), second.watch(&unseen("0b"))];
    for watch in &mut watches {
        until(watch, |task| task.last_status == Status::Running).await;
    }
    assert_eq!(asked(&ecs.calls("DescribeTasks")[0]), ["0a", "0b"]);
}

#[tokio::test]
async fn the_public_address_comes_from_ec2_and_is_asked_for_once() {
    let asked_before = AtomicUsize::new(0);
    let ecs = Scripted::start(move |call| match call.api.as_str() {
        // The address is associated a moment after the interface is attached.
        "EC2" if asked_before.fetch_add(1, Ordering::Relaxed) == 0 => Answer::Xml(
            "<R><networkInterfaceSet><item><networkInterfaceId>eni-0a</networkInterfaceId></item></networkInterfaceSet></R>"
                .into(),
        ),
        "EC2" => Answer::Xml(
            "<R><networkInterfaceSet><item><networkInterfaceId>eni-0a</networkInterfaceId><association>\
             <publicIp>192.0.2.1</publicIp></association></item></networkInterfaceSet></R>"
                .into(),
        ),
        _ => all_are("PENDING", call),
    })
    .await;
    let config = FargateConfig { assign_public_ip: true, use_public_ip: true, ..ecs.config() };
    let fargate = ecs.connect(&config).await;
    let mut watch = fargate.watch(&unseen("0a"));
    let task = until(&mut watch, |task| task.address.is_some()).await;
    assert_eq!(task.address, Some("192.0.2.1".parse().expect("an address")));
    let looks = ecs.calls("DescribeTasks").len();
    fargate.look_now(&task.arn);
    ecs.wait_for("DescribeTasks", looks + 2).await;
    let calls = ecs.calls("EC2");
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].body, "Action=DescribeNetworkInterfaces&Version=2016-11-15&NetworkInterfaceId.1=eni-0a");
    let signature = calls[0].headers["authorization"].to_str().expect("text");
    assert!(signature.contains("/eu-west-1/ec2/aws4_request"), "{signature}");
    assert_eq!(fargate.calls().describe_network_interfaces, 2);
}

/// EC2 forgets the interface of a task that ends before ECS says so, and then answers nothing of the others either.
#[tokio::test]
async fn an_interface_that_ec2_does_not_know_hides_no_other_address() {
    let ecs = Scripted::start(|call| match call.api.as_str() {
        "EC2" if call.body.as_str().expect("a form").contains("eni-0b") => Answer::XmlError(
            400,
            "<Response><Errors><Error><Code>InvalidNetworkInterfaceID.NotFound</Code><Message>The networkInterface ID 'eni-0b' \
             does not exist</Message></Error></Errors></Response>"
                .into(),
        ),
        "EC2" => Answer::Xml(
            "<R><networkInterfaceSet><item><networkInterfaceId>eni-0a</networkInterfaceId><association>\
             <publicIp>192.0.2.1</publicIp></association></item></networkInterfaceSet></R>"
                .into(),
        ),
        _ => all_are("PENDING", call),
    })
    .await;
    let config = FargateConfig { assign_public_ip: true, use_public_ip: true, ..ecs.config() };
    let arns = ["0a", "0b"].map(|id| TaskArn::new(arn(id)));
    let tasks = ecs.connect(&config).await.describe(&arns).await.expect("an answer");
    let addresses: Vec<_> = tasks.iter().map(|task| task.address.map(|address| address.to_string())).collect();
    assert_eq!(addresses, [Some("192.0.2.1".to_owned()), None]);
    assert_eq!(ecs.calls("EC2").len(), 2);
}

#[tokio::test]
async fn describe_tells_which_tasks_ecs_does_not_know() {
    let ecs = Scripted::start(|_| {
        let missing = json!({ "arn": arn("0b"), "reason": "MISSING" });
        Answer::Json(json!({ "tasks": [task("0a", "RUNNING")], "failures": [missing] }))
    })
    .await;
    let arns = ["0a", "0b"].map(|id| TaskArn::new(arn(id)));
    let tasks = ecs.connect(&ecs.config()).await.describe(&arns).await.expect("an answer");
    let states: Vec<_> = tasks.iter().map(|task| (task.arn.id(), task.last_status)).collect();
    assert_eq!(states, [("0a", Status::Running), ("0b", Status::Gone)]);
}

#[tokio::test]
async fn a_task_is_stopped_through_a_throttle_and_an_unknown_one_has_stopped() {
    let calls = AtomicUsize::new(0);
    let ecs = Scripted::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::Error(400, "ThrottlingException", "Rate exceeded"),
        1 => Answer::Json(json!({ "task": task("0a", "RUNNING") })),
        2 => Answer::Error(400, "InvalidParameterException", "The referenced task was not found."),
        _ => Answer::Error(400, "ClusterNotFoundException", "Cluster not found."),
    })
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let arn = TaskArn::new(arn("0a"));
    fargate.stop_task(&arn, "the job was cancelled").await.expect("stopped");
    fargate.stop_task(&arn, "again").await.expect("stopped before");
    let error = fargate.stop_task(&arn, "no cluster").await.expect_err("a refusal");
    assert!(matches!(error, CallError::Refused(refusal) if refusal.code == "ClusterNotFoundException"));
    let body = json!({ "cluster": "ci-dev", "task": arn.as_str(), "reason": "the job was cancelled" });
    assert_eq!(ecs.calls("StopTask")[1].body, body);
    assert_eq!(fargate.calls().stop_task, 4);
}

#[tokio::test]
async fn all_pages_are_listed_by_started_by_alone() {
    let ecs = Scripted::start(|call| match call.body.get("nextToken") {
        None => Answer::Json(json!({ "taskArns": [arn("0a"), arn("0b")], "nextToken": "more" })),
        Some(_) => Answer::Json(json!({ "taskArns": [arn("0c")] })),
    })
    .await;
    let fargate = ecs.connect(&ecs.config()).await;
    let arns = fargate.list_tasks("staffetta/abc").await.expect("a list");
    assert_eq!(arns.iter().map(TaskArn::id).collect::<Vec<_>>(), ["0a", "0b", "0c"]);
    let calls = ecs.calls("ListTasks");
    assert_eq!(calls[0].body, json!({ "cluster": "ci-dev", "startedBy": "staffetta/abc" }));
    assert_eq!(calls[1].body["nextToken"], "more");
}
