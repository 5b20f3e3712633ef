//! Repositories, made by git itself.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A bare repository `<parent>/grp/<name>.git` that grows by commits.
pub struct Repository {
    pub bare: PathBuf,
    work: tempfile::TempDir,
}

impl Repository {
    pub fn create(parent: &Path, name: &str) -> Self {
        Self::with_format(parent, name, "sha1")
    }

    /// `sha1` or `sha256`.
    pub fn with_format(parent: &Path, name: &str, format: &str) -> Self {
        let format = format!("--object-format={format}");
        let bare = parent.join(format!("grp/{name}.git"));
        std::fs::create_dir_all(&bare).expect("a directory");
        git(&bare, &["init", "-q", "--bare", "-b", "main", &format]);
        // As GitLab: a runner may ask for any commit.
        git(&bare, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        let work = tempfile::tempdir().expect("a directory");
        git(work.path(), &["init", "-q", "-b", "main", &format]);
        git(work.path(), &["remote", "add", "origin", bare.to_str().expect("UTF-8")]);
        Self { bare, work }
    }

    /// Commits the file and returns the commit.
    pub fn commit(&self, file: &str, content: &str) -> String {
        std::fs::write(self.work.path().join(file), content).expect("a file");
        self.commit_all(file)
    }

    pub fn commit_all(&self, message: &str) -> String {
        git(self.work.path(), &["add", "-A"]);
        git(self.work.path(), &["commit", "-q", "-m", message]);
        git(self.work.path(), &["push", "-q", "origin", "main"]);
        git(self.work.path(), &["rev-parse", "HEAD"])
    }

    pub fn path(&self) -> &Path {
        self.work.path()
    }

    /// Adds a submodule whose commits are in `library`, under the URL that jobs are to use.
    pub fn submodule(&self, path: &str, library: &Self, url: &str) {
        let there = library.bare.to_str().expect("UTF-8");
        self.git(&["submodule", "--quiet", "add", there, path]);
        self.git(&["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), url]);
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git(self.work.path(), arguments)
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always"]);
    command
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().expect("git");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
