//! The repositories that are served: bare ones of the server's own that borrow the objects of the given ones, so that
//! these are only read and nothing is copied.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use super::reference::Ref;
use super::view::PipelineId;

/// What a job's variables say of its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    pub sha: String,
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// `Name <address>`.
    pub author: String,
    /// RFC 3339.
    pub timestamp: String,
    pub title: String,
    /// Title and description.
    pub message: String,
    pub description: String,
}

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("git cannot be run: {0}")]
    Missing(#[source] io::Error),
    #[error("git {command}: {message}")]
    Failed { command: String, message: String },
    #[error("the repository cannot be prepared: {0}")]
    Disk(#[from] io::Error),
}

/// Git without the user's and the machine's settings, and with nothing of the repository that we were started in.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    command.env_clear().env("PATH", path).env("LC_ALL", "C");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    command.kill_on_drop(true);
    command
}

pub(super) async fn git(directory: &Path, arguments: &[&str]) -> Result<String, GitError> {
    let mut command = command("git");
    // Somebody else may own the given repository, as when root serves a user's directory.
    command.arg("-c").arg("safe.directory=*").arg("-C").arg(directory).args(arguments);
    let Output { status, stdout, stderr } = command.output().await.map_err(GitError::Missing)?;
    if !status.success() {
        let message = String::from_utf8_lossy(&stderr).trim().to_owned();
        return Err(GitError::Failed { command: arguments.join(" "), message });
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Where the repositories are, by the paths of their projects.
pub(super) fn repositories(directory: &Path) -> PathBuf {
    directory.join("repositories")
}

fn repository(directory: &Path, project: &str) -> PathBuf {
    repositories(directory).join(format!("{project}.git"))
}

pub(super) async fn read_commit(repo: &Path, commit: &str) -> Result<Commit, GitError> {
    let sha = git(repo, &["rev-parse", "--verify", "--end-of-options", &format!("{commit}^{{commit}}")]).await?;
    let sha = sha.trim().to_owned();
    let object_format = git(repo, &["rev-parse", "--show-object-format"]).await?.trim().to_owned();
    let text = git(repo, &["log", "-1", "--format=%an <%ae>%n%cI%n%B", &sha]).await?;
    let mut lines = text.splitn(3, '\n');
    let (author, timestamp) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let message = lines.next().unwrap_or_default().trim_end();
    let (title, description) = message.split_once('\n').unwrap_or((message, ""));
    Ok(Commit {
        object_format,
        author: author.to_owned(),
        timestamp: timestamp.to_owned(),
        title: title.to_owned(),
        message: message.to_owned(),
        description: description.trim_start().to_owned(),
        sha,
    })
}

/// Makes the commit reachable as `refs/pipelines/ID` and as what the pipeline runs for, and the tags of its repository too.
pub(super) async fn serve(
    directory: &Path,
    project: &str,
    repo: &Path,
    commit: &Commit,
    git_ref: &Ref,
    pipeline: PipelineId,
) -> Result<(), GitError> {
    let served = repository(directory, project);
    let head = if let Ref::Branch(name) = git_ref { name } else { super::DEFAULT_BRANCH };
    create(&served, &commit.object_format, head).await?;
    borrow_objects(&served, repo).await?;
    take_references(&served, repo, &["refs/tags/"]).await?;
    git(&served, &["update-ref", &format!("refs/pipelines/{pipeline}"), &commit.sha]).await?;
    // A tag of the given repository may be an annotated one, and stays so.
    let full = git_ref.full();
    if !matches!(git_ref, Ref::Tag(_)) || git(&served, &["rev-parse", "--verify", "--quiet", &full]).await.is_err() {
        git(&served, &["update-ref", &full, &commit.sha]).await?;
    }
    Ok(())
}

/// All branches and tags of a repository, as another project.
pub(super) async fn serve_other(directory: &Path, project: &str, repo: &Path) -> Result<(), GitError> {
    let served = repository(directory, project);
    let object_format = git(repo, &["rev-parse", "--show-object-format"]).await?;
    let branch = git(repo, &["symbolic-ref", "--short", "HEAD"]).await?;
    create(&served, object_format.trim(), branch.trim()).await?;
    borrow_objects(&served, repo).await?;
    take_references(&served, repo, &["refs/heads/", "refs/tags/"]).await
}

async fn create(served: &Path, object_format: &str, branch: &str) -> Result<(), GitError> {
    if served.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(served)?;
    let format = format!("--object-format={object_format}");
    let head = format!("--initial-branch={branch}");
    git(served, &["init", "--quiet", "--bare", "--template=", &format, &head]).await?;
    // As GitLab: a runner may ask for any commit, and for a part of the objects.
    git(served, &["config", "uploadpack.allowAnySHA1InWant", "true"]).await?;
    git(served, &["config", "uploadpack.allowFilter", "true"]).await?;
    Ok(())
}

async fn take_references(served: &Path, repo: &Path, prefixes: &[&str]) -> Result<(), GitError> {
    let arguments = [&["for-each-ref", "--format=%(refname) %(objectname)"], prefixes].concat();
    for reference in git(repo, &arguments).await?.lines() {
        let (name, object) = reference.split_once(' ').unwrap_or_default();
        git(served, &["update-ref", name, object]).await?;
    }
    Ok(())
}

async fn borrow_objects(served: &Path, repo: &Path) -> Result<(), GitError> {
    let objects = git(repo, &["rev-parse", "--path-format=absolute", "--git-path", "objects"]).await?;
    let alternates = served.join("objects/info/alternates");
    let mut known = read_or_empty(&alternates)?;
    if !known.lines().any(|line| line == objects.trim_end()) {
        known.push_str(&objects);
        std::fs::create_dir_all(served.join("objects/info"))?;
        std::fs::write(&alternates, known)?;
    }
    // Without this, the history of a shallow repository would look broken.
    let shallow = git(repo, &["rev-parse", "--path-format=absolute", "--git-path", "shallow"]).await?;
    let grafts = read_or_empty(Path::new(shallow.trim_end()))?;
    if !grafts.is_empty() {
        let all = read_or_empty(&served.join("shallow"))? + &grafts;
        std::fs::write(served.join("shallow"), all)?;
    }
    Ok(())
}

fn read_or_empty(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}
