//! A front before an emulator of AWS: it tells who called what, and answers in the emulator's place what the emulator
//! cannot, or what a test wants to go wrong. SimulatePrincipalPolicy it answers by itself, from the policies in the emulator's
//! IAM.
//!
//! ```text
//! let front = AwsFront::start(Moto::shared().url()).await;
//! front.answer("servicequotas:GetServiceQuota", 200, r#"{"Quota": {"Value": 6.0}}"#);
//! front.fail("ecs:DescribeClusters", "AccessDeniedException", "not you");
//! // Only the second time, and only for one stack:
//! front.on("cloudformation:CreateStack", |call, number| {
//!     (number == 2 && call.text("StackName") == "ci-dev").then(|| Answer::error(call, "LimitExceeded", "too many"))
//! });
//! // … run `staffetta` with AWS_ENDPOINT_URL = front.url() …
//! assert_eq!(front.calls_of("deploy"), ["cloudformation:CreateStack"]);
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, header};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::task::JoinHandle;

use crate::aws_call::{self, AwsCall};
use crate::moto::client;
use crate::simulate::simulate;

/// An answer that does not come from the emulator.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// JSON or XML, as the service has it.
    pub body: String,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into() }
    }

    /// A refusal as the service of the call words it.
    pub fn error(call: &AwsCall, code: &str, message: &str) -> Self {
        let message = message.replace('&', "&amp;").replace('<', "&lt;");
        let error = format!("<Code>{code}</Code><Message>{message}</Message>");
        let body = match call.service.as_str() {
            "s3" => format!("<Error>{error}</Error>"),
            "ec2" => format!("<Response><Errors><Error>{error}</Error></Errors><RequestID>1</RequestID></Response>"),
            "cloudformation" | "iam" | "sts" => {
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>1</RequestId></ErrorResponse>"
                )
            }
            _ => return Self::new(400, json!({"__type": code, "message": message}).to_string()),
        };
        let refused = ["AccessDenied", "UnauthorizedOperation"].contains(&code);
        Self::new(if refused { 403 } else { 400 }, body)
    }
}

/// Gets the call and how many of its action came so far, this one included; none lets it pass.
type Rule = Box<dyn Fn(&AwsCall, usize) -> Option<Answer> + Send + Sync>;

struct Shared {
    upstream: String,
    client: reqwest::Client,
    rules: Mutex<Vec<(String, Rule)>>,
    /// Actions of which the next answer is lost.
    lost: Mutex<Vec<String>>,
    calls: Mutex<Vec<AwsCall>>,
    /// The access key ids that STS gave out, and their roles.
    roles: Mutex<HashMap<String, String>>,
    record: Option<PathBuf>,
}

/// The server; it ends with this value.
pub struct AwsFront {
    shared: Arc<Shared>,
    url: String,
    serving: JoinHandle<()>,
}

impl AwsFront {
    /// Before whatever answers at `upstream`: `http://127.0.0.1:PORT`.
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: client(),
            rules: Mutex::default(),
            lost: Mutex::default(),
            calls: Mutex::default(),
            roles: Mutex::default(),
            record: aws_call::record_file(),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
        Self { shared, url, serving }
    }

    /// Before an emulator that may outlive the runtime of the test that starts it: on a thread of its own, as long as this process
    /// lives. Gives its URL.
    pub(crate) fn for_good(upstream: String) -> String {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let front = Self::start(&upstream).await;
                tell.send(front.url().to_owned()).expect("somebody who waits");
                std::future::pending::<()>().await;
            });
        });
        told.recv().expect("a front")
    }

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on such calls are given to this rule; none lets the call pass. `action` is `ecs:RunTask`. The newest rule
    /// that answers decides.
    pub fn on(&self, action: &str, rule: impl Fn(&AwsCall, usize) -> Option<Answer> + Send + Sync + 'static) {
        let mut rules = self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.insert(0, (action.to_owned(), Box::new(rule)));
    }

    /// Every such call gets this answer.
    pub fn answer(&self, action: &str, status: u16, body: &str) {
        let answer = Answer::new(status, body);
        self.on(action, move |_, _| Some(answer.clone()));
    }

    /// Every such call is refused.
    pub fn fail(&self, action: &str, code: &'static str, message: &'static str) {
        self.on(action, move |call, _| Some(Answer::error(call, code, message)));
    }

    /// The answer of the next such call is lost after the call took effect.
    pub fn lose(&self, action: &str) {
        self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner).push(action.to_owned());
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<AwsCall> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of the calls that this access key id signed, in order.
    pub fn calls_of(&self, who: &str) -> Vec<String> {
        self.calls().iter().filter(|call| call.who == who).map(AwsCall::name).collect()
    }
}

impl Drop for AwsFront {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let Some(mut call) = AwsCall::of_request(&parts, &body) else { return shared.pass_on(parts, body).await };
    call.role = shared.roles.lock().unwrap_or_else(PoisonError::into_inner).get(&call.who).cloned();
    let record = |gives: Option<&str>| {
        if let Some(file) = &shared.record {
            aws_call::append(file, &call, gives);
        }
    };
    if let Some(answer) = shared.canned(&call) {
        record(None);
        return of_answer(answer);
    }
    if call.name() == "iam:SimulatePrincipalPolicy" {
        record(None);
        return of_answer(simulate(&call, &shared.client, &shared.upstream).await);
    }
    let response = shared.pass_on(parts, body).await;
    if shared.loses(&call) {
        record(None);
        return of_answer(Answer::new(500, ""));
    }
    if !call.action.starts_with("AssumeRole") {
        record(None);
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let key = key_in(&body);
    record(key.as_deref());
    if let Some(key) = key {
        shared.roles.lock().unwrap_or_else(PoisonError::into_inner).insert(key, call.text("RoleArn").to_owned());
    }
    Response::from_parts(parts, Body::from(body))
}

fn of_answer(answer: Answer) -> Response<Body> {
    let kind = if answer.body.starts_with('<') { "text/xml" } else { "application/x-amz-json-1.1" };
    let response = Response::builder().status(answer.status).header(header::CONTENT_TYPE, kind);
    response.body(Body::from(answer.body)).expect("a response")
}

impl Shared {
    /// Counts the call, and asks the rules.
    fn canned(&self, call: &AwsCall) -> Option<Answer> {
        let name = call.name();
        let number = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.push(call.clone());
            calls.iter().filter(|known| known.name() == name).count()
        };
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.iter().filter(|(action, _)| *action == name).find_map(|(_, rule)| rule(call, number))
    }

    /// Only once.
    fn loses(&self, call: &AwsCall) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let at = lost.iter().position(|action| *action == call.name());
        at.map(|at| lost.remove(at)).is_some()
    }

    async fn pass_on(&self, parts: Parts, body: Bytes) -> Response<Body> {
        let path = parts.uri.path_and_query().expect("a path").as_str();
        let mut headers = parts.headers;
        headers.remove(header::HOST);
        let sent = self.client.request(parts.method, format!("{}{path}", self.upstream)).headers(headers).body(body);
        let answer = sent.send().await.expect("the emulator's answer");
        let mut response = Response::builder().status(answer.status());
        *response.headers_mut().expect("no error yet") = of_the_message(answer.headers().clone());
        response.body(Body::from(answer.bytes().await.expect("the emulator's body"))).expect("a response")
    }
}

/// Without what belongs to the connection.
fn of_the_message(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    headers
}

/// The access key id that STS gave out.
fn key_in(body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let (key, _) = body.split_once("<AccessKeyId>")?.1.split_once("</AccessKeyId>")?;
    Some(key.to_owned())
}

#[cfg(test)]
mod tests {
    use reqwest::header::AUTHORIZATION;

    use super::*;
    use crate::Moto;

    const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=peer/20260101/us-east-1/ecs/aws4_request, \
                             SignedHeaders=host, Signature=made-up";

    async fn ecs(front: &AwsFront, action: &str, body: &str) -> (u16, String) {
        let request = client().post(front.url()).header(AUTHORIZATION, SIGNATURE);
        let request = request.header("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{action}"));
        let request = request.header("content-type", "application/x-amz-json-1.1").body(body.to_owned());
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    #[tokio::test]
    async fn it_simulates_the_policies_that_the_emulator_has() {
        let front = AwsFront::start(Moto::shared().url()).await;
        let iam = async |form: &str| {
            let request = client().post(front.url()).header(AUTHORIZATION, SIGNATURE.replace("/ecs/", "/iam/"));
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let answer = request.body(format!("Version=2010-05-08&{form}")).send().await.expect("an answer");
            (answer.status().as_u16(), answer.text().await.expect("a text"))
        };
        let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole",
            "Principal":{"Service":"ecs-tasks.amazonaws.com"}}]}"#;
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:ListTasks","Resource":"*",
            "Condition":{"ArnEquals":{"ecs:cluster":"arn:aws:ecs:r:1:cluster/a"}}}]}"#;
        let create = format!("Action=CreateRole&RoleName=simulated&AssumeRolePolicyDocument={trust}");
        let put = format!("Action=PutRolePolicy&RoleName=simulated&PolicyName=p&PolicyDocument={policy}");
        for form in [create, put] {
            let (status, answer) = iam(&form).await;
            assert_eq!(status, 200, "{answer}");
        }
        let simulate = async |action: &str, cluster: &str| {
            let form = format!(
                "Action=SimulatePrincipalPolicy&PolicySourceArn=arn:aws:iam::123456789012:role/simulated\
                 &ActionNames.member.1={action}&ResourceArns.member.1=*&ContextEntries.member.1.ContextKeyName=ecs:cluster\
                 &ContextEntries.member.1.ContextKeyValues.member.1=arn:aws:ecs:r:1:cluster/{cluster}"
            );
            let (_, answer) = iam(&form).await;
            let (_, decision) = answer.split_once("<EvalDecision>").expect("a decision");
            decision.split_once('<').expect("its end").0.to_owned()
        };
        assert_eq!(simulate("ecs:ListTasks", "a").await, "allowed");
        assert_eq!(simulate("ecs:ListTasks", "b").await, "implicitDeny");
        assert_eq!(simulate("ecs:StopTask", "a").await, "implicitDeny");
        let nobody =
            "Action=SimulatePrincipalPolicy&PolicySourceArn=arn:aws:iam::123456789012:role/no&ActionNames.member.1=a";
        assert!(iam(nobody).await.1.contains("NoSuchEntity"));
    }

    #[tokio::test]
    async fn it_passes_calls_on_tells_them_and_answers_what_it_is_told_to() {
        let front = AwsFront::start(Moto::shared().url()).await;
        let (status, body) = ecs(&front, "CreateCluster", r#"{"clusterName": "behind-a-front"}"#).await;
        assert!(status == 200 && body.contains("cluster/behind-a-front"), "{status} {body}");
        front.on("ecs:CreateCluster", |call, number| {
            (number == 2 && call.text("clusterName") == "b").then(|| Answer::error(call, "ClientException", "no"))
        });
        assert_eq!(ecs(&front, "CreateCluster", r#"{"clusterName": "b"}"#).await.0, 400);
        assert_eq!(ecs(&front, "CreateCluster", r#"{"clusterName": "b"}"#).await.0, 200);
        front.answer("ecs:ListTasks", 200, r#"{"taskArns": ["one"]}"#);
        assert_eq!(ecs(&front, "ListTasks", "{}").await, (200, r#"{"taskArns": ["one"]}"#.to_owned()));
        front.fail("ecs:ListTasks", "AccessDeniedException", "not you");
        let (status, body) = ecs(&front, "ListTasks", "{}").await;
        assert!(status == 400 && body.contains("AccessDeniedException"), "{status} {body}");
        let seen = ["ecs:CreateCluster", "ecs:CreateCluster", "ecs:CreateCluster", "ecs:ListTasks", "ecs:ListTasks"];
        assert_eq!(front.calls_of("peer"), seen);
        assert_eq!(front.calls_of("deploy"), [""; 0]);
    }
}
