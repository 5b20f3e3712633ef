//! `.gitlab-ci.yml`: from files to the jobs of one pipeline.
//!
//! The road: [`yaml`] reads one file into nodes that remember their lines; [`load`](mod@load) joins the included
//! files, inherits (`extends`) and puts references in place; [`job`] reads the keywords of each job; [`plan`]
//! decides which jobs run (`rules`), splits the parallel ones and checks what they ask of each other.
//!
//! Nobody gets half an answer: either a pipeline, or every mistake that was found, each with its file and line.
//! A keyword of GitLab's that this server does not act on is a mistake too, so that a pipeline that passes here
//! does not pass because a part of it was ignored.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

mod cache;
mod deployment;
mod duration;
mod expression;
mod inputs;
mod job;
mod keyword;
mod load;
mod mistakes;
mod plan;
mod read;
mod rules;
mod secrets;
mod values;
mod yaml;

pub use mistakes::Mistake;

/// What a pipeline knows before any job of it runs.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Predefined variables that `rules:if` may ask about; the file's own variables win over them.
    pub variables: BTreeMap<String, String>,
}

/// The jobs of one pipeline, in the order of the file; parallel jobs stand one by one.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The names of the pipeline stages in order, from `.pre` to `.post`, used or not.
    pub stages: Vec<String>,
    pub jobs: Vec<Job>,
}

/// One job that is part of the pipeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    /// Unique in the pipeline: `build`, `build 2/3` or `build: [aws, web]`.
    pub name: String,
    /// One of [`Pipeline::stages`].
    pub stage: String,
    pub tags: Vec<String>,
    pub before_script: Vec<String>,
    /// Empty only in a job that has `run`.
    pub script: Vec<String>,
    pub after_script: Vec<String>,
    /// The file's variables and the job's own, each key once. Not expanded.
    pub variables: Vec<Variable>,
    pub artifacts: Option<Artifacts>,
    /// The jobs whose artifacts are wanted; `None` means those of all earlier stages.
    pub dependencies: Option<Vec<String>>,
    /// The jobs to wait for; `None` means all jobs of the earlier stages. Names jobs of this pipeline only.
    pub needs: Option<Vec<Need>>,
    pub when: When,
    pub allow_failure: AllowFailure,
    pub retry: Retry,
    pub timeout: Option<Duration>,
    pub image: Option<Image>,
    pub services: Vec<Service>,
    pub caches: Vec<Cache>,
    /// `hooks:pre_get_sources_script`.
    pub pre_get_sources: Vec<String>,
    pub id_tokens: Vec<IdToken>,
    pub secrets: Vec<Secret>,
    pub inputs: Vec<Input>,
    /// The list of GitLab's steps that stands in the place of a script, as it is written.
    pub run: Option<serde_json::Value>,
    pub release: Option<Release>,
    pub environment: Option<Environment>,
    /// Of the jobs with this name, only one runs at a time.
    pub resource_group: Option<String>,
    /// Which of a job's parallel copies this is: (from 1, of so many).
    pub node: Option<(u32, u32)>,
    /// Where the job's name stands in its file, from 1.
    pub line: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub key: String,
    pub value: String,
    /// `expand: false`: references to other variables in the value stay as they are.
    pub raw: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Artifacts {
    pub name: Option<String>,
    pub paths: Vec<String>,
    pub exclude: Vec<String>,
    pub untracked: bool,
    pub when: SaveWhen,
    /// As written, for example `7d`; it can be read by GitLab.
    pub expire_in: Option<String>,
    /// Kind of report and the paths of its files.
    pub reports: Vec<(String, Vec<String>)>,
}

/// After which ends of a script something is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SaveWhen {
    #[default]
    OnSuccess,
    OnFailure,
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub job: String,
    /// Whether the job's artifacts are wanted too.
    pub artifacts: bool,
    /// The need holds only if the job is in the pipeline; by then it has been settled.
    pub optional: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    OnSuccess,
    OnFailure,
    Always,
    Manual,
    /// Only inside `rules`: a job that never runs is not in the pipeline.
    Never,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AllowFailure {
    #[default]
    No,
    Yes,
    /// Only a script that ends with one of these may fail.
    ExitCodes(Vec<i32>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// 0, 1 or 2.
    pub max: u32,
    /// GitLab's words, for example `runner_system_failure`; empty together with `exit_codes` means any failure.
    pub when: Vec<String>,
    pub exit_codes: Vec<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub name: String,
    pub entrypoint: Vec<String>,
    /// GitLab's words, in the order of preference.
    pub pull_policy: Vec<String>,
    /// `docker` and `kubernetes`, as they are written.
    pub executor_opts: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub alias: Option<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub variables: Vec<Variable>,
    /// As of an image.
    pub pull_policy: Vec<String>,
    pub executor_opts: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    pub key: CacheKey,
    pub paths: Vec<String>,
    pub untracked: bool,
    /// Jobs of protected branches share this cache with the others.
    pub unprotect: bool,
    /// `pull-push`, `pull`, `push`, or variables.
    pub policy: String,
    pub when: SaveWhen,
    pub fallback_keys: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheKey {
    Text(String),
    /// The server makes the key of what these files are in the pipeline's commit.
    Files {
        by: KeyFiles,
        files: Vec<String>,
        prefix: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFiles {
    Content,
    /// The commits that changed them last.
    Commits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdToken {
    /// Of the variable that holds it.
    pub name: String,
    /// Never empty.
    pub audiences: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Of the variable that holds it.
    pub name: String,
    /// The key in the payload, such as `vault`.
    pub provider: &'static str,
    /// What is asked of the provider, in the payload's shape (protocol 3.14) but for its `server`.
    pub asked: serde_json::Value,
    pub file: Option<bool>,
    /// The variable with the ID token, such as `$VAULT_TOKEN`.
    pub token: Option<String>,
}

/// A typed value for the job's keywords; nobody overrides it here, so it is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub key: String,
    /// GitLab's word: `string`, `number`, `boolean` or `array`.
    pub kind: &'static str,
    pub value: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub tag_name: String,
    pub description: String,
    pub name: Option<String>,
    pub tag_message: Option<String>,
    pub git_ref: Option<String>,
    pub released_at: Option<String>,
    pub milestones: Vec<String>,
    /// `assets:links`.
    pub links: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// May have variables in it.
    pub name: String,
    pub url: Option<String>,
    /// `start` unless it says so.
    pub action: &'static str,
    pub tier: Option<&'static str>,
}

/// Reads `file` (inside `root`) and all that it includes.
///
/// The mistakes are sorted by file, in the order in which the files were read, and then by line.
pub fn load(root: &Path, file: &Path, context: &Context) -> Result<Pipeline, Vec<Mistake>> {
    let mut mistakes = mistakes::Mistakes::default();
    let pipeline = load::read(root, file, &mut mistakes)
        .and_then(|config| job::read_all(&config, &mut mistakes))
        .and_then(|config| plan::plan(config, context, &mut mistakes));
    match pipeline {
        Some(pipeline) if mistakes.is_empty() => Ok(pipeline),
        _ => Err(mistakes.into_sorted()),
    }
}

impl Retry {
    /// Whether a job that has been retried `retried` times is to run again, after it failed for `reason` (GitLab's
    /// word) with its script's `exit_code`.
    pub fn again(&self, retried: u32, reason: &str, exit_code: i32) -> bool {
        let any = self.when.is_empty() && self.exit_codes.is_empty();
        let named = self.when.iter().any(|word| word == "always" || word == reason);
        retried < self.max && (any || named || (exit_code != 0 && self.exit_codes.contains(&exit_code)))
    }
}

#[cfg(test)]
mod tests;
