//! The files from which git takes its settings and the job's token: neither is on a command line or in `.git/config`.
//!
//! GitLab's runner writes the token into URLs by `insteadOf` (protocol 7.3.4); git then passes the URL to
//! `git-remote-https` as an argument, where every process can read it. A credential store is read from its file.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use job::trace::line;

use super::leftovers::remove_tree;
use super::remote::Remote;
use crate::run::Run;
use crate::shell::quote;
use crate::stages::RUNNING;
use crate::workspace::{open_regular, write_secret};

/// GitLab's names: scripts refer to them.
const SETTINGS: &str = ".gitlab-runner.ext.conf";
const USER_SETTINGS: &str = ".glr.gconf";
const TEMPLATE: &str = "git-template";
const CREDENTIALS: &str = ".git-credentials";

/// Included by the repository's own settings.
pub fn settings_file(run: &Run) -> PathBuf {
    run.workspace.temporary.join(SETTINGS)
}

pub fn template(run: &Run) -> PathBuf {
    run.workspace.temporary.join(TEMPLATE)
}

/// What `GIT_CONFIG_GLOBAL` must be in every stage: with `FF_GIT_URLS_WITHOUT_TOKENS` git is let in wherever it is
/// called, not only in the project.
pub fn user_settings(run: &Run) -> Option<PathBuf> {
    run.variables.flag("FF_GIT_URLS_WITHOUT_TOKENS").then(|| run.workspace.temporary.join(USER_SETTINGS))
}

/// Writes that file, and what it includes as far as a strategy without a repository needs it.
pub fn write_user_settings(run: &Run, remote: &Remote) -> io::Result<()> {
    let Some(path) = user_settings(run) else { return Ok(()) };
    let environment = run.workspace.environment(&run.variables, RUNNING)?;
    let home = environment.get(std::ffi::OsStr::new("HOME")).map(PathBuf::from).unwrap_or_default();
    // Git no longer reads these by itself, and fails if it is to include what it may not read, or waits for a pipe.
    let of_user = [".gitconfig", ".config/git/config"].map(|name| home.join(name));
    let readable = of_user.into_iter().filter(|path| open_regular(path).is_ok());
    let mut text = String::from("[include]\n");
    for file in readable.chain([settings_file(run)]) {
        let _ = writeln!(text, "\tpath = {}", value(&file.display().to_string()));
    }
    write_secret(&path, text.as_bytes())?;
    write_credentials(run, remote)?;
    write_secret(&settings_file(run), access(run, remote).as_bytes())
}

/// Writes the template of new repositories, the settings that they include, and the credentials.
pub fn write(run: &Run, remote: &Remote) -> io::Result<()> {
    let template = template(run);
    remove_tree(&template)?;
    fs::create_dir_all(&template)?;
    let include = format!(
        "[init]\n\tdefaultBranch = none\n[fetch]\n\trecurseSubmodules = false\n[credential]\n\tinteractive = never\n\
         [gc]\n\tautoDetach = false\n[include]\n\tpath = {}\n",
        value(&settings_file(run).display().to_string())
    );
    fs::write(template.join("config"), include)?;

    let mut settings = String::new();
    if let Some(id) = &run.gitlab.correlation_id
        && run.variables.flag("FF_USE_GITALY_CORRELATION_ID")
    {
        let header = value(&format!("X-Gitaly-Correlation-ID: {id}"));
        let _ = writeln!(settings, "[http]\n\textraHeader = {header}");
        run.say(&line::info(&format!("Gitaly correlation ID: {id}")));
    }
    if run.variables.flag("FF_USE_GIT_BUNDLE_URIS") {
        settings.push_str("[transfer]\n\tbundleURI = true\n");
    }
    settings.push_str(&access(run, remote));
    if run.settings.submodules_over_https {
        settings.push_str(&remote.over_https(run));
    }
    write_secret(&settings_file(run), settings.as_bytes())?;
    write_credentials(run, remote)
}

fn write_credentials(run: &Run, remote: &Remote) -> io::Result<()> {
    write_secret(&run.workspace.temporary.join(CREDENTIALS), remote.credentials.as_bytes())
}

/// How each host is trusted, and how it lets us in.
fn access(run: &Run, remote: &Remote) -> String {
    let files = [
        ("sslCAInfo", "CI_SERVER_TLS_CA_FILE"),
        ("sslCert", "CI_SERVER_TLS_CERT_FILE"),
        ("sslKey", "CI_SERVER_TLS_KEY_FILE"),
    ];
    let files = files.map(|(setting, variable)| (setting, run.variables.get(variable).unwrap_or_default()));
    let store = run.workspace.temporary.join(CREDENTIALS);
    let helper = value(&format!("store --file={}", quote(&store.display().to_string())));
    let mut text = String::new();
    for host in &remote.hosts {
        let section = value(host);
        for (setting, file) in files.iter().filter(|(_, file)| !file.is_empty()) {
            let _ = writeln!(text, "[http {section}]\n\t{setting} = {}", value(file));
        }
        // The empty helper keeps the user's own ones from storing a token that is soon worthless.
        let _ = writeln!(text, "[credential {section}]\n\thelper =\n\thelper = {helper}");
    }
    text
}

/// Removes what is worthless after the job, or must not survive it.
pub fn remove(temporary: &Path) -> io::Result<()> {
    for name in [SETTINGS, USER_SETTINGS, CREDENTIALS] {
        crate::workspace::remove_if_present(&temporary.join(name))?;
    }
    remove_tree(&temporary.join(TEMPLATE))
}

/// A value of git's configuration in quotes.
pub fn value(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_gits_configuration_are_quoted() {
        assert_eq!(value(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }
}
