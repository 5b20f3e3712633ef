//! `[runners.cache]`: where the caches of a runner's jobs are kept (protocol 6.6).

use aws::s3::{Encryption, S3Config, S3Keys};
use job::secret::SecretString;

use super::section::Section;

/// The runner's store of caches.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Goes before all names of objects.
    pub path: String,
    /// Runners share their caches; otherwise each has a folder of its own.
    pub shared: bool,
    /// Bytes of the largest archive that is uploaded; 0 is no limit.
    pub max_archive_size: u64,
    pub s3: S3Config,
}

const OTHER_STORE: &str = "it belongs to another `Type` than s3";

const S3_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("AssumeRoleMaxConcurrency", "a job takes its role once, so there is never a crowd"),
    ("DisableAssumeRoleCredentialsCaching", "the keys of a role are not kept for other jobs"),
];

/// None where the file names no store: caches then stay in the task.
pub fn cache(runner: &mut Section) -> Option<Cache> {
    let mut section = runner.section("cache")?;
    let kind = section.filled_text("Type");
    let path = section.word("Path");
    if path.split('/').any(|part| part == "..") {
        section.wrong("Path", "must not have \"..\" for a part: names of objects cannot lead upwards");
    }
    let shared = section.flag("Shared").unwrap_or(false);
    let max_archive_size = section.number("MaxUploadedArchiveSize", "a whole number of bytes").unwrap_or(0);
    let s3 = match kind {
        Some(kind) if kind.value == "s3" => {
            let s3 = section.section("s3").map(s3);
            if s3.is_none() {
                section.missing("s3", "add a [runners.cache.s3] table that names the bucket");
            }
            s3
        }
        Some(kind) => {
            for key in ["s3", "gcs", "azure"] {
                section.skip(key);
            }
            section.mistake(
                kind.at,
                format!("`{}` is \"{}\": {}", section.name_of("Type"), kind.value, advice(&kind.value)),
            );
            None
        }
        None => {
            if section.contains_something("s3") {
                let at = section.at;
                section.report.warning(
                    at,
                    "`runners.cache.Type` is missing, so there is no store of caches: write Type = \"s3\"",
                );
            }
            section.skip("s3");
            None
        }
    };
    section.finish(&[("gcs", OTHER_STORE), ("azure", OTHER_STORE)]);
    Some(Cache { path, shared, max_archive_size, s3: s3? })
}

fn advice(kind: &str) -> &'static str {
    match kind {
        "gcs" => {
            "caches are kept in S3 only; Google Cloud Storage serves its protocol: Type = \"s3\", ServerAddress = \
             \"storage.googleapis.com\" and an HMAC key"
        }
        "azure" => "caches are kept in S3 only: name a bucket with Type = \"s3\", or remove [runners.cache]",
        _ => "write \"s3\"",
    }
}

fn s3(mut section: Section) -> S3Config {
    let server_address = section.filled_text("ServerAddress").map(|found| found.value);
    let keys = keys(&mut section, server_address.is_some());
    let bucket = section.word("BucketName");
    if bucket.is_empty() {
        section.missing("BucketName", "name the bucket of the caches");
    }
    let no_name = |text: &str| text.contains(|c: char| c == '/' || c.is_whitespace());
    if no_name(&bucket) {
        section.wrong("BucketName", "must be the bucket's name alone; names of folders belong to `runners.cache.Path`");
    }
    if server_address.as_deref().is_some_and(no_name) {
        let host =
            "must be a host or host:port, such as \"minio:9000\": without https://, and http:// is Insecure = true";
        section.wrong("ServerAddress", host);
    }
    let region = section.filled_text("BucketLocation").map(|found| found.value);
    let is_region = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !region.as_deref().is_none_or(is_region) {
        section.wrong("BucketLocation", "must be a region, such as \"eu-central-1\"");
    }
    let config = S3Config {
        insecure: section.flag("Insecure").unwrap_or(false),
        bucket,
        region,
        keys,
        encryption: encryption(&mut section),
        dual_stack: section.flag("DualStack").unwrap_or(true),
        path_style: section.flag("PathStyle"),
        accelerate: section.flag("Accelerate").unwrap_or(false),
        role: role(&mut section, "RoleARN"),
        upload_role: role(&mut section, "UploadRoleARN"),
        server_address,
    };
    section.finish(S3_WITHOUT_EFFECT);
    config
}

fn role(section: &mut Section, key: &'static str) -> Option<String> {
    let role = section.filled_text(key)?.value;
    if !role.starts_with("arn:") {
        section.wrong(key, "must be the ARN of a role, such as \"arn:aws:iam::123456789012:role/caches\"");
    }
    Some(role)
}

/// As GitLab's runner decides: without an `AuthenticationType`, keys count only beside a `ServerAddress`.
fn keys(section: &mut Section, has_server_address: bool) -> S3Keys {
    let access_key = section.filled_text("AccessKey");
    let secret_key = section.filled_text("SecretKey").map(|found| SecretString::from(found.value));
    let session_token = section.filled_text("SessionToken").map(|found| SecretString::from(found.value));
    let asked = section.filled_text("AuthenticationType");
    let by_key = match asked.as_ref().map(|asked| asked.value.to_ascii_lowercase()).as_deref() {
        None => has_server_address && access_key.is_some() && secret_key.is_some(),
        Some("access-key") => true,
        Some("iam") => false,
        Some(_) => {
            section.wrong("AuthenticationType", "must be \"iam\" or \"access-key\"");
            false
        }
    };
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) if by_key => {
            S3Keys::Given { access_key: access_key.value, secret_key, session_token }
        }
        (Some(access_key), Some(_)) => {
            if asked.is_none() {
                let unused = "AccessKey and SecretKey are not used without ServerAddress: write AuthenticationType = \"access-key\"";
                section.report.warning(access_key.at, unused);
            }
            S3Keys::UsualChain
        }
        (access_key, _) => {
            if by_key {
                let missing = if access_key.is_none() { "AccessKey" } else { "SecretKey" };
                section.missing(missing, "AuthenticationType = \"access-key\" needs both keys");
            }
            S3Keys::UsualChain
        }
    }
}

fn encryption(section: &mut Section) -> Encryption {
    let key = section.filled_text("ServerSideEncryptionKeyID").map(|found| found.value);
    let kind = section.filled_text("ServerSideEncryption").map(|found| found.value.to_ascii_uppercase());
    match kind.as_deref() {
        None => Encryption::Default,
        Some("S3" | "AES256") => Encryption::S3,
        Some("KMS" | "AWS:KMS") => Encryption::Kms { key },
        Some("DSSE-KMS" | "AWS:KMS:DSSE") => Encryption::DoubleKms { key },
        Some(_) => {
            section.wrong("ServerSideEncryption", "must be \"S3\", \"KMS\" or \"DSSE-KMS\"");
            Encryption::Default
        }
    }
}
