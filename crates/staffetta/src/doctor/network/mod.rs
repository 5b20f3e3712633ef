//! The network: the tasks' subnets, their way out, and the manager's way in.

mod endpoints;
mod manager_path;
mod routes;
mod security_groups;
mod subnets;
mod way_out;

use aws::inspect::{self, RouteTable, SecurityGroup, Subnet, TaskDefinition, VpcEndpoint};
use aws::{CallError, OpenError, Session};

use self::endpoints::ENDPOINTS;
use self::manager_path::{End, MANAGER_PATH};
use self::security_groups::{GROUPS, MANAGER_OUT, Scene};
use self::subnets::SUBNETS;
use self::way_out::{WAY_OUT, Wanted};
use super::subject::ManagerPlace;
use super::{Finding, Manager, Subject};
use crate::config::host;

/// `definition` is none where it is not known.
pub async fn check(subject: &Subject, session: &Session, definition: Option<&TaskDefinition>) -> Vec<Finding> {
    let fargate = &subject.runner.fargate;
    let found = match inspect::subnets(session, &fargate.subnets).await {
        Ok(found) => found,
        Err(error) => return vec![Finding::not_seen(SUBNETS, "ec2:DescribeSubnets", &error)],
    };
    let mut findings = subnets::check(&fargate.subnets, &found, subject.concurrent, session.region());
    // Without one VPC there is nothing that more could be said of.
    let Some(vpc) = found.first().map(|subnet| subnet.vpc.as_str()) else { return findings };
    if found.iter().any(|subnet| subnet.vpc != vpc) {
        return findings;
    }
    let (tables, endpoints, groups, manager) = tokio::join!(
        inspect::route_tables(session, vpc),
        inspect::vpc_endpoints(session, vpc),
        task_groups(session, &fargate.security_groups, vpc),
        ManagerSide::look(subject, session),
    );
    match (&tables, &endpoints) {
        (Ok(tables), Ok(endpoints)) => {
            findings.extend(ways_out(subject, session, definition, &found, tables, endpoints).await);
        }
        (Err(error), _) => findings.push(Finding::not_seen(WAY_OUT, "ec2:DescribeRouteTables", error)),
        (_, Err(error)) => findings.push(Finding::not_seen(ENDPOINTS, "ec2:DescribeVpcEndpoints", error)),
    }
    findings.push(match &manager {
        Ok(manager) => path(subject, &found, &tables, manager),
        Err(error) => {
            let fix = "Correct region and deploy_role of the manager.";
            Finding::unknown(MANAGER_PATH, format!("where the manager is: {error}"), fix)
        }
    });
    let manager = manager.ok();
    let groups = match groups {
        Ok(groups) => groups,
        Err(error) => {
            findings.push(Finding::not_seen(GROUPS, "ec2:DescribeSecurityGroups", &error));
            return findings;
        }
    };
    let scene = Scene {
        region: session.region(),
        ssh_port: fargate.ssh_port,
        use_public_ip: fargate.use_public_ip,
        gitlab_port: port(&subject.runner.url),
        subnets: &found,
        named: &fargate.security_groups,
        groups: &groups,
        manager: &subject.manager,
        manager_subnets: manager.as_ref().and_then(|side| side.subnets.as_deref().ok()).unwrap_or_default(),
    };
    findings.extend(security_groups::check(&scene));
    if let Some(side) = manager.as_ref().filter(|_| !subject.manager.security_groups.is_empty()) {
        findings.push(match &side.groups {
            Ok(groups) => security_groups::manager_egress(&scene, groups, &side.region),
            Err(error) => Finding::not_seen(MANAGER_OUT, "ec2:DescribeSecurityGroups", error),
        });
    }
    findings
}

/// A task without groups gets the VPC's default one.
async fn task_groups(session: &Session, ids: &[String], vpc: &str) -> Result<Vec<SecurityGroup>, CallError> {
    if ids.is_empty() {
        return Ok(inspect::default_security_group(session, vpc).await?.into_iter().collect());
    }
    inspect::security_groups(session, ids).await
}

async fn ways_out(
    subject: &Subject,
    session: &Session,
    definition: Option<&TaskDefinition>,
    subnets: &[Subnet],
    tables: &[RouteTable],
    endpoints: &[VpcEndpoint],
) -> Vec<Finding> {
    let fargate = &subject.runner.fargate;
    let needs = definition.map(|definition| way_out::needs(definition, session.region()));
    // A task definition is always of the account that runs it.
    let account = definition.and_then(|definition| definition.arn.split(':').nth(4)).or(subject.account.as_deref());
    let owner = subnets.first().map(|subnet| subnet.owner.as_str()).filter(|owner| !owner.is_empty());
    let wanted = Wanted {
        region: session.region(),
        assign_public_ip: fargate.assign_public_ip,
        gitlab_host: host(&subject.runner.url).unwrap_or_default(),
        groups: &fargate.security_groups,
        needs: needs.as_ref(),
        of_manager: &of_manager(subject),
        owner: owner.filter(|owner| account.is_some_and(|account| account != *owner)),
    };
    let groups: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint.security_groups.clone()).collect();
    let groups = if groups.is_empty() { Ok(Vec::new()) } else { inspect::security_groups(session, &groups).await };
    match groups {
        Ok(groups) => way_out::check(&wanted, subnets, tables, endpoints, &groups),
        Err(error) => vec![Finding::not_seen(ENDPOINTS, "ec2:DescribeSecurityGroups", &error)],
    }
}

/// Its task is started like any other, and then it calls ECS; with a role for each environment, STS too.
fn of_manager(subject: &Subject) -> Vec<&'static str> {
    let fargate = &subject.runner.fargate;
    let is_here = |place: &ManagerPlace| place.subnets.iter().any(|subnet| fargate.subnets.contains(subnet));
    if !subject.manager.place.as_ref().is_some_and(is_here) {
        return Vec::new();
    }
    let sts = fargate.role_arn.as_ref().map(|_| "sts");
    ["ecr.api", "ecr.dkr", "s3", "logs", "secretsmanager", "ecs"].into_iter().chain(sts).collect()
}

/// The manager's end of the network: in its own account and region.
struct ManagerSide {
    region: String,
    subnets: Result<Vec<Subnet>, CallError>,
    tables: Result<Vec<RouteTable>, CallError>,
    groups: Result<Vec<SecurityGroup>, CallError>,
}

impl ManagerSide {
    async fn look(subject: &Subject, session: &Session) -> Result<Self, OpenError> {
        let Manager { security_groups, subnets, place, .. } = &subject.manager;
        let own = match place {
            Some(place) => Some(Session::open(Some(&place.region), None, place.as_role.as_ref()).await?),
            None => None,
        };
        let session = own.as_ref().unwrap_or(session);
        let (subnets, groups) = tokio::join!(
            if_any(subnets, inspect::subnets(session, subnets)),
            if_any(security_groups, inspect::security_groups(session, security_groups)),
        );
        let vpc = subnets.as_ref().ok().and_then(|subnets| subnets.first()).map(|subnet| subnet.vpc.clone());
        let tables = match vpc {
            Some(vpc) => inspect::route_tables(session, &vpc).await,
            None => Ok(Vec::new()),
        };
        Ok(Self { region: session.region().to_owned(), subnets, tables, groups })
    }
}

/// Asked for nothing, EC2 would answer with everything.
async fn if_any<T>(
    ids: &[String],
    asked: impl Future<Output = Result<Vec<T>, CallError>>,
) -> Result<Vec<T>, CallError> {
    if ids.is_empty() { Ok(Vec::new()) } else { asked.await }
}

fn path(
    subject: &Subject,
    subnets: &[Subnet],
    tables: &Result<Vec<RouteTable>, CallError>,
    manager: &ManagerSide,
) -> Finding {
    let not_seen = |action, error| Finding::not_seen(MANAGER_PATH, action, error);
    let tables = match tables {
        Ok(tables) => tables,
        Err(error) => return not_seen("ec2:DescribeRouteTables", error),
    };
    let tasks = End { subnets, tables };
    if subject.runner.fargate.use_public_ip {
        return manager_path::check_public(&tasks);
    }
    match (&manager.subnets, &manager.tables) {
        (Ok(subnets), Ok(tables)) => {
            manager_path::check(&tasks, &End { subnets, tables }, subject.manager.cidr.as_deref())
        }
        (Err(error), _) => not_seen("ec2:DescribeSubnets", error),
        (_, Err(error)) => not_seen("ec2:DescribeRouteTables", error),
    }
}

/// The port of a URL, or that of its scheme.
fn port(url: &str) -> u16 {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let named = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    named.unwrap_or(if scheme == "http" { 80 } else { 443 })
}
