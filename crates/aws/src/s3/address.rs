//! Where a bucket is, by the many names that it has.

use super::S3Config;

/// AWS's own server under the name that old configurations give it.
const AWS: &str = "s3.amazonaws.com";

impl S3Config {
    /// The address of the bucket in `region`, without a slash at its end.
    pub(super) fn bucket_url(&self, region: &str) -> String {
        let (scheme, host) = match self.custom_server() {
            Some((scheme, host)) => (scheme, host),
            None => ("https", self.aws_host(region)),
        };
        match self.is_path_style() {
            true => format!("{scheme}://{host}/{}", self.bucket),
            false => format!("{scheme}://{}.{host}", self.bucket),
        }
    }

    /// The address of an object, with every byte of its name encoded that could mean something else in a URL.
    pub(super) fn object_url(&self, region: &str, object: &str) -> String {
        format!("{}/{}", self.bucket_url(region), encode(object, b"-_.~/"))
    }

    /// Another server than AWS's.
    fn custom_server(&self) -> Option<(&'static str, String)> {
        let address = self.server_address.as_deref()?;
        let scheme = if self.insecure { "http" } else { "https" };
        let usual_port = if self.insecure { ":80" } else { ":443" };
        let host = address.strip_suffix(usual_port).unwrap_or(address);
        (scheme == "http" || host != AWS).then(|| (scheme, host.to_owned()))
    }

    fn aws_host(&self, region: &str) -> String {
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        match (self.accelerate, self.dual_stack) {
            (true, true) => format!("s3-accelerate.dualstack.{domain}"),
            (true, false) => format!("s3-accelerate.{domain}"),
            (false, true) => format!("s3.dualstack.{region}.{domain}"),
            (false, false) => format!("s3.{region}.{domain}"),
        }
    }

    /// As GitLab's runner decides it: stores of others have the bucket in the path, unless they are known to understand it in
    /// the host's name. No certificate covers a bucket with a dot there.
    fn is_path_style(&self) -> bool {
        let dotted = self.bucket.contains('.');
        let automatic = match self.custom_server() {
            None => dotted,
            Some(("https", _)) if dotted => true,
            Some((_, host)) => !knows_buckets_by_name(host.split(':').next().unwrap_or_default()),
        };
        self.path_style.unwrap_or(automatic)
    }
}

fn knows_buckets_by_name(host: &str) -> bool {
    let amazon = host.starts_with("s3") && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"));
    amazon || host == "storage.googleapis.com" || host.ends_with(".aliyuncs.com")
}

/// Letters and digits stay, and what is in `plain`.
pub(crate) fn encode(text: &str, plain: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Encryption, S3Keys};
    use super::*;

    pub fn config(bucket: &str) -> S3Config {
        S3Config {
            server_address: None,
            insecure: false,
            bucket: bucket.into(),
            region: Some("eu-west-1".into()),
            keys: S3Keys::UsualChain,
            encryption: Encryption::Default,
            dual_stack: true,
            path_style: None,
            accelerate: false,
            role: None,
            upload_role: None,
        }
    }

    #[test]
    fn a_bucket_of_aws_is_found_by_its_region() {
        let url = |change: fn(&mut S3Config), region: &str| {
            let mut config = config("caches");
            change(&mut config);
            config.bucket_url(region)
        };
        for (change, region, expected) in [
            ((|_| ()) as fn(&mut S3Config), "eu-west-1", "https://caches.s3.dualstack.eu-west-1.amazonaws.com"),
            (|config| config.dual_stack = false, "us-east-1", "https://caches.s3.us-east-1.amazonaws.com"),
            (|config| config.dual_stack = false, "cn-north-1", "https://caches.s3.cn-north-1.amazonaws.com.cn"),
            (|config| config.accelerate = true, "eu-west-1", "https://caches.s3-accelerate.dualstack.amazonaws.com"),
            (|config| config.path_style = Some(true), "x", "https://s3.dualstack.x.amazonaws.com/caches"),
            (|config| config.bucket = "a.b".into(), "x", "https://s3.dualstack.x.amazonaws.com/a.b"),
            (
                |config| config.server_address = Some("s3.amazonaws.com".into()),
                "x",
                "https://caches.s3.dualstack.x.amazonaws.com",
            ),
        ] {
            assert_eq!(url(change, region), expected);
        }
    }

    #[test]
    fn other_stores_have_the_bucket_in_the_path_unless_told_otherwise() {
        let url = |address: &str, insecure: bool, path_style: Option<bool>| {
            let server_address = Some(address.to_owned());
            S3Config { server_address, insecure, path_style, ..config("caches") }.bucket_url("eu-west-1")
        };
        assert_eq!(url("minio:9000", true, None), "http://minio:9000/caches");
        assert_eq!(url("minio.example.com:443", false, None), "https://minio.example.com/caches");
        assert_eq!(url("minio:80", true, Some(false)), "http://caches.minio");
        assert_eq!(url("storage.googleapis.com", false, None), "https://caches.storage.googleapis.com");
        assert_eq!(url("s3.eu-west-1.amazonaws.com", false, None), "https://caches.s3.eu-west-1.amazonaws.com");
    }

    #[test]
    fn every_byte_of_a_name_that_means_something_in_a_url_is_encoded() {
        let url = config("b").object_url("x", "project/7/a b+c%2F?&=#é'()*!~-_.");
        let name = url.rsplit_once("/7/").expect("a name").1;
        assert_eq!(name, "a%20b%2Bc%252F%3F%26%3D%23%C3%A9%27%28%29%2A%21~-_.");
    }
}
