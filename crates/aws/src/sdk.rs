//! What all calls have in common: how the SDK is set up, and the keys that calls and addresses are signed with.

use std::time::{Duration, Instant, SystemTime};

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::timeout::TimeoutConfig;
use tokio::sync::Mutex;

use crate::errors::CallError;
use crate::proxies;

const CONNECT: Duration = Duration::from_secs(5);
/// Keys that end sooner are asked for anew, for signatures end with them; and keys that are older, for who gives keys without
/// an end may give others meanwhile.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// The usual places for credentials. A call is tried once and takes `answer` at the most: to try again is its caller's part.
pub(crate) fn loader(endpoint_url: Option<&str>, answer: Duration) -> ConfigLoader {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(answer).build();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(proxies::http_client(endpoint_url))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
}

/// Where the calls of a config get their keys.
pub(crate) fn provider(sdk: &SdkConfig) -> SharedCredentialsProvider {
    sdk.credentials_provider().expect("the loader sets the usual chain where nothing else is asked for")
}

/// The keys that STS gave for a role. `how` is the call that asked for them.
pub(crate) fn keys_of_role(
    given: Option<aws_sdk_sts::types::Credentials>,
    role: &str,
    how: &'static str,
) -> Result<Credentials, CallError> {
    let keys = given.ok_or_else(|| CallError::NoCredentials(format!("STS gave none for {role}")))?;
    let ends = SystemTime::try_from(keys.expiration).ok();
    Ok(Credentials::new(keys.access_key_id, keys.secret_access_key, Some(keys.session_token), ends, how))
}

/// Keys of a provider that may ask a server each time: kept while they are fresh.
pub(crate) struct Keys {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<(Credentials, Instant)>>,
}

impl Keys {
    /// Nothing is asked yet.
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, kept: Mutex::default() }
    }

    pub async fn get(&self) -> Result<Credentials, CallError> {
        let mut kept = self.kept.lock().await;
        if let Some((keys, asked)) = &*kept
            && is_fresh(keys.expiry(), asked.elapsed(), SystemTime::now())
        {
            return Ok(keys.clone());
        }
        let keys = self.provider.provide_credentials().await;
        let keys = keys.map_err(|error| CallError::of_credentials(&error))?;
        *kept = Some((keys.clone(), Instant::now()));
        Ok(keys)
    }
}

fn is_fresh(ends: Option<SystemTime>, age: Duration, now: SystemTime) -> bool {
    ends.map_or(age < FRESH, |ends| ends > now + FRESH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use aws_credential_types::provider::future;

    use super::*;

    /// A server of keys that counts how often it is asked.
    #[derive(Debug)]
    struct Counting {
        asked: Arc<AtomicU64>,
        life: Duration,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let ends = SystemTime::now() + self.life;
            future::ProvideCredentials::ready(Ok(Credentials::new("id", "secret", None, Some(ends), "test")))
        }
    }

    #[tokio::test]
    async fn keys_are_asked_for_once_while_they_are_fresh() {
        for (life, expected) in [(2 * FRESH, 1), (FRESH / 2, 6)] {
            let asked = Arc::default();
            let keys = Keys::new(SharedCredentialsProvider::new(Counting { asked: Arc::clone(&asked), life }));
            for _ in 0..6 {
                keys.get().await.expect("keys");
            }
            assert_eq!(asked.load(Ordering::Relaxed), expected, "{life:?}");
        }
    }

    #[test]
    fn keys_without_an_end_are_looked_at_again_all_the_same() {
        let now = SystemTime::now();
        assert!(is_fresh(None, FRESH / 2, now) && !is_fresh(None, 2 * FRESH, now));
        assert!(is_fresh(Some(now + 2 * FRESH), 2 * FRESH, now));
    }
}
