//! What the tests of the embedded Fargate share: a client without any AWS code, and ways to start tasks.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use embedded::fargate::{Config, EngineMode, Server, TaskView};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long enough for a busy machine; no test waits this long unless it fails.
pub const SOON: Duration = Duration::from_secs(30);

/// The engines that work here. Continuous integration runs as root, so that both are tested.
pub fn engines() -> Vec<EngineMode> {
    match nix::unistd::geteuid().is_root() {
        true => vec![EngineMode::Namespaces, EngineMode::ProcessGroup],
        false => vec![EngineMode::ProcessGroup],
    }
}

/// An executable that stands for the agent, and lives as long as the directory.
pub fn fake_agent() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("staffetta-agent");
    std::fs::write(&path, "#!/bin/sh\necho \"agent $*\"\nexec sleep 86400\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (directory, path)
}

/// A server on the given engine, changed as the test needs it.
pub async fn server(engine: EngineMode, change: impl FnOnce(&mut Config)) -> (Server, TempDir) {
    let (directory, agent) = fake_agent();
    let mut config = Config { engine, ..Config::new(agent) };
    change(&mut config);
    (embedded::fargate::start(config).await.unwrap(), directory)
}

/// The status and body of an HTTP answer, or the error if the connection ended without one.
pub async fn http(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> io::Result<(u16, String)> {
    let address = server.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

/// One call of ECS; a refusal is its status and body.
pub async fn ecs(server: &Server, operation: &str, request: Value) -> io::Result<Result<Value, (u16, Value)>> {
    let headers = format!(
        "Authorization: AWS4-HMAC-SHA256 unchecked\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: AmazonEC2ContainerServiceV20141113.{operation}\r\n"
    );
    let (status, body) = http(server, "POST", "/", &headers, &request.to_string()).await?;
    let body: Value = serde_json::from_str(&body).unwrap();
    Ok(if status == 200 { Ok(body) } else { Err((status, body)) })
}

pub async fn must(server: &Server, operation: &str, request: Value) -> Value {
    ecs(server, operation, request).await.unwrap().unwrap()
}

/// A RunTask that ECS accepts.
pub fn run_request() -> Value {
    json!({
        "cluster": "default",
        "taskDefinition": "staffetta-agent",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}},
    })
}

/// Starts a task whose first process is this shell script; gives its ARN.
pub async fn run_script(server: &Server, script: &str) -> String {
    let mut request = run_request();
    let command = json!(["sh", "-c", script]);
    request["overrides"] = json!({"containerOverrides": [{"name": "ci-coordinator", "command": command}]});
    arn_of(&must(server, "RunTask", request).await)
}

pub fn arn_of(answer: &Value) -> String {
    answer["tasks"][0]["taskArn"].as_str().unwrap_or_else(|| panic!("no task in {answer}")).to_owned()
}

pub async fn describe(server: &Server, arn: &str) -> Value {
    must(server, "DescribeTasks", json!({"cluster": "default", "tasks": [arn]})).await["tasks"][0].clone()
}

/// Waits until the task has this status.
pub async fn until(server: &Server, arn: &str, status: &str) -> TaskView {
    let at = |tasks: &[TaskView]| tasks.iter().any(|task| task.arn == arn && task.last_status == status);
    let Some(tasks) = server.wait_for(SOON, at).await else {
        let log = String::from_utf8_lossy(&server.task_log(arn).unwrap_or_default()).into_owned();
        panic!("no {status} in time: {:?}\n{log}", server.tasks());
    };
    tasks.into_iter().find(|task| task.arn == arn).unwrap()
}

/// Waits until the task's output contains `text`.
pub async fn until_printed(server: &Server, arn: &str, text: &str) -> String {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let log = String::from_utf8_lossy(&server.task_log(arn).unwrap_or_default()).into_owned();
        if log.contains(text) {
            return log;
        }
        assert!(tokio::time::Instant::now() < deadline, "{text:?} not printed in time: {log:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The processes of this machine with `marker` in their command line.
pub fn processes_with(marker: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let marked = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != own && String::from_utf8_lossy(&line).contains(marker)
    };
    pids.filter(marked).collect()
}

/// Waits until no process has `marker` in its command line.
pub async fn until_gone(marker: &str) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !processes_with(marker).is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "still there: {:?}", processes_with(marker));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
