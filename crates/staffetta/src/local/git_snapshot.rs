//! A folder's present content as one commit of a repository of its own. The user's repository is only read.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use embedded::gitlab::ci::Pipeline;
use embedded::gitlab::{PipelineSource, Ref};
use tempfile::TempDir;

/// The branch when the folder has none.
const BRANCH: &str = "main";

/// The repository is removed when this is dropped.
pub struct Snapshot {
    repository: TempDir,
    commit: String,
    branch: String,
}

impl Snapshot {
    /// What a pipeline of this commit is made from; good for as long as the snapshot lives.
    pub fn source(&self, pipeline: Pipeline) -> PipelineSource {
        PipelineSource {
            repo: self.repository.path().to_owned(),
            commit: self.commit.clone(),
            git_ref: Ref::branch(&self.branch),
            pipeline,
            variables: Vec::new(),
        }
    }
}

/// Makes one commit of what `folder` holds now: files that git tracks, and those that it does not ignore. The folder
/// may be a repository, a part of one, or none; its own root becomes the root of the commit.
pub fn commit_of(folder: &Path) -> anyhow::Result<Snapshot> {
    let folder = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
    let repository = tempfile::tempdir().context("cannot make a temporary folder")?;
    let ours = Git::Ours { repository: repository.path(), folder: &folder };
    // Git makes no bare repository while a work tree is named, and one that is not bare would remember the folder.
    let bare = Git::Theirs { folder: repository.path() };
    bare.run(&["init", "--quiet", "--bare", "--template=", "--object-format=sha1"], b"")?;
    let files = files(&folder, &ours)?;
    ensure!(!files.is_empty(), "{} has no files that git would keep", folder.display());
    ours.run(&["update-index", "--add", "--remove", "-z", "--stdin"], &files)?;
    let tree = ours.line(&["write-tree"])?;
    let commit = ours.line(&["commit-tree", "-m", "The folder as it is", &tree])?;
    let branch = branch_of(&folder);
    ours.run(&["update-ref", &format!("refs/heads/{branch}"), &commit], b"")?;
    ours.run(&["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")], b"")?;
    Ok(Snapshot { repository, commit, branch })
}

/// The branch that the folder is on.
pub fn branch_of(folder: &Path) -> String {
    let branch = Git::Theirs { folder }.line(&["symbolic-ref", "--short", "--quiet", "HEAD"]);
    branch.unwrap_or_else(|_| BRANCH.to_owned())
}

/// The paths to commit, each ended by a zero byte.
fn files(folder: &Path, ours: &Git) -> anyhow::Result<Vec<u8>> {
    const LIST: [&str; 5] = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let theirs = Git::Theirs { folder };
    let mut list = Vec::new();
    if theirs.run(&["rev-parse", "--is-inside-work-tree"], b"").is_ok() {
        list = theirs.run(&LIST, b"")?;
    }
    // No repository, or one that ignores the whole folder.
    if list.is_empty() {
        list = ours.run(&LIST, b"")?;
    }
    let paths = list.split_inclusive(|byte| *byte == 0).filter(|path| can_be_added(folder, path));
    Ok(paths.collect::<Vec<_>>().concat())
}

/// A repository inside of the folder is listed with a slash behind it, and its content is not this one's. A submodule
/// that was not fetched is an empty folder.
fn can_be_added(folder: &Path, path: &[u8]) -> bool {
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    let on_disk = folder.join(OsStr::from_bytes(path));
    !path.ends_with(b"/") && (!on_disk.is_dir() || on_disk.is_symlink() || on_disk.join(".git").exists())
}

enum Git<'a> {
    /// The new repository, with `folder` as its work tree.
    Ours { repository: &'a Path, folder: &'a Path },
    /// Whatever git finds from `folder` upwards, with the user's configuration: only to be read.
    Theirs { folder: &'a Path },
}

impl Git<'_> {
    fn command(&self) -> Command {
        let mut git = Command::new("git");
        // Started from a git hook, we would have that repository's variables.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_")) {
            git.env_remove(name);
        }
        git.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0");
        // Somebody else may own the folder; nothing of its configuration is to run.
        git.args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
        match self {
            Self::Ours { repository, folder } => {
                // Filters and line ends as the user's configuration has them are not in a job's clone either.
                git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
                git.env("GIT_DIR", repository)
                    .env("GIT_WORK_TREE", folder)
                    .env("GIT_INDEX_FILE", repository.join("index"));
                for role in ["AUTHOR", "COMMITTER"] {
                    git.env(format!("GIT_{role}_NAME"), "Staffetta");
                    git.env(format!("GIT_{role}_EMAIL"), "staffetta@localhost");
                }
                git.current_dir(folder);
            }
            Self::Theirs { folder } => {
                git.current_dir(folder);
            }
        }
        git
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut git = command.spawn().context("cannot start git; is it installed?")?;
        let stdin = git.stdin.take();
        // A git that has seen enough closes its input; its exit code tells.
        let write = move || stdin.is_some_and(|mut stdin| stdin.write_all(input).is_ok());
        let output = std::thread::scope(|scope| {
            scope.spawn(write);
            git.wait_with_output()
        })
        .context("cannot wait for git")?;
        if !output.status.success() {
            bail!("git {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }

    fn line(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments, b"")?;
        Ok(String::from_utf8_lossy(&output).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(folder: &Path, name: &str, content: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Git as a user would call it in `folder`.
    fn git(folder: &Path, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=U", "-c", "user.email=u@localhost", "-c", "init.defaultBranch=trunk"];
        let git = Git::Theirs { folder };
        git.line(&[&identity[..], arguments].concat()).unwrap()
    }

    /// `mode path` for each file of the snapshot.
    fn content(snapshot: &Snapshot) -> Vec<String> {
        let tree = git(snapshot.repository.path(), &["ls-tree", "-r", &snapshot.commit]);
        tree.lines()
            .map(|line| {
                let (left, path) = line.split_once('\t').unwrap();
                format!("{} {path}", left.split(' ').next().unwrap())
            })
            .collect()
    }

    #[test]
    fn a_plain_folder_becomes_one_commit_of_what_is_not_ignored() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "run.sh", "#!/bin/sh\n");
        fs::set_permissions(folder.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        write(folder.path(), "src/a b.txt", "text");
        write(folder.path(), "out/log", "ignored");
        write(folder.path(), ".gitignore", "/out/\n");
        symlink("src", folder.path().join("link")).unwrap();
        let snapshot = commit_of(folder.path()).unwrap();
        assert_eq!(content(&snapshot), ["100644 .gitignore", "120000 link", "100755 run.sh", "100644 src/a b.txt"]);
        assert_eq!(snapshot.branch, "main");
        let repository = snapshot.repository.path();
        assert_eq!(git(repository, &["rev-list", "--count", "--all"]), "1");
        assert_eq!(git(repository, &["rev-parse", "main"]), snapshot.commit);
        assert_eq!(git(repository, &["rev-parse", "--is-bare-repository"]), "true");
        assert!(!folder.path().join(".git").exists());
    }

    #[test]
    fn a_repository_is_taken_as_it_lies_there_and_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        git(path, &["init", "--quiet"]);
        write(path, "changed", "old");
        write(path, "deleted", "x");
        write(path, "kept.log", "tracked although ignored");
        write(path, ".gitignore", "*.log\n");
        git(path, &["add", "--force", "."]);
        git(path, &["commit", "--quiet", "-m", "one"]);
        write(path, "changed", "new");
        fs::remove_file(path.join("deleted")).unwrap();
        write(path, "untracked", "x");
        write(path, "staged", "x");
        git(path, &["add", "staged"]);
        write(path, "other.log", "ignored");
        git(path, &["init", "--quiet", "nested"]);
        write(path, "nested/file", "somebody else's");
        let before = (git(path, &["status", "--porcelain"]), fs::read(path.join(".git/index")).unwrap());
        let snapshot = commit_of(path).unwrap();
        let names = ["100644 .gitignore", "100644 changed", "100644 kept.log", "100644 staged", "100644 untracked"];
        assert_eq!(content(&snapshot), names);
        assert_eq!(snapshot.branch, "trunk");
        assert_eq!(git(snapshot.repository.path(), &["show", &format!("{}:changed", snapshot.commit)]), "new");
        assert_eq!((git(path, &["status", "--porcelain"]), fs::read(path.join(".git/index")).unwrap()), before);
    }

    #[test]
    fn a_part_of_a_repository_is_its_own_root() {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "--quiet"]);
        write(folder.path(), ".gitignore", "*.tmp\nbuild/\n");
        write(folder.path(), "outside", "x");
        write(folder.path(), "examples/one/inside", "x");
        write(folder.path(), "examples/one/x.tmp", "ignored from above");
        write(folder.path(), "build/two/inside", "the whole folder is ignored");
        let snapshot = commit_of(&folder.path().join("examples/one")).unwrap();
        assert_eq!(content(&snapshot), ["100644 inside"]);
        let snapshot = commit_of(&folder.path().join("build/two")).unwrap();
        assert_eq!(content(&snapshot), ["100644 inside"]);
    }

    #[test]
    fn a_submodule_that_was_not_fetched_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        git(path, &["init", "--quiet"]);
        write(path, "file", "x");
        fs::create_dir(path.join("module")).unwrap();
        let link = "160000,0123456789012345678901234567890123456789,module";
        git(path, &["update-index", "--add", "--cacheinfo", link]);
        assert_eq!(content(&commit_of(path).unwrap()), ["100644 file"]);
    }

    #[test]
    fn nothing_to_commit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = commit_of(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.ends_with("has no files that git would keep"), "{error}");
        let error = commit_of(&folder.path().join("none")).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("cannot open "), "{error}");
    }

    #[test]
    fn the_repository_is_gone_with_the_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "file", "x");
        let snapshot = commit_of(folder.path()).unwrap();
        let repository = snapshot.repository.path().to_owned();
        assert!(repository.join("HEAD").exists());
        drop(snapshot);
        assert!(!repository.exists());
    }
}
