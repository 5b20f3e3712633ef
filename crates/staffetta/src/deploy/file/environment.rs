//! One `[environments.NAME]` table.

use std::collections::BTreeMap;

use aws::fargate::{CapacityProvider, FargateConfig};
use aws::stack::{Architecture, CacheBucket, Environment, JobRole, Place, RunnerToken};
use serde_json::Value;

use super::place::{Defaults, check_iam_arn, external_id, iam_arn, place};
use super::sizes::size;
use crate::cidr::Cidr;
use crate::config;
use crate::config::section::{Found, Section};
use crate::deploy::regions;

const CPU_AND_MEMORY: (u32, u32) = (1024, 2048);
pub const RETENTION_DAYS: u32 = 30;
/// What CloudWatch Logs takes (facts 10.1).
const RETENTIONS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];
/// An IAM role's inline policies together, without blanks.
const INLINE_POLICY: usize = 10_240;
/// Managed policies of one role, unless AWS was asked for more.
const MANAGED_POLICIES: usize = 10;

pub fn environment(name: &str, mut table: Section, defaults: &Defaults) -> Environment {
    let section = &mut table;
    check_name(section, name);
    let place = place(section, defaults);
    let capacity_providers = capacity_providers(section, &place.region);
    let (cpu, memory) = size(section, CPU_AND_MEMORY);
    let environment = Environment {
        name: name.to_owned(),
        runner_tags: runner_tags(section, name),
        capacity_providers,
        image: image(section),
        cpu,
        memory,
        architecture: architecture(section),
        ephemeral_storage_gib: ephemeral_storage(section),
        job_role: job_role(section, &place),
        execution_role: iam_arn(section, "execution_role", "role", &place),
        manager_role: iam_arn(section, "manager_role", "role", &place),
        permissions_boundary: iam_arn(section, "permissions_boundary", "policy", &place),
        tags: tags(section),
        log_retention_days: retention(section),
        runner_token: runner_token(section),
        cache: section.at_least_one("cache_expire_days").map(|expire_days| CacheBucket { expire_days }),
        external_id: external_id(section, "external_id"),
        manager_cidr: manager_cidr(section),
        place,
    };
    table.finish(&[]);
    environment
}

/// Names of roles and repositories are made of it.
pub fn name_mistake(name: &str) -> Option<String> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.chars().count() > 20 {
        return Some(format!(
            "has {} characters: at most 20 leave room for what AWS's names need",
            name.chars().count()
        ));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(letters) {
        return Some("must begin with a letter and have only lower-case letters, digits and -".into());
    }
    (name.ends_with('-') || name.contains("--")).then(|| "must not end with - or have two of them in a row".into())
}

fn check_name(section: &mut Section, name: &str) {
    if let Some(mistake) = name_mistake(name) {
        section.mistake(section.at, format!("the environment's name {name:?} {mistake}"));
    }
}

fn runner_tags(section: &mut Section, name: &str) -> Vec<String> {
    let Some(Found { value: tags, .. }) = section.texts("runner_tags") else { return vec![name.to_owned()] };
    if tags.is_empty() || tags.iter().any(|tag| tag.trim().is_empty() || tag.contains(',')) {
        section.wrong(
            "runner_tags",
            "must have one tag or more, each without commas: jobs choose their environment by it",
        );
    }
    tags
}

fn capacity_providers(section: &mut Section, region: &str) -> Vec<CapacityProvider> {
    const KEY: &str = "capacity_providers";
    let providers = section.sections(KEY, |table| config::capacity_provider(table, ["name", "weight", "base"]));
    if providers.is_empty() {
        return vec![CapacityProvider { name: "FARGATE".into(), weight: 1, base: 0 }];
    }
    for (index, provider) in providers.iter().enumerate() {
        if !["FARGATE", "FARGATE_SPOT", ""].contains(&provider.name.as_str()) {
            section.wrong(KEY, &format!("has {:?}: jobs run on FARGATE or FARGATE_SPOT", provider.name));
        }
        if providers[..index].iter().any(|other| other.name == provider.name) {
            section.wrong(KEY, &format!("has {} twice", provider.name));
        }
    }
    let spot = providers.iter().any(|provider| provider.name == "FARGATE_SPOT");
    if spot && regions::is_spot_doubtful(region) {
        let (at, name) = (section.at, section.name_of(KEY));
        let message = format!(
            "`{name}` has FARGATE_SPOT, and AWS is not known to sell it in {region}: see that {{ name = \"FARGATE\" }} stands \
             beside it, if only with weight = 0"
        );
        section.report.warning(at, message);
    }
    let rules = FargateConfig { capacity_providers: providers.clone(), ..FargateConfig::default() };
    for mistake in rules.mistakes().iter().filter(|mistake| mistake.key == KEY) {
        section.wrong(KEY, &mistake.message);
    }
    providers
}

/// An address without a tag is `latest`.
pub fn image(section: &mut Section) -> Option<String> {
    let image = section.filled_text("image")?.value;
    if image.contains(char::is_whitespace) || image.contains("://") {
        section.wrong("image", "must be an image's name, such as \"registry.example.com/ci/node:22\"");
    }
    Some(image)
}

pub fn architecture(section: &mut Section) -> Architecture {
    let names = [("x86_64", Architecture::X86_64), ("arm64", Architecture::Arm64)];
    section.one_of("architecture", &names).unwrap_or(Architecture::X86_64)
}

fn ephemeral_storage(section: &mut Section) -> Option<u32> {
    const KEY: &str = "ephemeral_storage_gib";
    let gib = section.number(KEY, "a whole number of GiB")?;
    if !(21..=200).contains(&gib) {
        section.wrong(KEY, "must be from 21 to 200: a task has 20 GiB without it");
    }
    Some(gib)
}

fn job_role(section: &mut Section, place: &Place) -> JobRole {
    let existing = iam_arn(section, "job_role", "role", place);
    let policies = section.words("job_role_policies");
    for why in policies.iter().filter_map(|arn| check_iam_arn(arn, "policy", place).err()) {
        section.wrong("job_role_policies", &why);
    }
    if policies.len() > MANAGED_POLICIES {
        let at = section.at;
        let message = format!(
            "`{}` has {}: AWS lets a role have {MANAGED_POLICIES}, unless the account's quota was raised",
            section.name_of("job_role_policies"),
            policies.len()
        );
        section.report.warning(at, message);
    }
    let inline = inline_policy(section);
    let Some(existing) = existing else { return JobRole::Made { policies, inline } };
    for key in ["job_role_policies", "job_role_inline_policy"] {
        if section.contains(key) {
            section.wrong(key, "is for a role that is made here, but `job_role` names one: leave one of them out");
        }
    }
    JobRole::Existing(existing)
}

fn inline_policy(section: &mut Section) -> Option<Value> {
    const KEY: &str = "job_role_inline_policy";
    let text = section.filled_text(KEY)?.value;
    let policy = match serde_json::from_str::<Value>(&text) {
        Ok(policy) => policy,
        Err(error) => {
            section.wrong(KEY, &format!("is not JSON: {error}"));
            return None;
        }
    };
    if let Some(why) = policy_mistake(&policy) {
        section.wrong(KEY, &format!("is not a policy: {why}"));
    }
    let length = policy.to_string().chars().filter(|c| !c.is_whitespace()).count();
    if length > INLINE_POLICY {
        section.wrong(
            KEY,
            &format!(
                "has {length} characters, and a role's own policy may have {INLINE_POLICY}: make a managed policy and name \
                 it in `job_role_policies`"
            ),
        );
    }
    Some(policy)
}

/// The grammar of IAM's policies, as far as a mistake in it would only show half-way through `apply`.
fn policy_mistake(policy: &Value) -> Option<String> {
    let Some(object) = policy.as_object() else { return Some("it is no JSON object".into()) };
    if object.get("Version").is_some_and(|version| version != "2012-10-17" && version != "2008-10-17") {
        return Some("its Version must be \"2012-10-17\"".into());
    }
    let known = ["Version", "Id", "Statement"];
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Some(format!("it has {key:?}"));
    }
    let statements = match object.get("Statement") {
        Some(Value::Array(statements)) if !statements.is_empty() => statements.iter().collect(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => return Some("it has no Statement".into()),
    };
    statements.iter().enumerate().find_map(|(index, statement)| {
        let has = |key: &str| statement.get(key).is_some();
        let why = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow" | "Deny") if has("Principal") || has("NotPrincipal") => {
                "names a Principal, which a role's policy has not"
            }
            Some("Allow" | "Deny") if has("Action") == has("NotAction") => "needs an Action, or a NotAction",
            Some("Allow" | "Deny") if has("Resource") == has("NotResource") => "needs a Resource, or a NotResource",
            Some("Allow" | "Deny") => return None,
            _ => "needs an Effect of \"Allow\" or \"Deny\"",
        };
        Some(format!("statement {} {why}", index + 1))
    })
}

/// AWS's rules for tags; a few of the 50 are for what AWS and this program add.
pub fn tags(section: &mut Section) -> BTreeMap<String, String> {
    let tags = section.named_texts("tags");
    for (key, found) in &tags {
        let fits = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
        let name = section.name_of("tags");
        let (key_length, value_length) = (key.chars().count(), found.value.chars().count());
        let why = if key.to_ascii_lowercase().starts_with("aws:") {
            "begins with aws:, which is AWS's own"
        } else if key.starts_with("staffetta:") {
            "begins with staffetta:, by which this program knows what is its own"
        } else if key.is_empty() || key_length > 128 || value_length > 256 {
            "must have a key of 1 to 128 characters and a value of at most 256"
        } else if !key.chars().chain(found.value.chars()).all(fits) {
            "may have letters, digits, blanks and _.:/=+-@"
        } else {
            continue;
        };
        section.mistake(found.at, format!("`{name}.{key}` {why}"));
    }
    if tags.len() > 40 {
        section.wrong("tags", &format!("has {}: at most 40, since AWS lets things have 50", tags.len()));
    }
    tags.into_iter().map(|(key, found)| (key, found.value)).collect()
}

pub fn retention(section: &mut Section) -> u32 {
    const KEY: &str = "log_retention_days";
    let Some(days) = section.number(KEY, "a whole number of days") else { return RETENTION_DAYS };
    if !RETENTIONS.contains(&days) {
        let near = RETENTIONS.into_iter().min_by_key(|known| known.abs_diff(days)).unwrap_or(RETENTION_DAYS);
        let all: Vec<_> = RETENTIONS.iter().map(u32::to_string).collect();
        section.wrong(KEY, &format!("is {days}, and CloudWatch Logs knows {}: take {near}", all.join(", ")));
    }
    days
}

fn runner_token(section: &mut Section) -> RunnerToken {
    const KEY: &str = "runner_token_secret";
    let Some(Found { value: arn, .. }) = section.filled_text(KEY) else { return RunnerToken::Made };
    let parts: Vec<_> = arn.splitn(7, ':').collect();
    let is_end = |end: &str| end.len() == 6 && end.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match parts[..] {
        ["arn", _, "secretsmanager", _, _, "secret", name] if name.contains(':') => section.wrong(
            KEY,
            "names a part or a version of a secret: give the secret's own ARN, without what follows its name. Its whole text \
             must be the token",
        ),
        // Policies name it, and to IAM nothing less is its ARN.
        ["arn", _, "secretsmanager", _, _, "secret", name] if name.rsplit_once('-').is_some_and(|(_, end)| is_end(end)) => {}
        ["arn", _, "secretsmanager", _, _, "secret", name] if !name.is_empty() => section.wrong(
            KEY,
            "lacks the end that Secrets Manager gave the ARN, such as -AbCdEf: `aws secretsmanager describe-secret` tells it",
        ),
        _ => section.wrong(
            KEY,
            "must be the ARN of a secret in Secrets Manager whose text is the token, such as \
             \"arn:aws:secretsmanager:eu-west-1:123456789012:secret:ci/dev-AbCdEf\"; the token itself does not belong here",
        ),
    }
    RunnerToken::Secret(arn)
}

fn manager_cidr(section: &mut Section) -> Option<String> {
    const KEY: &str = "manager_cidr";
    let cidr = section.filled_text(KEY)?.value;
    match Cidr::parse(&cidr) {
        None => section.wrong(KEY, "must be a range of IPv4 addresses, such as \"10.20.0.0/24\""),
        Some(block) if block.bits() < 8 => {
            section.wrong(KEY, "lets in most of the world: name the network of the manager");
        }
        Some(block) if block.to_string() != cidr => {
            section.wrong(KEY, &format!("has bits behind its prefix: write \"{block}\""));
        }
        Some(_) => {}
    }
    Some(cidr)
}
