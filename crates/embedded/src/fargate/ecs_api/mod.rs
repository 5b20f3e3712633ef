//! The ECS API: JSON 1.1, one function for each operation.

mod clusters;
mod run_task;
mod task_definitions;
mod tasks;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::accounts::Caller;
use super::failure::Failure;
use super::rates::Bucket;
use super::world::World;

pub(super) use run_task::capacity_unavailable;
pub(super) use task_definitions::built_in_definitions;

pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// What stands before the operation in `X-Amz-Target`.
pub(super) const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";

/// Answers one call of `caller`.
pub(super) fn answer(world: &Arc<World>, operation: &str, body: &[u8], caller: &Caller) -> Result<Value, Failure> {
    if world.config.real_rates {
        let buckets = Bucket::of_call(operation);
        if !world.look(|state| state.take(&caller.account, buckets, 1, Instant::now())) {
            return Err(Failure::throttled());
        }
    }
    let now = SystemTime::now();
    let request: Value = serde_json::from_slice(body).map_err(unreadable)?;
    world.look(|state| state.forget(world.config.stopped_visible, now));
    let account = caller.account.as_str();
    match operation {
        "RunTask" => run_task::run_task(world, request, caller, now),
        "DescribeTasks" => world.look(|state| tasks::describe_tasks(state, account, read(request)?, now)),
        "ListTasks" => world.look(|state| tasks::list_tasks(state, account, read(request)?, now)),
        "StopTask" => world.with(|state| tasks::stop_task(state, account, read(request)?, now)),
        "RegisterTaskDefinition" => world.with(|state| task_definitions::register_task_definition(state, request, now)),
        "DeregisterTaskDefinition" => {
            world.with(|state| task_definitions::deregister_task_definition(state, read(request)?, now))
        }
        "DescribeTaskDefinition" => {
            world.look(|state| task_definitions::describe_task_definition(state, read(request)?))
        }
        "ListTaskDefinitions" => world.look(|state| task_definitions::list_task_definitions(state, read(request)?)),
        "CreateCluster" => world.with(|state| clusters::create_cluster(state, account, read(request)?)),
        "DescribeClusters" => world.look(|state| clusters::describe_clusters(state, account, read(request)?)),
        "ListClusters" => world.look(|state| clusters::list_clusters(state, account, read(request)?)),
        "PutClusterCapacityProviders" => {
            world.with(|state| clusters::put_cluster_capacity_providers(state, account, read(request)?))
        }
        _ => Err(Failure::new("UnknownOperationException", format!("{operation} is not served here"))),
    }
}

fn read<T: DeserializeOwned>(request: Value) -> Result<T, Failure> {
    serde_json::from_value(request).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new("SerializationException", error.to_string())
}

/// An answer with one page of `items`, which are sorted by their first part, under `name`, and the token for the next
/// page if there is one.
fn page(
    name: &str,
    items: Vec<(String, String)>,
    max_results: Option<i64>,
    next_token: Option<&str>,
) -> Result<Value, Failure> {
    let size = match max_results {
        None => 100,
        Some(size @ 1..=100) => size as usize,
        Some(_) => return Err(Failure::invalid("maxResults should be between 1 and 100")),
    };
    let after = match next_token.filter(|token| !token.is_empty()) {
        None => None,
        Some(token) => {
            let key = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            Some(key.ok_or_else(|| Failure::invalid("Invalid token"))?)
        }
    };
    // The token is the last key given: items that come or go in between neither repeat nor hide others.
    let mut rest: Vec<_> =
        items.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).collect();
    let more = rest.len() > size;
    rest.truncate(size);
    let last = rest.last().filter(|_| more).map(|(key, _)| URL_SAFE_NO_PAD.encode(key));
    let mut answer = json!({name: rest.into_iter().map(|(_, value)| value).collect::<Vec<_>>()});
    if let Some(token) = last {
        answer["nextToken"] = token.into();
    }
    Ok(answer)
}
