//! What the last stage does about sources (protocol 7.7): nothing that git was told for this job stays.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use job::settings::{GitStrategy, Submodules};
use job::trace::line;
use tokio::time::Instant;

use super::remote::Remote;
use super::script::quoted;
use super::{forgets_settings, git_files, has_program, leftovers};
use crate::run::Run;
use crate::shell::quote;
use crate::stages::{Failure, RUNNING, Script};
use crate::stop::Limits;

/// The job is over but for this: it may not take long.
const LONGEST: Duration = Duration::from_secs(60);

/// Whatever goes wrong here is told, and no more.
pub async fn clean_up(run: &Run) {
    forget_token(run).await;
    let mut result = git_files::remove(&run.workspace.temporary);
    if run.variables.flag("FF_ENABLE_JOB_CLEANUP") {
        result = result.and(clean_project(run).await);
    }
    let git = run.workspace.project.join(".git");
    if let Err(error) = result.and_then(|()| leftovers::remove(&git, forgets_settings(run))) {
        run.say(&line::warning(&format!("cannot clean up the project directory: {error}")));
    }
}

/// A script may have told git to keep what it is let in by; this token is worthless from now on.
async fn forget_token(run: &Run) {
    let Some(host) = Remote::of(run).host() else { return };
    if !keeps_credentials(run) || !has_program(run, "git").unwrap_or(false) {
        return;
    }
    let body = format!(
        "printf 'url=%s\\nusername=gitlab-ci-token\\n\\n' {} | git credential reject >/dev/null 2>&1 || :\n",
        quote(&host)
    );
    script(run, &body, false).await;
}

/// Whether the user's git may keep any: every job waits for this stage, and most have no store to be asked.
fn keeps_credentials(run: &Run) -> bool {
    let environment = run.workspace.environment(&run.variables, RUNNING).unwrap_or_default();
    let home = environment.get(OsStr::new("HOME")).map(PathBuf::from).unwrap_or_default();
    let files = ["/etc/gitconfig".into(), home.join(".gitconfig"), home.join(".config/git/config")];
    let may_keep = |text: String| text.contains("[credential") || text.contains("[include");
    files.iter().any(|file| fs::read_to_string(file).is_ok_and(may_keep))
}

async fn clean_project(run: &Run) -> std::io::Result<()> {
    let (settings, project) = (&run.settings, &run.workspace.project);
    match settings.strategy {
        GitStrategy::Clone | GitStrategy::Empty => leftovers::remove_tree(project),
        GitStrategy::None => {
            run.say(&line::info("Skipping build directory cleanup step"));
            Ok(())
        }
        GitStrategy::Fetch => {
            let clean = match settings.clean_flags.as_slice() {
                [] => None,
                flags => Some(format!("git clean {}", quoted(flags))),
            };
            let reset = "git reset --hard".to_owned();
            let mut body: String = clean.iter().chain([&reset]).map(|command| format!("{command}\n")).collect();
            let each = match settings.submodules {
                Submodules::None | Submodules::Unknown => None,
                Submodules::Normal => Some("git submodule foreach"),
                Submodules::Recursive => Some("git submodule foreach --recursive"),
            };
            if let Some(each) = each {
                body.extend(clean.iter().chain([&reset]).map(|command| format!("{each} {}\n", quote(command))));
            }
            script(run, &body, true).await;
            Ok(())
        }
    }
}

/// In the project, or outside of it, where its settings do not count.
async fn script(run: &Run, body: &str, in_project: bool) {
    let directory = if in_project { &run.workspace.project } else { &run.workspace.builds };
    if !directory.is_dir() {
        return;
    }
    let limits = Limits { deaf_to_cancel: true, until: Some(Instant::now() + LONGEST) };
    let environment = [("GIT_TERMINAL_PROMPT", "0".to_owned())];
    let script = Script { body, directory, status: RUNNING, environment: &environment, limits };
    let why = match run.script(script).await {
        Ok(()) => return,
        Err(Failure::Exit(code)) => format!("exit code {code}"),
        Err(Failure::System(_, message)) => message,
        Err(Failure::Stopped(_)) => "it took too long".into(),
    };
    run.say(&line::warning(&format!("cannot clean up the project directory: {why}")));
}
