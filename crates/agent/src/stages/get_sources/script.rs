//! The stage as a script for the image's git (protocol 7.3.2 to 7.3.6).

use std::fmt::Write as _;

use job::payload::Hook;
use job::settings::{GitStrategy, Submodules};
use job::trace::line;

use super::git_files::{settings_file, template};
use super::remote::Remote;
use super::submodules::submodules;
use crate::run::Run;
use crate::shell::{commands, print, print_line, quote};

/// From here on a clone can be told the one reference that is wanted (protocol 7.3.3).
const NATIVE_CLONE: (u32, u32) = (2, 49);

/// Everything between the hooks. Starts in the directory of builds, ends in the project.
pub fn sources(run: &Run, remote: &Remote) -> String {
    let settings = &run.settings;
    let mut text = String::new();
    if run.runner.safe_directory_checkout {
        text.push_str(&trust(run));
    }
    if settings.strategy == GitStrategy::Clone {
        // Only now: what the hooks before made there goes as well.
        let project = project(run);
        let _ = writeln!(text, "if [ -d {project} ]; then chmod -R u+rwX {project} || :; fi\nrm -rf {project}");
    }
    match settings.strategy == GitStrategy::Clone && run.variables.flag("FF_USE_GIT_NATIVE_CLONE") {
        true => text.push_str(&clone_or_fetch(run, remote)),
        false => text.push_str(&init_and_fetch(run, remote)),
    }
    match settings.checkout {
        true => text.push_str(&checkout(run, remote)),
        false => text.push_str(&print_line(&line::info("Skipping Git checkout"))),
    }
    match settings.submodules {
        Submodules::None | Submodules::Unknown => {
            text.push_str(&print_line(&line::info("Skipping Git submodules setup")));
        }
        Submodules::Normal => text.push_str(&submodules(run, "")),
        Submodules::Recursive => text.push_str(&submodules(run, " --recursive")),
    }
    text
}

fn project(run: &Run) -> String {
    quote(&run.workspace.project.display().to_string())
}

pub fn enter_project(run: &Run) -> String {
    format!("cd {}\n", project(run))
}

/// Git works in a directory of somebody else only if it is told to. Said once, however many jobs share a home.
fn trust(run: &Run) -> String {
    let project = project(run);
    format!(
        "case \"\n$(git config --global --get-all safe.directory || :)\n\" in\n*\"\n\"{project}\"\n\"*) ;;\n\
         *) git config --global --add safe.directory {project} ;;\nesac\n"
    )
}

/// `-c` of the calls that speak to the server. The token is shown at once, where that is wanted, instead of after a 401.
fn proactive(run: &Run, remote: &Remote) -> String {
    match remote.host() {
        Some(host) if run.variables.flag("FF_USE_GIT_PROACTIVE_AUTH") => {
            format!(" -c {}", quote(&format!("http.{host}.proactiveAuth=basic")))
        }
        _ => String::new(),
    }
}

fn user_agent() -> String {
    quote(&format!("http.userAgent={} {} {}", job::PRODUCT, job::VERSION, job::variables::platform()))
}

fn init_and_fetch(run: &Run, remote: &Remote) -> String {
    let (git, settings) = (&run.payload.git_info, &run.settings);
    let mut text = print_line(&line::info(&fetching(run)));
    let format = match git.repo_object_format.as_str() {
        "" | "sha1" => String::new(),
        format => format!(" --object-format {}", quote(format)),
    };
    let template = quote(&template(run).display().to_string());
    let _ = writeln!(text, "git init {} --template {template}{format}", project(run));
    text.push_str(&enter_project(run));
    let url = quote(&remote.url);
    // The template does not reach a repository that kept its settings.
    let include = quote(&settings_file(run).display().to_string());
    let _ = writeln!(
        text,
        "if git remote add origin {url} 2>/dev/null; then\n{}else\ngit remote set-url origin {url}\n\
         git config --file .git/config --replace-all include.path {include} '\\.gitlab-runner\\.ext\\.conf$'\nfi",
        print_line(&line::info("Created fresh repository."))
    );
    let fetch = format!(
        "git -c {}{} fetch origin --no-recurse-submodules {}",
        user_agent(),
        proactive(run, remote),
        quoted(&git.refspecs)
    );
    let flags = quoted(&settings.fetch_flags);
    match git.depth {
        0 => {
            let _ =
                writeln!(text, "if [ -f .git/shallow ]; then\n{fetch} {flags} --unshallow\nelse\n{fetch} {flags}\nfi");
        }
        depth => {
            let _ = writeln!(text, "{fetch} --depth {depth} {flags}");
        }
    }
    text
}

/// `FF_USE_GIT_NATIVE_CLONE`, for a git that is new enough.
fn clone_or_fetch(run: &Run, remote: &Remote) -> String {
    let git = &run.payload.git_info;
    let title = match (git.depth, git.reference.as_str()) {
        (0, "") => "Cloning repository...".to_owned(),
        (0, reference) => format!("Cloning repository for {reference}..."),
        (depth, reference) => format!("Cloning repository for {reference} with git depth set to {depth}..."),
    };
    let depth = if git.depth == 0 { String::new() } else { format!(" --depth {}", git.depth) };
    let reference = match git.reference.as_str() {
        "" => String::new(),
        reference if reference.starts_with("refs/") => format!(" --revision {}", quote(reference)),
        reference => format!(" --branch {}", quote(reference)),
    };
    let (major, minor) = NATIVE_CLONE;
    let template = quote(&template(run).display().to_string());
    format!(
        "IFS=' .' read -r _ _ _git_major _git_minor _ <<VERSION\n$(git version)\nVERSION\n\
         if [ \"$_git_major\" -gt {major} ] || {{ [ \"$_git_major\" -eq {major} ] && [ \"$_git_minor\" -ge {minor} ]; }}; then\n\
         {title}git -c {agent}{proactive} clone --no-checkout {url} {project} --template {template}{depth}{reference} {flags}\n\
         {enter}else\n{fetch}fi\n",
        title = print_line(&line::info(&title)),
        agent = user_agent(),
        proactive = proactive(run, remote),
        url = quote(&remote.url),
        project = project(run),
        flags = quoted(&run.settings.clone_flags),
        enter = enter_project(run),
        fetch = init_and_fetch(run, remote),
    )
}

fn checkout(run: &Run, remote: &Remote) -> String {
    let git = &run.payload.git_info;
    let mut text = print_line(&line::info(&checking_out(run)));
    let proactive = proactive(run, remote);
    let _ = writeln!(text, "git -c submodule.recurse=false{proactive} checkout -f -q {}", quote(&git.sha));
    if !run.settings.clean_flags.is_empty() {
        let _ = writeln!(text, "git clean {}", quoted(&run.settings.clean_flags));
    }
    if !run.settings.lfs_skip_smudge {
        text.push_str(&large_files());
    }
    text
}

/// Pulls what Git LFS has of the repository in whose directory it runs. Without any of it `git lfs pull` would still
/// take its time to find that out.
pub fn large_files() -> String {
    // GitLab's own images for this stage have git-lfs; a job's image may not, and pointers look like files.
    let missing = "files of this repository are in Git LFS, and this image has no git-lfs: they stay pointers";
    format!(
        "if git grep -qF filter=lfs -- ':(glob)**/.gitattributes' 2>/dev/null; then\n\
         if git lfs version >/dev/null 2>&1; then\ngit lfs pull\n{}else\n{}fi\nfi\n",
        print(""),
        print_line(&line::warning(missing))
    )
}

pub fn fetching(run: &Run) -> String {
    match run.payload.git_info.depth {
        0 => "Fetching changes...".into(),
        depth => format!("Fetching changes with git depth set to {depth}..."),
    }
}

pub fn checking_out(run: &Run) -> String {
    let git = &run.payload.git_info;
    let short: String = git.sha.chars().take(8).collect();
    format!("Checking out {short} as detached HEAD (ref is {})...", git.reference)
}

pub fn quoted(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

const BEFORE: &str = "pre_get_sources_script";
const AFTER: &str = "post_get_sources_script";

/// The runner's own hook lies around the job's: before it at the start, after it at the end.
pub fn hooks_before(run: &Run) -> String {
    own(run, BEFORE, &run.runner.pre_get_sources_script) + &of_job(run, BEFORE)
}

pub fn hooks_after(run: &Run) -> String {
    of_job(run, AFTER) + &own(run, AFTER, &run.runner.post_get_sources_script)
}

fn own(run: &Run, name: &str, script: &str) -> String {
    match script.trim().is_empty() {
        true => String::new(),
        false => commands(&[script.to_owned()], name, run.echo()),
    }
}

fn of_job(run: &Run, name: &str) -> String {
    let commands = |hook: &Hook| commands(&hook.script, name, run.echo());
    run.payload.hooks.iter().filter(|hook| hook.name == name).map(commands).collect()
}
