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
/// How long nobody asks again for keys that end sooner all the same. Whoever gives them may be in trouble, and they serve meanwhile.
const PAUSE: Duration = Duration::from_secs(30);

/// The usual places for credentials. A call is tried once and takes `answer` at the most: to try again is its caller's part.
pub(crate) fn loader(endpoint_url: Option<&str>, answer: Duration) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(proxies::http_client(endpoint_url))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(answer))
}

pub(crate) fn timeouts(answer: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(answer).build()
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

/// Keys of a provider that may ask a server each time: kept while they are fresh, and to their end while that server is in
/// trouble.
#[derive(Debug)]
pub(crate) struct Keys {
    provider: SharedCredentialsProvider,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Option<Credentials>,
    /// When the provider was asked last, and what it said if it gave none.
    asked: Option<Instant>,
    error: Option<CallError>,
}

impl Keys {
    /// Nothing is asked yet.
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, kept: Mutex::default() }
    }

    pub async fn get(&self) -> Result<Credentials, CallError> {
        let came = Instant::now();
        let mut kept = self.kept.lock().await;
        let age = kept.asked.map_or(Duration::MAX, |asked| asked.elapsed());
        if let Some(keys) = kept.keys.as_ref().filter(|keys| is_fresh(keys.expiry(), age, SystemTime::now())) {
            return Ok(keys.clone());
        }
        // Whoever waited while another one asked has its answer: one after the other they would wait for minutes.
        if let Some(error) = kept.error.as_ref().filter(|_| kept.asked.is_some_and(|asked| asked > came)) {
            return Err(error.clone());
        }
        let given = self.provider.provide_credentials().await;
        kept.asked = Some(Instant::now());
        match given {
            Ok(given) => {
                (kept.keys, kept.error) = (Some(given.clone()), None);
                Ok(given)
            }
            Err(error) => {
                let error = CallError::of_credentials(&error);
                kept.error = Some(error.clone());
                let serves = |keys: &&Credentials| keys.expiry().is_none_or(|ends| ends > SystemTime::now() + PAUSE);
                let old = kept.keys.as_ref().filter(serves).ok_or_else(|| error.clone())?;
                tracing::warn!(%error, "AWS credentials are not renewed; the old ones serve until they end");
                Ok(old.clone())
            }
        }
    }
}

/// Whether keys are taken without asking for others; `age` is since somebody asked last.
fn is_fresh(ends: Option<SystemTime>, age: Duration, now: SystemTime) -> bool {
    match ends {
        None => age < FRESH,
        Some(ends) => ends > now + FRESH || (age < PAUSE && ends > now + PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;

    use super::*;

    /// A server of keys that counts how often it is asked, and gives some only for the first times.
    #[derive(Debug)]
    struct Counting {
        asked: Arc<AtomicU64>,
        life: Duration,
        gives: u64,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if asked >= self.gives {
                return future::ProvideCredentials::new(async {
                    tokio::task::yield_now().await;
                    Err(CredentialsError::not_loaded("in trouble"))
                });
            }
            let ends = SystemTime::now() + self.life;
            future::ProvideCredentials::ready(Ok(Credentials::new("id", "secret", None, Some(ends), "test")))
        }
    }

    fn keys(life: Duration, gives: u64) -> (Keys, Arc<AtomicU64>) {
        let asked = Arc::default();
        (Keys::new(SharedCredentialsProvider::new(Counting { asked: Arc::clone(&asked), life, gives })), asked)
    }

    /// As if they had been asked for so much earlier.
    async fn age(keys: &Keys, by: Duration) {
        let mut kept = keys.kept.lock().await;
        kept.asked = kept.asked.and_then(|asked| asked.checked_sub(by));
    }

    #[tokio::test]
    async fn keys_are_asked_for_once_while_they_are_fresh() {
        for (life, expected) in [(2 * FRESH, 1), (PAUSE / 2, 6)] {
            let (keys, asked) = keys(life, u64::MAX);
            for _ in 0..6 {
                keys.get().await.expect("keys");
            }
            assert_eq!(asked.load(Ordering::Relaxed), expected, "{life:?}");
        }
    }

    #[tokio::test]
    async fn keys_that_are_not_renewed_serve_to_their_end_and_are_asked_for_now_and_then() {
        let (renewed, asked) = keys(FRESH / 2, 1);
        for _ in 0..3 {
            age(&renewed, 2 * PAUSE).await;
            for _ in 0..3 {
                renewed.get().await.expect("the old keys");
            }
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        let (over, _) = keys(PAUSE / 2, 1);
        over.get().await.expect("keys");
        over.get().await.expect_err("they end too soon, and there are no others");
    }

    #[tokio::test]
    async fn those_who_waited_for_an_answer_do_not_ask_once_more() {
        let (keys, asked) = keys(FRESH, 0);
        let answers = futures::future::join_all((0..5).map(|_| keys.get())).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn keys_without_an_end_are_looked_at_again_all_the_same() {
        let now = SystemTime::now();
        assert!(is_fresh(None, FRESH / 2, now) && !is_fresh(None, 2 * FRESH, now));
        assert!(is_fresh(Some(now + 2 * FRESH), 2 * FRESH, now));
        assert!(!is_fresh(Some(now + FRESH / 2), FRESH, now), "and those that end soon, well before their end");
    }
}
