//! `prepare_script`: the directories, and a word on what this runner does not do.

use job::trace::line;
use nix::unistd::gethostname;

use super::Failure;
use crate::run::Run;
use crate::stop::Limits;

pub async fn run(run: &Run) -> Result<(), Failure> {
    run.section("prepare_script", "Preparing environment", async {
        // A job that was cancelled on its way here ends before it does anything.
        run.unless_stopped(Limits::default(), prepare(run)).await?
    })
    .await
}

async fn prepare(run: &Run) -> Result<(), Failure> {
    let host = gethostname().map_or_else(|_| "this task".into(), |name| name.to_string_lossy().into_owned());
    run.say(&format!("Running on {host}...\n"));
    if run.shell.is_none() {
        return Err(Failure::system(format!("prepare environment: {}", run.no_shell())));
    }
    let workspace = run.workspace.clone();
    run.blocking(Limits::default(), move |_| workspace.prepare()).await?.map_err(|error| {
        Failure::system(format!("prepare environment: cannot make {}: {error}", run.workspace.project.display()))
    })?;
    notices(run);
    Ok(())
}

/// What the job asks for and does not get must not be a riddle.
fn notices(run: &Run) {
    let payload = &run.payload;
    if let Some(image) = payload.image.as_ref().filter(|image| !image.name.is_empty()) {
        run.say(&line::warning(&format!(
            "image {} is not used: jobs run in the image of the task definition",
            image.name
        )));
    }
    if !payload.services.is_empty() {
        let names: Vec<_> = payload.services.iter().map(|service| service.name.as_str()).collect();
        run.say(&line::warning(&format!("services are not started by this runner: {}", names.join(", "))));
    }
}
