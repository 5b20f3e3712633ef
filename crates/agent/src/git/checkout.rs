//! The files of a commit.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gix_index::State;
use gix_object::FindExt;
use gix_object::bstr::ByteSlice;
use gix_utils::progress::Discard;
use gix_worktree::stack::state::Attributes;
use gix_worktree::stack::state::attributes::Source;

use super::store::{Repository, hash_kind};
use super::{GitError, Sources, blocking, broken};

/// What a checkout left to do for those who have the programs for it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CheckedOut {
    /// Some `.gitattributes` names Git LFS: files are pointers.
    pub has_lfs: bool,
}

/// Puts the files of the commit into the project, and HEAD on it. What is there already and not in the commit stays.
pub async fn checkout(sources: &Sources, commit: &str) -> Result<CheckedOut, GitError> {
    let repository = Repository { git: sources.project.join(".git"), hash: hash_kind(&sources.object_format)? };
    let (project, commit) = (sources.project.clone(), commit.to_owned());
    blocking(move |abandoned| write_files(&repository, &project, &commit, abandoned)).await
}

fn write_files(
    repository: &Repository,
    project: &Path,
    commit: &str,
    abandoned: &AtomicBool,
) -> Result<CheckedOut, GitError> {
    let objects = repository.objects()?;
    let id = gix_hash::ObjectId::from_hex(commit.as_bytes()).map_err(|_| GitError::NoSuchCommit(commit.to_owned()))?;
    let mut buffer = Vec::new();
    let tree = match objects.find_commit(&id, &mut buffer) {
        Ok(commit) => commit.tree(),
        Err(_) => return Err(GitError::NoSuchCommit(commit.to_owned())),
    };
    // What git itself would refuse on Linux, too: `..`, `.git` in any disguise.
    let names = gix_worktree::validate::path::component::Options {
        protect_windows: false,
        protect_hfs: false,
        protect_ntfs: true,
    };
    let state = State::from_tree(&tree, &objects, names).map_err(broken("the tree of the commit cannot be used"))?;
    one_thing_in_one_place(&state)?;
    let has_lfs = names_lfs(&state, &objects)?;

    let mut attributes = gix_worktree::attributes::search::MetadataCollection::default();
    let built_in =
        gix_worktree::attributes::Search::new_globals(std::iter::empty::<&Path>(), &mut buffer, &mut attributes)?;
    let filters = gix_filter::Pipeline::new(Default::default(), repository.hash, Default::default());
    let mut index = gix_index::File::from_state(state, repository.file("index"));
    let outcome = gix_worktree_state::checkout(
        &mut index,
        project,
        objects,
        &Discard,
        &Discard,
        abandoned,
        gix_worktree_state::checkout::Options {
            validate: names,
            overwrite_existing: true,
            attributes: Attributes::new(built_in, None, Source::IdMapping, attributes),
            ..gix_worktree_state::checkout::Options::new(filters)
        },
    );
    let outcome = outcome.map_err(broken("the files cannot be checked out"))?;
    if abandoned.load(Ordering::Relaxed) {
        return Err(GitError::Broken("the checkout was interrupted".into()));
    }
    if let Some(collision) = outcome.collisions.first() {
        return Err(GitError::Broken(format!("{} is in the way of a file", collision.path)));
    }
    index.write(Default::default()).map_err(broken("the index cannot be written"))?;
    fs::write(repository.file("HEAD"), format!("{commit}\n"))?;
    Ok(CheckedOut { has_lfs })
}

/// A tree made by hand can have a file, or a link, where other files have their directory: nobody may follow it.
fn one_thing_in_one_place(state: &State) -> Result<(), GitError> {
    let files: HashSet<_> = state.entries().iter().map(|entry| entry.path(state)).collect();
    if files.len() != state.entries().len() {
        return Err(GitError::Broken("the tree of the commit has two files of one name".into()));
    }
    for entry in state.entries() {
        let path = entry.path(state);
        let above = path.find_iter(b"/").map(|at| path[..at].as_bstr());
        if let Some(file) = above.into_iter().find(|directory| files.contains(directory)) {
            return Err(GitError::Broken(format!("the tree of the commit has {file} as a file and as a directory")));
        }
    }
    Ok(())
}

fn names_lfs(state: &State, objects: &gix_odb::HandleArc) -> Result<bool, GitError> {
    let mut buffer = Vec::new();
    for entry in state.entries() {
        let path = entry.path(state);
        if path == ".gitattributes" || path.ends_with(b"/.gitattributes") {
            let blob = objects.find_blob(&entry.id, &mut buffer).map_err(broken("a .gitattributes cannot be read"))?;
            if blob.data.contains_str("filter=lfs") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
