//! Secrets from OpenBao itself, as a peer of our small Vault. It is not installed by `make test`: with the path of `bao` in
//! `OPENBAO`, `cargo test -p testkit --test stories openbao -- --ignored`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use embedded::gitlab::{Endpoint, Fault, Rule, Status};
use serde_json::{Value, json};
use testkit::{PATIENCE, Setup, World, eventually};
use tokio::process::Child;

const VALUE: &str = "correct-horse-battery";
const ROOT: &str = "root-token-of-the-story";

/// OpenBao in its development mode, which keeps everything in memory.
struct OpenBao {
    url: String,
    http: reqwest::Client,
    _process: Child,
}

impl OpenBao {
    async fn start() -> Self {
        let program = std::env::var("OPENBAO").expect("the path of bao in OPENBAO");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let process = tokio::process::Command::new(program)
            .args(["server", "-dev", "-dev-no-store-token", "-dev-root-token-id", ROOT])
            .args(["-dev-listen-address", &free.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("bao starts");
        eventually("OpenBao listens", || std::net::TcpStream::connect(free).is_ok()).await;
        let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(PATIENCE).build();
        Self { url: format!("http://{free}"), http: http.expect("a client"), _process: process }
    }

    async fn set(&self, path: &str, body: Value) {
        let request = self.http.post(format!("{}/v1/{path}", self.url)).header("x-vault-token", ROOT).json(&body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap_or_default());
    }
}

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().expect("openssl");
    process.stdin.take().expect("it was piped").write_all(input).expect("openssl reads");
    let output = process.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

fn signed(claims: &Value, key: &Path) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(claims));
    let signature = openssl(&["dgst", "-sha256", "-sign", key.to_str().expect("a path")], text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao"]
async fn openbao_lets_a_job_in_by_a_login_and_by_its_jwt_in_the_request() {
    let bao = OpenBao::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key.pem");
    std::fs::write(&key, openssl(&["genrsa", "2048"], b"")).expect("the key");
    let public = openssl(&["rsa", "-pubout", "-in", key.to_str().expect("a path")], b"");
    let public = String::from_utf8(public).expect("PEM");
    bao.set("sys/auth/jwt", json!({"type": "jwt"})).await;
    bao.set("auth/jwt/config", json!({"jwt_validation_pubkeys": [public]})).await;
    let role = json!({"role_type": "jwt", "bound_audiences": ["story"], "user_claim": "sub", "policies": ["ci"]});
    bao.set("auth/jwt/role/ci", role).await;
    let policy = r#"path "secret/data/app/*" { capabilities = ["read"] } path "old/app/*" { capabilities = ["read"] }"#;
    bao.set("sys/policies/acl/ci", json!({"policy": policy})).await;
    bao.set("sys/mounts/old", json!({"type": "kv", "options": {"version": "1"}})).await;
    for path in ["secret/data/app/db", "secret/data/other/db"] {
        bao.set(path, json!({"data": {"password": VALUE, "port": 5432}})).await;
    }
    bao.set("old/app/db", json!({"password": VALUE})).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let jwt = signed(&json!({"aud": "story", "sub": "project", "iat": now, "exp": now + 600}), &key);

    let auth = json!({"name": "jwt", "path": "jwt", "data": {"jwt": jwt, "role": "ci"}});
    let of_vault = |engine: &str, mount: &str, path: &str, field: &str| json!({"vault": {"server": {"url": bao.url, "auth": auth}, "engine": {"name": engine, "path": mount}, "path": path, "field": field}, "file": false});
    let of_gitlab = |role: &str| {
        let inline_auth = json!({"path": "auth/jwt/login", "jwt": jwt, "role": role});
        json!({"gitlab_secrets_manager": {"server": {"url": bao.url, "inline_auth": inline_auth},
            "engine": {"name": "kv-v2", "path": "secret"}, "path": "app/db", "field": "password"}, "file": false})
    };
    let mut world = World::start(Setup::default()).await;
    let give = |world: &World, secrets: Value| {
        world.gitlab.faults().clear();
        let fault = Fault::Payload([("secrets".to_owned(), secrets)].into_iter().collect());
        world.gitlab.faults().add(Rule::new(Endpoint::JobRequest, fault).times(u32::MAX));
    };
    give(
        &world,
        json!({
            "NEW": of_vault("kv-v2", "secret", "app/db", "password"),
            "PORT": of_vault("kv-v2", "secret", "app/db", "port"),
            "OLD": of_vault("kv-v1", "old", "app/db", "password"),
            "OF_GITLAB": of_gitlab("ci"),
        }),
    );
    let script = format!("test \"$NEW $PORT $OLD $OF_GITLAB\" = '{VALUE} 5432 {VALUE} {VALUE}'");
    let (job, trace) = world.run_job(&format!("  script:\n    - {script}")).await;
    assert_eq!(job.status, Status::Success, "{trace}");
    for (secret, said) in [
        (of_vault("kv-v2", "secret", "app/none", "password"), "secret not found"),
        (of_vault("kv-v2", "secret", "app/db", "none"), "secret not found"),
        (of_vault("kv-v2", "secret", "other/db", "password"), "answered 403"),
        (of_gitlab("stranger"), "answered 400"),
    ] {
        give(&world, json!({"IT": secret}));
        let (job, trace) = world.run_job("  script: echo never").await;
        assert_eq!(job.failure_reason.as_deref(), Some("runner_configuration_error"), "{trace}");
        assert!(trace.contains(said), "{said:?} in {trace}");
    }
    world.end().await;
}
