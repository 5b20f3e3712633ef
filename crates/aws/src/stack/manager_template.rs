//! The stacks of a manager: its service, and, for a shared one, what its environments must know of it beforehand.

use serde_json::{Value, json};

use super::deployment::{Deployment, Environment, Place, RunnerToken};
use super::names::{
    DESIRED_COUNT, MANAGER_SECURITY_GROUP, ManagerOf, arn, logical_name, task_group_parameter, token_variable,
};
use super::resources::{
    CLUSTER, LOG_GROUP, TASK_DEFINITION, Template, log_configuration, role_id, runtime_platform, tags,
};
use super::roles::{manager_execution_role, shared_manager_role};

/// Makes the config.toml of a manager that has these environments. The second argument tells the id of an environment's task
/// security group, or what stands for it in the text.
pub type ConfigText<'a> = dyn Fn(&[&Environment], &dyn Fn(&Environment) -> String) -> String + 'a;

/// The container of the manager's task definition.
pub const MANAGER_CONTAINER: &str = "manager";

/// Where the manager writes, and nowhere else.
const STATE: &str = "/etc/gitlab-runner";

/// The role and the security group of a shared manager: the environments' roles and groups let in these two, so they are there
/// first, while its service comes last.
pub(super) fn access_template(deployment: &Deployment, place: &Place) -> Value {
    let description = format!("Staffetta: what the environments of {} let in", deployment.name);
    let mut template = Template::new(description, &tags(deployment, None));
    template.role(&shared_manager_role(deployment, place));
    let properties = json!({"GroupDescription": format!("The manager of all environments of {}", deployment.name), "VpcId": place.vpc});
    template.resource(MANAGER_SECURITY_GROUP, "AWS::EC2::SecurityGroup", properties);
    let group = json!({"Ref": MANAGER_SECURITY_GROUP});
    template.output(MANAGER_SECURITY_GROUP, "For the manager: opens port 22 of the tasks", group);
    template.json()
}

pub(super) fn manager_template(deployment: &Deployment, manager: ManagerOf, config: &ConfigText) -> Value {
    let (description, environment) = match manager {
        ManagerOf::One(it) => (format!("Staffetta: the manager of {}", deployment.environment_name(it)), Some(it)),
        ManagerOf::All(_) => (format!("Staffetta: the manager of all environments of {}", deployment.name), None),
    };
    let mut template = Template::new(description, &tags(deployment, environment));
    let name = deployment.manager_name(manager);
    template.parameter(
        DESIRED_COUNT,
        json!({"Type": "Number", "MinValue": 0, "MaxValue": 1, "Default": 0, "Description": "How many managers run"}),
    );
    let group = json!({"Type": "String", "Description": "The security group of the manager"});
    template.parameter(MANAGER_SECURITY_GROUP, group);
    let environments = deployment.environments_of(manager);
    for environment in &environments {
        let description = format!("The security group of the tasks of {}", deployment.environment_name(environment));
        let parameter = json!({"Type": "String", "Description": description});
        template.parameter(&task_group_parameter(environment), parameter);
        if environment.runner_token == RunnerToken::Made {
            // Empty: `apply` puts the token into it, which so stands in no template.
            let properties = json!({
                "Name": deployment.token_secret(environment),
                "Description": format!("The token of the runner {}", environment.name),
            });
            template.resource(&token_id(environment), "AWS::SecretsManager::Secret", properties);
        }
    }
    // Of its own: in the cluster of an environment its role could stop it like a job.
    template.resource(
        CLUSTER,
        "AWS::ECS::Cluster",
        json!({
            "ClusterName": name,
            "CapacityProviders": ["FARGATE"],
            "DefaultCapacityProviderStrategy": [{"CapacityProvider": "FARGATE", "Weight": 1}],
        }),
    );
    template.log_group(&deployment.manager_log_group(manager), deployment.service.log_retention_days);
    template.repository(&deployment.manager_repository(manager), &deployment.manager_image(manager));
    let role = manager_execution_role(deployment, manager);
    template.role(&role);
    let before = [LOG_GROUP, role_id(&role)];
    let definition = task_definition(deployment, manager, &environments, config);
    template.resource_after(&before, TASK_DEFINITION, "AWS::ECS::TaskDefinition", definition);
    template.resource("Service", "AWS::ECS::Service", service(&name, manager.place()));
    template.json()
}

/// One manager, never two: a new one starts when the old one is gone. ECS refuses that together with the balancing of zones,
/// which is on where nothing is said (AWS page "Balancing an Amazon ECS service across Availability Zones").
fn service(name: &str, place: &Place) -> Value {
    json!({
        "ServiceName": name,
        "Cluster": {"Ref": CLUSTER},
        "TaskDefinition": {"Ref": TASK_DEFINITION},
        "LaunchType": "FARGATE",
        "DesiredCount": {"Ref": DESIRED_COUNT},
        "DeploymentConfiguration": {
            "MinimumHealthyPercent": 0,
            "MaximumPercent": 100,
            "DeploymentCircuitBreaker": {"Enable": true, "Rollback": true},
        },
        "AvailabilityZoneRebalancing": "DISABLED",
        "NetworkConfiguration": {"AwsvpcConfiguration": {
            "Subnets": place.subnets,
            "SecurityGroups": [{"Ref": MANAGER_SECURITY_GROUP}],
            "AssignPublicIp": if place.assign_public_ip { "ENABLED" } else { "DISABLED" },
        }},
        "PropagateTags": "SERVICE",
    })
}

/// The logical id of the secret of a runner's token.
fn token_id(environment: &Environment) -> String {
    format!("RunnerToken{}", logical_name(environment))
}

fn task_definition(
    deployment: &Deployment,
    manager: ManagerOf,
    environments: &[&Environment],
    config: &ConfigText,
) -> Value {
    let place = manager.place();
    let service = &deployment.service;
    let secret = |environment: &&Environment| {
        let secret = match &environment.runner_token {
            RunnerToken::Secret(arn) => json!(arn),
            RunnerToken::Made => json!({"Ref": token_id(environment)}),
        };
        json!({"Name": token_variable(environment), "ValueFrom": secret})
    };
    let secrets: Vec<_> = environments.iter().map(secret).collect();
    let log_group = deployment.manager_log_group(manager);
    json!({
        "Family": deployment.manager_name(manager),
        "RequiresCompatibilities": ["FARGATE"],
        "NetworkMode": "awsvpc",
        "Cpu": service.cpu.to_string(),
        "Memory": service.memory.to_string(),
        "RuntimePlatform": runtime_platform(service.architecture),
        "ExecutionRoleArn": arn(place, "iam", &format!("role/{}", deployment.manager_execution_role_name(manager))),
        "TaskRoleArn": deployment.manager_task_role_arn(manager),
        "Volumes": [{"Name": "state"}],
        "ContainerDefinitions": [{
            "Name": MANAGER_CONTAINER,
            "Image": deployment.manager_image(manager),
            // Starting by the count alone would be no new deployment of the service, and the circuit breaker watches only those:
            // CloudFormation would wait three hours for a manager that cannot start (containers-roadmap issue 1206).
            "DockerLabels": {"staffetta.desired-count": {"Ref": DESIRED_COUNT}},
            "Essential": true,
            "ReadonlyRootFilesystem": true,
            "MountPoints": [{"SourceVolume": "state", "ContainerPath": STATE, "ReadOnly": false}],
            "LinuxParameters": {"Capabilities": {"Drop": ["ALL"]}},
            "StopTimeout": 60,
            "Environment": [{"Name": "CONFIG_TOML", "Value": config_text(environments, config)}],
            "Secrets": secrets,
            "LogConfiguration": log_configuration(place, &log_group, "manager"),
        }],
    })
}

/// The config.toml with the security groups in their places. It is joined from its pieces, and not a text for `Fn::Sub`: there
/// every `$` before a brace would have to be looked after.
fn config_text(environments: &[&Environment], config: &ConfigText) -> Value {
    let mark = |environment: &Environment| format!("<{}>", task_group_parameter(environment));
    let text = config(environments, &mark);
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    let next = |rest: &str| {
        let found = environments.iter().filter_map(|it| Some((rest.find(&mark(it))?, *it)));
        found.min_by_key(|(at, _)| *at)
    };
    while let Some((at, environment)) = next(rest) {
        pieces.push(json!(rest[..at]));
        pieces.push(json!({"Ref": task_group_parameter(environment)}));
        rest = &rest[at + mark(environment).len()..];
    }
    pieces.push(json!(rest));
    json!({"Fn::Join": ["", pieces]})
}
