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

    /// `role` is the ARN of the role whose keys signed the call.
    pub fn add(&self, signer: Signer, role: Option<&str>, service: &str, action: &str, parameters: &Value) {
        let line = json!({
            "who": signer.access_key, "role": role, "service": service, "region": signer.region,
            "action": action, "parameters": parameters,
        });
        if let Err(error) = (&self.0).write_all(format!("{line}\n").as_bytes()) {
            tracing::error!(%error, action, "a call was not recorded");
        }
    }
}

/// What a signature tells; empty where it is no real one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signer<'a> {
    pub access_key: &'a str,
    pub region: &'a str,
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
        Self { access_key, region: parts.nth(1).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_tells_key_and_region() {
        let mut headers = HeaderMap::new();
        assert_eq!((Signer::of(&headers).access_key, Signer::of(&headers).region), ("", ""));
        let authorization = "AWS4-HMAC-SHA256 Credential=KEY/20260101/eu-west-1/ecs/aws4_request, SignedHeaders=host";
        headers.insert(header::AUTHORIZATION, authorization.parse().expect("a header"));
        assert_eq!((Signer::of(&headers).access_key, Signer::of(&headers).region), ("KEY", "eu-west-1"));
    }
}
