//! S3 as far as caches need it: addresses of single objects, signed for a time (protocol 6.6). The objects themselves travel
//! between the task and the store.

mod address;
mod bucket;
mod empty;
mod presign;
mod role;

pub use bucket::{Bucket, SignError, Signers};
pub use empty::empty;
pub use presign::Signer;

pub(crate) use address::encode;

use job::secret::SecretString;

/// `[runners.cache.s3]`.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// `host` or `host:port`; none is AWS.
    pub server_address: Option<String>,
    /// http instead of https.
    pub insecure: bool,
    pub bucket: String,
    /// The bucket's region; none is found out.
    pub region: Option<String>,
    pub keys: S3Keys,
    pub encryption: Encryption,
    pub dual_stack: bool,
    /// The bucket in the path instead of the host's name; none chooses by the server.
    pub path_style: Option<bool>,
    pub accelerate: bool,
    /// For both directions; it wins over the next one.
    pub role: Option<String>,
    pub upload_role: Option<String>,
}

#[derive(Debug, Clone)]
pub enum S3Keys {
    Given {
        access_key: String,
        secret_key: SecretString,
        session_token: Option<SecretString>,
    },
    /// Environment, profile, web identity, container, instance.
    UsualChain,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// What the bucket itself says.
    Default,
    S3,
    /// Without a key, the account's own for S3.
    Kms {
        key: Option<String>,
    },
    DoubleKms {
        key: Option<String>,
    },
}

impl Encryption {
    /// The headers that an upload must bring, and that are signed.
    fn headers(&self) -> Vec<(&'static str, &str)> {
        const KIND: &str = "x-amz-server-side-encryption";
        const KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
        let kind = match self {
            Self::Default => None,
            Self::S3 => Some((KIND, "AES256")),
            Self::Kms { .. } => Some((KIND, "aws:kms")),
            Self::DoubleKms { .. } => Some((KIND, "aws:kms:dsse")),
        };
        kind.into_iter().chain(self.key().map(|key| (KEY, key))).collect()
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::Default | Self::S3 => None,
            Self::Kms { key } | Self::DoubleKms { key } => key.as_deref(),
        }
    }
}
