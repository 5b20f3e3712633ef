//! Whose the files beside `config.toml` are: `register` and `reset-token` are often called by root, and the manager that
//! reads what they leave runs as another user.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

/// Gives `new` to the owner of the file `like`, or of its folder while there is no such file.
pub fn give_to_owner_of(like: &Path, new: &File) {
    if let Ok(owner) = fs::metadata(like).or_else(|_| fs::metadata(folder(like))) {
        // Only root can give files away; whoever else may write here owns the new one.
        let _ = fchown(new, Some(owner.uid()), Some(owner.gid()));
    }
}

/// The folder that a file is in; of a bare name, where this process is.
pub fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn a_new_file_is_of_the_owner_of_the_configuration_or_else_of_the_folder() {
        if !nix::unistd::geteuid().is_root() {
            // Nobody else can give files away.
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        chown(directory.path(), Some(1234), Some(1235)).unwrap();
        let owner = || {
            let new = tempfile::tempfile_in(directory.path()).unwrap();
            give_to_owner_of(&config, &new);
            let of = new.metadata().unwrap();
            (of.uid(), of.gid())
        };
        assert_eq!(owner(), (1234, 1235));
        fs::write(&config, "").unwrap();
        chown(&config, Some(1236), Some(1237)).unwrap();
        assert_eq!(owner(), (1236, 1237));
    }
}
