//! From the one mapping to jobs, each with what it inherits; nothing is decided yet.

use super::cache::caches;
use super::deployment::{environment, release};
use super::inputs::inputs;
use super::keyword::{check, near_miss};
use super::load::Config;
use super::mistakes::{At, Mistakes};
use super::rules::{Rule, rules};
use super::secrets::{id_tokens, secrets};
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
    &["after_script", "before_script", "cache", "default", "image", "include", "services", "stages", "variables"];
const TOP_ELSEWHERE: &[&str] = &["spec", "types", "workflow"];
const JOB: &[&str] = &[
    "after_script",
    "allow_failure",
    "artifacts",
    "before_script",
    "cache",
    "coverage",
    "dependencies",
    "environment",
    "extends",
    "hooks",
    "id_tokens",
    "image",
    "inherit",
    "inputs",
    "interruptible",
    "needs",
    "parallel",
    "release",
    "resource_group",
    "retry",
    "rules",
    "run",
    "script",
    "secrets",
    "services",
    "stage",
    "tags",
    "timeout",
    "variables",
    "when",
];
const JOB_ELSEWHERE: &[&str] = &[
    "dast_configuration",
    "except",
    "identity",
    "manual_confirmation",
    "only",
    "pages",
    "publish",
    "start_in",
    "trigger",
    "type",
];
/// What `default` may hold, and what a job without the keyword takes from there.
const INHERITED: &[&str] = &[
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "hooks",
    "id_tokens",
    "image",
    "interruptible",
    "retry",
    "services",
    "tags",
    "timeout",
];
/// The same at the top level, as it was before `default`.
const INHERITED_AT_TOP: [&str; 5] = ["after_script", "before_script", "cache", "image", "services"];

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
        check(map, "`default`", INHERITED, &["identity"], mistakes);
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
    let excused = ["extends", "trigger"].iter().any(|keyword| own.entry(keyword).is_some());
    if own.get("run").is_some() {
        for entry in
            own.0.iter().filter(|entry| ["after_script", "before_script", "script"].contains(&entry.key.as_str()))
        {
            mistakes.add(entry.at, format!("a job that has `run` has no `{}`", entry.key));
        }
    } else if own.get("script").is_none() && !excused {
        let hint = meant.map(|keyword| format!("; if it is not meant to be a job: did you mean `{keyword}`?"));
        mistakes.add(entry.at, format!("the job `{name}` has no `script`{}", hint.unwrap_or_default()));
    }
    let inherit = Inherit::read(own, mistakes);
    let mut map = own.clone();
    for entry in &default.0 {
        let key = entry.key.as_str();
        // What `run` stands in the place of is not inherited either.
        let replaced = own.get("run").is_some() && ["after_script", "before_script"].contains(&key);
        if map.get(key).is_none() && INHERITED.contains(&key) && inherit.default.takes(key) && !replaced {
            map.insert(entry.clone());
        }
    }
    let global: Vec<Variable> =
        global.iter().filter(|variable| inherit.variables.takes(&variable.key)).cloned().collect();
    let draft = draft(entry, &map, global, mistakes);
    match map.get("parallel").and_then(|node| parallel(node, mistakes)) {
        Some(copies) => split(&draft, copies),
        None => vec![draft],
    }
}

/// `inherit`: what a job takes of `default` and of the file's variables.
struct Inherit {
    default: Taken,
    variables: Taken,
}

enum Taken {
    All,
    Only(Vec<String>),
}

impl Taken {
    fn read(node: Option<&Node>, what: &str, mistakes: &mut Mistakes) -> Self {
        match node.map(|node| (&node.value, node)) {
            None | Some((Value::Bool(true), _)) => Self::All,
            Some((Value::Bool(false), _)) => Self::Only(Vec::new()),
            Some((_, node)) => Self::Only(read::texts(node, what, mistakes)),
        }
    }

    fn takes(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.iter().any(|other| other == key),
        }
    }
}

impl Inherit {
    fn read(own: &Map, mistakes: &mut Mistakes) -> Self {
        let map = own.get("inherit").and_then(|node| read::map(node, "inherit", mistakes));
        if let Some(map) = map {
            check(map, "`inherit`", &["default", "variables"], &[], mistakes);
        }
        let part = |key: &str, mistakes: &mut Mistakes| {
            Taken::read(map.and_then(|map| map.get(key)), &format!("inherit:{key}"), mistakes)
        };
        Self { default: part("default", mistakes), variables: part("variables", mistakes) }
    }
}

fn draft(entry: &Entry, map: &Map, global: Vec<Variable>, mistakes: &mut Mistakes) -> Draft {
    let lines = |key: &str, mistakes: &mut Mistakes| {
        map.get(key).map(|node| read::script(node, key, mistakes)).unwrap_or_default()
    };
    let stage = map.get("stage").and_then(|node| read::text(node, "stage", mistakes));
    let mut own = global;
    if let Some(node) = map.get("variables") {
        override_variables(&mut own, &variables(node, false, mistakes));
    }
    let script = lines("script", mistakes);
    if let Some(Node { at, value: Value::List(items) }) = map.get("script")
        && items.is_empty()
    {
        mistakes.add(*at, format!("the `script` of `{}` is empty", entry.key));
    }
    // GitLab shows the coverage that it finds by this, and ends interruptible jobs of superseded pipelines: here nobody looks,
    // and no pipeline supersedes another.
    map.get("coverage").and_then(|node| read::text(node, "coverage", mistakes));
    map.get("interruptible").and_then(|node| read::flag(node, "interruptible", mistakes));
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
            caches: map.get("cache").map(|node| caches(node, mistakes)).unwrap_or_default(),
            pre_get_sources: map.get("hooks").map(|node| hooks(node, mistakes)).unwrap_or_default(),
            id_tokens: map.get("id_tokens").map(|node| id_tokens(node, mistakes)).unwrap_or_default(),
            secrets: map.get("secrets").map(|node| secrets(node, mistakes)).unwrap_or_default(),
            inputs: map.get("inputs").map(|node| inputs(node, mistakes)).unwrap_or_default(),
            run: map.get("run").and_then(|node| run(node, mistakes)),
            release: map.get("release").and_then(|node| release(node, mistakes)),
            environment: map.get("environment").and_then(|node| environment(node, mistakes)),
            resource_group: map.get("resource_group").and_then(|node| read::text(node, "resource_group", mistakes)),
            node: None,
            line: entry.at.line,
        },
    }
}

/// The commands of the one hook that there is.
fn hooks(node: &Node, mistakes: &mut Mistakes) -> Vec<String> {
    const HOOK: &str = "pre_get_sources_script";
    let Some(map) = read::map(node, "hooks", mistakes) else { return Vec::new() };
    check(map, "`hooks`", &[HOOK], &[], mistakes);
    map.get(HOOK).map(|node| read::script(node, HOOK, mistakes)).unwrap_or_default()
}

/// GitLab's own steps; what is in them is the runner's matter.
fn run(node: &Node, mistakes: &mut Mistakes) -> Option<serde_json::Value> {
    let Value::List(items) = &node.value else {
        mistakes.add(node.at, format!("`run` wants a list of steps, not {}", node.describe()));
        return None;
    };
    items.iter().for_each(|item| {
        read::map(item, "run", mistakes);
    });
    Some(read::json(node))
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
