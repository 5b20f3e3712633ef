//! What the last stage does about sources (protocol 7.7): nothing that git was told for this job stays.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use job::settings::{GitStrategy, Submodules};
use job::trace::line;
use tokio::time::Instant;

use super::remote::Remote;
use super::script::quoted;
use super::{forgets_settings, git_files, has_program, leftovers};
use crate::run::Run;
use crate::shell::quote;
use crate::stages::packing::LIMITS;
use crate::stages::{Failure, Script};
use crate::stop::Limits;

/// The job is over but for this: it may not take long.
const LONGEST: Duration = Duration::from_secs(60);
/// To forget a token that is worthless soon.
const LONGEST_TO_FORGET: Duration = Duration::from_secs(5);

/// Whatever goes wrong here is told, and no more. `status` is the `CI_JOB_STATUS` that the script left.
pub async fn clean_up(run: &Run, status: &str) {
    forget_token(run, status).await;
    let strategy = run.settings.strategy;
    let cleans = run.variables.flag("FF_ENABLE_JOB_CLEANUP");
    let mut result = Ok(());
    match strategy {
        GitStrategy::Fetch if cleans => result = clean_with_git(run, status).await,
        GitStrategy::None if cleans => run.say(&line::info("Skipping build directory cleanup step")),
        _ => {}
    }
    let removes_all = cleans && matches!(strategy, GitStrategy::Clone | GitStrategy::Empty);
    let (workspace, settings_too) = (run.workspace.clone(), forgets_settings(run));
    let removing = move |_: &AtomicBool| {
        git_files::remove(&workspace.temporary)?;
        if removes_all {
            leftovers::remove_tree(&workspace.project)?;
        }
        leftovers::remove(&workspace.project.join(".git"), settings_too)
    };
    let removed = run.blocking(LIMITS, removing).await.map_err(why);
    let removed = removed.and_then(|removed| removed.map_err(|error| error.to_string()));
    for why in [result, removed].into_iter().filter_map(Result::err) {
        run.say(&line::warning(&format!("cannot clean up the project directory: {why}")));
    }
}

/// A script may have told git to keep what it is let in by; this token is worthless from now on. Nobody is told if that
/// fails: most have no store to be asked.
async fn forget_token(run: &Run, status: &str) {
    let has_repository = matches!(run.settings.strategy, GitStrategy::Clone | GitStrategy::Fetch);
    let Some(host) = Remote::of(run).host().filter(|_| has_repository) else { return };
    if !has_program(run, "git").unwrap_or(false) {
        return;
    }
    let body = format!(
        "printf 'url=%s\\nusername=gitlab-ci-token\\n\\n' {} | git credential reject >/dev/null 2>&1 || :\n",
        quote(&host)
    );
    // Outside of the project, whose settings do not count.
    let _ = script(run, &body, status, &run.workspace.builds, LONGEST_TO_FORGET).await;
}

async fn clean_with_git(run: &Run, status: &str) -> Result<(), String> {
    let (settings, project) = (&run.settings, &run.workspace.project);
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
    if project.is_dir() { script(run, &body, status, project, LONGEST).await } else { Ok(()) }
}

async fn script(run: &Run, body: &str, status: &str, directory: &Path, longest: Duration) -> Result<(), String> {
    let limits = Limits { until: Some(Instant::now() + longest), ..LIMITS };
    let environment = [("GIT_TERMINAL_PROMPT", "0".to_owned())];
    run.script(Script { body, directory, status, environment: &environment, limits }).await.map_err(why)
}

fn why(failure: Failure) -> String {
    match failure {
        Failure::Exit(code) => format!("exit code {code}"),
        Failure::System(_, message) => message,
        Failure::Stopped(_) => "it took too long".into(),
    }
}
