//! Calls of services that have no crate of the SDK here: one request, nearly always a POST, signed with SigV4.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::date_time::Format;

use crate::errors::{CallError, Refusal, chain};
use crate::proxies;

const ANSWER: Duration = Duration::from_secs(20);

/// Where one service takes its calls, and the connections there.
pub(crate) struct Service {
    /// As SigV4 names it.
    name: &'static str,
    region: String,
    url: String,
    connector: Connector,
}

impl Service {
    pub fn new(name: &'static str, region: &str, endpoint_url: Option<&str>) -> Self {
        Self::at(name, &format!("{name}.{region}"), region, endpoint_url)
    }

    /// A service whose host is not called as SigV4 calls it. `host` has no domain.
    pub fn at(name: &'static str, host: &str, region: &str, endpoint_url: Option<&str>) -> Self {
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let url = endpoint_url.map_or_else(|| format!("https://{host}.{domain}"), str::to_owned);
        Self {
            name,
            region: region.to_owned(),
            url: format!("{}/", url.trim_end_matches('/')),
            connector: proxies::connector(Some(&url)),
        }
    }

    /// Status and body of the answer. All headers are signed.
    pub async fn post(
        &self,
        headers: &[(&'static str, &'static str)],
        body: String,
        keys: Credentials,
    ) -> Result<(u16, String), CallError> {
        self.send("POST", "", headers, body, keys).await
    }

    /// The same with another method, and with what comes after the path: `?delete`.
    pub async fn send(
        &self,
        method: &'static str,
        query: &str,
        headers: &[(&'static str, &str)],
        body: String,
        keys: Credentials,
    ) -> Result<(u16, String), CallError> {
        let request = self.signed(method, query, headers, body, keys).map_err(|error| {
            let message = format!("the call cannot be made: {error}");
            CallError::Refused(Refusal { code: String::new(), message })
        })?;
        // Whoever reads it must know which host is not reached.
        let silent = |why: String| CallError::NoAnswer(format!("{}: {why}", self.url));
        let answer = async {
            let response = self.connector.call(request).await;
            let response = response.map_err(|error| silent(chain(&error)))?;
            let status = response.status().as_u16();
            let body = ByteStream::new(response.into_body()).collect().await;
            let body = body.map_err(|error| silent(chain(&error)))?;
            Ok((status, String::from_utf8_lossy(&body.into_bytes()).into_owned()))
        };
        tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(silent("time-out".into())))
    }

    /// What time it is there, by whatever it answers to a request that nobody signed.
    pub async fn date(&self) -> Result<SystemTime, CallError> {
        let refused = |message: String| CallError::Refused(Refusal { code: String::new(), message });
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(self.url.as_str()).map_err(|error| refused(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER, self.connector.call(request)).await;
        let answer = answer.map_err(|_| CallError::NoAnswer("time-out".into()))?;
        let answer = answer.map_err(|error| CallError::NoAnswer(chain(&error)))?;
        let date = answer.headers().get("date").unwrap_or_default();
        let date = DateTime::from_str(date, Format::HttpDate);
        date.ok().and_then(|date| SystemTime::try_from(date).ok()).ok_or_else(|| refused("it tells no time".into()))
    }

    fn signed(
        &self,
        method: &'static str,
        query: &str,
        headers: &[(&'static str, &str)],
        body: String,
        keys: Credentials,
    ) -> Result<HttpRequest, Box<dyn Error + Send + Sync>> {
        let identity = keys.into();
        let mut settings = SigningSettings::default();
        if self.name == "s3" {
            // No other service wants the sum of the body in a header.
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.name)
            .time(SystemTime::now())
            .settings(settings)
            .build()?
            .into();
        let content = SignableBody::Bytes(body.as_bytes());
        let url = format!("{}{query}", self.url);
        let signable = SignableRequest::new(method, &url, headers.iter().copied(), content)?;
        let (signature, _) = sign(signable, &params)?.into_parts();
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method(method)?;
        request.set_uri(url)?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, (*value).to_owned());
        }
        for (name, value) in signature.headers() {
            request.headers_mut().insert(name.to_owned(), value.to_owned());
        }
        Ok(request)
    }
}
