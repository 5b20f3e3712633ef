//! GitLab's own secrets manager: OpenBao, which takes the job's JWT with each request in place of a login.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use job::secret::{ExposeSecret, SecretString};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::SecretError;
use super::members::Members;
use super::vault::{Place, Server, sensitive};

const PATH: HeaderName = HeaderName::from_static("x-vault-inline-auth-path");
/// The part after the last dash is for people; the name of the parameter is in the value.
const JWT: HeaderName = HeaderName::from_static("x-vault-inline-auth-parameter-jwt");
const ROLE: HeaderName = HeaderName::from_static("x-vault-inline-auth-parameter-role");

#[derive(Debug)]
pub(super) struct GitLabSecret {
    server: Server,
    login_path: String,
    jwt: SecretString,
    role: String,
    place: Place,
}

impl GitLabSecret {
    pub fn read(members: &Members<'_>) -> Result<Self, SecretError> {
        let needed = |pointer: &str| {
            members.first(&[pointer]).ok_or_else(|| {
                let name = pointer.trim_start_matches('/').replace('/', ".");
                SecretError::Configuration(format!("GitLab sent no {name} for its secrets manager"))
            })
        };
        let login_path = match members.first(&["/server/inline_auth/path"]) {
            Some(path) => path,
            // As GitLab had it at first.
            None => format!("auth/{}/login", needed("/server/inline_auth/auth_mount")?),
        };
        Ok(Self {
            server: Server::read(members)?,
            login_path,
            jwt: needed("/server/inline_auth/jwt")?.into(),
            role: needed("/server/inline_auth/role")?,
            place: Place::read(members)?,
        })
    }

    pub async fn fetch(&self, http: &reqwest::Client) -> Result<SecretString, SecretError> {
        let mut headers = HeaderMap::new();
        let path = HeaderValue::from_str(&self.login_path)
            .map_err(|_| SecretError::Configuration("the path of the login is no text for a header".into()))?;
        headers.insert(PATH, path);
        headers.insert(JWT, parameter("jwt", self.jwt.expose_secret()));
        headers.insert(ROLE, parameter("role", &self.role));
        self.place.read_from(&self.server, http, headers).await
    }
}

fn parameter(name: &str, value: &str) -> HeaderValue {
    sensitive(&URL_SAFE_NO_PAD.encode(json!({"key": name, "value": value}).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_path_is_gitlabs_or_made_of_the_mount() {
        for (inline_auth, expected) in [
            (json!({"path": "auth/gitlab_jwt/cel/login", "jwt": "j", "role": "r"}), Some("auth/gitlab_jwt/cel/login")),
            (json!({"auth_mount": "gitlab_jwt", "jwt": "j", "role": "r"}), Some("auth/gitlab_jwt/login")),
            (json!({"jwt": "j", "role": "r"}), None),
            (json!({"auth_mount": "gitlab_jwt", "role": "r"}), None),
            (json!({"auth_mount": "gitlab_jwt", "jwt": "j"}), None),
        ] {
            let entry = json!({"server": {"url": "https://bao.example.com", "inline_auth": inline_auth},
                "engine": {"name": "kv-v2", "path": "secrets/kv"}, "path": "explicit/x", "field": "value"});
            let secret = GitLabSecret::read(&Members::as_sent(&entry));
            assert_eq!(secret.ok().map(|secret| secret.login_path).as_deref(), expected, "{entry}");
        }
    }
}
