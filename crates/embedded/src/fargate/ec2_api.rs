//! The EC2 calls that belong to a task's network: interfaces are those of living tasks, subnets and security groups
//! exist by being named.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;

use super::accounts::account_of;
use super::failure::Failure;
use super::state::{State, Status, Task};
use super::{task_json, xml};

/// The parameters of a Query call, such as `NetworkInterfaceId.1`.
pub(super) type Parameters = BTreeMap<String, String>;

const VPC: &str = "vpc-00000000000000000";

pub(super) fn answer(state: &State, account: &str, action: &str, parameters: &Parameters) -> Result<Response, Failure> {
    if parameters.keys().any(|name| name.starts_with("Filter.")) {
        return Err(Failure::new("UnsupportedOperation", "Filters are not served here; name the ids."));
    }
    let set = match action {
        "DescribeNetworkInterfaces" => {
            describe_network_interfaces(state, account, &list(parameters, "NetworkInterfaceId"))?
        }
        "DescribeSubnets" => describe_subnets(state, account, &list(parameters, "SubnetId"))?,
        "DescribeSecurityGroups" => describe_security_groups(account, &list(parameters, "GroupId"))?,
        _ => {
            return Err(Failure::new(
                "InvalidAction",
                format!("The action {action} is not valid for this web service."),
            ));
        }
    };
    let namespace = "xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"";
    let request_id = xml::text("requestId", &xml::request_id());
    let document = format!("<{action}Response {namespace}>{request_id}{set}</{action}Response>");
    Ok(xml::answer(StatusCode::OK, document))
}

/// `Name.1`, `Name.2`, … in their order.
fn list(parameters: &Parameters, name: &str) -> Vec<String> {
    (1..).map_while(|number| parameters.get(&format!("{name}.{number}")).cloned()).collect()
}

fn describe_network_interfaces(state: &State, account: &str, ids: &[String]) -> Result<String, Failure> {
    let living: Vec<&Task> = state
        .tasks
        .values()
        .filter(|task| task.interface.address.is_some() && task.status < Status::Stopped)
        .filter(|task| account_of(&task.arn) == account)
        .filter(|task| ids.is_empty() || ids.contains(&task.interface.id))
        .collect();
    if let Some(id) = ids.iter().find(|id| !living.iter().any(|task| task.interface.id == **id)) {
        let message = format!("The networkInterface ID '{id}' does not exist");
        return Err(Failure::new("InvalidNetworkInterfaceID.NotFound", message));
    }
    Ok(xml::items("networkInterfaceSet", living.into_iter().map(|task| interface(state, account, task))))
}

fn interface(state: &State, account: &str, task: &Task) -> Vec<String> {
    let interface = &task.interface;
    let address = interface.address.map(|address| address.to_string()).unwrap_or_default();
    let groups = interface.security_groups.iter().map(|id| vec![xml::text("groupId", id), xml::text("groupName", id)]);
    let mut shape = vec![
        xml::text("networkInterfaceId", &interface.id),
        xml::text("subnetId", &interface.subnet),
        xml::text("vpcId", VPC),
        xml::text("availabilityZone", &format!("{}a", state.region)),
        xml::text(
            "description",
            &format!("arn:aws:ecs:{}:{account}:attachment/{}", state.region, interface.attachment),
        ),
        xml::text("ownerId", account),
        xml::text("status", "in-use"),
        xml::text("macAddress", &interface.mac),
        xml::text("privateIpAddress", &address),
        xml::text("privateDnsName", &task_json::private_dns_name(interface, &state.region)),
        xml::text("interfaceType", "interface"),
        xml::items("groupSet", groups),
    ];
    if interface.public {
        // Every task is reached on loopback, inside and outside its VPC.
        let association = [xml::text("publicIp", &address), xml::text("ipOwnerId", "amazon")];
        shape.push(xml::element("association", &association));
    }
    shape
}

fn describe_subnets(state: &State, account: &str, ids: &[String]) -> Result<String, Failure> {
    if let Some(id) = ids.iter().find(|id| !id.starts_with("subnet-")) {
        return Err(Failure::new("InvalidSubnetID.NotFound", format!("The subnet ID '{id}' does not exist")));
    }
    let shape = |id: &String| {
        vec![
            xml::text("subnetId", id),
            xml::text("vpcId", VPC),
            xml::text("ownerId", account),
            xml::text("state", "available"),
            xml::text("cidrBlock", "127.0.0.0/8"),
            xml::text("availableIpAddressCount", "65000"),
            xml::text("availabilityZone", &format!("{}a", state.region)),
            xml::text("mapPublicIpOnLaunch", "false"),
        ]
    };
    Ok(xml::items("subnetSet", ids.iter().map(shape)))
}

/// Nothing filters loopback, and the rules say so.
fn describe_security_groups(account: &str, ids: &[String]) -> Result<String, Failure> {
    if let Some(id) = ids.iter().find(|id| !id.starts_with("sg-")) {
        return Err(Failure::new("InvalidGroup.NotFound", format!("The security group '{id}' does not exist")));
    }
    let everything = || {
        let ranges = xml::items("ipRanges", std::iter::once(vec![xml::text("cidrIp", "0.0.0.0/0")]));
        std::iter::once(vec![xml::text("ipProtocol", "-1"), ranges])
    };
    let shape = |id: &String| {
        vec![
            xml::text("groupId", id),
            xml::text("groupName", id),
            xml::text("groupDescription", "loopback"),
            xml::text("vpcId", VPC),
            xml::text("ownerId", account),
            xml::items("ipPermissions", everything()),
            xml::items("ipPermissionsEgress", everything()),
        ]
    };
    Ok(xml::items("securityGroupInfo", ids.iter().map(shape)))
}
