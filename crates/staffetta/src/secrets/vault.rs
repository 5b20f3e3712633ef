//! HashiCorp Vault and OpenBao: a login with the job's JWT, and the key-value engines that both read.

use std::time::Duration;

use anyhow::Context;
use job::secret::{ExposeSecret, SecretString};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, StatusCode, Url, redirect};
use serde_json::{Map, Value, json};

use super::SecretError;
use super::members::Members;

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
const MOST_REDIRECTS: usize = 3;
/// Vault's own limit for an entry, as it is delivered.
const LONGEST_ANSWER: usize = 1 << 20;
/// Characters of a server's own words in the job's log.
const MOST_SAID: usize = 500;

const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
/// Agents and proxies of Vault may insist on it, since no page in a browser can make a form send it.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
/// OpenBao: it was the login in the headers that failed.
const LOGIN_FAILED: HeaderName = HeaderName::from_static("x-vault-inline-auth-failed");

/// Checks certificates by the usual authorities and this machine's. A JWT or a token goes to the host that the job named
/// and to no other.
pub(super) fn http_client() -> anyhow::Result<reqwest::Client> {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(gitlab::usual_roots())
        .with_no_client_auth();
    let same_host = redirect::Policy::custom(|attempt| {
        let from = attempt.previous().last().map(Url::origin);
        let follow = from == Some(attempt.url().origin()) && attempt.previous().len() <= MOST_REDIRECTS;
        if follow { attempt.follow() } else { attempt.stop() }
    });
    gitlab::Proxies::of_environment()
        .apply(reqwest::Client::builder())
        .tls_backend_preconfigured(tls)
        .redirect(same_host)
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .build()
        .context("the client for servers of secrets")
}

/// A secret of Vault's, and the login that opens it.
#[derive(Debug)]
pub(super) struct VaultSecret {
    server: Server,
    namespace: String,
    auth_path: String,
    jwt: SecretString,
    role: String,
    place: Place,
}

impl VaultSecret {
    pub fn read(members: &Members<'_>) -> Result<Self, SecretError> {
        let refuse = |message: String| Err(SecretError::Configuration(message));
        match members.text("/server/auth/name").as_str() {
            "jwt" => {}
            other => return refuse(format!("Vault's auth method {other:?} is not known here; use jwt")),
        }
        let Some(jwt) = members.first(&["/server/auth/data/jwt"]) else {
            return refuse("there is no JWT for Vault: does the job have the id_tokens that its secret names?".into());
        };
        Ok(Self {
            server: Server::read(members)?,
            namespace: members.text("/server/namespace"),
            auth_path: members.text("/server/auth/path"),
            jwt: jwt.into(),
            role: members.text("/server/auth/data/role"),
            place: Place::read(members)?,
        })
    }

    pub async fn fetch(&self, http: &reqwest::Client) -> Result<SecretString, SecretError> {
        let mut headers = HeaderMap::new();
        if !self.namespace.is_empty() {
            let namespace = HeaderValue::from_str(&self.namespace)
                .map_err(|_| SecretError::Configuration("the Vault namespace is no text for a header".into()))?;
            headers.insert(NAMESPACE, namespace);
        }
        let token = self.log_in(http, &headers).await?;
        headers.insert(TOKEN, sensitive(token.expose_secret()));
        self.place.read_from(&self.server, http, headers).await
    }

    async fn log_in(&self, http: &reqwest::Client, headers: &HeaderMap) -> Result<SecretString, SecretError> {
        let mut data = json!({"jwt": self.jwt.expose_secret()});
        if !self.role.is_empty() {
            data["role"] = json!(self.role);
        }
        let path = format!("auth/{}/login", self.auth_path);
        let request = http.post(self.server.url(&path)?).headers(headers.clone()).json(&data);
        let Answer { status, body, .. } = self.server.ask(request).await?;
        if !status.is_success() {
            return Err(self.server.refused("the login", status, &body));
        }
        match body.pointer("/auth/client_token").and_then(Value::as_str).filter(|token| !token.is_empty()) {
            Some(token) => Ok(token.into()),
            None => Err(self.server.unexpected("its login gave no token")),
        }
    }
}

/// Where a server takes its requests.
#[derive(Debug)]
pub(super) struct Server {
    url: Url,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// Null where it was no JSON.
    body: Value,
}

impl Server {
    pub fn read(members: &Members<'_>) -> Result<Self, SecretError> {
        let text = members.text("/server/url");
        match Url::parse(&text) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(Self { url }),
            _ => {
                let message = format!("the address of the server of secrets is no URL: {text:?}");
                Err(SecretError::Configuration(message))
            }
        }
    }

    /// The address of an API path. Job code chooses the path: it must not lead out of the API.
    fn url(&self, path: &str) -> Result<Url, SecretError> {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| [".", ".."].contains(part)) {
            return Err(SecretError::Configuration(format!("{path:?} is no path of a secret: it has dots for a part")));
        }
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.path_segments_mut().expect("a URL with a host has a path").pop_if_empty().push("v1").extend(parts);
        Ok(url)
    }

    /// One request. Errors are those of the way there.
    async fn ask(&self, request: RequestBuilder) -> Result<Answer, SecretError> {
        // Jobs choose the address. Why there is no answer would tell them which ports of the manager's network are open.
        let away = |error: reqwest::Error| {
            let error = anyhow::Error::from(error.without_url());
            tracing::info!(server = %self, error = %format!("{error:#}"), "a server of secrets does not answer");
            SecretError::Unavailable(format!("{self} does not answer"))
        };
        let mut response = request.header(REQUEST, "true").send().await.map_err(away)?;
        let mut text = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(away)? {
            text.extend_from_slice(&bytes);
            if text.len() > LONGEST_ANSWER {
                let most = LONGEST_ANSWER >> 20;
                return Err(SecretError::Configuration(format!("{self} answered more than {most} MiB")));
            }
        }
        let body = serde_json::from_slice(&text).unwrap_or_default();
        Ok(Answer { status: response.status(), headers: response.headers().clone(), body })
    }

    /// What an answer that is no success means.
    fn refused(&self, what: &str, status: StatusCode, body: &Value) -> SecretError {
        let errors = body.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let words: Vec<_> = errors.flat_map(str::split_whitespace).collect();
        let said: String = words.join(" ").chars().take(MOST_SAID).collect();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let message = format!("{self} answered {} to {what}{said}", status.as_u16());
        match status.as_u16() {
            400 | 401 | 403 | 404 => SecretError::Configuration(message),
            429 | 500.. => SecretError::Unavailable(message),
            300..400 => SecretError::Configuration(format!(
                "{message}; redirects to another host are not followed, so name that host as the server"
            )),
            _ => SecretError::Unexpected(message),
        }
    }

    fn unexpected(&self, what: &str) -> SecretError {
        SecretError::Unexpected(format!("{self}: {what}; is it a Vault?"))
    }
}

impl std::fmt::Display for Server {
    /// Without what else a URL may hold, such as a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url.origin().ascii_serialization())
    }
}

/// Where in a server a value stands.
#[derive(Debug)]
pub(super) struct Place {
    /// Of the API, with the engine's mount.
    path: String,
    /// The second version of the key-value engine wraps its data once more.
    wrapped: bool,
    field: String,
}

impl Place {
    pub fn read(members: &Members<'_>) -> Result<Self, SecretError> {
        let (mount, path) = (members.text("/engine/path"), members.text("/path"));
        let (path, wrapped) = match members.text("/engine/name").as_str() {
            "kv-v2" => (format!("{mount}/data/{path}"), true),
            "kv-v1" | "generic" => (format!("{mount}/{path}"), false),
            other => {
                let message = format!("Vault's engine {other:?} is not known here; use kv-v2, kv-v1 or generic");
                return Err(SecretError::Configuration(message));
            }
        };
        Ok(Self { path, wrapped, field: members.text("/field") })
    }

    /// Reads the value; `headers` open the door.
    pub async fn read_from(
        &self,
        server: &Server,
        http: &reqwest::Client,
        headers: HeaderMap,
    ) -> Result<SecretString, SecretError> {
        let request = http.get(server.url(&self.path)?).headers(headers);
        let Answer { status, headers, body } = server.ask(request).await?;
        if status == StatusCode::NOT_FOUND && !headers.contains_key(LOGIN_FAILED) {
            return Err(SecretError::Missing(format!("{server} has no {}", self.path)));
        }
        if !status.is_success() {
            return Err(server.refused(&self.path, status, &body));
        }
        let data = if self.wrapped { body.pointer("/data/data") } else { body.get("data") };
        match data {
            Some(Value::Object(data)) => self.value(server, data),
            Some(Value::Null) => Err(SecretError::Missing(format!("{server} has nothing at {}", self.path))),
            _ => Err(server.unexpected(&format!("{} is no key-value data of this engine's version", self.path))),
        }
    }

    fn value(&self, server: &Server, data: &Map<String, Value>) -> Result<SecretString, SecretError> {
        match data.get(&self.field) {
            Some(Value::String(text)) => Ok(text.as_str().into()),
            None | Some(Value::Null) => {
                Err(SecretError::Missing(format!("{} of {server} has no field {:?}", self.path, self.field)))
            }
            Some(other) => Ok(other.to_string().into()),
        }
    }
}

/// A header that is never logged.
pub(super) fn sensitive(text: &str) -> HeaderValue {
    // What is no text for a header is refused by the server, as the empty one is.
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::members::tests::expand;

    fn entry() -> Value {
        json!({
            "server": {"url": "https://vault.example.com/prefix/", "namespace": "team/$ENVIRONMENT",
                "auth": {"name": "jwt", "path": "gitlab", "data": {"jwt": "$ID_TOKEN", "role": "$ENVIRONMENT"}}},
            "engine": {"name": "kv-v2", "path": "kv"}, "path": "$ENVIRONMENT/db", "field": "password",
        })
    }

    fn read(entry: &Value) -> Result<VaultSecret, SecretError> {
        VaultSecret::read(&Members::expanded(entry, &expand))
    }

    #[test]
    fn the_variables_of_the_job_are_put_in() {
        let secret = read(&entry()).expect("readable");
        assert_eq!(secret.jwt.expose_secret(), "the.jwt");
        assert_eq!((secret.namespace.as_str(), secret.role.as_str()), ("team/prod", "prod"));
        assert_eq!((secret.place.path.as_str(), secret.place.wrapped), ("kv/data/prod/db", true));
    }

    #[test]
    fn what_cannot_work_is_a_wrong_setting_before_anything_is_sent() {
        for (pointer, wrong) in [
            ("/server/url", json!("vault.example.com")),
            ("/server/url", json!("file:///etc/passwd")),
            ("/server/auth/name", json!("approle")),
            ("/server/auth/data/jwt", json!("$NO_SUCH_TOKEN")),
            ("/engine/name", json!("transit")),
        ] {
            let mut entry = entry();
            *entry.pointer_mut(pointer).expect("a member") = wrong;
            assert!(matches!(read(&entry), Err(SecretError::Configuration(_))), "{entry}");
        }
    }

    #[test]
    fn a_path_stays_within_the_api() {
        let server = read(&entry()).expect("readable").server;
        for (path, expected) in [
            ("kv/data/a", Some("https://vault.example.com/prefix/v1/kv/data/a")),
            ("/kv//data/a/", Some("https://vault.example.com/prefix/v1/kv/data/a")),
            ("kv/a b?x#y%2e", Some("https://vault.example.com/prefix/v1/kv/a%20b%3Fx%23y%252e")),
            ("kv/../../latest/meta-data", None),
            ("kv/./a", None),
        ] {
            assert_eq!(server.url(path).ok().as_ref().map(Url::as_str), expected, "{path}");
        }
    }

    #[test]
    fn an_answer_is_the_jobs_fault_the_servers_or_nobodys() {
        let server = read(&entry()).expect("readable").server;
        let body = json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]});
        let judge = |status| server.refused("x", StatusCode::from_u16(status).expect("a status"), &body);
        for status in [307, 400, 401, 403, 404] {
            assert!(matches!(judge(status), SecretError::Configuration(_)), "{status}");
        }
        for status in [429, 500, 502, 503] {
            assert!(matches!(judge(status), SecretError::Unavailable(_)), "{status}");
        }
        assert!(matches!(judge(418), SecretError::Unexpected(_)));
        assert!(judge(403).to_string().ends_with("answered 403 to x: 1 error occurred: * permission denied"));
    }
}
