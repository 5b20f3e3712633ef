//! What keywords of `.gitlab-ci.yml` become in the payload, and which runners get such jobs.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use embedded::gitlab::{Config, PipelineSource, Ref, Status, Variable, ci};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

use super::client::{Taken, World, git, world, world_with};

impl World {
    /// Commits the file and starts its pipeline.
    async fn start(&self, git_ref: Ref, yaml: &str) {
        std::fs::write(self.repo().join(".gitlab-ci.yml"), yaml).expect("a file");
        git(self.repo(), &["add", "."]);
        git(self.repo(), &["commit", "--quiet", "--allow-empty", "-m", "A pipeline"]);
        let pipeline = ci::load(self.repo(), Path::new(".gitlab-ci.yml"), &git_ref.context()).expect("no mistakes");
        let (repo, commit) = (self.repo().to_owned(), "HEAD".to_owned());
        let source = PipelineSource { repo, commit, git_ref, pipeline, variables: Vec::new() };
        self.server.create_pipeline(source).await.expect("a pipeline");
    }

    async fn taken(&self, git_ref: Ref, yaml: &str) -> Taken<'_> {
        self.start(git_ref, yaml).await;
        let mut runner = self.runner(&[]);
        for feature in ["fallback_cache_keys", "refspecs", "multi_build_steps", "vault_secrets"] {
            runner.features[feature] = json!(true);
        }
        runner.take().await
    }
}

#[tokio::test]
async fn a_job_is_dropped_by_a_runner_without_the_feature_that_it_needs() {
    let main = || Ref::branch("main");
    let merge_request = Ref::MergeRequest { iid: 7, source: "topic".into(), target: "main".into() };
    for (git_ref, yaml, feature) in [
        (main(), "it: {script: x, cache: {paths: [a], fallback_keys: [b]}}", "fallback_cache_keys"),
        (main(), "it: {script: x, artifacts: {reports: {junit: a}}}", "upload_multiple_artifacts"),
        (main(), "it: {script: x, artifacts: {paths: [a], exclude: [b]}}", "artifacts_exclude"),
        (merge_request, "it: {script: x}", "refspecs"),
        (main(), "it: {script: x, release: {tag_name: v1, description: d}}", "multi_build_steps"),
        (main(), "it: {script: x, secrets: {A: {vault: a/b}}}", "vault_secrets"),
        (main(), "it: {script: x, allow_failure: {exit_codes: 3}}", "return_exit_code"),
    ] {
        let world = world().await;
        world.start(git_ref.clone(), yaml).await;
        let mut runner = world.runner(&[]);
        runner.features = json!({ feature: false });
        assert_eq!(runner.ask(None).await.status, 204, "{feature}");
        let job = world.server.job_named("it").expect("a job");
        assert_eq!(
            (job.status, job.failure_reason.as_deref()),
            (Status::Failed, Some("runner_unsupported")),
            "{feature}"
        );
        world.start(git_ref, yaml).await;
        let mut runner = world.runner(&[]);
        runner.features = json!({ feature: true });
        assert_eq!(runner.take().await.name(), "it", "{feature}");
    }
}

#[tokio::test]
async fn the_keys_of_caches_carry_what_the_server_puts_behind_them() {
    const YAML: &str =
        "it: {script: x, cache: [{key: one, paths: [a], fallback_keys: [two]}, {key: three, unprotect: true}]}";
    let keys = |taken: &Taken| -> Vec<Value> {
        let caches = taken.payload["cache"].as_array().expect("caches");
        caches.iter().map(|cache| json!([cache["key"], cache["fallback_keys"]])).collect()
    };
    let world = world().await;
    let taken = world.taken(Ref::branch("main"), YAML).await;
    let expected = [json!(["one-protected", ["two-protected"]]), json!(["three-non_protected", []])];
    assert_eq!(keys(&taken), expected);
    assert_eq!(taken.payload["cache"][0]["policy"], "pull-push");
    let taken = world.taken(Ref::branch("topic"), YAML).await;
    assert_eq!(keys(&taken)[0], json!(["one-non_protected", ["two-non_protected"]]));
    let config =
        Config { long_poll: Duration::ZERO, cache_index: Some(4), separated_caches: false, ..Config::default() };
    let cleared = world_with(config).await;
    assert_eq!(keys(&cleared.taken(Ref::branch("main"), YAML).await)[0], json!(["one-4", ["two-4"]]));
}

#[tokio::test]
async fn a_key_of_files_changes_with_them_and_with_nothing_else() {
    const YAML: &str =
        "it: {script: x, cache: [{key: {files: [file.txt, none]}}, {key: {files_commits: [file.txt], prefix: p}}]}";
    let world = world().await;
    let mut keys = Vec::new();
    for (file, text) in [("other.txt", "1"), ("other.txt", "2"), ("file.txt", "changed")] {
        std::fs::write(world.repo().join(file), text).expect("a file");
        let taken = world.taken(Ref::branch("topic"), YAML).await;
        let key = |index: usize| taken.payload["cache"][index]["key"].as_str().expect("a key").to_owned();
        keys.push((key(0), key(1)));
    }
    assert_eq!(keys[0], keys[1]);
    assert!(keys[1].0 != keys[2].0 && keys[1].1 != keys[2].1, "{keys:?}");
    assert!(keys[0].0.starts_with("0_file_none-") && keys[0].1.starts_with("p-"), "{keys:?}");
}

#[tokio::test]
async fn a_tag_and_a_merge_request_are_named_as_gitlab_names_them() {
    let world = world().await;
    git(world.repo(), &["tag", "-a", "-m", "An annotated tag", "v1"]);
    let taken = world.taken(Ref::Tag("v1".into()), "it: {script: x, rules: [{if: $CI_COMMIT_TAG}]}").await;
    let info = &taken.payload["git_info"];
    assert_eq!((&info["ref"], &info["ref_type"], &info["protected"]), (&json!("v1"), &json!("tag"), &json!(false)));
    let pipeline = world.server.jobs()[0].pipeline;
    let persistent = format!("+refs/pipelines/{pipeline}:refs/pipelines/{pipeline}");
    assert_eq!(info["refspecs"], json!([persistent, "+refs/tags/v1:refs/tags/v1"]));
    assert_eq!((taken.variable("CI_COMMIT_TAG"), taken.variable("CI_COMMIT_BRANCH")), (Some("v1"), None));

    let request = Ref::MergeRequest { iid: 7, source: "topic".into(), target: "main".into() };
    let rules = "rules: [{if: '$CI_PIPELINE_SOURCE == \"merge_request_event\"'}]";
    let taken = world.taken(request, &format!("it: {{script: x, {rules}}}")).await;
    let info = &taken.payload["git_info"];
    assert_eq!((&info["ref"], &info["ref_type"]), (&json!("refs/merge-requests/7/head"), &json!("branch")));
    assert_eq!(info["refspecs"].as_array().expect("refspecs").len(), 1);
    assert_eq!(taken.variable("CI_MERGE_REQUEST_IID"), Some("7"));
    assert_eq!((taken.variable("CI_COMMIT_REF_NAME"), taken.variable("CI_COMMIT_BRANCH")), (Some("topic"), None));
}

#[tokio::test]
async fn an_id_token_is_a_jwt_of_the_job_that_the_servers_key_has_signed() {
    let world = world().await;
    let taken = world.taken(Ref::branch("main"), "it: {script: x, id_tokens: {ONE: {aud: https://vault}}}").await;
    let token = taken.variable("ONE").expect("a variable");
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(world.server.id_token_key().as_bytes()).expect("a key");
    mac.update(signed.as_bytes());
    mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).expect("base64")).expect("a signature of the key");
    let claims = URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!(claims["aud"], "https://vault");
    assert_eq!(claims["sub"], "project_path:group/project:ref_type:branch:ref:main");
    assert_eq!(claims["job_id"], taken.id().to_string());
    let variables = taken.payload["variables"].as_array().expect("variables");
    let entry = variables.iter().find(|variable| variable["key"] == "ONE").expect("an entry");
    assert_eq!((&entry["masked"], &entry["public"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn secrets_name_the_server_of_the_projects_variables_and_the_token() {
    let variables = vec![Variable::new("VAULT_SERVER_URL", "https://vault"), Variable::new("VAULT_AUTH_ROLE", "ci")];
    let world = world_with(Config { long_poll: Duration::ZERO, variables, ..Config::default() }).await;
    let taken = world
        .taken(
            Ref::branch("main"),
            "it: {script: x, id_tokens: {ONE: {aud: a}}, secrets: {S: {vault: db/password@ops, file: false}}}",
        )
        .await;
    let secret = &taken.payload["secrets"]["S"];
    assert_eq!(secret["file"], false);
    assert_eq!(secret["vault"]["server"]["url"], "https://vault");
    assert_eq!(secret["vault"]["server"]["auth"]["data"], json!({ "jwt": "$ONE", "role": "ci" }));
    assert_eq!(secret["vault"]["engine"], json!({ "name": "kv-v2", "path": "ops" }));
    assert_eq!((&secret["vault"]["path"], &secret["vault"]["field"]), (&json!("db"), &json!("password")));
}

#[tokio::test]
async fn a_release_is_a_step_and_run_stands_in_the_place_of_the_steps() {
    let world = world().await;
    let yaml = "it: {script: x, after_script: [y], release: {tag_name: v1, description: 'It works'}}";
    let taken = world.taken(Ref::branch("main"), yaml).await;
    let steps = taken.payload["steps"].as_array().expect("steps");
    let names: Vec<&Value> = steps.iter().map(|step| &step["name"]).collect();
    assert_eq!(names, ["script", "release", "after_script"]);
    let script = steps[1]["script"][0].as_str().expect("a script");
    assert!(script.contains(r#"release-cli create --description "It works" --tag-name "v1""#), "{script}");
    let taken = world.taken(Ref::branch("main"), "it: {run: [{name: hi, script: echo hi}]}").await;
    assert_eq!(taken.payload["run"], r#"[{"name":"hi","script":"echo hi"}]"#);
    assert_eq!(taken.payload["steps"], json!([]));
}

#[tokio::test]
async fn an_environment_and_inputs_are_in_the_payload() {
    let world = world().await;
    let taken = world
        .taken(
            Ref::branch("main"),
            "it: {script: x, environment: {name: review/$CI_COMMIT_BRANCH, url: https://x}, inputs: {n: {type: number, default: 3}}}",
        )
        .await;
    assert_eq!(taken.variable("CI_ENVIRONMENT_NAME"), Some("review/main"));
    assert_eq!(taken.variable("CI_ENVIRONMENT_SLUG"), Some("review-main"));
    assert_eq!(taken.variable("CI_ENVIRONMENT_ACTION"), Some("start"));
    assert_eq!(taken.payload["inputs"], json!([{ "key": "n", "value": { "type": "number", "content": 3 } }]));
}

#[tokio::test]
async fn of_a_resource_group_one_job_runs_at_a_time() {
    let world = world().await;
    world.start(Ref::branch("main"), "a: {script: x, resource_group: r}\nb: {script: x, resource_group: r}\n").await;
    let runner = world.runner(&[]);
    let first = runner.take().await;
    let waiting = runner.ask(None).await;
    assert_eq!(waiting.status, 204);
    let cursor = waiting.header("x-gitlab-last-update").expect("a cursor").to_owned();
    first.succeed().await;
    assert_eq!(runner.ask(Some(&cursor)).await.status, 201, "the cursor has moved");
}
