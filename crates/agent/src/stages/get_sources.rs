//! `get_sources`: the repository, by the image's own git, or by the agent where the image has none (protocol 7.3).

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use job::settings::{GitStrategy, Submodules};
use job::trace::line;
use tokio::time::Instant;

use super::attempts::attempts;
use super::{Failure, RUNNING, Script};
use crate::run::Run;
use crate::stop::{Limits, Stop};

mod clean_up;
mod git_files;
mod leftovers;
mod remote;
mod script;
mod submodules;
mod without_git;

pub use clean_up::clean_up;
pub use git_files::user_settings;
use remote::Remote;

pub async fn run(run: &Run) -> Result<(), Failure> {
    let timeout = run.runner.get_sources_timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let limits = Limits { until: timeout.map(|timeout| Instant::now() + timeout), ..Limits::default() };
    let got = attempts(run, run.settings.get_sources_attempts, limits, |attempt| async move {
        if attempt == 2 {
            clear_worktree(run, limits).await?;
        }
        run.section("get_sources", "Getting source from Git repository", get(run, limits)).await
    });
    match got.await {
        Err(Failure::Stopped(Stop::StageTimedOut)) => Err(Failure::Stopped(Stop::SourcesTimedOut)),
        result => result,
    }
}

/// A failure here is no reason not to try again.
async fn clear_worktree(run: &Run, limits: Limits) -> Result<(), Failure> {
    if !run.workspace.project.is_dir() {
        return Ok(());
    }
    let title = "Deleting all tracked and untracked files due to source fetch failure";
    let script = Script {
        body: "git rm -rf --ignore-unmatch --quiet .\ngit clean -ffdx -q\n",
        directory: &run.workspace.project,
        status: RUNNING,
        environment: &[],
        limits,
    };
    match run.section("clear_worktree", title, run.script(script)).await {
        Err(Failure::Exit(_)) => Ok(()),
        result => result,
    }
}

async fn get(run: &Run, limits: Limits) -> Result<(), Failure> {
    let (strategy, project) = (run.settings.strategy, &run.workspace.project);
    let remote = Remote::of(run);
    let not_prepared = |error| Failure::system(format!("cannot prepare the project directory: {error}"));
    git_files::write_user_settings(run, &remote).map_err(not_written)?;
    match strategy {
        GitStrategy::None => run.say(&line::info("Skipping Git repository setup")),
        GitStrategy::Empty => {
            run.say(&line::info("Skipping Git repository setup and creating an empty build directory"));
            let project = project.clone();
            run.blocking(limits, move |_| leftovers::remove_tree(&project)).await?.map_err(not_prepared)?;
        }
        GitStrategy::Clone | GitStrategy::Fetch => {
            refuse(run)?;
            let (git, settings_too) = (project.join(".git"), forgets_settings(run));
            run.blocking(limits, move |_| leftovers::remove(&git, settings_too)).await?.map_err(not_prepared)?;
            git_files::write(run, &remote).map_err(not_written)?;
            return by_some_git(run, &remote, limits).await;
        }
    }
    run.say(&line::info("Skipping Git checkout"));
    run.say(&line::info("Skipping Git submodules setup"));
    std::fs::create_dir_all(project).map_err(not_prepared)
}

fn not_written(error: std::io::Error) -> Failure {
    Failure::system(format!("cannot write git's settings: {error}"))
}

/// What no script can be written for (protocol 7.3.1).
fn refuse(run: &Run) -> Result<(), Failure> {
    match run.settings.submodules {
        Submodules::Unknown => Err(Failure::system("GIT_SUBMODULE_STRATEGY must be none, normal or recursive")),
        Submodules::None => Ok(()),
        Submodules::Normal | Submodules::Recursive => {
            match run.settings.submodule_paths.iter().any(|path| path == ":(exclude)") {
                false => Ok(()),
                true => Err(Failure::system(
                    "GIT_SUBMODULE_PATHS: :(exclude) excludes nothing: there must be no space before its path",
                )),
            }
        }
    }
}

/// Whether settings and hooks of an earlier job go before this one begins (protocol 7.3.8).
fn forgets_settings(run: &Run) -> bool {
    run.runner.clean_git_config.unwrap_or(run.settings.strategy != GitStrategy::None)
}

/// The hooks may install git, so who gets the sources is decided after them. With git in the image the whole stage is
/// one shell, as in GitLab's runner.
async fn by_some_git(run: &Run, remote: &Remote, limits: Limits) -> Result<(), Failure> {
    if has_program(run, "git")? {
        return shell(
            run,
            &(script::hooks_before(run) + &script::sources(run, remote) + &script::hooks_after(run)),
            limits,
        )
        .await;
    }
    let before = script::hooks_before(run);
    if !before.is_empty() {
        shell(run, &before, limits).await?;
        if has_program(run, "git")? {
            return shell(run, &(script::sources(run, remote) + &script::hooks_after(run)), limits).await;
        }
    }
    without_git::get(run, remote, limits).await?;
    let after = script::hooks_after(run);
    match after.is_empty() {
        true => Ok(()),
        false => shell(run, &(script::enter_project(run) + &after), limits).await,
    }
}

async fn shell(run: &Run, body: &str, limits: Limits) -> Result<(), Failure> {
    let mut environment = vec![
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("GCM_INTERACTIVE", "Never".to_owned()),
        ("GLR_EXT_GIT_CONFIG_PATH", git_files::settings_file(run).display().to_string()),
    ];
    if !run.settings.lfs_skip_smudge {
        // Fetched all at once after the checkout instead of one by one during it.
        environment.push(("GIT_LFS_SKIP_SMUDGE", "1".to_owned()));
    }
    let directory = &run.workspace.builds;
    run.script(Script { body, directory, status: RUNNING, environment: &environment, limits }).await
}

/// Whether the job's shell would find this program.
fn has_program(run: &Run, name: &str) -> Result<bool, Failure> {
    let environment = run.workspace.environment(&run.variables, RUNNING).map_err(not_written)?;
    let places = environment.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    let is_program =
        |path: PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    Ok(std::env::split_paths(&places).any(|place| is_program(place.join(name))))
}
