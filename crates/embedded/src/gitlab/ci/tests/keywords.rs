//! The keywords that become fields of the payload of their own.

use super::*;

#[test]
fn caches_are_read_with_gitlabs_defaults() {
    let job = only_job(
        r#"
a:
  script: x
  cache:
    - paths: [vendor]
    - key: {files: [Gemfile.lock, package.json], prefix: "$CI_JOB_NAME"}
      untracked: true
      unprotect: true
      policy: $POLICY
      when: always
      fallback_keys: [one, two]
"#,
    );
    let plain = Cache {
        key: CacheKey::Text("default".into()),
        paths: vec!["vendor".into()],
        untracked: false,
        unprotect: false,
        policy: "pull-push".into(),
        when: SaveWhen::OnSuccess,
        fallback_keys: vec![],
    };
    let full = Cache {
        key: CacheKey::Files {
            by: KeyFiles::Content,
            files: vec!["Gemfile.lock".into(), "package.json".into()],
            prefix: Some("$CI_JOB_NAME".into()),
        },
        paths: vec![],
        untracked: true,
        unprotect: true,
        policy: "$POLICY".into(),
        when: SaveWhen::Always,
        fallback_keys: vec!["one".into(), "two".into()],
    };
    assert_eq!(job.caches, [plain, full]);
    let dropped = only_job("cache: {paths: [x]}\na: {script: x, cache: []}\n");
    assert_eq!(dropped.caches, []);
    assert_eq!(only_job("cache: {paths: [x]}\na: {script: x}\n").caches.len(), 1);
}

#[test]
fn secrets_are_read_in_short_and_in_full() {
    let job = only_job(
        r#"
a:
  script: x
  id_tokens: {ONE: {aud: https://vault}, TWO: {aud: [a, b]}}
  secrets:
    SHORT: {vault: production/db/password, token: $TWO, file: false}
    MOUNTED: {vault: production/db/password@ops}
    FULL: {vault: {engine: {name: kv-v1, path: old}, path: db, field: password}}
    AWS: {aws_secrets_manager: "app/db#password"}
    GITLAB: {gitlab_secrets_manager: {name: token}}
"#,
    );
    let tokens: Vec<(&str, usize)> =
        job.id_tokens.iter().map(|token| (token.name.as_str(), token.audiences.len())).collect();
    assert_eq!(tokens, [("ONE", 1), ("TWO", 2)]);
    let asked: Vec<String> = job.secrets.iter().map(|secret| format!("{} {}", secret.provider, secret.asked)).collect();
    assert_eq!(
        asked,
        [
            r#"vault {"engine":{"name":"kv-v2","path":"kv-v2"},"path":"production/db","field":"password"}"#,
            r#"vault {"engine":{"name":"kv-v2","path":"ops"},"path":"production/db","field":"password"}"#,
            r#"vault {"engine":{"name":"kv-v1","path":"old"},"path":"db","field":"password"}"#,
            r#"aws_secrets_manager {"secret_id":"app/db","field":"password"}"#,
            r#"gitlab_secrets_manager {"name":"token"}"#,
        ]
    );
    assert_eq!((job.secrets[0].file, job.secrets[0].token.as_deref()), (Some(false), Some("$TWO")));
    assert_eq!(job.secrets[1].file, None);
}

#[test]
fn inputs_release_environment_and_run_are_read() {
    let job = only_job(
        r#"
a:
  script: x
  inputs: {target: {default: staging, options: [staging, production]}, count: {type: number, default: 3}}
  environment: {name: review/$CI_COMMIT_REF_SLUG, url: "https://x", action: stop, on_stop: b, deployment_tier: other}
  release: {tag_name: v1, description: It works, milestones: [m1], assets: {links: [{name: n, url: u}]}}
  hooks: {pre_get_sources_script: [echo 1]}
  image: {name: x, docker: {platform: linux/arm64, user: 1000}, pull_policy: if-not-present}
  artifacts: {reports: {coverage_report: {coverage_format: cobertura, path: c.xml}}, access: developer}
  coverage: /x/
  interruptible: true
  resource_group: production
"#,
    );
    let inputs: Vec<String> =
        job.inputs.iter().map(|input| format!("{} {} {}", input.key, input.kind, input.value)).collect();
    assert_eq!(inputs, [r#"target string "staging""#, "count number 3"]);
    assert_eq!(job.environment.expect("an environment").action, "stop");
    assert_eq!(job.release.expect("a release").links[0]["url"], "u");
    assert_eq!(job.pre_get_sources, ["echo 1"]);
    assert_eq!(job.image.expect("an image").executor_opts["docker"]["user"], 1000);
    assert_eq!(job.artifacts.expect("artifacts").reports, [("cobertura".to_owned(), vec!["c.xml".to_owned()])]);
    assert_eq!(job.resource_group.as_deref(), Some("production"));
    let steps = only_job("default: {before_script: [x]}\na: {run: [{name: hi, script: echo hi}]}\n");
    assert_eq!(steps.run.expect("steps").to_string(), r#"[{"name":"hi","script":"echo hi"}]"#);
    assert_eq!((steps.script.len(), steps.before_script.len()), (0, 0));
}

#[test]
fn a_job_inherits_only_what_it_wants() {
    let text = "variables: {A: a, B: b}\ndefault: {tags: [dev], retry: 2}\n";
    let none = only_job(&format!("{text}j: {{script: x, inherit: {{default: false, variables: false}}}}\n"));
    assert_eq!((none.tags.len(), none.retry.max, none.variables.len()), (0, 0, 0));
    let some = only_job(&format!("{text}j: {{script: x, inherit: {{default: [tags], variables: [B]}}}}\n"));
    assert_eq!((some.tags.len(), some.retry.max), (1, 0));
    assert_eq!(some.variables, [variable("B", "b")]);
}
