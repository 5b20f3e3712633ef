//! The stack of one environment: where its jobs run, and as whom.

use serde_json::{Value, json};

use super::deployment::{Deployment, Environment, ManagerMode};
use super::names::{MANAGER_SECURITY_GROUP, TASK_SECURITY_GROUP};
use super::resources::{
    CLUSTER, LOG_GROUP, TASK_DEFINITION, Template, log_configuration, role_id, runtime_platform, tags,
};
use super::roles::environment_roles;
use crate::fargate::CapacityProvider;

/// The one port of a task, for the manager's SSH.
const SSH: u16 = 22;

pub(super) fn environment_template(deployment: &Deployment, environment: &Environment) -> Value {
    let description = format!("Staffetta: environment {} of {}", environment.name, deployment.name);
    let mut template = Template::new(description, &tags(deployment, Some(environment)));
    let name = deployment.environment_name(environment);
    let item = |provider: &CapacityProvider| json!({"CapacityProvider": provider.name, "Weight": provider.weight, "Base": provider.base});
    let strategy: Vec<_> = environment.capacity_providers.iter().map(item).collect();
    // Always both, which every region of Fargate knows: one that tasks are using could not be taken away.
    let providers = ["FARGATE", "FARGATE_SPOT"];
    let cluster = json!({
        "ClusterName": name, "CapacityProviders": providers, "DefaultCapacityProviderStrategy": strategy,
    });
    template.resource(CLUSTER, "AWS::ECS::Cluster", cluster);
    template.log_group(&deployment.log_group(environment), environment.log_retention_days);
    let mut before = vec![LOG_GROUP];
    for role in environment_roles(deployment, environment) {
        template.role(&role);
        before.push(role_id(&role));
    }
    let definition = task_definition(deployment, environment);
    template.resource_after(&before, TASK_DEFINITION, "AWS::ECS::TaskDefinition", definition);
    template.repository(&deployment.task_repository(environment), &deployment.task_image(environment));
    security_groups(&mut template, deployment, environment);
    if let Some(cache) = &environment.cache {
        let properties = cache_bucket(&deployment.cache_bucket(environment), cache.expire_days);
        template.resource("CacheBucket", "AWS::S3::Bucket", properties);
    }
    template.json()
}

/// Whether the stack has to be told the group of the shared manager.
pub(super) fn takes_manager_group(deployment: &Deployment, environment: &Environment) -> bool {
    matches!(deployment.manager, ManagerMode::Shared(_)) && environment.manager_cidr.is_none()
}

/// Tasks are reached by their manager and by nobody else, and on one port. What leaves them is not bounded: jobs fetch from
/// wherever they like. Neither group has a name, so that a change of the VPC can put another in its place.
fn security_groups(template: &mut Template, deployment: &Deployment, environment: &Environment) {
    let vpc = &environment.place.vpc;
    let name = deployment.environment_name(environment);
    let group = json!({"Ref": MANAGER_SECURITY_GROUP});
    if matches!(deployment.manager, ManagerMode::Each) {
        let properties = json!({"GroupDescription": format!("The manager of {name}"), "VpcId": vpc});
        template.resource(MANAGER_SECURITY_GROUP, "AWS::EC2::SecurityGroup", properties);
        template.output(MANAGER_SECURITY_GROUP, "For the manager: opens port 22 of the tasks", group.clone());
    }
    if takes_manager_group(deployment, environment) {
        let parameter = json!({"Type": "String", "Description": "The security group of the shared manager"});
        template.parameter(MANAGER_SECURITY_GROUP, parameter);
    }
    let mut rule = json!({
        "IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH, "Description": "SSH from the manager",
    });
    match (&environment.manager_cidr, &deployment.manager) {
        (Some(cidr), _) => rule["CidrIp"] = json!(cidr),
        (None, manager) => {
            rule["SourceSecurityGroupId"] = group;
            if let ManagerMode::Shared(place) = manager
                && place.account != environment.place.account
            {
                rule["SourceSecurityGroupOwnerId"] = json!(place.account);
            }
        }
    }
    let properties = json!({
        "GroupDescription": format!("The tasks of {name}"), "VpcId": vpc, "SecurityGroupIngress": [rule],
    });
    template.resource(TASK_SECURITY_GROUP, "AWS::EC2::SecurityGroup", properties);
    template.output(TASK_SECURITY_GROUP, "For the tasks", json!({"Ref": TASK_SECURITY_GROUP}));
}

/// A change makes a new revision and takes the old one out of service; running tasks go on. The manager asks for the family, so
/// the next job has the new one (facts 10.1).
fn task_definition(deployment: &Deployment, environment: &Environment) -> Value {
    let log_group = deployment.log_group(environment);
    let mut properties = json!({
        "Family": deployment.environment_name(environment),
        "RequiresCompatibilities": ["FARGATE"],
        "NetworkMode": "awsvpc",
        "Cpu": environment.cpu.to_string(),
        "Memory": environment.memory.to_string(),
        "RuntimePlatform": runtime_platform(environment.architecture),
        "ExecutionRoleArn": deployment.execution_role_arn(environment),
        "TaskRoleArn": deployment.job_role_arn(environment),
        "ContainerDefinitions": [{
            "Name": job::task::CONTAINER,
            "Image": deployment.task_image(environment),
            "Essential": true,
            "PortMappings": [{"ContainerPort": SSH, "Protocol": "tcp"}],
            // All of the two minutes that Fargate Spot gives.
            "StopTimeout": 120,
            "LogConfiguration": log_configuration(&environment.place, &log_group, "task"),
        }],
    });
    if let Some(gib) = environment.ephemeral_storage_gib {
        properties["EphemeralStorage"] = json!({"SizeInGiB": gib});
    }
    properties
}

fn cache_bucket(name: &str, expire_days: u32) -> Value {
    json!({
        "BucketName": name,
        "BucketEncryption": {"ServerSideEncryptionConfiguration": [
            {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}},
        ]},
        "LifecycleConfiguration": {"Rules": [{
            "Id": "expire", "Status": "Enabled", "ExpirationInDays": expire_days,
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        }]},
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true,
        },
    })
}
