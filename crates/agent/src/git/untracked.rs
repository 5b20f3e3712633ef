//! What `git ls-files --others` would list: all files that the index does not have, ignored ones too (protocol 5.2).

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gix_index::decode::Options;
use walkdir::WalkDir;

use super::{GitError, store};

/// The files are relative to `project`. A repository within this one is no file of it.
pub fn untracked(project: &Path, object_format: &str) -> Result<Vec<PathBuf>, GitError> {
    let hash = store::hash_kind(object_format)?;
    let file = project.join(".git/index");
    let index = gix_index::File::at(file, hash, true, Options::default());
    let index = index.map_err(|error| GitError::Broken(format!("the index cannot be read: {error}")))?;
    let tracked: HashSet<&[u8]> = index.entries().iter().map(|entry| entry.path(&index).as_ref()).collect();
    let own = |entry: &walkdir::DirEntry| {
        let nested = entry.depth() > 0 && entry.file_type().is_dir() && entry.path().join(".git").exists();
        entry.file_name() != ".git" && !nested
    };
    let files =
        WalkDir::new(project).into_iter().filter_entry(own).flatten().filter(|entry| !entry.file_type().is_dir());
    let relative = files.filter_map(|entry| Some(entry.path().strip_prefix(project).ok()?.to_owned()));
    Ok(relative.filter(|path| !tracked.contains(path.as_os_str().as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_same_files_as_git_lists() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "git init -q . && echo ignored > .gitignore && mkdir -p a/b nested && touch a/known a/new a/b/ignored ignored && \
                      ln -s a link && git -C nested init -q && touch nested/file \"$(printf 'caf\\351')\" && git add .gitignore a/known";
        let made = Command::new("sh").args(["-ec", script]).current_dir(dir.path()).status().expect("git");
        assert!(made.success());
        let mut ours = untracked(dir.path(), "sha1").expect("an index");
        ours.sort();
        let output = Command::new("git").args(["ls-files", "-o", "-z"]).current_dir(dir.path()).output().expect("git");
        let list = output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty() && !path.ends_with(b"/"));
        let mut theirs: Vec<PathBuf> =
            list.map(|path| Path::new(std::ffi::OsStr::from_bytes(path)).to_owned()).collect();
        theirs.sort();
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 5, "{ours:?}");
    }

    #[test]
    fn without_a_repository_nothing_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(untracked(dir.path(), "sha1").is_err());
    }
}
