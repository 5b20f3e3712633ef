//! What a job may choose: the task definition of its task, and the role that starts it. Job code is hostile, so a
//! pattern is matched part by part: a `*` never reaches beyond its own part of a name.

use super::config::FargateConfig;

/// The names are those of GitLab's Fargate driver.
const TASK_DEFINITION: &str = "FARGATE_TASK_DEFINITION";
const PLATFORM_VERSION: &str = "FARGATE_PLATFORM_VERSION";

/// What the task of one job is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub task_definition: String,
    /// None is what the runner's configuration says.
    pub platform_version: Option<String>,
}

/// A job asks for something that it may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("{0:?} does not name a task definition: write family, family:revision or an ARN")]
    NoTaskDefinition(String),
    #[error("this runner does not allow the task definition {asked:?}; it allows {allowed}")]
    TaskDefinition { asked: String, allowed: String },
}

impl FargateConfig {
    /// What a job gets whose variables `variable` answers: `FARGATE_TASK_DEFINITION` and `FARGATE_PLATFORM_VERSION`
    /// count, and empty ones do not.
    pub fn choice(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Choice, NotAllowed> {
        let asked = |name| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        Ok(Choice {
            task_definition: match asked(TASK_DEFINITION) {
                Some(asked) => self.allowed_task_definition(&asked)?,
                None => self.task_definition.clone(),
            },
            platform_version: asked(PLATFORM_VERSION),
        })
    }

    /// A pattern without account, such as `ci-*`, allows the families of the runner's own account and region: what an ARN
    /// says about them is dropped, so that no other account's definition can pass for it.
    fn allowed_task_definition(&self, asked: &str) -> Result<String, NotAllowed> {
        if asked == self.task_definition {
            return Ok(asked.to_owned());
        }
        let name = TaskDefinition::parse(asked).filter(|name| name.is_well_formed());
        let name = name.ok_or_else(|| NotAllowed::NoTaskDefinition(asked.to_owned()))?;
        let Some(patterns) = &self.allowed_task_definitions else { return Ok(asked.to_owned()) };
        let parsed = patterns.iter().filter_map(|pattern| TaskDefinition::parse(pattern));
        let allowing: Vec<_> = parsed.filter(|pattern| pattern.allows(&name)).collect();
        if allowing.iter().any(|pattern| pattern.place.is_some()) {
            Ok(asked.to_owned())
        } else if allowing.is_empty() {
            let allowed = match patterns.join(", ") {
                none if none.is_empty() => self.task_definition.clone(),
                some => some,
            };
            Err(NotAllowed::TaskDefinition { asked: asked.to_owned(), allowed })
        } else {
            Ok(name.in_own_account())
        }
    }
}

/// What is wrong with an entry of `allowed_task_definitions`.
pub(super) fn task_definition_pattern_mistake(pattern: &str) -> Option<String> {
    TaskDefinition::parse(pattern).is_none().then(|| {
        format!("has the entry {pattern:?}: write family, family:revision or an ARN, with * for any text in one part")
    })
}

/// A task definition's name, or a pattern of such names: `family`, `family:revision`,
/// `arn:partition:ecs:region:account:task-definition/family:revision`.
struct TaskDefinition<'t> {
    /// Partition, region and account of an ARN.
    place: Option<[&'t str; 3]>,
    family: &'t str,
    revision: Option<&'t str>,
}

impl<'t> TaskDefinition<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (place, name) = match text.strip_prefix("arn:") {
            None => (None, text),
            Some(rest) => {
                let mut parts = rest.splitn(5, ':');
                let (partition, service, region, account) =
                    (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
                let name = parts.next()?.strip_prefix("task-definition/")?;
                if service != "ecs" || partition.is_empty() || region.is_empty() || account.is_empty() {
                    return None;
                }
                (Some([partition, region, account]), name)
            }
        };
        let (family, revision) = match name.split_once(':') {
            Some((family, revision)) => (family, Some(revision)),
            None => (name, None),
        };
        let of =
            |text: &str, allowed: fn(char) -> bool| !text.is_empty() && text.chars().all(|c| c == '*' || allowed(c));
        let good = of(family, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && revision.is_none_or(|revision| of(revision, |c| c.is_ascii_digit()))
            && place.iter().flatten().all(|part| of(part, |c| c.is_ascii_alphanumeric() || c == '-'));
        good.then_some(Self { place, family, revision })
    }

    /// A name and not a pattern.
    fn is_well_formed(&self) -> bool {
        let parts = self.place.iter().flatten().chain(&self.revision).chain([&self.family]);
        parts.into_iter().all(|part| !part.contains('*'))
    }

    /// Whether this pattern allows that name. A name without an account is one of the runner's own account, which an
    /// ARN in a pattern may or may not be: it is not taken for it.
    fn allows(&self, name: &TaskDefinition) -> bool {
        let place = match (&self.place, &name.place) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(patterns), Some(parts)) => patterns.iter().zip(parts).all(|(pattern, part)| glob(pattern, part)),
        };
        // No revision is the newest, which is not the one that a pattern may have pinned.
        let revision = self.revision.is_none_or(|pattern| glob(pattern, name.revision.unwrap_or_default()));
        place && revision && glob(self.family, name.family)
    }

    fn in_own_account(&self) -> String {
        match self.revision {
            Some(revision) => format!("{}:{revision}", self.family),
            None => self.family.to_owned(),
        }
    }
}

/// Whether a job may have this role assumed (its variable `ROLE_ARN`); no list allows every role.
pub fn role_is_allowed(patterns: Option<&[String]>, arn: &str) -> bool {
    let Some(arn) = role(arn) else { return false };
    let allows = |pattern: &String| {
        role(pattern).is_some_and(|pattern| {
            pattern.len() == arn.len() && pattern.iter().zip(&arn).all(|(pattern, part)| glob(pattern, part))
        })
    };
    !arn.iter().any(|part| part.contains('*')) && patterns.is_none_or(|patterns| patterns.iter().any(allows))
}

/// What is wrong with an entry of `AllowedRoles`.
pub fn role_pattern_mistake(pattern: &str) -> Option<String> {
    role(pattern).is_none().then(|| {
        format!(
            "has the entry {pattern:?}: write the ARN of a role, such as \
             \"arn:aws:iam::111122223333:role/ci-*\", with * for any text in one part"
        )
    })
}

/// Partition, account, path and name of `arn:partition:iam::account:role/path/name`.
fn role(arn: &str) -> Option<Vec<&str>> {
    let (partition, rest) = arn.strip_prefix("arn:")?.split_once(":iam::")?;
    let (account, name) = rest.split_once(":role/")?;
    let parts: Vec<_> = [partition, account].into_iter().chain(name.split('/')).collect();
    // IAM's own alphabet of role names.
    let is_named =
        |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "*+=,.@_-".contains(c));
    parts.iter().all(is_named).then_some(parts)
}

/// `*` stands for any text, also none.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
