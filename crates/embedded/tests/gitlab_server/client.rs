//! A runner written by hand: it sends what a test says, right or wrong.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use embedded::gitlab::ci::{Job, Pipeline};
use embedded::gitlab::{Config, JobId, PipelineId, PipelineSource, Server, start};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// Longer than any test needs; only a hanging one meets it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub server: Server,
    pub http: reqwest::Client,
    repo: tempfile::TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of text"))
    }
}

pub async fn world() -> World {
    world_with(Config { long_poll: Duration::ZERO, ..Config::default() }).await
}

pub async fn world_with(config: Config) -> World {
    let server = start(config).await.expect("a server");
    let repo = tempfile::tempdir().expect("a directory");
    git(repo.path(), &["init", "--quiet", "--initial-branch=main"]);
    for number in 1..=3 {
        std::fs::write(repo.path().join("file.txt"), number.to_string()).expect("a file");
        git(repo.path(), &["add", "."]);
        git(repo.path(), &["commit", "--quiet", "-m", &format!("Commit {number}\n\nIts description.")]);
    }
    World { server, http: client(), repo }
}

/// Follows no redirect and keeps no connection, so that each request stands for itself.
fn client() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .expect("a client")
}

/// Git with an identity and without anybody's settings.
pub fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_TERMINAL_PROMPT", "0").env_remove("GIT_DIR").env_remove("GIT_INDEX_FILE");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "ada@example.com");
    }
    command
}

pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = git_command(directory).args(arguments).output().expect("git");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

impl World {
    pub fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v4/{path}", self.server.url()))
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.api(Method::POST, path).json(&body)).await
    }

    pub fn repo(&self) -> &Path {
        self.repo.path()
    }

    pub async fn pipeline(&self, pipeline: Pipeline) -> PipelineId {
        let source = PipelineSource {
            repo: self.repo.path().to_owned(),
            commit: "HEAD".into(),
            git_ref: embedded::gitlab::Ref::branch("main"),
            pipeline,
            variables: Vec::new(),
        };
        self.server.create_pipeline(source).await.expect("a pipeline")
    }

    pub fn runner(&self, tags: &[&str]) -> Runner<'_> {
        Runner { world: self, token: self.server.register_runner("by hand", tags), features: all_features() }
    }

    /// One job, taken by a runner.
    pub async fn running(&self, job: Job) -> Taken<'_> {
        self.pipeline(pipeline(vec![job])).await;
        self.runner(&[]).take().await
    }
}

pub fn all_features() -> Value {
    json!({
        "artifacts": true, "upload_multiple_artifacts": true, "artifacts_exclude": true, "return_exit_code": true,
        "cancelable": true, "cancel_gracefully": true, "trace_checksum": true,
    })
}

pub struct Runner<'w> {
    pub world: &'w World,
    pub token: String,
    pub features: Value,
}

impl<'w> Runner<'w> {
    pub fn request(&self, last_update: Option<&str>) -> Value {
        json!({
            "token": self.token, "system_id": "s_0123456789ab", "last_update": last_update,
            "info": { "name": "by hand", "executor": "fargate", "features": self.features },
        })
    }

    pub async fn ask(&self, last_update: Option<&str>) -> Answer {
        self.world.post("jobs/request", self.request(last_update)).await
    }

    pub async fn take(&self) -> Taken<'w> {
        let answer = self.ask(None).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        Taken { world: self.world, payload: answer.body }
    }
}

pub struct Taken<'w> {
    pub world: &'w World,
    pub payload: Value,
}

impl Taken<'_> {
    pub fn id(&self) -> JobId {
        self.payload["id"].as_u64().expect("an id")
    }

    pub fn name(&self) -> &str {
        self.payload["job_info"]["name"].as_str().expect("a name")
    }

    pub fn token(&self) -> &str {
        self.payload["token"].as_str().expect("a token")
    }

    pub fn variable(&self, key: &str) -> Option<&str> {
        let variables = self.payload["variables"].as_array().expect("variables");
        variables.iter().rfind(|variable| variable["key"] == key).and_then(|variable| variable["value"].as_str())
    }

    pub async fn update(&self, mut body: Value) -> Answer {
        body["token"] = self.token().into();
        send(self.world.api(Method::PUT, &format!("jobs/{}", self.id())).json(&body)).await
    }

    pub async fn append(&self, start: u64, bytes: &'static [u8]) -> Answer {
        let range = format!("{start}-{}", start + bytes.len() as u64 - 1);
        let request = self.world.api(Method::PATCH, &format!("jobs/{}/trace?debug_trace=false", self.id()));
        let request = request.header("JOB-TOKEN", self.token()).header("Content-Type", "text/plain");
        send(request.header("Content-Range", range).body(bytes)).await
    }

    pub async fn succeed(&self) {
        let answer = self.update(json!({ "state": "success", "output": {} })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    pub async fn fail(&self, reason: &str, exit_code: i32) {
        let body = json!({ "state": "failed", "failure_reason": reason, "exit_code": exit_code, "output": {} });
        let answer = self.update(body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    pub fn artifacts(&self, method: Method, query: &str) -> RequestBuilder {
        let path = format!("jobs/{}/artifacts{query}", self.id());
        self.world.api(method, &path).header("JOB-TOKEN", self.token())
    }

    pub async fn upload(&self, query: &str, filename: &str, bytes: Vec<u8>) -> Answer {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(filename.to_owned());
        let form = reqwest::multipart::Form::new().part("file", part);
        send(self.artifacts(Method::POST, query).multipart(form)).await
    }
}

pub fn job(name: &str, stage: &str) -> Job {
    Job { name: name.into(), stage: stage.into(), script: vec!["true".into()], line: 1, ..Job::default() }
}

pub fn pipeline(jobs: Vec<Job>) -> Pipeline {
    Pipeline { stages: ["build", "test", "deploy"].map(str::to_owned).to_vec(), jobs }
}
