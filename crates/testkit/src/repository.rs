//! A Git repository with one commit, made of what a test writes down.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// Commits these files; a `#!` makes one executable.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let repository = Self::empty("sha1");
        for (name, text) in files {
            repository.write(name, text.as_bytes());
            if text.starts_with("#!") {
                repository.make_executable(name);
            }
        }
        repository.commit("A commit of the tests");
        repository
    }

    /// Without any commit; `object_format` is `sha1` or `sha256`.
    pub fn empty(object_format: &str) -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        repository.git(&["init", "-q", "-b", "main", &format!("--object-format={object_format}")]);
        repository
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.place(name), bytes).expect("a file");
    }

    pub fn make_executable(&self, name: &str) {
        std::fs::set_permissions(self.place(name), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// A symbolic link.
    pub fn link(&self, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.place(name)).expect("a link");
    }

    /// The newest commit of another repository at this path; `.gitmodules` is written like any other file.
    pub fn submodule(&self, path: &str, of: &Self) {
        // With no folder in its place it would be deleted again by the next commit.
        std::fs::create_dir_all(self.place(path)).expect("a folder");
        let entry = format!("160000,{},{path}", of.git(&["rev-parse", "HEAD"]));
        self.git(&["update-index", "--add", "--cacheinfo", &entry]);
    }

    /// Commits everything that was written.
    pub fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    /// The path of a file whose folder is there.
    fn place(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        path
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.path())
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
            .args(arguments)
            .output()
            .expect("git");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }
}
