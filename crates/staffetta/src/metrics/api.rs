//! What a call to GitLab is called in the metrics.

use gitlab::Called;

/// GitLab's word for the calls that it counts by status; the others are counted by their path only.
pub fn endpoint(called: &Called) -> Option<&'static str> {
    let parts: Vec<&str> = called.path.split('/').collect();
    match (called.method.as_str(), &parts[..]) {
        ("POST", ["jobs", "request"]) => Some("request_job"),
        ("PUT", ["jobs", _]) => Some("update_job"),
        ("PATCH", ["jobs", _, "trace"]) => Some("patch_trace"),
        ("POST", ["runners", "reset_authentication_token"] | ["runners", _, "reset_authentication_token"]) => {
            Some("reset_token")
        }
        _ => None,
    }
}

/// The path with its numbers taken out: there is one for each job.
pub fn template(path: &str) -> String {
    let part = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => "{id}".to_owned(),
        false => part.to_owned(),
    };
    format!("/api/v4/{}", path.split('/').map(part).collect::<Vec<_>>().join("/"))
}

/// -1 is no answer, as in GitLab's runner.
pub fn status(called: &Called) -> String {
    called.status.map_or_else(|| "-1".to_owned(), |status| status.to_string())
}

pub fn status_class(called: &Called) -> &'static str {
    match called.status {
        Some(100..200) => "1xx",
        Some(200..300) => "2xx",
        Some(300..400) => "3xx",
        Some(400..500) => "4xx",
        Some(500..600) => "5xx",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_a_job_is_in_a_path() {
        assert_eq!(template("jobs/123/trace"), "/api/v4/jobs/{id}/trace");
        assert_eq!(template("jobs/request"), "/api/v4/jobs/request");
    }
}
