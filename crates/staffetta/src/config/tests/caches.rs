//! What `[runners.cache]` says.

use aws::s3::{Encryption, S3Keys};
use job::secret::ExposeSecret;

use super::{Loaded, MINIMAL, Remark, mistakes, usable};

fn with_cache(table: &str) -> String {
    MINIMAL.replace("[runners.fargate]", &format!("{table}\n[runners.fargate]"))
}

#[test]
fn a_store_of_caches_is_read_with_all_that_it_says() {
    let text = with_cache(
        r#"[runners.cache]
Type = "s3"
Path = "ci"
Shared = true
MaxUploadedArchiveSize = 7
[runners.cache.s3]
ServerAddress = "minio:9000"
AccessKey = "access"
SecretKey = "the-secret-key"
SessionToken = "the-session-token"
BucketName = "caches"
BucketLocation = "eu-west-1"
Insecure = true
AuthenticationType = "Access-Key"
ServerSideEncryption = "aws:kms"
ServerSideEncryptionKeyID = "key"
DualStack = false
PathStyle = false
Accelerate = true
RoleARN = "arn:read"
UploadRoleARN = "arn:write"
AssumeRoleMaxConcurrency = 3"#,
    );
    let Loaded { config, warnings } = usable(&text);
    let cache = config.runners[0].cache.as_ref().expect("a store");
    assert_eq!((cache.path.as_str(), cache.shared, cache.max_archive_size), ("ci", true, 7));
    let s3 = &cache.s3;
    assert_eq!((s3.server_address.as_deref(), s3.bucket.as_str()), (Some("minio:9000"), "caches"));
    assert_eq!((s3.region.as_deref(), s3.insecure, s3.dual_stack), (Some("eu-west-1"), true, false));
    assert_eq!((s3.path_style, s3.accelerate), (Some(false), true));
    assert_eq!(s3.encryption, Encryption::Kms { key: Some("key".into()) });
    assert_eq!((s3.role.as_deref(), s3.upload_role.as_deref()), (Some("arn:read"), Some("arn:write")));
    let S3Keys::Given { access_key, secret_key, session_token } = &s3.keys else { panic!("{:?}", s3.keys) };
    let session_token = session_token.as_ref().map(ExposeSecret::expose_secret);
    assert_eq!((access_key.as_str(), secret_key.expose_secret()), ("access", "the-secret-key"));
    assert_eq!(session_token, Some("the-session-token"));
    assert!(!format!("{config:?}").contains("the-se"), "secrets cannot be printed");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_store_without_more_than_a_bucket_has_gitlabs_defaults() {
    let text = with_cache("cache = { Type = \"s3\", s3 = { BucketName = \"caches\" } }");
    let Loaded { config, .. } = usable(&text);
    let cache = config.runners[0].cache.as_ref().expect("a store");
    assert!(!cache.shared && !cache.s3.insecure && cache.s3.dual_stack && cache.s3.path_style.is_none());
    assert!(matches!(cache.s3.keys, S3Keys::UsualChain));
    assert_eq!((&cache.s3.region, &cache.s3.encryption), (&None, &Encryption::Default));
}

#[test]
fn a_store_that_cannot_be_used_is_refused_by_name() {
    let s3 = |keys: &str| mistakes(&with_cache(&format!("cache = {{ Type = \"s3\", s3 = {{ {keys} }} }}")));
    let told = [
        mistakes(&with_cache(r#"cache = { Type = "gcs", gcs = { BucketName = "caches" } }"#)),
        mistakes(&with_cache(r#"cache = { Type = "azure" }"#)),
        mistakes(&with_cache(r#"cache = { Type = "S3" }"#)),
        mistakes(&with_cache(r#"cache = { Type = "s3" }"#)),
        s3(r#"AuthenticationType = "key", ServerSideEncryption = "no", Bucket = "b""#),
        s3(r#"BucketName = "b", AuthenticationType = "access-key", AccessKey = "a""#),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
config.toml:7: `runners.cache.Type` is "gcs": caches are kept in S3 only; Google Cloud Storage serves its protocol: Type = "s3", ServerAddress = "storage.googleapis.com" and an HMAC key
config.toml:7: `runners.cache.Type` is "azure": caches are kept in S3 only: name a bucket with Type = "s3", or remove [runners.cache]
config.toml:7: `runners.cache.Type` is "S3": write "s3"
config.toml:7: `runners.cache.s3` is missing: add a [runners.cache.s3] table that names the bucket
config.toml:7: `runners.cache.s3.AuthenticationType` must be "iam" or "access-key"
config.toml:7: `runners.cache.s3.BucketName` is missing: name the bucket of the caches
config.toml:7: `runners.cache.s3.ServerSideEncryption` must be "S3", "KMS" or "DSSE-KMS"
config.toml:7: `runners.cache.s3.Bucket` is not a key of config.toml: remove it, or see examples/config.toml for the keys there are
config.toml:7: `runners.cache.s3.SecretKey` is missing: AuthenticationType = "access-key" needs both keys"#);
}

#[test]
fn addresses_and_names_of_a_store_that_cannot_be_any_are_all_told_at_once() {
    let text = with_cache(
        r#"[runners.cache]
Type = "s3"
Path = "ci/../other"
[runners.cache.s3]
ServerAddress = "https://minio:9000"
BucketName = "caches/ci"
BucketLocation = "eu-west-1/x"
RoleARN = "caches"
UploadRoleARN = "role/caches""#,
    );
    insta::assert_snapshot!(mistakes(&text), @r#"
config.toml:9: `runners.cache.Path` must not have ".." for a part: names of objects cannot lead upwards
config.toml:11: `runners.cache.s3.ServerAddress` must be a host or host:port, such as "minio:9000": without https://, and http:// is Insecure = true
config.toml:12: `runners.cache.s3.BucketName` must be the bucket's name alone; names of folders belong to `runners.cache.Path`
config.toml:13: `runners.cache.s3.BucketLocation` must be a region, such as "eu-central-1"
config.toml:14: `runners.cache.s3.RoleARN` must be the ARN of a role, such as "arn:aws:iam::123456789012:role/caches"
config.toml:15: `runners.cache.s3.UploadRoleARN` must be the ARN of a role, such as "arn:aws:iam::123456789012:role/caches""#);
    for address in ["minio:9000/", "minio 9000", "http://minio"] {
        let s3 = format!("cache = {{ Type = \"s3\", s3 = {{ BucketName = \"b\", ServerAddress = \"{address}\" }} }}");
        assert!(mistakes(&with_cache(&s3)).contains("`runners.cache.s3.ServerAddress` must be"), "{address}");
    }
}

#[test]
fn keys_and_tables_of_caches_that_are_not_used_are_warned_about() {
    let told = |table: &str| {
        let warnings = usable(&with_cache(table)).warnings;
        warnings.iter().map(Remark::to_string).collect::<Vec<_>>().join("\n")
    };
    let other =
        r#"Type = "s3", s3 = { BucketName = "b", AccessKey = "a", SecretKey = "s" }, gcs = { BucketName = "b" }"#;
    let told = [told(r#"cache.s3 = { BucketName = "caches" }"#), told(&format!("cache = {{ {other} }}"))];
    insta::assert_snapshot!(told.join("\n"), @r#"
config.toml:7: `runners.cache.Type` is missing, so there is no store of caches: write Type = "s3"
config.toml:7: AccessKey and SecretKey are not used without ServerAddress: write AuthenticationType = "access-key"
config.toml:7: `runners.cache.gcs` is understood but has no effect: it belongs to another `Type` than s3"#);
}
