//! The Fargate driver as GitLab's runner calls it (protocol section 9): a process for each call, in its own process
//! group, with the job's temporary folder, its payload in a file, and its variables in the environment.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use embedded::fargate;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{PATIENCE, aws_call, program};

/// The codes that a runner names; not 1 and 2, so that nobody can guess them.
pub const BUILD_FAILURE: i32 = 101;
pub const SYSTEM_FAILURE: i32 = 102;

/// What an image for GitLab's driver starts, for task definitions that do something before. As in the article that the
/// design comes from, a shell stays the container's first process.
const SSHD: &str = r#"umask 077; mkdir -p "$HOME/.ssh" /run/sshd; echo "$SSH_PUBLIC_KEY" > "$HOME/.ssh/authorized_keys"
keys=$(mktemp -d); ssh-keygen -q -t ed25519 -N '' -f "$keys/host_key"
trap 'kill $sshd' TERM
/usr/sbin/sshd -D -e -f /dev/null -o ListenAddress="${STAFFETTA_LISTEN%:*}" -o Port="${STAFFETTA_LISTEN##*:}" \
  -o HostKey="$keys/host_key" -o UsePAM=yes -o StrictModes=no -o PidFile=none &
sshd=$!
wait $sshd"#;

/// An embedded Fargate, and an `ecs.toml` for it.
pub struct Driver {
    pub fargate: fargate::Server,
    folder: TempDir,
    next_job: Cell<u64>,
}

/// One job of GitLab's runner.
pub struct DriverJob {
    pub id: u64,
    temporary: TempDir,
    environment: BTreeMap<String, String>,
    ecs_toml: PathBuf,
}

/// What a call left.
#[derive(Debug)]
pub struct Ended {
    /// None if it was killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// A failure with this code, and with this text on standard error.
    #[track_caller]
    pub fn failed(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(text), "{self:?}");
        self
    }
}

impl Driver {
    /// Tasks have OpenSSH, as those of GitLab's driver do.
    pub async fn start() -> Self {
        let clusters = vec!["ci".to_owned(), "other".to_owned()];
        Self::with(fargate::Config { clusters, ..fargate::Config::new(program("staffetta-agent")) }).await
    }

    pub async fn with(config: fargate::Config) -> Self {
        let config = fargate::Config { record: aws_call::record_file(), ..config };
        let fargate = fargate::start(config).await.expect("the embedded Fargate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let driver = Self { fargate, folder, next_job: Cell::new(1) };
        driver.configure("", "", "");
        driver
    }

    /// Whether a task may change its files and signal its first process without doing so to this machine.
    pub fn is_isolated(&self) -> bool {
        let isolated = self.fargate.engine().starts_with("namespaces");
        if !isolated {
            eprintln!("not tested: {}", self.fargate.engine());
        }
        isolated
    }

    /// Writes `ecs.toml` with lines added to its parts.
    pub fn configure(&self, fargate: &str, metadata: &str, ssh: &str) {
        let directory =
            if metadata.is_empty() { format!("Directory = {:?}", self.metadata()) } else { metadata.into() };
        let text = format!(
            r#"LogLevel = "info"
LogFormat = "text"

[Fargate]
Cluster = "ci"
Region = "us-east-1"
Subnet = "subnet-1"
SecurityGroup = "sg-1"
TaskDefinition = "staffetta-sshd"
EnablePublicIP = false
{fargate}

[TaskMetadata]
{directory}

[SSH]
Username = "root"
Port = {}
{ssh}
"#,
            self.fargate.ssh_port()
        );
        self.write(&text);
    }

    pub fn write(&self, text: &str) {
        std::fs::write(self.ecs_toml(), text).expect("ecs.toml");
    }

    pub fn ecs_toml(&self) -> PathBuf {
        self.folder.path().join("ecs.toml")
    }

    /// Where the driver keeps its metadata.
    pub fn metadata(&self) -> PathBuf {
        self.folder.path().join("metadata")
    }

    /// The names of the metadata files.
    pub fn metadata_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.metadata()).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json" || extension == "part"));
        files
    }

    /// A job of its own, with these variables beside GitLab's.
    pub fn job(&self, variables: &[(&str, &str)]) -> DriverJob {
        let id = self.next_job.replace(self.next_job.get() + 1);
        let of_gitlab = [
            ("CI_JOB_ID", id.to_string()),
            ("CI_PIPELINE_ID", "1".to_owned()),
            ("CI_PROJECT_URL", "https://gitlab.example.com/acme/app".to_owned()),
        ];
        let of_job = variables.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let variables: Vec<(&str, String)> = of_gitlab.into_iter().chain(of_job).collect();
        let payload = json!({
            "id": id,
            "token": "glcbt-of-the-job",
            "runner_info": {"timeout": 3600},
            "variables": variables.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>(),
        });
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| temporary.path().join(name).display().to_string();
        let mut environment = BTreeMap::from([
            ("TMPDIR".to_owned(), temporary.path().display().to_string()),
            ("BUILD_FAILURE_EXIT_CODE".to_owned(), BUILD_FAILURE.to_string()),
            ("SYSTEM_FAILURE_EXIT_CODE".to_owned(), SYSTEM_FAILURE.to_string()),
            ("BUILD_EXIT_CODE_FILE".to_owned(), path("build_exit_code")),
            ("JOB_RESPONSE_FILE".to_owned(), path("response.json")),
            ("CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN".to_owned(), "abcdefghi".to_owned()),
            ("AWS_ACCESS_KEY_ID".to_owned(), "driver".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "made-up".to_owned()),
            ("AWS_ENDPOINT_URL".to_owned(), self.fargate.url().to_owned()),
        ]);
        environment.extend(variables.into_iter().map(|(key, value)| (format!("CUSTOM_ENV_{key}"), value)));
        std::fs::write(path("response.json"), payload.to_string()).expect("response.json");
        DriverJob { id, temporary, environment, ecs_toml: self.ecs_toml() }
    }

    /// [`register`] for this driver's tasks.
    pub async fn register(&self, family: &str, environment: &[(&str, &str)], before: &str) {
        register(&self.fargate, family, environment, before).await;
    }

    /// Waits until no task is meant to run any more.
    pub async fn idle(&self) {
        let stopped = |tasks: &[fargate::TaskView]| tasks.iter().all(|task| task.last_status == "STOPPED");
        let idle = self.fargate.wait_for(PATIENCE, stopped).await;
        assert!(idle.is_some(), "tasks are left: {:?}", self.fargate.tasks());
    }

    /// Every story ends so: no task and no metadata may be left.
    pub async fn end(self) {
        self.idle().await;
        assert_eq!(self.metadata_files(), Vec::<PathBuf>::new());
        self.fargate.shutdown().await;
    }
}

impl DriverJob {
    /// Sets what the runner's environment says, whatever GitLab sent.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// As old runners do it.
    pub fn without_payload(&mut self) {
        self.environment.remove("JOB_RESPONSE_FILE");
    }

    pub fn exit_code_file(&self) -> Option<String> {
        std::fs::read_to_string(self.temporary.path().join("build_exit_code")).ok()
    }

    /// The process of a call that is under way.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(program("staffetta"));
        command
            .arg("--config")
            .arg(&self.ecs_toml)
            .arg("custom")
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.environment)
            .current_dir(self.temporary.path())
            .process_group(0);
        Self::piped(command)
    }

    /// Starts a command whose output is read by [`DriverJob::ended`].
    pub fn piped(mut command: Command) -> Child {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().expect("a process")
    }

    pub async fn call(&self, arguments: &[&str]) -> Ended {
        Self::ended(self.spawn(arguments)).await
    }

    pub async fn prepare(&self) -> Ended {
        self.call(&["prepare"]).await
    }

    pub async fn cleanup(&self) -> Ended {
        self.call(&["cleanup"]).await
    }

    /// Runs a script as a runner does: from a file, for a stage.
    pub async fn run(&self, script: &str) -> Ended {
        Self::ended(self.spawn_run(script)).await
    }

    pub fn spawn_run(&self, script: &str) -> Child {
        let file = self.script(script);
        self.spawn(&["run", file.to_str().expect("UTF-8"), "build_script"])
    }

    pub fn script(&self, text: &str) -> PathBuf {
        let file = self.temporary.path().join("script.sh");
        std::fs::write(&file, text).expect("a script");
        file
    }

    /// Waits for a call. What it prints must be read meanwhile, or it waits for its reader.
    pub async fn ended(child: Child) -> Ended {
        let output = timeout(PATIENCE, child.wait_with_output()).await.expect("the call ends").expect("an output");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Where the runner keeps what the calls of this job need.
    pub fn temporary(&self) -> &Path {
        self.temporary.path()
    }
}

/// The private key in a metadata file, as text.
pub fn private_key(metadata: &Value) -> String {
    let text = metadata["PrivateKey"].as_str().expect("a key");
    let bytes = BASE64_STANDARD.decode(text).expect("base64");
    String::from_utf8(bytes).expect("PEM")
}

/// Sends a signal to the process group of a call, as a runner does.
pub fn signal(child: &Child, signal: Signal) {
    let pid = child.id().expect("it runs").cast_signed();
    kill(Pid::from_raw(-pid), signal).expect("a signal");
}

/// Registers a task definition: OpenSSH, with this environment, after these commands.
pub async fn register(fargate: &fargate::Server, family: &str, environment: &[(&str, &str)], before: &str) {
    let environment: Vec<Value> =
        environment.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let mut container = json!({
        "name": "ci-coordinator", "image": "staffetta/sshd", "essential": true, "environment": environment,
        "portMappings": [{"containerPort": 22, "protocol": "tcp"}],
    });
    container["entryPoint"] = json!(["/bin/sh", "-c", format!("{before}\n{SSHD}")]);
    let request = json!({
        "family": family, "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc",
        "cpu": "256", "memory": "512", "containerDefinitions": [container],
    });
    ecs(fargate, "RegisterTaskDefinition", request).await;
}

/// One call of ECS that must succeed, without any AWS code.
pub async fn ecs(fargate: &fargate::Server, operation: &str, request: Value) {
    let address = fargate.url().strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let body = request.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=peer/20260101/us-east-1/ecs/aws4_request\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: AmazonEC2ContainerServiceV20141113.{operation}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{operation}: {answer}");
}
