//! Every call as a line of a file, for whoever wants to know what a client needs of IAM.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

/// A file that only grows. Several servers may share it: a line is one write.
#[derive(Debug)]
pub(super) struct Record(File);

impl Record {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    pub fn add(&self, signer: Signer, call: &Recorded) {
        let Recorded { role, service, action, parameters, gives } = call;
        let service = if signer.service.is_empty() { service } else { signer.service };
        let mut line = json!({
            "who": signer.access_key, "role": role, "service": service, "region": signer.region,
            "action": action, "parameters": parameters,
        });
        if let Some(key) = gives {
            line["gives"] = Value::from(key.0.as_str());
        }
        if let Err(error) = (&self.0).write_all(format!("{line}\n").as_bytes()) {
            tracing::error!(%error, action, "a call was not recorded");
        }
    }
}

/// A call and what came of it.
pub(super) struct Recorded<'a> {
    /// The ARN of the role whose keys signed it.
    pub role: Option<&'a str>,
    /// Where the signature does not tell.
    pub service: &'static str,
    pub action: &'a str,
    pub parameters: Value,
    pub gives: Option<&'a GivenKey>,
}

/// The access key id that AssumeRole gave, as an extension of its answer.
#[derive(Debug, Clone)]
pub(super) struct GivenKey(pub String);

/// What a signature tells; empty where it is no real one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Signer<'a> {
    pub access_key: &'a str,
    pub region: &'a str,
    pub service: &'a str,
}

impl<'a> Signer<'a> {
    /// `AWS4-HMAC-SHA256 Credential=KEY/20260101/eu-west-1/ecs/aws4_request, …`
    pub fn of(headers: &'a HeaderMap) -> Self {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((_, credential)) = authorization.and_then(|text| text.split_once("Credential=")) else {
            return Self::default();
        };
        let mut parts = credential.split('/');
        let access_key = parts.next().unwrap_or_default();
        let (region, service) = (parts.nth(1).unwrap_or_default(), parts.next().unwrap_or_default());
        Self { access_key, region, service }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_tells_key_region_and_service() {
        let mut headers = HeaderMap::new();
        assert_eq!(Signer::of(&headers), Signer::default());
        let authorization = "AWS4-HMAC-SHA256 Credential=KEY/20260101/eu-west-1/ecs/aws4_request, SignedHeaders=host";
        headers.insert(header::AUTHORIZATION, authorization.parse().expect("a header"));
        assert_eq!(Signer::of(&headers), Signer { access_key: "KEY", region: "eu-west-1", service: "ecs" });
    }
}
