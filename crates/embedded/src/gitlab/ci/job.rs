//! From the one mapping to jobs, each with what it inherits; nothing is decided yet.

use super::keyword::{check, near_miss};
use super::load::Config;
use super::mistakes::{At, Mistakes};
use super::rules::{Rule, rules};
use super::values::{
    WHEN, allow_failure, artifacts, dependencies, image, needs, override_variables, parallel, retry, services,
    variables,
};
use super::yaml::{Entry, Map, Node, Value};
use super::{AllowFailure, Job, Need, Variable, When, duration, read};

const DEFAULT_STAGES: [&str; 3] = ["build", "test", "deploy"];
const DEFAULT_STAGE: &str = "test";
/// The first and the last pipeline stage, which need not be named.
const EDGES: [&str; 2] = [".pre", ".post"];

const TOP: &[&str] =
    &["after_script", "before_script", "default", "image", "include", "services", "stages", "variables"];
const TOP_ELSEWHERE: &[&str] = &["cache", "spec", "types", "workflow"];
const JOB: &[&str] = &[
    "after_script",
    "allow_failure",
    "artifacts",
    "before_script",
    "dependencies",
    "extends",
    "image",
    "needs",
    "parallel",
    "retry",
    "rules",
    "script",
    "services",
    "stage",
    "tags",
    "timeout",
    "variables",
    "when",
];
const JOB_ELSEWHERE: &[&str] = &[
    "cache",
    "coverage",
    "dast_configuration",
    "environment",
    "except",
    "hooks",
    "id_tokens",
    "identity",
    "inherit",
    "inputs",
    "interruptible",
    "manual_confirmation",
    "only",
    "pages",
    "publish",
    "release",
    "resource_group",
    "run",
    "secrets",
    "start_in",
    "trigger",
    "type",
];
/// What `default` may hold, and what a job without the keyword takes from there.
const INHERITED: &[&str] =
    &["after_script", "artifacts", "before_script", "image", "retry", "services", "tags", "timeout"];
const INHERITED_ELSEWHERE: &[&str] = &["cache", "hooks", "id_tokens", "interruptible"];
/// The same at the top level, as it was before `default`.
const INHERITED_AT_TOP: [&str; 4] = ["after_script", "before_script", "image", "services"];

/// GitLab's bound.
const MAX_TAGS: usize = 50;
const MAX_TIMEOUT_SECONDS: u64 = 30 * 24 * 60 * 60;

/// All jobs of the files, before rules.
pub(super) struct Drafts {
    pub stages: Vec<String>,
    pub jobs: Vec<Draft>,
}

/// One job, or one copy of a parallel job.
pub(super) struct Draft {
    /// The job's name without what tells its copies apart.
    pub base: String,
    pub stage_at: At,
    /// `when`, `allow_failure`, `needs` and `dependencies` wait for the decisions of `plan`.
    pub job: Job,
    pub when: Option<When>,
    pub allow_failure: Option<AllowFailure>,
    pub needs: Option<Vec<(Need, At)>>,
    pub dependencies: Option<Vec<(String, At)>>,
    pub rules: Option<Vec<Rule>>,
}

/// `None` if the jobs cannot be judged together.
pub(super) fn read_all(config: &Config, mistakes: &mut Mistakes) -> Option<Drafts> {
    let root = &config.root;
    let stages = stages(root.get("stages"), mistakes);
    let global = root.get("variables").map(|node| variables(node, true, mistakes)).unwrap_or_default();
    let default = default(root, mistakes);
    let mut jobs = Vec::new();
    for entry in &root.0 {
        let name = entry.key.as_str();
        if TOP_ELSEWHERE.contains(&name) {
            mistakes.add(entry.at, format!("the keyword `{name}` is not supported here"));
        } else if !TOP.contains(&name) && !name.starts_with('.') {
            jobs.extend(job(entry, &default, &global, mistakes));
        }
    }
    config.whole.then_some(Drafts { stages, jobs })
}

fn stages(node: Option<&Node>, mistakes: &mut Mistakes) -> Vec<String> {
    let named = match node {
        Some(node) => read::texts(node, "stages", mistakes),
        None => DEFAULT_STAGES.map(str::to_owned).to_vec(),
    };
    let mut stages = vec![EDGES[0].to_owned()];
    for stage in named {
        if !EDGES.contains(&stage.as_str()) && !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    stages.push(EDGES[1].to_owned());
    stages
}

/// What every job takes if it has nothing of its own.
fn default(root: &Map, mistakes: &mut Mistakes) -> Map {
    let mut default = Map::default();
    if let Some(map) = root.get("default").and_then(|node| read::map(node, "default", mistakes)) {
        check(map, "`default`", INHERITED, INHERITED_ELSEWHERE, mistakes);
        default = map.clone();
    }
    for entry in root.0.iter().filter(|entry| INHERITED_AT_TOP.contains(&entry.key.as_str())) {
        if let Some(other) = default.entry(&entry.key) {
            let place = mistakes.place(other.at);
            mistakes.add(entry.at, format!("`{}` stands here and in `default` ({place})", entry.key));
        }
        default.insert(entry.clone());
    }
    default
}

/// The copies of one job, usually one.
fn job(entry: &Entry, default: &Map, global: &[Variable], mistakes: &mut Mistakes) -> Vec<Draft> {
    let name = &entry.key;
    let meant = near_miss(name, TOP.iter().copied());
    let own = match (&entry.value.value, meant) {
        (Value::Map(own), None) => own,
        (Value::Map(own), Some(_)) if own.0.iter().any(|entry| JOB.contains(&entry.key.as_str())) => own,
        (_, Some(keyword)) => {
            mistakes.add(entry.at, format!("`{name}` is not a keyword; did you mean `{keyword}`?"));
            return Vec::new();
        }
        (_, None) => {
            let found = entry.value.describe();
            mistakes.add(entry.at, format!("`{name}` is not a keyword, and a job is a mapping, not {found}"));
            return Vec::new();
        }
    };
    check(own, "a job", JOB, JOB_ELSEWHERE, mistakes);
    // Each of these was reported, and stands for a script that is not here.
    let excused = ["extends", "run", "trigger"].iter().any(|keyword| own.entry(keyword).is_some());
    if own.get("script").is_none() && !excused {
        let hint = meant.map(|keyword| format!("; if it is not meant to be a job: did you mean `{keyword}`?"));
        mistakes.add(entry.at, format!("the job `{name}` has no `script`{}", hint.unwrap_or_default()));
    }
    let mut map = own.clone();
    for entry in &default.0 {
        if map.get(&entry.key).is_none() && INHERITED.contains(&entry.key.as_str()) {
            map.insert(entry.clone());
        }
    }
    let draft = draft(entry, &map, global, mistakes);
    match map.get("parallel").and_then(|node| parallel(node, mistakes)) {
        Some(copies) => split(&draft, copies),
        None => vec![draft],
    }
}

fn draft(entry: &Entry, map: &Map, global: &[Variable], mistakes: &mut Mistakes) -> Draft {
    let lines = |key: &str, mistakes: &mut Mistakes| {
        map.get(key).map(|node| read::script(node, key, mistakes)).unwrap_or_default()
    };
    let stage = map.get("stage").and_then(|node| read::text(node, "stage", mistakes));
    let mut own = global.to_vec();
    if let Some(node) = map.get("variables") {
        override_variables(&mut own, &variables(node, false, mistakes));
    }
    let script = lines("script", mistakes);
    if let Some(Node { at, value: Value::List(items) }) = map.get("script")
        && items.is_empty()
    {
        mistakes.add(*at, format!("the `script` of `{}` is empty", entry.key));
    }
    Draft {
        base: entry.key.clone(),
        stage_at: map.entry("stage").map_or(entry.at, |stage| stage.value.at),
        when: map.get("when").and_then(|node| when(node, mistakes)),
        allow_failure: map.get("allow_failure").and_then(|node| allow_failure(node, mistakes)),
        needs: map.get("needs").map(|node| needs(node, mistakes)),
        dependencies: map.get("dependencies").map(|node| dependencies(node, mistakes)),
        rules: map.get("rules").map(|node| rules(node, mistakes)),
        job: Job {
            name: entry.key.clone(),
            stage: stage.unwrap_or_else(|| DEFAULT_STAGE.to_owned()),
            tags: map.get("tags").map(|node| tags(node, mistakes)).unwrap_or_default(),
            before_script: lines("before_script", mistakes),
            script,
            after_script: lines("after_script", mistakes),
            variables: own,
            artifacts: map.get("artifacts").and_then(|node| artifacts(node, mistakes)),
            dependencies: None,
            needs: None,
            when: When::OnSuccess,
            allow_failure: AllowFailure::No,
            retry: map.get("retry").and_then(|node| retry(node, mistakes)).unwrap_or_default(),
            timeout: map.get("timeout").and_then(|node| timeout(node, mistakes)),
            image: map.get("image").and_then(|node| image(node, mistakes)),
            services: map.get("services").map(|node| services(node, mistakes)).unwrap_or_default(),
            node: None,
            line: entry.at.line,
        },
    }
}

fn split(draft: &Draft, copies: Vec<(String, Vec<Variable>)>) -> Vec<Draft> {
    // `parallel` bounds them at 200.
    let total = copies.len() as u32;
    let copy = |(index, (suffix, added)): (u32, (String, Vec<Variable>))| {
        let mut job = draft.job.clone();
        job.name += &suffix;
        job.node = Some((index, total));
        override_variables(&mut job.variables, &added);
        Draft {
            base: draft.base.clone(),
            job,
            needs: draft.needs.clone(),
            dependencies: draft.dependencies.clone(),
            rules: draft.rules.clone(),
            allow_failure: draft.allow_failure.clone(),
            ..*draft
        }
    };
    (1..).zip(copies).map(copy).collect()
}

fn tags(node: &Node, mistakes: &mut Mistakes) -> Vec<String> {
    let tags = read::texts(node, "tags", mistakes);
    if tags.len() > MAX_TAGS {
        mistakes.add(node.at, format!("{} tags; at most {MAX_TAGS} are allowed", tags.len()));
    }
    tags
}

fn when(node: &Node, mistakes: &mut Mistakes) -> Option<When> {
    if node.value == Value::Text("delayed".into()) {
        mistakes.add(node.at, "`when: delayed` is not supported here");
        return None;
    }
    let when = read::one_of(node, "when", WHEN, mistakes)?;
    if when == When::Never {
        mistakes.add(
            node.at,
            "`when: never` belongs into `rules`; a job that never runs can be hidden by a `.` before its name",
        );
    }
    Some(when)
}

fn timeout(node: &Node, mistakes: &mut Mistakes) -> Option<std::time::Duration> {
    let text = read::text(node, "timeout", mistakes)?;
    let timeout = duration::parse(&text);
    match timeout {
        None => mistakes.add(node.at, format!("`timeout` wants a length of time like `1h 30m`, not `{text}`")),
        Some(timeout) if timeout.as_secs() == 0 => mistakes.add(node.at, "`timeout` must be at least one second"),
        Some(timeout) if timeout.as_secs() > MAX_TIMEOUT_SECONDS => {
            mistakes.add(node.at, "`timeout` must not be longer than a month");
        }
        Some(_) => {}
    }
    timeout
}
