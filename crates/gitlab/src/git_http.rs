//! Git over smart HTTP, with the connections, authorities and proxies of the runner API.

use std::collections::BTreeSet;

use job::secret::{ExposeSecret, SecretString};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use reqwest::{RequestBuilder, Response, Url};

use crate::client::{CallError, Client, complaint, describe, header, leaves_tls};

const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-gitaly-correlation-id");
const REFS: &str = "info/refs?service=git-upload-pack";
const MOST_REDIRECTS: usize = 5;

/// A repository and how its host lets us in.
pub struct GitRemote {
    /// Without credentials, `https://gitlab.example.com/group/project.git`.
    pub url: String,
    /// `name:password`.
    pub login: SecretString,
    /// `scheme://host:port` of every address to which the login may be shown.
    pub hosts: BTreeSet<String>,
    pub correlation_id: Option<String>,
}

/// The body of an answer, as it arrives.
pub struct GitAnswer(Response);

impl GitAnswer {
    /// `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, CallError> {
        self.0.chunk().await.map_err(unreachable)
    }
}

impl Client {
    /// Asks what the repository's server can do, in version 2 of Git's protocol. Where GitLab has moved the repository,
    /// `remote` goes along.
    pub async fn git_capabilities(&self, remote: &mut GitRemote) -> Result<GitAnswer, CallError> {
        for _ in 0..MOST_REDIRECTS {
            let url = at(remote, REFS)?;
            let response = complete(self.http().get(url.clone()), &url, remote).send().await.map_err(unreachable)?;
            if !response.status().is_redirection() {
                return expect_ok(response, remote).await;
            }
            let moved = header(response.headers(), &LOCATION).and_then(|to| url.join(&to).ok());
            let refused =
                |why: &str| CallError::Refused { status: response.status().as_u16(), message: why.to_owned() };
            let moved = moved.ok_or_else(|| refused("the repository was moved to nowhere"))?;
            if leaves_tls(&url, &moved) {
                return Err(refused("the repository was moved from https to http"));
            }
            let to = moved
                .as_str()
                .strip_suffix(REFS)
                .ok_or_else(|| refused("the repository was moved, nobody knows where to"))?;
            remote.url = to.trim_end_matches('/').to_owned();
        }
        Err(CallError::Unreachable("the repository was moved too often".into()))
    }

    /// One command of Git's protocol. A redirect is an error: only the first request may be redirected.
    pub async fn git_command(&self, remote: &GitRemote, body: Vec<u8>) -> Result<GitAnswer, CallError> {
        let url = at(remote, "git-upload-pack")?;
        let request = self.http().post(url.clone()).header(CONTENT_TYPE, "application/x-git-upload-pack-request");
        let response = complete(request, &url, remote).body(body).send().await.map_err(unreachable)?;
        expect_ok(response, remote).await
    }
}

fn at(remote: &GitRemote, path: &str) -> Result<Url, CallError> {
    let url = format!("{}/{path}", remote.url.trim_end_matches('/'));
    Url::parse(&url).map_err(|error| CallError::Unreachable(format!("{}: {error}", remote.url)))
}

fn complete(request: RequestBuilder, url: &Url, remote: &GitRemote) -> RequestBuilder {
    let agent = format!("{} {} {}", job::PRODUCT, job::VERSION, job::variables::platform());
    let mut request = request.header(USER_AGENT, agent).header(GIT_PROTOCOL, "version=2");
    if let Some(id) = remote.correlation_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
        request = request.header(CORRELATION_ID, id);
    }
    if may_see_login(url, &remote.hosts) {
        let (name, password) = remote.login.expose_secret().split_once(':').unwrap_or_default();
        request = request.basic_auth(name, Some(password));
    }
    request
}

/// A redirect may lead anywhere; the login does not follow it there.
fn may_see_login(url: &Url, hosts: &BTreeSet<String>) -> bool {
    hosts.iter().any(|host| Url::parse(host).is_ok_and(|host| host.origin() == url.origin()))
}

async fn expect_ok(response: Response, remote: &GitRemote) -> Result<GitAnswer, CallError> {
    let status = response.status();
    if status.is_success() {
        return Ok(GitAnswer(response));
    }
    let message = format!("{} for {}", complaint(response).await, remote.url);
    Err(CallError::Refused { status: status.as_u16(), message })
}

fn unreachable(error: reqwest::Error) -> CallError {
    CallError::Unreachable(describe(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_shown_to_its_own_hosts_only() {
        let hosts: BTreeSet<_> = ["https://gitlab.example.com".to_owned(), "http://10.0.0.5:8080".to_owned()].into();
        for (url, shown) in [
            ("https://gitlab.example.com/grp/app.git", true),
            ("https://gitlab.example.com:443/grp/app.git", true),
            ("http://10.0.0.5:8080/app.git", true),
            ("http://gitlab.example.com/grp/app.git", false),
            ("https://gitlab.example.com.evil.test/app.git", false),
            ("https://gitlab.example.com:8443/app.git", false),
            ("http://10.0.0.5/app.git", false),
        ] {
            assert_eq!(may_see_login(&Url::parse(url).expect(url), &hosts), shown, "{url}");
        }
    }
}
