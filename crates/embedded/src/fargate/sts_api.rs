//! STS: who the caller is. Signatures are not checked, so everybody is the same user.

use axum::http::StatusCode;
use axum::response::Response;

use super::state::ACCOUNT;
use super::xml;

pub(super) fn get_caller_identity() -> Response {
    let result = [
        xml::text("Arn", &format!("arn:aws:iam::{ACCOUNT}:user/embedded")),
        xml::text("UserId", "AIDAEMBEDDEDFARGATE00"),
        xml::text("Account", ACCOUNT),
    ];
    let body = [
        xml::element("GetCallerIdentityResult", &result),
        xml::element("ResponseMetadata", &[xml::text("RequestId", &xml::request_id())]),
    ];
    let document = xml::element("GetCallerIdentityResponse", &body);
    let namespace = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">";
    xml::answer(StatusCode::OK, document.replacen("<GetCallerIdentityResponse>", namespace, 1))
}
