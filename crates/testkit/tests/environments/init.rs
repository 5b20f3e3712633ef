//! `staffetta deploy init`: what it takes from flags, from AWS and from a person, and what it refuses to write.

use std::ffi::OsString;

use aws::stack::ManagerMode;
use staffetta::deploy::file;
use testkit::{Moto, Terminal};

use crate::operator::{ACCOUNT, Operator, REGION};

const NEEDED: [&str; 7] = [
    "deploy",
    "init",
    "--non-interactive",
    "--gitlab-url=https://gitlab.example.com",
    "--vpc=vpc-1",
    "--subnets=subnet-1,subnet-2",
    "--gitlab-group=42",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    NEEDED.iter().copied().chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn the_account_and_the_region_are_those_that_awss_tools_would_use() {
    let moto = Moto::start();
    let operator = Operator::at(moto.url());
    assert_eq!(operator.staffetta(&NEEDED).await.good(), "staffetta deploy plan\n");
    let deployment = file::load(&operator.path("staffetta.toml")).expect("no mistakes").deployment;
    let names: Vec<_> = deployment.environments.iter().map(|environment| environment.name.as_str()).collect();
    assert_eq!(names, ["dev", "staging", "production"]);
    for environment in &deployment.environments {
        assert_eq!((environment.place.account.as_str(), environment.place.region.as_str()), (ACCOUNT, REGION));
        assert_eq!(environment.place.subnets, ["subnet-1", "subnet-2"]);
    }
}

#[tokio::test]
async fn a_value_for_one_environment_goes_before_the_one_for_all() {
    let operator = Operator::at("http://127.0.0.1:1");
    let more = [
        "--account=123456789012",
        "--account=production=210987654321",
        "--deploy-role=production=arn:aws:iam::210987654321:role/a=b",
        "--region=production=eu-central-1",
        "--vpc=production=vpc-2",
        "--subnets=production=subnet-9",
        "--image=example.com/t:1",
        "--environment=dev",
        "--environment=production",
        "ci/environments.toml",
    ];
    std::fs::create_dir(operator.path("ci")).expect("a folder");
    let said = operator.staffetta(&with(&more)).await.good();
    assert_eq!(said, "staffetta deploy plan --file ci/environments.toml\n");
    let deployment = file::load(&operator.path("ci/environments.toml")).expect("no mistakes").deployment;
    let [dev, production] = &deployment.environments[..] else { panic!("two environments") };
    assert_eq!((dev.place.account.as_str(), dev.place.vpc.as_str()), ("123456789012", "vpc-1"));
    let place = &production.place;
    assert_eq!((place.account.as_str(), place.region.as_str()), ("210987654321", "eu-central-1"));
    assert_eq!((place.vpc.as_str(), &place.subnets[..]), ("vpc-2", &["subnet-9".to_owned()][..]));
    let role = place.deploy_role.as_ref().map(|role| role.arn.as_str());
    assert_eq!(role, Some("arn:aws:iam::210987654321:role/a=b"));
    assert!(deployment.environments.iter().all(|environment| environment.image.as_deref() == Some("example.com/t:1")));
}

#[tokio::test]
async fn each_way_to_run_managers_can_be_had_by_flags() {
    let operator = Operator::at("http://127.0.0.1:1");
    let account = "--account=123456789012";
    let shared = [account, "--manager=shared", "shared.toml"];
    operator.staffetta(&with(&shared)).await.good();
    let deployment = file::load(&operator.path("shared.toml")).expect("no mistakes").deployment;
    assert!(matches!(&deployment.manager, ManagerMode::Shared(place) if place.vpc == "vpc-1"));
    let own = [
        account,
        "--manager=own",
        "--principal=arn:aws:iam::123456789012:role/m",
        "--manager-cidr=10.1.0.0/16",
        "own.toml",
    ];
    // `apply` makes no runners for it.
    let without_group = |more: &[&'static str]| {
        with(more).into_iter().filter(|flag| !flag.starts_with("--gitlab-group")).collect::<Vec<_>>()
    };
    let untold = operator.staffetta(&without_group(&own)).await;
    assert!(untold.stderr.contains("--runner-token-secret: ARN of the secret"), "{}", untold.stderr);
    let secrets = [
        "--runner-token-secret=dev=arn:aws:secretsmanager:us-east-1:123456789012:secret:dev-AbCdEf",
        "--runner-token-secret=staging=arn:aws:secretsmanager:us-east-1:123456789012:secret:staging-AbCdEf",
        "--runner-token-secret=production=arn:aws:secretsmanager:us-east-1:123456789012:secret:production-AbCdEf",
    ];
    let own: Vec<_> = without_group(&own).into_iter().chain(secrets).collect();
    operator.staffetta(&own).await.good();
    let deployment = file::load(&operator.path("own.toml")).expect("no mistakes").deployment;
    assert!(matches!(&deployment.manager, ManagerMode::Own { principal } if principal.ends_with("role/m")));
    assert_eq!(deployment.environments[2].manager_cidr.as_deref(), Some("10.1.0.0/16"));
}

#[tokio::test]
async fn nothing_is_written_where_something_is_missing_wrong_or_there() {
    let operator = Operator::at("http://127.0.0.1:1");
    let file = || operator.path("staffetta.toml");
    let missing = operator.staffetta(&["deploy", "init", "--non-interactive", "--account=123456789012"]).await;
    assert_eq!(missing.code, Some(2));
    for flag in ["--gitlab-url", "--vpc: VPC of dev", "--subnets: Subnets, with commas, of production"] {
        assert!(missing.stderr.contains(flag), "{flag} in {}", missing.stderr);
    }
    let wrong = operator.staffetta(&with(&["--account=12", "--vpc=network-1"])).await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("`account` must be the 12 digits"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("`environments.dev.vpc` must be the id of a VPC"), "{}", wrong.stderr);
    let unknown = operator.staffetta(&with(&["--account=123456789012", "--vpc=prod=vpc-2"])).await;
    assert!(unknown.stderr.contains("there is no environment prod"), "{}", unknown.stderr);
    assert!(!file().exists());

    operator.write("staffetta.toml", "# mine\n");
    let there = operator.staffetta(&with(&["--account=123456789012"])).await;
    assert!(there.code == Some(2) && there.stderr.contains("is there already"), "{}", there.stderr);
    assert_eq!(operator.read("staffetta.toml"), "# mine\n");
    operator.staffetta(&with(&["--account=123456789012", "--force"])).await.good();
    file::load(&file()).expect("no mistakes");
}

#[tokio::test]
async fn a_person_is_asked_for_what_is_not_given_and_again_for_what_cannot_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("staffetta.toml");
    let flags = ["deploy", "init", "--account", "123456789012", "--environment", "dev,production"];
    let mut arguments: Vec<OsString> = flags.iter().map(OsString::from).collect();
    arguments.push(file.clone().into());
    let mut terminal = Terminal::start(&arguments);
    for (question, answer) in [
        ("Name, with which", "relay"),
        ("Address of GitLab", "gitlab.example.com"),
        ("cannot be one", "https://gitlab.example.com"),
        ("AWS region", "eu-west-1"),
        ("Who runs the managers", ""),
        ("Id of the GitLab group", "42"),
        ("VPC of dev", "vpc-1"),
        ("Subnets, with commas, of dev", "subnet-1, subnet-2"),
        ("VPC of production [vpc-1]", ""),
        ("of production [subnet-1,subnet-2]", "subnet-3"),
    ] {
        terminal.until(question).await;
        terminal.answer(answer);
    }
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    let loaded = file::load(&file).expect("no mistakes");
    assert_eq!(
        (loaded.deployment.name.as_str(), loaded.deployment.gitlab_url.as_str()),
        ("relay", "https://gitlab.example.com")
    );
    let subnets: Vec<_> =
        loaded.deployment.environments.iter().map(|environment| environment.place.subnets.join(" ")).collect();
    assert_eq!(subnets, ["subnet-1 subnet-2", "subnet-3"]);
}
