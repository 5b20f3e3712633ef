//! Who may talk to whom: the manager to the tasks by SSH, tasks and manager to GitLab and AWS.

use std::fmt;

use aws::inspect::{Peer, Rule, SecurityGroup, Subnet};

use crate::cidr::Cidr;
use crate::doctor::finding::MADE_ANEW;
use crate::doctor::{Finding, Manager};

pub const GROUPS: &str = "security-groups";
const SSH_IN: &str = "ssh-in";
const TASK_OUT: &str = "task-egress";
pub const MANAGER_OUT: &str = "manager-egress";

/// Somebody, as rules name them: by any of their groups, or by all of their addresses.
#[derive(Debug, Default)]
pub struct Party {
    groups: Vec<String>,
    blocks: Vec<Cidr>,
}

impl Party {
    pub fn new<'a>(groups: &[String], cidrs: impl IntoIterator<Item = &'a str>) -> Self {
        Self { groups: groups.to_vec(), blocks: cidrs.into_iter().filter_map(Cidr::parse).collect() }
    }

    fn everybody() -> Self {
        Self::new(&[], ["0.0.0.0/0"])
    }

    fn is_known(&self) -> bool {
        !self.groups.is_empty() || !self.blocks.is_empty()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Admits {
    Yes,
    /// There is a rule, and whether it is for them cannot be told.
    Perhaps(String),
    No,
}

/// Whether rules of one direction let TCP through to a port, from or to somebody.
pub fn admits<'a>(rules: impl IntoIterator<Item = &'a Rule>, port: u16, who: &Party) -> Admits {
    let peers: Vec<&Peer> = rules.into_iter().filter(|rule| covers(rule, port)).flat_map(|rule| &rule.peers).collect();
    let by_group = peers.iter().any(|peer| matches!(peer, Peer::Group(id) if who.groups.contains(id)));
    let open = peers.iter().filter_map(|peer| match peer {
        Peer::Cidr(text) => Cidr::parse(text),
        Peer::Group(_) | Peer::PrefixList(_) => None,
    });
    let open: Vec<_> = open.collect();
    let covered = |block: &Cidr| open.iter().any(|outer| outer.contains(*block));
    let by_address = !who.blocks.is_empty() && who.blocks.iter().all(covered);
    let list = peers.iter().find(|peer| matches!(peer, Peer::PrefixList(_)));
    match list {
        _ if by_group || by_address => Admits::Yes,
        Some(list) => Admits::Perhaps(Shown(list).to_string()),
        None => Admits::No,
    }
}

fn covers(rule: &Rule, port: u16) -> bool {
    let all = rule.protocol == "-1";
    let ports = rule.ports.is_none_or(|(first, last)| (first..=last).contains(&port));
    all || (["tcp", "6"].contains(&rule.protocol.as_str()) && ports)
}

struct Shown<'a>(&'a Peer);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Peer::Cidr(text) | Peer::Group(text) | Peer::PrefixList(text)) = self.0;
        f.write_str(text)
    }
}

/// The peers of the rules that are for a port, for people.
fn peers<'a>(rules: impl Iterator<Item = &'a Rule>, port: u16) -> Vec<String> {
    rules.filter(|rule| covers(rule, port)).flat_map(|rule| &rule.peers).map(|peer| Shown(peer).to_string()).collect()
}

/// What the checks of groups know of the tasks and their manager.
pub struct Scene<'a> {
    pub region: &'a str,
    pub ssh_port: u16,
    /// The manager comes over the internet.
    pub use_public_ip: bool,
    /// 443, and GitLab's.
    pub gitlab_port: u16,
    pub subnets: &'a [Subnet],
    /// The tasks' groups as the configuration names them; empty is the VPC's default group.
    pub named: &'a [String],
    /// Those of them that exist.
    pub groups: &'a [SecurityGroup],
    pub manager: &'a Manager,
    /// Where the manager runs, as far as it is seen.
    pub manager_subnets: &'a [Subnet],
}

pub fn check(scene: &Scene) -> Vec<Finding> {
    let found = existing(scene);
    if found.iter().any(|finding| finding.check == GROUPS && !finding.breaks.is_empty()) {
        return found;
    }
    [found, ssh_in(scene), vec![task_egress(scene)]].concat()
}

fn existing(scene: &Scene) -> Vec<Finding> {
    let Scene { region, named, groups, .. } = scene;
    let mut findings = Vec::new();
    let missing: Vec<_> =
        named.iter().filter(|id| !groups.iter().any(|group| group.id == **id)).map(String::as_str).collect();
    if !missing.is_empty() {
        findings.push(Finding::bad(
            GROUPS,
            format!("not there in {region}: {}", missing.join(", ")),
            "Every job fails: RunTask is refused with InvalidGroup.NotFound.",
            format!("Name groups that exist in security_groups of [runners.fargate]; or, {MADE_ANEW}."),
        ));
    }
    let vpc = scene.subnets.first().map(|subnet| subnet.vpc.as_str()).unwrap_or_default();
    for group in groups.iter().filter(|group| group.vpc != vpc) {
        findings.push(Finding::bad(
            GROUPS,
            format!("{} is in {}, the subnets are in {vpc}", group.id, group.vpc),
            "Every job fails: RunTask takes subnets and security groups of one VPC only.",
            format!("Name a group of {vpc}."),
        ));
    }
    if findings.is_empty() {
        let names: Vec<_> = groups.iter().map(|group| format!("{} ({})", group.id, group.name)).collect();
        let default = if named.is_empty() { "none is named, so tasks have the VPC's default: " } else { "" };
        findings.push(Finding::good(GROUPS, format!("{default}{}", names.join(", "))));
    }
    findings
}

/// The manager, as the tasks' groups see it come.
fn manager(scene: &Scene) -> Party {
    let Manager { security_groups, cidr, .. } = scene.manager;
    if scene.use_public_ip {
        // What comes over the internet has no group.
        return Party::new(&[], cidr.as_deref());
    }
    let blocks: Vec<&str> = match cidr {
        Some(cidr) => vec![cidr],
        None => scene.manager_subnets.iter().map(|subnet| subnet.cidr.as_str()).collect(),
    };
    Party::new(security_groups, blocks)
}

fn ssh_in(scene: &Scene) -> Vec<Finding> {
    let Scene { region, ssh_port: port, .. } = scene;
    let ingress = || scene.groups.iter().flat_map(|group| &group.ingress);
    let open = peers(ingress(), *port);
    let group = scene.groups.first().map(|group| group.id.as_str()).unwrap_or_default();
    let who = manager(scene);
    let source = match (who.groups.first(), &scene.manager.cidr) {
        (Some(group), _) => format!("--source-group {group}"),
        (None, Some(cidr)) => format!("--cidr {cidr}"),
        (None, None) => "--source-group MANAGER_GROUP".to_owned(),
    };
    let authorize = format!(
        "`aws ec2 authorize-security-group-ingress --group-id {group} --protocol tcp --port {port} {source} --region {region}`"
    );
    let breaks = "Tasks start, and no job reaches them: the manager's connections time out.";
    let mut findings = Vec::new();
    let shown = if open.is_empty() { "nobody".to_owned() } else { open.join(", ") };
    match admits(ingress(), *port, &who) {
        Admits::No if open.is_empty() => {
            findings.push(Finding::bad(SSH_IN, format!("{group} lets nobody in on port {port}"), breaks, authorize));
        }
        Admits::No if who.is_known() => {
            let evidence =
                format!("{group} lets in {shown} on port {port}, and not the manager ({})", described(scene));
            findings.push(Finding::bad(SSH_IN, evidence, breaks, authorize));
        }
        Admits::Perhaps(peer) if who.is_known() => findings.push(Finding::skipped(
            SSH_IN,
            format!("{group} lets in {peer} on port {port}, and whether the manager is among them doctor does not see"),
            "`staffetta doctor --run` on the manager's machine reaches a task.",
        )),
        Admits::No | Admits::Perhaps(_) => findings.push(Finding::skipped(
            SSH_IN,
            format!("{group} lets in {shown} on port {port}; where the manager is, the configuration does not say"),
            "Compare them with the manager's security group or addresses; with staffetta.toml doctor knows them.",
        )),
        Admits::Yes => {}
    }
    findings.extend(too_wide(scene));
    if findings.is_empty() {
        findings.push(Finding::good(SSH_IN, format!("{group} lets in {shown} on port {port}")));
    }
    findings
}

fn described(scene: &Scene) -> String {
    let Manager { security_groups, cidr, .. } = scene.manager;
    let blocks = scene.manager_subnets.iter().map(|subnet| subnet.cidr.clone());
    let groups = if scene.use_public_ip { &[] } else { &security_groups[..] };
    match cidr {
        Some(cidr) => groups.iter().chain([cidr]).cloned().collect::<Vec<_>>().join(", "),
        None => groups.iter().cloned().chain(blocks).collect::<Vec<_>>().join(", "),
    }
}

/// Port 22 for the whole internet.
fn too_wide(scene: &Scene) -> Vec<Finding> {
    let mut findings = Vec::new();
    for group in scene.groups {
        for rule in group.ingress.iter().filter(|rule| covers(rule, scene.ssh_port)) {
            for peer in &rule.peers {
                let (Peer::Cidr(cidr), port) = (peer, scene.ssh_port) else { continue };
                if !["0.0.0.0/0", "::/0"].contains(&cidr.as_str()) {
                    continue;
                }
                let ports = match rule.ports {
                    Some((first, last)) if first == last => format!(" --port {first}"),
                    Some((first, last)) => format!(" --port {first}-{last}"),
                    None => String::new(),
                };
                let range = if cidr.contains(':') {
                    let ports =
                        rule.ports.map(|(first, last)| format!("FromPort={first},ToPort={last},")).unwrap_or_default();
                    format!("--ip-permissions 'IpProtocol={},{ports}Ipv6Ranges=[{{CidrIpv6={cidr}}}]'", rule.protocol)
                } else {
                    format!("--protocol {}{ports} --cidr {cidr}", rule.protocol)
                };
                findings.push(Finding::warning(
                    SSH_IN,
                    format!("{} lets in {cidr} on port {port}", group.id),
                    "Jobs run, but everybody may knock at tasks: only the task's key then keeps them out.",
                    format!("Let in the manager alone, then: `aws ec2 revoke-security-group-ingress --group-id {} {range} --region {}`", group.id, scene.region),
                ));
            }
        }
    }
    findings
}

fn task_egress(scene: &Scene) -> Finding {
    let breaks = "Tasks do not start, or jobs do not reach GitLab: the image, the log and GitLab are asked over TLS.";
    egress(TASK_OUT, "tasks", scene.groups, scene.gitlab_port, scene.region, breaks)
}

/// Whether `whose` groups let out what everybody needs: 443 and GitLab's port, to everywhere.
fn egress(
    check: &'static str,
    whose: &str,
    groups: &[SecurityGroup],
    gitlab_port: u16,
    region: &str,
    breaks: &str,
) -> Finding {
    let rules = || groups.iter().flat_map(|group| &group.egress);
    let group = groups.first().map(|group| group.id.as_str()).unwrap_or_default();
    let mut ports = vec![443];
    ports.extend((gitlab_port != 443).then_some(gitlab_port));
    for &port in &ports {
        if admits(rules(), port, &Party::everybody()) == Admits::Yes {
            continue;
        }
        let some = peers(rules(), port);
        if some.is_empty() {
            let fix = format!(
                "`aws ec2 authorize-security-group-egress --group-id {group} --ip-permissions 'IpProtocol=tcp,FromPort={port},ToPort={port},IpRanges=[{{CidrIp=0.0.0.0/0}}]' --region {region}`"
            );
            return Finding::bad(check, format!("{group} lets {whose} out to nobody on port {port}"), breaks, fix);
        }
        return Finding::skipped(
            check,
            format!(
                "{group} lets {whose} out on port {port} to {} only; whether that is all they need doctor does not see",
                some.join(", ")
            ),
            "`staffetta doctor --run` runs a job there.",
        );
    }
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    Finding::good(check, format!("{group} lets {whose} out on port {}", ports.join(" and ")))
}

/// The manager's own groups: out to the tasks by SSH, and to GitLab and AWS. `groups` are those of them that exist.
pub fn manager_egress(scene: &Scene, groups: &[SecurityGroup], manager_region: &str) -> Finding {
    let wanted = &scene.manager.security_groups;
    let missing: Vec<_> =
        wanted.iter().filter(|id| !groups.iter().any(|group| group.id == **id)).map(String::as_str).collect();
    if !missing.is_empty() {
        let evidence = format!("the manager's groups are not there in {manager_region}: {}", missing.join(", "));
        return Finding::bad(
            MANAGER_OUT,
            evidence,
            "The manager does not run.",
            format!("Groups get new ids: {MADE_ANEW}."),
        );
    }
    let rules = || groups.iter().flat_map(|group| &group.egress);
    let port = scene.ssh_port;
    let tasks = if scene.use_public_ip {
        Party::everybody()
    } else {
        let ids: Vec<_> = scene.groups.iter().map(|group| group.id.clone()).collect();
        Party::new(&ids, scene.subnets.iter().map(|subnet| subnet.cidr.as_str()))
    };
    let group = groups.first().map(|group| group.id.as_str()).unwrap_or_default();
    match admits(rules(), port, &tasks) {
        Admits::Yes => {
            let breaks = "The manager does not get jobs, or cannot start tasks: GitLab and AWS are asked over TLS.";
            egress(MANAGER_OUT, "the manager", groups, scene.gitlab_port, manager_region, breaks)
        }
        Admits::Perhaps(peer) => Finding::skipped(
            MANAGER_OUT,
            format!(
                "{group} lets the manager out on port {port} to {peer}, and whether tasks are there doctor does not see"
            ),
            "`staffetta doctor --run` on the manager's machine reaches a task.",
        ),
        Admits::No => {
            let permission = match scene.groups.first() {
                Some(task) if !scene.use_public_ip => format!("UserIdGroupPairs=[{{GroupId={}}}]", task.id),
                _ => "IpRanges=[{CidrIp=0.0.0.0/0}]".to_owned(),
            };
            Finding::bad(
                MANAGER_OUT,
                format!("{group} does not let the manager out to the tasks on port {port}"),
                "Tasks start, and no job reaches them: the manager's connections time out.",
                format!(
                    "`aws ec2 authorize-security-group-egress --group-id {group} --ip-permissions 'IpProtocol=tcp,FromPort={port},ToPort={port},{permission}' --region {manager_region}`"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Bad, Good, Skipped, Warning};

    fn rule(protocol: &str, ports: Option<(u16, u16)>, peers: &[Peer]) -> Rule {
        Rule { protocol: protocol.into(), ports, peers: peers.to_vec() }
    }

    fn tcp(port: u16, peer: Peer) -> Rule {
        rule("tcp", Some((port, port)), &[peer])
    }

    fn cidr(text: &str) -> Peer {
        Peer::Cidr(text.into())
    }

    fn by_group(id: &str) -> Peer {
        Peer::Group(id.into())
    }

    fn list() -> Peer {
        Peer::PrefixList("pl-1".into())
    }

    struct World {
        named: Vec<String>,
        tasks: Vec<SecurityGroup>,
        manager: Manager,
        manager_groups: Vec<SecurityGroup>,
        subnets: Vec<Subnet>,
        manager_subnets: Vec<Subnet>,
        use_public_ip: bool,
        gitlab_port: u16,
    }

    fn group(id: &str, ingress: Vec<Rule>, egress: Vec<Rule>) -> SecurityGroup {
        SecurityGroup { id: id.into(), name: format!("name of {id}"), vpc: "vpc-1".into(), ingress, egress }
    }

    fn subnet(cidr: &str) -> Subnet {
        Subnet { id: "subnet-1".into(), vpc: "vpc-1".into(), cidr: cidr.into(), ..Subnet::default() }
    }

    /// As `deploy apply` makes it.
    fn healthy() -> World {
        let everywhere = || rule("-1", None, &[cidr("0.0.0.0/0")]);
        let out = vec![tcp(22, by_group("sg-t")), tcp(443, cidr("0.0.0.0/0"))];
        World {
            named: vec!["sg-t".into()],
            tasks: vec![group("sg-t", vec![tcp(22, by_group("sg-m"))], vec![everywhere()])],
            manager: Manager { security_groups: vec!["sg-m".into()], ..Manager::default() },
            manager_groups: vec![group("sg-m", Vec::new(), out)],
            subnets: vec![subnet("10.1.0.0/24")],
            manager_subnets: vec![subnet("10.1.1.0/24")],
            use_public_ip: false,
            gitlab_port: 443,
        }
    }

    impl World {
        fn judged(&self) -> Vec<Finding> {
            let scene = Scene {
                region: "eu-west-1",
                ssh_port: 22,
                use_public_ip: self.use_public_ip,
                gitlab_port: self.gitlab_port,
                subnets: &self.subnets,
                named: &self.named,
                groups: &self.tasks,
                manager: &self.manager,
                manager_subnets: &self.manager_subnets,
            };
            let mut findings = check(&scene);
            findings.push(manager_egress(&scene, &self.manager_groups, "eu-west-1"));
            findings
        }

        fn with(change: impl FnOnce(&mut Self)) -> Self {
            let mut world = healthy();
            change(&mut world);
            world
        }

        /// Exactly this is wrong.
        fn finds(&self, check: &str, verdict: Verdict, words: &[&str]) {
            let findings = self.judged();
            let wrong: Vec<_> = findings.iter().filter(|finding| finding.verdict != Good).collect();
            assert_eq!(wrong.len(), 1, "{findings:?}");
            assert_eq!((wrong[0].check, wrong[0].verdict), (check, verdict));
            let text = format!("{} {}", wrong[0].evidence, wrong[0].fix);
            assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        }
    }

    #[test]
    fn a_healthy_world_is_good_by_each_check() {
        let worlds = [
            healthy(),
            World::with(|world| world.tasks[0].ingress = vec![tcp(22, cidr("10.1.0.0/16"))]),
            World::with(|world| world.tasks[0].ingress = vec![rule("tcp", Some((0, 1024)), &[by_group("sg-m")])]),
            World::with(|world| world.tasks[0].ingress = vec![rule("-1", None, &[by_group("sg-m")])]),
            World::with(|world| {
                world.manager_groups[0].egress = vec![tcp(443, cidr("0.0.0.0/0")), tcp(22, cidr("10.1.0.0/16"))]
            }),
            World::with(|world| {
                world.manager.cidr = Some("10.9.0.0/24".into());
                world.tasks[0].ingress = vec![tcp(22, cidr("10.9.0.0/16"))];
            }),
            World::with(|world| {
                world.tasks.push(group("sg-2", Vec::new(), Vec::new()));
                world.named.push("sg-2".into());
            }),
        ];
        for world in worlds {
            let findings = world.judged();
            let seen: Vec<_> = findings.iter().map(|finding| (finding.check, finding.verdict)).collect();
            assert_eq!(seen, [(GROUPS, Good), (SSH_IN, Good), (TASK_OUT, Good), (MANAGER_OUT, Good)], "{findings:?}");
        }
    }

    #[test]
    fn the_manager_and_nobody_else_is_let_in_on_port_22() {
        let let_in = |rules: &[Rule]| World::with(|world| world.tasks[0].ingress = rules.to_vec());
        let authorize = "authorize-security-group-ingress --group-id sg-t --protocol tcp --port 22 --source-group sg-m --region eu-west-1";
        let_in(&[]).finds(SSH_IN, Bad, &["sg-t lets nobody in on port 22", authorize]);
        let_in(&[tcp(2222, by_group("sg-m"))]).finds(SSH_IN, Bad, &["lets nobody in", authorize]);
        let_in(&[rule("udp", Some((22, 22)), &[by_group("sg-m")])]).finds(SSH_IN, Bad, &["lets nobody in"]);
        let_in(&[tcp(22, by_group("sg-9"))]).finds(
            SSH_IN,
            Bad,
            &["lets in sg-9", "not the manager (sg-m, 10.1.1.0/24)", authorize],
        );
        let_in(&[tcp(22, cidr("10.2.0.0/16"))]).finds(SSH_IN, Bad, &["10.2.0.0/16"]);
        let_in(&[tcp(22, list())]).finds(SSH_IN, Skipped, &["lets in pl-1"]);
        let revoke = "revoke-security-group-ingress --group-id sg-t --protocol tcp --port 22 --cidr 0.0.0.0/0 --region eu-west-1";
        let_in(&[tcp(22, cidr("0.0.0.0/0"))]).finds(SSH_IN, Warning, &["sg-t lets in 0.0.0.0/0 on port 22", revoke]);
        let_in(&[tcp(22, by_group("sg-m")), rule("-1", None, &[cidr("0.0.0.0/0")])]).finds(
            SSH_IN,
            Warning,
            &["--protocol -1 --cidr"],
        );
        let_in(&[tcp(22, by_group("sg-m")), tcp(22, cidr("::/0"))]).finds(
            SSH_IN,
            Warning,
            &["Ipv6Ranges=[{CidrIpv6=::/0}]"],
        );
    }

    #[test]
    fn a_manager_that_comes_over_the_internet_has_an_address_and_no_group() {
        let public = |cidr: Option<&str>, peer: Peer| {
            World::with(|world| {
                world.use_public_ip = true;
                world.manager.cidr = cidr.map(str::to_owned);
                world.tasks[0].ingress = vec![tcp(22, peer)];
                world.manager_groups[0].egress = vec![rule("-1", None, &[Peer::Cidr("0.0.0.0/0".into())])];
            })
        };
        public(Some("192.0.2.1/32"), by_group("sg-m")).finds(
            SSH_IN,
            Bad,
            &["sg-m", "not the manager (192.0.2.1/32)", "--cidr 192.0.2.1/32"],
        );
        public(None, by_group("sg-m")).finds(SSH_IN, Skipped, &["does not say"]);
        assert!(
            public(Some("192.0.2.1/32"), cidr("192.0.2.0/24")).judged().iter().all(|finding| finding.verdict == Good)
        );
    }

    #[test]
    fn where_nobody_knows_the_manager_an_open_port_is_not_called_good() {
        let unknown = |rules: &[Rule]| {
            World::with(|world| {
                world.manager = Manager::default();
                world.manager_subnets.clear();
                world.tasks[0].ingress = rules.to_vec();
            })
        };
        unknown(&[tcp(22, by_group("sg-m"))]).finds(SSH_IN, Skipped, &["lets in sg-m on port 22"]);
        unknown(&[]).finds(SSH_IN, Bad, &["lets nobody in"]);
    }

    #[test]
    fn groups_must_exist_in_the_vpc_of_the_subnets() {
        let missing = World::with(|world| world.named.push("sg-9".into()));
        missing.finds(GROUPS, Bad, &["not there in eu-west-1: sg-9"]);
        let elsewhere = World::with(|world| world.tasks[0].vpc = "vpc-2".into());
        elsewhere.finds(GROUPS, Bad, &["sg-t is in vpc-2, the subnets are in vpc-1"]);
    }

    #[test]
    fn tasks_and_manager_get_out_to_gitlab_and_aws() {
        let out = |rules: &[Rule]| World::with(|world| world.tasks[0].egress = rules.to_vec());
        let authorize = "authorize-security-group-egress --group-id sg-t --ip-permissions 'IpProtocol=tcp,FromPort=443";
        out(&[]).finds(TASK_OUT, Bad, &["sg-t lets tasks out to nobody on port 443", authorize]);
        out(&[tcp(80, cidr("0.0.0.0/0"))]).finds(TASK_OUT, Bad, &["port 443"]);
        out(&[tcp(443, list()), tcp(443, cidr("10.0.0.0/8"))]).finds(TASK_OUT, Skipped, &["to pl-1, 10.0.0.0/8 only"]);
        let odd = World::with(|world| {
            world.gitlab_port = 8443;
            world.tasks[0].egress = vec![tcp(443, cidr("0.0.0.0/0"))];
            world.manager_groups[0].egress.push(tcp(8443, cidr("0.0.0.0/0")));
        });
        odd.finds(TASK_OUT, Bad, &["port 8443"]);
        let of_manager = |rules: &[Rule]| World::with(|world| world.manager_groups[0].egress = rules.to_vec());
        of_manager(&[tcp(22, by_group("sg-t"))]).finds(MANAGER_OUT, Bad, &["the manager out to nobody on port 443"]);
        of_manager(&[tcp(443, cidr("0.0.0.0/0"))]).finds(
            MANAGER_OUT,
            Bad,
            &[
                "sg-m does not let the manager out to the tasks on port 22",
                "FromPort=22,ToPort=22,UserIdGroupPairs=[{GroupId=sg-t}]",
            ],
        );
        World::with(|world| world.manager_groups.clear()).finds(MANAGER_OUT, Bad, &["not there in eu-west-1: sg-m"]);
    }

    #[test]
    fn the_default_group_is_judged_where_none_is_named() {
        let default = World::with(|world| world.named.clear());
        let findings = default.judged();
        assert!(
            findings[0].evidence.starts_with("none is named, so tasks have the VPC's default: sg-t"),
            "{findings:?}"
        );
    }
}
