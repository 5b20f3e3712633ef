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

/// Whether it names one role.
pub(super) fn is_role_arn(arn: &str) -> bool {
    let is_account = |account: &str| account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    role(arn).is_some_and(|parts| is_account(parts[1]) && !arn.contains('*'))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: &str = "arn:aws:ecs:eu-west-1:111122223333:task-definition/";
    const OTHER: &str = "arn:aws:ecs:eu-west-1:999999999999:task-definition/";

    fn config(allowed: Option<&[&str]>) -> FargateConfig {
        FargateConfig {
            task_definition: "ci-default".into(),
            allowed_task_definitions: allowed.map(|allowed| allowed.iter().map(|pattern| (*pattern).into()).collect()),
            ..FargateConfig::default()
        }
    }

    fn choose(allowed: Option<&[&str]>, asked: &str) -> Result<String, NotAllowed> {
        let choice = config(allowed).choice(|name| (name == TASK_DEFINITION).then(|| asked.to_owned()));
        choice.map(|choice| choice.task_definition)
    }

    #[test]
    fn a_job_that_asks_for_nothing_gets_the_runners_own() {
        for allowed in [None, Some(&[][..]), Some(&["big"][..])] {
            for asked in ["", "  ", "ci-default"] {
                assert_eq!(choose(allowed, asked).as_deref(), Ok("ci-default"));
            }
            let choice = config(allowed).choice(|_| None).expect("nothing to refuse");
            assert_eq!((choice.task_definition.as_str(), choice.platform_version), ("ci-default", None));
        }
        let choice = config(Some(&[])).choice(|name| (name == PLATFORM_VERSION).then(|| " 1.4.0 ".to_owned()));
        assert_eq!(choice.expect("any version").platform_version.as_deref(), Some("1.4.0"));
    }

    #[test]
    fn without_a_list_a_job_may_ask_for_every_one_that_is_a_name() {
        for asked in ["big", "big:7", &format!("{OTHER}big:7"), "arn:aws-cn:ecs:cn-north-1:1:task-definition/a_B-1"] {
            assert_eq!(choose(None, asked).as_deref(), Ok(asked));
        }
        for asked in [
            "*",
            "big:*",
            "big:",
            ":7",
            "big:7:8",
            "big:latest",
            "../big",
            "big/../small",
            "b g",
            "big\n7",
            "arn:",
            "arn:aws:ecs",
            "arn:aws:ecs:eu-west-1::task-definition/big",
            "arn:aws:ecs:eu-west-1:1:task/big",
            "arn:aws:s3:::task-definition/big",
        ] {
            assert_eq!(choose(None, asked), Err(NotAllowed::NoTaskDefinition(asked.to_owned())));
        }
    }

    #[test]
    fn a_pattern_allows_what_it_names_and_nothing_beside() {
        let arn = |place: &str, name: &str| format!("{place}{name}");
        for (pattern, asked, taken) in [
            ("ci-dev", "ci-dev".to_owned(), Some("ci-dev".to_owned())),
            ("ci-dev", "ci-dev:7".into(), Some("ci-dev:7".into())),
            ("ci-dev", arn(OWN, "ci-dev:7"), Some("ci-dev:7".into())),
            // Another account's definition cannot pass for it: the runner's own of that name is run.
            ("ci-dev", arn(OTHER, "ci-dev:7"), Some("ci-dev:7".into())),
            ("ci-dev", "ci-dev2".into(), None),
            ("ci-dev", "xci-dev".into(), None),
            ("ci-dev", "CI-DEV".into(), None),
            ("ci-dev", arn(OWN, "ci-dev2:7"), None),
            ("ci-*", "ci-prod:1".into(), Some("ci-prod:1".into())),
            ("ci-*-node", "ci-dev-node".into(), Some("ci-dev-node".into())),
            ("ci-*-node", "ci-node".into(), None),
            ("*", "anything".into(), Some("anything".into())),
            ("*", arn(OTHER, "x:1"), Some("x:1".into())),
            ("ci-dev:7", "ci-dev:7".into(), Some("ci-dev:7".into())),
            ("ci-dev:7", "ci-dev:77".into(), None),
            ("ci-dev:7", "ci-dev".into(), None),
            ("ci-dev:*", "ci-dev".into(), Some("ci-dev".into())),
            (&arn(OWN, "ci-*"), arn(OWN, "ci-dev:7"), Some(arn(OWN, "ci-dev:7"))),
            (&arn(OWN, "ci-*"), arn(OTHER, "ci-dev:7"), None),
            (&arn(OWN, "ci-*"), "ci-dev:7".into(), None),
            (&arn(OWN, "*"), arn("arn:aws:ecs:us-east-1:111122223333:task-definition/", "ci"), None),
            (&arn("arn:*:ecs:*:999999999999:task-definition/", "*"), arn(OTHER, "x:1"), Some(arn(OTHER, "x:1"))),
        ] {
            assert_eq!(choose(Some(&[pattern]), &asked).ok(), taken, "{pattern} {asked}");
        }
    }

    #[test]
    fn a_refusal_names_what_was_asked_for_and_what_there_is() {
        let told = |allowed: &[&str], asked: &str| choose(Some(allowed), asked).expect_err("refused").to_string();
        assert_eq!(
            told(&["ci-*", "tools:3"], "big"),
            "this runner does not allow the task definition \"big\"; it allows ci-*, tools:3"
        );
        assert_eq!(told(&[], "big"), "this runner does not allow the task definition \"big\"; it allows ci-default");
        assert_eq!(
            told(&["*"], "../big"),
            "\"../big\" does not name a task definition: write family, family:revision or an ARN"
        );
    }

    #[test]
    fn a_role_is_allowed_part_by_part() {
        let any: Option<&[String]> = None;
        for (pattern, arn, allowed) in [
            ("arn:aws:iam::111122223333:role/ci-*", "arn:aws:iam::111122223333:role/ci-dev", true),
            ("arn:aws:iam::111122223333:role/ci-*", "arn:aws:iam::999999999999:role/ci-dev", false),
            ("arn:aws:iam::111122223333:role/ci-*", "arn:aws:iam::111122223333:role/ci-x/admin", false),
            ("arn:aws:iam::111122223333:role/ci/*", "arn:aws:iam::111122223333:role/ci/dev", true),
            ("arn:aws:iam::111122223333:role/*", "arn:aws:iam::111122223333:role/ci/dev", false),
            ("arn:aws:iam::*:role/ci", "arn:aws:iam::999999999999:role/ci", true),
            ("arn:*:iam::1*:role/*", "arn:aws:iam::999:role/x:iam::1:role/y", false),
            ("arn:aws:iam::111122223333:role/ci-*", "arn:aws:iam::111122223333:role/ci-*", false),
            ("*", "arn:aws:iam::111122223333:role/ci", false),
        ] {
            assert_eq!(role_is_allowed(Some(&[pattern.to_owned()]), arn), allowed, "{pattern} {arn}");
        }
        assert!(role_is_allowed(any, "arn:aws:iam::111122223333:role/ci"));
        assert!(!role_is_allowed(any, "ci"), "what is no role is nobody's");
        assert!(!role_is_allowed(Some(&[]), "arn:aws:iam::111122223333:role/ci"));
        assert_eq!(role_pattern_mistake("arn:aws:iam::1:role/path/ci-*"), None);
        assert!(role_pattern_mistake("ci-*").is_some());
    }

    proptest! {
        /// Held against the slow and plain meaning of `*`.
        #[test]
        fn a_star_is_any_text(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| plain(rest, &text[at..])),
                    Some((first, rest)) => text.first() == Some(first) && plain(rest, &text[1..]),
                }
            }
            prop_assert_eq!(glob(&pattern, &text), plain(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn nothing_that_is_no_name_is_ever_taken(asked in "\\PC{0,40}") {
            if let Ok(taken) = choose(Some(&["*", "arn:*:ecs:*:*:task-definition/*"]), &asked) {
                prop_assert!(taken.chars().all(|c| c.is_ascii_alphanumeric() || "-_:/".contains(c)), "{taken}");
            }
        }
    }
}
