//! One manager for environments in three accounts: each runner reaches its own as a role there, with that role's external id.

use std::collections::BTreeSet;
use std::time::Duration;

use embedded::fargate::{CallFault, Config, Role};
use embedded::gitlab::Status;
use serde_json::json;
use testkit::{AwsFront, ManagerProcess, Moto, Setup, StoreFront, World, program};

use crate::cache::{Gate, SHORT};
use crate::secrets::give;

const ENVIRONMENTS: [(&str, &str); 3] =
    [("dev", "111111111111"), ("staging", "222222222222"), ("production", "333333333333")];

fn role_of(environment: &str, account: &str) -> String {
    format!("arn:aws:iam::{account}:role/ci-{environment}-manager")
}

fn cluster_of(environment: &str, account: &str) -> String {
    format!("arn:aws:ecs:us-east-1:{account}:cluster/{environment}")
}

/// The world of the shared manager, which is not started. `change` gets each environment's name and `[[runners]]` entry, with
/// `NAME` for the name in the lines of `runner`.
async fn world(runner: &str, keys_live: Duration, change: impl Fn(&str, String) -> String) -> World {
    let role = |(name, account): (&str, &str)| Role {
        external_id: Some(format!("staffetta/{name}")),
        trusts: vec!["manager".into()],
        keys_live,
        ..Role::new(role_of(name, account))
    };
    let fargate = Config {
        clusters: ENVIRONMENTS.map(|(name, account)| cluster_of(name, account)).to_vec(),
        roles: ENVIRONMENTS.map(role).to_vec(),
        ..Setup::default().fargate
    };
    let world = World::without_manager(Setup { fargate, runner: runner.to_owned(), ..Setup::default() }).await;
    let text = std::fs::read_to_string(world.config_file()).expect("config.toml");
    let mut parts = text.split("[[runners]]");
    let mut text = parts.next().expect("a head").to_owned();
    for (entry, (name, account)) in parts.zip(ENVIRONMENTS) {
        let role = role_of(name, account);
        let keys = format!("[runners.fargate]\nrole_arn = \"{role}\"\nexternal_id = \"staffetta/{name}\"\n");
        let entry = entry.replace("NAME", name).replace("[runners.fargate]\n", &keys);
        text += &format!("[[runners]]{}", change(name, entry));
    }
    std::fs::write(world.config_file(), text).expect("config.toml");
    world
}

const HOUR: Duration = Duration::from_secs(3600);

/// The manager as a process, whose other services of AWS are where `services` says.
fn manager(world: &World, services: &[(&str, &str)]) -> ManagerProcess {
    let mut command = tokio::process::Command::new(program("staffetta"));
    command.args(["run", "--config"]).arg(world.config_file()).envs(services.iter().copied());
    ManagerProcess::of(command)
}

/// A job called like its environment, in each of them.
fn in_all(body: &str) -> String {
    ENVIRONMENTS.map(|(name, _)| format!("{name}:\n  tags: [{name}]\n{body}")).join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_environments_jobs_are_started_as_its_role_in_its_account() {
    let mut world = world("", HOUR, |_, entry| entry).await;
    let manager = manager(&world, &[]);
    // What a job says of roles is for GitLab's driver only.
    let other = role_of("staging", "222222222222");
    let jobs = in_all(&format!("  variables: {{ ROLE_ARN: \"{other}\" }}\n  script: [echo it runs]"));
    let pipeline = world.pipeline(&jobs).await;
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace("dev"));
    let tasks = world.fargate.tasks();
    assert_eq!(tasks.len(), 3);
    for (name, account) in ENVIRONMENTS {
        let here = format!("arn:aws:ecs:us-east-1:{account}:task/{name}/");
        let task = tasks.iter().find(|task| task.arn.starts_with(&here)).expect("a task in the account");
        let session = task.role_session.as_ref().expect("a role");
        assert_eq!(session.role, role_of(name, account));
        // Manager and runner, for CloudTrail.
        assert!(session.name.starts_with("staffetta.") && session.name.ends_with(&format!(".{name}")), "{session:?}");
    }
    assert_eq!(world.fargate.calls()["AssumeRole"], 3, "one set of keys for all calls of a runner");
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_one_environment_reaches_no_other_environments_cluster() {
    let astray = |name: &str, entry: String| match name {
        "dev" => {
            entry.replace("cluster = \"dev\"", &format!("cluster = \"{}\"", cluster_of("staging", "222222222222")))
        }
        _ => entry,
    };
    let mut world = world("", HOUR, astray).await;
    let manager = manager(&world, &[]);
    let pipeline = world.pipeline(&in_all("  script: [echo it runs]")).await;
    world.finished(pipeline).await;
    let (dev, trace) = (world.job("dev"), world.trace("dev"));
    assert_eq!(dev.failure_reason.as_deref(), Some("runner_configuration_error"), "{trace}");
    assert!(trace.contains("ClusterNotFoundException"), "{trace}");
    for (name, _) in &ENVIRONMENTS[1..] {
        assert_eq!(world.job(name).status, Status::Success, "{}", world.trace(name));
    }
    assert_eq!(world.fargate.tasks().len(), 2);
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_external_id_is_told_with_its_fix_and_the_other_environments_go_on() {
    let mut world = world("", HOUR, |_, entry| entry.replace("staffetta/staging", "wrong")).await;
    let mut manager = manager(&world, &[]);
    let log = manager.until_log("cannot list the runner's tasks").await;
    let role = role_of("staging", "222222222222");
    assert!(log.contains(&format!("does not give the role {role}")), "{log}");
    let pipeline = world.pipeline(&in_all("  script: [echo it runs]")).await;
    world.finished(pipeline).await;
    let (staging, trace) = (world.job("staging"), world.trace("staging"));
    assert_eq!(staging.failure_reason.as_deref(), Some("runner_configuration_error"), "{trace}");
    for text in [
        format!("AWS does not give the role {role} (AccessDenied: User: "),
        "its trust policy lets the manager's role do sts:AssumeRole with the external id".to_owned(),
        "external_id in [runners.fargate]".to_owned(),
    ] {
        assert!(trace.contains(&text), "{text:?} is missing: {trace}");
    }
    for name in ["dev", "production"] {
        assert_eq!(world.job(name).status, Status::Success, "{}", world.trace(name));
    }
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_at_sts_is_waited_out() {
    let mut world = world("", HOUR, |_, entry| entry).await;
    world.fargate.faults().on_call("AssumeRole", 4, CallFault::ServerError { status: 503 });
    let manager = manager(&world, &[]);
    let pipeline = world.pipeline(&in_all("  script: [echo it runs]")).await;
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace("dev"));
    drop(manager);
    world.end().await;
}

/// A cache of a bucket of the environment's own.
const CACHE: &str = r#"
[runners.cache]
Type = "s3"
[runners.cache.s3]
ServerAddress = "ADDRESS"
Insecure = true
BucketName = "shared-manager-NAME"
BucketLocation = "us-east-1"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn caches_are_signed_as_the_environments_role_unless_the_file_gives_keys() {
    const OF_CACHES: &str = "arn:aws:iam::123456789012:role/caches";
    let front = AwsFront::start(Moto::shared().url()).await;
    for (name, _) in ENVIRONMENTS {
        Moto::shared().create_bucket(&format!("shared-manager-{name}")).await;
    }
    let with = |entry: String, more: &str| entry.replace("Insecure = true", &format!("Insecure = true\n{more}"));
    let different = |name: &str, entry: String| match name {
        "staging" => with(entry, &format!("RoleARN = \"{OF_CACHES}\"")),
        "production" => with(entry, "AccessKey = \"given\"\nSecretKey = \"secret\""),
        _ => entry,
    };
    let address = front.url().trim_start_matches("http://");
    let mut world = world(&CACHE.replace("ADDRESS", address), HOUR, different).await;
    let manager = manager(&world, &[("AWS_ENDPOINT_URL_STS", front.url())]);
    let body = "  cache: { key: main, paths: [deps/] }\n  script: [mkdir -p deps, echo it > deps/tool]";
    let pipeline = world.pipeline(&in_all(body)).await;
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace("dev"));
    for (name, _) in ENVIRONMENTS {
        assert!(world.trace(name).contains("Created cache"), "{}", world.trace(name));
    }

    let calls = front.calls();
    let signers = |environment: &str| {
        let bucket = format!("shared-manager-{environment}");
        let here = calls.iter().filter(|call| call.service == "s3" && call.text("Bucket") == bucket);
        here.map(|call| (call.who.clone(), call.role.clone())).collect::<BTreeSet<_>>()
    };
    let role_of_key = |key: &str| world.fargate.role_session(key).map(|session| session.role);
    let dev: Vec<_> = signers("dev").into_iter().map(|(key, _)| role_of_key(&key)).collect();
    assert_eq!(dev, [Some(role_of("dev", "111111111111"))]);
    // RoleARN is taken with the keys of the environment's role.
    let staging: Vec<_> = signers("staging").into_iter().map(|(_, role)| role).collect();
    assert_eq!(staging, [Some(OF_CACHES.to_owned())]);
    let taken: Vec<_> = calls.iter().filter(|call| call.name() == "sts:AssumeRole").collect();
    assert!(!taken.is_empty());
    for call in taken {
        assert_eq!(role_of_key(&call.who), Some(role_of("staging", "222222222222")));
    }
    assert_eq!(signers("production"), [("given".to_owned(), None)].into());
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_end_while_a_job_runs_are_renewed() {
    Moto::shared().create_bucket("shared-manager-outlives").await;
    let front = StoreFront::start(Moto::shared(), HOUR).await;
    let cache = CACHE.replace("ADDRESS", front.address()).replace("NAME", "outlives");
    let mut world = world(&cache, SHORT, |_, entry| entry).await;
    let manager = manager(&world, &[]);
    let gate = Gate::shut().await;
    let pipeline = world.pipeline(&gate.pipeline()).await;
    world.until_trace("it", "under way").await;
    let over = tokio::time::Instant::now() + SHORT + Duration::from_secs(1);
    let taken = || world.fargate.calls()["AssumeRole"];
    let before = taken();
    testkit::eventually("the keys of the hand-over are over", || tokio::time::Instant::now() > over).await;
    testkit::eventually("the role is taken again", || taken() > before).await;
    gate.open().await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    let trace = world.trace("it");
    assert!(trace.contains("Created cache"), "{trace}\n{:#?}", front.seen());
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_name_no_role_are_read_as_the_environments() {
    let front = AwsFront::start(Moto::shared().url()).await;
    Moto::shared().put_secret("shared-manager/db", "correct-horse-battery").await;
    let mut world = world("", HOUR, |_, entry| entry).await;
    let manager = manager(&world, &[("AWS_ENDPOINT_URL_SECRETS_MANAGER", front.url())]);
    give(&world, json!({"DB": {"aws_secrets_manager": {"secret_id": "shared-manager/db"}, "file": false}}));
    let pipeline = world.pipeline(&in_all("  script: [test \"$DB\" = correct-horse-battery]")).await;
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace("dev"));
    let calls = front.calls();
    let readers: BTreeSet<_> = calls
        .iter()
        .filter(|call| call.action == "GetSecretValue")
        .map(|call| world.fargate.role_session(&call.who).expect("keys of a role").role)
        .collect();
    assert_eq!(readers, ENVIRONMENTS.map(|(name, account)| role_of(name, account)).into());
    drop(manager);
    world.end().await;
}
