//! The API as ECS has it: what it refuses and in which words, what it answers twice, pages, rates, faults on the wire.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::*;
use embedded::fargate::{CallFault, EngineMode, RoleSession, Server, StartError, TaskView};
use serde_json::{Value, json};

async fn quick() -> (Server, tempfile::TempDir) {
    server(EngineMode::ProcessGroup, |_| {}).await
}

/// Sets `path` (keys separated by dots) in a request.
fn with(mut request: Value, path: &str, value: Value) -> Value {
    *path.split('.').fold(&mut request, |at, key| &mut at[key]) = value;
    request
}

fn without(mut request: Value, key: &str) -> Value {
    request.as_object_mut().unwrap().remove(key);
    request
}

fn strategy(items: &[(&str, u32)]) -> Value {
    let items = items.iter().map(|(name, weight)| json!({"capacityProvider": name, "weight": weight}));
    without(with(run_request(), "capacityProviderStrategy", items.collect()), "launchType")
}

fn definition() -> Value {
    json!({"family": "job", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256",
        "memory": "512", "containerDefinitions": [{"name": "ci-coordinator", "image": "staffetta/agent"}]})
}

#[tokio::test]
async fn what_ecs_refuses_is_refused_in_its_words() {
    let (server, _agent) = quick().await;
    must(&server, "CreateCluster", json!({"clusterName": "bare"})).await;
    let network = "networkConfiguration.awsvpcConfiguration";
    let run = run_request;
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("RunTask", with(run(), "cluster", json!("nowhere")), "ClusterNotFoundException", "Cluster not found."),
        ("RunTask", without(run(), "taskDefinition"), "InvalidParameterException", "TaskDefinition can not be blank."),
        ("RunTask", with(run(), "taskDefinition", json!("no:1")), "ClientException", "TaskDefinition not found."),
        ("RunTask", with(run(), "count", json!(11)), "InvalidParameterException", "count should be between 1 and 10"),
        ("RunTask", with(run(), "count", json!(0)), "InvalidParameterException", "count should be between 1 and 10"),
        ("RunTask", with(run(), "count", json!("two")), "SerializationException", "invalid type"),
        ("RunTask", with(run(), "startedBy", json!("x".repeat(129))), "InvalidParameterException", "startedBy"),
        ("RunTask", with(run(), "startedBy", json!("a b")), "InvalidParameterException", "startedBy"),
        ("RunTask", with(run(), "clientToken", json!("x".repeat(65))), "InvalidParameterException", "clientToken"),
        (
            "RunTask",
            without(run(), "networkConfiguration"),
            "InvalidParameterException",
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ),
        (
            "RunTask",
            with(run(), &format!("{network}.subnets"), json!([])),
            "InvalidParameterException",
            "subnets can not be empty.",
        ),
        (
            "RunTask",
            with(run(), &format!("{network}.subnets"), json!(vec!["subnet-1"; 17])),
            "InvalidParameterException",
            "at most 16",
        ),
        (
            "RunTask",
            with(run(), &format!("{network}.securityGroups"), json!(vec!["sg-1"; 6])),
            "InvalidParameterException",
            "at most 5",
        ),
        (
            "RunTask",
            with(run(), &format!("{network}.subnets"), json!(["vpc-1"])),
            "InvalidParameterException",
            "does not exist (ErrorCode: InvalidSubnetID.NotFound)",
        ),
        (
            "RunTask",
            with(run(), &format!("{network}.securityGroups"), json!(["vpc-1"])),
            "InvalidParameterException",
            "does not exist (ErrorCode: InvalidGroup.NotFound)",
        ),
        (
            "RunTask",
            with(run(), &format!("{network}.assignPublicIp"), json!("yes")),
            "InvalidParameterException",
            "assignPublicIp",
        ),
        (
            "RunTask",
            without(run(), "launchType"),
            "InvalidParameterException",
            "No Container Instances were found in your cluster.",
        ),
        (
            "RunTask",
            with(run(), "launchType", json!("EC2")),
            "InvalidParameterException",
            "No Container Instances were found in your cluster.",
        ),
        (
            "RunTask",
            with(strategy(&[("FARGATE_SPOT", 1)]), "launchType", json!("FARGATE")),
            "InvalidParameterException",
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
        ),
        (
            "RunTask",
            strategy(&[("MINE", 1)]),
            "InvalidParameterException",
            "The specified capacity provider 'MINE' was not found.",
        ),
        ("RunTask", strategy(&[("FARGATE", 0)]), "InvalidParameterException", "weight above 0"),
        (
            "RunTask",
            with(strategy(&[("FARGATE", 1)]), "cluster", json!("bare")),
            "InvalidParameterException",
            "cannot contain a capacity provider that is not associated with the cluster.",
        ),
        (
            "RunTask",
            with(run(), "overrides", json!({"containerOverrides": [{"name": "sidecar"}]})),
            "InvalidParameterException",
            "Override for container named sidecar is not a container in the TaskDefinition",
        ),
        (
            "RunTask",
            with(run(), "overrides", overrides_of(8193)),
            "InvalidParameterException",
            "Container Overrides length must be at most 8192",
        ),
        (
            "RunTask",
            with(run(), "overrides", json!({"cpu": "256", "memory": "4096"})),
            "ClientException",
            "No Fargate configuration exists for given values.",
        ),
        (
            "RunTask",
            with(run(), "overrides", json!({"cpu": "100"})),
            "ClientException",
            "Invalid 'cpu' setting for task.",
        ),
        (
            "RunTask",
            with(run(), "overrides", json!({"ephemeralStorage": {"sizeInGiB": 20}})),
            "InvalidParameterException",
            "ephemeralStorage",
        ),
        ("RunTask", with(run(), "platformVersion", json!("9.9.9")), "PlatformUnknownException", "does not exist"),
        ("RunTask", with(run(), "enableExecuteCommand", json!(true)), "InvalidParameterException", "taskRoleArn"),
        ("RunTask", with(run(), "propagateTags", json!("SERVICE")), "InvalidParameterException", "propagateTags"),
        (
            "RunTask",
            with(run(), "placementStrategy", json!([{"type": "random"}])),
            "InvalidParameterException",
            "Placement",
        ),
        ("DescribeTasks", json!({"tasks": []}), "InvalidParameterException", "Tasks cannot be empty."),
        ("DescribeTasks", json!({"tasks": vec!["x"; 101]}), "InvalidParameterException", "at most 100"),
        ("DescribeTasks", json!({"cluster": "no", "tasks": ["x"]}), "ClusterNotFoundException", "Cluster not found."),
        ("StopTask", json!({"task": "x"}), "InvalidParameterException", "The referenced task was not found."),
        (
            "ListTasks",
            json!({"startedBy": "me", "desiredStatus": "STOPPED"}),
            "InvalidParameterException",
            "must be the only filter",
        ),
        (
            "ListTasks",
            json!({"startedBy": "me", "family": "job"}),
            "InvalidParameterException",
            "must be the only filter",
        ),
        ("ListTasks", json!({"maxResults": 101}), "InvalidParameterException", "maxResults"),
        ("ListTasks", json!({"nextToken": "%"}), "InvalidParameterException", "Invalid token"),
        ("RegisterTaskDefinition", with(definition(), "family", json!("a b")), "ClientException", "Family"),
        (
            "RegisterTaskDefinition",
            with(definition(), "networkMode", json!("bridge")),
            "ClientException",
            "Fargate only supports network mode 'awsvpc'.",
        ),
        (
            "RegisterTaskDefinition",
            without(definition(), "cpu"),
            "ClientException",
            "'cpu' be defined at the task level",
        ),
        (
            "RegisterTaskDefinition",
            with(definition(), "memory", json!("3 GB")),
            "ClientException",
            "No Fargate configuration exists for given values.",
        ),
        (
            "RegisterTaskDefinition",
            with(definition(), "containerDefinitions", json!([])),
            "ClientException",
            "Container list",
        ),
        (
            "RegisterTaskDefinition",
            with(definition(), "containerDefinitions", json!([{"name": "x"}])),
            "ClientException",
            "Container.image",
        ),
        (
            "RegisterTaskDefinition",
            with(definition(), "containerDefinitions", json!([{"name": "x", "image": "y", "essential": false}])),
            "ClientException",
            "essential",
        ),
        (
            "DescribeTaskDefinition",
            json!({"taskDefinition": "no"}),
            "ClientException",
            "Unable to describe task definition.",
        ),
        (
            "DeregisterTaskDefinition",
            json!({"taskDefinition": "no:1"}),
            "ClientException",
            "The specified task definition does not exist.",
        ),
        (
            "PutClusterCapacityProviders",
            json!({"cluster": "bare", "capacityProviders": ["MINE"], "defaultCapacityProviderStrategy": []}),
            "InvalidParameterException",
            "The specified capacity provider 'MINE' was not found.",
        ),
        ("StartTask", json!({}), "UnknownOperationException", "StartTask"),
    ];
    for (operation, request, code, text) in cases {
        let (status, body) = ecs(&server, operation, request.clone()).await.unwrap().expect_err(&request.to_string());
        assert_eq!((status, &body["__type"]), (400, &json!(code)), "{operation} {request}: {body}");
        assert!(body["message"].as_str().unwrap().contains(text), "{operation} {request}: {body}");
    }
    assert_eq!(server.tasks(), [], "a refused call starts nothing");
    server.shutdown().await;
}

/// Overrides that are exactly `length` characters of JSON.
fn overrides_of(length: usize) -> Value {
    let of = |value: String| {
        let environment = json!([{"name": "X", "value": value}]);
        json!({"containerOverrides": [{"name": "ci-coordinator", "environment": environment}]})
    };
    let empty = of(String::new()).to_string().len();
    of("x".repeat(length - empty))
}

#[tokio::test]
async fn overrides_of_8192_characters_are_accepted() {
    let (server, _agent) = quick().await;
    must(&server, "RunTask", with(run_request(), "overrides", overrides_of(8192))).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_call_without_a_signature_is_refused() {
    let (server, _agent) = quick().await;
    let target = "X-Amz-Target: AmazonEC2ContainerServiceV20141113.ListTasks\r\n";
    let (status, body) = http(&server, "POST", "/", target, "{}").await.unwrap();
    assert_eq!(status, 400);
    assert!(body.contains("MissingAuthenticationTokenException"), "{body}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_repeated_run_task_starts_one_task() {
    let (server, _agent) = quick().await;
    let request = with(run_request(), "clientToken", json!("job-42-1"));
    let first = arn_of(&must(&server, "RunTask", request.clone()).await);
    assert_eq!(arn_of(&must(&server, "RunTask", request.clone()).await), first);
    assert_eq!(server.tasks().len(), 1);

    let other = with(request.clone(), "startedBy", json!("somebody"));
    let (status, body) = ecs(&server, "RunTask", other).await.unwrap().unwrap_err();
    assert_eq!((status, &body["__type"]), (400, &json!("ConflictException")));
    assert_eq!(body["resourceIds"], json!([first]));

    // The token counts in its cluster only, and no token means no such promise.
    must(&server, "CreateCluster", json!({"clusterName": "two", "capacityProviders": ["FARGATE"]})).await;
    assert_ne!(arn_of(&must(&server, "RunTask", with(request, "cluster", json!("two"))).await), first);
    must(&server, "RunTask", run_request()).await;
    must(&server, "RunTask", run_request()).await;
    assert_eq!(server.tasks().len(), 4);
    server.shutdown().await;
}

#[tokio::test]
async fn a_task_shows_what_it_was_started_with() {
    let (server, _agent) = quick().await;
    let mut request = strategy(&[("FARGATE", 1), ("FARGATE_SPOT", 3)]);
    request["startedBy"] = json!("runner-1/dev");
    request["tags"] = json!([{"key": "team", "value": "web"}]);
    request["overrides"] = json!({"cpu": "1 vCPU", "memory": "2 GB", "ephemeralStorage": {"sizeInGiB": 50}});
    let arn = arn_of(&must(&server, "RunTask", request).await);
    until(&server, &arn, "RUNNING").await;

    let ask = json!({"tasks": [arn.rsplit('/').next().unwrap()], "include": ["TAGS"]});
    let task = must(&server, "DescribeTasks", ask.clone()).await["tasks"][0].clone();
    assert_eq!(task["taskArn"], arn);
    assert_eq!(task["capacityProviderName"], "FARGATE_SPOT");
    assert_eq!((&task["cpu"], &task["memory"]), (&json!("1024"), &json!("2048")));
    assert_eq!(task["ephemeralStorage"]["sizeInGiB"], 50);
    assert_eq!(task["startedBy"], "runner-1/dev");
    assert_eq!(task["group"], "family:staffetta-agent");
    assert_eq!(task["tags"][0]["value"], "web");
    assert_eq!(task["platformVersion"], "1.4.0");
    assert_eq!(task["overrides"]["containerOverrides"][0]["name"], "ci-coordinator");
    assert_eq!(describe(&server, &arn).await["tags"], json!([]), "tags only when asked for");

    must(&server, "StopTask", json!({"task": arn})).await;
    let task = must(&server, "DescribeTasks", ask).await["tasks"][0].clone();
    assert_eq!(task["tags"], json!([]), "StopTask removes them");
    assert_eq!(task["startedBy"], "runner-1/dev");
    server.shutdown().await;
}

#[tokio::test]
async fn tasks_are_listed_by_starter_family_and_desired_status_in_pages() {
    let (server, _agent) = quick().await;
    let mine = with(with(run_request(), "startedBy", json!("me")), "count", json!(5));
    let mine: HashSet<String> = must(&server, "RunTask", mine).await["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["taskArn"].as_str().unwrap().to_owned())
        .collect();
    let other = arn_of(&must(&server, "RunTask", with(run_request(), "startedBy", json!("you"))).await);

    let (mut seen, mut pages, mut token) = (HashSet::new(), 0, Value::Null);
    loop {
        let mut ask = json!({"startedBy": "me", "maxResults": 2});
        if !token.is_null() {
            ask["nextToken"] = token;
        }
        let answer = must(&server, "ListTasks", ask).await;
        seen.extend(answer["taskArns"].as_array().unwrap().iter().map(|arn| arn.as_str().unwrap().to_owned()));
        pages += 1;
        token = answer["nextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!((seen, pages), (mine, 3));

    let list = async |ask: Value| must(&server, "ListTasks", ask).await["taskArns"].as_array().unwrap().len();
    assert_eq!(list(json!({})).await, 6);
    assert_eq!(list(json!({"family": "staffetta-agent", "launchType": "FARGATE"})).await, 6);
    assert_eq!(list(json!({"family": "staffetta-sshd"})).await, 0);
    assert_eq!(list(json!({"desiredStatus": "STOPPED"})).await, 0);
    must(&server, "StopTask", json!({"task": other})).await;
    assert_eq!(list(json!({"startedBy": "you"})).await, 0, "without a desired status: RUNNING");
    assert_eq!(list(json!({"desiredStatus": "STOPPED"})).await, 1);
    server.shutdown().await;
}

#[tokio::test]
async fn a_stopped_task_is_missing_after_its_time() {
    let (server, _agent) =
        server(EngineMode::ProcessGroup, |config| config.stopped_visible = Duration::from_millis(300)).await;
    let arn = run_script(&server, "exit 0").await;
    until(&server, &arn, "STOPPED").await;
    assert_eq!(describe(&server, &arn).await["lastStatus"], "STOPPED");
    let missing = until_answer(&server, &arn, |answer| !answer["failures"].as_array().unwrap().is_empty()).await;
    assert_eq!(missing["failures"], json!([{"arn": arn, "reason": "MISSING"}]));
    server.shutdown().await;
}

#[tokio::test]
async fn a_new_task_may_be_missing_for_a_moment() {
    let (server, _agent) =
        server(EngineMode::ProcessGroup, |config| config.visible_after = Duration::from_millis(300)).await;
    let arn = arn_of(&must(&server, "RunTask", run_request()).await);
    let answer = must(&server, "DescribeTasks", json!({"tasks": [arn]})).await;
    assert_eq!(answer["failures"], json!([{"arn": arn, "reason": "MISSING"}]));
    assert_eq!(must(&server, "ListTasks", json!({})).await["taskArns"], json!([]));
    until_answer(&server, &arn, |answer| !answer["tasks"].as_array().unwrap().is_empty()).await;
    server.shutdown().await;
}

async fn until_answer(server: &Server, arn: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let answer = must(server, "DescribeTasks", json!({"tasks": [arn]})).await;
        if reached(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn task_definitions_have_revisions_that_can_be_retired() {
    let (server, _agent) = quick().await;
    for revision in 1..=3 {
        let answer = must(&server, "RegisterTaskDefinition", definition()).await;
        assert_eq!(answer["taskDefinition"]["revision"], revision);
        assert_eq!(answer["taskDefinition"]["containerDefinitions"][0]["essential"], true);
    }
    must(&server, "DeregisterTaskDefinition", json!({"taskDefinition": "job:3"})).await;
    let latest = must(&server, "DescribeTaskDefinition", json!({"taskDefinition": "job"})).await;
    assert_eq!(latest["taskDefinition"]["revision"], 2, "the latest active one");
    let retired = must(&server, "DescribeTaskDefinition", json!({"taskDefinition": "job:3"})).await;
    assert_eq!(retired["taskDefinition"]["status"], "INACTIVE");

    let run = with(run_request(), "taskDefinition", json!("job:3"));
    let (_, body) = ecs(&server, "RunTask", run).await.unwrap().unwrap_err();
    assert_eq!((&body["__type"], &body["message"]), (&json!("ClientException"), &json!("TaskDefinition is inactive")));
    let run = with(run_request(), "taskDefinition", retired["taskDefinition"]["taskDefinitionArn"].clone());
    assert!(ecs(&server, "RunTask", run).await.unwrap().is_err());

    let ask = json!({"familyPrefix": "job", "sort": "DESC", "maxResults": 1});
    let first = must(&server, "ListTaskDefinitions", ask.clone()).await;
    assert_eq!(first["taskDefinitionArns"], json!(["arn:aws:ecs:us-east-1:000000000000:task-definition/job:2"]));
    let second = must(&server, "ListTaskDefinitions", with(ask, "nextToken", first["nextToken"].clone())).await;
    assert_eq!(second["taskDefinitionArns"], json!(["arn:aws:ecs:us-east-1:000000000000:task-definition/job:1"]));
    assert_eq!(second.get("nextToken"), None);
    server.shutdown().await;
}

#[tokio::test]
async fn clusters_know_their_capacity_providers_and_their_tasks() {
    let (server, _agent) = quick().await;
    must(&server, "CreateCluster", json!({"clusterName": "dev"})).await;
    let spot = json!([{"capacityProvider": "FARGATE_SPOT", "weight": 1}]);
    let put = json!({"cluster": "dev", "capacityProviders": ["FARGATE_SPOT"], "defaultCapacityProviderStrategy": spot});
    must(&server, "PutClusterCapacityProviders", put).await;
    let run = with(without(run_request(), "launchType"), "cluster", json!("dev"));
    let task = must(&server, "RunTask", run).await["tasks"][0].clone();
    assert_eq!(task["capacityProviderName"], "FARGATE_SPOT", "the cluster's own strategy");
    until(&server, task["taskArn"].as_str().unwrap(), "RUNNING").await;

    let answer = must(&server, "DescribeClusters", json!({"clusters": ["dev", "none"]})).await;
    assert_eq!(answer["clusters"][0]["runningTasksCount"], 1);
    assert_eq!(answer["clusters"][0]["status"], "ACTIVE");
    assert_eq!(answer["failures"][0]["reason"], "MISSING");
    let listed = must(&server, "ListClusters", json!({})).await;
    assert_eq!(listed["clusterArns"].as_array().unwrap().len(), 2);
    assert_eq!(listed.get("nextToken"), None);
    server.shutdown().await;
}

#[tokio::test]
async fn real_rates_throttle_as_ecs_does() {
    let (server, _agent) = server(EngineMode::ProcessGroup, |config| config.real_rates = true).await;
    let mut refused = 0;
    for _ in 0..150 {
        if let Err((status, body)) = ecs(&server, "ListTasks", json!({})).await.unwrap() {
            assert_eq!((status, &body["__type"]), (400, &json!("ThrottlingException")));
            assert_eq!(body["message"], "Rate exceeded");
            refused += 1;
        }
    }
    assert!(refused > 0, "the burst is 100");
    must(&server, "DescribeClusters", json!({})).await;
    assert_eq!(server.calls()["ListTasks"], 150);
    server.shutdown().await;
}

#[tokio::test]
async fn calls_fail_as_they_were_told_to() {
    let (server, _agent) = quick().await;
    let run = || with(run_request(), "clientToken", json!("job-1"));

    server.faults().on_call("RunTask", 1, CallFault::Throttle);
    let (status, body) = ecs(&server, "RunTask", run()).await.unwrap().unwrap_err();
    assert_eq!((status, &body["__type"]), (400, &json!("ThrottlingException")));

    server.faults().on_call("RunTask", 1, CallFault::ServerError { status: 503 });
    let (status, body) = ecs(&server, "RunTask", run()).await.unwrap().unwrap_err();
    assert_eq!((status, &body["__type"]), (503, &json!("ServerException")));

    server.faults().on_call("RunTask", 1, CallFault::CapacityUnavailable);
    let answer = must(&server, "RunTask", run()).await;
    assert_eq!(answer["tasks"], json!([]));
    let reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
    assert_eq!(answer["failures"][0]["reason"], reason);
    assert_eq!(server.tasks(), [], "none of these has an effect");

    server.faults().on_call("RunTask", 1, CallFault::AnswerLost);
    assert!(ecs(&server, "RunTask", run()).await.is_err(), "the connection ends without an answer");
    let started = server.tasks()[0].arn.clone();
    assert_eq!(arn_of(&must(&server, "RunTask", run()).await), started, "and the task was started");

    server.faults().on_call("DescribeTasks", 1, CallFault::Slow { by: Duration::from_millis(200) });
    let asked = Instant::now();
    describe(&server, &started).await;
    assert!(asked.elapsed() >= Duration::from_millis(200));

    server.faults().on_call("StopTask", 1, CallFault::Throttle);
    server.faults().clear();
    must(&server, "StopTask", json!({"task": started})).await;
    assert_eq!(server.calls()["RunTask"], 5);
    server.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_slow_answers() {
    let (server, _agent) = quick().await;
    server.faults().on_call("ListTasks", 1, CallFault::Slow { by: Duration::from_secs(3600) });
    let url = server.url().strip_prefix("http://").unwrap().to_owned();
    let slow = ecs(&server, "ListTasks", json!({}));
    let asked = async {
        while server.calls().get("ListTasks") != Some(&1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! { answer = slow => panic!("{answer:?}"), () = asked => {} }
    tokio::time::timeout(Duration::from_secs(10), server.shutdown()).await.expect("shutdown ends");
    assert!(tokio::net::TcpStream::connect(url).await.is_err(), "the port is free again");
}

#[tokio::test]
async fn only_loopback_is_served() {
    let (_directory, agent) = fake_agent();
    let mut config = embedded::fargate::Config::new(agent);
    config.listen = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(embedded::fargate::start(config).await, Err(StartError::NotLoopback(_))));
}

#[tokio::test]
async fn a_missing_agent_is_named() {
    let config = embedded::fargate::Config::new("/no/such/agent");
    let error = embedded::fargate::start(config).await.unwrap_err();
    assert!(error.to_string().starts_with("the agent /no/such/agent cannot be used"), "{error}");
}

#[tokio::test]
async fn the_query_protocol_answers_in_xml() {
    let (server, _agent) = quick().await;
    let public = with(run_request(), "networkConfiguration.awsvpcConfiguration.assignPublicIp", json!("ENABLED"));
    let arn = arn_of(&must(&server, "RunTask", public).await);
    let task: TaskView = until(&server, &arn, "RUNNING").await;
    let details = describe(&server, &arn).await["attachments"][0]["details"].clone();
    let interface = details[1]["value"].as_str().unwrap().to_owned();
    let query = async |form: &str| {
        let headers = "Authorization: unchecked\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        http(&server, "POST", "/", headers, form).await.unwrap()
    };
    let action = "Action=DescribeNetworkInterfaces&Version=2016-11-15&NetworkInterfaceId.1=";
    let (status, body) = query(&format!("{action}{interface}")).await;
    let address = task.address.unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(&format!("<privateIpAddress>{address}</privateIpAddress>")), "{body}");
    assert!(body.contains(&format!("<association><publicIp>{address}</publicIp>")), "{body}");
    let (status, body) = query(&format!("{action}eni-0")).await;
    assert_eq!(status, 400);
    assert!(body.contains("<Code>InvalidNetworkInterfaceID.NotFound</Code>"), "{body}");
    let (status, body) = query("Action=GetCallerIdentity&Version=2011-06-15").await;
    assert_eq!(status, 200);
    assert!(body.contains("<Account>000000000000</Account>"), "{body}");
    server.faults().on_call("DescribeNetworkInterfaces", 1, CallFault::Throttle);
    let (status, body) = query(&format!("{action}{interface}")).await;
    assert_eq!(status, 503);
    assert!(body.contains("<Code>RequestLimitExceeded</Code>"), "{body}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_role_is_given_within_the_limits_of_sts_and_its_keys_name_it() {
    let (server, _agent) = quick().await;
    let query = async |form: &str| {
        let headers = "Authorization: unchecked\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        http(&server, "POST", "/", headers, form).await.unwrap()
    };
    let role = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fci%2Fdev";
    let tag = |number: usize, key: &str| format!("&Tags.member.{number}.Key={key}&Tags.member.{number}.Value=v");
    let many = |count: usize| (1..=count).map(|number| tag(number, &format!("k{number}"))).collect::<String>();
    for (form, code) in [
        (format!("{role}&RoleSessionName=job-7{}", many(50)), ""),
        (format!("{role}&RoleSessionName=job-7&DurationSeconds=900"), ""),
        (format!("{role}&RoleSessionName=job-7{}", many(51)), "ValidationError"),
        (format!("{role}&RoleSessionName=job-7{}{}", tag(1, "k"), tag(2, "K")), "InvalidParameterValue"),
        (format!("{role}&RoleSessionName=job-7{}", tag(1, &"k".repeat(129))), "ValidationError"),
        (format!("{role}&RoleSessionName=job-7{}{}", tag(1, "k"), "v".repeat(256)), "ValidationError"),
        (format!("{role}&RoleSessionName=job-7{}", tag(1, "k%3B")), "ValidationError"),
        (format!("{role}&RoleSessionName=j"), "ValidationError"),
        (format!("{role}&RoleSessionName=job%2F7"), "ValidationError"),
        (format!("{role}&RoleSessionName=job-7&DurationSeconds=899"), "ValidationError"),
        (format!("{}&RoleSessionName=job-7", role.replace("role", "user")), "ValidationError"),
        ("Action=AssumeRole&Version=2011-06-15&RoleSessionName=job-7".to_owned(), "ValidationError"),
    ] {
        let (status, body) = query(&form).await;
        let refused = body.split_once("<Code>").map(|(_, rest)| rest.split('<').next().unwrap());
        assert_eq!(
            (status, refused.unwrap_or_default()),
            (if code.is_empty() { 200 } else { 400 }, code),
            "{form}: {body}"
        );
    }

    let (_, body) = query(&format!("{role}&RoleSessionName=job-7{}", tag(1, "project"))).await;
    let key = body.split_once("<AccessKeyId>").unwrap().1.split('<').next().unwrap().to_owned();
    assert!(body.contains("<Arn>arn:aws:sts::000000000000:assumed-role/dev/job-7</Arn>"), "{body}");
    let headers =
        |target: &str| format!("Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/x\r\n{target}");
    let identity =
        http(&server, "POST", "/", &headers(""), "Action=GetCallerIdentity&Version=2011-06-15").await.unwrap().1;
    assert!(identity.contains("<Arn>arn:aws:sts::000000000000:assumed-role/dev/job-7</Arn>"), "{identity}");

    let target = headers("X-Amz-Target: AmazonEC2ContainerServiceV20141113.RunTask\r\n");
    let (status, _) = http(&server, "POST", "/", &target, &run_request().to_string()).await.unwrap();
    must(&server, "RunTask", run_request()).await;
    let sessions: Vec<_> = server.tasks().into_iter().map(|task| task.role_session).collect();
    let session = RoleSession {
        role: "arn:aws:iam::111122223333:role/ci/dev".into(),
        name: "job-7".into(),
        tags: [("project".to_owned(), "v".to_owned())].into(),
    };
    assert_eq!(status, 200);
    assert!(sessions.contains(&Some(session)) && sessions.contains(&None), "{sessions:?}");
    server.shutdown().await;
}
