//! What earlier jobs left in the project directory, where one outlives its job (protocol 7.3.8).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walkdir::WalkDir;

use crate::workspace::remove_if_present;

/// What killed processes of git leave behind; the next one would wait for them in vain.
const LOCKS: [&str; 4] = ["index.lock", "shallow.lock", "HEAD.lock", "config.lock"];

/// Removes from `.git` what could disturb the next git in it, or act in its name; `settings_too`: also its settings and hooks.
pub fn remove(git: &Path, settings_too: bool) -> io::Result<()> {
    // A link would lead us to somebody else's files.
    match fs::symlink_metadata(git) {
        Err(_) => return Ok(()),
        Ok(found) if !found.is_dir() => return fs::remove_file(git),
        Ok(_) => {}
    }
    let modules = git.join("modules");
    let mut hooks = Vec::new();
    for entry in WalkDir::new(git).into_iter().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy());
        let relative = path.strip_prefix(git).unwrap_or(path);
        let of_a_repository = path.parent() == Some(git) || path.starts_with(&modules);
        if entry.file_type().is_dir() {
            if settings_too && of_a_repository && name == "hooks" {
                hooks.push(path.to_owned());
            }
            continue;
        }
        let in_refs = relative.components().any(|part| part.as_os_str() == "refs");
        let is_lock = LOCKS.contains(&&*name) || (in_refs && name.ends_with(".lock"));
        let is_setting = settings_too && of_a_repository && name == "config";
        if is_lock || is_setting || relative.ends_with("hooks/post-checkout") {
            remove_if_present(path)?;
        }
    }
    hooks.iter().try_for_each(|hooks| remove_tree(hooks))
}

pub fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Without root, what is in a read-only directory cannot be removed before it is made writable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            for entry in WalkDir::new(directory).into_iter().flatten().filter(|entry| entry.file_type().is_dir()) {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
            }
            fs::remove_dir_all(directory)
        }
        // A file or a link in its place.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(directory),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_of(files: &[&str], settings_too: bool) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let git = dir.path().join(".git");
        for file in files {
            let path = git.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).and_then(|()| fs::write(path, "")).expect("a file");
        }
        remove(&git, settings_too).expect("cleaned");
        let files = WalkDir::new(&git).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file());
        files.map(|entry| entry.path().strip_prefix(&git).expect("below").display().to_string()).collect()
    }

    const FILES: [&str; 10] = [
        "config",
        "hooks/post-checkout",
        "hooks/pre-push",
        "index.lock",
        "logs/refs/heads/config",
        "modules/m/config",
        "modules/m/hooks/update",
        "modules/m/index.lock",
        "objects/x.lock",
        "refs/heads/a.lock",
    ];

    #[test]
    fn what_an_earlier_job_left_in_git_does_not_act_on_the_next() {
        assert_eq!(left_of(&FILES, true), ["logs/refs/heads/config", "objects/x.lock"]);
    }

    #[test]
    fn settings_may_be_kept_but_locks_never() {
        let left = ["config", "hooks/pre-push", "logs/refs/heads/config", "modules/m/config", "modules/m/hooks/update"];
        assert_eq!(left_of(&FILES, false)[..5], left);
    }

    #[test]
    fn a_link_in_the_place_of_git_is_removed_and_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (theirs, git) = (dir.path().join("theirs"), dir.path().join(".git"));
        fs::create_dir(&theirs).and_then(|()| fs::write(theirs.join("config"), "")).expect("a file");
        std::os::unix::fs::symlink(&theirs, &git).expect("a link");
        remove(&git, true).expect("cleaned");
        assert!(theirs.join("config").exists() && fs::symlink_metadata(&git).is_err());
        std::os::unix::fs::symlink(&theirs, &git).expect("a link");
        remove_tree(&git).expect("removed");
        assert!(theirs.join("config").exists() && fs::symlink_metadata(&git).is_err());
    }
}
