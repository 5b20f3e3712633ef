//! Where the repository is and how its host lets us in.

use std::collections::BTreeSet;

use job::secret::{ExposeSecret, SecretString};

use super::git_files::value as quoted;
use crate::run::Run;

/// The user name that goes with a job's token.
const TOKEN_USER: &str = "gitlab-ci-token";

pub struct Remote {
    /// Without credentials: it stands in `.git/config`.
    pub url: String,
    /// `scheme://host:port` of every address to which the token may be shown.
    pub hosts: BTreeSet<String>,
    /// In the format of git's credential store: one URL with user and password per line.
    pub credentials: String,
    /// `name:password` for these hosts.
    pub login: SecretString,
    /// Where all projects are, if that is HTTP: the runner's `clone_url`, else its `url`.
    base: Option<String>,
}

/// An URL in its parts. `scheme` is empty for a path or git's short form of an SSH address.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    login: Option<&'a str>,
    host: &'a str,
    /// With its slash.
    path: &'a str,
}

fn parts(url: &str) -> Parts<'_> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Parts { scheme: "", login: None, host: "", path: url };
    };
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    Parts { scheme, login, host, path }
}

impl Parts<'_> {
    fn is_http(&self) -> bool {
        matches!(self.scheme, "http" | "https")
    }

    fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }
}

impl Remote {
    pub fn of(run: &Run) -> Self {
        let token_login = format!("{TOKEN_USER}:{}", run.payload.token.expose_secret());
        let given = run.payload.git_info.repo_url.expose_secret();
        let clone_url = match run.runner.clone_url.trim_end_matches('/') {
            "" => None,
            base => Some((base, run.variables.get("CI_PROJECT_PATH").unwrap_or_default())),
        };
        Self::new(given, clone_url, &run.gitlab.url, &token_login)
    }

    /// `clone_url` comes with the project's path.
    fn new(given: &str, clone_url: Option<(&str, String)>, gitlab: &str, token_login: &str) -> Self {
        let url = match &clone_url {
            None => without_password(given),
            Some((base, path)) => with_ssh_user(&format!("{}/{path}.git", without_password(base))),
        };
        let login = parts(given).login.filter(|_| parts(given).is_http()).unwrap_or(token_login);
        let base = without_password(clone_url.map_or(gitlab, |(base, _)| base).trim_end_matches('/'));
        // Submodules name projects by any of these.
        let addresses = [&url, &base, given].map(|address| parts(address));
        let hosts: BTreeSet<_> = addresses.iter().filter(|at| at.is_http()).map(Parts::origin).collect();
        let line = |host: &String| host.replacen("://", &format!("://{login}@"), 1) + "\n";
        let credentials = hosts.iter().map(line).collect();
        let base = Some(base).filter(|base| parts(base).is_http());
        Self { login: login.into(), hosts, credentials, base, url }
    }

    /// `scheme://host:port` of the project, where that is HTTP.
    pub fn host(&self) -> Option<String> {
        let parts = parts(&self.url);
        parts.is_http().then(|| parts.origin())
    }

    /// Reads the SSH addresses of GitLab as HTTPS ones (protocol 7.3.4): a job has a token, but no SSH key.
    pub fn over_https(&self, run: &Run) -> String {
        // A line feed would begin a setting of its own.
        let is_sane = |value: &String| !value.is_empty() && !value.contains(char::is_control);
        let value = |key| run.variables.get(key).filter(is_sane);
        let host = value("CI_SERVER_SHELL_SSH_HOST").or_else(|| value("CI_SERVER_HOST"));
        match (&self.base, host) {
            (Some(base), Some(host)) => over_https(base, &host, value("CI_SERVER_SHELL_SSH_PORT")),
            _ => String::new(),
        }
    }
}

fn over_https(base: &str, host: &str, port: Option<String>) -> String {
    let instead_of = match port.filter(|port| port != "22") {
        // With a port of its own the short form names another server.
        Some(port) => vec![format!("ssh://git@{host}:{port}/")],
        None => vec![format!("git@{host}:"), format!("ssh://git@{host}/")],
    };
    let mut text = format!("[url {}]\n", quoted(&format!("{base}/")));
    text.extend(instead_of.iter().map(|address| format!("\tinsteadOf = {}\n", quoted(address))));
    text
}

/// HTTP addresses lose their login, SSH addresses keep their user.
fn without_password(url: &str) -> String {
    let parts = parts(url);
    if parts.is_http() { parts.origin() + parts.path } else { url.to_owned() }
}

fn with_ssh_user(url: &str) -> String {
    let parts = parts(url);
    match (parts.scheme, parts.login) {
        ("ssh", None) => format!("ssh://git@{}{}", parts.host, parts.path),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "https://gitlab-ci-token:s3cret@gitlab.example.com:8443/grp/app.git";

    #[test]
    fn the_token_leaves_the_url_and_is_kept_for_each_address_of_gitlab() {
        let remote = Remote::new(GIVEN, None, "http://internal/gitlab/", "gitlab-ci-token:other");
        assert_eq!(remote.url, "https://gitlab.example.com:8443/grp/app.git");
        assert_eq!(
            remote.credentials,
            "http://gitlab-ci-token:s3cret@internal\nhttps://gitlab-ci-token:s3cret@gitlab.example.com:8443\n"
        );
        assert_eq!(remote.host().as_deref(), Some("https://gitlab.example.com:8443"));
        assert_eq!(remote.base.as_deref(), Some("http://internal/gitlab"));
    }

    #[test]
    fn another_address_of_gitlab_takes_the_place_of_the_given_one() {
        let at = |base| Remote::new(GIVEN, Some((base, "grp/app".into())), "https://gitlab.example.com", "me:t");
        let http = at("http://10.0.0.5/gitlab");
        assert_eq!(http.url, "http://10.0.0.5/gitlab/grp/app.git");
        assert_eq!(
            http.hosts.iter().map(String::as_str).collect::<Vec<_>>(),
            ["http://10.0.0.5", "https://gitlab.example.com:8443"]
        );
        let ssh = at("ssh://10.0.0.5:2222");
        assert_eq!((ssh.url.as_str(), ssh.host(), ssh.base), ("ssh://git@10.0.0.5:2222/grp/app.git", None, None));
        assert_eq!(at("ssh://me@10.0.0.5").url, "ssh://me@10.0.0.5/grp/app.git");
    }

    #[test]
    fn addresses_without_passwords_stay_as_they_are() {
        for url in ["file:///srv/repo.git", "/srv/repo.git", "git@host:grp/app.git", "ssh://git@host/grp/app.git"] {
            let remote = Remote::new(url, None, "", "user:pass");
            assert_eq!((remote.url.as_str(), remote.hosts.len(), remote.credentials.as_str()), (url, 0, ""));
        }
    }

    #[test]
    fn ssh_addresses_are_read_as_https_ones() {
        assert_eq!(
            over_https("https://h/gitlab", "h", Some("22".into())),
            "[url \"https://h/gitlab/\"]\n\tinsteadOf = \"git@h:\"\n\tinsteadOf = \"ssh://git@h/\"\n"
        );
        assert_eq!(
            over_https("https://h", "h", Some("2222".into())),
            "[url \"https://h/\"]\n\tinsteadOf = \"ssh://git@h:2222/\"\n"
        );
        let odd = over_https("https://h", "h \"#;\\", None);
        assert!(odd.contains("insteadOf = \"ssh://git@h \\\"#;\\\\/\"\n"), "{odd}");
    }
}
