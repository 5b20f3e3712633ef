//! `id_tokens`: JSON web tokens by which a job shows who it is to others.
//!
//! GitLab signs them with RS256 and publishes the key. These are signed with HS256 and a key of the server's own
//! ([`super::Server::id_token_key`]), so that who is to trust them needs no RSA; claims and shape are GitLab's.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::ci::IdToken;
use super::job::Job;
use super::payload;
use super::state::{Pipeline, Shared, State};

pub(super) fn sign(shared: &Shared, state: &State, pipeline: &Pipeline, job: &Job, token: &IdToken) -> String {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = seconds(SystemTime::now());
    let (namespace, _) = payload::project_names(&shared.config.project_path);
    let (path, kind, name) = (&shared.config.project_path, pipeline.git_ref.kind(), pipeline.git_ref.name());
    let audience = match token.audiences.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    let mut claims = json!({
        "iss": shared.url,
        "aud": audience,
        "sub": format!("project_path:{path}:ref_type:{kind}:ref:{name}"),
        "iat": now,
        "nbf": now.saturating_sub(5),
        "exp": now + payload::timeout(shared, state, job),
        "jti": uuid::Uuid::new_v4().to_string(),
        "namespace_id": "1",
        "namespace_path": namespace,
        "project_id": super::PROJECT_ID.to_string(),
        "project_path": path,
        "project_visibility": "private",
        "user_id": "1",
        "user_login": "root",
        "user_email": "admin@example.com",
        "pipeline_id": pipeline.id.to_string(),
        "job_id": job.id.to_string(),
        "ref": name,
        "ref_type": kind,
        "ref_path": pipeline.git_ref.full(),
        "ref_protected": state.is_protected(pipeline.id).to_string(),
        "sha": pipeline.commit.sha,
    });
    if let Some(environment) = &job.definition.environment {
        claims["environment"] = json!(environment.name);
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(shared.id_token_key.as_bytes()).expect("a key of any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
