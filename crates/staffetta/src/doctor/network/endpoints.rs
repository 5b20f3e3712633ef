//! VPC endpoints: which of them serve a task, and which are in its way.

use aws::inspect::{SecurityGroup, Subnet, VpcEndpoint};

use super::security_groups::{Admits, Party, admits};
use super::way_out::Wanted;
use crate::doctor::Finding;

pub const ENDPOINTS: &str = "vpc-endpoints";

fn serves(endpoint: &VpcEndpoint, region: &str, service: &str) -> bool {
    // China's begin with cn.com.amazonaws.
    endpoint.service.ends_with(&format!("com.amazonaws.{region}.{service}"))
}

/// Whether tasks of a subnet with this table reach a service by it. An interface that the service's name does not lead to is
/// found by [`closed_endpoints`]; beside that of S3 there is mostly a gateway.
pub fn leads_to(endpoint: &VpcEndpoint, region: &str, service: &str, table: &str) -> bool {
    let here = match endpoint.interface {
        true => service != "s3" || endpoint.private_dns,
        false => endpoint.route_tables.iter().any(|id| id == table),
    };
    here && serves(endpoint, region, service)
}

/// The command that lets this table and these subnets reach a service.
pub fn create_endpoint(
    wanted: &Wanted,
    service: &str,
    table: &str,
    vpc: &str,
    subnets: &[&str],
    endpoints: &[&VpcEndpoint],
) -> String {
    let region = wanted.region;
    if service == "s3" {
        return match endpoints.iter().find(|endpoint| serves(endpoint, region, service) && !endpoint.interface) {
            Some(endpoint) => format!(
                "`aws ec2 modify-vpc-endpoint --vpc-endpoint-id {} --add-route-table-ids {table} --region {region}`",
                endpoint.id
            ),
            None => format!(
                "`aws ec2 create-vpc-endpoint --vpc-id {vpc} --service-name com.amazonaws.{region}.s3 --route-table-ids {table} --region {region}`"
            ),
        };
    }
    format!(
        "`aws ec2 create-vpc-endpoint --vpc-id {vpc} --vpc-endpoint-type Interface --service-name com.amazonaws.{region}.{service} \
         --subnet-ids {} --security-group-ids SECURITY_GROUP --private-dns-enabled --region {region}`, where SECURITY_GROUP lets in \
         443 from these subnets",
        subnets.join(" "),
    )
}

/// Interface endpoints that catch what tasks send to a service, and do not serve it. With private DNS they do so even where
/// there is a way to the internet.
pub fn closed_endpoints(
    wanted: &Wanted,
    is_only_way: bool,
    subnets: &[Subnet],
    endpoints: &[&VpcEndpoint],
    groups: &[SecurityGroup],
) -> Vec<Finding> {
    let region = wanted.region;
    let needed = |endpoint: &&&VpcEndpoint| {
        wanted.needs.is_some_and(|needs| needs.services.iter().any(|service| serves(endpoint, region, service)))
    };
    let in_use = |endpoint: &&&VpcEndpoint| {
        // Without names of its own an interface of S3 is for other networks: tasks go by the gateway, which their way out asks for.
        let for_others = serves(endpoint, region, "s3");
        endpoint.interface && (endpoint.private_dns || is_only_way && !for_others)
    };
    let tasks = Party::new(wanted.groups, subnets.iter().map(|subnet| subnet.cidr.as_str()));
    let breaks = "No task starts: \"ResourceInitializationError … i/o timeout\", or CannotPullContainerError.";
    let (mut findings, mut good) = (Vec::new(), Vec::new());
    for endpoint in endpoints.iter().filter(needed).filter(in_use) {
        let VpcEndpoint { id, service, .. } = *endpoint;
        if endpoint.state != "available" {
            findings.push(Finding::bad(
                ENDPOINTS,
                format!("{id} for {service} is {}", endpoint.state),
                breaks,
                "Wait until it is available, or make it anew.",
            ));
            continue;
        }
        if !endpoint.private_dns {
            findings.push(Finding::bad(
                ENDPOINTS,
                format!("{id} for {service} has no private DNS: the service's name does not lead to it"),
                breaks,
                format!("`aws ec2 modify-vpc-endpoint --vpc-endpoint-id {id} --private-dns-enabled --region {region}`"),
            ));
            continue;
        }
        let rules =
            groups.iter().filter(|group| endpoint.security_groups.contains(&group.id)).flat_map(|group| &group.ingress);
        match admits(rules, 443, &tasks) {
            Admits::Yes => good.push(service.rsplit(&format!("{region}.")).next().unwrap_or(service)),
            Admits::Perhaps(peer) => findings.push(Finding::skipped(
                ENDPOINTS,
                format!("{id} for {service} lets in {peer}, and whether tasks are among them doctor does not see"),
                "`staffetta doctor --run` starts a task that uses it.",
            )),
            Admits::No => findings.push(Finding::bad(
                ENDPOINTS,
                format!("{id} for {service} does not let in 443 from the tasks ({})", endpoint.security_groups.join(", ")),
                breaks,
                match (endpoint.security_groups.first(), wanted.groups.first()) {
                    (Some(to), Some(from)) => format!("`aws ec2 authorize-security-group-ingress --group-id {to} --protocol tcp --port 443 --source-group {from} --region {region}`"),
                    _ => "Let 443 in from the tasks' subnets.".to_owned(),
                },
            )),
        }
    }
    if findings.is_empty() {
        findings.push(match (&good[..], wanted.owner) {
            ([], Some(owner)) => Finding::skipped(
                ENDPOINTS,
                format!("the VPC is of account {owner}, which does not show its endpoints"),
                "`staffetta doctor --run` starts a task there.",
            ),
            ([], None) => Finding::good(ENDPOINTS, "none is in the way of tasks"),
            _ => Finding::good(ENDPOINTS, format!("{} let the tasks in", good.join(", "))),
        });
    }
    findings
}
