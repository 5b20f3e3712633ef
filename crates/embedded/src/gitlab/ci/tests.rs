//! Files in, pipelines or mistakes out.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod keywords;

fn load_files(files: &[(&str, &[u8])], variables: &[(&str, &str)]) -> Result<Pipeline, Vec<String>> {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    load(root.path(), Path::new("ci.yml"), &Context { variables })
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn load_text(text: &str) -> Result<Pipeline, Vec<String>> {
    load_files(&[("ci.yml", text.as_bytes())], &[])
}

#[track_caller]
fn pipeline(text: &str) -> Pipeline {
    load_text(text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

#[track_caller]
fn only_job(text: &str) -> Job {
    let mut jobs = pipeline(text).jobs;
    assert_eq!(jobs.len(), 1, "{jobs:#?}");
    jobs.remove(0)
}

#[track_caller]
fn mistakes(text: &str) -> Vec<String> {
    load_text(text).expect_err("a mistake")
}

/// The one mistake of `text`.
#[track_caller]
fn mistake(text: &str) -> String {
    let mut found = mistakes(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn names(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.jobs.iter().map(|job| job.name.as_str()).collect()
}

fn variable(key: &str, value: &str) -> Variable {
    Variable { key: key.into(), value: value.into(), raw: false }
}

#[test]
fn the_pipeline_of_the_example_has_six_jobs_in_three_environments() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/three-environments");
    let pipeline = load(&root, Path::new(".gitlab-ci.yml"), &Context::default()).unwrap();
    let jobs: Vec<(&str, &str)> = pipeline.jobs.iter().map(|job| (job.name.as_str(), job.tags[0].as_str())).collect();
    assert_eq!(
        jobs,
        [
            ("build-dev", "dev"),
            ("deploy-dev", "dev"),
            ("build-staging", "staging"),
            ("deploy-staging", "staging"),
            ("build-production", "production"),
            ("deploy-production", "production"),
        ]
    );
}

#[test]
fn a_job_of_one_line_gets_gitlabs_defaults() {
    let pipeline = pipeline("hello:\n  script: echo hello\n");
    assert_eq!(pipeline.stages, [".pre", "build", "test", "deploy", ".post"]);
    let expected = Job {
        name: "hello".into(),
        stage: "test".into(),
        tags: vec![],
        before_script: vec![],
        script: vec!["echo hello".into()],
        after_script: vec![],
        variables: vec![],
        artifacts: None,
        dependencies: None,
        needs: None,
        when: When::OnSuccess,
        allow_failure: AllowFailure::No,
        retry: Retry::default(),
        timeout: None,
        image: None,
        services: vec![],
        line: 1,
        ..Job::default()
    };
    assert_eq!(pipeline.jobs, [expected]);
}

#[test]
fn every_keyword_is_read() {
    let job = only_job(
        r#"
stages: [compile, .post]
variables:
  GLOBAL: one
  SHARED: {value: 010, description: octal}
default:
  tags: [dev]
  before_script: [echo default]
build:
  stage: compile
  tags: [staging, docker]
  before_script: []
  script:
    - echo 1
    - [echo 2, [echo 3]]
  after_script: echo done
  variables: {SHARED: yes, RAW: {value: "$X", expand: false}, RATIO: 1.50}
  artifacts:
    name: "build-$CI_JOB_NAME"
    paths: [out, ./artifacts]
    exclude: ["out/*.tmp"]
    untracked: true
    when: always
    expire_in: 7d
    reports: {junit: report.xml, dotenv: [a.env, b.env]}
  when: always
  allow_failure: {exit_codes: [137, 255]}
  retry: {max: 1, when: [runner_system_failure, script_failure], exit_codes: 3}
  timeout: 1h 30m
  image: {name: "node:22", entrypoint: [""]}
  services:
    - postgres:17
    - {name: "redis:8", alias: cache, command: [redis-server, --save], entrypoint: [sh], variables: {A: 1}}
"#,
    );
    let expected = Job {
        name: "build".into(),
        stage: "compile".into(),
        tags: vec!["staging".into(), "docker".into()],
        before_script: vec![],
        script: vec!["echo 1".into(), "echo 2".into(), "echo 3".into()],
        after_script: vec!["echo done".into()],
        variables: vec![
            variable("GLOBAL", "one"),
            variable("SHARED", "true"),
            Variable { key: "RAW".into(), value: "$X".into(), raw: true },
            variable("RATIO", "1.5"),
        ],
        artifacts: Some(Artifacts {
            name: Some("build-$CI_JOB_NAME".into()),
            paths: vec!["out".into(), "./artifacts".into()],
            exclude: vec!["out/*.tmp".into()],
            untracked: true,
            when: SaveWhen::Always,
            expire_in: Some("7d".into()),
            reports: vec![
                ("junit".into(), vec!["report.xml".into()]),
                ("dotenv".into(), vec!["a.env".into(), "b.env".into()]),
            ],
        }),
        dependencies: None,
        needs: None,
        when: When::Always,
        allow_failure: AllowFailure::ExitCodes(vec![137, 255]),
        retry: Retry {
            max: 1,
            when: vec!["runner_system_failure".into(), "script_failure".into()],
            exit_codes: vec![3],
        },
        timeout: Some(Duration::from_secs(5_400)),
        image: Some(Image { name: "node:22".into(), entrypoint: vec!["".into()], ..Image::default() }),
        services: vec![
            Service { name: "postgres:17".into(), ..Service::default() },
            Service {
                name: "redis:8".into(),
                alias: Some("cache".into()),
                entrypoint: vec!["sh".into()],
                command: vec!["redis-server".into(), "--save".into()],
                variables: vec![variable("A", "1")],
                ..Service::default()
            },
        ],
        line: 9,
        ..Job::default()
    };
    assert_eq!(job, expected);
}

#[test]
fn a_job_takes_from_default_what_it_does_not_have() {
    let pipeline = pipeline(
        "default: {tags: [dev], retry: 2, timeout: 10 minutes}\nimage: alpine\na: {script: x}\nb: {script: x, tags: [prod], retry: 0}\n",
    );
    let [a, b] = &pipeline.jobs[..] else { panic!("two jobs") };
    assert_eq!((&a.tags[..], a.retry.max, a.timeout), (&["dev".to_owned()][..], 2, Some(Duration::from_secs(600))));
    assert_eq!((&b.tags[..], b.retry.max), (&["prod".to_owned()][..], 0));
    assert_eq!(a.image.as_ref().unwrap().name, "alpine");
}

#[test]
fn extends_joins_mappings_and_replaces_lists_over_several_levels() {
    let job = only_job(
        r#"
.one: {script: [a, b], variables: {A: 1, B: 1, C: 1}, tags: [x], retry: {max: 1, when: always}}
.two: {extends: .one, variables: {B: 2, C: 2}, artifacts: {paths: [p]}}
.three: {script: [c], image: null}
.four: {image: i}
job: {extends: [.two, .four, .three], variables: {C: 3}, tags: null, artifacts: {when: always}}
"#,
    );
    assert_eq!(job.script, ["c"]);
    assert_eq!(job.variables, [variable("A", "1"), variable("B", "2"), variable("C", "3")]);
    assert_eq!((job.tags.len(), job.image, job.retry.max), (0, None, 1));
    let artifacts = job.artifacts.unwrap();
    assert_eq!((artifacts.paths, artifacts.when), (vec!["p".to_owned()], SaveWhen::Always));
}

#[test]
fn references_reach_what_is_inherited_and_included() {
    let files: &[(&str, &[u8])] = &[
        ("ci.yml", b"include: /ci/base.yml\n.ext: {extends: .base}\njob:\n  script: [!reference [.ext, script], last]\n  rules: [!reference [.rules, rules], {when: never}]\n  variables: !reference [.base, variables]\n"),
        ("ci/base.yml", b"include: {local: ci/more.yml}\n.base: {script: [!reference [.more, before_script], second], variables: {A: b}}\n.rules: {rules: [{if: $A}]}\n"),
        ("ci/more.yml", b".more: {before_script: [first]}\n"),
    ];
    let pipeline = load_files(files, &[]).unwrap();
    assert_eq!(pipeline.jobs[0].script, ["first", "second", "last"]);
    assert_eq!(pipeline.jobs[0].variables, [variable("A", "b")]);
}

#[test]
fn the_including_file_wins_over_the_included_one() {
    let files: &[(&str, &[u8])] = &[
        ("ci.yml", b"include: [a.yml, {local: /b.yaml}]\njob: {tags: [main]}\n"),
        ("a.yml", b"job: {script: [a], tags: [a], variables: {A: a}}\n"),
        ("b.yaml", b"job: {script: [b], variables: {B: b}}\nstages: [test]\n"),
    ];
    let pipeline = load_files(files, &[]).unwrap();
    let job = &pipeline.jobs[0];
    assert_eq!((&job.script[..], &job.tags[..]), (&["b".to_owned()][..], &["main".to_owned()][..]));
    assert_eq!(job.variables, [variable("A", "a"), variable("B", "b")]);
    assert_eq!(pipeline.stages, [".pre", "test", ".post"]);
}

#[test]
fn includes_that_cannot_be_are_refused() {
    for (include, message) in [
        ("ci.yml", "ci.yml:2: `ci.yml` includes itself by this"),
        ("a.yml", "a.yml:1: `ci.yml` includes itself by this"),
        ("../x.yml", "ci.yml:2: `../x.yml` is outside of the repository"),
        ("/d/../../x.yml", "ci.yml:2: `/d/../../x.yml` is outside of the repository"),
        ("none.yml", "ci.yml:2: there is no file `none.yml` in the repository"),
        ("notes.txt", "ci.yml:2: `notes.txt`: an included file must end in .yml or .yaml"),
        ("'*.yml'", "ci.yml:2: `*.yml`: patterns are not supported in `include`; name each file"),
        ("https://x.org/a.yml", "ci.yml:2: only files of this repository can be included, not https://x.org/a.yml"),
        ("{remote: x}", "ci.yml:2: the keyword `remote` of `include` is not supported here"),
        ("5", "ci.yml:2: `include` wants a path or a list of paths, not the number 5"),
        ("bad.yml", "bad.yml:2: this line is not UTF-8"),
        ("empty.yml", "empty.yml:1: this file is empty"),
    ] {
        let main = format!("job: {{script: x, needs: [elsewhere]}}\ninclude: {include}\n");
        let files: &[(&str, &[u8])] = &[
            ("ci.yml", main.as_bytes()),
            ("a.yml", b"include: ci.yml\n"),
            ("bad.yml", b"# \n\xff\n"),
            ("empty.yml", b"# nothing\n"),
        ];
        assert_eq!(load_files(files, &[]).unwrap_err(), [message], "{include}");
    }
}

#[test]
fn an_include_cannot_leave_the_repository_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x.yml"), "job: {script: x}\n").unwrap();
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path().join("x.yml"), root.path().join("link.yml")).unwrap();
    std::fs::write(root.path().join("ci.yml"), "include: link.yml\n").unwrap();
    let found = load(root.path(), Path::new("ci.yml"), &Context::default()).unwrap_err();
    assert_eq!(found[0].to_string(), "ci.yml:1: `link.yml` is a link to a file outside of the repository");
}

#[test]
fn rules_decide_whether_and_how_a_job_runs() {
    let text = r#"
variables: {KIND: none}
a: {script: x, rules: [{if: '$CI_COMMIT_BRANCH == "main"', when: manual, variables: {KIND: main}}]}
b: {script: x, rules: [{if: '$CI_COMMIT_BRANCH == "dev"'}]}
c: {script: x, variables: {ON: "1"}, rules: [{if: $ON, allow_failure: true}, {when: never}]}
d: {script: x, rules: [{if: '$CI_COMMIT_BRANCH =~ /^ma/', when: never}, {when: always}]}
e: {script: x, when: manual}
f: {script: x, when: on_failure, rules: [{if: $KIND}]}
g: {script: x, rules: []}
"#;
    let pipeline = load_files(&[("ci.yml", text.as_bytes())], &[("CI_COMMIT_BRANCH", "main")]).unwrap();
    let seen: Vec<_> =
        pipeline.jobs.iter().map(|job| (job.name.as_str(), job.when, job.allow_failure.clone())).collect();
    assert_eq!(
        seen,
        [
            ("a", When::Manual, AllowFailure::No),
            ("c", When::OnSuccess, AllowFailure::Yes),
            ("e", When::Manual, AllowFailure::Yes),
            ("f", When::OnFailure, AllowFailure::No),
        ]
    );
    assert_eq!(pipeline.jobs[0].variables, [variable("KIND", "main")]);
}

#[test]
fn parallel_jobs_stand_one_by_one_and_are_needed_together() {
    let pipeline = pipeline(
        r#"
build: {stage: build, script: x, parallel: 2}
test:
  script: x
  parallel: {matrix: [{OS: [linux, mac], ARCH: [x, 1]}, {OS: win}]}
  needs: [build]
  rules: [{if: '$OS != "mac"'}]
deploy: {stage: deploy, script: x, needs: ["build 2/2"], dependencies: [build 2/2]}
"#,
    );
    assert_eq!(
        names(&pipeline),
        ["build 1/2", "build 2/2", "test: [linux, x]", "test: [linux, 1]", "test: [win]", "deploy"]
    );
    assert_eq!(pipeline.jobs[1].node, Some((2, 2)));
    assert_eq!(pipeline.jobs[3].node, Some((2, 5)));
    assert_eq!(pipeline.jobs[3].variables, [variable("OS", "linux"), variable("ARCH", "1")]);
    let needs = |job: &Job| -> Vec<String> { job.needs.iter().flatten().map(|need| need.job.clone()).collect() };
    assert_eq!(needs(&pipeline.jobs[2]), ["build 1/2", "build 2/2"]);
    assert_eq!(needs(&pipeline.jobs[5]), ["build 2/2"]);
    assert_eq!(pipeline.jobs[5].dependencies.as_deref(), Some(&["build 2/2".to_owned()][..]));
}

#[test]
fn a_need_that_the_rules_left_out_must_be_optional() {
    let jobs = "a: {stage: build, script: x, rules: [{if: $NO}]}\nb: {stage: build, script: x}\n";
    let optional =
        pipeline(&format!("{jobs}c: {{script: x, needs: [b, {{job: a, optional: true, artifacts: false}}]}}\n"));
    let need = Need { job: "b".into(), artifacts: true, optional: false };
    assert_eq!(optional.jobs[1].needs.as_deref(), Some(&[need][..]));
    assert_eq!(
        mistake(&format!("{jobs}c: {{script: x, needs: [a]}}\n")),
        "ci.yml:3: `c` needs `a`, which the `rules` left out; a need that may be missing is `optional: true`"
    );
    let depends = pipeline(&format!("{jobs}c: {{script: x, dependencies: [a, b]}}\n"));
    assert_eq!(depends.jobs[1].dependencies.as_deref(), Some(&["b".to_owned()][..]));
}

#[test]
fn all_mistakes_of_all_files_are_told_at_once_in_order() {
    let files: &[(&str, &[u8])] = &[
        (
            "ci.yml",
            b"include: more.yml\nstages: [build, deploy]\nbuild:\n  stage: biuld\n  scirpt: [x]\n  pages: {}\n  timeout: soon\ndeploy:\n  stage: deploy\n  script: x\n  needs: [bulid]\n  when: manuell\n",
        ),
        ("more.yml", b"other:\n  stage: build\n  script: [echo a: b]\n  retry: 3\n"),
    ];
    assert_eq!(
        load_files(files, &[]).unwrap_err(),
        [
            "ci.yml:3: the job `build` has no `script`",
            "ci.yml:4: the job `build` is in the unknown stage `biuld`; did you mean `build`?",
            "ci.yml:5: `scirpt` is not a keyword of a job; did you mean `script`?",
            "ci.yml:6: the keyword `pages` of a job is not supported here",
            "ci.yml:7: `timeout` wants a length of time like `1h 30m`, not `soon`",
            "ci.yml:11: `deploy` needs the unknown job `bulid`; did you mean `build`?",
            "ci.yml:12: `when` does not know `manuell`; did you mean `manual`?",
            "more.yml:3: this line of `script` is a mapping because of its `: `; put the whole line in quotes",
            "more.yml:4: `retry` wants a whole number from 0 to 2, not the number 3",
        ]
    );
}

#[test]
fn each_mistake_is_told_with_its_line() {
    for (text, message) in [
        ("", "1: this file is empty"),
        ("# only\n", "1: this file is empty"),
        ("- a\n", "1: a pipeline is a mapping of keywords and jobs, not a list"),
        ("stages: [a]\n", "1: there is no job in this file"),
        (".a: {script: x}\n", "1: there is no job in this file"),
        ("a:\n  tags: [x]\n", "1: the job `a` has no `script`"),
        ("variabels:\n  A: b\na: {script: x}\n", "1: `variabels` is not a keyword; did you mean `variables`?"),
        (
            "defualt:\n  tags: [x]\na: {script: x}\n",
            "1: the job `defualt` has no `script`; if it is not meant to be a job: did you mean `default`?",
        ),
        ("stage: [a]\na: {script: x}\n", "1: `stage` is not a keyword; did you mean `stages`?"),
        ("note: hi\na: {script: x}\n", "1: `note` is not a keyword, and a job is a mapping, not the string `hi`"),
        ("a: {script: x}\nworkflow: {}\n", "2: the keyword `workflow` is not supported here"),
        ("default:\n  tag: [x]\na: {script: x}\n", "2: `tag` is not a keyword of `default`; did you mean `tags`?"),
        ("default:\n  image: x\nimage: y\na: {script: x}\n", "3: `image` stands here and in `default` (ci.yml:2)"),
        ("a:\n  script: []\n", "2: the `script` of `a` is empty"),
        ("a:\n  script: 5\n", "2: `script` wants strings, not the number 5; put it in quotes"),
        ("a:\n  script: x\n  tags: dev\n", "3: `tags` wants a list of strings, not the string `dev`"),
        ("a:\n  script: x\n  tags:\n    - yes\n", "4: `tags` wants a string, not the boolean true; put it in quotes"),
        ("a:\n  script: x\n  rules:\n    - changes: [x]\n", "4: the keyword `changes` of a rule is not supported here"),
        ("a:\n  script: x\n  rules:\n    - if: $A = 1\n", "4: `if: $A = 1`: `=` alone is no operator; use `==`"),
        (
            "a:\n  script: x\n  when: never\n",
            "3: `when: never` belongs into `rules`; a job that never runs can be hidden by a `.` before its name",
        ),
        ("a:\n  script: x\n  when: delayed\n", "3: `when: delayed` is not supported here"),
        ("a:\n  script: x\n  extends: .b\n", "3: there is no job `.b` to extend"),
        (
            "a:\n  script: x\n  extends: [.bsae]\n.base: {}\n",
            "3: there is no job `.bsae` to extend; did you mean `.base`?",
        ),
        ("a:\n  script: !reference [.b, script]\n", "2: !reference [.b, script] names nothing that is there"),
        ("a: {script: x, rules: [{if: $NO}]}\n", "1: no job is left: the `rules` exclude every one of them"),
        (
            "a: {script: x, stage: .pre}\n",
            "1: the pipeline has only jobs in `.pre` or `.post`, so GitLab does not start it",
        ),
        (
            "a: {script: x, stage: x}\n",
            "1: the job `a` is in the unknown stage `x`; there are .pre, build, test, deploy, .post",
        ),
        (
            "stages: [build]\na: {script: x}\n",
            "2: the job `a` is in the unknown stage `test`; there are .pre, build, .post",
        ),
        ("a: {script: x, needs: [a]}\n", "1: `a` needs itself"),
        ("a: {script: x, needs: [b]}\nb: {script: x, stage: deploy}\n", "1: `a` needs `b`, which is in a later stage"),
        ("a: {script: x, dependencies: [c]}\n", "1: `a` depends on the unknown job `c`"),
        (
            "a: {script: x, needs: [b], dependencies: [c]}\nb: {script: x}\nc: {script: x}\n",
            "1: `a` has `needs`, so its dependency `c` must be one of them",
        ),
        ("a: {script: x, needs: [{project: p}]}\n", "1: the keyword `project` of `needs` is not supported here"),
        ("a: {script: x, needs: [{optional: true}]}\n", "1: this need does not name its `job`"),
        ("a: {script: x, variables: {A: }}\n", "1: `A` has no value; write \"\" for an empty one"),
        (
            "a: {script: x, variables: {A: {value: x, description: y}}}\n",
            "1: the keyword `description` of a variable is not supported here",
        ),
        (
            "a: {script: x, artifacts: {expose_as: x}}\n",
            "1: the keyword `expose_as` of `artifacts` is not supported here",
        ),
        (
            "a: {script: x, artifacts: {expire_in: soon}}\n",
            "1: `artifacts:expire_in` wants a length of time like `7d` or `never`, not `soon`",
        ),
        (
            "a: {script: x, artifacts: {reports: {junitt: x}}}\n",
            "1: `junitt` is not a keyword of `artifacts:reports`; did you mean `junit`?",
        ),
        (
            "a: {script: x, retry: {when: script_failed}}\n",
            "1: `retry:when` does not know `script_failed`; did you mean `script_failure`?",
        ),
        ("a: {script: x, parallel: 0}\n", "1: `parallel` wants a whole number from 1 to 200, not the number 0"),
        ("a: {script: x, parallel: {matrix: [{}]}}\n", "1: `parallel:matrix` makes no jobs"),
        (
            "a: {script: x, parallel: {matrix: [{A: [1, 2, 3, 4, 5, 6], B: [1, 2, 3, 4, 5, 6], C: [1, 2, 3, 4, 5, 6]}]}}\n",
            "1: `parallel:matrix` makes more than 200 jobs",
        ),
        ("a: {script: x, image: {entrypoint: [x]}}\n", "1: `image` does not have its `name`"),
        ("a: {script: x, services: redis}\n", "1: `services` wants a list of strings, not the string `redis`"),
        ("a: {script: x, cache: {key: a/b}}\n", "1: `cache:key` must not be `.` or `..` nor have a `/` in it"),
        ("a: {script: x, cache: {key: \"%2E%2e\"}}\n", "1: `cache:key` must not be `.` or `..` nor have a `/` in it"),
        ("a: {script: x, cache: [{}, {}, {}, {}, {}]}\n", "1: 5 caches; a job has at most 4"),
        (
            "a: {script: x, cache: {policy: pul}}\n",
            "1: `cache:policy` does not know `pul`; it is one of pull-push, pull, push",
        ),
        ("a: {run: [], script: x}\n", "1: a job that has `run` has no `script`"),
        ("a: {script: x, id_tokens: {A: {}}}\n", "1: the ID token `A` has no `aud`"),
        (
            "a: {script: x, inputs: {i: {type: string}}}\n",
            "1: the input `i` has no `default`, which a job's input must have",
        ),
        (
            "a: {script: x, inputs: {i: {type: number, default: x}}}\n",
            "1: the `default` of the input `i` is the string `x`, not of type number",
        ),
        ("a: {script: x, release: {tag_name: v1}}\n", "1: `release` does not have its `description`"),
        (
            "a: {script: x, secrets: {A: {file: true}}}\n",
            "1: the secret `A` wants one provider: aws_secrets_manager, azure_key_vault, gcp_secret_manager, \
             gitlab_secrets_manager, vault",
        ),
        ("a: {script: x, timeout: 2 months}\n", "1: `timeout` must not be longer than a month"),
        ("a: {script: x, allow_failure: 1}\n", "1: `allow_failure` wants true or false, not the number 1"),
    ] {
        assert_eq!(mistake(text), format!("ci.yml:{message}"), "{text}");
    }
}

#[test]
fn what_leads_back_to_itself_is_told() {
    assert_eq!(mistakes("a: {extends: b, script: x}\nb: {extends: a}\n"), ["ci.yml:2: `a` extends itself: a → b → a"]);
    assert_eq!(
        mistake("a: {script: x, needs: [b]}\nb: {script: x, needs: [c]}\nc: {script: x, needs: [a]}\n"),
        "ci.yml:3: these jobs wait for each other: a → b → c → a"
    );
    assert_eq!(
        mistakes(
            ".a: {script: [!reference [.b, script]]}\n.b:\n  script: [!reference [.a, script]]\nc:\n  script: !reference [.a, script]\n"
        ),
        [
            "ci.yml:1: !reference [.b, script] leads back to itself",
            "ci.yml:3: !reference [.a, script] leads back to itself",
        ]
    );
}

#[test]
fn extends_is_bounded_in_whatever_order_the_jobs_stand() {
    let level = |level: usize| format!("a{level}: {{extends: a{}}}\n", level - 1);
    let below = "a0: {script: x}\n".to_owned();
    let eleven: String = [below.clone()].into_iter().chain((1..=11).map(level)).collect();
    assert!(load_text(&eleven).is_ok());
    let twelve: String = [below.clone()].into_iter().chain((1..=12).map(level)).collect();
    assert_eq!(mistake(&twelve), "ci.yml:13: `extends` goes more than 11 levels deep");
    let reversed: String = (1..=12).rev().map(level).chain([below]).collect();
    assert_eq!(mistake(&reversed), "ci.yml:11: `extends` goes more than 11 levels deep");
}

#[test]
fn a_missing_file_is_a_mistake_too() {
    let found = load(Path::new("/"), Path::new("no/such/ci.yml"), &Context::default()).unwrap_err();
    assert!(found[0].to_string().starts_with("no/such/ci.yml:1: this file cannot be read: "), "{found:?}");
}

#[test]
fn retry_counts_and_asks_for_the_reason() {
    let any = Retry { max: 2, ..Retry::default() };
    assert!(any.again(1, "script_failure", 1) && !any.again(2, "script_failure", 1));
    let named = Retry { max: 1, when: vec!["runner_system_failure".into()], exit_codes: vec![137] };
    assert!(named.again(0, "runner_system_failure", 0));
    assert!(named.again(0, "script_failure", 137));
    assert!(!named.again(0, "script_failure", 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Words of the language in an order that nobody would write.
    #[test]
    fn no_file_makes_the_loader_panic(lines in prop::collection::vec((0..4usize, prop::sample::select(vec![
        "a:", "b:", ".c:", "stages: [x, test]", "script: x", "script:", "- x", "- [x, [y]]", "extends: a", "extends: [b, .c]",
        "needs: [a, b]", "needs:", "- job: a", "variables: {A: 1}", "rules:", "- if: $A == null", "- when: never",
        "parallel: 3", "parallel: {matrix: [{A: [1, 2]}]}", "include: ci.yml", "default: {script: x}", "<<: *x", "&x",
        "script: !reference [a, script]", "!reference [b]", "image: {}", "timeout: 1h", "retry: {max: 1}", "artifacts: {}",
        "dependencies: [a, .c]", "tags:", "stage: x", "when: manual", "allow_failure: {exit_codes: 1}", "\u{feff}", "\t", "x: [",
    ])), 0..25)) {
        let text: String = lines.iter().map(|(depth, line)| format!("{}{line}\n", "  ".repeat(*depth))).collect();
        match load_text(&text) {
            Ok(pipeline) => prop_assert!(!pipeline.jobs.is_empty()),
            Err(mistakes) => prop_assert!(!mistakes.is_empty()),
        }
    }

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!load_files(&[("ci.yml", &bytes)], &[]).is_err_and(|mistakes| mistakes.is_empty()));
    }
}
