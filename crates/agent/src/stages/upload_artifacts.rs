//! `upload_artifacts_on_success` and `_on_failure` (protocol 5.1 to 5.3).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gitlab::ArtifactUpload;
use job::payload::Artifact;
use job::trace::{Stream, line};
use tokio::process::Command;

use super::{Failure, RUNNING};
use crate::archive::expand::expand;
use crate::archive::select::{Note, Selection, Wanted, select};
use crate::archive::write::{compression_level, suffix, write};
use crate::process::{self, Ended};
use crate::run::Run;
use crate::stop::Limits;
use crate::workspace::Environment;

/// The cancel that led here, if one did, has been heard.
const LIMITS: Limits = Limits { deaf_to_cancel: true, until: None };

pub async fn run(run: &Run, succeeded: bool) -> Result<(), Failure> {
    let wanted: Vec<_> = run.payload.artifacts.iter().filter(|artifact| artifact.when.applies(succeeded)).collect();
    let wanted: Vec<_> =
        wanted.into_iter().filter(|artifact| artifact.untracked || !artifact.paths.is_empty()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (name, title) = match succeeded {
        true => ("upload_artifacts_on_success", "Uploading artifacts for successful job"),
        false => ("upload_artifacts_on_failure", "Uploading artifacts for failed job"),
    };
    run.section(name, title, upload_all(run, &wanted)).await
}

async fn upload_all(run: &Run, wanted: &[&Artifact]) -> Result<(), Failure> {
    let environment = run
        .workspace
        .environment(&run.variables, RUNNING)
        .map_err(|error| Failure::system(format!("cannot write the stage's files: {error}")))?;
    for artifact in wanted {
        run.say(&line::info("Uploading artifacts..."));
        upload(run, artifact, &environment).await?;
    }
    Ok(())
}

async fn upload(run: &Run, artifact: &Artifact, environment: &Environment) -> Result<(), Failure> {
    let variable = |name: &str| Some(environment.get(OsStr::new(name))?.to_string_lossy().into_owned());
    let expand = |text: &String| {
        expand(text, &variable).unwrap_or_else(|reason| {
            run.say(&line::warning(&format!("{text}: {reason}; it is taken as it is")));
            text.clone()
        })
    };
    let kind = if artifact.artifact_type.is_empty() { "archive" } else { &artifact.artifact_type };
    let Some(suffix) = suffix(&artifact.artifact_format) else {
        return Err(run.helper_failed(&format!("the artifact format {:?} is not known", artifact.artifact_format)));
    };
    let name = base_name(&expand(&artifact.name)) + suffix;
    let paths: Vec<_> = artifact.paths.iter().map(expand).collect();
    let exclude: Vec<_> = artifact.exclude.iter().map(expand).collect();
    let untracked = if artifact.untracked { Some(untracked(run, environment).await?) } else { None };

    let project = run.workspace.project.clone();
    let selecting =
        move || select(&project, &Wanted { paths: &paths, exclude: &exclude, untracked: untracked.as_deref() });
    let selection = run.unless_stopped(LIMITS, blocking(selecting)).await??;
    tell(run, &selection);
    if selection.entries.is_empty() {
        run.say(&line::error("No files to upload"));
        return Ok(());
    }

    let level = compression_level(&variable("ARTIFACT_COMPRESSION_LEVEL").unwrap_or_default());
    // In the job's own directory: it is the one place that surely has room for artifacts.
    let file = tempfile::NamedTempFile::new_in(&run.workspace.temporary)
        .map_err(|error| run.helper_failed(&format!("cannot store the artifacts: {error}")))?;
    let (project, format) = (run.workspace.project.clone(), artifact.artifact_format.clone());
    let into = file.reopen().map_err(|error| run.helper_failed(&format!("cannot store the artifacts: {error}")))?;
    let writing = move || write(&format, &project, &selection.entries, level, into);
    run.unless_stopped(LIMITS, blocking(writing)).await??.map_err(|error| run.helper_failed(&error.to_string()))?;

    let upload = ArtifactUpload {
        name: &name,
        artifact_type: &artifact.artifact_type,
        format: &artifact.artifact_format,
        expire_in: &artifact.expire_in,
        file: file.path(),
    };
    let sending = run.client.upload_artifact(run.payload.id, &run.payload.token, &upload);
    let sent = run.unless_stopped(LIMITS, sending).await?;
    let report = format!("Uploading artifacts as \"{kind}\" to coordinator...");
    match sent {
        Ok(()) => {
            run.say(&format!("{report} 201 Created  id={}\n", run.payload.id));
            Ok(())
        }
        Err(error) => Err(run.helper_failed(&format!("{report} {error}  id={}", run.payload.id))),
    }
}

/// The last part of the name; `default` if there is none.
fn base_name(name: &str) -> String {
    match name.trim().trim_end_matches('/').rsplit('/').next() {
        None | Some("" | ".") => "default".into(),
        Some(base) => base.to_owned(),
    }
}

fn tell(run: &Run, selection: &Selection) {
    for note in &selection.notes {
        match note {
            Note::Info(text) => run.say(&format!("{text}\n")),
            Note::Warning(text) => run.say(&line::warning(text)),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::system(format!("packing the artifacts: {error}")))
}

/// All files that git does not track, ignored ones too. Without git there are none, and that is said.
async fn untracked(run: &Run, environment: &Environment) -> Result<Vec<PathBuf>, Failure> {
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
        Err(error) => {
            run.say(&line::warning(&format!("untracked: cannot run git: {error}")));
            Ok(Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_called_by_the_last_part_of_its_name() {
        for (name, base) in [("", "default"), (".", "default"), ("feature/x", "x"), ("app-1.0", "app-1.0"), ("a/", "a")]
        {
            assert_eq!(base_name(name), base, "{name}");
        }
    }
}
