//! What a call that gave no result means. ECS hides throttles in other errors and refusals in successes, so the
//! words count (facts 1.3, 1.4).

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Why one call gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Too many calls, ours or another tool's. Nothing happened.
    #[error("throttled ({0})")]
    Throttled(String),
    /// Connection, time-out or an error of AWS's own. The call may have taken effect.
    #[error("no answer ({0})")]
    NoAnswer(String),
    /// Nothing to sign the call with.
    #[error("no AWS credentials ({0})")]
    NoCredentials(String),
    /// STS is in trouble, or not reached, and there are no keys of the role from before. Nothing happened.
    #[error("STS does not give the role {role} now ({reason})")]
    NoRole { role: String, reason: String },
    /// STS does not give the role that the calls are to be made as. Nothing happened.
    #[error("AWS does not give the role {role} ({refusal})")]
    RoleRefused { role: String, refusal: Refusal },
    /// Understood and refused. Nothing happened.
    #[error("{0}")]
    Refused(Refusal),
}

/// AWS's own words for a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the exception; empty for an entry of `failures[]`.
    pub code: String,
    pub message: String,
}

/// What services call keys that are wrong or have ended (the "Common errors" page of each API reference).
const OF_CREDENTIALS: &[&str] = &[
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

impl Refusal {
    /// AWS does not take the caller's keys, or not any more. Who it is was not even asked.
    pub fn is_of_credentials(&self) -> bool {
        OF_CREDENTIALS.contains(&self.code.as_str())
    }

    /// The caller is known, and may not do this.
    pub fn is_denial(&self) -> bool {
        let names = ["AccessDenied", "UnauthorizedOperation", "NotAuthorized"];
        names.iter().any(|name| self.code.contains(name))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => f.write_str(message),
            (code, "") => f.write_str(code),
            (code, message) => write!(f, "{code}: {message}"),
        }
    }
}

const THROTTLE_CODES: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "EC2ThrottledException",
    "SlowDown",
];

/// EC2 throttles underneath ECS arrive as an `InvalidParameterException` with these words in it.
const THROTTLE_WORDS: &[&str] = &["rate exceeded", "request limit exceeded", "requestlimitexceeded", "throttl"];

/// What an answer with an error means, by its status and words.
pub(crate) fn of_answer(status: u16, code: &str, message: &str) -> CallError {
    let refusal = Refusal { code: code.to_owned(), message: message.to_owned() };
    let words = message.to_lowercase();
    if status == 429 || THROTTLE_CODES.contains(&code) || THROTTLE_WORDS.iter().any(|word| words.contains(word)) {
        CallError::Throttled(refusal.to_string())
    // 501 is no trouble: whoever answers there has no such call.
    } else if (status >= 500 && status != 501)
        || ["ServerException", "InternalFailure", "RequestTimeout"].contains(&code)
    {
        CallError::NoAnswer(format!("{status} {refusal}"))
    } else {
        CallError::Refused(refusal)
    }
}

impl CallError {
    pub(crate) fn of_sdk<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                match (answer.err().code(), answer.err().message()) {
                    // A proxy's page, or an answer cut short.
                    (None, None) if status < 400 => Self::NoAnswer(chain(answer.err())),
                    (code, message) => of_answer(status, code.unwrap_or_default(), message.unwrap_or_default()),
                }
            }
            // The SDK finds out about missing credentials in either phase, and has no type for it.
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_)
                if chain(error).to_lowercase().contains("credential") =>
            {
                Self::of_credentials(error)
            }
            SdkError::ConstructionFailure(_) => Self::Refused(Refusal {
                code: String::new(),
                message: format!("the call cannot be made: {}", chain(error)),
            }),
            _ => Self::NoAnswer(chain(error)),
        }
    }

    /// Why there was nothing to sign a call with. Where that was the end of a call of our own, it is that call's error.
    pub(crate) fn of_credentials(error: &(dyn Error + 'static)) -> Self {
        let mut last = error;
        loop {
            if let Some(own) = last.downcast_ref::<Self>() {
                return own.clone();
            }
            match last.source() {
                Some(cause) => last = cause,
                None => break,
            }
        }
        tracing::debug!(error = chain(error), "no AWS credentials");
        // The rest lists every place where they could have been.
        let reason = last.to_string();
        let reason =
            reason.lines().next().unwrap_or_default().trim_end_matches("Attempted:").trim_end_matches([' ', '.']);
        Self::NoCredentials(reason.to_owned())
    }
}

/// Exponential, with `jitter` in 0..1 so that those who failed together do not come back together.
pub(crate) fn backoff(tries: u32, first: Duration, most: Duration, jitter: f64) -> Duration {
    let full = first.saturating_mul(2u32.saturating_pow(tries.min(16))).min(most);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// An error and its causes in one line; the SDK's own messages only name the phase.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aws_credential_types::provider::error::CredentialsError;

    use super::*;

    fn refused(code: &str, message: &str) -> Refusal {
        Refusal { code: code.into(), message: message.into() }
    }

    #[test]
    fn a_throttle_is_known_by_its_code_its_status_or_its_words() {
        for (status, code, message) in [
            (400, "ThrottlingException", "Rate exceeded"),
            (400, "ClientException", "Rate exceeded"),
            (429, "", ""),
            (503, "SlowDown", ""),
            (
                400,
                "InvalidParameterException",
                "Error retrieving security group information for [sg-1]: Request limit exceeded. \
                 (ErrorCode: RequestLimitExceeded)",
            ),
        ] {
            assert!(matches!(of_answer(status, code, message), CallError::Throttled(_)), "{status} {code} {message}");
        }
    }

    #[test]
    fn after_an_error_of_its_own_ecs_may_have_done_it() {
        for (status, code) in [(500, "ServerException"), (502, ""), (503, ""), (504, ""), (400, "ServerException")] {
            assert!(
                matches!(of_answer(status, code, "Service Unavailable"), CallError::NoAnswer(_)),
                "{status} {code}"
            );
        }
    }

    #[test]
    fn a_call_that_is_not_there_is_a_refusal() {
        assert!(matches!(of_answer(501, "NotImplemented", ""), CallError::Refused(_)));
    }

    #[test]
    fn a_refusal_of_keys_a_denial_and_the_rest_are_told_apart() {
        for (code, of_credentials, is_denial) in [
            ("ExpiredTokenException", true, false),
            ("RequestExpired", true, false),
            ("AuthFailure", true, false),
            ("AccessDenied", false, true),
            ("AccessDeniedException", false, true),
            ("UnauthorizedOperation", false, true),
            ("NotAuthorizedException", false, true),
            ("NoSuchResourceException", false, false),
            ("", false, false),
        ] {
            let refusal = refused(code, "words");
            assert_eq!((refusal.is_of_credentials(), refusal.is_denial()), (of_credentials, is_denial), "{code}");
        }
    }

    #[test]
    fn a_client_error_is_a_refusal() {
        let error = of_answer(400, "ClusterNotFoundException", "Cluster not found.");
        assert_eq!(error, CallError::Refused(refused("ClusterNotFoundException", "Cluster not found.")));
        assert_eq!(error.to_string(), "ClusterNotFoundException: Cluster not found.");
    }

    #[test]
    fn the_error_of_an_own_call_is_found_below_the_sdks() {
        let own = CallError::RoleRefused { role: "r".into(), refusal: refused("AccessDenied", "no") };
        let wrapped = CredentialsError::provider_error(own.clone());
        assert_eq!(CallError::of_credentials(&wrapped), own);
        let other = CredentialsError::not_loaded("no provider in chain");
        assert!(
            matches!(CallError::of_credentials(&other), CallError::NoCredentials(text) if text.contains("no provider"))
        );
    }

    #[test]
    fn words_of_throttles_are_in_lower_case() {
        for word in THROTTLE_WORDS {
            assert_eq!(*word, word.to_lowercase(), "can never be found");
        }
    }

    #[test]
    fn the_wait_grows_to_its_limit_and_never_vanishes() {
        let wait = |tries, jitter| backoff(tries, Duration::from_millis(500), Duration::from_secs(10), jitter);
        assert_eq!(wait(0, 1.0), Duration::from_millis(500));
        assert_eq!(wait(3, 1.0), Duration::from_secs(4));
        assert_eq!(wait(60, 1.0), Duration::from_secs(10));
        assert_eq!(wait(0, 0.0), Duration::from_millis(250));
    }
}
