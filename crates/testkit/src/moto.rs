//! moto's server: AWS on loopback, for whoever speaks real HTTP to it. It takes every credential and every signature,
//! as account 123456789012.

use std::sync::OnceLock;

use reqwest::header::AUTHORIZATION;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::emulator::Emulator;

const PROGRAM: &str = r#"
from moto.server import main
main(["-H", "127.0.0.1", "-p", "0"])
"#;

/// What moto wants to see of a signature.
const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=peer/20260101/us-east-1/s3/aws4_request, \
                         SignedHeaders=host, Signature=made-up";

pub struct Moto(Emulator);

impl Moto {
    /// The one of this process, started when it is first asked for. Tests keep apart by the names of their buckets.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One more. Returns when it answers.
    pub fn start() -> Self {
        Self(Emulator::start("moto", PROGRAM))
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        self.0.url()
    }

    /// `127.0.0.1:PORT`, as `ServerAddress` of `[runners.cache.s3]` wants it.
    pub fn address(&self) -> &str {
        self.url().trim_start_matches("http://")
    }

    /// A bucket must be there before anything is put into it.
    pub async fn create_bucket(&self, bucket: &str) {
        let answer = self.request(Method::PUT, bucket).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{bucket} was not created");
    }

    pub async fn put_object(&self, bucket: &str, key: &str, content: Vec<u8>) {
        let answer = self.request(Method::PUT, &format!("{bucket}/{key}")).body(content).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK, "{key} was not stored");
    }

    pub async fn remove_object(&self, bucket: &str, key: &str) {
        let answer = self.request(Method::DELETE, &format!("{bucket}/{key}")).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{key} was not removed");
    }

    /// The content of an object, if there is one of this key.
    pub async fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let answer = self.request(Method::GET, &format!("{bucket}/{key}")).send().await.expect("an answer");
        match answer.status() {
            StatusCode::OK => Some(answer.bytes().await.expect("the object").to_vec()),
            StatusCode::NOT_FOUND => None,
            status => panic!("{key}: {status}"),
        }
    }

    /// What the store says about an object: its headers.
    pub async fn head(&self, bucket: &str, key: &str) -> reqwest::header::HeaderMap {
        let answer = self.request(Method::HEAD, &format!("{bucket}/{key}")).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{key}");
        answer.headers().clone()
    }

    /// The keys of all objects of a bucket, sorted.
    pub async fn keys(&self, bucket: &str) -> Vec<String> {
        let answer = self.request(Method::GET, &format!("{bucket}?list-type=2")).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{bucket}");
        let list = answer.text().await.expect("a list");
        let keys = list.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        keys.map(|(key, _)| key.to_owned()).collect()
    }

    /// A secret of Secrets Manager in us-east-1.
    pub async fn put_secret(&self, name: &str, text: &str) {
        let token = format!("{name}-of-these-tests-that-has-32-letters-or-more");
        let secret = serde_json::json!({"Name": name, "SecretString": text, "ClientRequestToken": token[..32]});
        self.json("secretsmanager", "secretsmanager.CreateSecret", &secret).await;
    }

    /// One call of a JSON service in us-east-1, and its answer. `target` as `x-amz-target` has it.
    pub async fn json(&self, service: &str, target: &str, question: &Value) -> Value {
        let request = client().post(self.url()).header(AUTHORIZATION, SIGNATURE.replace("s3", service));
        let request = request.header("x-amz-target", target).header("content-type", "application/x-amz-json-1.1");
        let answer = request.body(question.to_string()).send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a text"));
        assert_eq!(status, StatusCode::OK, "{target}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// One call of EC2 or IAM in us-east-1, and the XML of its answer.
    pub async fn query(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> String {
        let version = if service == "iam" { "2010-05-08" } else { "2016-11-15" };
        let form = [&[("Action", action), ("Version", version)], parameters].concat();
        let url = reqwest::Url::parse_with_params(self.url(), form).expect("a URL");
        let request = client().post(self.url()).header(AUTHORIZATION, SIGNATURE.replace("s3", service));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(url.query().unwrap_or_default().to_owned()).send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a text"));
        assert_eq!(status, StatusCode::OK, "{action}: {text}");
        text
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        client().request(method, format!("{}/{path}", self.url())).header(AUTHORIZATION, SIGNATURE)
    }
}

/// For loopback: it trusts nobody.
pub(crate) fn client() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().expect("a client")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bucket_keeps_what_is_put_into_it() {
        let moto = Moto::shared();
        moto.create_bucket("keeps").await;
        moto.put_object("keeps", "a/b", b"content".to_vec()).await;
        assert_eq!(moto.object("keeps", "a/b").await.as_deref(), Some(&b"content"[..]));
        assert_eq!(moto.object("keeps", "a/c").await, None);
        assert_eq!(moto.keys("keeps").await, ["a/b"]);
    }
}
