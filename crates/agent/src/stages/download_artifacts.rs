//! `download_artifacts`: what earlier jobs made, into the project directory (protocol 5.5).

use std::io;
use std::path::PathBuf;

use gitlab::DownloadError;
use job::ids::ShortToken;
use job::payload::Dependency;
use job::secret::ExposeSecret;
use job::trace::line;
use tempfile::NamedTempFile;

use super::Failure;
use super::attempts::attempts;
use crate::archive::extract::extract;
use crate::archive::in_words;
use crate::blocking::blocking;
use crate::run::Run;
use crate::stop::Limits;

pub async fn run(run: &Run) -> Result<(), Failure> {
    let wanted: Vec<_> =
        run.payload.dependencies.iter().filter(|job| !job.artifacts_file.filename.is_empty()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    attempts(run, run.settings.artifact_download_attempts, Limits::default(), |_| {
        run.section("download_artifacts", "Downloading artifacts", download_all(run, &wanted))
    })
    .await
}

async fn download_all(run: &Run, wanted: &[&Dependency]) -> Result<(), Failure> {
    for job in wanted {
        run.say(&line::info(&format!("Downloading artifacts for {} ({})...", job.name, job.id)));
        run.unless_stopped(Limits::default(), download(run, job)).await??;
    }
    Ok(())
}

async fn download(run: &Run, job: &Dependency) -> Result<(), Failure> {
    const REPORT: &str = "Downloading artifacts from coordinator...";
    let not_stored = |error: io::Error| run.helper_failed(&format!("cannot store the artifacts: {}", in_words(&error)));
    // In the job's own directory: it is the one place that surely has room for artifacts.
    let staging = run.variables.get("ARCHIVER_STAGING_DIR").filter(|given| !given.is_empty()).map(PathBuf::from);
    let archive = NamedTempFile::new_in(staging.as_ref().unwrap_or(&run.workspace.temporary)).map_err(not_stored)?;
    let direct = run.variables.flag("FF_USE_DIRECT_DOWNLOAD");
    let context = format!("id={} token={}", job.id, ShortToken::of(job.token.expose_secret()).as_str());
    let failed_try = |reason: &str| {
        run.say(&line::warning(&format!("{REPORT} {reason}  {context}")));
        run.say(&line::warning("Retrying..."));
    };
    let downloading = run.client.download_artifacts(job.id, &job.token, direct, archive.path(), &failed_try);
    let downloaded = downloading.await.map_err(|error| match error {
        DownloadError::File(error) => not_stored(error),
        error => run.helper_failed(&format!("{REPORT} {error}  {context}")),
    })?;
    run.say(&format!("{REPORT} ok  host={} {context} responseStatus=200 OK\n", downloaded.host));
    let (file, project) = (archive.reopen().map_err(not_stored)?, run.workspace.project.clone());
    match blocking(move |abandoned| extract(file, &project, abandoned)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(run.helper_failed(&format!("artifacts of {} ({}): {error}", job.name, job.id))),
        Err(error) => Err(Failure::system(format!("unpacking the artifacts: {error}"))),
    }
}
