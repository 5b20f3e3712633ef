//! Tasks and task definitions in the shapes of ECS's API model.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::state::{Container, ContainerDefinition, Interface, Status, Task, TaskDefinition};

/// A time as ECS writes it: seconds since 1970 with milliseconds.
pub(super) fn time(at: SystemTime) -> Value {
    let milliseconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    json!(milliseconds as f64 / 1000.0)
}

pub(super) fn task(task: &Task, region: &str) -> Value {
    let times = &task.times;
    let mut shape = json!({
        "attachments": [attachment(task, region)],
        "attributes": [{"name": "ecs.cpu-architecture", "value": std::env::consts::ARCH}],
        "availabilityZone": format!("{region}a"),
        "clusterArn": task.cluster_arn,
        "containers": containers(task),
        "cpu": task.cpu.to_string(),
        "createdAt": time(task.created_at),
        "desiredStatus": task.desired_status(),
        "enableExecuteCommand": task.execute_command,
        "ephemeralStorage": {"sizeInGiB": task.storage_gib},
        "group": task.group,
        "healthStatus": "UNKNOWN",
        "lastStatus": task.status.name(),
        "launchType": "FARGATE",
        "memory": task.memory.to_string(),
        "overrides": task.overrides,
        "platformFamily": "Linux",
        "platformVersion": task.platform_version,
        "tags": task.tags,
        "taskArn": task.arn,
        "taskDefinitionArn": task.definition.arn,
        "version": task.version,
    });
    // ECS leaves out what it does not know yet; a null would be a different answer.
    let later = [
        ("capacityProviderName", task.capacity_provider.as_ref().map(|name| json!(name))),
        ("connectivity", times.connectivity.map(|_| json!("CONNECTED"))),
        ("connectivityAt", times.connectivity.map(time)),
        ("pullStartedAt", times.pull_started.map(time)),
        ("pullStoppedAt", times.pull_stopped.map(time)),
        ("startedAt", times.started.map(time)),
        ("startedBy", task.started_by.as_ref().map(|name| json!(name))),
        ("stoppingAt", times.stopping.map(time)),
        ("executionStoppedAt", times.execution_stopped.map(time)),
        ("stoppedAt", times.stopped.map(time)),
        ("stopCode", task.stop.as_ref().map(|stop| json!(stop.code))),
        ("stoppedReason", task.stop.as_ref().map(|stop| json!(stop.reason))),
    ];
    add(&mut shape, later);
    shape
}

fn attachment(task: &Task, region: &str) -> Value {
    let interface = &task.interface;
    let detail = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut details = vec![detail("subnetId", &interface.subnet)];
    if let Some(address) = interface.address {
        details.extend([
            detail("networkInterfaceId", &interface.id),
            detail("macAddress", &interface.mac),
            detail("privateDnsName", &private_dns_name(interface, region)),
            detail("privateIPv4Address", &address.to_string()),
        ]);
    }
    let status = match (task.status, interface.address) {
        (Status::Stopped, _) => "DELETED",
        (_, None) => "PRECREATED",
        (_, Some(_)) => "ATTACHED",
    };
    json!({"id": interface.attachment, "type": "ElasticNetworkInterface", "status": status, "details": details})
}

/// The name inside the VPC, in the region's form.
pub(super) fn private_dns_name(interface: &Interface, region: &str) -> String {
    let address = interface.address.map(|address| address.to_string().replace('.', "-")).unwrap_or_default();
    match region {
        "us-east-1" => format!("ip-{address}.ec2.internal"),
        region => format!("ip-{address}.{region}.compute.internal"),
    }
}

fn containers(task: &Task) -> Vec<Value> {
    let shapes = task.definition.containers.iter().zip(&task.containers);
    shapes.map(|(definition, container)| self::container(task, definition, container)).collect()
}

fn container(task: &Task, definition: &ContainerDefinition, container: &Container) -> Value {
    let interface = &task.interface;
    let interfaces = interface
        .address
        .map(|address| json!([{"attachmentId": interface.attachment, "privateIpv4Address": address.to_string()}]));
    let status = match (&container.runtime_id, container.exit_code) {
        (Some(_), None) if task.status < Status::Running => "PENDING",
        (Some(_), None) if task.status < Status::Deprovisioning => "RUNNING",
        (None, _) if task.status < Status::Deprovisioning => "PENDING",
        _ => "STOPPED",
    };
    let mut shape = json!({
        "containerArn": container.arn,
        "cpu": "0",
        "healthStatus": "UNKNOWN",
        "image": definition.image,
        "lastStatus": status,
        "name": definition.name,
        "networkInterfaces": interfaces.unwrap_or(json!([])),
        "taskArn": task.arn,
    });
    let later = [
        ("runtimeId", container.runtime_id.as_ref().map(|id| json!(id))),
        ("exitCode", container.exit_code.map(|code| json!(code))),
        ("reason", container.reason.as_ref().map(|reason| json!(reason))),
    ];
    add(&mut shape, later);
    shape
}

pub(super) fn definition(definition: &TaskDefinition) -> Value {
    let mut shape = Map::from_iter([
        ("taskDefinitionArn".into(), json!(definition.arn)),
        ("family".into(), json!(definition.family)),
        ("revision".into(), json!(definition.revision)),
        ("status".into(), json!(if definition.active { "ACTIVE" } else { "INACTIVE" })),
        ("registeredAt".into(), time(definition.registered_at)),
        ("registeredBy".into(), json!(format!("arn:aws:iam::{}:root", super::accounts::ACCOUNT))),
    ]);
    shape.extend(definition.deregistered_at.map(|at| ("deregisteredAt".to_owned(), time(at))));
    shape.extend(definition.body.clone());
    shape.into()
}

fn add<const N: usize>(shape: &mut Value, members: [(&str, Option<Value>); N]) {
    if let Value::Object(object) = shape {
        object.extend(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
}
