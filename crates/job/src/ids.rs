//! Identities, one type each, so that none can stand where another belongs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// GitLab's id of a job; unique within one GitLab instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job:{}", self.0)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, ":{}"), self.0)
            }
        }
    };
}

text_id!(
    /// The full ARN of an ECS task: `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`.
    TaskArn,
    "task"
);
text_id!(
    /// Names one installation of the manager towards GitLab: `s_` or `r_` and 12 characters (protocol 1.5).
    SystemId,
    "system"
);
text_id!(
    /// The part of a runner token that may be shown: nine characters after the prefix (protocol 1.1).
    ShortToken,
    "runner"
);

impl TaskArn {
    /// The last part of the ARN, as the ECS console shows it.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl ShortToken {
    /// Must be computed exactly as GitLab's runner does: cache object names contain it (protocol 1.1).
    pub fn of(token: &str) -> Self {
        Self(without_prefix(token).chars().take(9).collect())
    }
}

fn without_prefix(token: &str) -> &str {
    if let Some(rest) = token.strip_prefix("glrt-") {
        return without_kind(rest);
    }
    for prefix in ["glrtr-", "glcbt-"] {
        if let Some(rest) = token.strip_prefix(prefix) {
            return rest;
        }
    }
    // A legacy registration token: `GR` and seven hexadecimal digits.
    if let Some(rest) = token.strip_prefix("GR")
        && rest.len() >= 7
        && rest.bytes().take(7).all(|byte| byte.is_ascii_hexdigit())
    {
        return &rest[7..];
    }
    without_kind(token)
}

fn without_kind(token: &str) -> &str {
    ["t1_", "t2_", "t3_"].iter().find_map(|kind| token.strip_prefix(kind)).unwrap_or(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_token_drops_every_known_prefix() {
        for (token, short) in [
            ("glrt-t1_abcdefghijkl", "abcdefghi"),
            ("glrt-abcdefghijkl", "abcdefghi"),
            ("t2_abcdefghijkl", "abcdefghi"),
            ("glrtr-abcdefghijkl", "abcdefghi"),
            ("glcbt-64_xyzuvw", "64_xyzuvw"),
            ("GR1348941abcdefghijkl", "abcdefghi"),
            ("abc", "abc"),
            ("", ""),
        ] {
            assert_eq!(ShortToken::of(token).as_str(), short, "{token}");
        }
    }

    #[test]
    fn a_task_is_called_by_the_end_of_its_arn() {
        assert_eq!(TaskArn::new("arn:aws:ecs:eu-west-1:1:task/ci-dev/0a1b").id(), "0a1b");
    }
}
