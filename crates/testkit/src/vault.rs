//! A small Vault on loopback: logins with a JWT, and the two versions of the key-value engine, as Vault documents them and no
//! laxer. It is an OpenBao too: the login may be in a request's headers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A JWT that the server trusts, whoever has it.
pub const JWT: &str = "header.claims.signature-of-the-story";
pub const ROLE: &str = "ci";
/// Where the method `jwt` is mounted, and the role that it has there; the second is what GitLab's secrets manager has.
const LOGINS: [(&str, &str); 2] = [("auth/jwt/login", ROLE), ("auth/pipeline_jwt/login", "all_pipelines")];

pub struct Vault {
    url: String,
    world: Arc<World>,
    server: JoinHandle<()>,
}

struct World {
    /// What every request must name, if there is one.
    namespace: Option<&'static str>,
    held: watch::Sender<bool>,
    state: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By API path without `v1/`, as it is stored.
    secrets: HashMap<String, Value>,
    tokens: Vec<String>,
    /// Of an issuer of JWTs that is trusted too.
    key: Option<String>,
    /// The status of the next answers, and for how many.
    failing: (u16, usize),
    /// Where requests are sent on to.
    elsewhere: Option<String>,
    requests: Vec<String>,
}

/// How a request is refused: Vault's `errors`, and whether it was the login in its headers.
struct Refusal {
    status: StatusCode,
    error: String,
    at_login: bool,
}

impl Vault {
    pub async fn start() -> Self {
        Self::in_namespace(None).await
    }

    pub async fn in_namespace(namespace: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let world = Arc::new(World { namespace, held: watch::Sender::new(false), state: Mutex::default() });
        let router = axum::Router::new().fallback(serve).with_state(world.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("the server") });
        Self { url, world, server }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stores a secret of `kv` (version 2 of the engine, mounted at `kv`).
    pub fn put(&self, path: &str, data: Value) {
        self.world.inner().secrets.insert(format!("kv/data/{path}"), json!({"data": data, "metadata": {"version": 1}}));
    }

    /// Stores a secret of version 1 of the engine, mounted at `old`.
    pub fn put_in_version_1(&self, path: &str, data: Value) {
        self.world.inner().secrets.insert(format!("old/{path}"), data);
    }

    /// Stores a secret as GitLab keeps those of a project.
    pub fn put_for_gitlab(&self, name: &str, value: &str) {
        let secret = json!({"data": {"value": value}, "metadata": {"version": 1}});
        self.world.inner().secrets.insert(format!("secrets/kv/data/explicit/{name}"), secret);
    }

    /// Trusts JWTs that are signed with this key (HS256).
    pub fn trust(&self, key: &str) {
        self.world.inner().key = Some(key.to_owned());
    }

    /// The next answers have this status.
    pub fn fail(&self, status: u16, times: usize) {
        self.world.inner().failing = (status, times);
    }

    /// Requests are sent on to another server from now on.
    pub fn redirect(&self, url: &str) {
        self.world.inner().elsewhere = Some(url.to_owned());
    }

    /// Requests wait from now on, until they are let go.
    pub fn hold(&self) {
        self.world.held.send_replace(true);
    }

    pub fn let_go(&self) {
        self.world.held.send_replace(false);
    }

    /// `GET v1/…`, in the order in which they came.
    pub fn requests(&self) -> Vec<String> {
        self.world.inner().requests.clone()
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(State(world): State<Arc<World>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    world.inner().requests.push(format!("{method} {}", uri.path().trim_start_matches('/')));
    let mut held = world.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    answer(&world, &method, &uri, &headers, &body).unwrap_or_else(|refusal| {
        let errors = if refusal.error.is_empty() { vec![] } else { vec![refusal.error] };
        let mut response = (refusal.status, Json(json!({"errors": errors}))).into_response();
        if refusal.at_login {
            response.headers_mut().insert("x-vault-inline-auth-failed", "true".parse().expect("a header"));
        }
        response
    })
}

fn answer(world: &World, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Response, Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut inner = world.inner();
    if inner.failing.1 > 0 {
        inner.failing.1 -= 1;
        let status = StatusCode::from_u16(inner.failing.0).expect("a status");
        return Err(refusal(status, "Vault is sealed"));
    }
    if let Some(elsewhere) = &inner.elsewhere {
        return Ok((StatusCode::TEMPORARY_REDIRECT, [("location", format!("{elsewhere}{uri}"))]).into_response());
    }
    let Some(path) = uri.path().strip_prefix("/v1/") else {
        return Err(refusal(StatusCode::NOT_FOUND, ""));
    };
    // Asked before the login by clients that want to know whether the server can serve: no credential, no namespace.
    if path == "sys/health" {
        let health = json!({"initialized": true, "sealed": false, "standby": false, "version": "1.17.0"});
        return Ok(Json(health).into_response());
    }
    if header("x-vault-request") != Some("true") || header("x-vault-namespace") != world.namespace {
        return Err(refusal(StatusCode::FORBIDDEN, "permission denied"));
    }
    if let Some((_, role)) = LOGINS.iter().find(|(login, _)| *login == path) {
        if *method != Method::POST && *method != Method::PUT {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "unsupported operation"));
        }
        let data =
            serde_json::from_slice(body).map_err(|_| refusal(StatusCode::BAD_REQUEST, "failed to parse JSON"))?;
        log_in(&data, role, inner.key.as_deref())?;
        let token = format!("hvs.{}", inner.tokens.len());
        inner.tokens.push(token.clone());
        let auth = json!({"client_token": token, "policies": ["ci"], "lease_duration": 60, "renewable": true});
        return Ok(Json(json!({"request_id": "1", "data": null, "auth": auth})).into_response());
    }
    match (header("x-vault-token"), header("x-vault-inline-auth-path")) {
        (Some(token), None) if inner.tokens.iter().any(|known| known == token) => {}
        (None, Some(login)) => {
            let at_login = |refusal| Refusal { at_login: true, ..refusal };
            let role = LOGINS.iter().find(|(path, _)| *path == login).map(|(_, role)| *role);
            let role = role.ok_or_else(|| at_login(refusal(StatusCode::FORBIDDEN, "permission denied")))?;
            log_in(&inline_parameters(headers)?, role, inner.key.as_deref()).map_err(at_login)?;
        }
        _ => return Err(refusal(StatusCode::FORBIDDEN, "permission denied")),
    }
    if *method != Method::GET {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "unsupported operation"));
    }
    if path.split('/').any(|part| part == "forbidden") {
        return Err(refusal(StatusCode::FORBIDDEN, "1 error occurred:\n\t* permission denied\n\n"));
    }
    let data = inner.secrets.get(path).ok_or_else(|| refusal(StatusCode::NOT_FOUND, ""))?;
    Ok(Json(json!({"request_id": "2", "lease_id": "", "lease_duration": 2764800, "data": data})).into_response())
}

fn log_in(data: &Value, the_role: &str, key: Option<&str>) -> Result<(), Refusal> {
    let text = |name: &str| data.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let refuse = |error: &str| Err(refusal(StatusCode::BAD_REQUEST, error));
    match (text("role"), text("jwt")) {
        (None, _) => refuse("missing role"),
        (Some(_), None) => refuse("missing token"),
        (Some(role), _) if role != the_role => refuse(&format!("role {role:?} could not be found")),
        (_, Some(jwt)) if jwt != JWT && !key.is_some_and(|key| is_signed(jwt, key)) => {
            refuse("error validating token: no known key successfully validated the token signature")
        }
        _ => Ok(()),
    }
}

fn is_signed(jwt: &str, key: &str) -> bool {
    let Some((text, signature)) = jwt.rsplit_once('.') else { return false };
    let claims = text.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length");
    mac.update(text.as_bytes());
    let is_genuine = URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| mac.verify_slice(&signature).is_ok());
    is_genuine && claims["exp"].as_u64() > Some(now) && claims["sub"].is_string()
}

/// Each is `{"key": …, "value": …}` in base64 for URLs, without padding.
fn inline_parameters(headers: &HeaderMap) -> Result<Value, Refusal> {
    let mut parameters = json!({});
    let malformed = || Refusal { at_login: true, ..refusal(StatusCode::BAD_REQUEST, "malformed parameter") };
    for (name, value) in headers {
        if name.as_str().starts_with("x-vault-inline-auth-parameter-") {
            let text = URL_SAFE_NO_PAD.decode(value.as_bytes()).map_err(|_| malformed())?;
            let parameter: Value = serde_json::from_slice(&text).map_err(|_| malformed())?;
            let key = parameter["key"].as_str().ok_or_else(malformed)?;
            parameters[key] = parameter["value"].clone();
        }
    }
    Ok(parameters)
}

fn refusal(status: StatusCode, error: &str) -> Refusal {
    Refusal { status, error: error.to_owned(), at_login: false }
}
