//! The stacks of a deployment, in the order in which they are made.

use serde_json::Value;

use super::deployment::Place;

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackKind {
    /// Cluster, log group, security groups, roles, task definition, repository, bucket of one environment.
    Environment(String),
    /// The service of one manager; none is the shared one.
    Manager(Option<String>),
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

/// The parameter of a manager's stack that says how many managers run.
pub const DESIRED_COUNT: &str = "DesiredCount";
/// Outputs of an environment's stack.
pub const TASK_SECURITY_GROUP: &str = "TaskSecurityGroup";
/// The group of the environment's own manager; of a shared one, an output of the manager's stack.
pub const MANAGER_SECURITY_GROUP: &str = "ManagerSecurityGroup";
