//! RegisterTaskDefinition and its companions, and the two definitions that are there from the start.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::accounts::ACCOUNT;
use super::super::failure::Failure;
use super::super::state::{ContainerDefinition, State, TaskDefinition};
use super::super::{sizes, task_json};
use super::{page, read};

/// `staffetta-agent:1` and `staffetta-sshd:1`, with the container name that the Fargate driver requires.
pub(crate) fn built_in_definitions(state: &mut State, now: SystemTime) -> Result<(), Failure> {
    for name in ["agent", "sshd"] {
        let request = json!({
            "family": format!("staffetta-{name}"),
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "containerDefinitions": [{
                "name": "ci-coordinator",
                "image": format!("staffetta/{name}"),
                "portMappings": [{"containerPort": 22}],
            }],
        });
        register_task_definition(state, request, now)?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Register {
    family: String,
    #[serde(default)]
    network_mode: Option<String>,
    #[serde(default)]
    requires_compatibilities: Vec<String>,
    cpu: Option<String>,
    memory: Option<String>,
    #[serde(default)]
    tags: Vec<Value>,
    container_definitions: Vec<Value>,
}

pub(super) fn register_task_definition(state: &mut State, request: Value, now: SystemTime) -> Result<Value, Failure> {
    let Value::Object(mut body) = request.clone() else {
        return Err(Failure::new("SerializationException", "not an object"));
    };
    let mut asked: Register = read(request)?;
    check_family(&asked.family)?;
    let fargate = asked.requires_compatibilities.iter().any(|one| one == "FARGATE");
    if fargate {
        if asked.network_mode.as_deref() != Some("awsvpc") {
            return Err(Failure::client("Fargate only supports network mode 'awsvpc'."));
        }
        let needed =
            |name: &str| Failure::client(format!("Fargate requires that '{name}' be defined at the task level."));
        let cpu = asked.cpu.as_deref().ok_or_else(|| needed("cpu"))?;
        let memory = asked.memory.as_deref().ok_or_else(|| needed("memory"))?;
        let (cpu, memory) = sizes::check(cpu, memory)?;
        body.insert("cpu".into(), cpu.to_string().into());
        body.insert("memory".into(), memory.to_string().into());
    }
    let containers = check_containers(&mut asked.container_definitions, fargate)?;

    let revisions = state.definitions.get(&asked.family).map_or(0, Vec::len);
    let (family, revision) = (asked.family, revisions + 1);
    body.remove("tags");
    body.insert("containerDefinitions".into(), asked.container_definitions.into());
    body.insert("compatibilities".into(), if fargate { json!(["EC2", "FARGATE"]) } else { json!(["EC2"]) });
    for (name, default) in
        [("volumes", json!([])), ("placementConstraints", json!([])), ("requiresAttributes", json!([]))]
    {
        body.entry(name).or_insert(default);
    }
    let definition = TaskDefinition {
        arn: state.arn(ACCOUNT, &format!("task-definition/{family}:{revision}")),
        family: family.clone(),
        revision,
        active: true,
        registered_at: now,
        deregistered_at: None,
        body,
        tags: asked.tags,
        containers,
    };
    let answer = json!({"taskDefinition": task_json::definition(&definition), "tags": definition.tags});
    state.definitions.entry(family).or_default().push(Arc::new(definition));
    Ok(answer)
}

fn check_family(family: &str) -> Result<(), Failure> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !family.is_empty() && family.len() <= 255 && family.bytes().all(valid) {
        true => Ok(()),
        false => Err(Failure::client(
            "Family contains invalid characters or is too long: up to 255 letters, digits, hyphens and underscores.",
        )),
    }
}

/// Checks the containers, fills in ECS's defaults, and reads what the engine needs.
fn check_containers(shapes: &mut [Value], fargate: bool) -> Result<Vec<ContainerDefinition>, Failure> {
    if shapes.is_empty() {
        return Err(Failure::client("Container list cannot be empty."));
    }
    if shapes.len() > 10 {
        return Err(Failure::client("Too many containers: a task definition can have at most 10."));
    }
    let mut containers: Vec<ContainerDefinition> = Vec::new();
    for shape in shapes {
        let container: ContainerDefinition = read(shape.clone())?;
        if container.name.is_empty() {
            return Err(Failure::client("Container.name should not be null or empty."));
        }
        if container.image.is_empty() {
            return Err(Failure::client("Container.image should not be null or empty."));
        }
        if containers.iter().any(|other| other.name == container.name) {
            return Err(Failure::client(format!("Container names must be unique: {}", container.name)));
        }
        if fargate && shape["privileged"] == true {
            return Err(Failure::client("Fargate does not support privileged containers."));
        }
        if fargate && container.stop_timeout.is_some_and(|seconds| seconds > 120) {
            return Err(Failure::client("Fargate supports a stopTimeout of at most 120 seconds."));
        }
        if let Value::Object(shape) = shape {
            fill_in(shape);
        }
        containers.push(container);
    }
    match containers.iter().any(ContainerDefinition::is_essential) {
        true => Ok(containers),
        false => Err(Failure::client("A task definition must have at least one essential container.")),
    }
}

fn fill_in(container: &mut Map<String, Value>) {
    let defaults = [
        ("cpu", json!(0)),
        ("essential", json!(true)),
        ("environment", json!([])),
        ("mountPoints", json!([])),
        ("portMappings", json!([])),
        ("volumesFrom", json!([])),
    ];
    for (name, default) in defaults {
        container.entry(name).or_insert(default);
    }
    for mapping in container["portMappings"].as_array_mut().into_iter().flatten() {
        // With awsvpc the host's port is the container's.
        let port = mapping["containerPort"].clone();
        if let Value::Object(mapping) = mapping {
            mapping.entry("hostPort").or_insert(port);
            mapping.entry("protocol").or_insert("tcp".into());
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneTaskDefinition {
    task_definition: String,
}

pub(super) fn deregister_task_definition(
    state: &mut State,
    request: OneTaskDefinition,
    now: SystemTime,
) -> Result<Value, Failure> {
    let missing = || Failure::client("The specified task definition does not exist.");
    if !request.task_definition.contains(':') {
        return Err(Failure::client("Missing revision: deregistering needs family:revision or an ARN."));
    }
    let found = state.definition(&request.task_definition).ok_or_else(missing)?;
    let (family, index) = (found.family.clone(), found.revision - 1);
    let definition = state.definitions.get_mut(&family).and_then(|all| all.get_mut(index)).ok_or_else(missing)?;
    // Tasks that run keep the definition as it was.
    let definition = Arc::make_mut(definition);
    definition.active = false;
    definition.deregistered_at.get_or_insert(now);
    Ok(json!({"taskDefinition": task_json::definition(definition)}))
}

pub(super) fn describe_task_definition(state: &mut State, request: OneTaskDefinition) -> Result<Value, Failure> {
    let definition = state.definition(&request.task_definition);
    let definition = definition.ok_or_else(|| Failure::client("Unable to describe task definition."))?;
    Ok(json!({"taskDefinition": task_json::definition(definition), "tags": definition.tags}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListTaskDefinitions {
    family_prefix: Option<String>,
    status: Option<String>,
    sort: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

pub(super) fn list_task_definitions(state: &mut State, request: ListTaskDefinitions) -> Result<Value, Failure> {
    let active = match request.status.as_deref() {
        None | Some("ACTIVE") => true,
        Some("INACTIVE") => false,
        Some(other) => return Err(Failure::invalid(format!("Invalid status: {other}"))),
    };
    let descending = match request.sort.as_deref() {
        None | Some("ASC") => false,
        Some("DESC") => true,
        Some(other) => return Err(Failure::invalid(format!("Invalid sort: {other}"))),
    };
    let all = state.definitions.values().flatten();
    let mut found: Vec<_> = all
        .filter(|one| one.active == active)
        // The parameter is called a prefix and is a whole family name.
        .filter(|one| request.family_prefix.as_ref().is_none_or(|family| one.family == *family))
        .collect();
    if descending {
        found.reverse();
    }
    // Pages go by position: revisions are only ever added at the end of their family.
    let keyed = found.iter().enumerate().map(|(index, one)| (format!("{index:07}"), one.arn.clone())).collect();
    page("taskDefinitionArns", keyed, request.max_results, request.next_token.as_deref())
}
