//! `download_artifacts`: what earlier jobs made, into the project directory (protocol 5.5).

use job::payload::Dependency;
use job::trace::line;

use super::Failure;
use crate::archive::extract::extract;
use crate::run::Run;
use crate::stop::Limits;

pub async fn run(run: &Run) -> Result<(), Failure> {
    let wanted: Vec<_> =
        run.payload.dependencies.iter().filter(|job| !job.artifacts_file.filename.is_empty()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut attempts = run.settings.artifact_download_attempts;
    loop {
        let result = run.section("download_artifacts", "Downloading artifacts", download_all(run, &wanted)).await;
        attempts -= 1;
        match result {
            Err(Failure::Exit(_)) if attempts > 0 => {}
            result => return result,
        }
    }
}

async fn download_all(run: &Run, wanted: &[&Dependency]) -> Result<(), Failure> {
    for job in wanted {
        run.say(&line::info(&format!("Downloading artifacts for {} ({})...", job.name, job.id)));
        run.unless_stopped(Limits::default(), download(run, job)).await??;
    }
    Ok(())
}

async fn download(run: &Run, job: &Dependency) -> Result<(), Failure> {
    // In the job's own directory: it is the one place that surely has room for artifacts.
    let not_stored = |error| run.helper_failed(&format!("cannot store the artifacts: {error}"));
    let archive = tempfile::NamedTempFile::new_in(&run.workspace.temporary).map_err(not_stored)?;
    let bytes = run.client.download_artifacts(job.id, &job.token, archive.path()).await.map_err(|error| {
        run.helper_failed(&format!("Downloading artifacts from coordinator... {error}  id={}", job.id))
    })?;
    run.say(&format!("Downloading artifacts from coordinator... ok  id={} bytes={bytes}\n", job.id));
    let (file, project) = (archive.reopen().map_err(not_stored)?, run.workspace.project.clone());
    let unpacked = tokio::task::spawn_blocking(move || extract(file, &project)).await;
    match unpacked {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(run.helper_failed(&error.to_string())),
        Err(error) => Err(Failure::system(format!("unpacking the artifacts: {error}"))),
    }
}
