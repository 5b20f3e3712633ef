//! What is there in AWS, as plain data: one file for each thing that is looked at. To judge it is the caller's part.

mod cluster;
mod identity;
mod image;
mod logs;
mod network;
mod permissions;
mod quota;
mod role;
mod secret;
mod service;
mod task_definition;
mod tasks;

pub use cluster::{Cluster, cluster};
pub use identity::{Identity, Principal, identity};
pub use image::{EcrImage, Stored, image_exists, stored_image};
pub use logs::log_group_exists;
pub use network::{
    Peer, Route, RouteTable, RouteTarget, Rule, SecurityGroup, Subnet, VpcEndpoint, default_security_group,
    route_tables, security_groups, subnets, vpc_endpoints,
};
pub use permissions::{Decision, Simulated, simulate};
pub use quota::{FargateQuota, fargate_quota};
pub use role::{RoleTrust, role};
pub use secret::secret_text;
pub use service::{Service, service};
pub use task_definition::{Container, LogDriver, TaskDefinition, task_definition};
pub use tasks::{ending_tasks, running_tasks, stopped_tasks};
