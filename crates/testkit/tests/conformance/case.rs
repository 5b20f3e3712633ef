//! A case as it is written down: README.md tells the format.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The cases of one file, which is one area.
pub struct Area {
    pub name: String,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is so, in snake case.
    pub name: String,
    /// Of the protocol's notes; several with commas.
    pub section: String,
    #[serde(default)]
    pub needs: Vec<Need>,
    /// The version of GitLab's runner that does so first.
    #[serde(default)]
    pub since: Option<String>,
    /// Why GitLab's own runner does otherwise, where that is on purpose: the case is ours only.
    #[serde(default)]
    pub differs: Option<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, Variable>,
    /// Secrets of a Vault of the case's own, by path: see README.md.
    #[serde(default)]
    pub vault: BTreeMap<String, Value>,
    /// A store of caches of the case's own.
    #[serde(default)]
    pub store: Option<Store>,
    #[serde(default)]
    pub files: BTreeMap<String, File>,
    /// Commits before the one of the pipeline.
    #[serde(default)]
    pub earlier_commits: u32,
    /// By its path, the project whose newest commit is there.
    #[serde(default)]
    pub submodules: BTreeMap<String, String>,
    /// Other projects of the same GitLab, by their paths.
    #[serde(default)]
    pub projects: BTreeMap<String, Project>,
    #[serde(default, rename = "ref")]
    pub git_ref: GitRef,
    /// `sha1` or `sha256`.
    #[serde(default)]
    pub object_format: Option<String>,
    #[serde(default)]
    pub config: Config,
    pub pipeline: String,
    /// Fields of every job's payload that are put in the place of those of the embedded GitLab.
    #[serde(default)]
    pub payload: Map<String, Value>,
    #[serde(default)]
    pub faults: Vec<Fault>,
    #[serde(default)]
    pub cancel: Option<Cancel>,
    /// By the job's name: its newest attempt.
    #[serde(default)]
    pub expect: BTreeMap<String, Job>,
    #[serde(default)]
    pub requests: Vec<Request>,
}

/// By the names of the objects below the project's folder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    #[serde(default)]
    pub before: BTreeMap<String, Stored>,
    /// Exactly these archives, with exactly these entries.
    #[serde(default)]
    pub after: Option<BTreeMap<String, BTreeMap<String, Entry>>>,
    /// Lines for `[runners.cache]`.
    #[serde(default)]
    pub config: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Stored {
    /// A zip of these files.
    Archive(BTreeMap<String, String>),
    /// No archive.
    Text(String),
}

/// What must be there, or the case is skipped.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Tasks with namespaces of their own.
    Root,
    GitLfs,
    /// A container of its own for each job.
    Container,
    /// A runner without a store of caches.
    NoStore,
    /// What only this project's runner has.
    Ours,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Variable {
    Value(String),
    Full(FullVariable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullVariable {
    pub value: String,
    #[serde(default)]
    pub masked: bool,
    #[serde(default)]
    pub file: bool,
    #[serde(default)]
    pub raw: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum File {
    Text(String),
    Full(FullFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullFile {
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub executable: bool,
    /// A symbolic link to this.
    #[serde(default)]
    pub link: Option<String>,
}

/// What the pipeline runs for.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitRef {
    Branch(String),
    /// An annotated one.
    Tag(String),
    /// Its number; from `topic` to `main`.
    MergeRequest(u64),
}

impl Default for GitRef {
    fn default() -> Self {
        Self::Branch("main".to_owned())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    #[serde(default)]
    pub files: BTreeMap<String, File>,
    #[serde(default)]
    pub submodules: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Lines for the head of config.toml.
    #[serde(default)]
    pub global: String,
    /// Lines for the `[[runners]]` entry.
    #[serde(default)]
    pub runner: String,
}

impl Config {
    pub fn is_empty(&self) -> bool {
        self.global.is_empty() && self.runner.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub at: Endpoint,
    pub fault: FaultKind,
    /// Requests that pass first.
    #[serde(default)]
    pub skip: u32,
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    JobUpdate,
    FinalUpdate,
    Trace,
    ArtifactUpload,
    ArtifactDownload,
    ObjectStorage,
    Git,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    Dropped,
    AnswerLost,
    Status(u16),
    RetryAfterSeconds(u64),
    SlowMs(u64),
    Html,
    StillArchiving,
    TraceLostAfter(u64),
    TraceAhead,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    pub job: String,
    /// As soon as the log has this whole line.
    pub at_line: String,
    /// Without waiting for the runner.
    #[serde(default)]
    pub force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// GitLab's word.
    pub state: String,
    #[serde(default)]
    pub exit_code: Option<i32>,
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// A failure does not fail the pipeline.
    #[serde(default)]
    pub allowed_to_fail: Option<bool>,
    /// How many jobs of this name there were.
    #[serde(default)]
    pub attempts: Option<usize>,
    /// The log as a person reads it.
    #[serde(default)]
    pub trace: Text,
    /// Parts of the same, by the names of their sections.
    #[serde(default)]
    pub section: BTreeMap<String, Text>,
    /// The names of all sections in the order in which they begin.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
    /// The log's bytes as GitLab stores them; what is not UTF-8 is U+FFFD.
    #[serde(default)]
    pub raw_trace: Text,
    #[serde(default)]
    pub trace_bytes_at_most: Option<u64>,
    #[serde(default)]
    pub trace_bytes_at_least: Option<u64>,
    #[serde(default)]
    pub artifacts: Option<Vec<Artifact>>,
}

/// What is asked of a text.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Each of these is a whole line.
    #[serde(default)]
    pub lines: Vec<String>,
    /// None of these is a whole line.
    #[serde(default)]
    pub no_lines: Vec<String>,
    #[serde(default)]
    pub has: Vec<String>,
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Each after the end of the one before.
    #[serde(default)]
    pub order: Vec<String>,
    /// Regular expressions; `^` and `$` are the ends of a line.
    #[serde(default)]
    pub matches: Vec<String>,
    /// None of these matches anywhere.
    #[serde(default)]
    pub no_matches: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// `archive`, `junit`, …
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub format: Option<String>,
    #[serde(default)]
    pub filename: Option<String>,
    #[serde(default)]
    pub expire_in: Option<String>,
    /// All entries of a zip, folders with a slash at the end; of gzip: `name: content` of its one or several members.
    #[serde(default)]
    pub entries: Option<BTreeMap<String, Entry>>,
    /// Of a raw file.
    #[serde(default)]
    pub content: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Entry {
    Text(String),
    Full(FullEntry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullEntry {
    #[serde(default)]
    pub text: Option<String>,
    /// Octal, of the last three digits: `"755"`.
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub link: Option<String>,
    /// Bytes.
    #[serde(default)]
    pub size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    pub method: Option<String>,
    /// A regular expression for the whole path.
    pub path: String,
    #[serde(default)]
    pub status: Option<u16>,
    /// The headers with credentials that each of them has, and no others: `job-token`, `authorization`, …
    #[serde(default)]
    pub credentials: Option<Vec<String>>,
    /// How many; without it, at least one.
    #[serde(default)]
    pub count: Option<usize>,
}

/// Reads all areas in the order of their names. The error names the file and the place in it.
pub fn load(folder: &Path) -> Result<Vec<Area>, String> {
    let listing = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut areas = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let wrong = |message: String| format!("{}: {message}", file.display());
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(error.to_string()))?;
        let cases: Vec<Case> = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(wrong(format!("two cases are named {}", twice[0])));
        }
        for case in &cases {
            case.check().map_err(|message| wrong(format!("{}: {message}", case.name)))?;
        }
        areas.push(Area { name, cases });
    }
    Ok(areas)
}

impl Case {
    fn check(&self) -> Result<(), String> {
        let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.name.is_empty() || !self.name.chars().all(snake) {
            return Err("a name is in snake_case".into());
        }
        if !self.section.split(", ").all(|section| section.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(format!("{:?} is no section of the protocol, like `7.4` or `5.1, 5.2`", self.section));
        }
        if self.expect.is_empty() {
            return Err("nothing is expected of any job".into());
        }
        Ok(())
    }
}
