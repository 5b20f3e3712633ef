//! What is there in AWS, as plain data: one file for each thing that is looked at. To judge it is the caller's part.

mod identity;
mod network;

pub use identity::{Identity, Principal, identity};
pub use network::{
    Peer, Route, RouteTable, RouteTarget, Rule, SecurityGroup, Subnet, VpcEndpoint, route_tables, security_groups,
    subnets, vpc_endpoints,
};
