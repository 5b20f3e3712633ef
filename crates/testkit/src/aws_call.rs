//! One call of AWS as it stood on the wire, and the files into which the test suite records them all.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};
use reqwest::Url;
use serde_json::{Map, Value, json};

/// A recorded call, whichever of AWS's protocols it was made in.
#[derive(Debug, Clone, PartialEq)]
pub struct AwsCall {
    /// The access key id that signed it; empty for a call that needs no signature (AssumeRoleWithWebIdentity).
    pub who: String,
    /// The ARN of the role whose keys these are, where STS gave them out.
    pub role: Option<String>,
    /// As in signatures and policies: `ecs`, `cloudformation`, `s3`.
    pub service: String,
    /// The region that it was signed for; empty without a signature.
    pub region: String,
    /// `RunTask`; of S3 the name in its API: `HeadObject`, `ListObjectsV2`.
    pub action: String,
    /// The body of a JSON call; the parameters of a Query call under their names on the wire (`Tags.member.1.Key`);
    /// of S3 `Bucket`, `Key` and the query.
    pub parameters: Map<String, Value>,
}

impl AwsCall {
    /// None for what is no call of AWS.
    pub fn of_request(parts: &Parts, body: &[u8]) -> Option<Self> {
        let query = pairs(parts.uri.query().unwrap_or_default());
        let (who, region, signed_for) = scope(&parts.headers, &query).unwrap_or_default();
        let call = |service: &str, action: &str, parameters| Self {
            who: who.clone(),
            role: None,
            service: service.to_owned(),
            region: region.clone(),
            action: action.to_owned(),
            parameters,
        };
        if let Some(target) = parts.headers.get("x-amz-target") {
            let (_, action) = target.to_str().ok()?.rsplit_once('.')?;
            let parameters = if body.is_empty() { Map::new() } else { serde_json::from_slice(body).ok()? };
            return Some(call(&signed_for, action, parameters));
        }
        if signed_for == "s3" {
            let (action, parameters) = of_s3(&parts.method, &parts.uri, &query)?;
            return Some(call("s3", action, parameters));
        }
        let mut form = pairs(std::str::from_utf8(body).unwrap_or_default());
        form.extend(query);
        let action = form.remove("Action")?.as_str()?.to_owned();
        let service = if signed_for.is_empty() { "sts" } else { &signed_for };
        Some(call(service, &action, form))
    }

    /// `ecs:RunTask`
    pub fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }

    /// A parameter that is a text; empty if it is not there.
    pub fn text(&self, parameter: &str) -> &str {
        self.parameters.get(parameter).and_then(Value::as_str).unwrap_or_default()
    }

    /// The texts of a list: `names` of a JSON call, `Names.member.N` or `Names.N` of a Query call.
    pub fn list(&self, parameter: &str) -> Vec<&str> {
        if let Some(list) = self.parameters.get(parameter).and_then(Value::as_array) {
            return list.iter().filter_map(Value::as_str).collect();
        }
        let number = |name: &str| {
            let rest = name.strip_prefix(parameter)?.strip_prefix('.')?;
            rest.strip_prefix("member.").unwrap_or(rest).parse::<usize>().ok()
        };
        let mut found: Vec<(usize, &str)> =
            self.parameters.iter().filter_map(|(name, value)| Some((number(name)?, value.as_str()?))).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, value)| value).collect()
    }

    pub fn json(&self) -> Value {
        json!({
            "who": self.who, "role": self.role, "service": self.service, "region": self.region, "action": self.action,
            "parameters": self.parameters,
        })
    }

    /// What [`Self::json`] wrote, or the embedded Fargate.
    pub fn read(line: &Value) -> Option<Self> {
        let text = |name: &str| Some(line[name].as_str()?.to_owned());
        Some(Self {
            who: text("who")?,
            role: text("role"),
            service: text("service")?,
            region: text("region")?,
            action: text("action")?,
            parameters: line["parameters"].as_object()?.clone(),
        })
    }
}

/// Where this process appends its calls, one JSON object a line; none where nobody wants them. `make test` names the
/// folder, and compares what is in it with the policies.
pub(crate) fn record_file() -> Option<PathBuf> {
    let folder = std::env::var_os("STAFFETTA_AWS_CALLS").filter(|folder| !folder.is_empty())?;
    // Tests run in the folders of their crates; the name is one below that of the repository.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    std::fs::create_dir_all(&folder).expect("the folder of the recorded calls");
    Some(folder.join(format!("{}.jsonl", std::process::id())))
}

/// Appends a line in one write: the threads of a test share the file. `gives` is the access key id that STS gave out.
pub(crate) fn append(file: &Path, call: &AwsCall, gives: Option<&str>) {
    let mut line = call.json();
    if let Some(key) = gives {
        line["gives"] = Value::from(key);
    }
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the file of recorded calls");
    file.write_all(format!("{line}\n").as_bytes()).expect("a recorded call");
}

/// Key, region and service of a signature, in a header or in an address:
/// `AWS4-HMAC-SHA256 Credential=KEY/20260101/eu-west-1/ecs/aws4_request, …`
fn scope(headers: &HeaderMap, query: &Map<String, Value>) -> Option<(String, String, String)> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = match header {
        Some(header) => header.split_once("Credential=")?.1.split(',').next()?,
        None => query.get("X-Amz-Credential")?.as_str()?,
    };
    // A key may contain nothing that an address would have to escape, so the parts are counted from the end.
    let mut parts = credential.rsplitn(5, '/');
    let (_, service, region) = (parts.next()?, parts.next()?, parts.next()?);
    let (_, key) = (parts.next()?, parts.next()?);
    Some((key.to_owned(), region.to_owned(), service.to_owned()))
}

fn pairs(form: &str) -> Map<String, Value> {
    let url = Url::parse(&format!("http://form/?{form}")).expect("any query makes a URL");
    url.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect()
}

/// A `+` is no space here.
pub(crate) fn percent_decoded(text: &str) -> String {
    let text = pairs(&format!("text={}", text.replace('+', "%2B").replace('&', "%26")));
    text["text"].as_str().unwrap_or_default().to_owned()
}

/// The name of the call in S3's API, with the bucket in the path.
fn of_s3(method: &Method, uri: &Uri, query: &Map<String, Value>) -> Option<(&'static str, Map<String, Value>)> {
    let url = Url::parse(&format!("http://s3{}", uri.path())).ok()?;
    let path = percent_decoded(url.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let asks = |name: &str| query.contains_key(name);
    let action = match (method.as_str(), bucket.is_empty(), key.is_empty()) {
        ("GET", true, _) => "ListBuckets",
        ("GET", _, true) if asks("versions") => "ListObjectVersions",
        ("GET", _, true) if asks("location") => "GetBucketLocation",
        ("GET", _, true) if asks("lifecycle") => "GetBucketLifecycleConfiguration",
        ("GET", _, true) if asks("uploads") => "ListMultipartUploads",
        ("GET", _, true) => "ListObjectsV2",
        ("HEAD", _, true) => "HeadBucket",
        ("PUT", _, true) => "CreateBucket",
        ("DELETE", _, true) => "DeleteBucket",
        ("POST", _, true) if asks("delete") => "DeleteObjects",
        ("GET", _, false) => "GetObject",
        ("HEAD", _, false) => "HeadObject",
        ("PUT", _, false) if asks("uploadId") => "UploadPart",
        ("PUT", _, false) => "PutObject",
        ("POST", _, false) if asks("uploads") => "CreateMultipartUpload",
        ("POST", _, false) if asks("uploadId") => "CompleteMultipartUpload",
        ("DELETE", _, false) if asks("uploadId") => "AbortMultipartUpload",
        ("DELETE", _, false) => "DeleteObject",
        _ => return None,
    };
    let mut parameters: Map<_, _> =
        query.iter().filter(|(name, _)| !name.starts_with("X-Amz-")).map(|(n, v)| (n.clone(), v.clone())).collect();
    parameters.insert("Bucket".into(), bucket.into());
    if !key.is_empty() {
        parameters.insert("Key".into(), key.into());
    }
    Some((action, parameters))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn read(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Option<AwsCall> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        AwsCall::of_request(&parts, body.as_bytes())
    }

    fn signed(service: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential=deploy/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host")
    }

    #[test]
    fn a_json_call_has_its_action_in_a_header() {
        let headers =
            [("authorization", &*signed("ecs")), ("x-amz-target", "AmazonEC2ContainerServiceV20141113.ListTasks")];
        let call = read("POST", "/", &headers, r#"{"cluster": "dev", "tasks": ["a", "b"]}"#).expect("a call");
        assert_eq!((&*call.name(), &*call.who, &*call.region), ("ecs:ListTasks", "deploy", "eu-west-1"));
        assert_eq!((call.text("cluster"), call.list("tasks")), ("dev", vec!["a", "b"]));
        assert_eq!(AwsCall::read(&call.json()), Some(call));
    }

    #[test]
    fn a_query_call_has_its_action_in_the_form() {
        let body = "Action=DescribeSubnets&SubnetId.2=subnet-b&SubnetId.1=subnet-a&Names.member.1=x%20y";
        let call = read("POST", "/", &[("authorization", &signed("ec2"))], body).expect("a call");
        assert_eq!(call.name(), "ec2:DescribeSubnets");
        assert_eq!((call.list("SubnetId"), call.list("Names")), (vec!["subnet-a", "subnet-b"], vec!["x y"]));
        let unsigned = read("POST", "/", &[], "Action=AssumeRoleWithWebIdentity&RoleArn=r").expect("a call");
        assert_eq!((&*unsigned.name(), &*unsigned.who), ("sts:AssumeRoleWithWebIdentity", ""));
    }

    #[test]
    fn a_call_of_s3_has_it_in_method_and_path() {
        let name = |method, uri| {
            let call = read(method, uri, &[("authorization", &signed("s3"))], "")?;
            Some(format!("{} {} {}", call.action, call.text("Bucket"), call.text("Key")))
        };
        assert_eq!(name("HEAD", "/cache/a%20b/c+d").as_deref(), Some("HeadObject cache a b/c+d"));
        assert_eq!(name("GET", "/cache?list-type=2").as_deref(), Some("ListObjectsV2 cache "));
        assert_eq!(name("POST", "/cache?delete").as_deref(), Some("DeleteObjects cache "));
        assert_eq!(name("PATCH", "/cache/a"), None);
        let address = "/cache/a?X-Amz-Credential=manager%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Expires=60";
        let presigned = read("PUT", address, &[], "content").expect("a call");
        assert_eq!((&*presigned.name(), &*presigned.who), ("s3:PutObject", "manager"));
        assert_eq!(presigned.parameters.len(), 2);
    }
}
