//! The stacks of a deployment, in the order in which they are made.

use serde_json::Value;

use super::deployment::{Deployment, ManagerMode, Place};
use super::environment_template::{environment_template, takes_manager_group};
use super::manager_template::{ConfigText, access_template, manager_template};
use super::names::{DESIRED_COUNT, MANAGER_SECURITY_GROUP, ManagerOf, TASK_SECURITY_GROUP, task_group_parameter};
use super::resources::tags;

/// One CloudFormation stack.
#[derive(Debug, Clone)]
pub struct Stack {
    pub name: String,
    pub place: Place,
    pub kind: StackKind,
    pub template: Value,
    pub parameters: Vec<Parameter>,
    /// On the stack, from where CloudFormation puts them on what it makes.
    pub tags: Vec<(String, String)>,
}

impl Stack {
    /// The stacks whose outputs it takes.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter_map(|parameter| match &parameter.value {
            ParameterValue::Output { stack, .. } => Some(stack.as_str()),
            ParameterValue::DesiredCount => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackKind {
    /// Cluster, log group, security groups, roles, task definition, repository, bucket of one environment.
    Environment(String),
    /// The service of one manager; none is the shared one.
    Manager(Option<String>),
    /// Role and security group of the shared manager, which the environments let in.
    ManagerAccess,
}

/// A parameter of the template, and where `apply` takes its value from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub value: ParameterValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterValue {
    /// An output of a stack that comes earlier.
    Output { stack: String, output: &'static str },
    /// `0` until the manager's image and every token are there, then `1`: a service that cannot start would take its whole
    /// stack back with it.
    DesiredCount,
}

/// The stacks of a deployment, in the order in which they are made: each needs only outputs and roles of those before it.
pub fn stacks(deployment: &Deployment, config: &ConfigText) -> Vec<Stack> {
    let mut stacks = Vec::new();
    if let ManagerMode::Shared(place) = &deployment.manager {
        stacks.push(Stack {
            name: deployment.manager_access_name(),
            place: place.clone(),
            kind: StackKind::ManagerAccess,
            template: access_template(deployment, place),
            parameters: Vec::new(),
            tags: tags(deployment, None).into_iter().collect(),
        });
    }
    for environment in &deployment.environments {
        let group = match &deployment.manager {
            ManagerMode::Shared(_) if takes_manager_group(deployment, environment) => {
                Some(output(MANAGER_SECURITY_GROUP, deployment.manager_access_name(), MANAGER_SECURITY_GROUP))
            }
            _ => None,
        };
        stacks.push(Stack {
            name: deployment.environment_name(environment),
            place: environment.place.clone(),
            kind: StackKind::Environment(environment.name.clone()),
            template: environment_template(deployment, environment),
            parameters: group.into_iter().collect(),
            tags: tags(deployment, Some(environment)).into_iter().collect(),
        });
    }
    for manager in deployment.managers() {
        let (environment, group_from) = match manager {
            ManagerOf::One(environment) => (Some(environment), deployment.environment_name(environment)),
            ManagerOf::All(_) => (None, deployment.manager_access_name()),
        };
        let count = Parameter { name: DESIRED_COUNT.to_owned(), value: ParameterValue::DesiredCount };
        let task_groups = deployment.environments_of(manager).into_iter().map(|environment| {
            output(&task_group_parameter(environment), deployment.environment_name(environment), TASK_SECURITY_GROUP)
        });
        let group = output(MANAGER_SECURITY_GROUP, group_from, MANAGER_SECURITY_GROUP);
        stacks.push(Stack {
            name: deployment.manager_name(manager),
            place: manager.place().clone(),
            kind: StackKind::Manager(environment.map(|environment| environment.name.clone())),
            template: manager_template(deployment, manager, config),
            parameters: [count, group].into_iter().chain(task_groups).collect(),
            tags: tags(deployment, environment).into_iter().collect(),
        });
    }
    stacks
}

fn output(parameter: &str, stack: String, output: &'static str) -> Parameter {
    Parameter { name: parameter.to_owned(), value: ParameterValue::Output { stack, output } }
}
