//! What the two kinds of template have in common: resources of CloudFormation, as JSON.
//!
//! All names and ARNs stand in the template as text, so it says what it makes, and a resource that CloudFormation makes anew is
//! called the same. Rules go in one direction and a cluster has its capacity providers in itself: what is used is what
//! CloudFormation and the emulators of the tests all know (facts 10.2).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::deployment::{Architecture, Deployment, Environment, Place};
use super::policy::Role;

/// The tags by which a bill can be split. On a stack they say whose it is, so no tag of the file takes their place.
pub const DEPLOYMENT_TAG: &str = "staffetta:deployment";
pub const ENVIRONMENT_TAG: &str = "staffetta:environment";

/// The tags of everything that belongs to an environment, or, without one, to all.
pub(super) fn tags(deployment: &Deployment, environment: Option<&Environment>) -> BTreeMap<String, String> {
    let mut tags = deployment.tags.clone();
    tags.extend(environment.map(|environment| environment.tags.clone()).unwrap_or_default());
    tags.insert(DEPLOYMENT_TAG.to_owned(), deployment.name.clone());
    tags.extend(environment.map(|environment| (ENVIRONMENT_TAG.to_owned(), environment.name.clone())));
    tags
}

/// A template that is being put together.
pub(super) struct Template {
    description: String,
    tags: Value,
    parameters: Map<String, Value>,
    resources: Map<String, Value>,
    outputs: Map<String, Value>,
}

impl Template {
    pub fn new(description: String, tags: &BTreeMap<String, String>) -> Self {
        let tags = tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        Self { description, tags, parameters: Map::new(), resources: Map::new(), outputs: Map::new() }
    }

    pub fn parameter(&mut self, name: &str, parameter: Value) {
        self.parameters.insert(name.to_owned(), parameter);
    }

    /// Adds a resource, which gets the tags. It goes with its stack, images, logs and caches included: what stayed would keep
    /// its name, and the stack could never be made again.
    pub fn resource(&mut self, id: &str, kind: &str, mut properties: Value) {
        properties["Tags"] = self.tags.clone();
        let resource = json!({
            "Type": kind, "DeletionPolicy": "Delete", "UpdateReplacePolicy": "Delete", "Properties": properties,
        });
        self.resources.insert(id.to_owned(), resource);
    }

    /// Adds a resource that names others by text, so that CloudFormation cannot see that they come first.
    pub fn resource_after(&mut self, others: &[&str], id: &str, kind: &str, properties: Value) {
        self.resource(id, kind, properties);
        let others: Vec<_> = others.iter().filter(|other| self.resources.contains_key(**other)).collect();
        if !others.is_empty() {
            self.resources[id]["DependsOn"] = json!(others);
        }
    }

    /// What another stack's parameters are filled with.
    pub fn output(&mut self, name: &str, description: &str, value: Value) {
        self.outputs.insert(name.to_owned(), json!({"Description": description, "Value": value}));
    }

    pub fn json(self) -> Value {
        let mut template = json!({
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": self.description,
            "Resources": self.resources,
        });
        for (section, entries) in [("Parameters", self.parameters), ("Outputs", self.outputs)] {
            if !entries.is_empty() {
                template[section] = Value::Object(entries);
            }
        }
        template
    }

    pub fn role(&mut self, role: &Role) {
        let mut properties = json!({"RoleName": role.name, "AssumeRolePolicyDocument": role.trust});
        if !role.managed.is_empty() {
            properties["ManagedPolicyArns"] = json!(role.managed);
        }
        if let Some(policy) = role.policy() {
            properties["Policies"] = json!([{"PolicyName": role.name, "PolicyDocument": policy}]);
        }
        if let Some(boundary) = &role.boundary {
            properties["PermissionsBoundary"] = json!(boundary);
        }
        self.resource(role_id(role), "AWS::IAM::Role", properties);
    }

    pub fn log_group(&mut self, name: &str, retention_days: u32) {
        let properties = json!({"LogGroupName": name, "RetentionInDays": retention_days});
        self.resource(LOG_GROUP, "AWS::Logs::LogGroup", properties);
    }

    /// A repository that keeps the image in use and the newest others; all, where the one in use is named by its digest, which
    /// no rule of ECR can name.
    pub fn repository(&mut self, name: &str, image: &str) {
        const KEPT: u32 = 20;
        let mut properties = json!({
            "RepositoryName": name,
            "EmptyOnDelete": true,
            "ImageScanningConfiguration": {"ScanOnPush": true},
        });
        let tag = tag_in(name, image);
        if tag.is_some_and(|tag| tag.contains('@')) {
            return self.resource(REPOSITORY, "AWS::ECR::Repository", properties);
        }
        let mut rules = Vec::new();
        // ECR expires no image by a rule that an earlier rule speaks of, whatever its age (AWS page "Lifecycle policy properties").
        if let Some(tag) = tag {
            rules.push(json!({
                "rulePriority": 1, "description": "The image in use stays",
                "selection": {
                    "tagStatus": "tagged", "tagPatternList": [tag], "countType": "imageCountMoreThan", "countNumber": 1,
                },
                "action": {"type": "expire"},
            }));
        }
        rules.push(json!({
            "rulePriority": 2, "description": format!("Of all others the newest {KEPT} stay"),
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": KEPT},
            "action": {"type": "expire"},
        }));
        properties["LifecyclePolicy"] = json!({"LifecyclePolicyText": json!({"rules": rules}).to_string()});
        self.resource(REPOSITORY, "AWS::ECR::Repository", properties);
    }
}

/// Logical ids that are the same in each template.
pub(super) const CLUSTER: &str = "Cluster";
pub(super) const LOG_GROUP: &str = "LogGroup";
pub(super) const REPOSITORY: &str = "Repository";
pub(super) const TASK_DEFINITION: &str = "TaskDefinition";

pub(super) fn role_id(role: &Role) -> &'static str {
    use super::policy::Purpose;
    match role.purpose {
        Purpose::Job => "JobRole",
        Purpose::Execution | Purpose::ManagerExecution => "ExecutionRole",
        Purpose::Manager | Purpose::SharedManager => "ManagerRole",
    }
}

/// The tag of an image of this repository, or what has an `@` in it: its digest. None for an image from elsewhere.
fn tag_in<'a>(repository: &str, image: &'a str) -> Option<&'a str> {
    let (_, path) = image.split_once('/')?;
    let rest = path.strip_prefix(repository)?;
    rest.strip_prefix(':').or_else(|| rest.starts_with('@').then_some(rest))
}

pub(super) fn runtime_platform(architecture: Architecture) -> Value {
    let cpu = match architecture {
        Architecture::X86_64 => "X86_64",
        Architecture::Arm64 => "ARM64",
    };
    json!({"CpuArchitecture": cpu, "OperatingSystemFamily": "LINUX"})
}

/// A full log may cost lines, and must not hold a job up: the job's own log goes to GitLab and not this way. ECS's default was
/// the other way round until 2025, so the mode is written down.
pub(super) fn log_configuration(place: &Place, log_group: &str, prefix: &str) -> Value {
    json!({"LogDriver": "awslogs", "Options": {
        "awslogs-group": log_group,
        "awslogs-region": place.region,
        "awslogs-stream-prefix": prefix,
        "mode": "non-blocking",
    }})
}
