//! The AWS side of environments: what a deployment file asks for, the CloudFormation stacks that make it, and the policies
//! of its roles.

mod by_cloudformation;
pub mod cloudformation;
mod deployment;
mod environment_template;
mod manager_template;
mod names;
mod operator;
mod other_managers;
mod policy;
mod resources;
mod roles;
mod runner_secret;
mod stacks;
mod stop_tasks;

pub use deployment::{
    Architecture, CacheBucket, Deployment, Environment, JobRole, ManagerMode, ManagerService, Place, RunnerToken,
};
pub use manager_template::{ConfigText, MANAGER_CONTAINER};
pub use names::{
    DESIRED_COUNT, MANAGER_SECURITY_GROUP, ManagerOf, TASK_SECURITY_GROUP, arn, partition, token_variable,
};
pub use operator::{Operator, operators};
pub use other_managers::other_managers;
pub use policy::{Condition, Purpose, Role, Statement, document, managed_policies};
pub use resources::{DEPLOYMENT_TAG, ENVIRONMENT_TAG};
pub use roles::{ManagerWork, execution_statements, manager_statements, manager_work, roles};
pub use runner_secret::{RunnerSecret, runner_secret, store_runner_token};
pub use stacks::{Parameter, ParameterValue, Stack, StackKind, stacks};
pub use stop_tasks::stop_tasks;
