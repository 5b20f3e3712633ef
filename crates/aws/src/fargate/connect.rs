//! The way to AWS: clients, credentials, and what all runners of a process share.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_config::Region as RegionName;
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ecs::config::IdentityCache;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::error::BuildError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::buckets::Buckets;
use super::calls::{Api, Calls, Counters};
use super::config::{Credentials, FargateConfig};
use super::describe::Describer;
use super::public_ip::Ec2;
use crate::AssumedRole;
use crate::assume_role::RoleKeys;
use crate::errors::{CallError, backoff};
use crate::sdk;

/// Long enough for ECS's slowest answers; RunTask is repeated with the same token after it.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a call that only looks or stops is repeated before its caller hears of the trouble.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the runners of one process share, by region, endpoint and role: connections, keys, token buckets, describers, counters.
/// One per process; the clones are the same.
#[derive(Clone, Default)]
pub struct Regions {
    known: Arc<tokio::sync::Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    regions: HashMap<RegionKey, Arc<Region>>,
    /// ECS counts the calls of an account, whatever roles make them.
    buckets: HashMap<AccountKey, Arc<Buckets>>,
}

/// One quota of ECS. Without a role the account is that of the manager, whichever it is.
#[derive(PartialEq, Eq, Hash)]
struct AccountKey {
    region: String,
    endpoint_url: Option<String>,
    account: Option<String>,
}

/// All runners of a process have the same credentials, so these stand for the account too.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RegionKey {
    region: Option<String>,
    endpoint_url: Option<String>,
    credentials: Credentials,
    role: Option<AssumedRole>,
}

/// One account and region, and who calls there.
pub(super) struct Region {
    name: String,
    pub ecs: aws_sdk_ecs::Client,
    pub ec2: Ec2,
    role_keys: Option<RoleKeys>,
    buckets: Arc<Buckets>,
    counters: Counters,
    describers: Mutex<HashMap<DescriberKey, Weak<Describer>>>,
}

/// Two views of one cluster: by private and by public address.
#[derive(PartialEq, Eq, Hash)]
struct DescriberKey {
    cluster: String,
    use_public_ip: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no AWS region: set region in [runners.fargate] (Region in ecs.toml), or AWS_REGION in the environment")]
    NoRegion,
    #[error("the session tags of the role cannot be sent: {0}")]
    BadRole(BuildError),
    #[error("endpoint_url {0:?} is not a URL that begins with http:// or https://")]
    BadEndpoint(String),
}

/// One runner's way to its tasks. Clones are the same.
#[derive(Clone)]
pub struct Fargate {
    pub(super) config: Arc<FargateConfig>,
    pub(super) region: Arc<Region>,
    pub(super) describer: Arc<Describer>,
}

impl Fargate {
    /// Makes ready to call; nothing is sent yet, but for the region where neither config nor environment names it.
    pub async fn connect(config: &FargateConfig, regions: &Regions) -> Result<Self, ConnectError> {
        let region = regions.get(config).await?;
        let describer = region.describer(config);
        Ok(Self { config: Arc::new(config.clone()), region, describer })
    }

    /// The AWS region, which config or environment names.
    pub fn region(&self) -> &str {
        &self.region.name
    }

    pub fn credentials(&self) -> Credentials {
        self.config.credentials
    }

    /// The keys of the role that all is done as; none where the manager does it as itself.
    pub fn role_keys(&self) -> Option<&RoleKeys> {
        self.region.role_keys.as_ref()
    }

    /// Calls so far, of all runners in this region.
    pub fn calls(&self) -> Calls {
        self.region.counters.read()
    }
}

impl Regions {
    /// Calls so far to all regions.
    pub async fn calls(&self) -> Calls {
        let known = self.known.lock().await;
        known.regions.values().map(|region| region.counters.read()).fold(Calls::default(), Calls::plus)
    }

    async fn get(&self, config: &FargateConfig) -> Result<Arc<Region>, ConnectError> {
        let key = RegionKey {
            region: config.region.clone(),
            endpoint_url: config.endpoint_url.clone(),
            credentials: config.credentials,
            role: config.role.clone(),
        };
        let mut known = self.known.lock().await;
        if let Some(region) = known.regions.get(&key) {
            return Ok(region.clone());
        }
        let region = Arc::new(Region::open(config, &mut known.buckets).await?);
        known.regions.insert(key, region.clone());
        Ok(region)
    }
}

impl Region {
    async fn open(
        config: &FargateConfig,
        buckets: &mut HashMap<AccountKey, Arc<Buckets>>,
    ) -> Result<Self, ConnectError> {
        if let Some(url) = &config.endpoint_url
            && !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
        {
            return Err(ConnectError::BadEndpoint(url.clone()));
        }
        // Every attempt must pass a bucket, so the attempts are ours.
        let mut loader = sdk::loader(config.endpoint_url.as_deref(), ANSWER);
        if let Some(region) = &config.region {
            loader = loader.region(RegionName::new(region.clone()));
        }
        if let Some(url) = &config.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if config.credentials == Credentials::MadeUp {
            loader = loader.credentials_provider(Keys::new("staffetta", "made-up", None, None, "made up"));
        }
        let shared = loader.load().await;
        let region = shared.region().ok_or(ConnectError::NoRegion)?.to_string();
        let role = config.role.as_ref();
        let role_keys = role.map(|role| RoleKeys::new(&shared, role)).transpose().map_err(ConnectError::BadRole)?;
        let mut ecs = aws_sdk_ecs::config::Builder::from(&shared);
        let keys = match &role_keys {
            Some(role_keys) => {
                let keys = SharedCredentialsProvider::new(role_keys.clone());
                // They keep themselves, and are renewed earlier than the SDK would.
                ecs = ecs.credentials_provider(keys.clone()).identity_cache(IdentityCache::no_cache());
                keys
            }
            None => sdk::provider(&shared),
        };
        let account = AccountKey {
            region: region.clone(),
            endpoint_url: config.endpoint_url.clone(),
            account: role.and_then(|role| role.arn.split(':').nth(4)).map(str::to_owned),
        };
        // The SDK's clients look for the names of their own service themselves.
        let of_ec2 = std::env::var("AWS_ENDPOINT_URL_EC2").ok().filter(|url| !url.is_empty());
        let ec2_url = config.endpoint_url.clone().or(of_ec2).or(shared.endpoint_url().map(str::to_owned));
        Ok(Self {
            ecs: aws_sdk_ecs::Client::from_conf(ecs.build()),
            ec2: Ec2::new(&region, ec2_url.as_deref(), keys),
            name: region,
            role_keys,
            buckets: buckets.entry(account).or_default().clone(),
            counters: Counters::default(),
            describers: Mutex::default(),
        })
    }

    fn describer(self: &Arc<Self>, config: &FargateConfig) -> Arc<Describer> {
        let key = DescriberKey { cluster: config.cluster.clone(), use_public_ip: config.use_public_ip };
        let mut describers = self.describers.lock().unwrap_or_else(PoisonError::into_inner);
        describers.retain(|_, describer| describer.strong_count() > 0);
        if let Some(describer) = describers.get(&key).and_then(Weak::upgrade) {
            return describer;
        }
        let describer = Arc::new(Describer::start(self.clone(), &config.cluster, config.use_public_ip));
        describers.insert(key, Arc::downgrade(&describer));
        describer
    }

    /// One attempt: its turn at the buckets, and the call.
    pub async fn attempt<T>(&self, api: Api, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        self.turn(api, || ()).await;
        self.send(api, call).await
    }

    /// Waits for a call's turn at the buckets; `queued` hears when there is something to wait for.
    pub async fn turn(&self, api: Api, queued: impl FnOnce()) {
        self.buckets.turn(api, queued).await;
    }

    /// The call whose turn it is, and what the buckets learn from it.
    pub async fn send<T>(&self, api: Api, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        self.counters.called(api);
        let sent = Instant::now();
        let answer = call.await;
        if let Err(CallError::Throttled(reason)) = &answer {
            tracing::debug!(api = api.name(), reason, "throttled");
            self.counters.throttled();
            self.buckets.throttled(api, sent);
        }
        answer
    }

    /// Repeats a call that may safely be made twice until it is answered or refused, or for half a minute.
    pub async fn ask<T, E, F>(&self, api: Api, call: impl Fn() -> F) -> Result<T, CallError>
    where
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut tries = 0;
        loop {
            let answer = async { call().await.map_err(|error| CallError::of_sdk(&error)) };
            let error = match self.attempt(api, answer).await {
                Ok(answer) => return Ok(answer),
                Err(refused @ (CallError::Refused(_) | CallError::RoleRefused { .. })) => return Err(refused),
                Err(error) => error,
            };
            let wait = backoff(tries, Duration::from_millis(250), Duration::from_secs(5), rand::random());
            if Instant::now() + wait > deadline {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(wait).await;
        }
    }
}
