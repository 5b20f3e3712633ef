//! Runners and their requests for jobs.

mod support;

use std::time::{Duration, Instant};

use axum::http::Method;
use gitlab::{
    CallError, JobAnswer, JobReply, JobRequest, JobState, JobUpdate, Registration, RunnerScope, UpdateResult, Verified,
};
use job::ids::{JobId, SystemId};
use job::secret::{ExposeSecret, SecretString};
use support::{Server, client, full, status, with_headers};

async fn ask(server: &Server, last_update: Option<&str>) -> JobReply {
    let (token, system_id) = ("glrt-runner".into(), SystemId::new("s_0123456789ab"));
    server.client().request_job(&JobRequest { token: &token, system_id: &system_id, last_update }).await
}

#[tokio::test]
async fn the_cursor_comes_back_to_gitlab() {
    let server = Server::start(|_| with_headers(204, &[("X-GitLab-Last-Update", "c0ffee")])).await;
    let first = ask(&server, None).await;
    assert!(matches!(first.answer, JobAnswer::None));
    assert_eq!(first.last_update.as_deref(), Some("c0ffee"));
    ask(&server, first.last_update.as_deref()).await;
    let seen = server.seen();
    assert_eq!(seen[0].uri.path(), "/api/v4/jobs/request");
    assert_eq!(seen[0].header("runner-token"), Some("glrt-runner"));
    assert!(seen[0].header("user-agent").is_some_and(|agent| agent.starts_with(job::PRODUCT)));
    let id = seen[0].header("x-request-id").expect("a request id");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let body = seen[0].json();
    assert!(body.get("last_update").is_none());
    assert_eq!(body["token"], "glrt-runner");
    assert_eq!(body["system_id"], "s_0123456789ab");
    assert_eq!(body["info"]["executor"], "fargate");
    assert_eq!(seen[1].json()["last_update"], "c0ffee");
}

#[tokio::test]
async fn a_job_comes_with_the_id_of_its_request() {
    let answer = |_: &_| full(201, &[("X-Request-Id", "abc")], r#"{"id":7,"token":"glcbt-job","new_field":null}"#);
    let server = Server::start(answer).await;
    let JobAnswer::Job(job) = ask(&server, None).await.answer else { panic!("no job") };
    assert_eq!(job.received.payload.id, JobId(7));
    assert_eq!(job.correlation_id.as_deref(), Some("abc"));
}

#[tokio::test]
async fn a_job_that_cannot_be_read_can_still_be_failed() {
    let server = Server::start(|_| full(201, &[], r#"{"id":7,"token":"glcbt-job","steps":{"no":"list"}}"#)).await;
    let JobAnswer::Unusable(unusable) = ask(&server, None).await.answer else { panic!("usable") };
    assert_eq!(unusable.id, Some(JobId(7)));
    assert_eq!(unusable.token.expect("the token").expose_secret(), "glcbt-job");
}

#[tokio::test]
async fn a_refused_token_is_not_a_passing_trouble() {
    let server = Server::start(|_| status(403)).await;
    assert!(matches!(ask(&server, None).await.answer, JobAnswer::Forbidden));
    let server = Server::start(|_| full(409, &[], r#"{"message":"409 Conflict"}"#)).await;
    let JobAnswer::Unavailable { reason, .. } = ask(&server, None).await.answer else { panic!("not passing") };
    assert!(reason.contains("409 Conflict"), "{reason}");
}

#[tokio::test]
async fn gitlab_is_given_the_time_that_it_asks_for() {
    let mut asked = 0;
    let server = Server::start(move |_| {
        asked += 1;
        if asked == 1 { with_headers(429, &[("Retry-After", "1")]) } else { status(204) }
    })
    .await;
    let started = Instant::now();
    let reply = ask(&server, None).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(reply.pressure && matches!(reply.answer, JobAnswer::None));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_page_instead_of_a_job_is_a_failure_in_words() {
    for code in [200, 201, 204] {
        let answer =
            move |_: &_| full(code, &[("Content-Type", "text/html")], "<html><body>Please log in</body></html>");
        let server = Server::start(answer).await;
        let answer = ask(&server, None).await.answer;
        match answer {
            JobAnswer::Unavailable { reason, .. } => assert!(reason.contains("a page of HTML"), "{reason}"),
            JobAnswer::None if code == 204 => {}
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn after_five_attempts_the_answer_is_what_it_is() {
    let server = Server::start(|_| full(503, &[], r#"{"message":"maintenance"}"#)).await;
    let reply = ask(&server, None).await;
    let JobAnswer::Unavailable { reason, retry_after: None } = reply.answer else { panic!("available") };
    assert!(reason.contains("503") && reason.contains("maintenance"), "{reason}");
    assert!(reply.pressure);
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_gitlab_that_is_away_passes() {
    let server = Server::start(|_| status(204)).await;
    let url = server.url();
    drop(server);
    let (token, system_id) = ("glrt-runner".into(), SystemId::new("s_0123456789ab"));
    let request = JobRequest { token: &token, system_id: &system_id, last_update: None };
    // The port may be open for a moment longer than its server.
    let reply = loop {
        let reply = client(&url).request_job(&request).await;
        if !matches!(reply.answer, JobAnswer::None) {
            break reply;
        }
    };
    assert!(matches!(reply.answer, JobAnswer::Unavailable { .. }), "{reply:?}");
    assert!(!reply.pressure);
}

#[tokio::test]
async fn runners_come_and_go() {
    let server = Server::start(|seen| match (seen.method.as_str(), seen.uri.path()) {
        ("POST", "/api/v4/runners") => full(201, &[], r#"{"id":1,"token":"new","token_expires_at":null}"#),
        ("POST", "/api/v4/runners/verify") => full(200, &[], r#"{"id":1,"token":"new"}"#),
        ("DELETE", "/api/v4/runners") => full(403, &[], r#"{"message":"403 Forbidden"}"#),
        ("DELETE", "/api/v4/runners/managers") => status(204),
        other => panic!("{other:?}"),
    })
    .await;
    let (client, token, system_id) = (server.client(), SecretString::from("t"), SystemId::new("s_0123456789ab"));
    let registration = Registration { description: "mine".into(), locked: true, ..Registration::default() };
    let registered = client.register(&token, &registration).await.expect("registered");
    assert_eq!((registered.id, registered.token.expose_secret()), (1, "new"));
    assert!(matches!(client.verify(&token, Some(&system_id)).await, Verified::Valid(_)));
    assert!(
        matches!(client.unregister(&token).await, Err(CallError::Forbidden(message)) if message == "403 Forbidden")
    );
    client.unregister_manager(&token, &system_id).await.expect("unregistered");
    let bodies: Vec<_> = server.seen().iter().map(support::Seen::json).collect();
    assert_eq!(bodies[0]["description"], "mine");
    assert!(bodies[0].get("tag_list").is_none() && bodies[0].get("maximum_timeout").is_none());
    assert!(bodies[1]["info"]["features"].is_object(), "the first call tells GitLab the features");
    assert_eq!(bodies[2], serde_json::json!({"token": "t"}));
    assert_eq!(bodies[3], serde_json::json!({"token": "t", "system_id": "s_0123456789ab"}));
}

#[tokio::test]
async fn an_owner_creates_a_runner_and_a_runner_renews_its_token() {
    let server = Server::start(|seen| match (seen.method.as_str(), seen.uri.path()) {
        ("POST", "/gitlab/api/v4/user/runners") => full(201, &[], r#"{"id":7,"token":"glrt-t2_a"}"#),
        ("POST", "/gitlab/api/v4/runners/reset_authentication_token") => {
            full(201, &[], r#"{"token":"glrt-b","token_expires_at":"2031-01-31T01:00:00.000+01:00"}"#)
        }
        ("POST", "/gitlab/api/v4/runners/7/reset_authentication_token") => {
            full(201, &[], r#"{"token":"glrt-c","token_expires_at":"soon"}"#)
        }
        other => panic!("{other:?}"),
    })
    .await;
    let client = client(&format!("{}/gitlab", server.url()));
    let (personal, token) = (SecretString::from("glpat-x"), SecretString::from("glrt-t2_a"));
    let registration = Registration { tag_list: "dev,gpu".into(), run_untagged: false, ..Registration::default() };
    let scope = RunnerScope::Group { group_id: 3 };
    let created = client.create_runner(&personal, scope, &registration).await.expect("created");
    assert_eq!((created.id, created.token.expose_secret(), created.token_expires_at), (7, "glrt-t2_a", None));
    let renewed = client.reset_token(&token).await.expect("renewed");
    assert_eq!(renewed.token_expires_at.expect("a time").to_string(), "2031-01-31T00:00:00Z");
    let renewed = client.reset_token_as_owner(&personal, 7).await.expect("renewed");
    assert_eq!((renewed.token.expose_secret(), renewed.token_expires_at), ("glrt-c", None), "the token is kept");

    let seen = server.seen();
    assert_eq!(
        seen[0].json(),
        serde_json::json!({
            "runner_type": "group_type", "group_id": 3, "tag_list": "dev,gpu",
            "run_untagged": false, "locked": false, "paused": false
        })
    );
    assert_eq!(seen[0].headers["private-token"], "glpat-x");
    assert_eq!(
        (seen[1].json(), &seen[1].headers["runner-token"]),
        (serde_json::json!({"token": "glrt-t2_a"}), &"glrt-t2_a".parse().unwrap())
    );
    assert_eq!(
        (seen[2].json(), &seen[2].headers["private-token"]),
        (serde_json::Value::Null, &"glpat-x".parse().unwrap())
    );
}

#[tokio::test]
async fn a_runner_is_invalid_only_if_gitlab_says_so() {
    let (token, system_id) = (SecretString::from("t"), SystemId::new("s_0123456789ab"));
    let server = Server::start(|_| status(403)).await;
    assert!(matches!(server.client().verify(&token, Some(&system_id)).await, Verified::Invalid));
    let server = Server::start(|_| status(422)).await;
    assert!(matches!(server.client().verify(&token, Some(&system_id)).await, Verified::Orphaned(_)));
    let server = Server::start(|_| status(501)).await;
    assert!(matches!(server.client().verify(&token, Some(&system_id)).await, Verified::Unknown(_)));
    let server = Server::start(|_| full(200, &[], "200 OK")).await;
    assert!(matches!(server.client().verify(&token, Some(&system_id)).await, Verified::Valid(_)), "very old servers");
}

#[tokio::test]
async fn the_first_update_has_no_output() {
    let server = Server::start(|_| with_headers(200, &[("X-GitLab-Trace-Update-Interval", "60")])).await;
    let token = "glcbt-job".into();
    let update = JobUpdate { job: JobId(7), token: &token, state: JobState::Running, output: None };
    let answer = server.client().update_job(&update).await;
    assert_eq!(answer.result, UpdateResult::Done);
    assert_eq!(answer.interval, Some(Duration::from_secs(60)));
    let seen = &server.seen_with(Method::PUT)[0];
    let mut body = seen.json();
    body.as_object_mut().expect("an object").remove("info").expect("info");
    assert_eq!(body, serde_json::json!({"token": "glcbt-job", "state": "running", "output": {}}));
}
