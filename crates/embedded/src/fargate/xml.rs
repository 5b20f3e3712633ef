//! The little XML that EC2 and STS answer with.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

pub(super) fn text(name: &str, value: &str) -> String {
    format!("<{name}>{}</{name}>", escape(value))
}

pub(super) fn element(name: &str, children: &[String]) -> String {
    format!("<{name}>{}</{name}>", children.concat())
}

/// A list in EC2's form: `<name><item>…</item>…</name>`.
pub(super) fn items(name: &str, items: impl Iterator<Item = Vec<String>>) -> String {
    element(name, &items.map(|children| element("item", &children)).collect::<Vec<_>>())
}

pub(super) fn answer(status: StatusCode, document: String) -> Response {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{document}");
    (status, [(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], body).into_response()
}

pub(super) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn escape(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
