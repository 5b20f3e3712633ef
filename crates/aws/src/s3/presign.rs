//! One signed address: SigV4 in the query, so that the request needs no header that its sender could not know.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningError, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use job::hand_over::SignedRequest;

use super::S3Config;
use super::address::encode;

/// SigV4's own limit.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Signs for one bucket with one set of keys.
#[derive(Debug, Clone)]
pub struct Signer {
    pub(super) config: S3Config,
    pub(super) region: String,
    pub(super) keys: Credentials,
}

impl Signer {
    /// When a signature of `now` that is wanted for `valid` ends: never after its keys.
    pub fn valid_until(&self, now: SystemTime, valid: Duration) -> SystemTime {
        let wanted = now + valid.min(LONGEST);
        self.keys.expiry().map_or(wanted, |end| end.min(wanted))
    }

    pub fn get(&self, object: &str, now: SystemTime, valid: Duration) -> Option<SignedRequest> {
        self.object("GET", object, &[], now, valid)
    }

    pub fn head(&self, object: &str, now: SystemTime, valid: Duration) -> Option<SignedRequest> {
        self.object("HEAD", object, &[], now, valid)
    }

    /// `cache_key` becomes the object's metadata, as GitLab's runner has it.
    pub fn put(&self, object: &str, cache_key: &str, now: SystemTime, valid: Duration) -> Option<SignedRequest> {
        let mut headers = self.config.encryption.headers();
        // A header takes no other characters; the metadata is only for people.
        if !cache_key.is_empty() && cache_key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            headers.push(("x-amz-meta-cachekey", cache_key.trim()));
        }
        self.object("PUT", object, &headers, now, valid)
    }

    fn object(
        &self,
        method: &str,
        object: &str,
        headers: &[(&str, &str)],
        now: SystemTime,
        valid: Duration,
    ) -> Option<SignedRequest> {
        let until = self.valid_until(now, valid);
        let valid = until.duration_since(now).ok().filter(|valid| valid.as_secs() > 0)?;
        let url = self.config.object_url(&self.region, object);
        match presign(method, &url, headers, &self.region, &self.keys, now, valid) {
            Ok(url) => {
                let headers: BTreeMap<_, _> =
                    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                Some(SignedRequest { url: url.into(), headers })
            }
            Err(error) => {
                tracing::warn!(object, %error, "cannot sign the address of a cache");
                None
            }
        }
    }
}

/// `url` with its signature; it may have a query of its own.
pub(super) fn presign(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    region: &str,
    keys: &Credentials,
    now: SystemTime,
    valid: Duration,
) -> Result<String, SigningError> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(valid.as_secs()));
    // S3 takes names as they are; all other services encode once more.
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity = keys.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(now)
        .settings(settings)
        .build()
        .expect("all that must be given is given")
        .into();
    let request = SignableRequest::new(method, url, headers.iter().copied(), SignableBody::UnsignedPayload)?;
    let (signature, _) = sign(request, &params)?.into_parts();
    let mut signed = url.to_owned();
    for (name, value) in signature.params() {
        signed.push(if signed.contains('?') { '&' } else { '?' });
        signed.push_str(&format!("{name}={}", encode(value, b"-_.~")));
    }
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use job::secret::ExposeSecret;

    use super::super::Encryption;
    use super::super::address::tests::config;
    use super::*;

    const DAY: Duration = Duration::from_secs(86400);

    fn keys(expiry: Option<SystemTime>) -> Credentials {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        Credentials::new("AKIAIOSFODNN7EXAMPLE", secret, None, expiry, "test")
    }

    /// 2013-05-24T00:00:00Z
    fn then() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)
    }

    fn signer(config: S3Config, expiry: Option<SystemTime>) -> Signer {
        Signer { config, region: "us-east-1".into(), keys: keys(expiry) }
    }

    /// The example of S3's own documentation, "Authenticating Requests: Using Query Parameters".
    #[test]
    fn the_published_example_has_the_published_signature() {
        let url = "https://examplebucket.s3.amazonaws.com/test.txt";
        let signed = presign("GET", url, &[], "us-east-1", &keys(None), then(), DAY).expect("signed");
        assert!(signed.starts_with(&format!("{url}?X-Amz-Algorithm=AWS4-HMAC-SHA256&")), "{signed}");
        for part in [
            "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request",
            "X-Amz-Date=20130524T000000Z",
            "X-Amz-Expires=86400",
            "X-Amz-SignedHeaders=host",
            "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        ] {
            assert!(signed.split(['?', '&']).any(|found| found == part), "{part} is not in {signed}");
        }
    }

    #[test]
    fn a_signature_never_outlives_its_keys_nor_what_sigv4_allows() {
        let seconds = |valid: Duration, expiry: Option<u64>| {
            let expiry = expiry.map(|seconds| then() + Duration::from_secs(seconds));
            let signed = signer(config("b"), expiry).get("x", then(), valid)?;
            let url = signed.url.expose_secret().to_owned();
            url.split('&').find_map(|part| part.strip_prefix("X-Amz-Expires=")).map(str::to_owned)
        };
        assert_eq!(seconds(Duration::from_secs(3600), None).as_deref(), Some("3600"));
        assert_eq!(seconds(Duration::from_secs(3600), Some(90)).as_deref(), Some("90"));
        assert_eq!(seconds(DAY * 30, None).as_deref(), Some("604800"));
        assert_eq!(seconds(DAY, Some(0)), None);
    }

    #[test]
    fn an_upload_brings_its_encryption_and_its_key_as_signed_headers() {
        let put = |encryption: Encryption, key: &str| {
            let signer = signer(S3Config { encryption, ..config("b") }, None);
            let signed = signer.put("x", key, then(), DAY).expect("signed");
            let url = signed.url.expose_secret().to_owned();
            let names = url.split('&').find_map(|part| part.strip_prefix("X-Amz-SignedHeaders=")).expect("a list");
            let sent: Vec<_> = ["host"].into_iter().chain(signed.headers.keys().map(String::as_str)).collect();
            assert_eq!(names.split("%3B").collect::<Vec<_>>(), sent);
            signed.headers
        };
        assert_eq!(put(Encryption::Default, "main")["x-amz-meta-cachekey"], "main");
        assert!(put(Encryption::Default, "schlüssel\r\nx: y").is_empty());
        assert_eq!(put(Encryption::S3, "a")["x-amz-server-side-encryption"], "AES256");
        let double = put(Encryption::DoubleKms { key: Some("arn:key".into()) }, "a");
        assert_eq!(double["x-amz-server-side-encryption"], "aws:kms:dsse");
        assert_eq!(double["x-amz-server-side-encryption-aws-kms-key-id"], "arn:key");
    }
}
