//! A job's trace against a GitLab that loses bytes, goes away, or wants the job to end.

mod support;

use axum::http::Method;
use gitlab::{JobAccess, JobState, JobTrace, JobUpdate, PatchResult, Reported, Signal, UpdateResult};
use job::hand_over::TraceSoFar;
use job::ids::JobId;
use job::outcome::{Decision, Outcome};
use job::trace::{Stream, TraceSettings, line};
use support::{DEADLINE, Server, Stored, client, status, with_headers};

fn access() -> JobAccess {
    JobAccess { id: JobId(7), token: "glcbt-job".into() }
}

fn settings() -> TraceSettings {
    TraceSettings { output_limit: 64 * 1024 * 1024, ..TraceSettings::default() }
}

fn start(server: &Server, so_far: TraceSoFar) -> JobTrace {
    JobTrace::start(server.client(), access(), &settings(), so_far, false)
}

/// Takes a trace as GitLab does, and every state.
async fn healthy(stored: &Stored) -> Server {
    let stored = stored.clone();
    Server::start(move |seen| if seen.method == Method::PATCH { stored.patch(seen) } else { status(200) }).await
}

async fn signal(trace: &JobTrace, wanted: Signal) {
    let mut signal = trace.signal();
    let waiting = signal.wait_for(|signal| *signal == wanted);
    tokio::time::timeout(DEADLINE, waiting).await.expect("within the deadline").expect("a live trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_trace_arrives_whole_with_its_sum_and_size() {
    let stored = Stored::default();
    let server = healthy(&stored).await;
    let trace = start(&server, TraceSoFar::default());
    let mut expected = String::new();
    for number in 0..300_000 {
        let text = format!("line {number}\n");
        trace.write(Stream::Out, text.as_bytes());
        expected.push_str(&text);
    }
    let reported = trace.finish(&Outcome::Succeeded, &[], 1).await.expect("reported");
    assert_eq!(reported, Reported::Accepted);
    assert!(stored.text() == expected, "the trace is not what was written");
    assert!(server.seen_with(Method::PATCH).iter().all(|patch| patch.body.len() <= 1024 * 1024));
    let puts = server.seen_with(Method::PUT);
    let last = puts.last().expect("a final update");
    assert_eq!(last.uri.path(), "/api/v4/jobs/7");
    assert_eq!(last.header("job-token"), Some("glcbt-job"));
    let body = last.json();
    let checksum = format!("crc32:{:08x}", crc32fast::hash(expected.as_bytes()));
    assert_eq!(body["state"], "success");
    assert_eq!(body["checksum"], checksum);
    assert_eq!(body["output"]["checksum"], checksum);
    assert_eq!(body["output"]["bytesize"], expected.len());
    assert!(body.get("exit_code").is_none() && body.get("failure_reason").is_none());
    assert_eq!(body["info"]["features"]["trace_checksum"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gitlab_lost_is_sent_again() {
    let stored = Stored::default();
    let server = healthy(&stored).await;
    let trace = start(&server, TraceSoFar::default());
    trace.write(Stream::Out, b"one two three\n");
    server.wait_until(|seen| !seen.is_empty()).await;
    stored.truncate(4);
    trace.write(Stream::Out, b"four\n");
    trace.finish(&Outcome::Succeeded, &[], 1).await.expect("reported");
    assert_eq!(stored.text(), "one two three\nfour\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gitlab_has_already_is_skipped() {
    let stored = Stored::with("waiting for a task\n");
    let server = healthy(&stored).await;
    let text = "waiting for a task\nit is up\n".to_owned();
    let trace = start(&server, TraceSoFar { text: text.clone(), sent: 0, interval_seconds: 3 });
    trace.finish(&Outcome::Succeeded, &[], 1).await.expect("reported");
    assert_eq!(stored.text(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_holder_to_holder() {
    let stored = Stored::default();
    let server = healthy(&stored).await;
    let manager = start(&server, TraceSoFar::default());
    manager.line("sent by the manager\n");
    server.wait_until(|seen| !seen.is_empty()).await;
    manager.line("not sent yet\n");
    let so_far = manager.suspend().await;
    assert_eq!(so_far.text, "sent by the manager\nnot sent yet\n");
    manager.line("after the hand-over\n");
    let agent = start(&server, so_far);
    agent.line("sent by the agent\n");
    agent.finish(&Outcome::Succeeded, &[], 1).await.expect("reported");
    assert_eq!(stored.text(), "sent by the manager\nnot sent yet\nsent by the agent\n");
    let body = server.seen_with(Method::PUT)[0].json();
    assert_eq!(body["output"]["bytesize"], stored.text().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_trace_is_live_even_without_line_ends() {
    let stored = Stored::default();
    let server = healthy(&stored).await;
    let settings = TraceSettings { timestamps: true, ..settings() };
    let trace = JobTrace::start(server.client(), access(), &settings, TraceSoFar::default(), true);
    for dots in 1..=3 {
        trace.write(Stream::Out, b".");
        server.wait_until(|seen| seen.len() == dots).await;
        assert_eq!(stored.text().lines().count(), dots);
    }
    assert_eq!(server.seen()[0].uri.query(), Some("debug_trace=true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_patch_aborts_the_job_and_nothing_more_is_sent() {
    let server = Server::start(|_| status(403)).await;
    let trace = start(&server, TraceSoFar::default());
    trace.write(Stream::Out, b"text\n");
    signal(&trace, Signal::Abort).await;
    let reported = trace.finish(&Outcome::Decided(Decision::Aborted), &[], 3).await.expect("over");
    assert_eq!(reported, Reported::AlreadyOver);
    assert_eq!(server.seen_with(Method::PUT).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn canceling_asks_for_an_end_that_is_then_reported() {
    let server = Server::start(|seen| {
        let code = if seen.method == Method::PATCH { 202 } else { 200 };
        with_headers(code, &[("Job-Status", "canceling")])
    })
    .await;
    let trace = start(&server, TraceSoFar::default());
    trace.write(Stream::Out, b"text\n");
    signal(&trace, Signal::Cancel).await;
    let reported = trace.finish(&Outcome::Decided(Decision::Canceled), &[], 1).await.expect("reported");
    assert_eq!(reported, Reported::Accepted);
    let body = server.seen_with(Method::PUT)[0].json();
    assert_eq!((&body["state"], &body["failure_reason"]), (&"failed".into(), &"unknown_failure".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_end_is_repeated_until_it_is_taken() {
    let stored = Stored::default();
    let (gitlab, mut puts) = (stored.clone(), 0);
    let server = Server::start(move |seen| {
        if seen.method == Method::PATCH {
            return gitlab.patch(seen);
        }
        puts += 1;
        if puts < 3 { with_headers(202, &[("X-GitLab-Trace-Update-Interval", "1")]) } else { status(200) }
    })
    .await;
    let trace = start(&server, TraceSoFar::default());
    trace.write(Stream::Out, b"text\n");
    trace.finish(&Outcome::ScriptFailed { exit_code: 137 }, &[], 1).await.expect("reported");
    let puts = server.seen_with(Method::PUT);
    assert_eq!(puts.len(), 3);
    assert_eq!(puts[2].json()["exit_code"], 137);
    assert_eq!(puts[2].json()["failure_reason"], "script_failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_does_not_match_its_sum_is_sent_anew() {
    let stored = Stored::default();
    let (gitlab, mut puts) = (stored.clone(), 0);
    let server = Server::start(move |seen| {
        if seen.method == Method::PATCH {
            return gitlab.patch(seen);
        }
        puts += 1;
        if puts > 1 {
            return status(200);
        }
        gitlab.truncate(0);
        with_headers(412, &[("X-GitLab-Trace-Update-Interval", "1")])
    })
    .await;
    let trace = start(&server, TraceSoFar::default());
    trace.write(Stream::Out, b"one\n");
    server.wait_until(|seen| !seen.is_empty()).await;
    trace.write(Stream::Out, b"two\n");
    trace.finish(&Outcome::Succeeded, &[], 1).await.expect("reported");
    assert_eq!(stored.text(), "one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_that_never_matches_does_not_keep_the_job_from_ending() {
    let stored = Stored::default();
    let gitlab = stored.clone();
    let server = Server::start(move |seen| {
        if seen.method == Method::PATCH {
            return gitlab.patch(seen);
        }
        let has_sum = seen.json().get("checksum").is_some();
        if has_sum { with_headers(412, &[("X-GitLab-Trace-Update-Interval", "1")]) } else { status(200) }
    })
    .await;
    let trace = start(&server, TraceSoFar::default());
    trace.write(Stream::Out, b"text\n");
    let reported = trace.finish(&Outcome::Succeeded, &[], 1).await.expect("reported");
    assert_eq!(reported, Reported::Accepted);
    let puts = server.seen_with(Method::PUT);
    assert_eq!(puts.len(), 4, "sent anew three times");
    assert_eq!(puts[3].json()["output"], serde_json::json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_instead_of_an_answer_is_a_failure_in_words() {
    let page = || with_headers(202, &[("Content-Type", "text/html; charset=utf-8")]);
    let server = Server::start(move |_| page()).await;
    let (job, token) = (access().id, access().token);
    let patched = server.client().patch_trace(job, &token, 0, "text".into(), false).await;
    let PatchResult::Unavailable(reason) = patched.result else { panic!("taken: {patched:?}") };
    assert!(reason.contains("a page of HTML"), "{reason}");
    let update = JobUpdate { job, token: &token, state: JobState::Success, output: None };
    let updated = server.client().update_job(&update).await;
    let UpdateResult::Unavailable(reason) = updated.result else { panic!("taken: {updated:?}") };
    assert!(reason.contains("a page of HTML"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_gitlab_is_away() {
    let stored = Stored::default();
    let server = healthy(&stored).await;
    let address = server.address;
    let trace = JobTrace::start(client(&server.url()), access(), &settings(), TraceSoFar::default(), false);
    trace.write(Stream::Out, b"before\n");
    server.wait_until(|seen| !seen.is_empty()).await;
    drop(server);
    trace.write(Stream::Out, b"while it was away\n");
    let end = tokio::spawn({
        let trace = trace.clone();
        async move { trace.finish(&Outcome::Succeeded, &[], 10).await }
    });
    // Only a refused connection shows that the client has noticed.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let gitlab = stored.clone();
    let answer =
        move |seen: &support::Seen| if seen.method == Method::PATCH { gitlab.patch(seen) } else { status(200) };
    let _server = Server::start_at(address, answer).await;
    let reported = tokio::time::timeout(DEADLINE, end).await.expect("in time").expect("no panic");
    assert_eq!(reported.expect("reported"), Reported::Accepted);
    assert_eq!(stored.text(), "before\nwhile it was away\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_final_update_is_tried_again_and_then_given_up() {
    let stored = Stored::default();
    let (gitlab, mut puts) = (stored.clone(), 0);
    let server = Server::start(move |seen| {
        if seen.method == Method::PATCH {
            return gitlab.patch(seen);
        }
        puts += 1;
        status(if puts == 2 { 200 } else { 501 })
    })
    .await;
    let trace = start(&server, TraceSoFar::default());
    trace.finish(&Outcome::Succeeded, &[], 2).await.expect("the second round succeeds");
    let error = trace.finish(&Outcome::Succeeded, &[], 1).await.expect_err("one round that fails");
    assert!(error.to_string().contains("501"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_job_is_reported_at_the_end_of_its_trace() {
    let stored = Stored::with("what the agent wrote\n");
    let server = healthy(&stored).await;
    let (text, outcome) = (line::error("Job failed"), Outcome::system("the task was lost"));
    let reported = JobTrace::report_lost(&server.client(), &access(), &settings(), &text, &outcome, &[], 1).await;
    assert_eq!(reported.expect("reported"), Reported::Accepted);
    assert_eq!(stored.text(), format!("what the agent wrote\n{text}"));
    let body = server.seen_with(Method::PUT)[0].json();
    assert_eq!(body["failure_reason"], "runner_system_failure");
    assert_eq!(body["output"], serde_json::json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lost_job_is_told_once_even_if_the_answer_is_lost() {
    let stored = Stored::with("what the agent wrote\n");
    let gitlab = stored.clone();
    let mut lost = false;
    let server = Server::start(move |seen| {
        if seen.method != Method::PATCH {
            return status(200);
        }
        let answer = gitlab.patch(seen);
        if answer.status() == 202 && !std::mem::replace(&mut lost, true) { status(502) } else { answer }
    })
    .await;
    let outcome = Outcome::system("the task was lost");
    let reported = JobTrace::report_lost(&server.client(), &access(), &settings(), "text\n", &outcome, &[], 1).await;
    assert_eq!(reported.expect("reported"), Reported::Accepted);
    assert_eq!(stored.text(), "what the agent wrote\ntext\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_job_that_ended_already_stays_as_it_is() {
    let server = Server::start(|_| with_headers(403, &[("Job-Status", "success")])).await;
    let outcome = Outcome::system("the task was lost");
    let reported = JobTrace::report_lost(&server.client(), &access(), &settings(), "text\n", &outcome, &[], 1).await;
    assert_eq!(reported.expect("over"), Reported::AlreadyOver);
    assert_eq!(server.seen_with(Method::PUT).len(), 0);
}
