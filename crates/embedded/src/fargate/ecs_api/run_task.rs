//! RunTask: what ECS refuses (facts 1.1 to 1.4), what it answers twice, and what it starts.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::super::accounts::Caller;
use super::super::engine::Log;
use super::super::failure::Failure;
use super::super::lifecycle;
use super::super::rates::Bucket;
use super::super::state::{
    Cluster, Container, ContainerOverride, Interface, Launched, State, Status, StrategyItem, Task, TaskDefinition,
    Times,
};
use super::super::world::World;
use super::super::{sizes, task_json};
use super::read;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunTask {
    cluster: Option<String>,
    #[serde(default)]
    task_definition: String,
    count: Option<i64>,
    client_token: Option<String>,
    launch_type: Option<String>,
    #[serde(default)]
    capacity_provider_strategy: Vec<StrategyItem>,
    platform_version: Option<String>,
    network_configuration: Option<NetworkConfiguration>,
    overrides: Option<Value>,
    started_by: Option<String>,
    group: Option<String>,
    #[serde(default)]
    tags: Vec<Value>,
    propagate_tags: Option<String>,
    #[serde(default)]
    enable_execute_command: bool,
    #[serde(default)]
    placement_constraints: Vec<Value>,
    #[serde(default)]
    placement_strategy: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkConfiguration {
    awsvpc_configuration: Option<Network>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Network {
    #[serde(default)]
    subnets: Vec<String>,
    #[serde(default)]
    security_groups: Vec<String>,
    assign_public_ip: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Overrides {
    #[serde(default)]
    container_overrides: Vec<ContainerOverride>,
    cpu: Option<String>,
    memory: Option<String>,
    ephemeral_storage: Option<EphemeralStorage>,
    task_role_arn: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
struct EphemeralStorage {
    #[serde(rename = "sizeInGiB")]
    size_in_gib: u64,
}

/// A request that ECS accepts, with everything looked up.
struct Accepted {
    cluster: Cluster,
    definition: Arc<TaskDefinition>,
    count: usize,
    /// `None` for launch type FARGATE.
    capacity_provider: Option<String>,
    network: Network,
    overrides: Overrides,
    size: (u32, u32),
    storage_gib: u64,
    platform_version: String,
}

pub(super) fn run_task(
    world: &Arc<World>,
    mut body: Value,
    caller: &Caller,
    now: SystemTime,
) -> Result<Value, Failure> {
    let request: RunTask = read(body.clone())?;
    let token = body.as_object_mut().and_then(|body| body.remove("clientToken"));
    world.with(|state| {
        let accepted = check(state, &caller.account, &request, &world.config.network_ids)?;
        let token =
            token.as_ref().and_then(Value::as_str).map(|token| (accepted.cluster.arn.clone(), token.to_owned()));
        if let Some(earlier) = token.as_ref().and_then(|token| state.tokens.get(token)) {
            return match earlier.request == body {
                true => Ok(tasks(state, &earlier.arns)),
                false => Err(Failure::conflict(&earlier.arns)),
            };
        }
        if world.config.real_rates {
            let spot = accepted.capacity_provider.as_deref() == Some("FARGATE_SPOT");
            let bucket = if spot { Bucket::LaunchSpot } else { Bucket::LaunchOnDemand };
            if !state.take(&caller.account, &[bucket], accepted.count as u32, Instant::now()) {
                return Err(Failure::throttled());
            }
        }
        let arns: Vec<String> =
            (0..accepted.count).map(|_| start(world, state, &request, &accepted, caller, now)).collect();
        let answer = tasks(state, &arns);
        if let Some(token) = token {
            state.tokens.insert(token, Launched { request: body, arns, at: now });
        }
        Ok(answer)
    })
}

/// The answer to a call that Fargate has no capacity for: HTTP 200, and the refusal inside (facts 1.3).
pub(crate) fn capacity_unavailable() -> Value {
    let reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
    json!({"tasks": [], "failures": [{"reason": reason}]})
}

fn tasks(state: &State, arns: &[String]) -> Value {
    let tasks = arns.iter().filter_map(|arn| state.tasks.get(super::super::state::task_id(arn)));
    json!({"tasks": tasks.map(|task| task_json::task(task, &state.region)).collect::<Vec<_>>(), "failures": []})
}

fn check(state: &State, account: &str, request: &RunTask, network_ids: &[String]) -> Result<Accepted, Failure> {
    let cluster = state.cluster(account, request.cluster.as_deref())?.clone();
    check_plain_values(request)?;
    let capacity_provider = check_capacity(request, &cluster)?;
    let definition = check_definition(state, &request.task_definition)?;
    let network = check_network(request, network_ids)?;
    let overrides_json = request.overrides.clone().unwrap_or_else(|| json!({}));
    // Measured in characters of JSON, punctuation included.
    if overrides_json.to_string().chars().count() > 8192 {
        return Err(Failure::invalid("Container Overrides length must be at most 8192"));
    }
    let overrides: Overrides = read(overrides_json)?;
    for container in &overrides.container_overrides {
        if !definition.containers.iter().any(|one| one.name == container.name) {
            return Err(Failure::invalid(format!(
                "Override for container named {} is not a container in the TaskDefinition",
                container.name
            )));
        }
    }
    let defined = |name: &str| definition.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let size = sizes::check(
        &overrides.cpu.clone().unwrap_or_else(|| defined("cpu")),
        &overrides.memory.clone().unwrap_or_else(|| defined("memory")),
    )?;
    let defined_storage = definition.body.get("ephemeralStorage").and_then(|storage| storage["sizeInGiB"].as_u64());
    let storage_gib = match (overrides.ephemeral_storage, defined_storage) {
        (Some(EphemeralStorage { size_in_gib: size @ 21..=200 }), _) => size,
        (Some(_), _) => return Err(Failure::invalid("ephemeralStorage.sizeInGiB should be between 21 and 200")),
        (None, defined) => defined.unwrap_or(20),
    };
    let has_role = definition.body.contains_key("taskRoleArn") || overrides.task_role_arn.is_some();
    if request.enable_execute_command && !has_role {
        return Err(Failure::invalid(
            "enableExecuteCommand needs a valid taskRoleArn in the definition or the overrides.",
        ));
    }
    let platform_version = match request.platform_version.as_deref() {
        None | Some("LATEST" | "1.4.0") => "1.4.0",
        Some("1.3.0") => "1.3.0",
        Some(_) => return Err(Failure::new("PlatformUnknownException", "The specified platform does not exist.")),
    };
    let count = request.count.unwrap_or(1) as usize;
    let platform_version = platform_version.into();
    Ok(Accepted {
        cluster,
        definition,
        count,
        capacity_provider,
        network,
        overrides,
        size,
        storage_gib,
        platform_version,
    })
}

fn check_plain_values(request: &RunTask) -> Result<(), Failure> {
    if !(1..=10).contains(&request.count.unwrap_or(1)) {
        return Err(Failure::invalid("count should be between 1 and 10"));
    }
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_".contains(&byte);
    if request.started_by.as_ref().is_some_and(|name| name.len() > 128 || !name.bytes().all(named)) {
        return Err(Failure::invalid("startedBy: up to 128 letters, digits, hyphens, slashes and underscores"));
    }
    let printable = |byte: u8| (33..=126).contains(&byte);
    if request.client_token.as_ref().is_some_and(|token| token.len() > 64 || !token.bytes().all(printable)) {
        return Err(Failure::invalid("clientToken: up to 64 ASCII characters from 33 to 126"));
    }
    if request.tags.len() > 50 {
        return Err(Failure::invalid("Too many tags: a task can have at most 50."));
    }
    if !matches!(request.propagate_tags.as_deref(), None | Some("TASK_DEFINITION" | "NONE")) {
        return Err(Failure::invalid("propagateTags: a task that is run takes TASK_DEFINITION or NONE."));
    }
    if !request.placement_constraints.is_empty() || !request.placement_strategy.is_empty() {
        return Err(Failure::invalid(
            "Placement constraints and strategies are not supported with launch type FARGATE.",
        ));
    }
    Ok(())
}

/// The capacity provider that a task gets, if by a provider at all.
fn check_capacity(request: &RunTask, cluster: &Cluster) -> Result<Option<String>, Failure> {
    let asked = &request.capacity_provider_strategy;
    let strategy = match (request.launch_type.as_deref(), asked.is_empty()) {
        (Some(_), false) => {
            return Err(Failure::invalid(
                "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
            ));
        }
        (Some("FARGATE"), true) => return Ok(None),
        // Without any of the three ECS falls back to instances of one's own, of which there are none.
        (Some("EC2" | "EXTERNAL" | "MANAGED_INSTANCES"), true) => return Err(no_instances()),
        (Some(other), true) => return Err(Failure::invalid(format!("Unknown launch type: {other}"))),
        (None, true) if cluster.default_strategy.is_empty() => return Err(no_instances()),
        (None, true) => &cluster.default_strategy,
        (None, false) => asked,
    };
    for item in strategy {
        if !["FARGATE", "FARGATE_SPOT"].contains(&item.capacity_provider.as_str()) {
            return Err(Failure::invalid(format!(
                "The specified capacity provider '{}' was not found. Specify a valid name or ARN and try again.",
                item.capacity_provider
            )));
        }
        if !cluster.capacity_providers.contains(&item.capacity_provider) {
            return Err(Failure::invalid(
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated with \
                 the cluster. Associate the capacity provider with the cluster and try again.",
            ));
        }
        if item.weight > 1000 || item.base > 100_000 {
            return Err(Failure::invalid("A weight is at most 1000, a base at most 100000."));
        }
    }
    if strategy.len() > 20 || strategy.iter().filter(|item| item.base > 0).count() > 1 {
        return Err(Failure::invalid("A strategy can have at most 20 capacity providers, and one of them a base."));
    }
    // One task goes to the base, then to the greatest weight.
    let chosen = strategy.iter().filter(|item| item.weight > 0).max_by_key(|item| (item.base, item.weight));
    let chosen = chosen.ok_or_else(|| {
        Failure::invalid(
            "A capacity provider strategy must contain at least one capacity provider with a weight above 0.",
        )
    })?;
    Ok(Some(chosen.capacity_provider.clone()))
}

fn no_instances() -> Failure {
    Failure::invalid("No Container Instances were found in your cluster.")
}

/// ECS lets an inactive definition run for up to ten minutes more; nobody should build on it.
fn check_definition(state: &State, asked: &str) -> Result<Arc<TaskDefinition>, Failure> {
    if asked.is_empty() {
        return Err(Failure::invalid("TaskDefinition can not be blank."));
    }
    let definition = state.definition(asked).ok_or_else(|| Failure::client("TaskDefinition not found."))?;
    if !definition.active {
        return Err(Failure::client("TaskDefinition is inactive"));
    }
    let compatible = definition.body.get("requiresCompatibilities").and_then(Value::as_array);
    if !compatible.is_some_and(|all| all.iter().any(|one| one == "FARGATE")) {
        return Err(Failure::invalid("Task definition does not support launch_type FARGATE."));
    }
    Ok(definition.clone())
}

fn check_network(request: &RunTask, more_ids: &[String]) -> Result<Network, Failure> {
    let network = request.network_configuration.as_ref().and_then(|one| one.awsvpc_configuration.clone());
    let network = network.ok_or_else(|| {
        Failure::invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    })?;
    match network.subnets.len() {
        0 => return Err(Failure::invalid("subnets can not be empty.")),
        1..=16 => {}
        _ => return Err(Failure::invalid("subnets can have at most 16 items.")),
    }
    if network.security_groups.len() > 5 {
        return Err(Failure::invalid("securityGroups can have at most 5 items."));
    }
    // Every well-formed id exists here: there is no VPC behind it that could lack one.
    let is_missing = |id: &&String, prefix: &str| !id.starts_with(prefix) && !more_ids.contains(id);
    if let Some(subnet) = network.subnets.iter().find(|id| is_missing(id, "subnet-")) {
        return Err(Failure::invalid(format!(
            "Error retrieving subnet information for [{subnet}]: The subnet ID '{subnet}' does not exist \
             (ErrorCode: InvalidSubnetID.NotFound)"
        )));
    }
    if let Some(group) = network.security_groups.iter().find(|id| is_missing(id, "sg-")) {
        return Err(Failure::invalid(format!(
            "Error retrieving security group information for [{group}]: The security group '{group}' does not exist \
             (ErrorCode: InvalidGroup.NotFound)"
        )));
    }
    if !matches!(network.assign_public_ip.as_deref(), None | Some("ENABLED" | "DISABLED")) {
        return Err(Failure::invalid("assignPublicIp: ENABLED or DISABLED"));
    }
    Ok(network)
}

/// Puts one task into the state and begins its life; gives its ARN.
fn start(
    world: &Arc<World>,
    state: &mut State,
    request: &RunTask,
    accepted: &Accepted,
    caller: &Caller,
    now: SystemTime,
) -> String {
    let hex = || Uuid::new_v4().simple().to_string();
    let Accepted { cluster, definition, network, .. } = accepted;
    let id = hex();
    let container = || Container {
        arn: state.arn(&caller.account, &format!("container/{}/{id}/{}", cluster.name, Uuid::new_v4())),
        runtime_id: None,
        exit_code: None,
        reason: None,
    };
    let mac: [u8; 5] = rand::random();
    let tags = match request.propagate_tags.as_deref() {
        Some("TASK_DEFINITION") => definition.tags.iter().chain(&request.tags).cloned().collect(),
        _ => request.tags.clone(),
    };
    let mut overrides = request.overrides.clone().unwrap_or_else(|| json!({}));
    if overrides.get("containerOverrides").is_none() {
        overrides["containerOverrides"] =
            definition.containers.iter().map(|container| json!({"name": container.name})).collect();
    }
    let (orders, inbox) = mpsc::unbounded_channel();
    let task = Task {
        arn: state.arn(&caller.account, &format!("task/{}/{id}", cluster.name)),
        cluster_arn: cluster.arn.clone(),
        definition: definition.clone(),
        status: Status::Provisioning,
        stop_wanted: false,
        version: 1,
        created_at: now,
        visible_from: now + world.config.visible_after,
        times: Times::default(),
        stop: None,
        containers: definition.containers.iter().map(|_| container()).collect(),
        interface: Interface {
            attachment: Uuid::new_v4().to_string(),
            id: format!("eni-{}", &hex()[..17]),
            mac: mac.iter().fold("0a".to_owned(), |text, byte| format!("{text}:{byte:02x}")),
            subnet: network.subnets[0].clone(),
            security_groups: network.security_groups.clone(),
            public: network.assign_public_ip.as_deref() == Some("ENABLED"),
            address: None,
        },
        overrides,
        container_overrides: accepted.overrides.container_overrides.clone(),
        cpu: accepted.size.0,
        memory: accepted.size.1,
        storage_gib: accepted.storage_gib,
        capacity_provider: accepted.capacity_provider.clone(),
        platform_version: accepted.platform_version.clone(),
        started_by: request.started_by.clone(),
        role_session: caller.session.clone(),
        group: request.group.clone().unwrap_or_else(|| format!("family:{}", definition.family)),
        tags,
        execute_command: request.enable_execute_command,
        log: Log::default(),
        orders,
        id: id.clone(),
    };
    let arn = task.arn.clone();
    state.tasks.insert(id.clone(), task);
    world.lives.spawn(lifecycle::live(world.clone(), id, world.faults.next_for_task(), inbox));
    arn
}
