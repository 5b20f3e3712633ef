//! STS: who the caller is, and keys of a role. Signatures are not checked, so whoever has no role is the same user.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use rand::distr::{Alphanumeric, SampleString};

use super::accounts::{ACCOUNT, Caller, Role, account_of};
use super::ec2_api::Parameters;
use super::failure::Failure;
use super::record::GivenKey;
use super::state::State;
use super::xml;

/// STS's limit for a role that takes another.
const LONGEST_OF_A_CHAIN: Duration = Duration::from_secs(3600);
/// How long keys are known after their end.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// A role that was taken by AssumeRole, as the caller of everything that is signed with its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleSession {
    /// Its ARN, as it was asked for.
    pub role: String,
    pub name: String,
    /// The session tags.
    pub tags: BTreeMap<String, String>,
}

/// What one access key stands for.
#[derive(Debug)]
pub(super) struct Taken {
    pub session: RoleSession,
    pub account: String,
    pub expires: Timestamp,
}

/// The calls that are STS's and not EC2's.
pub(super) fn serves(action: &str) -> bool {
    ["AssumeRole", "GetCallerIdentity"].contains(&action)
}

pub(super) fn answer(
    state: &mut State,
    roles: &[Role],
    action: &str,
    parameters: &Parameters,
    caller: &Caller,
    now: Timestamp,
) -> Result<Response, Failure> {
    let (result, key) = match action {
        "AssumeRole" => assume_role(state, roles, parameters, caller, now).map(|(result, key)| (result, Some(key)))?,
        _ => (get_caller_identity(caller), None),
    };
    let metadata = xml::element("ResponseMetadata", &[xml::text("RequestId", &xml::request_id())]);
    let namespace = "xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"";
    let result = xml::element(&format!("{action}Result"), &result);
    let body = format!("<{action}Response {namespace}>{result}{metadata}</{action}Response>");
    let mut answer = xml::answer(StatusCode::OK, body);
    if let Some(key) = key {
        answer.extensions_mut().insert(key);
    }
    Ok(answer)
}

fn get_caller_identity(caller: &Caller) -> Vec<String> {
    let (arn, user) = caller.identity();
    vec![xml::text("Arn", &arn), xml::text("UserId", &user), xml::text("Account", &caller.account)]
}

fn assume_role(
    state: &mut State,
    roles: &[Role],
    parameters: &Parameters,
    caller: &Caller,
    now: Timestamp,
) -> Result<(Vec<String>, GivenKey), Failure> {
    let (session, mut lifetime) = read(parameters)?;
    if caller.session.is_some() && lifetime > LONGEST_OF_A_CHAIN {
        let message =
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
        return Err(Failure::new("ValidationError", message));
    }
    let mut account = ACCOUNT.to_owned();
    if !roles.is_empty() {
        let role = given(roles, &session.role, parameters.get("ExternalId"), caller)?;
        lifetime = lifetime.min(role.keys_live);
        account = account_of(&role.arn).to_owned();
    }
    let (arn, id) = session.identity(&account);
    // The keys of roles begin so, and are 20 characters long.
    let key = format!("ASIA{}", Alphanumeric.sample_string(&mut rand::rng(), 16).to_ascii_uppercase());
    let expires = now + lifetime;
    // Those that are just over are still known, to be told so.
    state.sessions.retain(|_, taken| taken.expires + REMEMBERED > now);
    state.sessions.insert(key.clone(), Taken { session, account, expires });
    let keys = [
        xml::text("AccessKeyId", &key),
        xml::text("SecretAccessKey", &Alphanumeric.sample_string(&mut rand::rng(), 40)),
        xml::text("SessionToken", &Alphanumeric.sample_string(&mut rand::rng(), 200)),
        xml::text("Expiration", &format!("{expires:.0}")),
    ];
    let user = [xml::text("Arn", &arn), xml::text("AssumedRoleId", &id)];
    Ok((vec![xml::element("Credentials", &keys), xml::element("AssumedRoleUser", &user)], GivenKey(key)))
}

impl RoleSession {
    /// The ARN and the id of whoever calls with its keys.
    pub(super) fn identity(&self, account: &str) -> (String, String) {
        let role = self.role.rsplit('/').next().unwrap_or_default();
        (
            format!("arn:aws:sts::{account}:assumed-role/{role}/{}", self.name),
            format!("AROAEMBEDDEDFARGATE00:{}", self.name),
        )
    }
}

/// The role, if its trust policy lets the caller take it. STS does not tell which part of it is at fault.
fn given<'r>(roles: &'r [Role], arn: &str, external_id: Option<&String>, caller: &Caller) -> Result<&'r Role, Failure> {
    let is_trusted = |role: &Role| {
        let is_caller = |trusted: &String| {
            *trusted == caller.access_key || caller.session.as_ref().is_some_and(|session| session.role == *trusted)
        };
        role.trusts.is_empty() || role.trusts.iter().any(is_caller)
    };
    let says_it = |role: &Role| role.external_id.is_none() || role.external_id.as_ref() == external_id;
    roles.iter().find(|role| role.arn == arn).filter(|role| is_trusted(role) && says_it(role)).ok_or_else(|| {
        let (user, _) = caller.identity();
        Failure::denied(format!("User: {user} is not authorized to perform: sts:AssumeRole on resource: {arn}"))
    })
}

/// The request and its limits, which are those of STS's API model.
fn read(parameters: &Parameters) -> Result<(RoleSession, Duration), Failure> {
    let text = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let (role, name) = (text("RoleArn"), text("RoleSessionName"));
    if !(20..=2048).contains(&role.len()) || !is_role(&role) {
        return Err(Failure::new("ValidationError", format!("{role} is invalid")));
    }
    let length = name.chars().count();
    if !(2..=64).contains(&length) || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)) {
        return Err(constraint(
            &name,
            "roleSessionName",
            "Member must satisfy regular expression pattern: [\\w+=,.@-]{2,64}",
        ));
    }
    let seconds = match parameters.get("DurationSeconds") {
        None => Some(3600),
        Some(text) => text.parse().ok().filter(|seconds| (900..=43_200).contains(seconds)),
    };
    let seconds = seconds.ok_or_else(|| {
        constraint(&text("DurationSeconds"), "durationSeconds", "Member must have value from 900 to 43200")
    })?;
    Ok((RoleSession { role, name, tags: tags(parameters)? }, Duration::from_secs(seconds)))
}

fn is_role(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, "iam", "", account, resource] = parts[..] else { return false };
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    is_account && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty() && !name.ends_with('/'))
}

fn tags(parameters: &Parameters) -> Result<BTreeMap<String, String>, Failure> {
    let mut tags = BTreeMap::new();
    for number in 1.. {
        let member = |part: &str| parameters.get(&format!("Tags.member.{number}.{part}"));
        let (key, value) = match (member("Key"), member("Value")) {
            (None, None) => break,
            (key, value) => (key.cloned().unwrap_or_default(), value.cloned().unwrap_or_default()),
        };
        if number > 50 {
            return Err(constraint("tags", "tags", "Member must have length less than or equal to 50"));
        }
        let allowed =
            |text: &str| text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c));
        if !(1..=128).contains(&key.chars().count()) || !allowed(&key) {
            let what = "Member must have 1 to 128 letters, digits, spaces and _.:/=+-@";
            return Err(constraint(&key, &format!("tags.{number}.member.key"), what));
        }
        if value.chars().count() > 256 || !allowed(&value) {
            let what = "Member must have up to 256 letters, digits, spaces and _.:/=+-@";
            return Err(constraint(&value, &format!("tags.{number}.member.value"), what));
        }
        if tags.keys().any(|known: &String| known.eq_ignore_ascii_case(&key)) {
            let message = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(Failure::new("InvalidParameterValue", message));
        }
        tags.insert(key, value);
    }
    Ok(tags)
}

fn constraint(value: &str, name: &str, what: &str) -> Failure {
    let message =
        format!("1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: {what}");
    Failure::new("ValidationError", message)
}
