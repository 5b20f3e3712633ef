//! The variables that GitLab sends with a job: what it predefines, and what the file, earlier jobs, the project and
//! the pipeline add, from low to high; later ones win.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::config::Variable;
use super::id_token;
use super::job::Job;
use super::payload;
use super::reference::Ref;
use super::state::{Pipeline, Shared, State};

/// The commit before the first one, in the object format of this one.
pub(super) fn no_commit(sha: &str) -> String {
    "0".repeat(sha.len())
}

/// One entry of the payload (protocol 3.6).
#[derive(Clone)]
pub(super) struct Entry {
    key: String,
    value: String,
    public: bool,
    masked: bool,
    file: bool,
    raw: bool,
}

impl Entry {
    fn public(key: &str, value: impl ToString) -> Self {
        let (key, value) = (key.to_owned(), value.to_string());
        Self { key, value, public: true, masked: false, file: false, raw: false }
    }

    fn of_person(variable: &Variable) -> Self {
        let Variable { key, value, masked, file, raw } = variable.clone();
        Self { key, value, public: false, masked, file, raw }
    }

    pub(super) fn json(&self) -> Value {
        let Self { key, value, public, masked, file, raw } = self;
        json!({ "key": key, "value": value, "public": public, "masked": masked, "raw": raw, "file": file })
    }
}

pub(super) fn value<'e>(entries: &'e [Entry], key: &str) -> Option<&'e str> {
    entries.iter().rfind(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

pub(super) fn of_job(
    shared: &Shared,
    state: &State,
    pipeline: &Pipeline,
    job: &Job,
    dependencies: &[&Job],
) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(100);
    predefine(&mut entries, shared, state, pipeline, job);
    entries.extend(
        job.definition
            .variables
            .iter()
            .map(|variable| Entry { raw: variable.raw, ..Entry::public(&variable.key, &variable.value) }),
    );
    let dotenv = dependencies.iter().flat_map(|job| &job.dotenv);
    entries.extend(dotenv.map(|(key, value)| Entry { public: false, ..Entry::public(key, value) }));
    entries.extend(shared.config.variables.iter().map(Entry::of_person));
    entries.extend(pipeline.variables.iter().map(Entry::of_person));
    expand_all(&mut entries);
    // Of the name as it is now, with variables in it replaced.
    if let Some(name) = value(&entries, "CI_ENVIRONMENT_NAME").filter(|_| job.definition.environment.is_some()) {
        entries.push(Entry::public("CI_ENVIRONMENT_SLUG", environment_slug(name)));
    }
    entries
}

fn predefine(entries: &mut Vec<Entry>, shared: &Shared, state: &State, pipeline: &Pipeline, job: &Job) {
    let mut add = |key: &str, value: &dyn ToString| entries.push(Entry::public(key, value.to_string()));
    let commit = &pipeline.commit;
    let definition = &job.definition;

    add("CI_PIPELINE_ID", &pipeline.id);
    add("CI_PIPELINE_URL", &format!("{}/-/pipelines/{}", shared.project_url(), pipeline.id));
    add("CI_JOB_ID", &job.id);
    add("CI_JOB_URL", &format!("{}/-/jobs/{}", shared.project_url(), job.id));
    add("CI_JOB_STARTED_AT", &rfc3339(job.started_at));
    add("CI_JOB_TIMEOUT", &payload::timeout(shared, state, job));
    add("CI", &true);
    add("GITLAB_CI", &true);
    add("CI_JOB_NAME", &definition.name);
    add("CI_JOB_NAME_SLUG", &slug(&definition.name));
    add("CI_JOB_STAGE", &definition.stage);
    if definition.when == super::ci::When::Manual {
        add("CI_JOB_MANUAL", &true);
    }
    if let Some((index, _)) = definition.node {
        add("CI_NODE_INDEX", &index);
    }
    add("CI_NODE_TOTAL", &definition.node.map_or(1, |(_, total)| total));

    if let Some(runner) = job.runner.and_then(|runner| state.runners.get(&runner)) {
        add("CI_RUNNER_ID", &runner.id);
        add("CI_RUNNER_DESCRIPTION", &runner.description);
        add("CI_RUNNER_TAGS", &json!(runner.tags));
    }

    let (namespace, project) = payload::project_names(&shared.config.project_path);
    let root = namespace.split('/').next().unwrap_or_default();
    add("CI_PROJECT_ID", &super::PROJECT_ID);
    add("CI_PROJECT_NAME", &project);
    add("CI_PROJECT_TITLE", &project);
    add("CI_PROJECT_DESCRIPTION", &"");
    add("CI_PROJECT_PATH", &shared.config.project_path);
    add("CI_PROJECT_PATH_SLUG", &slug(&shared.config.project_path));
    add("CI_PROJECT_NAMESPACE", &namespace);
    add("CI_PROJECT_NAMESPACE_ID", &1);
    add("CI_PROJECT_ROOT_NAMESPACE", &root);
    add("CI_PROJECT_URL", &shared.project_url());
    add("CI_PROJECT_VISIBILITY", &"private");
    add("CI_PROJECT_REPOSITORY_LANGUAGES", &"");
    add("CI_PROJECT_CLASSIFICATION_LABEL", &"");
    add("CI_DEFAULT_BRANCH", &super::DEFAULT_BRANCH);
    add("CI_CONFIG_PATH", &".gitlab-ci.yml");

    let (protocol, authority) = shared.url.split_once("://").unwrap_or(("http", &shared.url));
    let usual_port = if protocol == "https" { "443" } else { "80" };
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, usual_port));
    let version: Vec<&str> = super::VERSION.split('.').collect();
    add("CI_SERVER", &"yes");
    add("CI_SERVER_NAME", &"GitLab");
    add("CI_SERVER_URL", &shared.url);
    add("CI_SERVER_FQDN", &authority);
    add("CI_SERVER_HOST", &host);
    add("CI_SERVER_PORT", &port);
    add("CI_SERVER_PROTOCOL", &protocol);
    add("CI_SERVER_SHELL_SSH_HOST", &host);
    add("CI_SERVER_SHELL_SSH_PORT", &22);
    add("CI_SERVER_VERSION", &super::VERSION);
    add("CI_SERVER_VERSION_MAJOR", &version[0]);
    add("CI_SERVER_VERSION_MINOR", &version[1]);
    add("CI_SERVER_VERSION_PATCH", &version[2]);
    add("CI_SERVER_REVISION", &"embedded");
    add("CI_API_V4_URL", &format!("{}/api/v4", shared.url));
    add("CI_API_GRAPHQL_URL", &format!("{}/api/graphql", shared.url));
    add("GITLAB_FEATURES", &"");

    add("CI_PIPELINE_IID", &(pipeline.id - shared.config.first_ids - super::FIRST_PIPELINE + 1));
    add("CI_PIPELINE_CREATED_AT", &rfc3339(Some(pipeline.created_at)));
    add("CI_COMMIT_SHA", &commit.sha);
    add("CI_COMMIT_SHORT_SHA", &&commit.sha[..8]);
    add("CI_COMMIT_BEFORE_SHA", &no_commit(&commit.sha));
    for (key, value) in pipeline.git_ref.variables() {
        add(key, &value);
    }
    add("CI_COMMIT_REF_SLUG", &slug(pipeline.git_ref.name()));
    if let Ref::MergeRequest { .. } = pipeline.git_ref {
        add("CI_MERGE_REQUEST_PROJECT_ID", &super::PROJECT_ID);
        add("CI_MERGE_REQUEST_PROJECT_PATH", &shared.config.project_path);
        add("CI_MERGE_REQUEST_PROJECT_URL", &shared.project_url());
        add("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", &super::PROJECT_ID);
        add("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH", &shared.config.project_path);
        add("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", &"");
    }
    if let Some(environment) = &definition.environment {
        add("CI_ENVIRONMENT_NAME", &environment.name);
        add("CI_ENVIRONMENT_ACTION", &environment.action);
        add("CI_ENVIRONMENT_TIER", &environment.tier.unwrap_or("other"));
        add("CI_ENVIRONMENT_URL", &environment.url.as_deref().unwrap_or_default());
    }
    add("CI_COMMIT_REF_PROTECTED", &state.is_protected(pipeline.id));
    add("CI_COMMIT_TIMESTAMP", &commit.timestamp);
    add("CI_COMMIT_AUTHOR", &commit.author);

    add("GITLAB_USER_ID", &1);
    add("GITLAB_USER_LOGIN", &"root");
    add("GITLAB_USER_NAME", &"Administrator");
    add("GITLAB_USER_EMAIL", &"admin@example.com");

    // What people wrote is not expanded, and secrets are not shown.
    let raw = |key: &str, value: &str| Entry { raw: true, ..Entry::public(key, value) };
    entries.push(raw("CI_COMMIT_MESSAGE", &commit.message));
    entries.push(raw("CI_COMMIT_TITLE", &commit.title));
    entries.push(raw("CI_COMMIT_DESCRIPTION", &commit.description));
    let secret = |key: &str, value: &str| Entry { public: false, masked: true, ..Entry::public(key, value) };
    entries.push(secret("CI_JOB_TOKEN", &job.token));
    entries.push(Entry { masked: false, ..secret("CI_REPOSITORY_URL", &payload::repository_url(shared, job)) });
    for token in &definition.id_tokens {
        entries.push(secret(&token.name, &id_token::sign(shared, state, pipeline, job, token)));
    }
}

pub(super) fn rfc3339(time: Option<SystemTime>) -> String {
    let time = time.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// At most 63 lower-case letters, digits and dashes, none at the ends.
fn slug(text: &str) -> String {
    let dashed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let slug: String = text.chars().map(dashed).take(63).collect();
    slug.trim_matches('-').to_owned()
}

/// At most 24. GitLab adds a sum to a name that does not fit, so that two names never share one.
fn environment_slug(name: &str) -> String {
    let slug = slug(name);
    slug[..slug.len().min(24)].trim_end_matches('-').to_owned()
}

/// GitLab's own pass before the runner's: references to other variables are replaced, also through several steps;
/// unknown names, files and raw variables stay as they are (protocol 3.6). A circle leaves everything as it is.
fn expand_all(entries: &mut [Entry]) {
    let last: HashMap<String, usize> =
        entries.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
    let expander = Expander { entries, last };
    let expanded: Option<Vec<String>> = (0..entries.len())
        .map(|index| {
            if expander.entries[index].raw {
                Some(expander.entries[index].value.clone())
            } else {
                expander.value(index, &mut BTreeSet::new())
            }
        })
        .collect();
    for (entry, value) in entries.iter_mut().zip(expanded.into_iter().flatten()) {
        entry.value = value;
    }
}

struct Expander<'e> {
    entries: &'e [Entry],
    /// The entry that counts for a name.
    last: HashMap<String, usize>,
}

impl Expander<'_> {
    /// `None`: a circle. `open` holds the entries on the way here.
    fn value(&self, index: usize, open: &mut BTreeSet<usize>) -> Option<String> {
        if !open.insert(index) {
            return None;
        }
        let mut value = String::new();
        let mut rest = self.entries[index].value.as_str();
        while let Some(at) = rest.find('$') {
            value.push_str(&rest[..at]);
            rest = &rest[at..];
            let (whole, name) = reference(rest);
            match self.last.get(name).filter(|_| !name.is_empty()) {
                Some(&of) if !self.entries[of].raw && !self.entries[of].file => value.push_str(&self.value(of, open)?),
                _ => value.push_str(&rest[..whole]),
            }
            rest = &rest[whole..];
        }
        value.push_str(rest);
        open.remove(&index);
        Some(value)
    }
}

/// The length and the name of the reference that `text` begins with: `$NAME` or `${NAME}`; no name for `$$` and the rest.
fn reference(text: &str) -> (usize, &str) {
    let word = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let after = &text[1..];
    if after.starts_with('$') {
        return (2, "");
    }
    match after.strip_prefix('{') {
        Some(inner) if inner[word(inner)..].starts_with('}') => (word(inner) + 3, &inner[..word(inner)]),
        Some(_) => (1, ""),
        None => (1 + word(after), &after[..word(after)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(entries: Vec<Entry>) -> Vec<String> {
        let mut entries = entries;
        expand_all(&mut entries);
        entries.into_iter().map(|entry| entry.value).collect()
    }

    #[test]
    fn references_are_replaced_through_several_steps_and_by_the_last_duplicate() {
        let values = expanded(vec![
            Entry::public("A", "a-$B-${C}"),
            Entry::public("B", "b-$C"),
            Entry::public("C", "first"),
            Entry::public("C", "last"),
        ]);
        assert_eq!(values, ["a-b-last-last", "b-last", "first", "last"]);
    }

    #[test]
    fn unknown_raw_and_file_references_and_double_dollars_stay() {
        let values = expanded(vec![
            Entry::public("A", "$NONE ${NONE} $$B $R $F ${ $ $"),
            Entry::public("B", "b"),
            Entry { raw: true, ..Entry::public("R", "$B") },
            Entry { file: true, ..Entry::public("F", "content") },
        ]);
        assert_eq!(values[0], "$NONE ${NONE} $$B $R $F ${ $ $");
        assert_eq!(values[2], "$B");
    }

    #[test]
    fn a_circle_leaves_everything_as_it_is() {
        let values = expanded(vec![Entry::public("A", "$B"), Entry::public("B", "$A"), Entry::public("C", "$D")]);
        assert_eq!(values, ["$B", "$A", "$D"]);
    }

    #[test]
    fn a_slug_can_stand_in_a_host_name() {
        assert_eq!(slug("Feature/Über_1."), "feature--ber-1");
        assert_eq!(slug(&"x".repeat(80)).len(), 63);
    }
}
