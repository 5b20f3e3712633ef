//! Parameters and refusals in the shapes of GitLab's API.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::view::Status;

/// An answer other than the expected one.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// `{"message": …}`: what the request asks is refused.
    pub(super) fn message(status: StatusCode, message: impl Into<Value>) -> Self {
        Self { status, body: json!({ "message": message.into() }).to_string(), headers: Vec::new() }
    }

    /// `{"error": …}`: the parameters are wrong.
    pub(super) fn parameter(error: impl Into<String>) -> Self {
        let body = json!({ "error": error.into() }).to_string();
        Self { status: StatusCode::BAD_REQUEST, body, headers: Vec::new() }
    }

    pub(super) fn forbidden() -> Self {
        Self::message(StatusCode::FORBIDDEN, "403 Forbidden")
    }

    pub(super) fn unauthorized() -> Self {
        Self::message(StatusCode::UNAUTHORIZED, "401 Unauthorized")
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::message(StatusCode::NOT_FOUND, format!("404 {what} Not Found"))
    }

    /// The job is over, or not there yet.
    pub(super) fn not_processing(status: Status) -> Self {
        let text = "403 Forbidden - Job is not processing on runner";
        Self::message(StatusCode::FORBIDDEN, text).header("job-status", status.word())
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// This server's own disk failed.
    pub(super) fn disk(error: &std::io::Error) -> Self {
        Self::message(StatusCode::INTERNAL_SERVER_ERROR, format!("500 Internal Server Error: {error}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], self.body).into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// The parameters of a call: a JSON object or a form. Wrong types are refused; numbers and booleans may be written
/// as strings, as GitLab has it.
pub(super) struct Params(Map<String, Value>);

impl Params {
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        match kind.split(';').next().unwrap_or_default().trim() {
            "application/json" => match serde_json::from_slice(body) {
                Ok(Value::Object(map)) => Ok(Self(map)),
                Ok(Value::Null) => Ok(Self(Map::new())),
                Ok(_) => Err(Refusal::parameter("the body is not a JSON object")),
                Err(_) => Err(Refusal::message(StatusCode::BAD_REQUEST, "Problems parsing JSON")),
            },
            "application/x-www-form-urlencoded" => {
                // A form has the syntax of a query string.
                let query = String::from_utf8_lossy(body);
                let uri = format!("/?{query}").parse::<Uri>().map_err(|_| Refusal::parameter("the form is not one"))?;
                Self::query(&uri)
            }
            _ if body.is_empty() => Ok(Self(Map::new())),
            other => {
                let message = format!("The provided content-type '{other}' is not supported.");
                Err(Refusal::message(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
            }
        }
    }

    pub(super) fn query(uri: &Uri) -> Result<Self, Refusal> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = pairs.map_err(|_| Refusal::parameter("the query is not one"))?.0;
        Ok(Self(pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect()))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<String>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(invalid(key)),
        }
    }

    pub(super) fn required(&self, key: &str) -> Result<String, Refusal> {
        self.string(key)?.ok_or_else(|| Refusal::parameter(format!("{key} is missing")))
    }

    pub(super) fn one_of(&self, key: &str, values: &[&str]) -> Result<Option<String>, Refusal> {
        let value = self.string(key)?;
        match &value {
            Some(value) if !values.contains(&value.as_str()) => {
                Err(Refusal::parameter(format!("{key} does not have a valid value")))
            }
            _ => Ok(value),
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, Refusal> {
        let number = match self.get(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| invalid(key))
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(Value::String(text)) if text == "true" || text == "1" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" || text == "0" => Ok(Some(false)),
            Some(_) => Err(invalid(key)),
        }
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self(map.clone()))),
            Some(_) => Err(invalid(key)),
        }
    }

    /// Commas separate the strings, or it is a list.
    pub(super) fn list(&self, key: &str) -> Result<Vec<String>, Refusal> {
        let words: Vec<String> = match self.get(key) {
            None => Vec::new(),
            Some(Value::String(text)) => text.split(',').map(str::to_owned).collect(),
            Some(Value::Array(list)) => {
                let word = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| invalid(key));
                list.iter().map(word).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(invalid(key)),
        };
        Ok(words.iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn invalid(key: &str) -> Refusal {
    Refusal::parameter(format!("{key} is invalid"))
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub(super) fn same_secret(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
