//! Secrets of a job, from the servers that keep them to the script that uses them. The servers decide; what GitLab sends for
//! the job's `secrets` is written here.

use embedded::gitlab::{Endpoint, Fault, JobView, Rule, Status};
use serde_json::{Map, Value, json};
use testkit::vault::{JWT, Vault};
use testkit::{ManagerProcess, Moto, Setup, World, program};

const VALUE: &str = "correct-horse-battery";

/// Every job has these secrets from now on.
pub fn give(world: &World, secrets: Value) {
    let fault = Fault::Payload([("secrets".to_owned(), secrets)].into_iter().collect());
    world.gitlab.faults().clear();
    world.gitlab.faults().add(Rule::new(Endpoint::JobRequest, fault).times(u32::MAX));
}

/// An entry for a field of `kv`, as GitLab sends it: the JWT is the name of a variable.
fn of_vault(vault: &Vault, path: &str, field: &str) -> Value {
    let auth = json!({"name": "jwt", "path": "jwt", "data": {"jwt": "$JWT", "role": "ci"}});
    json!({
        "vault": {"server": {"url": vault.url(), "auth": auth}, "engine": {"name": "kv-v2", "path": "kv"}, "path": path, "field": field},
        "file": false,
    })
}

/// A job whose script is `script`, and which has the JWT and these variables.
fn job(variables: &str, script: &str) -> String {
    format!("  variables: {{ JWT: {JWT}, {variables} }}\n  script:\n    - {script}")
}

/// The job failed before anything was paid for.
fn assert_refused(world: &World, job: &JobView, trace: &str, reason: &str) {
    assert_eq!((job.status, job.failure_reason.as_deref()), (Status::Failed, Some(reason)), "{trace}");
    assert_eq!(world.fargate.calls().get("RunTask"), None, "no task was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_vault_are_variables_or_files_and_are_masked() {
    let vault = Vault::start().await;
    vault.put("app/db", json!({"password": VALUE, "port": 5432}));
    vault.put_in_version_1("app/cert", json!({"pem": "-----BEGIN\nline of the key\n-----END"}));
    let mut world = World::start(Setup::default()).await;
    let mut cert = of_vault(&vault, "$APP/cert", "pem");
    cert["vault"]["engine"] = json!({"name": "kv-v1", "path": "old"});
    cert["file"] = Value::Null;
    give(
        &world,
        json!({"PASSWORD": of_vault(&vault, "$APP/db", "password"), "PORT": of_vault(&vault, "$APP/db", "port"), "CERT": cert}),
    );
    let script = format!(
        "test \"$PASSWORD\" = {VALUE}\n    - echo \"it is $PASSWORD\"\n    - test \"$PORT\" = 5432\n    - grep -x 'line of the key' \"$CERT\""
    );
    let (job, trace) = world.run_job(&job("APP: app", &script)).await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(trace.contains("it is [MASKED]"), "{trace}");
    let order = [
        "resolve_secrets",
        "Resolving secrets",
        "Resolving secret \"CERT\"...",
        "Using \"vault\" secret resolver...",
        "Resolving secret \"PASSWORD\"...",
        "section_end",
        "prepare_executor",
    ];
    let mut from = 0;
    for text in order {
        from += trace[from..].find(text).unwrap_or_else(|| panic!("{text:?} after {from} in {trace}"));
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_shows_who_it_is_by_the_token_that_gitlab_signed_for_it() {
    let vault = Vault::start().await;
    vault.put("app/db", json!({"password": VALUE}));
    vault.put_for_gitlab("API_KEY", "another-value");
    let mut setup = Setup::default();
    setup.gitlab.secrets_manager_url = Some(vault.url().to_owned());
    let mut world = World::start(setup).await;
    let job = format!(
        "  variables: {{ VAULT_SERVER_URL: '{}', VAULT_AUTH_ROLE: ci }}\n  id_tokens: {{ VAULT: {{ aud: story }} }}\n  secrets:\n    \
         PASSWORD: {{ vault: app/db/password@kv, file: false }}\n    API_KEY: {{ gitlab_secrets_manager: {{ name: API_KEY }}, file: false }}\n  \
         script:\n    - test \"$PASSWORD $API_KEY\" = '{VALUE} another-value'",
        vault.url()
    );
    let (stranger, trace) = world.run_job(&job).await;
    assert_refused(&world, &stranger, &trace, "runner_configuration_error");
    vault.trust(world.gitlab.id_token_key());
    let (done, trace) = world.run_job(&job).await;
    assert_eq!(done.status, Status::Success, "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_managers_own_lines_are_masked_too() {
    let vault = Vault::start().await;
    // What the manager says of every job that it launches.
    vault.put("app/db", json!({"password": "staffetta-agent"}));
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"PASSWORD": of_vault(&vault, "app/db", "password")}));
    let (job, trace) = world.run_job(&job("", "'true'")).await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(trace.contains("Waiting for a Fargate task ([MASKED])"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_vault_is_named_in_each_request() {
    let vault = Vault::in_namespace(Some("team")).await;
    vault.put("app/db", json!({"password": VALUE}));
    let mut world = World::start(Setup::default()).await;
    let mut entry = of_vault(&vault, "app/db", "password");
    entry["vault"]["server"]["namespace"] = json!("$TEAM");
    give(&world, json!({"PASSWORD": entry}));
    let (job, trace) = world.run_job(&job("TEAM: team", "test -n \"$PASSWORD\"")).await;
    assert_eq!(job.status, Status::Success, "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlabs_own_secrets_manager_is_asked_once_with_the_jwt_in_the_request() {
    let vault = Vault::start().await;
    vault.put("explicit/DB", json!({"value": VALUE}));
    let mut world = World::start(Setup::default()).await;
    let of_gitlab = |inline_auth: Value| {
        json!({"gitlab_secrets_manager": {
            "server": {"url": vault.url(), "inline_auth": inline_auth},
            "engine": {"name": "kv-v2", "path": "kv"}, "path": "explicit/DB", "field": "value",
        }, "file": false})
    };
    give(&world, json!({"DB": of_gitlab(json!({"path": "auth/jwt/login", "jwt": JWT, "role": "ci"}))}));
    let (done, trace) = world.run_job(&job("", &format!("test \"$DB\" = {VALUE}"))).await;
    assert_eq!(done.status, Status::Success, "{trace}");
    assert_eq!(vault.requests(), ["GET v1/kv/data/explicit/DB"]);
    give(&world, json!({"DB": of_gitlab(json!({"auth_mount": "jwt", "jwt": JWT, "role": "another"}))}));
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_eq!(failed.failure_reason.as_deref(), Some("runner_configuration_error"), "{trace}");
    assert!(trace.contains("answered 400") && trace.contains("could not be found"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_there_fails_the_job_or_is_empty_as_the_flag_says() {
    let vault = Vault::start().await;
    vault.put("app/db", json!({"user": "app"}));
    let mut world = World::start(Setup::default()).await;
    for path in ["app/db", "app/none"] {
        give(&world, json!({"PASSWORD": of_vault(&vault, path, "password")}));
        let (failed, trace) = world.run_job(&job("", "echo never")).await;
        assert_refused(&world, &failed, &trace, "runner_configuration_error");
        assert!(trace.contains("resolving secrets: secret not found: PASSWORD"), "{trace}");
    }
    let flag_off = job("FF_SECRET_RESOLVING_FAILS_IF_MISSING: 'false'", "test \"${PASSWORD-unset}\" = ''");
    let (done, trace) = world.run_job(&flag_off).await;
    assert_eq!(done.status, Status::Success, "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vault_forbids_is_a_wrong_setting_in_its_words_and_without_the_jwt() {
    let vault = Vault::start().await;
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"PASSWORD": of_vault(&vault, "forbidden/db", "password")}));
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_refused(&world, &failed, &trace, "runner_configuration_error");
    assert!(trace.contains("answered 403 to kv/data/forbidden/db") && trace.contains("permission denied"), "{trace}");
    let stranger = job("", "echo never").replace(JWT, "not.the.right-one");
    let (failed, trace) = world.run_job(&stranger).await;
    assert_refused(&world, &failed, &trace, "runner_configuration_error");
    assert!(trace.contains("to the login: error validating token") && !trace.contains("not.the.right-one"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_away_for_a_moment_is_asked_again_and_then_it_is_its_fault() {
    let vault = Vault::start().await;
    vault.put("app/db", json!({"password": VALUE}));
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"PASSWORD": of_vault(&vault, "app/db", "password")}));
    // More than the tries of one attempt; the second attempt is the job's own wish.
    vault.fail(503, 4);
    let twice = "SECRETS_RETRIEVAL_ATTEMPTS: 2, FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY: 'false'";
    let (done, trace) = world.run_job(&job(twice, "test -n \"$PASSWORD\"")).await;
    assert_eq!(done.status, Status::Success, "{trace}");
    assert!(trace.contains("Vault is sealed. Retrying..."), "{trace}");
    let tasks = world.fargate.calls()["RunTask"];
    vault.fail(500, usize::MAX);
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_eq!(failed.failure_reason.as_deref(), Some("runner_external_dependency_failure"), "{trace}");
    drop(vault);
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_eq!(failed.failure_reason.as_deref(), Some("runner_external_dependency_failure"), "{trace}");
    assert!(trace.contains("does not answer") && !trace.contains("refused"), "no job scans the network: {trace}");
    assert_eq!(world.fargate.calls()["RunTask"], tasks, "no task was asked for");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_is_not_carried_to_another_host() {
    let (vault, other) = (Vault::start().await, Vault::start().await);
    vault.redirect(other.url());
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"PASSWORD": of_vault(&vault, "app/db", "password")}));
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_refused(&world, &failed, &trace, "runner_configuration_error");
    assert!(trace.contains("redirects to another host are not followed"), "{trace}");
    assert!(other.requests().is_empty(), "{:?}", other.requests());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gets_no_more_secrets_than_a_manager_can_keep_for_many_jobs() {
    let vault = Vault::start().await;
    let mut world = World::start(Setup::default()).await;
    let secrets = |count: usize, path: &str| -> Value {
        (1..=count).map(|n| (format!("SECRET_{n}"), of_vault(&vault, path, "password"))).collect::<Map<_, _>>().into()
    };
    give(&world, secrets(201, "app/db"));
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_refused(&world, &failed, &trace, "runner_configuration_error");
    assert!(trace.contains("201 secrets, and at most 200"), "{trace}");
    assert!(vault.requests().is_empty(), "{:?}", vault.requests());
    for (count, bytes, told) in [(1, 1 << 20, "answered more than 1 MiB"), (10, 900_000, "more than 8 MiB together")] {
        vault.put("app/large", json!({"password": "x".repeat(bytes)}));
        give(&world, secrets(count, "app/large"));
        let (failed, trace) = world.run_job(&job("", "echo never")).await;
        assert_refused(&world, &failed, &trace, "runner_configuration_error");
        assert!(trace.contains(told), "{trace}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_without_an_account_of_aws_reads_no_secret_with_the_credentials_of_its_surroundings() {
    // Its keys for Fargate are made up, as those of a pipeline on a laptop are.
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"KEY": {"aws_secrets_manager": {"secret_id": "db", "region": "us-east-1"}}}));
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_refused(&world, &failed, &trace, "runner_configuration_error");
    assert!(trace.contains("KEY: aws_secrets_manager without a token reads db as the manager"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_this_runner_lacks_is_refused_by_name_and_an_unknown_one_left_out() {
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"PASSWORD": {"azure_key_vault": {"name": "db"}}}));
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_refused(&world, &failed, &trace, "runner_configuration_error");
    assert!(trace.contains("this runner has no azure_key_vault"), "{trace}");
    give(&world, json!({"PASSWORD": {"brand_new": {"name": "db"}}}));
    let (done, trace) = world.run_job(&job("", "test \"${PASSWORD-unset}\" = unset")).await;
    assert_eq!(done.status, Status::Success, "{trace}");
    assert!(trace.contains("WARNING: Not resolved: no resolver that can handle the secret"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_while_vault_is_slow_ends_and_asks_for_no_task() {
    let vault = Vault::start().await;
    vault.hold();
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"PASSWORD": of_vault(&vault, "app/db", "password")}));
    let pipeline = world.pipeline(&format!("it:\n  tags: [dev]\n{}", job("", "echo never"))).await;
    world.until_trace("it", "Using \"vault\" secret resolver...").await;
    world.gitlab.cancel_job(world.job("it").id);
    assert_eq!(world.finished(pipeline).await, Status::Canceled);
    assert_eq!(world.fargate.calls().get("RunTask"), None);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_for_secrets_is_not_the_jobs() {
    let vault = Vault::start().await;
    vault.put("app/db", json!({"password": VALUE}));
    vault.hold();
    let mut world = World::start(Setup::default()).await;
    give(&world, json!({"PASSWORD": of_vault(&vault, "app/db", "password")}));
    let slow = format!("it:\n  tags: [dev]\n  timeout: 12 seconds\n{}", job("", "sleep 4"));
    let pipeline = world.pipeline(&slow).await;
    world.until_trace("it", "Using \"vault\" secret resolver...").await;
    tokio::time::sleep(std::time::Duration::from_secs(9)).await;
    vault.let_go();
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace("it"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_aws_are_read_as_the_role_that_the_jwt_opens_or_as_the_manager() {
    let moto = Moto::shared();
    moto.put_secret("story/db", &json!({"password": VALUE, "port": 5432}).to_string()).await;
    let mut world = World::without_manager(Setup::default()).await;
    let mut command = tokio::process::Command::new(program("staffetta"));
    command.args(["run", "--config"]).arg(world.config_file());
    command.env("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto.url()).env("AWS_ENDPOINT_URL_STS", moto.url());
    let manager = ManagerProcess::of(command);
    let of_aws = |id: &str, rest: Value| {
        let mut members = json!({"secret_id": id, "region": "us-east-1"});
        for (name, value) in rest.as_object().into_iter().flatten() {
            members[name] = value.clone();
        }
        json!({"aws_secrets_manager": members, "file": false})
    };
    let server = json!({"jwt": "$JWT", "role_arn": "arn:aws:iam::123456789012:role/reader", "region": "eu-west-1"});
    give(
        &world,
        json!({
            // Of the runner's region.
            "AS_MANAGER": of_aws("story/db", json!({"field": "password", "region": null})),
            "AS_ROLE": of_aws("story/db", json!({"field": "port", "server": server})),
        }),
    );
    let script =
        format!("test \"$AS_MANAGER\" = {VALUE}\n    - test \"$AS_ROLE\" = 5432\n    - echo \"it is $AS_MANAGER\"");
    let (done, trace) = world.run_job(&job("", &script)).await;
    assert_eq!(done.status, Status::Success, "{trace}");
    assert!(trace.contains("it is [MASKED]"), "{trace}");
    let tasks = world.fargate.calls()["RunTask"];
    give(&world, json!({"IT": of_aws("no/such", json!({}))}));
    let (failed, trace) = world.run_job(&job("", "echo never")).await;
    assert_eq!(failed.failure_reason.as_deref(), Some("runner_configuration_error"), "{trace}");
    assert!(trace.contains("secret not found: IT: no/such is not in AWS Secrets Manager"), "{trace}");
    assert_eq!(world.fargate.calls()["RunTask"], tasks, "no task was asked for");
    drop(manager);
    world.end().await;
}
