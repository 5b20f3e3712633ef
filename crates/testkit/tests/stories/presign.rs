//! Signed addresses of caches, held against others: AWS's own command line, and a store that speaks real HTTP.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use aws::s3::{Bucket, Encryption, S3Config, S3Keys, Signers};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use job::hand_over::SignedRequest;
use job::secret::ExposeSecret;
use reqwest::Method;
use testkit::Moto;
use tokio::process::Command;

const VALID: Duration = Duration::from_secs(600);

fn config(bucket: &str) -> S3Config {
    S3Config {
        server_address: None,
        insecure: false,
        bucket: bucket.into(),
        region: Some("eu-west-1".into()),
        keys: S3Keys::Given {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: Some("a session/token+of=temporary keys".into()),
        },
        encryption: Encryption::Default,
        dual_stack: false,
        path_style: None,
        accelerate: false,
        role: None,
        upload_role: None,
    }
}

async fn signers(config: S3Config) -> Signers {
    Bucket::connect(config, None).await.signers("project/7").await.expect("signers")
}

fn url(request: Option<SignedRequest>) -> String {
    request.expect("signed").url.expose_secret().to_owned()
}

/// The AWS CLI without this machine's configuration.
fn aws_cli(folder: &std::path::Path) -> Command {
    let mut command = Command::new("aws");
    command.env("AWS_CONFIG_FILE", folder.join("config")).env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE");
    command.env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    command.env("AWS_SESSION_TOKEN", "a session/token+of=temporary keys").env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

#[tokio::test]
async fn an_address_is_signed_as_the_aws_cli_signs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let styles = [("virtual", Some(false)), ("path", Some(true))];
    for (style, path_style) in styles {
        let text = format!("[default]\ns3 =\n  signature_version = s3v4\n  addressing_style = {style}\n");
        std::fs::write(folder.path().join("config"), text).expect("a file");
        let read = signers(S3Config { path_style, ..config("example-caches") }).await.read;
        for key in ["runner/abc/project/7/main-protected", "project/7/a b+c=&d/é~_.-*'()!"] {
            let mut command = aws_cli(folder.path());
            let object = format!("s3://example-caches/{key}");
            command.args(["s3", "presign", &object, "--expires-in", "600", "--region", "eu-west-1"]);
            let output = command.output().await.expect("the AWS CLI is needed: `make test` installs it");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let theirs = String::from_utf8(output.stdout).expect("text");
            let theirs = theirs.trim();

            let date = theirs.split('&').find_map(|part| part.strip_prefix("X-Amz-Date=")).expect("a date");
            let date = DateTime::strptime("%Y%m%dT%H%M%SZ", date).expect("a date");
            let date: SystemTime = date.to_zoned(TimeZone::UTC).expect("a time").timestamp().into();
            let ours = url(read.get(key, date, VALID));
            let parts = |url: &str| {
                let (place, query) = url.split_once('?').expect("a query");
                (place.to_owned(), query.split('&').map(str::to_owned).collect::<BTreeSet<_>>())
            };
            assert_eq!(parts(&ours), parts(theirs), "{style} {key}");
        }
    }
}

async fn send(method: Method, request: Option<SignedRequest>, body: &'static str) -> reqwest::Response {
    let request = request.expect("signed");
    let http = gitlab::elsewhere(None, &gitlab::Proxies::default()).expect("a client");
    let with_headers = http.request(method, request.url.expose_secret()).body(body);
    let with_headers = request.headers.iter().fold(with_headers, |call, (name, value)| call.header(name, value));
    with_headers.send().await.expect("an answer")
}

#[tokio::test]
async fn a_store_takes_what_is_signed_and_says_where_its_bucket_is() {
    let moto = Moto::shared();
    let folder = tempfile::tempdir().expect("a folder");
    let mut create = aws_cli(folder.path());
    create.args([
        "--endpoint-url",
        moto.url(),
        "--region",
        "eu-west-3",
        "s3api",
        "create-bucket",
        "--bucket",
        "presigned",
    ]);
    create.args(["--create-bucket-configuration", "LocationConstraint=eu-west-3"]);
    let created = create.output().await.expect("the AWS CLI is needed: `make test` installs it");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));

    let (read, write) = {
        let server_address = Some(moto.address().to_owned());
        let encryption = Encryption::Kms { key: Some("arn:aws:kms:eu-west-3:123456789012:key/caches".into()) };
        let config = S3Config { server_address, insecure: true, region: None, encryption, ..config("presigned") };
        let Signers { read, write } = signers(config).await;
        (read, write)
    };
    let (now, key) = (SystemTime::now(), "project/7/a b+c/é");
    assert!(url(read.get(key, now, VALID)).contains("%2Feu-west-3%2Fs3%2F"), "the store said its region");
    assert_eq!(send(Method::HEAD, read.head(key, now, VALID), "").await.status(), 404);
    assert_eq!(send(Method::PUT, write.put(key, "a b+c", now, VALID), "content").await.status(), 200);
    let head = send(Method::HEAD, read.head(key, now, VALID), "").await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["x-amz-meta-cachekey"], "a b+c");
    assert_eq!(head.headers()["x-amz-server-side-encryption"], "aws:kms");
    let get = send(Method::GET, read.get(key, now, VALID), "").await;
    assert_eq!(get.text().await.expect("a body"), "content");
    assert_eq!(moto.keys("presigned").await, [key]);
}
