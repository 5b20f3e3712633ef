//! What goes wrong between `deploy` and AWS: answers that are lost, calls that are throttled, tasks that take their time, Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::{Answer, eventually};

use crate::engine::{PRETENDED, STACK, Story, World, answer};

/// The change sets of the environment's stack.
async fn change_sets(world: &World) -> Value {
    world.operator.aws("cloudformation list-change-sets --stack-name ci-dev").await["Summaries"].clone()
}

#[tokio::test]
async fn an_update_is_followed_though_the_answer_that_it_began_is_lost() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    operator.staffetta(&["deploy", "apply"]).await.good();
    world.ask_for("cache_expire_days = 7");
    front.lose("cloudformation:ExecuteChangeSet");
    front.on("cloudformation:ExecuteChangeSet", |call, number| {
        let message = "ChangeSet cannot be executed in its current execution status of [EXECUTE_IN_PROGRESS]";
        (number == 2).then(|| Answer::error(call, "InvalidChangeSetStatus", message))
    });
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(applied.contains("ci-dev: changed\n"), "{applied}");

    world.ask_for("cache_expire_days = 8");
    front.fail("cloudformation:ExecuteChangeSet", "InvalidChangeSetStatus", "somebody was faster");
    let said = operator.staffetta(&["deploy", "apply"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("changed the stack before it"), "{said:?}");
}

#[tokio::test]
async fn no_change_set_stays_after_an_error_or_ctrl_c() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    operator.staffetta(&["deploy", "apply"]).await.good();
    world.ask_for("cache_expire_days = 7");
    let described = front.calls_of("deploy").len();
    front.on("cloudformation:DescribeChangeSet", |call, _| {
        let making = "<StackName>ci-dev</StackName><Status>CREATE_IN_PROGRESS</Status><Changes/>";
        (call.who == "deploy").then(|| answer("DescribeChangeSet", making))
    });
    let terminal = world.on_terminal("apply");
    let is_made = || front.calls_of("deploy")[described..].contains(&"cloudformation:DescribeChangeSet".to_owned());
    eventually("a change set in the making", is_made).await;
    terminal.signal(Signal::SIGINT);
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(130), "{shown}");
    assert_eq!(change_sets(&world).await, json!([]));

    for action in ["cloudformation:DescribeChangeSet", "cloudformation:DescribeStackEvents"] {
        front.on("cloudformation:DescribeChangeSet", |call, _| {
            let made = "<StackName>ci-dev</StackName><Status>CREATE_COMPLETE</Status><Changes/>";
            (call.who == "deploy").then(|| answer("DescribeChangeSet", made))
        });
        // The first is CreateChangeSet to whoever reads what went wrong.
        let told = action.replace("DescribeChangeSet", "CreateChangeSet");
        front.fail(action, "AccessDenied", "not you");
        let said = operator.staffetta(&["deploy", "apply"]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stdout.contains(&told), "{said:?}");
        assert_eq!(change_sets(&world).await, json!([]), "{action}");
    }
}

#[tokio::test]
async fn destroy_outlasts_throttles_and_tasks_that_end_slowly() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    world.ask_for("cache_expire_days = 7");
    operator.staffetta(&["deploy", "apply"]).await.good();
    operator.write("cache.zip", "cached");
    let bucket = "ci-dev-cache-123456789012-us-east-1";
    operator.aws(&format!("s3api put-object --bucket {bucket} --key a --body cache.zip")).await;
    front.on("ecs:ListTasks", |call, number| {
        let stopped = call.text("desiredStatus") == "STOPPED";
        match number {
            1 => Some(Answer::error(call, "ThrottlingException", "Rate exceeded")),
            _ => stopped.then(|| Answer::new(200, r#"{"taskArns": ["arn:aws:ecs:us-east-1:1:task/ci-dev/slow"]}"#)),
        }
    });
    front.on("ecs:DescribeTasks", |call, number| {
        let status = if number == 2 { "DEPROVISIONING" } else { "STOPPED" };
        let task = json!({"taskArn": "arn:aws:ecs:us-east-1:1:task/ci-dev/slow", "lastStatus": status});
        Some(match number {
            1 => Answer::error(call, "ThrottlingException", "Rate exceeded"),
            _ => Answer::new(200, json!({"tasks": [task], "failures": []}).to_string()),
        })
    });
    front.on("s3:DeleteObjects", |call, number| (number == 1).then(|| Answer::error(call, "SlowDown", "slow")));
    let destroyed = operator.staffetta(&["deploy", "destroy", "--yes"]).await.good();
    for words in ["ci-dev: waiting for the end of tasks: 1\n", "1 cached objects deleted\n", "ci-dev: deleted\n"] {
        assert!(destroyed.contains(words), "{words} is not in\n{destroyed}");
    }
    for left in
        ["the VPC and its subnets", "`staffetta unregister`", "the secrets of runner tokens that the file names"]
    {
        assert!(destroyed.contains(left), "{left} is not in\n{destroyed}");
    }
}

#[tokio::test]
async fn a_stack_that_is_gone_is_deleted_whether_an_event_says_so_or_not() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    let story = Story::of(front, "ci-dev", PRETENDED);
    let events = [[STACK, "CREATE_COMPLETE", ""]];
    story.tell(Some("CREATE_COMPLETE"), &events);
    front.on("cloudformation:DeleteStack", move |_, _| {
        story.tell(Some("DELETE_COMPLETE"), &events);
        Some(answer("DeleteStack", ""))
    });
    let destroyed = operator.staffetta(&["deploy", "destroy", "--yes"]).await.good();
    assert!(destroyed.contains("ci-dev: deleted\n"), "{destroyed}");
}

#[tokio::test]
async fn nobody_waits_for_states_after_ctrl_c() {
    let world = World::start().await;
    let front = &world.front;
    let (refused, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let is_refused = Arc::clone(&refused);
    front.on("cloudformation:CreateStack", move |call, _| {
        is_refused.store(true, Ordering::Relaxed);
        Some(Answer::error(call, "AccessDenied", "not you"))
    });
    let is_asked = Arc::clone(&asked);
    front.on("cloudformation:DescribeStacks", move |_, _| {
        let after = refused.load(Ordering::Relaxed);
        is_asked.fetch_or(after, Ordering::Relaxed);
        after.then(|| Answer::new(500, ""))
    });
    let terminal = world.on_terminal("apply");
    eventually("a question about the states", || asked.load(Ordering::Relaxed)).await;
    terminal.signal(Signal::SIGINT);
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(!shown.contains("What there is now"), "{shown}");
}
