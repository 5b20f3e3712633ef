//! `get_sources`: the repository, by the image's own git (protocol 7.3).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use job::payload::Hook;
use job::settings::{GitStrategy, Submodules};
use job::trace::line;
use walkdir::WalkDir;

use super::{Failure, RUNNING, Script};
use crate::run::Run;
use crate::shell::{commands, print, print_line, quote};
use crate::stop::Limits;
use crate::workspace::write_secret;

mod remote;

use remote::Remote;

/// Between two tries (protocol 7.3.2): the first wait, doubled each time, and its limit.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The same without `FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY`.
const SHORT_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// What earlier, killed processes of git leave behind (protocol 7.3.8).
const LEFTOVERS: [&str; 4] = ["index.lock", "shallow.lock", "HEAD.lock", "config.lock"];

pub async fn run(run: &Run) -> Result<(), Failure> {
    let (first, longest) = match run.variables.flag("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY") {
        true => BACKOFF,
        false => SHORT_BACKOFF,
    };
    let mut wait = first;
    let mut attempt = 1;
    loop {
        let result = run.section("get_sources", "Getting source from Git repository", get(run)).await;
        match result {
            Err(Failure::Exit(_)) if attempt < run.settings.get_sources_attempts => {}
            result => return result,
        }
        run.unless_stopped(Limits::default(), tokio::time::sleep(wait)).await?;
        wait = (wait * 2).min(longest);
        attempt += 1;
        if attempt == 2 {
            clear_worktree(run).await?;
        }
    }
}

/// A failure here is no reason not to try again.
async fn clear_worktree(run: &Run) -> Result<(), Failure> {
    if !run.workspace.project.is_dir() {
        return Ok(());
    }
    let title = "Deleting all tracked and untracked files due to source fetch failure";
    let body = "git rm -rf --ignore-unmatch --quiet .\ngit clean -ffdx -q\n";
    let script = Script {
        body,
        directory: &run.workspace.project,
        status: RUNNING,
        environment: &[],
        limits: Limits::default(),
    };
    match run.section("clear_worktree", title, run.script(script)).await {
        Err(Failure::Exit(_)) => Ok(()),
        result => result,
    }
}

async fn get(run: &Run) -> Result<(), Failure> {
    let strategy = run.settings.strategy;
    if run.settings.submodules == Submodules::Unknown {
        return Err(Failure::system("GIT_SUBMODULE_STRATEGY must be none, normal or recursive"));
    }
    let remote = Remote::of(run);
    make_room(run, strategy)
        .map_err(|error| Failure::system(format!("cannot prepare the project directory: {error}")))?;
    if matches!(strategy, GitStrategy::None | GitStrategy::Empty) {
        run.say(&line::info("Skipping Git repository setup"));
        run.say(&line::info("Skipping Git checkout"));
        run.say(&line::info("Skipping Git submodules setup"));
        return Ok(());
    }
    write_git_files(run, &remote).map_err(|error| Failure::system(format!("cannot write git's settings: {error}")))?;
    let mut environment = vec![
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("GCM_INTERACTIVE", "Never".to_owned()),
        ("GLR_EXT_GIT_CONFIG_PATH", settings_file(run).display().to_string()),
    ];
    if !run.settings.lfs_is_the_jobs_choice {
        environment.push(("GIT_LFS_SKIP_SMUDGE", "1".to_owned()));
    }
    let script = Script {
        body: &body(run, &remote),
        directory: &run.workspace.builds,
        status: RUNNING,
        environment: &environment,
        limits: Limits::default(),
    };
    run.script(script).await
}

/// Brings the project directory into the state in which the strategy wants it.
fn make_room(run: &Run, strategy: GitStrategy) -> io::Result<()> {
    let project = &run.workspace.project;
    match strategy {
        GitStrategy::Clone | GitStrategy::Empty => remove_tree(project)?,
        GitStrategy::Fetch => forget_earlier_settings(&project.join(".git"))?,
        GitStrategy::None => {}
    }
    match strategy {
        // git makes it; the hooks before it may rely on its absence.
        GitStrategy::Clone | GitStrategy::Fetch => Ok(()),
        GitStrategy::None | GitStrategy::Empty => fs::create_dir_all(project),
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Without root, what is in a read-only directory cannot be removed before it is made writable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            for entry in WalkDir::new(directory).into_iter().flatten().filter(|entry| entry.file_type().is_dir()) {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
            }
            fs::remove_dir_all(directory)
        }
        result => result,
    }
}

/// Settings and hooks of an earlier job must not act on this one.
fn forget_earlier_settings(git: &Path) -> io::Result<()> {
    if !git.is_dir() {
        return Ok(());
    }
    for entry in WalkDir::new(git).into_iter().flatten() {
        let name = entry.file_name().to_string_lossy();
        let relative = entry.path().strip_prefix(git).unwrap_or(entry.path());
        let in_refs = relative.components().any(|part| part.as_os_str() == "refs");
        if entry.file_type().is_file() && (LEFTOVERS.contains(&&*name) || (in_refs && name.ends_with(".lock"))) {
            fs::remove_file(entry.path())?;
        }
    }
    crate::workspace::remove_if_present(&git.join("config"))?;
    remove_tree(&git.join("hooks"))
}

fn settings_file(run: &Run) -> PathBuf {
    run.workspace.temporary.join(".gitlab-runner.ext.conf")
}

fn template(run: &Run) -> PathBuf {
    run.workspace.temporary.join("git-template")
}

/// The files from which git takes its settings and the job's token: neither is on a command line or in `.git/config`.
///
/// GitLab's runner writes the token into URLs by `insteadOf` (protocol 7.3.4); git then passes the URL to
/// `git-remote-https` as an argument, where every process can read it. A credential store is read from its file.
fn write_git_files(run: &Run, remote: &Remote) -> io::Result<()> {
    let template = template(run);
    remove_tree(&template)?;
    fs::create_dir_all(&template)?;
    let include = format!(
        "[init]\n\tdefaultBranch = none\n[fetch]\n\trecurseSubmodules = false\n[credential]\n\tinteractive = never\n\
         [gc]\n\tautoDetach = false\n[include]\n\tpath = {}\n",
        config_value(&settings_file(run).display().to_string())
    );
    fs::write(template.join("config"), include)?;

    let store = run.workspace.temporary.join(".git-credentials");
    let mut settings = String::new();
    if let Some(id) = &run.gitlab.correlation_id
        && run.variables.flag("FF_USE_GITALY_CORRELATION_ID")
    {
        let header = config_value(&format!("X-Gitaly-Correlation-ID: {id}"));
        let _ = writeln!(settings, "[http]\n\textraHeader = {header}");
    }
    if run.variables.flag("FF_USE_GIT_BUNDLE_URIS") {
        settings.push_str("[transfer]\n\tbundleURI = true\n");
    }
    let authority = run.variables.get("CI_SERVER_TLS_CA_FILE");
    for host in &remote.hosts {
        let section = config_value(host);
        if let Some(file) = &authority {
            let _ = writeln!(settings, "[http {section}]\n\tsslCAInfo = {}", config_value(file));
        }
        // The empty helper keeps the user's own ones from storing a token that is soon worthless.
        let helper = config_value(&format!("store --file={}", quote(&store.display().to_string())));
        let _ = writeln!(settings, "[credential {section}]\n\thelper =\n\thelper = {helper}");
    }
    if run.settings.submodules_over_https {
        settings.push_str(&remote.over_https(run));
    }
    write_secret(&settings_file(run), settings.as_bytes())?;
    write_secret(&store, remote.credentials.as_bytes())
}

/// A value of git's configuration in quotes.
fn config_value(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The script of the stage: git's calls between the hooks.
fn body(run: &Run, remote: &Remote) -> String {
    let (git, settings) = (&run.payload.git_info, &run.settings);
    let no_git = "this image has no git: install it in the image, or set GIT_STRATEGY to none or empty";
    let mut text =
        format!("if ! command -v git >/dev/null 2>&1; then\n{}exit 1\nfi\n", print_line(&line::error(no_git)));
    text.push_str(&hooks(run, "pre_get_sources_script", &[&run.runner.pre_get_sources_script], &[]));
    text.push_str(&print_line(&line::info(&match git.depth {
        0 => "Fetching changes...".to_owned(),
        depth => format!("Fetching changes with git depth set to {depth}..."),
    })));
    let project = quote(&run.workspace.project.display().to_string());
    let format = match git.repo_object_format.as_str() {
        "" | "sha1" => String::new(),
        format => format!(" --object-format {}", quote(format)),
    };
    let _ = writeln!(text, "git init {project} --template {}{format}", quote(&template(run).display().to_string()));
    let _ = writeln!(text, "cd {project}");
    let _ = writeln!(text, "git remote add origin {}", quote(&remote.url));
    text.push_str(&print_line(&line::info("Created fresh repository.")));
    text.push_str(&fetch(run));
    match settings.checkout {
        true => text.push_str(&checkout(run)),
        false => text.push_str(&print_line(&line::info("Skipping Git checkout"))),
    }
    match settings.submodules {
        Submodules::None | Submodules::Unknown => {
            text.push_str(&print_line(&line::info("Skipping Git submodules setup")));
        }
        Submodules::Normal => text.push_str(&submodules(run, "")),
        Submodules::Recursive => text.push_str(&submodules(run, " --recursive")),
    }
    text.push_str(&hooks(run, "post_get_sources_script", &[], &[&run.runner.post_get_sources_script]));
    text
}

fn fetch(run: &Run) -> String {
    let (git, settings) = (&run.payload.git_info, &run.settings);
    let agent = format!("{} {} {}", job::PRODUCT, job::VERSION, job::variables::platform());
    let refspecs: Vec<_> = git.refspecs.iter().map(|refspec| quote(refspec)).collect();
    let flags: Vec<_> = settings.fetch_flags.iter().map(|flag| quote(flag)).collect();
    let fetch = format!(
        "git -c {} fetch origin --no-recurse-submodules {}",
        quote(&format!("http.userAgent={agent}")),
        refspecs.join(" ")
    );
    let flags = flags.join(" ");
    match git.depth {
        0 => format!("if [ -f .git/shallow ]; then\n{fetch} --unshallow {flags}\nelse\n{fetch} {flags}\nfi\n"),
        depth => format!("{fetch} --depth {depth} {flags}\n"),
    }
}

fn checkout(run: &Run) -> String {
    let git = &run.payload.git_info;
    let short: String = git.sha.chars().take(8).collect();
    let title = format!("Checking out {short} as detached HEAD (ref is {})...", git.reference);
    let mut text = print_line(&line::info(&title));
    let _ = writeln!(text, "git -c submodule.recurse=false checkout -f -q {}", quote(&git.sha));
    if !run.settings.clean_flags.is_empty() {
        let _ = writeln!(text, "git clean {}", quoted(&run.settings.clean_flags));
    }
    if !run.settings.lfs_is_the_jobs_choice {
        let _ = write!(text, "if git lfs version >/dev/null 2>&1; then\ngit lfs pull\n{}fi\n", print(""));
    }
    text
}

/// Submodules in the order of protocol 7.3.7.
fn submodules(run: &Run, recursive: &str) -> String {
    let settings = &run.settings;
    let kind = if recursive.is_empty() { "" } else { "recursively " };
    let paths = if settings.submodule_paths.is_empty() {
        String::new()
    } else {
        format!(" -- {}", quoted(&settings.submodule_paths))
    };
    let depth =
        if settings.submodule_depth == 0 { String::new() } else { format!(" --depth {}", settings.submodule_depth) };
    let clean = if settings.clean_flags.is_empty() { "-ffdx".to_owned() } else { quoted(&settings.clean_flags) };
    let clean = quote(&format!("git clean {clean}"));
    let include = quote(&format!("include.path={}", settings_file(run).display()));
    let set_include =
        quote(&format!("git config --replace-all include.path {}", quote(&settings_file(run).display().to_string())));
    let sync = format!("git submodule --quiet sync{recursive}{paths}");
    let update = format!(
        "git -c {include} submodule update --init{recursive}{depth} {}{paths}",
        quoted(&settings.submodule_update_flags)
    );
    let foreach = format!("git submodule foreach{recursive}");
    let mut text = print_line(&line::info(&format!("Updating/initializing submodules {kind}...").replace("  ", " ")));
    let _ = write!(
        text,
        "git submodule init{paths}\n{sync}\n{foreach} {clean}\n{foreach} 'git reset --hard'\n\
         if ! {update}; then\n{}{sync}\n{update}\n{foreach} 'git reset --hard'\nfi\n{sync}\n{foreach} {clean}\n\
         git submodule --quiet foreach --recursive {set_include}\n",
        print_line(&line::warning("Updating submodules failed. Retrying..."))
    );
    if !settings.lfs_is_the_jobs_choice {
        let _ = writeln!(text, "if git lfs version >/dev/null 2>&1; then {foreach} 'git lfs pull'; fi");
    }
    text
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// The runner's own hook lies around the job's: before it at the start, after it at the end.
fn hooks(run: &Run, name: &str, before: &[&String], after: &[&String]) -> String {
    let own = |scripts: &[&String]| -> String {
        let scripts: Vec<_> = scripts.iter().filter(|script| !script.trim().is_empty()).map(|s| (*s).clone()).collect();
        commands(&scripts, name, run.echo())
    };
    let of_job = |hook: &Hook| commands(&hook.script, name, run.echo());
    let job: String = run.payload.hooks.iter().filter(|hook| hook.name == name).map(of_job).collect();
    own(before) + &job + &own(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_gits_configuration_are_quoted() {
        assert_eq!(config_value(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }

    #[test]
    fn what_an_earlier_job_left_in_git_does_not_act_on_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let git = dir.path().join(".git");
        for file in [
            "index.lock",
            "config",
            "hooks/post-checkout",
            "refs/heads/a.lock",
            "refs/heads/a",
            "modules/m/index.lock",
            "objects/x.lock",
        ] {
            let path = git.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).and_then(|()| fs::write(path, "")).expect("a file");
        }
        forget_earlier_settings(&git).expect("cleaned");
        let left: Vec<_> = WalkDir::new(&git)
            .sort_by_file_name()
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(&git).expect("below").display().to_string())
            .collect();
        assert_eq!(left, ["objects/x.lock", "refs/heads/a"]);
    }
}
