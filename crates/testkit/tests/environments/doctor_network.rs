//! Networks as companies have them, which doctor must not take for faults; and refusals of AWS that are no missing permission.

use staffetta::deploy::file;
use testkit::AwsFront;

use crate::findings::Findings;
use crate::healthy_world::{World, ec2, in_world, made};
use crate::operator::{ACCOUNT, Operator, REGION};

/// Looks at `dev` while its default route is these routes, each a destination and a target.
async fn found_with_routes(world: &World, routes: &[[(&str, &str); 2]]) -> Findings {
    let table = ("RouteTableId", world.dev.table.as_str());
    let usual = ("DestinationCidrBlock", "0.0.0.0/0");
    ec2("DeleteRoute", &[table, usual]).await;
    for [destination, target] in routes {
        ec2("CreateRoute", &[table, *destination, *target]).await;
    }
    let found = world.found("dev").await;
    for [destination, _] in routes {
        ec2("DeleteRoute", &[table, *destination]).await;
    }
    ec2("CreateRoute", &[table, usual, ("NatGatewayId", &world.nat_gateway)]).await;
    found
}

#[test]
fn a_default_route_into_a_firewall_is_not_looked_through_and_no_fault() {
    in_world(async |world| {
        let firewall = [
            ("VpcId", world.dev.vpc.as_str()),
            ("VpcEndpointType", "GatewayLoadBalancer"),
            ("ServiceName", &format!("com.amazonaws.vpce.{REGION}.vpce-svc-0123456789abcdef0")),
            ("SubnetId.1", &world.dev.subnet),
        ];
        let firewall = made("CreateVpcEndpoint", &firewall, "vpcEndpointId").await;
        let route = [("DestinationCidrBlock", "0.0.0.0/0"), ("GatewayId", firewall.as_str())];
        let found = found_with_routes(world, &[route]).await;
        ec2("DeleteVpcEndpoints", &[("VpcEndpointId.1", &firewall)]).await;
        assert_eq!((found.faults("dev"), found.code), (vec![], Some(0)), "{found:#?}");
        found.expect("dev", "way-out", "skipped", &[&firewall, "--run"]);
    });
}

#[test]
fn a_default_route_in_two_halves_is_one() {
    in_world(async |world| {
        let half = |half| [("DestinationCidrBlock", half), ("NatGatewayId", world.nat_gateway.as_str())];
        let found = found_with_routes(world, &[half("0.0.0.0/1"), half("128.0.0.0/1")]).await;
        assert_eq!(found.faults("dev"), [], "{found:#?}");
        found.expect("dev", "way-out", "good", &[&world.nat_gateway]);
    });
}

#[test]
fn a_spoke_whose_endpoints_may_stand_in_a_hub_is_warned_of() {
    in_world(async |world| {
        let transit = made("CreateTransitGateway", &[("Description", "hub")], "transitGatewayId").await;
        let route = [("DestinationCidrBlock", "10.200.0.0/16"), ("TransitGatewayId", transit.as_str())];
        let found = found_with_routes(world, &[route]).await;
        assert_eq!((found.faults("dev"), found.code), (vec![("way-out", "warning")], Some(0)), "{found:#?}");
        found.expect("dev", "way-out", "warning", &["missing for ecr.api", &transit, "--run"]);
    });
}

#[test]
fn an_interface_endpoint_of_s3_beside_the_gateway_is_no_fault() {
    in_world(async |world| {
        let interface = [
            ("VpcId", world.isolated.vpc.as_str()),
            ("VpcEndpointType", "Interface"),
            ("ServiceName", &format!("com.amazonaws.{REGION}.s3")),
            ("SubnetId.1", &world.isolated.subnet),
            ("SecurityGroupId.1", &world.endpoint_group),
            ("PrivateDnsEnabled", "false"),
        ];
        let interface = made("CreateVpcEndpoint", &interface, "vpcEndpointId").await;
        let found = world.found("isolated").await;
        ec2("DeleteVpcEndpoints", &[("VpcEndpointId.1", &interface)]).await;
        assert_eq!((found.faults("isolated"), found.code), (vec![], Some(0)), "{found:#?}");
        found.expect("isolated", "vpc-endpoints", "good", &["ecr.api", "ecr.dkr", "logs"]);
    });
}

/// The healthy world behind a front of a test's own.
async fn front_before(world: &World) -> (AwsFront, Operator) {
    let front = AwsFront::start(world.front.url()).await;
    let operator = Operator::at(front.url());
    operator.write(file::FILE, &world.operator.read(file::FILE));
    (front, operator)
}

#[test]
fn the_endpoints_of_a_shared_vpc_are_its_owners() {
    in_world(async |world| {
        let (front, operator) = front_before(world).await;
        let subnets = ec2("DescribeSubnets", &[("SubnetId.1", &world.isolated.subnet)]).await;
        let owner = |account: &str| format!("<ownerId>{account}</ownerId>");
        assert!(subnets.contains(&owner(ACCOUNT)), "{subnets}");
        front.answer("ec2:DescribeSubnets", 200, &subnets.replace(&owner(ACCOUNT), &owner("210987654321")));
        front.answer("ec2:DescribeVpcEndpoints", 200, "<R><vpcEndpointSet/></R>");
        let found = Findings::of(&operator, &["--environment", "isolated"], &[]).await;
        assert_eq!((found.faults("isolated"), found.code), (vec![("way-out", "warning")], Some(0)), "{found:#?}");
        found.expect("isolated", "way-out", "warning", &["account 210987654321"]);
        found.expect("isolated", "vpc-endpoints", "skipped", &["account 210987654321"]);
    });
}

#[test]
fn a_refusal_is_a_missing_permission_only_where_aws_says_so() {
    in_world(async |world| {
        for (action, code, check, words, others) in [
            ("ecs:DescribeClusters", "ExpiredTokenException", "cluster", "log in again", "deploy policy"),
            ("ec2:DescribeRouteTables", "RequestExpired", "way-out", "log in again", "deploy policy"),
            ("servicequotas:GetServiceQuota", "NoSuchResourceException", "vcpu-quota", "AWS names", "deploy policy"),
            ("ecs:DescribeClusters", "AccessDeniedException", "cluster", "deploy policy", "log in again"),
        ] {
            let (front, operator) = front_before(world).await;
            front.fail(action, code, "words of AWS");
            let found = Findings::of(&operator, &["--environment", "dev"], &[]).await;
            let (verdict, evidence, fix) = found.only("dev", check);
            assert_eq!(verdict, "unknown", "{evidence}");
            assert!(evidence.contains(code) && fix.contains(words) && !fix.contains(others), "{evidence} {fix}");
        }
    });
}
