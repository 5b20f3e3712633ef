//! Deployments, one for each thing that the file can say.

use std::collections::BTreeMap;

use aws::AssumedRole;
use aws::fargate::CapacityProvider;
use aws::stack::{
    Architecture, CacheBucket, Deployment, Environment, JobRole, ManagerMode, ManagerService, Place, RunnerToken,
    Stack, stacks, token_variable,
};
use serde_json::{Value, json};

pub const ACCOUNT: &str = "111111111111";

pub fn place() -> Place {
    Place {
        account: ACCOUNT.into(),
        region: "eu-west-1".into(),
        vpc: "vpc-0000000000000000a".into(),
        subnets: vec!["subnet-0000000000000000a".into(), "subnet-0000000000000000b".into()],
        assign_public_ip: false,
        deploy_role: None,
    }
}

pub fn provider(name: &str, weight: u16, base: u32) -> CapacityProvider {
    CapacityProvider { name: name.into(), weight, base }
}

/// With nothing but what the file must say.
pub fn environment(name: &str) -> Environment {
    Environment {
        name: name.into(),
        place: place(),
        runner_tags: vec![name.into()],
        capacity_providers: vec![provider("FARGATE", 1, 0)],
        image: None,
        cpu: 1024,
        memory: 2048,
        architecture: Architecture::X86_64,
        ephemeral_storage_gib: None,
        job_role: JobRole::Made { policies: Vec::new(), inline: None },
        execution_role: None,
        manager_role: None,
        permissions_boundary: None,
        tags: BTreeMap::new(),
        log_retention_days: 30,
        runner_token: RunnerToken::Made,
        cache: None,
        external_id: None,
        manager_cidr: None,
    }
}

pub fn deployment(environments: Vec<Environment>) -> Deployment {
    Deployment {
        name: "ci".into(),
        gitlab_url: "https://gitlab.example.com".into(),
        manager: ManagerMode::Each,
        service: ManagerService {
            image: None,
            cpu: 256,
            memory: 512,
            architecture: Architecture::X86_64,
            concurrent: 10,
            log_retention_days: 30,
            permissions_boundary: None,
        },
        environments,
        tags: BTreeMap::new(),
    }
}

/// dev, staging and production.
pub fn usual() -> Deployment {
    deployment(["dev", "staging", "production"].map(environment).to_vec())
}

pub fn shared() -> Deployment {
    Deployment { manager: ManagerMode::Shared(place()), ..usual() }
}

/// One environment, whose manager is a machine of somebody's own.
pub fn own(external_id: Option<&str>) -> Deployment {
    let deployment = one(|dev| {
        dev.manager_cidr = Some("10.1.0.0/16".into());
        dev.external_id = external_id.map(str::to_owned);
        dev.runner_token = RunnerToken::Secret(secret());
    });
    Deployment {
        manager: ManagerMode::Own { principal: "arn:aws:iam::999999999999:role/our-manager".into() },
        ..deployment
    }
}

/// The one environment of a deployment that is changed in one point.
fn one(change: impl FnOnce(&mut Environment)) -> Deployment {
    let mut environment = environment("dev");
    change(&mut environment);
    deployment(vec![environment])
}

fn tag(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn in_region(region: &str) -> Deployment {
    let mut deployment = one(|dev| {
        dev.cache = Some(CacheBucket { expire_days: 7 });
        dev.place.region = region.into();
    });
    deployment.name = "c".into();
    deployment
}

/// Everything at once that can be said together.
pub fn full() -> Deployment {
    let mut deployment = one(|dev| {
        dev.place.assign_public_ip = true;
        dev.place.deploy_role = Some(AssumedRole {
            arn: format!("arn:aws:iam::{ACCOUNT}:role/deploy"),
            session_name: "staffetta-deploy".into(),
            external_id: Some("x".into()),
            tags: Vec::new(),
        });
        dev.capacity_providers = vec![provider("FARGATE_SPOT", 4, 0), provider("FARGATE", 1, 1)];
        dev.architecture = Architecture::Arm64;
        dev.ephemeral_storage_gib = Some(100);
        dev.job_role = JobRole::Made {
            policies: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".into()],
            inline: Some(inline_policy()),
        };
        dev.permissions_boundary = Some(format!("arn:aws:iam::{ACCOUNT}:policy/boundary"));
        dev.tags = tag("team", "platform");
        dev.cache = Some(CacheBucket { expire_days: 14 });
    });
    deployment.tags =
        BTreeMap::from([("team".to_owned(), "all".to_owned()), ("cost-center".to_owned(), "42".to_owned())]);
    deployment
}

pub fn inline_policy() -> Value {
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::releases/${aws:PrincipalTag/team}/*"},
    ]})
}

/// Each option, by itself and in the ways in which it can be given.
pub fn every_option() -> Vec<(&'static str, Deployment)> {
    let elsewhere = |account: &str, vpc: &str| Place { account: account.into(), vpc: vpc.into(), ..place() };
    let mut managers = vec![("each", usual()), ("shared", shared()), ("full", full())];
    for (name, external_id) in [("own", None), ("own, external id", Some("x"))] {
        managers.push((name, own(external_id)));
    }
    let mut accounts = shared();
    accounts.manager = ManagerMode::Shared(Place { assign_public_ip: true, ..place() });
    accounts.environments[1].place = elsewhere("222222222222", "vpc-0000000000000000a");
    accounts.environments[2].place = elsewhere("333333333333", "vpc-0000000000000000c");
    accounts.environments[2].manager_cidr = Some("10.0.0.0/16".into());
    for environment in &mut accounts.environments {
        environment.external_id = Some("ci-x".into());
    }
    managers.push(("shared, three accounts", accounts));
    let mut brought = shared();
    brought.environments[0].manager_role = Some(format!("arn:aws:iam::{ACCOUNT}:role/team/manager"));
    brought.environments[0].runner_token = RunnerToken::Secret(secret());
    managers.push(("shared, a role of somebody's own", brought));
    let mut service = usual();
    service.service = ManagerService {
        image: Some("registry.example.com/staffetta/manager:0.1.0".into()),
        cpu: 512,
        memory: 1024,
        architecture: Architecture::Arm64,
        concurrent: 100,
        log_retention_days: 3653,
        permissions_boundary: None,
    };
    managers.push(("the manager's service", service));
    let mut bounded = shared();
    bounded.service.permissions_boundary = Some(policy("boundary"));
    managers.push(("a shared manager with a boundary", bounded));
    let mut dashes = usual();
    dashes.environments = ["a-1", "a1", "a-b", "ab"].map(environment).to_vec();
    managers.push(("names with dashes", dashes));

    let environments = [
        ("public addresses", one(|dev| dev.place.assign_public_ip = true)),
        ("one subnet", one(|dev| dev.place.subnets = vec!["subnet-0000000000000000a".into()])),
        ("Spot alone", one(|dev| dev.capacity_providers = vec![provider("FARGATE_SPOT", 1, 0)])),
        (
            "Spot with a fallback",
            one(|dev| dev.capacity_providers = vec![provider("FARGATE_SPOT", 1, 0), provider("FARGATE", 0, 0)]),
        ),
        ("an image from elsewhere", one(|dev| dev.image = Some("docker.io/library/node:24".into()))),
        ("an image without a registry", one(|dev| dev.image = Some("node".into()))),
        (
            "an image of another account",
            one(|dev| dev.image = Some(ecr("222222222222", "eu-central-1", "team/node:24"))),
        ),
        (
            "an image by digest",
            one(|dev| {
                dev.image = Some(format!("{}@sha256:{}", ecr(ACCOUNT, "eu-west-1", "ci-dev/task"), "0".repeat(64)))
            }),
        ),
        ("a small task", one(|dev| (dev.cpu, dev.memory) = (256, 512))),
        ("a large task", one(|dev| (dev.cpu, dev.memory) = (32768, 249_856))),
        ("ARM64", one(|dev| dev.architecture = Architecture::Arm64)),
        ("the least storage", one(|dev| dev.ephemeral_storage_gib = Some(21))),
        ("the most storage", one(|dev| dev.ephemeral_storage_gib = Some(200))),
        ("a job role of somebody's own", one(|dev| dev.job_role = JobRole::Existing(role("jobs")))),
        (
            "managed policies",
            one(|dev| dev.job_role = JobRole::Made { policies: vec![policy("a"), policy("b")], inline: None }),
        ),
        (
            "an inline policy",
            one(|dev| dev.job_role = JobRole::Made { policies: Vec::new(), inline: Some(inline_policy()) }),
        ),
        ("an execution role of somebody's own", one(|dev| dev.execution_role = Some(role("execution")))),
        ("a manager role of somebody's own", one(|dev| dev.manager_role = Some(role("manager")))),
        (
            "all roles of somebody's own",
            one(|dev| {
                dev.job_role = JobRole::Existing(role("jobs"));
                dev.execution_role = Some(role("execution"));
                dev.manager_role = Some(role("manager"));
            }),
        ),
        ("a boundary", one(|dev| dev.permissions_boundary = Some(policy("boundary")))),
        ("tags", one(|dev| dev.tags = tag("team", "platform"))),
        ("logs of a day", one(|dev| dev.log_retention_days = 1)),
        ("a secret of somebody's own", one(|dev| dev.runner_token = RunnerToken::Secret(secret()))),
        ("a cache", one(|dev| dev.cache = Some(CacheBucket { expire_days: 1 }))),
        ("China", in_region("cn-north-1")),
        ("GovCloud", in_region("us-gov-west-1")),
    ];
    managers.into_iter().chain(environments).collect()
}

fn role(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

fn policy(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:policy/{name}")
}

fn secret() -> String {
    format!("arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:gitlab/dev-AbCdEf")
}

fn ecr(account: &str, region: &str, repository: &str) -> String {
    format!("{account}.dkr.ecr.{region}.amazonaws.com/{repository}")
}

/// The stacks, with a config.toml that names each environment and its group.
pub fn stacks_of(deployment: &Deployment) -> Vec<Stack> {
    stacks(deployment, &|environments, group| {
        let runner = |it: &&Environment| {
            format!(
                "[{}]
token = \"${}\"
group = \"{}\"
",
                it.name,
                token_variable(it),
                group(it)
            )
        };
        environments.iter().map(runner).collect()
    })
}

/// The resources of a type in a template: their logical ids and properties.
pub fn resources<'a>(template: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let all = template["Resources"].as_object().expect("resources").iter();
    all.filter(|(_, it)| it["Type"] == kind).map(|(id, it)| (id.as_str(), &it["Properties"])).collect()
}

/// The one resource of a type.
pub fn resource<'a>(template: &'a Value, kind: &str) -> &'a Value {
    match &resources(template, kind)[..] {
        [(_, properties)] => properties,
        other => panic!("{kind}: {other:?}"),
    }
}

pub fn stack<'a>(stacks: &'a [Stack], name: &str) -> &'a Stack {
    stacks.iter().find(|stack| stack.name == name).unwrap_or_else(|| panic!("no stack {name}"))
}
