//! Where the route table of a subnet leads.

use aws::inspect::{Route, RouteTable, RouteTarget, Subnet};

use crate::cidr::Cidr;

/// Where packets to the internet go. Of two, the later is the worse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way<'a> {
    NatGateway(&'a str),
    /// For public addresses.
    InternetGateway(&'a str),
    /// Somewhere that routes on, or not: a transit gateway, a firewall's endpoint, an instance.
    Elsewhere(&'a str),
    /// A route of which it cannot be told whether it has all that tasks talk to.
    Partly {
        destination: &'a str,
        target: &'a str,
    },
    /// To something that is gone.
    BlackHole(&'a str),
    Nowhere,
}

/// The whole of IPv4 in two: VPNs and firewalls name it so, for it goes before 0.0.0.0/0.
const HALVES: [&str; 2] = ["0.0.0.0/1", "128.0.0.0/1"];

/// A connection may need either half, so the worse one counts.
pub fn way(table: &RouteTable) -> Way<'_> {
    match HALVES.map(|half| narrowest(table, half)) {
        [Some(low), Some(high)] => way_of(low).max(way_of(high)),
        [Some(half), None] | [None, Some(half)] if leads_on(half) => partly(half),
        _ => {
            // ECR's usual names have no addresses of IPv6 (facts 8); the blocks of a list doctor does not read.
            let perhaps = |route: &&Route| leads_on(route) && (is_list(route) || route.destination == "::/0");
            table.routes.iter().find(perhaps).map_or(Way::Nowhere, partly)
        }
    }
}

fn way_of(route: &Route) -> Way<'_> {
    match &route.target {
        RouteTarget::Local => Way::Nowhere,
        target if !route.active => Way::BlackHole(id(target)),
        RouteTarget::InternetGateway(id) => Way::InternetGateway(id),
        RouteTarget::NatGateway(id) => Way::NatGateway(id),
        RouteTarget::TransitGateway(id) | RouteTarget::Other(id) => Way::Elsewhere(id),
        // A peering leads to the other VPC's addresses and no further, a gateway endpoint to its service.
        RouteTarget::Peering(_) | RouteTarget::GatewayEndpoint(_) => Way::Nowhere,
    }
}

fn partly(route: &Route) -> Way<'_> {
    Way::Partly { destination: &route.destination, target: id(&route.target) }
}

fn leads_on(route: &Route) -> bool {
    route.active && route.target != RouteTarget::Local
}

fn id(target: &RouteTarget) -> &str {
    match target {
        RouteTarget::Local => "local",
        RouteTarget::InternetGateway(id)
        | RouteTarget::NatGateway(id)
        | RouteTarget::TransitGateway(id)
        | RouteTarget::Peering(id)
        | RouteTarget::GatewayEndpoint(id)
        | RouteTarget::Other(id) => id,
    }
}

/// The narrowest route that has all of a block of IPv4.
pub fn narrowest<'a>(table: &'a RouteTable, block: &str) -> Option<&'a Route> {
    let block = Cidr::parse(block)?;
    let having = table.routes.iter().filter_map(|route| Some((Cidr::parse(&route.destination)?, route)));
    let best = having.filter(|(outer, _)| outer.contains(block)).max_by_key(|(outer, _)| outer.bits());
    best.map(|(_, route)| route)
}

/// A prefix list of somebody's own: those of gateway endpoints have the addresses of their service.
pub fn is_list(route: &Route) -> bool {
    route.destination.starts_with("pl-") && !matches!(route.target, RouteTarget::GatewayEndpoint(_))
}

/// A way to other networks. A registry, a proxy, and in a hub VPC the endpoints of AWS may stand there.
pub fn beyond(table: &RouteTable) -> Option<&str> {
    let leads_there = |route: &&Route| {
        let target = &route.target;
        route.active
            && !route.destination.contains(':')
            && matches!(target, RouteTarget::TransitGateway(_) | RouteTarget::Peering(_) | RouteTarget::Other(_))
    };
    table.routes.iter().find(leads_there).map(|route| id(&route.target))
}

/// The table of a subnet: the one that names it, or the main one of its VPC.
pub fn table_of<'a>(subnet: &Subnet, tables: &'a [RouteTable]) -> Option<&'a RouteTable> {
    let own = tables.iter().find(|table| table.subnets.contains(&subnet.id));
    own.or_else(|| tables.iter().find(|table| table.main && table.vpc == subnet.vpc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, RouteTarget, bool)]) -> RouteTable {
        let route = |(destination, target, active): &(&str, RouteTarget, bool)| Route {
            destination: (*destination).into(),
            target: target.clone(),
            active: *active,
        };
        RouteTable { routes: routes.iter().map(route).collect(), ..RouteTable::default() }
    }

    #[test]
    fn the_way_to_the_internet_is_that_of_both_halves_of_all_addresses() {
        let internet = || RouteTarget::InternetGateway("igw-1".into());
        let nat = || RouteTarget::NatGateway("nat-1".into());
        let transit = || RouteTarget::TransitGateway("tgw-1".into());
        let firewall = || RouteTarget::Other("vpce-1".into());
        let peering = || RouteTarget::Peering("pcx-1".into());
        let [low, high] = HALVES;
        let partly = |destination, target| Way::Partly { destination, target };
        for (routes, expected) in [
            (vec![("0.0.0.0/0", nat(), true)], Way::NatGateway("nat-1")),
            (vec![(low, nat(), true), (high, nat(), true)], Way::NatGateway("nat-1")),
            (vec![("0.0.0.0/0", firewall(), true)], Way::Elsewhere("vpce-1")),
            (vec![(low, nat(), true), (high, internet(), true)], Way::InternetGateway("igw-1")),
            (vec![(low, nat(), true), (high, transit(), true)], Way::Elsewhere("tgw-1")),
            (vec![(low, nat(), true), (high, nat(), false)], Way::BlackHole("nat-1")),
            // The halves go before the whole.
            (vec![("0.0.0.0/0", nat(), true), (low, firewall(), true)], Way::Elsewhere("vpce-1")),
            (vec![("0.0.0.0/0", nat(), false), (low, nat(), true), (high, nat(), true)], Way::NatGateway("nat-1")),
            (vec![(low, nat(), true)], partly(low, "nat-1")),
            (vec![("pl-1", nat(), true)], partly("pl-1", "nat-1")),
            (vec![("::/0", RouteTarget::Other("eigw-1".into()), true)], partly("::/0", "eigw-1")),
            (vec![("pl-1", nat(), false)], Way::Nowhere),
            (vec![("pl-1", RouteTarget::GatewayEndpoint("vpce-2".into()), true)], Way::Nowhere),
            (vec![("0.0.0.0/0", peering(), true)], Way::Nowhere),
            (vec![("10.0.0.0/8", transit(), true)], Way::Nowhere),
        ] {
            assert_eq!(way(&table(&routes)), expected, "{routes:?}");
        }
    }

    #[test]
    fn a_subnet_has_the_table_that_names_it_or_the_main_one_of_its_vpc() {
        let table = |id: &str, vpc: &str, subnets: &[&str]| RouteTable {
            id: id.into(),
            vpc: vpc.into(),
            main: subnets.is_empty(),
            subnets: subnets.iter().map(|id| (*id).to_owned()).collect(),
            routes: Vec::new(),
        };
        let tables = [
            table("rtb-other", "vpc-2", &[]),
            table("rtb-main", "vpc-1", &[]),
            table("rtb-own", "vpc-1", &["subnet-1"]),
        ];
        let of = |id: &str| {
            let subnet = Subnet { id: id.into(), vpc: "vpc-1".into(), ..Subnet::default() };
            table_of(&subnet, &tables).map(|table| table.id.as_str())
        };
        assert_eq!((of("subnet-1"), of("subnet-2")), (Some("rtb-own"), Some("rtb-main")));
    }
}
