//! What the uploads of artifacts and of caches share: which files they are about.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::AtomicBool;

use job::trace::{Stream, line};
use tokio::process::Command;

use super::Failure;
use crate::archive::expand::expand;
use crate::git;
use crate::process::{self, Ended};
use crate::run::Run;
use crate::stop::Limits;
use crate::workspace::{Environment, variable};

/// The cancel that led here, if one did, has been heard.
pub const LIMITS: Limits = Limits { deaf_to_cancel: true, until: None };

/// The texts with their variables, as a shell has them. One that cannot be expanded is taken as it is.
pub async fn expanded(
    run: &Run,
    environment: &Environment,
    limits: Limits,
    what: &str,
    texts: &[String],
) -> Result<Vec<String>, Failure> {
    let (environment, given) = (environment.clone(), texts.to_vec());
    let expanding = move |_: &AtomicBool| -> Vec<_> {
        given.iter().map(|text| expand(text, &|name| variable(&environment, name))).collect()
    };
    let expanded = run.blocking(limits, expanding).await?;
    let taken = texts.iter().zip(expanded).map(|(text, expanded)| {
        expanded.unwrap_or_else(|reason| {
            run.say(&line::warning(&format!("invalid {what} {text:?}: {reason}; it is taken as it is")));
            text.clone()
        })
    });
    Ok(taken.collect())
}

/// All files that git does not track, ignored ones too. Where there is no git, the index that our own checkout wrote
/// tells them.
pub async fn untracked(run: &Run, environment: &Environment) -> Result<Vec<PathBuf>, Failure> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-o", "-z"]).current_dir(&run.workspace.project).stdin(Stdio::null());
    command.env_clear().envs(environment);
    let mut list = Vec::new();
    let output = |stream, bytes: &[u8]| match stream {
        Stream::Out => list.extend_from_slice(bytes),
        _ => run.trace.write(Stream::Err, bytes),
    };
    match process::run(&mut command, run.orphans, output, run.stops.stopped(LIMITS)).await {
        Ok(Ended::Exited(0)) => {
            let paths = list.split(|byte| *byte == 0).filter(|path| !path.is_empty());
            let paths = paths.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
            // A name with a line feed or a nested repository's directory is listed too; both are plain paths here.
            Ok(paths.map(|path| path.components().collect::<PathBuf>()).filter(|path| path != Path::new("")).collect())
        }
        Ok(Ended::Stopped(stop)) => Err(Failure::Stopped(stop)),
        Ok(Ended::Exited(code)) => {
            run.say(&line::warning(&format!("untracked: git ls-files ended with exit code {code}")));
            Ok(Vec::new())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => without_git(run).await,
        Err(error) => {
            run.say(&line::warning(&format!("untracked: cannot run git: {error}")));
            Ok(Vec::new())
        }
    }
}

async fn without_git(run: &Run) -> Result<Vec<PathBuf>, Failure> {
    let (project, format) = (run.workspace.project.clone(), git::object_format(&run.payload.git_info));
    let listed = run.blocking(LIMITS, move |_| git::untracked(&project, &format)).await?;
    Ok(listed.unwrap_or_else(|error| {
        run.say(&line::warning(&format!("untracked: there is no git in this image, and {error}")));
        Vec::new()
    }))
}
