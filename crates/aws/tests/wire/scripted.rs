//! A server that answers ECS and EC2 calls as a test's closure says, and keeps every call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws::fargate::{Credentials, Fargate, FargateConfig, Launch, Regions, Task};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use job::ids::TaskArn;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// One call as it came over the wire.
#[derive(Debug, Clone)]
pub struct Call {
    /// `RunTask`, …; of the Query calls `AssumeRole`, and `EC2` for the rest.
    pub api: String,
    pub headers: HeaderMap,
    /// The JSON body; of a Query call the form as a string.
    pub body: Value,
}

impl Call {
    /// Whose key signed it.
    pub fn key(&self) -> &str {
        let authorization = self.headers["authorization"].to_str().expect("text");
        let (_, rest) = authorization.split_once("Credential=").expect("a credential");
        rest.split('/').next().expect("a key")
    }
}

pub enum Answer {
    Json(Value),
    Error(u16, &'static str, &'static str),
    /// ConflictException: the token belongs to this task.
    Conflict(String),
    Xml(String),
    XmlError(u16, String),
    /// The call took effect, and its answer breaks off.
    Lost,
}

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Shared {
    script: Arc<dyn Fn(&Call) -> Answer + Send + Sync>,
    calls: Arc<Mutex<Vec<Call>>>,
    called: Arc<Notify>,
}

pub struct Scripted {
    url: String,
    shared: Shared,
    serving: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Scripted {
    pub async fn start(script: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("the address"));
        let shared = Shared { script: Arc::new(script), calls: Arc::default(), called: Arc::default() };
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.expect("the server") });
        Self { url, shared, serving }
    }

    pub fn config(&self) -> FargateConfig {
        FargateConfig {
            cluster: "ci-dev".into(),
            region: Some("eu-west-1".into()),
            subnets: vec!["subnet-1".into(), "subnet-2".into()],
            security_groups: vec!["sg-1".into()],
            task_definition: "ci-dev:3".into(),
            endpoint_url: Some(self.url.clone()),
            credentials: Credentials::MadeUp,
            ..FargateConfig::default()
        }
    }

    pub async fn connect(&self, config: &FargateConfig) -> Fargate {
        Fargate::connect(config, &Regions::default()).await.expect("a connection")
    }

    pub fn calls(&self, api: &str) -> Vec<Call> {
        self.shared.calls.lock().expect("the calls").iter().filter(|call| call.api == api).cloned().collect()
    }

    /// Waits until so many calls of this API have come.
    pub async fn wait_for(&self, api: &str, count: usize) {
        let wait = async {
            while self.calls(api).len() < count {
                self.shared.called.notified().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the call within the deadline");
    }

    /// The client token of each RunTask so far.
    pub fn tokens(&self) -> Vec<String> {
        let calls = self.calls("RunTask");
        calls.iter().map(|call| call.body["clientToken"].as_str().expect("a token").to_owned()).collect()
    }
}

async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get("x-amz-target").map(|target| target.to_str().expect("a target").to_owned());
    let call = match target {
        Some(target) => Call {
            api: target.rsplit('.').next().expect("a name").to_owned(),
            headers,
            body: serde_json::from_slice(&body).expect("JSON"),
        },
        None => {
            let form = String::from_utf8_lossy(&body);
            let api = if form.starts_with("Action=AssumeRole&") { "AssumeRole" } else { "EC2" };
            Call { api: api.into(), headers, body: form.into() }
        }
    };
    shared.calls.lock().expect("the calls").push(call.clone());
    shared.called.notify_one();
    let response = Response::builder().header("content-type", "application/x-amz-json-1.1");
    let response = match (shared.script)(&call) {
        Answer::Json(body) => response.body(Body::from(body.to_string())),
        Answer::Error(status, code, message) => {
            response.status(status).body(Body::from(json!({ "__type": code, "message": message }).to_string()))
        }
        Answer::Conflict(arn) => {
            let body = json!({ "__type": "ConflictException", "message": "conflict", "resourceIds": [arn] });
            response.status(400).body(Body::from(body.to_string()))
        }
        Answer::Xml(body) => response.body(Body::from(body)),
        Answer::XmlError(status, body) => response.status(status).body(Body::from(body)),
        Answer::Lost => {
            let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("lost")) });
            response.body(Body::from_stream(broken))
        }
    };
    response.expect("a response")
}

pub fn arn(id: &str) -> String {
    format!("arn:aws:ecs:eu-west-1:111122223333:task/ci-dev/{id}")
}

/// A task in ECS's JSON.
pub fn task(id: &str, last_status: &str) -> Value {
    json!({
        "taskArn": arn(id),
        "lastStatus": last_status,
        "desiredStatus": if last_status == "STOPPED" { "STOPPED" } else { "RUNNING" },
        "createdAt": 1_700_000_000.5,
        "startedBy": "staffetta/abc",
        "version": 1,
        "attachments": [{
            "type": "ElasticNetworkInterface",
            "status": "ATTACHED",
            "details": [
                { "name": "networkInterfaceId", "value": format!("eni-{id}") },
                { "name": "privateIPv4Address", "value": "10.0.0.7" },
            ],
        }],
        "containers": [],
    })
}

/// The answer of DescribeTasks: every task asked for, in this state.
pub fn all_are(last_status: &str, call: &Call) -> Answer {
    let ids = asked(call);
    Answer::Json(json!({ "tasks": ids.iter().map(|id| task(id, last_status)).collect::<Vec<_>>(), "failures": [] }))
}

pub fn all_are_missing(call: &Call) -> Answer {
    let missing = |id: &String| json!({ "arn": arn(id), "reason": "MISSING" });
    Answer::Json(json!({ "tasks": [], "failures": asked(call).iter().map(missing).collect::<Vec<_>>() }))
}

/// The ids that a DescribeTasks asks for, sorted.
pub fn asked(call: &Call) -> Vec<String> {
    let arns = call.body["tasks"].as_array().expect("tasks");
    let id = |arn: &Value| arn.as_str().expect("an ARN").rsplit('/').next().expect("an id").to_owned();
    let mut ids: Vec<String> = arns.iter().map(id).collect();
    ids.sort();
    ids
}

pub fn launch(token: &str) -> Launch {
    Launch {
        client_token: token.into(),
        started_by: "staffetta/abc".into(),
        environment: [("SSH_PUBLIC_KEY".to_owned(), "ssh-ed25519 AAAA".to_owned())].into(),
        task_definition: None,
        platform_version: None,
        patience: Duration::from_secs(60),
    }
}

pub fn unseen(id: &str) -> Task {
    Task::unseen(TaskArn::new(arn(id)))
}

/// Waits for a look that fulfils the condition.
pub async fn until(watch: &mut watch::Receiver<Task>, condition: impl FnMut(&Task) -> bool) -> Task {
    let wait = watch.wait_for(condition);
    let look = tokio::time::timeout(DEADLINE, wait).await;
    look.expect("the condition within the deadline").expect("the watch goes on").clone()
}
