//! What EC2 says about subnets, their ways out, and who may talk to whom. No judgement.

use crate::errors::CallError;
use crate::session::Session;
use crate::xml::Element;

const EC2: &str = "2016-11-15";

/// A subnet as DescribeSubnets has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subnet {
    pub id: String,
    pub vpc: String,
    pub zone: String,
    /// IPv4; empty where the subnet has none.
    pub cidr: String,
    pub free_addresses: u64,
    /// 12 digits: the account whose VPC it is, which may share it with others.
    pub owner: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    pub id: String,
    pub vpc: String,
    /// For the subnets of the VPC that no other table names.
    pub main: bool,
    /// The subnets that name this one.
    pub subnets: Vec<String>,
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// A block of IPv4 or IPv6, or the id of a prefix list.
    pub destination: String,
    pub target: RouteTarget,
    /// False is a black hole: what it leads to is gone.
    pub active: bool,
}

/// Where a route leads, with the id of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// Inside the VPC.
    Local,
    InternetGateway(String),
    NatGateway(String),
    TransitGateway(String),
    Peering(String),
    /// To the addresses of one service, which a prefix list has.
    GatewayEndpoint(String),
    /// A network interface, a firewall's endpoint, a VPN gateway, …
    Other(String),
}

/// A VPC endpoint: a private way to one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VpcEndpoint {
    pub id: String,
    /// `com.amazonaws.eu-west-1.ecr.api`
    pub service: String,
    /// An interface in subnets; otherwise (gateway) an entry in route tables.
    pub interface: bool,
    /// `available` once it can be used.
    pub state: String,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub route_tables: Vec<String>,
    /// The service's usual name leads here inside the VPC. That of S3 may do so for other networks alone, beside a gateway
    /// endpoint (the S3 User Guide's "AWS PrivateLink for Amazon S3").
    pub private_dns: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityGroup {
    pub id: String,
    pub name: String,
    pub vpc: String,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

/// What a security group lets through: one protocol and range of ports, from or to any of its peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `tcp`, `udp`, a number, or `-1` for all.
    pub protocol: String,
    /// First and last; none is every port.
    pub ports: Option<(u16, u16)>,
    pub peers: Vec<Peer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A block of IPv4 or IPv6.
    Cidr(String),
    /// Whatever has this security group.
    Group(String),
    PrefixList(String),
}

/// Those of the subnets that exist. Needs `ec2:DescribeSubnets`.
pub async fn subnets(session: &Session, ids: &[String]) -> Result<Vec<Subnet>, CallError> {
    let subnets = describe(session, "DescribeSubnets", "subnetSet", &[("subnet-id", ids)]).await?;
    Ok(subnets.iter().map(subnet).collect())
}

/// All route tables of a VPC. Needs `ec2:DescribeRouteTables`.
pub async fn route_tables(session: &Session, vpc: &str) -> Result<Vec<RouteTable>, CallError> {
    let tables = describe(session, "DescribeRouteTables", "routeTableSet", &[("vpc-id", &[vpc.to_owned()])]).await?;
    Ok(tables.iter().map(route_table).collect())
}

/// All endpoints of a VPC. Needs `ec2:DescribeVpcEndpoints`.
pub async fn vpc_endpoints(session: &Session, vpc: &str) -> Result<Vec<VpcEndpoint>, CallError> {
    let vpc = [vpc.to_owned()];
    let endpoints = describe(session, "DescribeVpcEndpoints", "vpcEndpointSet", &[("vpc-id", &vpc)]).await?;
    Ok(endpoints.iter().map(vpc_endpoint).collect())
}

/// Those of the security groups that exist. Needs `ec2:DescribeSecurityGroups`.
pub async fn security_groups(session: &Session, ids: &[String]) -> Result<Vec<SecurityGroup>, CallError> {
    let groups = describe(session, "DescribeSecurityGroups", "securityGroupInfo", &[("group-id", ids)]).await?;
    Ok(groups.iter().map(security_group).collect())
}

/// The security group of what names none. Needs `ec2:DescribeSecurityGroups`.
pub async fn default_security_group(session: &Session, vpc: &str) -> Result<Option<SecurityGroup>, CallError> {
    let filters = [("vpc-id", &[vpc.to_owned()][..]), ("group-name", &["default".to_owned()][..])];
    let groups = describe(session, "DescribeSecurityGroups", "securityGroupInfo", &filters).await?;
    Ok(groups.first().map(security_group))
}

/// All that the filters let through, each a name and its values. Asked by id, EC2 would refuse the whole call for one thing
/// that does not exist.
async fn describe(
    session: &Session,
    action: &str,
    list: &str,
    filters: &[(&str, &[String])],
) -> Result<Vec<Element>, CallError> {
    let question = question(filters);
    let mut items = Vec::new();
    let mut next = None;
    loop {
        let page = question.iter().cloned().chain(next.map(|token| ("NextToken".to_owned(), token)));
        let answer = session.query("ec2", EC2, action, &page.collect::<Vec<_>>()).await?;
        items.extend(answer.list(list).cloned());
        next = answer.filled("nextToken");
        if next.is_none() {
            return Ok(items);
        }
    }
}

fn question(filters: &[(&str, &[String])]) -> Vec<(String, String)> {
    let mut question = Vec::new();
    for (number, (name, values)) in (1..).zip(filters) {
        question.push((format!("Filter.{number}.Name"), (*name).to_owned()));
        let values = (1..).zip(*values).map(|(i, value)| (format!("Filter.{number}.Value.{i}"), value.clone()));
        question.extend(values);
    }
    question
}

fn subnet(item: &Element) -> Subnet {
    Subnet {
        id: item.text("subnetId").to_owned(),
        vpc: item.text("vpcId").to_owned(),
        zone: item.text("availabilityZone").to_owned(),
        cidr: item.text("cidrBlock").to_owned(),
        free_addresses: item.text("availableIpAddressCount").parse().unwrap_or(0),
        owner: item.text("ownerId").to_owned(),
    }
}

fn route_table(item: &Element) -> RouteTable {
    let associations = || item.list("associationSet");
    RouteTable {
        id: item.text("routeTableId").to_owned(),
        vpc: item.text("vpcId").to_owned(),
        main: associations().any(|association| association.text("main") == "true"),
        subnets: associations().filter_map(|association| association.filled("subnetId")).collect(),
        routes: item.list("routeSet").filter_map(route).collect(),
    }
}

fn route(item: &Element) -> Option<Route> {
    let destinations = ["destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId"];
    let destination = destinations.into_iter().find_map(|name| item.filled(name))?;
    // An instance has an interface too, and the interface is where the route leads.
    let targets = [
        "gatewayId",
        "natGatewayId",
        "transitGatewayId",
        "vpcPeeringConnectionId",
        "networkInterfaceId",
        "instanceId",
        "egressOnlyInternetGatewayId",
        "carrierGatewayId",
        "localGatewayId",
        "coreNetworkArn",
    ];
    let id = targets.into_iter().find_map(|name| item.filled(name)).unwrap_or_default();
    let target = match id.split('-').next().unwrap_or_default() {
        "local" => RouteTarget::Local,
        "igw" => RouteTarget::InternetGateway(id),
        "nat" => RouteTarget::NatGateway(id),
        "tgw" => RouteTarget::TransitGateway(id),
        "pcx" => RouteTarget::Peering(id),
        // Those of Network Firewall and of Gateway Load Balancers are called so too, and take blocks.
        "vpce" if destination.starts_with("pl-") => RouteTarget::GatewayEndpoint(id),
        _ => RouteTarget::Other(id),
    };
    Some(Route { destination, target, active: item.text("state") != "blackhole" })
}

fn vpc_endpoint(item: &Element) -> VpcEndpoint {
    let for_others = item.child("dnsOptions").text("privateDnsOnlyForInboundResolverEndpoint") == "true";
    let texts = |list| item.list(list).map(|item| item.text.clone()).collect();
    VpcEndpoint {
        id: item.text("vpcEndpointId").to_owned(),
        service: item.text("serviceName").to_owned(),
        interface: item.text("vpcEndpointType") == "Interface",
        // The reference writes `Available`, EC2 `available`.
        state: item.text("state").to_lowercase(),
        subnets: texts("subnetIdSet"),
        security_groups: item.list("groupSet").map(|group| group.text("groupId").to_owned()).collect(),
        route_tables: texts("routeTableIdSet"),
        private_dns: item.text("privateDnsEnabled") == "true" && !for_others,
    }
}

fn security_group(item: &Element) -> SecurityGroup {
    SecurityGroup {
        id: item.text("groupId").to_owned(),
        name: item.text("groupName").to_owned(),
        vpc: item.text("vpcId").to_owned(),
        ingress: item.list("ipPermissions").map(rule).collect(),
        egress: item.list("ipPermissionsEgress").map(rule).collect(),
    }
}

fn rule(item: &Element) -> Rule {
    let port = |name| item.text(name).parse::<u16>().ok();
    let peers = |list, name, peer: fn(String) -> Peer| item.list(list).filter_map(move |e| e.filled(name)).map(peer);
    let peers = peers("ipRanges", "cidrIp", Peer::Cidr)
        .chain(peers("ipv6Ranges", "cidrIpv6", Peer::Cidr))
        .chain(peers("groups", "groupId", Peer::Group))
        .chain(peers("prefixListIds", "prefixListId", Peer::PrefixList));
    Rule {
        protocol: item.text("ipProtocol").to_owned(),
        ports: port("fromPort").zip(port("toPort")),
        peers: peers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> Element {
        Element::read(document).expect("a tree")
    }

    #[test]
    fn a_route_is_known_by_what_it_leads_to() {
        let table = route_table(&read(
            "<item><routeTableId>rtb-1</routeTableId><vpcId>vpc-1</vpcId>
             <associationSet><item><main>true</main></item><item><main>false</main><subnetId>subnet-1</subnetId></item></associationSet>
             <routeSet>
               <item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId><state>active</state></item>
               <item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><natGatewayId>nat-1</natGatewayId><state>blackhole</state></item>
               <item><destinationPrefixListId>pl-1</destinationPrefixListId><gatewayId>vpce-1</gatewayId><state>active</state></item>
               <item><destinationCidrBlock>10.8.0.0/16</destinationCidrBlock><gatewayId>vpce-2</gatewayId><state>active</state></item>
               <item><destinationCidrBlock>10.9.0.0/16</destinationCidrBlock><vpcPeeringConnectionId>pcx-1</vpcPeeringConnectionId></item>
               <item><destinationIpv6CidrBlock>::/0</destinationIpv6CidrBlock><instanceId>i-1</instanceId><networkInterfaceId>eni-1</networkInterfaceId></item>
             </routeSet></item>",
        ));
        let route = |destination: &str, target, active| Route { destination: destination.into(), target, active };
        let expected = RouteTable {
            id: "rtb-1".into(),
            vpc: "vpc-1".into(),
            main: true,
            subnets: vec!["subnet-1".into()],
            routes: vec![
                route("10.0.0.0/16", RouteTarget::Local, true),
                route("0.0.0.0/0", RouteTarget::NatGateway("nat-1".into()), false),
                route("pl-1", RouteTarget::GatewayEndpoint("vpce-1".into()), true),
                route("10.8.0.0/16", RouteTarget::Other("vpce-2".into()), true),
                route("10.9.0.0/16", RouteTarget::Peering("pcx-1".into()), true),
                route("::/0", RouteTarget::Other("eni-1".into()), true),
            ],
        };
        assert_eq!(table, expected);
    }

    #[test]
    fn a_rule_names_its_ports_and_every_kind_of_peer() {
        let group = security_group(&read(
            "<item><groupId>sg-1</groupId><groupName>tasks</groupName><vpcId>vpc-1</vpcId>
             <ipPermissions><item><ipProtocol>tcp</ipProtocol><fromPort>22</fromPort><toPort>22</toPort>
               <groups><item><userId>1</userId><groupId>sg-2</groupId></item></groups>
               <ipRanges><item><cidrIp>10.0.0.0/8</cidrIp></item></ipRanges>
               <ipv6Ranges><item><cidrIpv6>::/0</cidrIpv6></item></ipv6Ranges>
               <prefixListIds><item><prefixListId>pl-1</prefixListId></item></prefixListIds></item></ipPermissions>
             <ipPermissionsEgress><item><ipProtocol>-1</ipProtocol><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges></item>
             </ipPermissionsEgress></item>",
        ));
        let expected = SecurityGroup {
            id: "sg-1".into(),
            name: "tasks".into(),
            vpc: "vpc-1".into(),
            ingress: vec![Rule {
                protocol: "tcp".into(),
                ports: Some((22, 22)),
                peers: vec![
                    Peer::Cidr("10.0.0.0/8".into()),
                    Peer::Cidr("::/0".into()),
                    Peer::Group("sg-2".into()),
                    Peer::PrefixList("pl-1".into()),
                ],
            }],
            egress: vec![Rule { protocol: "-1".into(), ports: None, peers: vec![Peer::Cidr("0.0.0.0/0".into())] }],
        };
        assert_eq!(group, expected);
    }

    #[test]
    fn an_endpoint_names_where_it_stands() {
        let endpoint = vpc_endpoint(&read(
            "<item><vpcEndpointId>vpce-1</vpcEndpointId><vpcEndpointType>Interface</vpcEndpointType>
             <serviceName>com.amazonaws.eu-west-1.logs</serviceName><state>Available</state>
             <subnetIdSet><item>subnet-1</item></subnetIdSet><groupSet><item><groupId>sg-1</groupId></item></groupSet>
             <routeTableIdSet/><privateDnsEnabled>true</privateDnsEnabled></item>",
        ));
        let expected = VpcEndpoint {
            id: "vpce-1".into(),
            service: "com.amazonaws.eu-west-1.logs".into(),
            interface: true,
            state: "available".into(),
            subnets: vec!["subnet-1".into()],
            security_groups: vec!["sg-1".into()],
            route_tables: Vec::new(),
            private_dns: true,
        };
        assert_eq!(endpoint, expected);
    }

    #[test]
    fn a_name_that_leads_to_an_endpoint_for_other_networks_alone_does_not_inside_of_the_vpc() {
        for (enabled, for_others, expected) in
            [("true", "false", true), ("true", "true", false), ("false", "false", false)]
        {
            let endpoint = vpc_endpoint(&read(&format!(
                "<item><privateDnsEnabled>{enabled}</privateDnsEnabled><dnsOptions>
                 <privateDnsOnlyForInboundResolverEndpoint>{for_others}</privateDnsOnlyForInboundResolverEndpoint>
                 </dnsOptions></item>"
            )));
            assert_eq!(endpoint.private_dns, expected, "{enabled} {for_others}");
        }
    }

    #[test]
    fn everything_is_asked_for_by_filters() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let expected = [
            ("Filter.1.Name", "subnet-id"),
            ("Filter.1.Value.1", "subnet-1"),
            ("Filter.1.Value.2", "subnet-2"),
            ("Filter.2.Name", "vpc-id"),
            ("Filter.2.Value.1", "vpc-1"),
        ];
        let question = question(&[("subnet-id", &ids(&["subnet-1", "subnet-2"])), ("vpc-id", &ids(&["vpc-1"]))]);
        assert_eq!(question, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
