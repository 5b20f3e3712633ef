//! DescribeTasks, ListTasks, StopTask.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::lifecycle::Order;
use super::super::state::{State, Status, task_id};
use super::super::task_json;
use super::page;

#[derive(Deserialize)]
pub(super) struct DescribeTasks {
    cluster: Option<String>,
    #[serde(default)]
    tasks: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

pub(super) fn describe_tasks(
    state: &mut State,
    account: &str,
    request: DescribeTasks,
    now: SystemTime,
) -> Result<Value, Failure> {
    let cluster = state.cluster(account, request.cluster.as_deref())?.clone();
    if request.tasks.is_empty() {
        return Err(Failure::invalid("Tasks cannot be empty."));
    }
    if request.tasks.len() > 100 {
        return Err(Failure::invalid("Tasks can have at most 100 items."));
    }
    if let Some(other) = request.include.iter().find(|what| *what != "TAGS") {
        return Err(Failure::invalid(format!("Unknown value for include: {other}")));
    }
    let region = state.region.clone();
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for asked in &request.tasks {
        match state.visible_task(&cluster.arn, asked, now) {
            Some(task) => {
                let mut shape = task_json::task(task, &region);
                if request.include.is_empty() {
                    shape["tags"] = json!([]);
                }
                tasks.push(shape);
            }
            None if asked.starts_with("arn:") => failures.push(json!({"arn": asked, "reason": "MISSING"})),
            None => {
                let arn = state.arn(account, &format!("task/{}/{asked}", cluster.name));
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListTasks {
    cluster: Option<String>,
    container_instance: Option<String>,
    family: Option<String>,
    service_name: Option<String>,
    started_by: Option<String>,
    desired_status: Option<String>,
    launch_type: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

pub(super) fn list_tasks(
    state: &mut State,
    account: &str,
    request: ListTasks,
    now: SystemTime,
) -> Result<Value, Failure> {
    let cluster = state.cluster(account, request.cluster.as_deref())?.arn.clone();
    let others = [
        &request.container_instance,
        &request.family,
        &request.service_name,
        &request.desired_status,
        &request.launch_type,
    ];
    if request.started_by.is_some() && others.iter().any(|filter| filter.is_some()) {
        return Err(Failure::invalid("When startedBy is specified it must be the only filter."));
    }
    let stopped = match request.desired_status.as_deref() {
        None | Some("RUNNING") => false,
        Some("STOPPED") => true,
        // "You can specify PENDING, but nothing is found: Amazon ECS never sets it" (API model).
        Some("PENDING") => return Ok(json!({"taskArns": []})),
        Some(other) => return Err(Failure::invalid(format!("Invalid desiredStatus: {other}"))),
    };
    // Tasks of services and of instances of one's own do not exist here.
    let fargate = request.launch_type.as_deref().is_none_or(|launch_type| launch_type == "FARGATE");
    let none = request.service_name.is_some() || request.container_instance.is_some() || !fargate;
    let tasks = state.tasks.values().filter(|task| {
        let of_family = request.family.as_ref().is_none_or(|family| *family == task.definition.family);
        let by_starter = request.started_by.as_ref().is_none_or(|name| task.started_by.as_ref() == Some(name));
        let here = task.cluster_arn == cluster && task.visible_from <= now;
        !none && here && of_family && by_starter && task.stop_wanted == stopped
    });
    let tasks = tasks.map(|task| (task.id.clone(), task.arn.clone())).collect();
    page("taskArns", tasks, request.max_results, request.next_token.as_deref())
}

#[derive(Deserialize)]
pub(super) struct StopTask {
    cluster: Option<String>,
    task: String,
    reason: Option<String>,
}

/// Returns at once; the task's own life ends its processes. The tags are gone from now on, as in ECS.
pub(super) fn stop_task(
    state: &mut State,
    account: &str,
    request: StopTask,
    now: SystemTime,
) -> Result<Value, Failure> {
    let cluster = state.cluster(account, request.cluster.as_deref())?.arn.clone();
    if request.reason.as_ref().is_some_and(|reason| reason.chars().count() > 1024) {
        return Err(Failure::invalid("reason can have at most 1024 characters."));
    }
    let region = state.region.clone();
    let task = state.visible_task(&cluster, task_id(&request.task), now);
    let task = task.ok_or_else(|| Failure::invalid("The referenced task was not found."))?;
    if task.status < Status::Stopped {
        task.tags.clear();
        task.want_stop("UserInitiated", request.reason.as_deref().unwrap_or("Task stopped by user"), now);
        // A life that no longer listens is already ending its task.
        let _ = task.orders.send(Order::Stop);
    }
    Ok(json!({"task": task_json::task(task, &region)}))
}
