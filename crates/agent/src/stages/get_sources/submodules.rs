//! Submodules, in the order of protocol 7.3.7.

use std::fmt::Write as _;

use job::trace::line;

use super::git_files::settings_file;
use super::script::{large_files, quoted};
use crate::run::Run;
use crate::shell::{print_line, quote};

/// `recursive` is empty or ` --recursive`.
pub fn submodules(run: &Run, recursive: &str) -> String {
    let settings = &run.settings;
    let say = |text: &str| print_line(&line::info(text));
    let paths = match settings.submodule_paths.as_slice() {
        [] => String::new(),
        paths => format!(" -- {}", quoted(paths)),
    };
    let (depth, with_depth) = match settings.submodule_depth {
        0 => (String::new(), String::new()),
        depth => (format!(" --depth {depth}"), format!(" with git depth set to {depth}")),
    };
    let kind = if recursive.is_empty() { "" } else { " recursively" };
    // Also where the project itself is not to be cleaned.
    let clean = if settings.clean_flags.is_empty() { "-ffdx".to_owned() } else { quoted(&settings.clean_flags) };
    let settings_file = settings_file(run).display().to_string();
    // What git starts in a submodule does not read the settings of the project.
    let git = format!("git -c {}", quote(&format!("include.path={settings_file}")));
    let sync = format!("git submodule sync{recursive}{paths}");
    let update =
        format!("{git} submodule update --init{recursive}{depth} {}{paths}", quoted(&settings.submodule_update_flags));
    let each = format!("submodule foreach{recursive}");
    let clean = format!("git {each} {}", quote(&format!("git clean {clean}")));
    let reset = format!("git {each} 'git reset --hard'");
    // A branch that .gitmodules names may be missing in a submodule that was fetched for another commit.
    let remote = settings.submodule_update_flags.iter().any(|flag| flag.eq_ignore_ascii_case("--remote"));
    let fetch = match remote {
        true => format!("{git} {each} 'git fetch origin +refs/heads/*:refs/remotes/origin/*'\n"),
        false => String::new(),
    };
    let mut text = say(&format!("Updating/initializing submodules{kind}{with_depth}..."));
    let _ = write!(
        text,
        "git submodule init\n{sync}\n{clean}\n{reset}\n\
         if {update}; then\n{updated}{sync}\nelse\n{failed}{fetch}{sync}\n{update}\n{reset}\nfi\n{clean}\n",
        updated = say("Updated submodules"),
        failed = print_line(&line::warning("Updating submodules failed. Retrying...")),
    );
    text.push_str(&say("Configuring submodules to use parent git credentials..."));
    let include = quote(&format!("git config --replace-all include.path {}", quote(&settings_file)));
    let _ = writeln!(text, "git submodule --quiet foreach --recursive {include}");
    if !settings.lfs_skip_smudge {
        let _ = writeln!(text, "if git lfs version >/dev/null 2>&1; then\n{}fi", say("Pulling LFS files..."));
        let _ = writeln!(text, "{git} {each} {}", quote(&large_files()));
    }
    text
}
