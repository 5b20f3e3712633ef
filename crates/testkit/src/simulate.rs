//! IAM's SimulatePrincipalPolicy, which moto does not have and ministack answers without conditions: decided here, from the inline
//! policies that the emulator's own IAM has for the principal. Managed policies and boundaries do not count.

use axum::http::header;
use serde_json::Value;

use crate::aws_call::AwsCall;
use crate::aws_front::Answer;
use crate::iam::{Decision, Question};

/// Asked of the emulator by test code.
const SIGNATURE: &str =
    "AWS4-HMAC-SHA256 Credential=peer/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=made-up";

/// `url` is the emulator's.
pub(crate) async fn simulate(call: &AwsCall, client: &reqwest::Client, url: &str) -> Answer {
    let ask = async |form: String| {
        let sent = client.post(url).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let answer = sent.header(header::AUTHORIZATION, SIGNATURE).send().await.expect("the emulator's answer");
        (answer.status().as_u16(), answer.text().await.expect("the emulator's body"))
    };
    let arn = call.text("PolicySourceArn");
    let kind = if arn.contains(":user/") { "User" } else { "Role" };
    let name = arn.rsplit('/').next().unwrap_or_default();
    let of_principal = format!("Version=2010-05-08&{kind}Name={name}");
    let (status, names) = ask(format!("Action=List{kind}Policies&{of_principal}")).await;
    if status != 200 {
        return Answer::new(status, names);
    }
    let mut policies = Vec::new();
    for policy in texts(&names, "member") {
        let (_, answer) = ask(format!("Action=Get{kind}Policy&{of_principal}&PolicyName={policy}")).await;
        policies.extend(texts(&answer, "PolicyDocument").iter().map(|text| read(text)));
    }
    let results: String = call.list("ActionNames").iter().map(|action| result(call, action, &policies)).collect();
    let body = format!(
        "<SimulatePrincipalPolicyResult><EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>"
    );
    Answer::new(200, format!("<SimulatePrincipalPolicyResponse>{body}</SimulatePrincipalPolicyResponse>"))
}

/// One result for each action, with one of its own for each resource.
fn result(call: &AwsCall, action: &str, policies: &[Value]) -> String {
    let resources = call.list("ResourceArns");
    let resources = if resources.is_empty() { vec!["*"] } else { resources };
    let decide = |resource: &str| question(call, action, resource).decide(policies, None);
    let decisions: Vec<_> = resources.iter().map(|resource| (*resource, decide(resource))).collect();
    let worst = decisions.iter().map(|(_, decision)| *decision).find(|decision| *decision != Decision::Allowed);
    let of_resources: String = decisions
        .iter()
        .filter(|(resource, _)| *resource != "*")
        .map(|(resource, decision)| {
            let (resource, decision) = (element("EvalResourceName", resource), decision.name());
            format!("<member>{resource}<EvalResourceDecision>{decision}</EvalResourceDecision></member>")
        })
        .collect();
    format!(
        "<member>{}<EvalDecision>{}</EvalDecision><ResourceSpecificResults>{of_resources}</ResourceSpecificResults></member>",
        element("EvalActionName", action),
        worst.unwrap_or(Decision::Allowed).name(),
    )
}

fn question(call: &AwsCall, action: &str, resource: &str) -> Question {
    let mut question = Question::new(action, resource);
    for number in 1.. {
        let entry = format!("ContextEntries.member.{number}");
        let key = call.text(&format!("{entry}.ContextKeyName"));
        if key.is_empty() {
            break;
        }
        question = question.with(key, &call.list(&format!("{entry}.ContextKeyValues")));
    }
    question
}

/// What stands between the tags of this name.
fn texts(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = xml.split(&open).skip(1).filter_map(|rest| rest.split_once(&close));
    parts.map(|(text, _)| text.trim().to_owned()).collect()
}

/// A policy as IAM gives it: JSON that is escaped like a part of an address. moto has policies of a stack as Python writes them
/// (facts 10.2), and escapes them like XML.
fn read(document: &str) -> Value {
    let text = document.replace("&quot;", "\"").replace("&#39;", "'").replace("&#x27;", "'").replace("&amp;", "&");
    let text = match text.contains(['{', '"']) {
        true => text,
        false => crate::aws_call::percent_decoded(&text),
    };
    serde_json::from_str(&text)
        .or_else(|_| serde_json::from_str(&text.replace('\'', "\"")))
        .unwrap_or_else(|error| panic!("no policy ({error}): {text}"))
}

fn element(name: &str, text: &str) -> String {
    format!("<{name}>{text}</{name}>")
}
