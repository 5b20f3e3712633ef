//! What a deployment file says, and what its writer is told.

use std::collections::BTreeSet;
use std::path::Path;

use aws::stack::{Architecture, CacheBucket, JobRole, ManagerMode, RunnerToken};
use toml::de::DeTable;

use super::*;
use crate::config::tests::{keys_of, uncommented};
use crate::deploy::init::{self, Answers, render};

const EXAMPLE: &str = include_str!("../../../../../examples/staffetta.toml");
const MANUAL: &str = include_str!("../../../../../docs/deployment-file.md");

const HEAD: &str = r#"name = "ci"
gitlab_url = "https://gitlab.example.com"
account = "123456789012"
region = "eu-west-1"
"#;
const DEV: &str = r#"[environments.dev]
vpc = "vpc-1"
subnets = ["subnet-1", "subnet-2"]
"#;
const PRODUCTION: &str = r#"[environments.production]
vpc = "vpc-1"
subnets = ["subnet-1"]
"#;

fn file(text: &str) -> Result<Loaded, Mistakes> {
    read(Path::new("staffetta.toml"), text)
}

pub fn usable(text: &str) -> Loaded {
    file(text).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

/// With these lines in the table of `dev`.
pub fn dev(more: &str) -> Loaded {
    usable(&format!("{HEAD}{DEV}{more}"))
}

/// A file for each way to run managers, with all that changes what they are told.
pub fn every_mode() -> Vec<String> {
    let spot = "capacity_providers = [{ name = \"FARGATE_SPOT\", weight = 3 }, { name = \"FARGATE\", weight = 0, base = 1 }]\n\
                cache_expire_days = 7\nassign_public_ip = true\n";
    let each = format!("{HEAD}{DEV}{spot}{PRODUCTION}");
    let elsewhere = "account = \"210987654321\"\nregion = \"us-east-1\"\nmanager_cidr = \"10.1.0.0/16\"\n\
                     deploy_role = \"arn:aws:iam::210987654321:role/deploy\"\nexternal_id = \"a+b=c\"\n";
    let shared = format!(
        "{HEAD}manager = \"shared\"\n[manager_service]\nvpc = \"vpc-1\"\nsubnets = [\"subnet-1\"]\nconcurrent = 3\n\
         {DEV}{spot}{PRODUCTION}{elsewhere}"
    );
    let own = format!(
        "{HEAD}manager = \"own\"\nprincipal = \"arn:aws:iam::123456789012:role/m\"\n{DEV}manager_cidr = \"10.1.0.0/16\"\n\
         runner_token_secret = \"arn:aws:secretsmanager:eu-west-1:123456789012:secret:dev-AbCdEf\"\n\
         manager_role = \"arn:aws:iam::123456789012:role/path/mine\"\n"
    );
    vec![each, shared, own]
}

fn refused(text: &str) -> String {
    file(text).map(|_| ()).expect_err(text).to_string()
}

#[track_caller]
fn is_refused(text: &str, why: &str) {
    let mistakes = refused(text);
    assert!(mistakes.contains(why), "{mistakes}");
    assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
}

#[track_caller]
fn dev_is_refused(more: &str, why: &str) {
    is_refused(&format!("{HEAD}{DEV}{more}"), why);
}

#[track_caller]
fn dev_is_warned_of(more: &str, why: &str) {
    let warnings: Vec<_> = dev(more).warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(why), "{warnings:?}");
}

#[test]
fn a_short_file_gets_every_default() {
    let Loaded { deployment, runner_scope, warnings } = dev("");
    assert!(warnings.is_empty() && runner_scope.is_none());
    assert!(matches!(deployment.manager, ManagerMode::Each));
    assert_eq!((deployment.service.cpu, deployment.service.memory, deployment.service.concurrent), (256, 512, 10));
    let [dev] = &deployment.environments[..] else { panic!("one environment") };
    assert_eq!((dev.place.account.as_str(), dev.place.region.as_str()), ("123456789012", "eu-west-1"));
    assert_eq!((&dev.runner_tags[..], dev.cpu, dev.memory), (&["dev".to_owned()][..], 1024, 2048));
    assert_eq!((dev.architecture, dev.log_retention_days), (Architecture::X86_64, 30));
    assert_eq!(dev.runner_token, RunnerToken::Made);
    assert!(matches!(&dev.job_role, JobRole::Made { policies, inline: None } if policies.is_empty()));
    assert_eq!(dev.capacity_providers[0].name, "FARGATE");
}

/// A value that is read but thrown away would be the default in spite of the file.
#[test]
fn every_value_of_the_file_arrives() {
    let text = r#"
name = "relay"
gitlab_url = "https://gitlab.example.com:8443/sub"
gitlab_project = 7
manager = "shared"
tags = { team = "platform" }
[manager_service]
account = "111111111111"
region = "eu-north-1"
vpc = "vpc-a"
subnets = ["subnet-a"]
assign_public_ip = true
deploy_role = "arn:aws:iam::111111111111:role/deploy"
deploy_external_id = "m1"
permissions_boundary = "arn:aws:iam::111111111111:policy/m"
image = "example.com/m:1"
cpu = "0.5 vCPU"
memory = "1 GB"
architecture = "arm64"
concurrent = 77
log_retention_days = 7
[environments.zeta]
account = "222222222222"
region = "us-gov-west-1"
deploy_role = "arn:aws-us-gov:iam::222222222222:role/deploy"
deploy_external_id = "e1"
vpc = "vpc-b"
subnets = ["subnet-b", "subnet-c"]
assign_public_ip = true
runner_tags = ["z", "gov"]
runner_token_secret = "arn:aws:secretsmanager:eu-north-1:111111111111:secret:z-AbCdEf"
capacity_providers = [{ name = "FARGATE", weight = 2, base = 1 }]
image = "example.com/t:1"
cpu = 4096
memory = "30 GB"
architecture = "arm64"
ephemeral_storage_gib = 200
job_role_policies = ["arn:aws-us-gov:iam::aws:policy/ReadOnlyAccess"]
job_role_inline_policy = '{"Statement": {"Effect": "Deny", "NotAction": "s3:*", "Resource": "*"}}'
execution_role = "arn:aws-us-gov:iam::222222222222:role/x"
manager_role = "arn:aws-us-gov:iam::222222222222:role/a/m"
permissions_boundary = "arn:aws-us-gov:iam::222222222222:policy/b"
cache_expire_days = 9
log_retention_days = 3653
tags = { stage = "z" }
manager_cidr = "10.0.0.0/9"
external_id = "e2"
[environments.alpha]
account = "111111111111"
region = "eu-north-1"
vpc = "vpc-a"
subnets = ["subnet-a"]
job_role = "arn:aws:iam::111111111111:role/j"
"#;
    let Loaded { deployment, runner_scope, warnings } = usable(text);
    assert_eq!(warnings, []);
    assert_eq!(runner_scope, Some(RunnerScope::Project { project_id: 7 }));
    insta::assert_debug_snapshot!(deployment);
}

#[test]
fn the_example_is_what_init_writes_and_has_every_key() {
    let environment = |name: &str, vpc: &str, subnets: &[&str]| init::Environment {
        name: name.into(),
        vpc: vpc.into(),
        subnets: subnets.iter().map(ToString::to_string).collect(),
        ..init::Environment::default()
    };
    let written = render(&Answers {
        name: "ci".into(),
        gitlab_url: "https://gitlab.example.com".into(),
        scope: Some(RunnerScope::Group { group_id: 42 }),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        manager: init::Manager::Each,
        environments: vec![
            environment("dev", "vpc-0123456789abcdef0", &["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]),
            environment("staging", "vpc-0123456789abcdef0", &["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]),
            environment("production", "vpc-0fedcba9876543210", &["subnet-0fedcba9876543210"]),
        ],
    });
    assert_eq!(EXAMPLE, written, "write what init writes into examples/staffetta.toml");
    assert_eq!(usable(EXAMPLE).warnings, []);

    // Only a shared manager has a place of its own.
    let text = uncommented(EXAMPLE).replace("manager = \"each\"", "manager = \"shared\"");
    let mut report = Report::new(Path::new("staffetta.toml"), &text, &STAFFETTA_TOML);
    read_into(&mut report, &text).expect("TOML");
    let mut in_example = BTreeSet::new();
    keys_of(DeTable::parse(&text).expect("TOML").get_ref(), "", &mut in_example);
    let asked = keys_without_names(&report.asked);
    assert_eq!(asked, keys_without_names(&in_example));
    for key in asked {
        let key = key.strip_prefix("environments.NAME.").or(key.strip_prefix("manager_service.")).unwrap_or(&key);
        let row = MANUAL.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{key}`")));
        assert!(row, "{key} is not in docs/deployment-file.md");
    }
    // All at once they contradict each other, and no value is wrong by itself.
    let contradictions =
        ["both given", "is for `manager", "but `job_role` names one", "give its network as `manager_cidr`"];
    let others: Vec<_> = report.mistakes.iter().map(|mistake| &mistake.message).collect();
    assert!(others.iter().all(|told| contradictions.iter().any(|known| told.contains(known))), "{others:?}");
}

/// Names of environments and tags are free.
fn keys_without_names(keys: &BTreeSet<String>) -> BTreeSet<String> {
    let named = |key: &String| match key.split('.').collect::<Vec<_>>()[..] {
        ["environments", _] | ["environments", _, "tags", _] | ["tags", _] => None,
        ["environments", _, ref rest @ ..] => Some(format!("environments.NAME.{}", rest.join("."))),
        _ => Some(key.clone()),
    };
    keys.iter().filter_map(named).collect()
}

#[test]
fn whatever_init_is_told_the_file_can_be_used() {
    let environment = |name: &str| init::Environment {
        name: name.into(),
        account: Some("210987654321".into()),
        region: Some("us-east-1".into()),
        deploy_role: Some("arn:aws:iam::210987654321:role/a=b".into()),
        vpc: "vpc-1".into(),
        subnets: vec!["subnet-1".into()],
        assign_public_ip: true,
        image: Some("example.com/it's \"here\"".replace(' ', "-")),
        runner_token_secret: Some(format!("arn:aws:secretsmanager:us-east-1:210987654321:secret:{name}-AbCdEf")),
        manager_cidr: None,
    };
    let own = |name| init::Environment { manager_cidr: Some("10.1.2.3/32".into()), ..environment(name) };
    let principal = "arn:aws:iam::210987654321:user/m".to_owned();
    let shared = init::Manager::Shared { vpc: "vpc-1".into(), subnets: vec!["subnet-1".into()] };
    let beside_manager = |name| init::Environment { runner_token_secret: None, ..own(name) };
    for (manager, environments) in [
        (init::Manager::Each, [environment("a"), environment("b")]),
        (init::Manager::Own { principal }, [own("a"), own("b")]),
        (shared, [beside_manager("a"), beside_manager("b")]),
    ] {
        let answers = Answers {
            name: "ci".into(),
            gitlab_url: "https://gitlab.example.com".into(),
            scope: None,
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            manager,
            environments: environments.into(),
        };
        let loaded = usable(&render(&answers));
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.deployment.environments[1].image, answers.environments[1].image);
        assert!(loaded.deployment.environments[1].place.assign_public_ip);
    }
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_line() {
    let text = r#"nam = "ci"
gitlab_url = "gitlab.example.com"
account = "1234"
region = "europe"
manager = "some"
[environments.Dev]
vpc = "subnet-1"
subnet = ["subnet-1"]
cpu = 3
memory = 5
[environments.manager]
vpc = "vpc-1"
subnets = ["subnet-1", "subnet-1"]
log_retention_days = 31
"#;
    insta::assert_snapshot!(refused(text));
}

#[test]
fn every_beginning_of_a_file_is_answered() {
    let text = uncommented(EXAMPLE);
    for (at, _) in text.char_indices().step_by(7) {
        if let Err(mistakes) = file(&text[..at]) {
            assert!(!mistakes.0.is_empty(), "{}", &text[..at]);
        }
    }
}

#[test]
fn environments_are_tables() {
    is_refused(&format!("{HEAD}environments = 3"), "`environments` must be a table of tables");
    is_refused(&format!("{HEAD}{DEV}[environments]\nproduction = 3"), "`environments.production` must be a table");
    is_refused(HEAD, "add a table for each environment");
}

#[test]
fn cpu_and_memory_that_do_not_pair_are_told_the_nearest_that_do() {
    dev_is_refused("cpu = 256\nmemory = \"4 GB\"", "take 256 with 2048 or 512 with 4096");
    dev_is_refused("cpu = \"1 vCPU\"", "`environments.dev.memory` is missing");
    dev_is_refused("cpu = \"much\"\nmemory = 2048", "CPU units such as 1024");
}

#[test]
fn names_that_are_too_long_are_told_what_may_remain() {
    is_refused(
        &format!("{HEAD}{DEV}").replace("\"ci\"", "\"a-name-of-22-characters\""),
        "has 23 characters: at most 20",
    );
    let long = format!("{HEAD}{DEV}cache_expire_days = 3").replace("\"ci\"", "\"twenty-characters-00\"");
    usable(&long);
    is_refused(&long.replace("environments.dev", "environments.production-eur"), "may have 33 together");
}

#[test]
fn no_environment_takes_the_name_of_a_managers_stack() {
    for name in ["manager", "manager-access", "dev-manager"] {
        let text = format!("{HEAD}{DEV}").replace("environments.dev", &format!("environments.{name}"));
        is_refused(&text, "that is what managers' stacks are called");
    }
}

#[test]
fn overlapping_environments_are_told() {
    let both = |one: &str, other: &str| format!("{HEAD}{DEV}{one}{PRODUCTION}{other}");
    is_refused(&both("", "runner_tags = [\"dev\"]"), "dev and production have the same runner tags (dev)");
    let secret = "runner_token_secret = \"arn:aws:secretsmanager:eu-west-1:123456789012:secret:x-AbCdEf\"\n";
    is_refused(&both(secret, secret), "have the same runner token");
    let warned = |text: &str| usable(text).warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>();
    let shared_tag = both("runner_tags = [\"dev\", \"aws\"]\n", "runner_tags = [\"production\", \"aws\"]");
    assert_eq!(
        warned(&shared_tag),
        ["environments dev and production share tags: a job with no other tags than aws may run in either"]
    );
    let role = "job_role = \"arn:aws:iam::123456789012:role/jobs\"\n";
    assert_eq!(
        warned(&both(role, role)),
        ["environments dev and production have the same role arn:aws:iam::123456789012:role/jobs: it reaches both"]
    );
}

/// A job of dev would else be the manager of production.
#[test]
fn jobs_get_no_managers_role_and_no_environment_gets_what_is_made_for_another() {
    let role = |key: &str, name: &str| format!("{key} = \"arn:aws:iam::123456789012:role/{name}\"\n");
    let both = |one: &str, other: &str| format!("{HEAD}{DEV}{one}{PRODUCTION}{other}");
    for (key, name) in [
        ("job_role", "ci-production-manager"),
        ("job_role", "some/path/ci-production-execution"),
        ("job_role", "ci-production-manager-execution"),
        ("job_role", "ci-production-job"),
        ("manager_role", "ci-production-manager"),
    ] {
        is_refused(&both(&role(key, name), ""), "which `apply` makes for environment production");
    }
    is_refused(&both(&role("job_role", "ci-dev-manager"), ""), "which `apply` makes for environment dev");
    dev_is_refused(&(role("job_role", "m") + &role("manager_role", "m")), "is also `environments.dev.manager_role`");
    dev_is_refused(&(role("job_role", "m") + &role("deploy_role", "m")), "is also `environments.dev.deploy_role`");
    is_refused(&both(&role("job_role", "m"), &role("execution_role", "m")), "`environments.production.execution_role`");
    let [_, shared, own] = &every_mode()[..] else { panic!("three modes") };
    let dev = |text: &str, name: &str| text.replace(DEV, &format!("{DEV}{}", role("job_role", name)));
    is_refused(&dev(shared, "ci-manager"), "which `apply` makes for the shared manager");
    is_refused(&dev(own, "m"), "is also `principal`");
    // Roles of other accounts and names that only end alike are others.
    usable(&both(&role("job_role", "my-ci-production-manager"), ""));
}

#[test]
fn regions_are_checked_as_far_as_they_are_known() {
    dev_is_warned_of("region = \"eu-wets-1\"", "did you mean eu-west-1?");
    dev_is_warned_of("region = \"xy-west-1\"", "is not among the regions");
    dev_is_refused("region = \"Ireland\"", "must be an AWS region");
    let spot = "capacity_providers = [{ name = \"FARGATE_SPOT\" }]";
    assert_eq!(dev(spot).warnings, []);
    dev_is_warned_of(&format!("region = \"ap-northeast-3\"\n{spot}"), "not known to sell it in ap-northeast-3");
}

#[test]
fn roles_and_policies_are_of_the_environments_own_account() {
    for (key, arn, why) in [
        (
            "job_role",
            "arn:aws:iam::999999999999:role/x",
            "is of the account 999999999999, but it must be of 123456789012",
        ),
        ("execution_role", "arn:aws-cn:iam::123456789012:role/x", "is of the partition aws-cn"),
        ("manager_role", "arn:aws:sts::123456789012:assumed-role/x/y", "must be the ARN of a role"),
        ("permissions_boundary", "arn:aws:iam::123456789012:role/x", "must be the ARN of a policy"),
        ("permissions_boundary", "arn:aws:iam::123456789012:policy/", "must be the ARN of a policy"),
        ("deploy_role", "my-role", "must be the ARN of a role"),
    ] {
        dev_is_refused(&format!("{key} = \"{arn}\""), why);
    }
    dev_is_refused("job_role_policies = [\"ReadOnlyAccess\"]", "must be the ARN of a policy");
    dev_is_warned_of(&format!("job_role_policies = [{}]", "\"arn:aws:iam::aws:policy/X\",".repeat(11)), "has 11");
}

#[test]
fn a_policy_of_ones_own_must_be_one() {
    for (policy, why) in [
        ("{", "is not JSON"),
        ("[]", "is no JSON object"),
        ("{}", "it has no Statement"),
        (r#"{"Statement": []}"#, "it has no Statement"),
        (r#"{"Version": "2026-01-01", "Statement": []}"#, "its Version"),
        (r#"{"Statment": []}"#, "it has \"Statment\""),
        (r#"{"Statement": {"Effect": "allow", "Action": "*", "Resource": "*"}}"#, "statement 1 needs an Effect"),
        (r#"{"Statement": {"Effect": "Allow", "Resource": "*"}}"#, "statement 1 needs an Action"),
        (r#"{"Statement": {"Effect": "Allow", "Action": "*"}}"#, "statement 1 needs a Resource"),
        (
            r#"{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}}"#,
            "statement 1 names a Principal",
        ),
    ] {
        dev_is_refused(&format!("job_role_inline_policy = '{policy}'"), why);
    }
    let long =
        format!(r#"{{"Statement": {{"Effect": "Allow", "Action": "s3:*", "Resource": "{}"}}}}"#, "x".repeat(10_240));
    dev_is_refused(&format!("job_role_inline_policy = '{long}'"), "a role's own policy may have 10240");
    let both = "job_role = \"arn:aws:iam::123456789012:role/x\"\njob_role_policies = []";
    dev_is_refused(both, "leave one of them out");
}

#[test]
fn capacity_is_fargates() {
    dev_is_refused("capacity_providers = [{ name = \"SPOT\" }]", "has \"SPOT\"");
    dev_is_refused("capacity_providers = [{ name = \"FARGATE\" }, { name = \"FARGATE\" }]", "has FARGATE twice");
    dev_is_refused("capacity_providers = [{ name = \"FARGATE\", weight = 0 }]", "a weight above 0");
}

#[test]
fn networks_are_checked() {
    let many: Vec<_> = (0..17).map(|number| format!("\"subnet-{number}\"")).collect();
    let text = format!("{HEAD}[environments.dev]\nvpc = \"vpc-1\"\nsubnets = [{}]", many.join(","));
    is_refused(&text, "has 17: a task may choose from at most 16");
    is_refused(&format!("{HEAD}{DEV}").replace("subnet-2", "subnet-1"), "has subnet-1 twice");
    is_refused(&format!("{HEAD}{DEV}").replace("subnet-2", "vpc-2"), "it has \"vpc-2\"");
}

#[test]
fn everything_else_that_aws_would_refuse_is_told() {
    dev_is_refused("log_retention_days = 31", "take 30");
    dev_is_refused("ephemeral_storage_gib = 20", "from 21 to 200");
    dev_is_refused("image = \"two words\"", "must be an image's name");
    dev_is_refused("tags = { \"aws:x\" = \"y\" }", "begins with aws:");
    dev_is_refused("tags = { \"staffetta:deployment\" = \"y\" }", "by which this program knows what is its own");
    dev_is_refused("tags = { x = \"y!\" }", "may have letters");
    dev_is_refused("runner_tags = []", "must have one tag or more");
    dev_is_refused("runner_tags = [\"a,b\"]", "without commas");
    dev_is_refused("runner_token_secret = \"glrt-abc\"", "the token itself does not belong here");
    let secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x";
    dev_is_refused(&format!("runner_token_secret = \"{secret}-AbCdEf:token::\""), "without what follows its name");
    dev_is_refused(&format!("runner_token_secret = \"{secret}\""), "lacks the end that Secrets Manager gave");
    let far = secret.replace("eu-west-1", "eu-west-2");
    let theirs = secret.replace("123456789012", "210987654321");
    for elsewhere in [far, theirs] {
        let secret = format!("runner_token_secret = \"{elsewhere}-AbCdEf\"");
        dev_is_warned_of(&secret, "is not in the manager's account and region, 123456789012 and eu-west-1");
    }
    dev_is_refused("deploy_external_id = \"x1\"", "goes with `deploy_role`");
    dev_is_refused("external_id = \"x1\"", "leave it out");
    dev_is_refused("manager_cidr = \"10.0.0.0/16\"", "leave it out");
    is_refused(&format!("{HEAD}{DEV}").replace("\"123456789012\"", "\"12345678901\""), "must be the 12 digits");
    is_refused(&format!("{HEAD}gitlab_group = 1\ngitlab_project = 2\n{DEV}"), "are both given");
    is_refused(&format!("{HEAD}{DEV}").replace("https://", "https://user@"), "without a user or variables");
}

#[test]
fn managers_elsewhere_need_to_be_told_where() {
    let [_, shared, own] = &every_mode()[..] else { panic!("three modes") };
    is_refused(&shared.replace("manager_cidr = \"10.1.0.0/16\"\n", ""), "give its network as `manager_cidr`");
    is_refused(&own.replace("manager_cidr = \"10.1.0.0/16\"\n", ""), "environment dev needs `manager_cidr`");
    is_refused(&own.replace("10.1.0.0/16", "10.1.0.0/15"), "has bits behind its prefix: write \"10.0.0.0/15\"");
    is_refused(&own.replace("10.1.0.0/16", "0.0.0.0/0"), "lets in most of the world");
    for cidr in ["10.1.0.0", "2001:db8::/32"] {
        is_refused(&own.replace("10.1.0.0/16", cidr), "must be a range of IPv4 addresses");
    }
    let without = own.lines().filter(|line| !line.starts_with("runner_token_secret")).collect::<Vec<_>>().join("\n");
    is_refused(&without, "Make the runner with `staffetta register`, put its token into a secret");
    is_refused(&format!("gitlab_group = 1\n{own}"), "is for runners that `apply` makes");
    is_refused(&own.replace("principal = \"arn:aws:iam::123456789012:role/m\"\n", ""), "`principal` is missing");
    is_refused(&own.replace(":role/m\"", ":m\""), "must be the ARN of a role or user");
    is_refused(&own.replace("\"own\"", "\"each\"").replace("manager_cidr", "#"), "is for `manager = \"own\"`");
    is_refused(&shared.replace("external_id = \"a+b=c\"", "external_id = \"x\""), "2 to 1224");
    let elsewhere = "deploy_role = \"arn:aws:iam::210987654321:role/deploy\"\n";
    is_refused(&shared.replace(elsewhere, ""), "nobody is in two accounts");
    let no_place = shared.replace("vpc = \"vpc-1\"\nsubnets = [\"subnet-1\"]\nconcurrent", "concurrent");
    assert!(refused(&no_place).contains("`manager_service.vpc` is missing"));
    assert!(
        refused(&shared.replace("[manager_service]", "[manager_servic]")).contains("did you mean `manager_service`?")
    );
    is_refused(&format!("{HEAD}[manager_service]\nvpc = \"vpc-1\"\n{DEV}"), "is for `manager = \"shared\"`");
    is_refused(&format!("{own}[manager_service]\n"), "leave it out");
    let cached = dev("cache_expire_days = 5").deployment;
    assert_eq!(cached.environments[0].cache, Some(CacheBucket { expire_days: 5 }));
}
