//! One bucket: its region, and the keys that its addresses are signed with.

use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use job::secret::ExposeSecret;
use tokio::sync::OnceCell;

use super::presign::presign;
use super::role::{self, Actions};
use super::{S3Config, S3Keys, Signer};
use crate::assume_role::{RoleKeys, runner_role_fix};
use crate::errors::{self, CallError};
use crate::proxies;
use crate::sdk::{self, Keys};

/// Where buckets are that do not say where they are.
const FALLBACK: &str = "us-east-1";
/// For each call. A job waits for it, so it is short; without an answer the job runs without the store.
const ANSWER: Duration = Duration::from_secs(10);

/// The bucket of one runner.
pub struct Bucket {
    config: S3Config,
    sdk: SdkConfig,
    keys: Keys,
    connector: Connector,
    /// Found out once; what could not be found out is asked again with the next job.
    region: OnceCell<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("no AWS credentials for the cache: {0}")]
    Keys(String),
    #[error("the role {role} cannot be used for the cache: {error}")]
    Role { role: String, error: CallError },
}

/// What the addresses of one project's caches are signed with: the keys of the two directions may be those of two roles.
#[derive(Debug, Clone)]
pub struct Signers {
    pub read: Signer,
    pub write: Signer,
}

impl Bucket {
    /// Nothing is sent yet. The usual chain is that of `runner_role` where there is one.
    pub async fn connect(config: S3Config, runner_role: Option<&RoleKeys>) -> Self {
        let region = config.region.clone().unwrap_or_else(|| FALLBACK.to_owned());
        let mut loader = sdk::loader(None, ANSWER).region(Region::new(region));
        match (&config.keys, runner_role) {
            (S3Keys::Given { access_key, secret_key, session_token }, _) => {
                let token = session_token.as_ref().map(|token| token.expose_secret().to_owned());
                let keys = Credentials::new(access_key, secret_key.expose_secret(), token, None, "config.toml");
                loader = loader.credentials_provider(keys);
            }
            (S3Keys::UsualChain, Some(role)) => loader = loader.credentials_provider(role.clone()),
            (S3Keys::UsualChain, None) => {}
        }
        let sdk = loader.load().await;
        let connector = proxies::connector(config.insecure.then_some("http://"));
        let keys = Keys::new(sdk::provider(&sdk));
        Self { config, sdk, keys, connector, region: OnceCell::new() }
    }

    /// Fetches what is needed to sign addresses below `folder`.
    pub async fn signers(&self, folder: &str) -> Result<Signers, SignError> {
        let own = self.own_keys().await?;
        let region = self.region(&own).await;
        let signer = |keys| Signer { config: self.config.clone(), region: region.clone(), keys };
        let take = async |role: &str, actions: Actions| {
            let policy = role::policy(&self.config, &region, folder, actions);
            let keys = role::assume(&self.sdk, role, &policy).await;
            keys.map(signer).map_err(|error| SignError::Role { role: role.to_owned(), error })
        };
        match (&self.config.role, &self.config.upload_role) {
            (Some(role), _) => {
                let both = take(role, Actions { read: true, write: true }).await?;
                Ok(Signers { read: both.clone(), write: both })
            }
            (None, Some(role)) => {
                let write = take(role, Actions { read: false, write: true }).await?;
                Ok(Signers { read: signer(own), write })
            }
            (None, None) => Ok(Signers { read: signer(own.clone()), write: signer(own) }),
        }
    }

    async fn own_keys(&self) -> Result<Credentials, SignError> {
        let keys = tokio::time::timeout(ANSWER, self.keys.get()).await;
        let keys = keys.unwrap_or_else(|_| Err(CallError::NoCredentials("no answer in time".into())));
        keys.map_err(|error| match &error {
            CallError::RoleRefused { role, refusal } => {
                SignError::Keys(format!("{error}. {}", runner_role_fix(role, refusal)))
            }
            other => SignError::Keys(other.to_string()),
        })
    }

    async fn region(&self, keys: &Credentials) -> String {
        if let Some(region) = &self.config.region {
            return region.clone();
        }
        let found = self.region.get_or_try_init(|| self.find_region(keys)).await;
        found.cloned().unwrap_or_else(|reason| {
            let bucket = &self.config.bucket;
            tracing::warn!(bucket, reason, "the bucket's region is not known, taking {FALLBACK}; set BucketLocation");
            FALLBACK.to_owned()
        })
    }

    /// GetBucketLocation, which any region answers for the bucket of any other.
    async fn find_region(&self, keys: &Credentials) -> Result<String, String> {
        let plain = S3Config { dual_stack: false, accelerate: false, ..self.config.clone() };
        let url = format!("{}/?location", plain.bucket_url(FALLBACK));
        let signed = presign("GET", &url, &[], FALLBACK, keys, SystemTime::now(), ANSWER * 6);
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(signed.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        let asked = async {
            let response = self.connector.call(request).await.map_err(|error| errors::chain(&error))?;
            let (status, header) = (response.status().as_u16(), response.headers().get("x-amz-bucket-region"));
            let header = header.map(str::to_owned);
            let body = ByteStream::new(response.into_body()).collect().await;
            let body = body.map_err(|error| errors::chain(&error))?.into_bytes();
            region_in(status, header.as_deref(), &String::from_utf8_lossy(&body))
        };
        tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err("no answer in time".into()))
    }
}

/// S3 names the region in a header also where it refuses the question.
fn region_in(status: u16, header: Option<&str>, body: &str) -> Result<String, String> {
    if let Some(region) = header.filter(|region| !region.is_empty()) {
        return Ok(region.to_owned());
    }
    if status != 200 || !body.contains("LocationConstraint") {
        return Err(format!("the store answered {status}"));
    }
    let inside = body.split_once("</LocationConstraint>").map_or("", |(before, _)| before);
    match inside.rsplit('>').next().unwrap_or_default().trim() {
        "" => Ok(FALLBACK.to_owned()),
        // The first region of Europe had no name.
        "EU" => Ok("eu-west-1".to_owned()),
        region => Ok(region.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_says_its_region_in_many_ways() {
        let body = |inside: &str| {
            format!(r#"<?xml version="1.0"?><LocationConstraint xmlns="http://s3/">{inside}</LocationConstraint>"#)
        };
        for (status, header, body, region) in [
            (200, None, body("eu-central-1"), Some("eu-central-1")),
            (200, None, body(""), Some("us-east-1")),
            (200, None, r#"<LocationConstraint xmlns="http://s3/"/>"#.to_owned(), Some("us-east-1")),
            (200, None, body("EU"), Some("eu-west-1")),
            (403, Some("eu-west-3"), "<Error/>".to_owned(), Some("eu-west-3")),
            (403, None, "<Error/>".to_owned(), None),
            (200, None, "<html>".to_owned(), None),
        ] {
            assert_eq!(region_in(status, header, &body).ok().as_deref(), region, "{status} {body}");
        }
    }
}
