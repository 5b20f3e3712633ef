//! How tasks reach what they need: the registry, the log, secrets, and GitLab.

use aws::inspect::{EcrImage, RouteTable, SecurityGroup, Subnet, TaskDefinition, VpcEndpoint};

use super::endpoints::{closed_endpoints, create_endpoint, leads_to};
use super::routes::{Way, beyond, table_of, way};
use crate::doctor::Finding;

pub const WAY_OUT: &str = "way-out";

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
    /// What a manager in the same subnets needs; empty where it is elsewhere.
    pub of_manager: &'a [&'static str],
    /// The account that shares the subnets, where it is another than that of the tasks. Its endpoints are not shown to others.
    pub owner: Option<&'a str>,
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
            None => findings.push(match wanted.owner {
                Some(owner) => {
                    let evidence = format!("{} is of account {owner}, which does not show its route table", subnet.id);
                    Finding::skipped(WAY_OUT, evidence, TRIAL)
                }
                None => {
                    let evidence = format!("{} has no route table", subnet.id);
                    Finding::unknown(WAY_OUT, evidence, "Run doctor again; AWS gives every subnet one.")
                }
            }),
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
                let evidence = format!("{from}: by {id}, whose own way to the internet is not looked at");
                findings.push(Finding::good(WAY_OUT, evidence));
                continue;
            }
            Way::Elsewhere(id) => {
                let evidence = format!("{from}: by {id}, behind which doctor does not see");
                findings.push(Finding::skipped(WAY_OUT, evidence, TRIAL));
                continue;
            }
            Way::Partly { destination, target } => {
                let evidence = format!(
                    "{from}: {destination} leads to {target}, and whether tasks reach all that they need by it doctor does not see"
                );
                findings.push(Finding::skipped(WAY_OUT, evidence, TRIAL));
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
                format!("the way to the internet is {id}, which is gone"),
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
        // A hub's names may lead past the endpoints of this VPC.
        some_have_none |= beyond(table).is_none();
        findings.push(by_endpoints(wanted, table, &ids, &endpoints, &format!("{from}: {reason}"), &fix));
    }
    findings.extend(closed_endpoints(wanted, some_have_none, subnets, &endpoints, groups));
    findings
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
    let beyond = beyond(table).map(|id| format!("what is behind {id} doctor does not see"));
    if let Some(image) = needs.abroad.first() {
        let evidence = format!("{from}; the image {image} is not in ECR of {region}");
        return fault(evidence, "No task starts: CannotPullContainerError.", fix, beyond);
    }
    let is_there = |service: &&&str| endpoints.iter().any(|endpoint| leads_to(endpoint, region, service, &table.id));
    let lack = |services: &[&'static str]| services.iter().filter(|it| !is_there(it)).copied().collect::<Vec<_>>();
    let (of_tasks, of_manager) = (lack(&needs.services), lack(wanted.of_manager));
    let of_manager = of_manager.into_iter().filter(|service| !of_tasks.contains(service));
    let missing: Vec<_> = of_tasks.iter().copied().chain(of_manager.clone()).collect();
    if !missing.is_empty() {
        let commands: Vec<_> = missing
            .iter()
            .map(|service| create_endpoint(wanted, service, &table.id, &table.vpc, subnets, endpoints))
            .collect();
        let of_owner = wanted.owner.map(|owner| {
            format!("the VPC is of account {owner}, which does not show its endpoints and alone can make any")
        });
        let named =
            of_tasks.iter().map(|it| (*it).to_owned()).chain(of_manager.map(|it| format!("{it} (the manager)")));
        return fault(
            format!("{from}; VPC endpoints are missing for {}", named.collect::<Vec<_>>().join(", ")),
            match of_tasks.is_empty() {
                true => "The manager does not start, or starts no task.",
                false => {
                    "No task starts: \"ResourceInitializationError: unable to pull secrets or registry auth\", or CannotPullContainerError."
                }
            },
            &format!("{fix}; or make the endpoints:\n{}", commands.join("\n")),
            of_owner.or(beyond),
        );
    }
    if *gitlab_host == "gitlab.com" {
        let breaks = "Tasks start, and jobs do not: they talk to GitLab, which is on the internet.";
        return fault(format!("{from}; gitlab.com is not reached"), breaks, fix, beyond);
    }
    Finding::skipped(
        WAY_OUT,
        format!(
            "{from}; there are endpoints for {}, and whether {gitlab_host} is reached doctor does not see",
            needs.services.join(", ")
        ),
        TRIAL,
    )
}

const TRIAL: &str = "`staffetta doctor --run` sends a task that way.";

/// It stops jobs, unless what they need stands where doctor does not see.
fn fault(evidence: String, breaks: &str, fix: &str, unseen: Option<String>) -> Finding {
    match unseen {
        None => Finding::bad(WAY_OUT, evidence, breaks, fix),
        Some(unseen) => Finding::warning(
            WAY_OUT,
            format!("{evidence}; {unseen}"),
            format!("If tasks do not get there another way: {breaks}"),
            format!("{TRIAL} If it fails: {fix}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use aws::inspect::{Container, LogDriver, Peer, Route, RouteTarget, Rule};

    use super::*;
    use crate::doctor::Verdict::{self, Bad, Good, Skipped, Unknown, Warning};
    use crate::doctor::network::endpoints::ENDPOINTS;

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
        owner: Option<&'static str>,
        of_manager: Vec<&'static str>,
    }

    fn case(public: bool, target: Option<RouteTarget>) -> Case {
        let needs = Some(needs_of_usual_tasks());
        let gitlab = "gitlab.example.com";
        let (endpoints, groups) = (Vec::new(), Vec::new());
        Case {
            public,
            gitlab,
            needs,
            table: table("rtb-1", target),
            endpoints,
            groups,
            owner: None,
            of_manager: Vec::new(),
        }
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
                of_manager: &self.of_manager,
                needs: self.needs.as_ref(),
                owner: self.owner,
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
        let firewall = || Some(RouteTarget::Other("vpce-9".into()));
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
            (case(false, firewall()), Skipped, &["by vpce-9, behind which", "--run"]),
            (case(true, firewall()), Skipped, &["by vpce-9"]),
            (case(false, peering()), Warning, &["no route to the internet", "behind pcx-1"]),
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
            Some(RouteTarget::Other("vpce-9".into())),
        ];
        // All addresses at once, in two halves, a half of them, and what may be the same under another name.
        let destinations =
            [&["0.0.0.0/0"][..], &["0.0.0.0/1", "128.0.0.0/1"], &["0.0.0.0/1"], &["10.0.0.0/8"], &["pl-1"], &["::/0"]];
        for (target, destinations, bits) in targets.iter().flat_map(|target| {
            destinations.iter().flat_map(move |names| (0..128u32).map(move |bits| (target, *names, bits)))
        }) {
            let is_set = |bit: u32| bits & (1 << bit) != 0;
            let (public, active, owner) = (is_set(0), is_set(1), is_set(2).then_some("210987654321"));
            let mut case = Case { public, owner, table: table("rtb-1", None), ..isolated() };
            let routes = target.iter().flat_map(|target| {
                destinations.iter().map(|it| Route { destination: (*it).into(), target: target.clone(), active })
            });
            case.table.routes.extend(routes);
            let mut kept = (3..).map(is_set);
            case.endpoints.retain(|_| kept.next() == Some(true));
            let is_whole = destinations[0] == "0.0.0.0/0" || destinations.len() == 2;
            let works = is_whole && active && (*target == nat() || public && *target == internet());
            let findings = case.judged();
            let good = findings.iter().any(|finding| finding.check == WAY_OUT && finding.verdict == Good);
            assert_eq!(good, works, "{target:?} {destinations:?} {bits:b}: {findings:?}");
        }
    }

    #[test]
    fn what_may_stand_in_other_networks_is_no_fault() {
        let with_route = |mut case: Case, destination: &str, target: RouteTarget| {
            case.table.routes.push(Route { destination: destination.into(), target, active: true });
            case
        };
        let transit = || RouteTarget::TransitGateway("tgw-1".into());
        let peering = || RouteTarget::Peering("pcx-1".into());
        let of_hub = "com.amazonaws.eu-west-1.ecr.api";
        let spoke = with_route(case(false, None), "10.0.0.0/8", transit());
        spoke.finds(
            WAY_OUT,
            Warning,
            &["missing for ecr.api, ecr.dkr, s3, logs; what is behind tgw-1", "--run", of_hub],
        );
        let peered = with_route(case(false, None), "10.2.0.0/16", peering());
        peered.finds(WAY_OUT, Warning, &["what is behind pcx-1"]);
        let hub = || Some(Needs { services: Vec::new(), abroad: vec!["registry.example.com/ci:1".into()] });
        let mirror = Case { needs: hub(), ..with_route(case(false, None), "10.0.0.0/8", transit()) };
        mirror.finds(WAY_OUT, Warning, &["registry.example.com/ci:1", "tgw-1"]);
        let proxied = Case { gitlab: "gitlab.com", ..with_route(isolated(), "10.0.0.0/8", transit()) };
        proxied.finds(WAY_OUT, Warning, &["gitlab.com is not reached", "tgw-1"]);
        // Names of the hub may lead past an endpoint without private DNS.
        let mut named = with_route(isolated(), "10.0.0.0/8", transit());
        named.endpoints[0].private_dns = false;
        named.finds(ENDPOINTS, Good, &["ecr.dkr, logs let the tasks in"]);
        // What is gone leads nowhere.
        let mut gone = with_route(case(false, None), "10.0.0.0/8", transit());
        gone.table.routes[1].active = false;
        gone.finds(WAY_OUT, Bad, &["no route to the internet"]);
    }

    #[test]
    fn endpoints_of_a_shared_vpc_are_its_owners_to_see_and_to_make() {
        let shared = |case: Case| Case { owner: Some("210987654321"), ..case };
        shared(case(false, None)).finds(
            WAY_OUT,
            Warning,
            &["missing for", "account 210987654321, which does not show"],
        );
        shared(case(false, nat())).finds(ENDPOINTS, Skipped, &["account 210987654321"]);
        shared(case(false, nat())).finds(WAY_OUT, Good, &["by nat-1"]);
        let mut unseen = shared(case(false, nat()));
        unseen.table.main = false;
        unseen.finds(WAY_OUT, Skipped, &["subnet-1 is of account 210987654321", "route table"]);
        // Endpoints do not lead there, whoever made them.
        let needs = Some(Needs { services: Vec::new(), abroad: vec!["alpine:3".into()] });
        shared(Case { needs, ..case(false, None) }).finds(WAY_OUT, Bad, &["alpine:3"]);
    }

    #[test]
    fn an_interface_of_s3_counts_where_its_name_leads_to_it_and_is_no_fault_elsewhere() {
        let interface = |case: &Case, private_dns| {
            let mut endpoint = case.endpoints[2].clone();
            endpoint.id = "vpce-i".into();
            endpoint.service = format!("com.amazonaws.{REGION}.s3");
            endpoint.private_dns = private_dns;
            endpoint
        };
        let mut beside = isolated();
        beside.endpoints.push(interface(&beside, false));
        beside.finds(WAY_OUT, Skipped, &["endpoints for ecr.api, ecr.dkr, s3, logs"]);
        beside.finds(ENDPOINTS, Good, &["ecr.api, ecr.dkr, logs let the tasks in"]);
        let mut alone = isolated();
        alone.endpoints[3] = interface(&alone, true);
        alone.finds(WAY_OUT, Skipped, &["endpoints for ecr.api, ecr.dkr, s3, logs"]);
        alone.finds(ENDPOINTS, Good, &["ecr.api, ecr.dkr, logs, s3 let the tasks in"]);
        let mut nameless = isolated();
        nameless.endpoints[3] = interface(&nameless, false);
        let command =
            "create-vpc-endpoint --vpc-id vpc-1 --service-name com.amazonaws.eu-west-1.s3 --route-table-ids rtb-1";
        nameless.finds(WAY_OUT, Bad, &["missing for s3", command]);
        // The name goes before the gateway's route.
        let mut closed = isolated();
        closed.endpoints.push(VpcEndpoint { security_groups: Vec::new(), ..interface(&closed, true) });
        closed.finds(ENDPOINTS, Bad, &["vpce-i for com.amazonaws.eu-west-1.s3 does not let in 443"]);
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

    #[test]
    fn what_a_manager_beside_the_tasks_needs_is_told_with_who_needs_it() {
        let beside = Case { of_manager: vec!["ecr.api", "logs", "secretsmanager", "ecs"], ..isolated() };
        beside.finds(WAY_OUT, Bad, &["missing for secretsmanager (the manager), ecs (the manager)", "eu-west-1.ecs "]);
        assert!(beside.judged().iter().any(|finding| finding.breaks.starts_with("The manager does not start")));
    }
}
