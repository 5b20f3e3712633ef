//! Runners and their managers: registration, verification, removal, token reset (protocol 1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::watch;

use super::answers::{Params, Refusal, header, same_secret};
use super::state::{Shared, State, random_word};
use super::variables::rfc3339;
use super::view::RunnerView;

/// GitLab writes what a manager says about itself at most this often; until then an older answer stands [S].
const MANAGER_UPDATE: Duration = Duration::from_secs(40 * 60);

pub(super) struct Runner {
    pub id: u64,
    pub token: String,
    pub token_expires_at: Option<SystemTime>,
    pub description: String,
    pub maintenance_note: String,
    pub tags: Vec<String>,
    pub run_untagged: bool,
    pub locked: bool,
    pub paused: bool,
    pub ref_protected: bool,
    /// Seconds.
    pub maximum_timeout: Option<u64>,
    /// The value of `X-GitLab-Last-Update`; changes when a job is queued that it may have.
    pub cursor: watch::Sender<String>,
    /// By `system_id`.
    pub managers: BTreeMap<String, Manager>,
    /// Made in the user interface: its token begins with this and is never given by registration.
    prefix: &'static str,
}

#[derive(Default)]
pub(super) struct Manager {
    pub features: Features,
    updated_at: Option<SystemTime>,
}

/// The features that a manager advertised as true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Features(BTreeSet<String>);

impl Features {
    pub(super) fn has(&self, feature: &str) -> bool {
        self.0.contains(feature)
    }

    /// Reads the `info` block and refuses wrong types in it (protocol 2.2).
    pub(super) fn read(params: &Params) -> Result<Option<Self>, Refusal> {
        let Some(info) = params.object("info")? else { return Ok(None) };
        for key in ["name", "version", "revision", "platform", "architecture", "executor", "shell"] {
            info.string(key)?;
        }
        if let Some(config) = info.object("config")? {
            config.string("gpus")?;
        }
        if let Some(labels) = info.object("labels")? {
            for key in labels.keys() {
                labels.string(key)?;
            }
        }
        let Some(features) = info.object("features")? else { return Ok(Some(Self::default())) };
        let mut advertised = BTreeSet::new();
        for key in features.keys() {
            if features.boolean(key)? == Some(true) {
                advertised.insert(key.to_owned());
            }
        }
        Ok(Some(Self(advertised)))
    }
}

impl Runner {
    pub(super) fn may_have(&self, tags: &[String], protected: bool) -> bool {
        let tagged = if tags.is_empty() { self.run_untagged } else { tags.iter().all(|tag| self.tags.contains(tag)) };
        tagged && !self.paused && (protected || !self.ref_protected)
    }

    /// GitLab does not find a runner by a token that has expired [S].
    pub(super) fn has_token(&self, token: &str, now: SystemTime) -> bool {
        self.token == token && self.token_expires_at.is_none_or(|end| now < end)
    }

    pub(super) fn view(&self) -> RunnerView {
        RunnerView {
            id: self.id,
            token: self.token.clone(),
            description: self.description.clone(),
            maintenance_note: self.maintenance_note.clone(),
            tags: self.tags.clone(),
            run_untagged: self.run_untagged,
            locked: self.locked,
            paused: self.paused,
            ref_protected: self.ref_protected,
            maximum_timeout: self.maximum_timeout,
            managers: self.managers.keys().cloned().collect(),
        }
    }

    pub(super) fn tick(&self) {
        self.cursor.send_replace(random_word());
    }

    /// Books a request on its manager.
    pub(super) fn contact(&mut self, system_id: Option<&str>, features: Option<&Features>, now: SystemTime) {
        let manager = self.managers.entry(system_id.unwrap_or("<legacy>").to_owned()).or_default();
        let old = manager.updated_at.and_then(|at| now.duration_since(at).ok()).is_some_and(|age| age < MANAGER_UPDATE);
        if !old {
            manager.features = features.cloned().unwrap_or_default();
            manager.updated_at = Some(now);
        }
    }
}

impl State {
    pub(super) fn add_runner(&mut self, prefix: &'static str, description: String, tags: Vec<String>) -> &mut Runner {
        let id = self.new_runner_id();
        let runner = Runner {
            id,
            token: format!("{prefix}{}", random_word()),
            token_expires_at: None,
            description,
            maintenance_note: String::new(),
            run_untagged: tags.is_empty(),
            tags,
            locked: false,
            paused: false,
            ref_protected: false,
            maximum_timeout: None,
            cursor: watch::Sender::new(random_word()),
            managers: BTreeMap::new(),
            prefix,
        };
        self.runners.entry(id).or_insert(runner)
    }
}

/// What a person may say of a new runner.
struct Wishes {
    description: String,
    maintenance_note: String,
    tags: Vec<String>,
    run_untagged: bool,
    locked: bool,
    paused: bool,
    ref_protected: bool,
    maximum_timeout: Option<u64>,
}

impl Wishes {
    fn read(params: &Params) -> Result<Self, Refusal> {
        let tags = params.list("tag_list")?;
        let run_untagged = params.boolean("run_untagged")?.unwrap_or(true);
        if tags.is_empty() && !run_untagged {
            let why = json!({ "tags_list": ["can not be empty when runner is not allowed to pick untagged jobs"] });
            return Err(Refusal::message(StatusCode::BAD_REQUEST, why));
        }
        let maximum_timeout = params.integer("maximum_timeout")?;
        if maximum_timeout.is_some_and(|seconds| seconds < 600) {
            let why = json!({ "maximum_timeout": ["needs to be at least 10 minutes"] });
            return Err(Refusal::message(StatusCode::BAD_REQUEST, why));
        }
        Ok(Self {
            description: params.string("description")?.unwrap_or_default(),
            maintenance_note: params.string("maintenance_note")?.unwrap_or_default(),
            tags,
            run_untagged,
            locked: params.boolean("locked")?.unwrap_or(false),
            paused: params.boolean("paused")?.unwrap_or(false),
            ref_protected: params.one_of("access_level", &["not_protected", "ref_protected"])?.as_deref()
                == Some("ref_protected"),
            maximum_timeout: maximum_timeout.map(i64::unsigned_abs),
        })
    }

    fn make(self, shared: &Shared, prefix: &'static str) -> Response {
        shared.change(|state| {
            let runner = state.add_runner(prefix, self.description, self.tags);
            runner.token_expires_at = expiry(shared);
            runner.maintenance_note = self.maintenance_note;
            runner.locked = self.locked;
            runner.run_untagged = self.run_untagged;
            runner.paused = self.paused;
            runner.ref_protected = self.ref_protected;
            runner.maximum_timeout = self.maximum_timeout;
            (StatusCode::CREATED, details(runner)).into_response()
        })
    }
}

fn expiry(shared: &Shared) -> Option<SystemTime> {
    shared.config.runner_token_lifetime.map(|lifetime| SystemTime::now() + lifetime)
}

fn details(runner: &Runner) -> Json<serde_json::Value> {
    let expires = runner.token_expires_at.map(|end| rfc3339(Some(end)));
    Json(json!({ "id": runner.id, "token": runner.token, "token_expires_at": expires }))
}

/// `POST runners`, with the registration token.
pub(super) async fn register(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let params = Params::read(&headers, &body)?;
    if !same_secret(&params.required("token")?, &shared.registration_token) {
        return Err(Refusal::message(StatusCode::FORBIDDEN, "403 Forbidden - invalid token supplied"));
    }
    if !shared.config.registration_tokens {
        return Err(Refusal::message(StatusCode::GONE, "410 Gone - runner registration disallowed"));
    }
    Features::read(&params)?;
    Ok(Wishes::read(&params)?.make(&shared, ""))
}

/// `POST user/runners`, with a personal access token.
pub(super) async fn create(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let params = Params::read(&headers, &body)?;
    params.required("runner_type")?;
    let kind = params.one_of("runner_type", &["instance_type", "group_type", "project_type"])?;
    let (prefix, of) = match kind.as_deref() {
        Some("group_type") => ("glrt-t2_", Some("group_id")),
        Some("project_type") => ("glrt-t3_", Some("project_id")),
        _ => ("glrt-t1_", None),
    };
    if let Some(of) = of
        && params.integer(of)?.is_none()
    {
        return Err(Refusal::parameter(format!("{of} is missing")));
    }
    Ok(Wishes::read(&params)?.make(&shared, prefix))
}

/// `POST runners/verify`.
pub(super) async fn verify(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let params = Params::read(&headers, &body)?;
    let token = params.required("token")?;
    let (system_id, features) = (params.string("system_id")?, Features::read(&params)?);
    shared.change(|state| {
        let runner = state.runner_by_token(&token).ok_or_else(Refusal::forbidden)?;
        if system_id.is_some() {
            runner.contact(system_id.as_deref(), features.as_ref(), SystemTime::now());
        }
        Ok(details(runner).into_response())
    })
}

/// `DELETE runners`.
pub(super) async fn unregister(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let token = Params::read(&headers, &body)?.required("token")?;
    shared.change(|state| {
        let id = state.runner_by_token(&token).ok_or_else(Refusal::forbidden)?.id;
        state.runners.remove(&id);
        Ok(StatusCode::NO_CONTENT)
    })
}

/// `DELETE runners/managers`.
pub(super) async fn unregister_manager(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let params = Params::read(&headers, &body)?;
    let (token, system_id) = (params.required("token")?, params.required("system_id")?);
    shared.change(|state| {
        let runner = state.runner_by_token(&token).ok_or_else(Refusal::forbidden)?;
        match runner.managers.remove(&system_id) {
            Some(_) => Ok(StatusCode::NO_CONTENT),
            None => Err(Refusal::not_found("Runner manager")),
        }
    })
}

/// `POST runners/reset_authentication_token`: the old token stops working at once.
pub(super) async fn reset_token(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let token = Params::read(&headers, &body)?.required("token")?;
    let expiry = expiry(&shared);
    shared.change(|state| Ok(renew(state.runner_by_token(&token).ok_or_else(Refusal::forbidden)?, expiry)))
}

/// `POST runners/:id/reset_authentication_token`, with a personal access token.
pub(super) async fn reset_token_by_person(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    authenticate_person(&shared, &headers)?;
    let expiry = expiry(&shared);
    shared.change(|state| Ok(renew(state.runners.get_mut(&id).ok_or_else(|| Refusal::not_found("Runner"))?, expiry)))
}

fn renew(runner: &mut Runner, expiry: Option<SystemTime>) -> Response {
    runner.token = format!("{}{}", runner.prefix, random_word());
    runner.token_expires_at = expiry;
    let expires = expiry.map(|end| rfc3339(Some(end)));
    (StatusCode::CREATED, Json(json!({ "token": runner.token, "token_expires_at": expires }))).into_response()
}

pub(super) fn authenticate_person(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let bearer = || header(headers, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    let token = header(headers, "private-token").or_else(bearer).unwrap_or_default();
    same_secret(token, &shared.personal_access_token).then_some(()).ok_or_else(Refusal::unauthorized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(tags: &[&str]) -> Runner {
        let mut state = State::default();
        state.add_runner("", String::new(), tags.iter().map(|tag| (*tag).to_owned()).collect());
        state.runners.remove(&1).expect("the first runner")
    }

    #[test]
    fn a_runner_has_all_tags_of_its_jobs() {
        let jobs = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        let tagged = runner(&["dev", "fargate"]);
        assert!(tagged.may_have(&jobs(&["dev"]), true));
        assert!(tagged.may_have(&jobs(&["fargate", "dev"]), true));
        assert!(!tagged.may_have(&jobs(&["dev", "gpu"]), true));
        assert!(!tagged.may_have(&jobs(&[]), true), "a tagged runner takes no untagged job");
        assert!(runner(&[]).may_have(&jobs(&[]), true));
        assert!(!runner(&[]).may_have(&jobs(&["dev"]), true));
        let protected = Runner { ref_protected: true, ..runner(&["dev"]) };
        assert!(!protected.may_have(&jobs(&["dev"]), false));
    }

    #[test]
    fn what_a_manager_said_first_stands_for_forty_minutes() {
        let mut runner = runner(&[]);
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let features = Features(BTreeSet::from(["cancel_gracefully".to_owned()]));
        let graceful = |runner: &Runner| runner.managers["s_1"].features.has("cancel_gracefully");
        runner.contact(Some("s_1"), None, start);
        runner.contact(Some("s_1"), Some(&features), start + Duration::from_secs(39 * 60));
        assert!(!graceful(&runner));
        runner.contact(Some("s_1"), Some(&features), start + Duration::from_secs(41 * 60));
        assert!(graceful(&runner));
    }
}
