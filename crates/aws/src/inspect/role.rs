//! What IAM says about a role.

use serde_json::Value;

use crate::errors::CallError;
use crate::session::Session;

/// Whom a role trusts, as GetRole has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleTrust {
    /// With its path.
    pub arn: String,
    /// The trust policy.
    pub trust: Value,
}

/// A role of the caller's account by its name, which has no path; none if there is none. Needs `iam:GetRole`.
pub async fn role(session: &Session, name: &str) -> Result<Option<RoleTrust>, CallError> {
    let question = [("RoleName".to_owned(), name.to_owned())];
    let answer = match session.query("iam", "2010-05-08", "GetRole", &question).await {
        Err(CallError::Refused(refusal)) if refusal.code.starts_with("NoSuchEntity") => return Ok(None),
        answer => answer?,
    };
    let role = answer.child("Role");
    let trust = serde_json::from_str(&percent_decoded(role.text("AssumeRolePolicyDocument")));
    let trust =
        trust.map_err(|error| CallError::NoAnswer(format!("not understood: trust policy of {name}: {error}")))?;
    Ok(Some(RoleTrust { arn: role.text("Arn").to_owned(), trust }))
}

/// IAM encodes policies by RFC 3986. What is no code stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let code = others.get(..2).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_out_of_its_codes() {
        for (text, decoded) in [
            ("%7B%22a%22%3A%20%22%C3%A9%22%7D", "{\"a\": \"\u{e9}\"}"),
            ("{}", "{}"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
        ] {
            assert_eq!(percent_decoded(text), decoded);
        }
    }
}
