//! The refusals of the three APIs, each with AWS's name, status and text.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::xml;

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub code: &'static str,
    pub message: String,
    pub status: StatusCode,
    /// Further members of the JSON body, as ConflictException has them.
    pub members: Map<String, Value>,
}

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), status: StatusCode::BAD_REQUEST, members: Map::new() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new("InvalidParameterException", message)
    }

    pub(super) fn client(message: impl Into<String>) -> Failure {
        Failure::new("ClientException", message)
    }

    pub(super) fn throttled() -> Failure {
        Failure::new("ThrottlingException", "Rate exceeded")
    }

    /// Keys whose time is over.
    pub(super) fn expired() -> Failure {
        let message = "The security token included in the request is expired";
        Failure::new("ExpiredTokenException", message)
    }

    pub(super) fn denied(message: impl Into<String>) -> Failure {
        Failure { status: StatusCode::FORBIDDEN, ..Failure::new("AccessDenied", message) }
    }

    pub(super) fn server(status: u16) -> Failure {
        let status = StatusCode::from_u16(status).ok().filter(StatusCode::is_server_error);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Failure { status, ..Failure::new("ServerException", "Service Unavailable. Please try again later.") }
    }

    pub(super) fn conflict(task_arns: &[String]) -> Failure {
        let mut failure = Failure::new(
            "ConflictException",
            "The clientToken was used before with different parameters. The existing tasks are in resourceIds.",
        );
        failure.members.insert("resourceIds".into(), json!(task_arns));
        failure
    }

    pub(super) fn into_json(self) -> Response {
        let mut body = self.members;
        body.insert("__type".into(), self.code.into());
        body.insert("message".into(), self.message.into());
        let headers = [(header::CONTENT_TYPE, super::ecs_api::CONTENT_TYPE), (ERROR_TYPE, self.code)];
        (self.status, headers, Value::from(body).to_string()).into_response()
    }

    /// EC2's form of an error.
    pub(super) fn into_ec2_xml(self) -> Response {
        // EC2 has its own name and status for being throttled.
        let (code, status) = match self.code {
            "ThrottlingException" => ("RequestLimitExceeded", StatusCode::SERVICE_UNAVAILABLE),
            "ServerException" => ("InternalError", self.status),
            "ExpiredTokenException" => ("RequestExpired", self.status),
            code => (code, self.status),
        };
        let error = xml::element("Error", &[xml::text("Code", code), xml::text("Message", &self.message)]);
        let body = [xml::element("Errors", &[error]), xml::text("RequestID", &xml::request_id())];
        xml::answer(status, xml::element("Response", &body))
    }

    /// STS's form of an error.
    pub(super) fn into_sts_xml(self) -> Response {
        let (code, status) = match self.code {
            "ThrottlingException" => ("Throttling", self.status),
            "ExpiredTokenException" => ("ExpiredToken", StatusCode::FORBIDDEN),
            code => (code, self.status),
        };
        let parts = [xml::text("Type", "Sender"), xml::text("Code", code), xml::text("Message", &self.message)];
        let body = [xml::element("Error", &parts), xml::text("RequestId", &xml::request_id())];
        xml::answer(status, xml::element("ErrorResponse", &body))
    }
}

const ERROR_TYPE: header::HeaderName = header::HeaderName::from_static("x-amzn-errortype");
