//! What a pipeline runs for: a branch, a tag or a merge request; and how the payload and the variables name it.

use std::collections::BTreeMap;

/// What a pipeline runs for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ref {
    Branch(String),
    Tag(String),
    /// A merge request of this project, before the merge: its pipeline runs on the source branch's commit.
    MergeRequest {
        iid: u64,
        source: String,
        target: String,
    },
}

impl Ref {
    pub fn branch(name: impl Into<String>) -> Self {
        Self::Branch(name.into())
    }

    /// As people say it: the name of the branch or the tag; of a merge request, its source branch.
    pub fn name(&self) -> &str {
        match self {
            Self::Branch(name) | Self::Tag(name) | Self::MergeRequest { source: name, .. } => name,
        }
    }

    /// As Git says it, in full.
    pub fn full(&self) -> String {
        match self {
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tag(name) => format!("refs/tags/{name}"),
            Self::MergeRequest { iid, .. } => format!("refs/merge-requests/{iid}/head"),
        }
    }

    /// `git_info.ref`: short for branches and tags.
    pub(super) fn in_payload(&self) -> String {
        match self {
            Self::Branch(name) | Self::Tag(name) => name.clone(),
            Self::MergeRequest { .. } => self.full(),
        }
    }

    /// `git_info.ref_type`; a merge request's is `branch` too [S].
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Branch(_) | Self::MergeRequest { .. } => "branch",
            Self::Tag(_) => "tag",
        }
    }

    /// With a depth only what the job needs, without one everything. A merge request's commit comes by the pipeline's own
    /// ref [S].
    pub(super) fn refspecs(&self, pipeline: u64, depth: u32) -> Vec<String> {
        let mut refspecs = vec![format!("+refs/pipelines/{pipeline}:refs/pipelines/{pipeline}")];
        match self {
            _ if depth == 0 => {
                refspecs.push("+refs/heads/*:refs/remotes/origin/*".into());
                refspecs.push("+refs/tags/*:refs/tags/*".into());
            }
            Self::Branch(name) => refspecs.push(format!("+refs/heads/{name}:refs/remotes/origin/{name}")),
            Self::Tag(name) => refspecs.push(format!("+refs/tags/{name}:refs/tags/{name}")),
            Self::MergeRequest { .. } => {}
        }
        refspecs
    }

    /// The variables that tell of it, which `rules` may ask about too.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![("CI_COMMIT_REF_NAME", self.name().to_owned())];
        match self {
            Self::Branch(name) => {
                variables.push(("CI_PIPELINE_SOURCE", "push".into()));
                variables.push(("CI_COMMIT_BRANCH", name.clone()));
            }
            Self::Tag(name) => {
                variables.push(("CI_PIPELINE_SOURCE", "push".into()));
                variables.push(("CI_COMMIT_TAG", name.clone()));
            }
            Self::MergeRequest { iid, source, target } => {
                variables.push(("CI_PIPELINE_SOURCE", "merge_request_event".into()));
                variables.push(("CI_MERGE_REQUEST_ID", iid.to_string()));
                variables.push(("CI_MERGE_REQUEST_IID", iid.to_string()));
                variables.push(("CI_MERGE_REQUEST_REF_PATH", self.full()));
                variables.push(("CI_MERGE_REQUEST_EVENT_TYPE", "detached".into()));
                variables.push(("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", source.clone()));
                variables.push(("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", target.clone()));
            }
        }
        variables
    }

    /// What the `rules` of a pipeline for this can ask about.
    pub fn context(&self) -> super::ci::Context {
        let mut variables: BTreeMap<String, String> =
            [("CI", "true"), ("GITLAB_CI", "true"), ("CI_DEFAULT_BRANCH", super::DEFAULT_BRANCH)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        variables.extend(self.variables().into_iter().map(|(key, value)| (key.to_owned(), value)));
        super::ci::Context { variables }
    }
}
