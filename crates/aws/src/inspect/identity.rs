//! Who calls: STS GetCallerIdentity, which nobody can be forbidden.

use crate::errors::CallError;
use crate::session::Session;

/// As AWS knows the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// 12 digits.
    pub account: String,
    /// Of a user, or of a role's session.
    pub arn: String,
}

pub async fn identity(session: &Session) -> Result<Identity, CallError> {
    let answer = session.query("sts", "2011-06-15", "GetCallerIdentity", &[]).await?;
    Ok(Identity { account: answer.text("Account").to_owned(), arn: answer.text("Arn").to_owned() })
}

impl Identity {
    /// Whose policies count: IAM simulates users and roles, not sessions. The path of a session's role is not known from
    /// it; none for the account's root, whom no policy binds.
    pub fn principal(&self) -> Option<Principal> {
        let (partition, resource) = match self.arn.split(':').collect::<Vec<_>>()[..] {
            ["arn", partition, _, _, _, resource] => (partition, resource),
            _ => return None,
        };
        let mut parts = resource.split('/');
        match parts.next()? {
            "assumed-role" => {
                let role = parts.next()?;
                Some(Principal::Role { name: role.to_owned(), arn: self.iam(partition, &format!("role/{role}")) })
            }
            "user" => Some(Principal::User { arn: self.arn.clone() }),
            _ => None,
        }
    }

    fn iam(&self, partition: &str, resource: &str) -> String {
        format!("arn:{partition}:iam::{}:{resource}", self.account)
    }
}

/// A user or role in IAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// `arn` has no path: IAM's GetRole tells the whole one by the name.
    Role {
        name: String,
        arn: String,
    },
    User {
        arn: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_of_a_session_is_found() {
        let principal = |arn: &str| Identity { account: "123456789012".into(), arn: arn.into() }.principal();
        let role = |arn: &str, name: &str| Some(Principal::Role { name: name.into(), arn: arn.into() });
        assert_eq!(
            principal("arn:aws:sts::123456789012:assumed-role/ci-dev-manager/i-0abc"),
            role("arn:aws:iam::123456789012:role/ci-dev-manager", "ci-dev-manager")
        );
        assert_eq!(
            principal("arn:aws-cn:sts::123456789012:assumed-role/a/b"),
            role("arn:aws-cn:iam::123456789012:role/a", "a")
        );
        let user = "arn:aws:iam::123456789012:user/people/ada";
        assert_eq!(principal(user), Some(Principal::User { arn: user.into() }));
        assert_eq!(principal("arn:aws:iam::123456789012:root"), None);
        assert_eq!(principal("arn:aws:sts::123456789012:federated-user/ada"), None);
        assert_eq!(principal("nonsense"), None);
    }
}
