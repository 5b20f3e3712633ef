//! How tasks reach what they need: the registry, the log, secrets, and GitLab.

use aws::inspect::{EcrImage, RouteTable, RouteTarget, SecurityGroup, Subnet, TaskDefinition, VpcEndpoint};

use super::security_groups::{Admits, Party, admits};
use crate::doctor::Finding;

pub const WAY_OUT: &str = "way-out";
pub const ENDPOINTS: &str = "vpc-endpoints";

/// What a task needs beside GitLab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// As AWS names endpoints: `ecr.api`, `ecr.dkr`, `s3`, `logs`, `secretsmanager`, `ssm` (facts 8).
    pub services: Vec<&'static str>,
    /// Images of other registries, and of other regions: no endpoint leads there.
    pub abroad: Vec<String>,
}

pub fn needs(definition: &TaskDefinition, region: &str) -> Needs {
    let containers = &definition.containers;
    let is_near = |image: &str| EcrImage::parse(image).is_some_and(|image| image.region == region);
    let secrets = || containers.iter().flat_map(|container| &container.secrets);
    let is_of_secrets_manager = |secret: &&String| secret.contains(":secretsmanager:");
    let from_ecr = containers.iter().any(|container| is_near(&container.image));
    let logs = containers.iter().any(|container| container.log.as_ref().is_some_and(|log| log.name == "awslogs"));
    let services = [
        ("ecr.api", from_ecr),
        ("ecr.dkr", from_ecr),
        // ECR keeps the layers there.
        ("s3", from_ecr),
        ("logs", logs),
        ("secretsmanager", secrets().any(|secret| is_of_secrets_manager(&secret))),
        ("ssm", secrets().any(|secret| !is_of_secrets_manager(&secret))),
    ];
    Needs {
        services: services.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name).collect(),
        abroad: containers.iter().map(|it| it.image.clone()).filter(|image| !is_near(image)).collect(),
    }
}

/// How the tasks are to be, and where.
pub struct Wanted<'a> {
    pub region: &'a str,
    pub assign_public_ip: bool,
    pub gitlab_host: &'a str,
    /// Ids of the tasks' security groups.
    pub groups: &'a [String],
    /// None where the task definition is not known.
    pub needs: Option<&'a Needs>,
}

/// Where packets to the internet go.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    InternetGateway(&'a str),
    NatGateway(&'a str),
    /// Somewhere that routes on, or not.
    Elsewhere(&'a str),
    /// To something that is gone.
    BlackHole(&'a str),
    Nowhere,
}

fn way(table: &RouteTable) -> Way<'_> {
    let Some(route) = table.routes.iter().find(|route| route.destination == "0.0.0.0/0") else { return Way::Nowhere };
    match &route.target {
        RouteTarget::InternetGateway(id)
        | RouteTarget::NatGateway(id)
        | RouteTarget::TransitGateway(id)
        | RouteTarget::Other(id)
            if !route.active =>
        {
            Way::BlackHole(id)
        }
        RouteTarget::InternetGateway(id) => Way::InternetGateway(id),
        RouteTarget::NatGateway(id) => Way::NatGateway(id),
        RouteTarget::TransitGateway(id) | RouteTarget::Other(id) => Way::Elsewhere(id),
        // A peering leads to the other VPC's addresses and no further, a gateway endpoint to its service.
        RouteTarget::Local | RouteTarget::Peering(_) | RouteTarget::GatewayEndpoint(_) => Way::Nowhere,
    }
}

/// The table of a subnet: the one that names it, or the main one of its VPC.
pub fn table_of<'a>(subnet: &Subnet, tables: &'a [RouteTable]) -> Option<&'a RouteTable> {
    let own = tables.iter().find(|table| table.subnets.contains(&subnet.id));
    own.or_else(|| tables.iter().find(|table| table.main && table.vpc == subnet.vpc))
}

/// The ways of all subnets, and those endpoints on them that let nobody through. `groups` are those of the endpoints.
pub fn check(
    wanted: &Wanted,
    subnets: &[Subnet],
    tables: &[RouteTable],
    endpoints: &[VpcEndpoint],
    groups: &[SecurityGroup],
) -> Vec<Finding> {
    // EC2 shows them for a while.
    let is_there = |endpoint: &&VpcEndpoint| !["deleting", "deleted"].contains(&endpoint.state.as_str());
    let endpoints: Vec<&VpcEndpoint> = endpoints.iter().filter(is_there).collect();
    let mut findings = Vec::new();
    let mut seen: Vec<(&RouteTable, Vec<&str>)> = Vec::new();
    for subnet in subnets {
        match table_of(subnet, tables) {
            Some(table) => match seen.iter_mut().find(|(other, _)| other.id == table.id) {
                Some((_, ids)) => ids.push(&subnet.id),
                None => seen.push((table, vec![&subnet.id])),
            },
            None => {
                let evidence = format!("{} has no route table", subnet.id);
                findings.push(Finding::unknown(WAY_OUT, evidence, "Run doctor again; AWS gives every subnet one."));
            }
        }
    }
    let mut some_have_none = false;
    for (table, ids) in seen {
        let from = format!("{} ({})", ids.join(", "), table.id);
        let public = wanted.assign_public_ip;
        let nat = format!(
            "`aws ec2 create-route --route-table-id {} --destination-cidr-block 0.0.0.0/0 --nat-gateway-id NAT_GATEWAY --region {}`",
            table.id, wanted.region
        );
        let (reason, fix) = match way(table) {
            Way::InternetGateway(id) if public => {
                findings.push(Finding::good(WAY_OUT, format!("{from}: by {id}, with public addresses")));
                continue;
            }
            Way::NatGateway(id) => {
                findings.push(Finding::good(WAY_OUT, format!("{from}: by {id}")));
                continue;
            }
            Way::Elsewhere(id) => {
                findings.push(Finding::skipped(
                    WAY_OUT,
                    format!("{from}: by {id}, behind which doctor does not see"),
                    "`staffetta doctor --run` sends a task that way.",
                ));
                continue;
            }
            Way::InternetGateway(id) => (
                format!("the way to the internet is {id}, and tasks get no public address"),
                format!(
                    "Set assign_public_ip = true; or name subnets with a NAT gateway; or make one and lead this table there (replace its route: {})",
                    nat.replace("create-route", "replace-route")
                ),
            ),
            Way::BlackHole(id) => (
                format!("0.0.0.0/0 leads to {id}, which is gone"),
                format!("Lead it to a gateway that is there: {}", nat.replace("create-route", "replace-route")),
            ),
            Way::Nowhere if public => (
                "no route to the internet, so a public address is of no use".to_owned(),
                format!(
                    "Name subnets whose table leads 0.0.0.0/0 to an internet gateway; or lead this one to a NAT gateway: {nat}"
                ),
            ),
            Way::Nowhere => {
                ("no route to the internet".to_owned(), format!("Make a NAT gateway and lead this table there: {nat}"))
            }
        };
        some_have_none = true;
        findings.push(by_endpoints(wanted, table, &ids, &endpoints, &format!("{from}: {reason}"), &fix));
    }
    findings.extend(closed_endpoints(wanted, some_have_none, subnets, &endpoints, groups));
    findings
}

fn serves(endpoint: &VpcEndpoint, region: &str, service: &str) -> bool {
    // China's begin with cn.com.amazonaws.
    endpoint.service.ends_with(&format!("com.amazonaws.{region}.{service}"))
}

/// Subnets without a way to the internet: their tasks have the VPC's endpoints and nothing else.
fn by_endpoints(
    wanted: &Wanted,
    table: &RouteTable,
    subnets: &[&str],
    endpoints: &[&VpcEndpoint],
    from: &str,
    fix: &str,
) -> Finding {
    let Wanted { region, gitlab_host, .. } = wanted;
    let Some(needs) = wanted.needs else {
        let evidence = format!("{from}; which endpoints tasks need is not known");
        return Finding::unknown(WAY_OUT, evidence, "It is seen once the task definition is.");
    };
    if let Some(image) = needs.abroad.first() {
        let evidence = format!("{from}; the image {image} is not in ECR of {region}");
        return Finding::bad(WAY_OUT, evidence, "No task starts: CannotPullContainerError.", fix);
    }
    let is_there = |service: &&&str| {
        let mut of_service = endpoints.iter().filter(|endpoint| serves(endpoint, region, service));
        of_service.any(|endpoint| endpoint.interface || endpoint.route_tables.contains(&table.id))
    };
    let missing: Vec<_> = needs.services.iter().filter(|service| !is_there(service)).copied().collect();
    if !missing.is_empty() {
        let commands: Vec<_> = missing
            .iter()
            .map(|service| create_endpoint(wanted, service, &table.id, &table.vpc, subnets, endpoints))
            .collect();
        return Finding::bad(
            WAY_OUT,
            format!("{from}; VPC endpoints are missing for {}", missing.join(", ")),
            "No task starts: \"ResourceInitializationError: unable to pull secrets or registry auth\", or CannotPullContainerError.",
            format!("{fix}; or make the endpoints:\n{}", commands.join("\n")),
        );
    }
    if *gitlab_host == "gitlab.com" {
        let breaks = "Tasks start, and jobs do not: they talk to GitLab, which is on the internet.";
        return Finding::bad(WAY_OUT, format!("{from}; gitlab.com is not reached"), breaks, fix);
    }
    Finding::skipped(
        WAY_OUT,
        format!(
            "{from}; there are endpoints for {}, and whether {gitlab_host} is reached doctor does not see",
            needs.services.join(", ")
        ),
        "`staffetta doctor --run` runs a job there.",
    )
}

fn create_endpoint(
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
         443 from the tasks",
        subnets.join(" "),
    )
}

/// Interface endpoints that catch what tasks send to a service, and do not serve it. With private DNS they do so even where
/// there is a way to the internet.
fn closed_endpoints(
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
    let in_use = |endpoint: &&&VpcEndpoint| endpoint.interface && (is_only_way || endpoint.private_dns);
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
        findings.push(Finding::good(
            ENDPOINTS,
            if good.is_empty() {
                "none is in the way of tasks".to_owned()
            } else {
                format!("{} let the tasks in", good.join(", "))
            },
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use aws::inspect::{Container, LogDriver, Peer, Route, Rule};

    use super::*;
    use crate::doctor::Verdict::{self, Bad, Good, Skipped, Unknown};

    const REGION: &str = "eu-west-1";

    fn subnet(id: &str) -> Subnet {
        Subnet { id: id.into(), vpc: "vpc-1".into(), cidr: "10.1.0.0/24".into(), ..Subnet::default() }
    }

    fn table(id: &str, target: Option<RouteTarget>) -> RouteTable {
        let route = |destination: &str, target| Route { destination: destination.into(), target, active: true };
        let out = target.map(|target| route("0.0.0.0/0", target));
        let routes = [route("10.1.0.0/16", RouteTarget::Local)].into_iter().chain(out).collect();
        RouteTable { id: id.into(), vpc: "vpc-1".into(), main: true, subnets: Vec::new(), routes }
    }

    fn internet() -> Option<RouteTarget> {
        Some(RouteTarget::InternetGateway("igw-1".into()))
    }

    fn nat() -> Option<RouteTarget> {
        Some(RouteTarget::NatGateway("nat-1".into()))
    }

    fn needs_of_usual_tasks() -> Needs {
        let container = Container {
            image: format!("123456789012.dkr.ecr.{REGION}.amazonaws.com/ci-dev/task:latest"),
            log: Some(LogDriver { name: "awslogs".into(), ..LogDriver::default() }),
            ..Container::default()
        };
        needs(&TaskDefinition { containers: vec![container], ..TaskDefinition::default() }, REGION)
    }

    /// Every endpoint that usual tasks need, and their group.
    fn endpoints() -> (Vec<VpcEndpoint>, Vec<SecurityGroup>) {
        let endpoint = |service: &str, interface| VpcEndpoint {
            id: format!("vpce-{service}"),
            service: format!("com.amazonaws.{REGION}.{service}"),
            interface,
            state: "available".into(),
            security_groups: if interface { vec!["sg-e".into()] } else { Vec::new() },
            route_tables: if interface { Vec::new() } else { vec!["rtb-1".into()] },
            private_dns: interface,
            ..VpcEndpoint::default()
        };
        let rule = Rule { protocol: "tcp".into(), ports: Some((443, 443)), peers: vec![Peer::Group("sg-t".into())] };
        let group = SecurityGroup { id: "sg-e".into(), ingress: vec![rule], ..SecurityGroup::default() };
        let interfaces = ["ecr.api", "ecr.dkr", "logs"].map(|service| endpoint(service, true));
        (interfaces.into_iter().chain([endpoint("s3", false)]).collect(), vec![group])
    }

    struct Case {
        public: bool,
        gitlab: &'static str,
        needs: Option<Needs>,
        table: RouteTable,
        endpoints: Vec<VpcEndpoint>,
        groups: Vec<SecurityGroup>,
    }

    fn case(public: bool, target: Option<RouteTarget>) -> Case {
        let needs = Some(needs_of_usual_tasks());
        let gitlab = "gitlab.example.com";
        Case { public, gitlab, needs, table: table("rtb-1", target), endpoints: Vec::new(), groups: Vec::new() }
    }

    /// Without any way to the internet, and with every endpoint.
    fn isolated() -> Case {
        let (endpoints, groups) = endpoints();
        Case { endpoints, groups, ..case(false, None) }
    }

    impl Case {
        fn judged(&self) -> Vec<Finding> {
            let wanted = Wanted {
                region: REGION,
                assign_public_ip: self.public,
                gitlab_host: self.gitlab,
                groups: &["sg-t".to_owned()],
                needs: self.needs.as_ref(),
            };
            let tables = std::slice::from_ref(&self.table);
            check(&wanted, &[subnet("subnet-1")], tables, &self.endpoints, &self.groups)
        }

        /// The one finding of this check, and that the other one is good.
        fn finds(&self, check: &str, verdict: Verdict, words: &[&str]) {
            let findings = self.judged();
            let (of_check, others): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.check == check);
            assert_eq!(of_check.len(), 1, "{findings:?}");
            assert_eq!(of_check[0].verdict, verdict, "{findings:?}");
            assert!(others.iter().all(|finding| finding.verdict <= Skipped), "{findings:?}");
            let text = format!("{} {}", of_check[0].evidence, of_check[0].fix);
            assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        }
    }

    #[test]
    fn tasks_get_out_by_a_gateway_with_a_public_address_or_by_nat() {
        let gone = |mut case: Case| {
            case.table.routes[1].active = false;
            case
        };
        let transit = || Some(RouteTarget::TransitGateway("tgw-1".into()));
        let peering = || Some(RouteTarget::Peering("pcx-1".into()));
        for (case, verdict, words) in [
            (case(true, internet()), Good, &["subnet-1 (rtb-1): by igw-1"][..]),
            (case(false, nat()), Good, &["by nat-1"]),
            (case(true, nat()), Good, &["by nat-1"]),
            (case(false, transit()), Skipped, &["by tgw-1", "--run"]),
            (
                case(false, internet()),
                Bad,
                &["igw-1, and tasks get no public address", "assign_public_ip = true", "replace-route"],
            ),
            (case(true, None), Bad, &["a public address is of no use", "create-route --route-table-id rtb-1"]),
            (case(false, None), Bad, &["no route to the internet"]),
            (case(false, peering()), Bad, &["no route to the internet"]),
            (gone(case(false, nat())), Bad, &["nat-1, which is gone"]),
            (gone(case(true, internet())), Bad, &["igw-1, which is gone"]),
        ] {
            case.finds(WAY_OUT, verdict, words);
        }
    }

    #[test]
    fn only_a_working_gateway_is_called_good() {
        let targets = [
            None,
            internet(),
            nat(),
            Some(RouteTarget::TransitGateway("tgw-1".into())),
            Some(RouteTarget::Peering("pcx-1".into())),
            Some(RouteTarget::GatewayEndpoint("vpce-1".into())),
            Some(RouteTarget::Other("eni-1".into())),
        ];
        for (target, public, active) in targets.iter().flat_map(|target| {
            [(true, true), (true, false), (false, true), (false, false)]
                .map(|(public, active)| (target, public, active))
        }) {
            let works = active && (*target == nat() || public && *target == internet());
            for present in 0..16 {
                let mut case = Case { public, table: table("rtb-1", target.clone()), ..isolated() };
                let mut number = 0;
                case.endpoints.retain(|_| {
                    number += 1;
                    present & (1 << (number - 1)) != 0
                });
                if let Some(route) = case.table.routes.get_mut(1) {
                    route.active = active;
                }
                let findings = case.judged();
                let good = findings.iter().any(|finding| finding.check == WAY_OUT && finding.verdict == Good);
                assert_eq!(good, works, "{target:?} {public} {active} {present}: {findings:?}");
            }
        }
    }

    #[test]
    fn without_a_way_out_exactly_the_missing_endpoints_are_named() {
        isolated().finds(WAY_OUT, Skipped, &["endpoints for ecr.api, ecr.dkr, s3, logs", "gitlab.example.com"]);
        let all = "missing for ecr.api, ecr.dkr, s3, logs";
        case(false, None).finds(
            WAY_OUT,
            Bad,
            &[all, "--service-name com.amazonaws.eu-west-1.ecr.api --subnet-ids subnet-1"],
        );
        for service in ["ecr.api", "ecr.dkr", "s3", "logs"] {
            let mut case = isolated();
            case.endpoints.retain(|endpoint| !endpoint.service.ends_with(service));
            case.finds(
                WAY_OUT,
                Bad,
                &[&format!("missing for {service}"), &format!("com.amazonaws.eu-west-1.{service} ")],
            );
        }
        let mut case = isolated();
        case.endpoints[3].route_tables = vec!["rtb-9".into()];
        case.finds(
            WAY_OUT,
            Bad,
            &["missing for s3", "modify-vpc-endpoint --vpc-endpoint-id vpce-s3 --add-route-table-ids rtb-1"],
        );
    }

    #[test]
    fn endpoints_do_not_lead_to_other_registries_nor_to_gitlab_com() {
        let hub = Needs { services: Vec::new(), abroad: vec!["alpine:3".into()] };
        Case { needs: Some(hub), ..isolated() }.finds(WAY_OUT, Bad, &["alpine:3 is not in ECR of eu-west-1"]);
        Case { gitlab: "gitlab.com", ..isolated() }.finds(WAY_OUT, Bad, &["gitlab.com is not reached"]);
        Case { needs: None, ..isolated() }.finds(WAY_OUT, Unknown, &["is not known"]);
    }

    #[test]
    fn an_endpoint_that_lets_nobody_through_is_found_even_where_there_is_another_way() {
        let with_nat = || Case { table: table("rtb-1", nat()), ..isolated() };
        isolated().finds(ENDPOINTS, Good, &["ecr.api, ecr.dkr, logs let the tasks in"]);
        for make in [isolated as fn() -> Case, with_nat] {
            let mut closed = make();
            closed.groups[0].ingress.clear();
            closed.endpoints.truncate(1);
            closed.needs = Some(Needs { services: vec!["ecr.api"], abroad: Vec::new() });
            let command =
                "authorize-security-group-ingress --group-id sg-e --protocol tcp --port 443 --source-group sg-t";
            closed.finds(ENDPOINTS, Bad, &["vpce-ecr.api", "(sg-e)", command]);
            let mut pending = make();
            pending.endpoints[0].state = "pending".into();
            pending.finds(ENDPOINTS, Bad, &["vpce-ecr.api for com.amazonaws.eu-west-1.ecr.api is pending"]);
        }
        let mut gone = isolated();
        gone.endpoints[0].state = "deleted".into();
        gone.finds(WAY_OUT, Bad, &["missing for ecr.api"]);
        let mut nameless = isolated();
        nameless.endpoints[2].private_dns = false;
        nameless.finds(
            ENDPOINTS,
            Bad,
            &["vpce-logs", "modify-vpc-endpoint --vpc-endpoint-id vpce-logs --private-dns-enabled"],
        );
        // Nothing is sent there: the names lead to the internet.
        let mut beside = with_nat();
        for endpoint in &mut beside.endpoints {
            endpoint.private_dns = false;
        }
        beside.groups.clear();
        beside.finds(ENDPOINTS, Good, &["none is in the way"]);
        let mut of_others = with_nat();
        of_others.endpoints[0].service = format!("com.amazonaws.{REGION}.sqs");
        of_others.groups[0].ingress[0].peers = vec![Peer::Cidr("10.1.0.0/16".into())];
        of_others.finds(ENDPOINTS, Good, &["ecr.dkr, logs let the tasks in"]);
    }

    #[test]
    fn a_subnet_has_the_table_that_names_it_or_the_main_one_of_its_vpc() {
        let mut own = table("rtb-own", None);
        own.main = false;
        own.subnets = vec!["subnet-1".into()];
        let mut other = table("rtb-other", None);
        other.vpc = "vpc-2".into();
        let tables = [other, table("rtb-main", None), own];
        let of = |id: &str| table_of(&subnet(id), &tables).map(|table| table.id.as_str());
        assert_eq!((of("subnet-1"), of("subnet-2")), (Some("rtb-own"), Some("rtb-main")));
    }

    #[test]
    fn what_a_task_needs_follows_from_its_containers() {
        let image = |region: &str| format!("123456789012.dkr.ecr.{region}.amazonaws.com/ci:1");
        let secret = |from: &str| vec![from.to_owned()];
        let container = |image: String, secrets| Container { image, secrets, ..Container::default() };
        for (container, services, abroad) in [
            (container(image(REGION), Vec::new()), &["ecr.api", "ecr.dkr", "s3"][..], 0),
            (container(image("us-east-1"), Vec::new()), &[], 1),
            (container("alpine".into(), secret("arn:aws:secretsmanager:eu-west-1:1:secret:a")), &["secretsmanager"], 1),
            (container("alpine".into(), secret("/ci/parameter")), &["ssm"], 1),
        ] {
            let needs = needs(&TaskDefinition { containers: vec![container], ..TaskDefinition::default() }, REGION);
            assert_eq!((&needs.services[..], needs.abroad.len()), (services, abroad));
        }
    }
}
