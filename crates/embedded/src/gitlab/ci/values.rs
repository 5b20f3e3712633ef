//! The keywords whose values have a shape of their own.

use super::keyword::check;
use super::mistakes::{At, Mistakes};
use super::yaml::{Map, Node, Value};
use super::{AllowFailure, Artifacts, Image, Need, Retry, SaveWhen, Service, Variable, When, duration, read};

pub(super) const WHEN: &[(&str, When)] = &[
    ("on_success", When::OnSuccess),
    ("on_failure", When::OnFailure),
    ("always", When::Always),
    ("manual", When::Manual),
    ("never", When::Never),
];

pub(super) const SAVE_WHEN: &[(&str, SaveWhen)] =
    &[("on_success", SaveWhen::OnSuccess), ("on_failure", SaveWhen::OnFailure), ("always", SaveWhen::Always)];

/// GitLab's bound for the copies of one job.
const MAX_PARALLEL: i64 = 200;
const MAX_RETRY: i64 = 2;
const EXIT_CODES: (i64, i64) = (0, 255);

/// `described`: at the top level a variable may have a description.
pub(super) fn variables(node: &Node, described: bool, mistakes: &mut Mistakes) -> Vec<Variable> {
    let Some(map) = read::map(node, "variables", mistakes) else { return Vec::new() };
    let mut variables = Vec::new();
    for entry in &map.0 {
        let key = entry.key.clone();
        let Value::Map(map) = &entry.value.value else {
            let value = read::scalar(&entry.value, &key, mistakes);
            variables.extend(value.map(|value| Variable { key, value, raw: false }));
            continue;
        };
        let known: &[&str] = if described { &["description", "expand", "value"] } else { &["expand", "value"] };
        let elsewhere: &[&str] = if described { &["options"] } else { &["description", "options"] };
        check(map, "a variable", known, elsewhere, mistakes);
        if let Some(node) = map.get("description") {
            read::text(node, "description", mistakes);
        }
        let value = map.get("value").map_or(Some(String::new()), |node| read::scalar(node, "value", mistakes));
        let expand = map.get("expand").and_then(|node| read::flag(node, "expand", mistakes)).unwrap_or(true);
        variables.extend(value.map(|value| Variable { key, value, raw: !expand }));
    }
    variables
}

/// Variables of `over` take the place of those with the same name.
pub(super) fn override_variables(variables: &mut Vec<Variable>, over: &[Variable]) {
    for variable in over {
        match variables.iter_mut().find(|present| present.key == variable.key) {
            Some(present) => present.clone_from(variable),
            None => variables.push(variable.clone()),
        }
    }
}

pub(super) fn artifacts(node: &Node, mistakes: &mut Mistakes) -> Option<Artifacts> {
    // `access` and `public` are about who may look at them in GitLab; here that is one person.
    const KNOWN: &[&str] =
        &["access", "exclude", "expire_in", "name", "paths", "public", "reports", "untracked", "when"];
    const ACCESS: &[(&str, ())] = &[("all", ()), ("developer", ()), ("maintainer", ()), ("none", ())];
    let map = read::map(node, "artifacts", mistakes)?;
    check(map, "`artifacts`", KNOWN, &["expose_as"], mistakes);
    map.get("access").and_then(|node| read::one_of(node, "artifacts:access", ACCESS, mistakes));
    map.get("public").and_then(|node| read::flag(node, "artifacts:public", mistakes));
    Some(Artifacts {
        name: map.get("name").and_then(|node| read::text(node, "artifacts:name", mistakes)),
        paths: map.get("paths").map(|node| read::texts(node, "artifacts:paths", mistakes)).unwrap_or_default(),
        exclude: map.get("exclude").map(|node| read::texts(node, "artifacts:exclude", mistakes)).unwrap_or_default(),
        untracked: map.get("untracked").and_then(|node| read::flag(node, "artifacts:untracked", mistakes))
            == Some(true),
        when: map
            .get("when")
            .and_then(|node| read::one_of(node, "artifacts:when", SAVE_WHEN, mistakes))
            .unwrap_or_default(),
        expire_in: map.get("expire_in").and_then(|node| expire_in(node, mistakes)),
        reports: map.get("reports").map(|node| reports(node, mistakes)).unwrap_or_default(),
    })
}

fn expire_in(node: &Node, mistakes: &mut Mistakes) -> Option<String> {
    let text = match &node.value {
        // A number counts seconds here, unlike in `timeout`.
        Value::Number(text) => text.clone(),
        _ => read::text(node, "artifacts:expire_in", mistakes)?,
    };
    if text != "never" && duration::parse(&text).is_none() {
        let message = format!("`artifacts:expire_in` wants a length of time like `7d` or `never`, not `{text}`");
        mistakes.add(node.at, message);
        return None;
    }
    Some(text)
}

fn reports(node: &Node, mistakes: &mut Mistakes) -> Vec<(String, Vec<String>)> {
    const KNOWN: &[&str] = &[
        "accessibility",
        "annotations",
        "api_fuzzing",
        "browser_performance",
        "cluster_image_scanning",
        "codequality",
        "container_scanning",
        "coverage_report",
        "coverage_fuzzing",
        "cyclonedx",
        "dast",
        "dependency_scanning",
        "dotenv",
        "junit",
        "load_performance",
        "metrics",
        "repository_xray",
        "requirements",
        "sast",
        "secret_detection",
        "terraform",
    ];
    let Some(map) = read::map(node, "artifacts:reports", mistakes) else { return Vec::new() };
    check(map, "`artifacts:reports`", KNOWN, &[], mistakes);
    let report = |entry: &super::yaml::Entry, mistakes: &mut Mistakes| {
        let what = format!("artifacts:reports:{}", entry.key);
        if entry.key == "coverage_report" {
            return coverage_report(&entry.value, mistakes);
        }
        Some((entry.key.clone(), read::text_or_texts(&entry.value, &what, mistakes)))
    };
    map.0.iter().filter_map(|entry| report(entry, mistakes)).collect()
}

/// Its artifact is named after its format.
fn coverage_report(node: &Node, mistakes: &mut Mistakes) -> Option<(String, Vec<String>)> {
    const FORMATS: &[(&str, &str)] = &[("cobertura", "cobertura"), ("jacoco", "jacoco")];
    let what = "artifacts:reports:coverage_report";
    let map = read::map(node, what, mistakes)?;
    check(map, &format!("`{what}`"), &["coverage_format", "path"], &[], mistakes);
    let (Some(format), Some(path)) = (map.get("coverage_format"), map.get("path")) else {
        mistakes.add(node.at, format!("`{what}` wants a `coverage_format` and a `path`"));
        return None;
    };
    let format = read::one_of(format, &format!("{what}:coverage_format"), FORMATS, mistakes)?;
    Some((format.to_owned(), vec![read::text(path, &format!("{what}:path"), mistakes)?]))
}

pub(super) fn needs(node: &Node, mistakes: &mut Mistakes) -> Vec<(Need, At)> {
    const ELSEWHERE: &[&str] = &["parallel", "pipeline", "project", "ref"];
    let Value::List(items) = &node.value else {
        read::texts(node, "needs", mistakes);
        return Vec::new();
    };
    let mut needs = Vec::new();
    for item in items {
        let need = match &item.value {
            Value::Map(map) => {
                check(map, "`needs`", &["artifacts", "job", "optional"], ELSEWHERE, mistakes);
                let flag = |key: &str, mistakes: &mut Mistakes| {
                    map.get(key).and_then(|node| read::flag(node, &format!("needs:{key}"), mistakes))
                };
                let artifacts = flag("artifacts", mistakes).unwrap_or(true);
                let optional = flag("optional", mistakes).unwrap_or(false);
                match map.get("job") {
                    Some(node) => read::text(node, "needs:job", mistakes).map(|job| Need { job, artifacts, optional }),
                    None if ELSEWHERE.iter().any(|key| map.get(key).is_some()) => None,
                    None => {
                        mistakes.add(item.at, "this need does not name its `job`");
                        None
                    }
                }
            }
            _ => read::text(item, "needs", mistakes).map(|job| Need { job, artifacts: true, optional: false }),
        };
        needs.extend(need.map(|need| (need, item.at)));
    }
    needs
}

pub(super) fn dependencies(node: &Node, mistakes: &mut Mistakes) -> Vec<(String, At)> {
    let names = read::texts(node, "dependencies", mistakes);
    let places = read::one_or_more(node).iter().filter(|item| matches!(item.value, Value::Text(_))).map(|item| item.at);
    names.into_iter().zip(places).collect()
}

pub(super) fn allow_failure(node: &Node, mistakes: &mut Mistakes) -> Option<AllowFailure> {
    match &node.value {
        Value::Map(map) => {
            check(map, "`allow_failure`", &["exit_codes"], &[], mistakes);
            Some(AllowFailure::ExitCodes(exit_codes(map, "allow_failure:exit_codes", mistakes)))
        }
        _ => read::flag(node, "allow_failure", mistakes)
            .map(|allowed| if allowed { AllowFailure::Yes } else { AllowFailure::No }),
    }
}

fn exit_codes(map: &Map, what: &str, mistakes: &mut Mistakes) -> Vec<i32> {
    let Some(node) = map.get("exit_codes") else { return Vec::new() };
    let (from, to) = EXIT_CODES;
    // Within 0 to 255.
    read::whole_numbers(node, what, from, to, mistakes).into_iter().map(|code| code as i32).collect()
}

pub(super) fn retry(node: &Node, mistakes: &mut Mistakes) -> Option<Retry> {
    const REASONS: &[(&str, &str)] = &[
        ("always", "always"),
        ("unknown_failure", "unknown_failure"),
        ("script_failure", "script_failure"),
        ("api_failure", "api_failure"),
        ("stuck_or_timeout_failure", "stuck_or_timeout_failure"),
        ("runner_system_failure", "runner_system_failure"),
        ("runner_unsupported", "runner_unsupported"),
        ("stale_schedule", "stale_schedule"),
        ("job_execution_timeout", "job_execution_timeout"),
        ("archived_failure", "archived_failure"),
        ("unmet_prerequisites", "unmet_prerequisites"),
        ("scheduler_failure", "scheduler_failure"),
        ("data_integrity_failure", "data_integrity_failure"),
    ];
    let max = |node: &Node, mistakes: &mut Mistakes| {
        read::whole_number(node, "retry", 0, MAX_RETRY, mistakes).map(|max| max as u32)
    };
    let Value::Map(map) = &node.value else {
        return Some(Retry { max: max(node, mistakes)?, ..Retry::default() });
    };
    check(map, "`retry`", &["exit_codes", "max", "when"], &[], mistakes);
    let reason = |node: &Node, mistakes: &mut Mistakes| read::one_of(node, "retry:when", REASONS, mistakes);
    let when = map.get("when").map(read::one_or_more).unwrap_or_default();
    Some(Retry {
        max: match map.get("max") {
            Some(node) => max(node, mistakes)?,
            None => MAX_RETRY as u32,
        },
        when: when.iter().filter_map(|node| reason(node, mistakes)).map(str::to_owned).collect(),
        exit_codes: exit_codes(map, "retry:exit_codes", mistakes),
    })
}

pub(super) fn image(node: &Node, mistakes: &mut Mistakes) -> Option<Image> {
    const KNOWN: &[&str] = &["docker", "entrypoint", "kubernetes", "name", "pull_policy"];
    let Value::Map(map) = &node.value else {
        return Some(Image { name: read::text(node, "image", mistakes)?, ..Image::default() });
    };
    check(map, "`image`", KNOWN, &[], mistakes);
    Some(Image {
        name: name_of(map, node.at, "image", mistakes)?,
        entrypoint: map
            .get("entrypoint")
            .map(|node| read::text_or_texts(node, "image:entrypoint", mistakes))
            .unwrap_or_default(),
        pull_policy: pull_policy(map, "image", mistakes),
        executor_opts: executor_opts(map, "image", mistakes),
    })
}

fn pull_policy(map: &Map, what: &str, mistakes: &mut Mistakes) -> Vec<String> {
    const POLICIES: &[(&str, &str)] = &[("always", "always"), ("if-not-present", "if-not-present"), ("never", "never")];
    let what = format!("{what}:pull_policy");
    let words = map.get("pull_policy").map(read::one_or_more).unwrap_or_default();
    words.iter().filter_map(|node| read::one_of(node, &what, POLICIES, mistakes)).map(str::to_owned).collect()
}

/// What is meant for one kind of runner only (protocol 3.8).
fn executor_opts(map: &Map, what: &str, mistakes: &mut Mistakes) -> serde_json::Map<String, serde_json::Value> {
    const KNOWN: [(&str, &[&str]); 2] = [("docker", &["platform", "user"]), ("kubernetes", &["user"])];
    let mut options = serde_json::Map::new();
    for (executor, known) in KNOWN {
        let Some(node) = map.get(executor) else { continue };
        let what = format!("{what}:{executor}");
        let Some(map) = read::map(node, &what, mistakes) else { continue };
        check(map, &format!("`{what}`"), known, &[], mistakes);
        options.insert(executor.to_owned(), read::json(node));
    }
    options
}

pub(super) fn services(node: &Node, mistakes: &mut Mistakes) -> Vec<Service> {
    let Value::List(items) = &node.value else {
        read::texts(node, "services", mistakes);
        return Vec::new();
    };
    items.iter().filter_map(|item| service(item, mistakes)).collect()
}

fn service(node: &Node, mistakes: &mut Mistakes) -> Option<Service> {
    const KNOWN: &[&str] =
        &["alias", "command", "docker", "entrypoint", "kubernetes", "name", "pull_policy", "variables"];
    let Value::Map(map) = &node.value else {
        return Some(Service { name: read::text(node, "services", mistakes)?, ..Service::default() });
    };
    check(map, "a service", KNOWN, &[], mistakes);
    let list = |key: &str, mistakes: &mut Mistakes| {
        map.get(key).map(|node| read::texts(node, &format!("services:{key}"), mistakes)).unwrap_or_default()
    };
    Some(Service {
        name: name_of(map, node.at, "services", mistakes)?,
        alias: map.get("alias").and_then(|node| read::text(node, "services:alias", mistakes)),
        entrypoint: list("entrypoint", mistakes),
        command: list("command", mistakes),
        variables: map.get("variables").map(|node| variables(node, false, mistakes)).unwrap_or_default(),
        pull_policy: pull_policy(map, "services", mistakes),
        executor_opts: executor_opts(map, "services", mistakes),
    })
}

pub(super) fn name_of(map: &Map, at: At, what: &str, mistakes: &mut Mistakes) -> Option<String> {
    match map.get("name") {
        Some(node) => read::text(node, &format!("{what}:name"), mistakes),
        None => {
            mistakes.add(at, format!("`{what}` does not have its `name`"));
            None
        }
    }
}

/// The copies of a parallel job: what is added to its name, and its variables.
pub(super) fn parallel(node: &Node, mistakes: &mut Mistakes) -> Option<Vec<(String, Vec<Variable>)>> {
    let Value::Map(map) = &node.value else {
        let count = read::whole_number(node, "parallel", 1, MAX_PARALLEL, mistakes)?;
        return Some((1..=count).map(|index| (format!(" {index}/{count}"), Vec::new())).collect());
    };
    check(map, "`parallel`", &["matrix"], &[], mistakes);
    let Some(Node { at, value: Value::List(rows) }) = map.get("matrix") else {
        mistakes.add(node.at, "`parallel:matrix` wants a list of mappings from variables to values");
        return None;
    };
    let mut copies = Vec::new();
    for row in rows {
        for row in combinations(read::map(row, "parallel:matrix", mistakes)?, mistakes) {
            let values: Vec<&str> = row.iter().map(|variable| variable.value.as_str()).collect();
            copies.push((format!(": [{}]", values.join(", ")), row));
        }
    }
    if copies.is_empty() || copies.len() > MAX_PARALLEL as usize {
        let count = if copies.is_empty() { "no jobs".into() } else { format!("more than {MAX_PARALLEL} jobs") };
        mistakes.add(*at, format!("`parallel:matrix` makes {count}"));
        return None;
    }
    Some(copies)
}

/// Every choice of one value per variable, the last one changing fastest; not many more than are allowed, however many
/// there are.
fn combinations(map: &Map, mistakes: &mut Mistakes) -> Vec<Vec<Variable>> {
    let mut rows: Vec<Vec<Variable>> = vec![Vec::new()];
    for entry in &map.0 {
        let mut values = Vec::new();
        for node in read::one_or_more(&entry.value) {
            let value = read::scalar(node, &entry.key, mistakes);
            values.extend(value.map(|value| Variable { key: entry.key.clone(), value, raw: false }));
        }
        rows = rows
            .iter()
            .flat_map(|row| values.iter().map(|value| row.iter().chain([value]).cloned().collect()))
            .take(MAX_PARALLEL as usize + 1)
            .collect();
    }
    rows.retain(|row| !row.is_empty());
    rows
}
