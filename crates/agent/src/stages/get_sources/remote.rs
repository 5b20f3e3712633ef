//! Where the repository is and how its host lets us in.

use std::collections::BTreeSet;

use job::secret::ExposeSecret;

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
        let given_login = parts(given).login.unwrap_or(&token_login).to_owned();
        let url = match run.runner.clone_url.trim_end_matches('/') {
            "" => without_password(given),
            base => {
                let path = run.variables.get("CI_PROJECT_PATH").unwrap_or_default();
                with_ssh_user(&format!("{}/{path}.git", without_password(base)))
            }
        };
        Self::new(url, &run.gitlab.url, &given_login)
    }

    fn new(url: String, gitlab: &str, login: &str) -> Self {
        let hosts: BTreeSet<_> =
            [parts(&url), parts(gitlab)].iter().filter(|at| at.is_http()).map(Parts::origin).collect();
        let line = |host: &String| host.replacen("://", &format!("://{login}@"), 1) + "\n";
        let credentials = hosts.iter().map(line).collect();
        Self { url, hosts, credentials }
    }

    /// Reads the SSH addresses of GitLab as HTTPS ones (protocol 7.3.4): a job has a token, but no SSH key.
    pub fn over_https(&self, run: &Run) -> String {
        let Some(base) = self.hosts.iter().next_back() else { return String::new() };
        let value = |key| run.variables.get(key).filter(|value| !value.is_empty());
        let Some(host) = value("CI_SERVER_SHELL_SSH_HOST").or_else(|| value("CI_SERVER_HOST")) else {
            return String::new();
        };
        match value("CI_SERVER_SHELL_SSH_PORT").filter(|port| port != "22") {
            Some(port) => format!("[url \"{base}/\"]\n\tinsteadOf = ssh://git@{host}:{port}/\n"),
            None => format!("[url \"{base}/\"]\n\tinsteadOf = git@{host}:\n\tinsteadOf = ssh://git@{host}/\n"),
        }
    }
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

    #[test]
    fn the_token_leaves_the_url_and_is_kept_for_each_address_of_gitlab() {
        let url = without_password("https://gitlab-ci-token:s3cret@gitlab.example.com:8443/grp/app.git");
        assert_eq!(url, "https://gitlab.example.com:8443/grp/app.git");
        let remote = Remote::new(url, "http://internal/gitlab", "gitlab-ci-token:s3cret");
        assert_eq!(
            remote.credentials,
            "http://gitlab-ci-token:s3cret@internal\nhttps://gitlab-ci-token:s3cret@gitlab.example.com:8443\n"
        );
        assert!(!remote.url.contains("s3cret"));
    }

    #[test]
    fn addresses_without_passwords_stay_as_they_are() {
        for url in ["file:///srv/repo.git", "/srv/repo.git", "git@host:grp/app.git", "ssh://git@host/grp/app.git"] {
            assert_eq!(without_password(url), url);
            assert!(Remote::new(url.into(), "", "user:pass").hosts.is_empty(), "{url}");
        }
        assert_eq!(with_ssh_user("ssh://host/grp/app.git"), "ssh://git@host/grp/app.git");
        assert_eq!(with_ssh_user("https://host/app.git"), "https://host/app.git");
    }
}
