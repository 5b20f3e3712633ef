//! The way between the manager and the tasks.

use aws::inspect::{RouteTable, RouteTarget, Subnet};

use super::routes::{Way, is_list, narrowest, table_of, way};
use crate::cidr::Cidr;
use crate::doctor::Finding;

pub const MANAGER_PATH: &str = "manager-path";

/// One end: subnets and the route tables of their VPC.
pub struct End<'a> {
    pub subnets: &'a [Subnet],
    pub tables: &'a [RouteTable],
}

const BREAKS: &str = "Tasks start, and no job reaches them: the manager's connections time out.";

/// A manager outside of the VPC reaches tasks by their public addresses.
pub fn check_public(tasks: &End) -> Finding {
    let ways = || tasks.subnets.iter().map(|subnet| (subnet, table_of(subnet, tasks.tables).map(way)));
    let is_lost = |way: Option<Way>| matches!(way, Some(Way::NatGateway(_) | Way::BlackHole(_) | Way::Nowhere));
    let lost: Vec<_> = ways().filter(|(_, way)| is_lost(*way)).map(|(subnet, _)| subnet.id.as_str()).collect();
    if !lost.is_empty() {
        return Finding::bad(
            MANAGER_PATH,
            format!("use_public_ip is set, and {} has no route to an internet gateway", lost.join(", ")),
            BREAKS,
            "Name subnets whose route table leads 0.0.0.0/0 to an internet gateway; or take use_public_ip out, and run the manager where it reaches private addresses.",
        );
    }
    match ways().find(|(_, way)| !matches!(way, Some(Way::InternetGateway(_)))) {
        None => Finding::good(MANAGER_PATH, "tasks are reached from the internet, by their public addresses"),
        Some((subnet, _)) => Finding::skipped(
            MANAGER_PATH,
            format!("use_public_ip is set, and whether {} is reached from the internet doctor does not see", subnet.id),
            TRIAL,
        ),
    }
}

const TRIAL: &str = "`staffetta doctor --run` on the manager's machine reaches a task.";

/// `manager` as far as it is seen; `cidr` is where it comes from as the configuration has it.
pub fn check(tasks: &End, manager: &End, cidr: Option<&str>) -> Finding {
    let same_vpc = |subnet: &Subnet| tasks.subnets.first().is_some_and(|task| task.vpc == subnet.vpc);
    if let Some(first) = manager.subnets.first()
        && manager.subnets.iter().all(same_vpc)
    {
        return Finding::good(MANAGER_PATH, format!("the manager is in {}, as the tasks are", first.vpc));
    }
    let blocks: Vec<&str> = match cidr {
        Some(cidr) => vec![cidr],
        None => manager.subnets.iter().map(|subnet| subnet.cidr.as_str()).collect(),
    };
    if blocks.is_empty() {
        return Finding::skipped(MANAGER_PATH, "where the manager is, the configuration does not say", TRIAL);
    }
    let there = manager.subnets.iter().flat_map(|from| tasks.subnets.iter().map(move |to| (from, to.cidr.as_str())));
    let there = there.map(|(from, to)| (from, manager.tables, to));
    let back = tasks.subnets.iter().flat_map(|from| blocks.iter().map(move |to| (from, tasks.tables, *to)));
    let (mut ways, mut unseen) = (Vec::new(), false);
    for (from, tables, to) in there.chain(back) {
        let missing = match route_to(from, tables, to) {
            Route::Leads(RouteTarget::Peering(id) | RouteTarget::TransitGateway(id)) => {
                ways.push(id.as_str());
                continue;
            }
            // A firewall or another machine: it routes on, or not.
            Route::Leads(RouteTarget::Other(id)) => {
                unseen = true;
                ways.push(id.as_str());
                continue;
            }
            // What the configuration has may be wider than where the manager is.
            _ if cidr == Some(to) && leads_to_a_part(from, tables, to) => {
                return Finding::skipped(
                    MANAGER_PATH,
                    format!(
                        "{} has a route to a part of {to} only; whether the manager is there doctor does not see",
                        from.id
                    ),
                    TRIAL,
                );
            }
            Route::Unknown => {
                return Finding::skipped(
                    MANAGER_PATH,
                    format!("whether {from} has a route to {to} doctor does not see", from = from.id),
                    TRIAL,
                );
            }
            Route::Leads(RouteTarget::Local) if manager.subnets.is_empty() => {
                return Finding::good(
                    MANAGER_PATH,
                    format!("{to}, where the manager is, is in the VPC of {}", from.id),
                );
            }
            Route::Leads(RouteTarget::Local) => {
                let evidence = format!("{to} is in the VPC of {} too: addresses of manager and tasks overlap", from.id);
                let fix =
                    "Put the manager into a VPC with other addresses, or set manager = \"each\" in staffetta.toml.";
                return Finding::bad(MANAGER_PATH, evidence, BREAKS, fix);
            }
            Route::Leads(RouteTarget::InternetGateway(id) | RouteTarget::NatGateway(id)) => {
                format!("{} sends what is for {to} to {id}, to the internet", from.id)
            }
            Route::Leads(RouteTarget::GatewayEndpoint(_)) | Route::Nowhere => {
                format!("{} has no route to {to}", from.id)
            }
            Route::BlackHole => format!("the route of {} to {to} leads to something that is gone", from.id),
        };
        let table = table_of(from, tables).map(|table| table.id.as_str()).unwrap_or_default();
        return Finding::bad(
            MANAGER_PATH,
            missing,
            BREAKS,
            format!(
                "Join the VPCs by a peering (or a transit gateway), then: `aws ec2 create-route --route-table-id {table} \
                 --destination-cidr-block {to} --vpc-peering-connection-id PEERING`; or set manager = \"each\" in staffetta.toml."
            ),
        );
    }
    ways.sort_unstable();
    ways.dedup();
    let ways = ways.join(", ");
    if manager.subnets.is_empty() {
        return Finding::skipped(
            MANAGER_PATH,
            format!("tasks answer {} by {ways}; the manager's own routes doctor does not see", blocks.join(", ")),
            TRIAL,
        );
    }
    if unseen {
        let evidence = format!("routes lead there and back by {ways}, behind which doctor does not see");
        return Finding::skipped(MANAGER_PATH, evidence, TRIAL);
    }
    Finding::good(MANAGER_PATH, format!("routes lead there and back by {ways}"))
}

#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Leads(&'a RouteTarget),
    BlackHole,
    Nowhere,
    /// It may be in a prefix list, or the subnet's table is not seen.
    Unknown,
}

/// The narrowest route that has all of a block.
fn route_to<'a>(from: &Subnet, tables: &'a [RouteTable], to: &str) -> Route<'a> {
    let Some(table) = table_of(from, tables).filter(|_| Cidr::parse(to).is_some()) else { return Route::Unknown };
    match narrowest(table, to) {
        Some(route) if !route.active => Route::BlackHole,
        Some(route) if !leads_out(&route.target) => Route::Leads(&route.target),
        _ if table.routes.iter().any(is_list) => Route::Unknown,
        Some(route) => Route::Leads(&route.target),
        None => Route::Nowhere,
    }
}

fn leads_to_a_part(from: &Subnet, tables: &[RouteTable], whole: &str) -> bool {
    let (Some(table), Some(whole)) = (table_of(from, tables), Cidr::parse(whole)) else { return false };
    let mut routes = table.routes.iter().filter(|route| route.active && route.target != RouteTarget::Local);
    routes.any(|route| Cidr::parse(&route.destination).is_some_and(|part| whole.contains(part)))
}

fn leads_out(target: &RouteTarget) -> bool {
    matches!(target, RouteTarget::InternetGateway(_) | RouteTarget::NatGateway(_))
}

#[cfg(test)]
mod tests {
    use aws::inspect::Route as RouteIn;

    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Skipped};

    fn subnet(id: &str, vpc: &str, cidr: &str) -> Subnet {
        Subnet { id: id.into(), vpc: vpc.into(), cidr: cidr.into(), ..Subnet::default() }
    }

    fn table(vpc: &str, routes: &[(&str, RouteTarget)]) -> RouteTable {
        let route = |(destination, target): &(&str, RouteTarget)| RouteIn {
            destination: (*destination).into(),
            target: target.clone(),
            active: true,
        };
        let routes = routes.iter().map(route).collect();
        RouteTable { id: format!("rtb-{vpc}"), vpc: vpc.into(), main: true, subnets: Vec::new(), routes }
    }

    fn peering() -> RouteTarget {
        RouteTarget::Peering("pcx-1".into())
    }

    fn nat() -> RouteTarget {
        RouteTarget::NatGateway("nat-1".into())
    }

    #[test]
    fn two_vpcs_need_routes_both_ways() {
        let tasks = [subnet("subnet-t", "vpc-t", "10.1.0.0/24")];
        let manager = [subnet("subnet-m", "vpc-m", "10.2.0.0/24")];
        let local = || ("10.1.0.0/16", RouteTarget::Local);
        let firewall = || RouteTarget::Other("vpce-9".into());
        let list = || ("pl-1", RouteTarget::TransitGateway("tgw-1".into()));
        for (there, back, verdict, words) in [
            (vec![("10.1.0.0/16", peering())], vec![local(), ("10.2.0.0/16", peering())], Good, "by pcx-1"),
            (
                vec![("10.1.0.0/16", peering())],
                vec![local(), ("0.0.0.0/0", RouteTarget::TransitGateway("tgw-1".into()))],
                Good,
                "pcx-1, tgw-1",
            ),
            (vec![("10.1.0.0/16", peering())], vec![local()], Bad, "subnet-t has no route to 10.2.0.0/24"),
            (vec![("10.1.0.0/16", peering())], vec![local(), ("0.0.0.0/0", nat())], Bad, "to nat-1, to the internet"),
            (vec![], vec![local(), ("10.2.0.0/16", peering())], Bad, "subnet-m has no route to 10.1.0.0/24"),
            // A part of the tasks' addresses is not all of them.
            (vec![("10.1.0.0/25", peering())], vec![local(), ("10.2.0.0/16", peering())], Bad, "subnet-m has no route"),
            (vec![("10.1.0.0/16", RouteTarget::Local)], vec![("10.2.0.0/16", peering())], Bad, "overlap"),
            (
                vec![("0.0.0.0/0", firewall())],
                vec![local(), ("10.2.0.0/16", peering())],
                Skipped,
                "pcx-1, vpce-9, behind which doctor does not see",
            ),
            (vec![list(), ("0.0.0.0/0", nat())], vec![local(), ("10.2.0.0/16", peering())], Skipped, "subnet-m"),
        ] {
            let (of_manager, of_tasks) = ([table("vpc-m", &there)], [table("vpc-t", &back)]);
            let finding = check(
                &End { subnets: &tasks, tables: &of_tasks },
                &End { subnets: &manager, tables: &of_manager },
                None,
            );
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.evidence.contains(words), "{}", finding.evidence);
        }
    }

    #[test]
    fn a_route_to_something_that_is_gone_is_none() {
        let tasks = [subnet("subnet-t", "vpc-t", "10.1.0.0/24")];
        let mut of_tasks = table("vpc-t", &[("10.2.0.0/16", peering())]);
        of_tasks.routes[0].active = false;
        let finding = check(
            &End { subnets: &tasks, tables: &[of_tasks] },
            &End { subnets: &[], tables: &[] },
            Some("10.2.0.0/16"),
        );
        assert_eq!(finding.verdict, Bad);
        assert!(finding.evidence.contains("gone"), "{}", finding.evidence);
    }

    #[test]
    fn one_vpc_needs_no_routes_and_what_is_not_seen_is_not_good() {
        let tasks = [subnet("subnet-t", "vpc-t", "10.1.0.0/24")];
        let of_tasks = [table("vpc-t", &[("10.2.0.0/16", peering())])];
        let tasks = End { subnets: &tasks, tables: &of_tasks };
        let beside = [subnet("subnet-m", "vpc-t", "10.1.1.0/24")];
        assert_eq!(check(&tasks, &End { subnets: &beside, tables: &[] }, None).verdict, Good);
        let unseen = End { subnets: &[], tables: &[] };
        assert_eq!(check(&tasks, &unseen, Some("10.2.0.0/24")).verdict, Skipped);
        assert_eq!(check(&tasks, &unseen, None).verdict, Skipped);
        assert_eq!(check(&tasks, &unseen, Some("10.9.0.0/24")).verdict, Bad);
        assert_eq!(check(&tasks, &unseen, Some("10.0.0.0/8")).verdict, Skipped);
        let local = [table("vpc-t", &[("10.1.0.0/16", RouteTarget::Local), ("0.0.0.0/0", nat())])];
        let tasks = End { tables: &local, ..tasks };
        assert_eq!(check(&tasks, &unseen, Some("10.1.9.0/24")).verdict, Good);
        assert_eq!(check(&tasks, &unseen, Some("10.0.0.0/8")).verdict, Bad);
    }

    #[test]
    fn public_addresses_need_an_internet_gateway() {
        let subnets = [subnet("subnet-t", "vpc-t", "10.1.0.0/24")];
        let internet = || RouteTarget::InternetGateway("igw-1".into());
        for (routes, verdict) in [
            (vec![("0.0.0.0/0", internet())], Good),
            (vec![("0.0.0.0/1", internet()), ("128.0.0.0/1", internet())], Good),
            (vec![("0.0.0.0/0", RouteTarget::Other("vpce-9".into()))], Skipped),
            (vec![("0.0.0.0/0", nat())], Bad),
            (vec![], Bad),
        ] {
            let tables = [table("vpc-t", &routes)];
            assert_eq!(check_public(&End { subnets: &subnets, tables: &tables }).verdict, verdict, "{routes:?}");
        }
    }
}
