//! Calls of the services that deploy and doctor need, as the operator or as a role: one account, one region.
//!
//! They are few, and each is one signed POST. The SDK's crates for them would cost more to build than all the rest.

use std::time::{Duration, Instant, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use serde_json::Value;

use crate::AssumedRole;
use crate::assume_role::RoleKeys;
use crate::errors::{self, CallError, backoff};
use crate::s3::encode;
use crate::sdk::{self, Keys};
use crate::signed_post::Service;
use crate::xml::Element;

const ANSWER: Duration = Duration::from_secs(20);
/// How long a call is repeated that is throttled or not answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// One account and region, and who calls there.
pub struct Session {
    region: String,
    sdk: SdkConfig,
    keys: Keys,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no AWS region: name one, or set AWS_REGION")]
    NoRegion,
    #[error("{0:?} is not an AWS region")]
    BadRegion(String),
    #[error("the role's session tags cannot be sent: {0}")]
    BadRole(String),
}

/// The host of a service, and the region that its calls are signed for.
fn host_of(service: &str, region: &str) -> (String, String) {
    let home = match region {
        region if region.starts_with("cn-") => "cn-north-1",
        region if region.starts_with("us-gov-") => "us-gov-west-1",
        _ => "us-east-1",
    };
    match service {
        "ecr" => (format!("api.ecr.{region}"), region.to_owned()),
        // IAM is one for all regions of a partition.
        "iam" if home == "us-east-1" => ("iam".to_owned(), home.to_owned()),
        "iam" if home == "us-gov-west-1" => ("iam.us-gov".to_owned(), home.to_owned()),
        "iam" => (format!("iam.{home}"), home.to_owned()),
        _ => (format!("{service}.{region}"), region.to_owned()),
    }
}

impl Session {
    /// Finds credentials in the usual places; nothing is sent yet. `region` none takes that of the environment.
    pub async fn open(
        region: Option<&str>,
        endpoint_url: Option<&str>,
        role: Option<&AssumedRole>,
    ) -> Result<Self, OpenError> {
        let mut loader = sdk::loader(endpoint_url, ANSWER);
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(url) = endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let mut sdk = loader.load().await;
        let region = checked(sdk.region().ok_or(OpenError::NoRegion)?.as_ref())?;
        if let Some(role) = role {
            let keys = RoleKeys::new(&sdk, role).map_err(|error| OpenError::BadRole(error.to_string()))?;
            sdk = sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(keys)).build();
        }
        let keys = Keys::new(sdk::provider(&sdk));
        Ok(Self { region, sdk, keys })
    }

    /// The same caller in another region.
    pub fn in_region(&self, region: &str) -> Result<Self, OpenError> {
        let region = checked(region)?;
        let sdk = self.sdk.to_builder().region(Region::new(region.clone())).build();
        let keys = Keys::new(sdk::provider(&sdk));
        Ok(Self { region, sdk, keys })
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    pub(crate) fn ecs(&self) -> aws_sdk_ecs::Client {
        aws_sdk_ecs::Client::new(&self.sdk)
    }

    /// One call of a Query service (EC2, CloudFormation, IAM): the answer's `…Result`, or all of it where there is none.
    /// It is repeated when it is throttled or not answered, so a call that changes something must carry a token.
    pub(crate) async fn query(
        &self,
        service: &'static str,
        version: &str,
        action: &str,
        parameters: &[(String, String)],
    ) -> Result<Element, CallError> {
        const HEADERS: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let mut body = format!("Action={action}&Version={version}");
        for (name, value) in parameters {
            body.push_str(&format!("&{name}={}", encode(value, b"")));
        }
        let read = |status, body: &str| match Element::read(body) {
            Ok(root) if status == 200 => {
                let result = root.children.iter().find(|child| child.name == format!("{action}Result"));
                Ok(result.cloned().unwrap_or(root))
            }
            Ok(root) => {
                // EC2: Response/Errors/Error; the others: ErrorResponse/Error.
                let errors = if root.child("Errors").children.is_empty() { &root } else { root.child("Errors") };
                let error = errors.child("Error");
                Err(errors::of_answer(status, error.text("Code"), error.text("Message")))
            }
            // A proxy's page.
            Err(_) if status != 200 => {
                Err(errors::of_answer(status, "", &format!("an answer {status} that is not AWS's")))
            }
            Err(error) => Err(CallError::NoAnswer(format!("not understood: {error}"))),
        };
        self.ask(service, &HEADERS, body, read).await
    }

    /// One call of a JSON service (ECR, CloudWatch Logs, Service Quotas, Secrets Manager); `target` as `x-amz-target`
    /// has it. Repeated like [`Self::query`].
    pub(crate) async fn json(
        &self,
        service: &'static str,
        target: &'static str,
        question: Value,
    ) -> Result<Value, CallError> {
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
        let read = |status, body: &str| {
            let answer = serde_json::from_str::<Value>(if body.is_empty() { "{}" } else { body });
            match answer {
                Ok(answer) if status == 200 => Ok(answer),
                answer => {
                    let answer = answer.unwrap_or_default();
                    let text = |keys: &[&str]| {
                        keys.iter().find_map(|key| answer[*key].as_str()).unwrap_or_default().to_owned()
                    };
                    let code = text(&["__type", "code"]);
                    let code = code.rsplit('#').next().unwrap_or_default();
                    match status {
                        200 => Err(CallError::NoAnswer("not understood: no JSON".into())),
                        status => Err(errors::of_answer(status, code, &text(&["message", "Message"]))),
                    }
                }
            }
        };
        self.ask(service, &headers, question.to_string(), read).await
    }

    /// What time it is at AWS.
    pub async fn date(&self) -> Result<SystemTime, CallError> {
        self.service("sts").date().await
    }

    fn service(&self, service: &'static str) -> Service {
        let (host, region) = host_of(service, &self.region);
        Service::at(service, &host, &region, self.endpoint(service).as_deref())
    }

    /// Where a service is asked instead of at AWS.
    pub(crate) fn endpoint(&self, service: &str) -> Option<String> {
        let own = std::env::var(format!("AWS_ENDPOINT_URL_{}", variable_of(service))).ok();
        own.filter(|url| !url.is_empty()).or(self.sdk.endpoint_url().map(str::to_owned))
    }

    /// What calls are signed with.
    pub(crate) async fn credentials(&self) -> Result<Credentials, CallError> {
        self.keys.get().await
    }

    async fn ask<T>(
        &self,
        service: &'static str,
        headers: &[(&'static str, &'static str)],
        body: String,
        read: impl Fn(u16, &str) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let service = self.service(service);
        let asked = || async {
            let (status, body) = service.post(headers, body.clone(), self.keys.get().await?).await?;
            read(status, &body)
        };
        self.repeated(asked).await
    }

    /// A call that is made again when it is throttled or not answered, for half a minute. What changes something must carry a
    /// token, or do no harm the second time.
    pub(crate) async fn repeated<T, F>(&self, call: impl Fn() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut tries = 0;
        loop {
            let error = match call().await {
                Err(error @ (CallError::Throttled(_) | CallError::NoAnswer(_))) => error,
                done => return done,
            };
            let wait = backoff(tries, Duration::from_millis(250), Duration::from_secs(5), rand::random());
            if Instant::now() + wait > deadline {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(wait).await;
        }
    }
}

/// A region becomes a part of the host's name.
fn checked(region: &str) -> Result<String, OpenError> {
    let is_region = !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_region.then(|| region.to_owned()).ok_or_else(|| OpenError::BadRegion(region.to_owned()))
}

/// How AWS's tools write the service in the variable of its endpoint.
fn variable_of(service: &str) -> String {
    match service {
        "logs" => "CLOUDWATCH_LOGS".into(),
        "secretsmanager" => "SECRETS_MANAGER".into(),
        "servicequotas" => "SERVICE_QUOTAS".into(),
        _ => service.to_ascii_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_each_partition() {
        let host = |service, region| host_of(service, region).0;
        assert_eq!(host("ec2", "eu-west-1"), "ec2.eu-west-1");
        assert_eq!(host("ecr", "eu-west-1"), "api.ecr.eu-west-1");
        assert_eq!(host_of("iam", "eu-west-1"), ("iam".into(), "us-east-1".into()));
        assert_eq!(host_of("iam", "cn-northwest-1"), ("iam.cn-north-1".into(), "cn-north-1".into()));
        assert_eq!(host_of("iam", "us-gov-east-1"), ("iam.us-gov".into(), "us-gov-west-1".into()));
    }
}
