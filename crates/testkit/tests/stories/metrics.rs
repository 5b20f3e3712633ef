//! What a manager shows of itself on `listen_address`.

use std::collections::{BTreeMap, BTreeSet};

use embedded::gitlab::Status;
use nix::sys::signal::Signal;
use reqwest::{Client, Method, StatusCode};
use testkit::{ManagerProcess, Setup, World};

fn setup() -> Setup {
    Setup {
        global: "listen_address = \"127.0.0.1:0\"".into(),
        runner: "limit = 7\nrequest_concurrency = 3\nfeature_flags = { FF_USE_ADAPTIVE_REQUEST_CONCURRENCY = false }"
            .into(),
        runners: vec![("dev", vec!["dev"])],
        ..Setup::default()
    }
}

/// A manager and where it shows its metrics.
async fn start(world: &World) -> (ManagerProcess, String) {
    let mut manager = ManagerProcess::start(&world.config_file());
    let line = manager.until_log("metrics are served").await;
    let address = line.split("address=").nth(1).expect("an address").trim().to_owned();
    (manager, format!("http://{address}"))
}

async fn get(url: &str) -> (StatusCode, reqwest::header::HeaderMap, String) {
    let response = client().get(url).send().await.expect("an answer");
    (response.status(), response.headers().clone(), response.text().await.expect("a text"))
}

fn client() -> Client {
    // A client of plain HTTP wants one all the same; the first of this process is the one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().expect("a client")
}

/// The samples of Prometheus's text format, by name and labels as they stand there; fails on what its parser refuses.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut closed = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has an end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (kind, rest) = rest.split_once(' ').expect("HELP or TYPE");
            let (name, value) = rest.split_once(' ').expect("a name");
            if kind == "TYPE" {
                assert!(["counter", "gauge", "histogram"].contains(&value), "{line}");
                assert!(types.insert(name.to_owned(), value.to_owned()).is_none(), "twice: {line}");
                assert!(closed.insert(name.to_owned()), "{name} is not in one piece");
                current = name.to_owned();
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            let family = name.strip_suffix(end)?;
            (types.get(family).map(String::as_str) == Some("histogram")).then_some(family)
        });
        assert_eq!(family.unwrap_or(name), current, "a sample stands below its TYPE: {line}");
        assert!(series.matches('"').count() % 2 == 0 && (!series.contains('{') || series.ends_with('}')), "{line}");
        let value = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

/// The sum of all samples of a name whose labels have all of these.
fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let of_name = samples.iter().filter(|(series, _)| series.split('{').next() == Some(name));
    of_name.filter(|(series, _)| labels.iter().all(|label| series.contains(label))).map(|(_, value)| value).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_counts_its_jobs_its_calls_and_itself_under_gitlabs_names() {
    let mut world = World::without_manager(setup()).await;
    let (mut manager, url) = start(&world).await;
    manager.until_log("ready for jobs").await;
    let idle = samples(&get(&format!("{url}/metrics")).await.2);
    assert_eq!(sum(&idle, "gitlab_runner_jobs_total", &["runner_name=\"dev\""]), 0.0);
    assert!(idle.keys().any(|series| series.starts_with("gitlab_runner_jobs{") && series.contains("state=\"idle\"")));

    let pipeline = world.pipeline("it: { tags: [dev], script: [echo under way, sleep 600] }").await;
    world.until_trace("it", "under way").await;
    let running = samples(&get(&format!("{url}/metrics")).await.2);
    let state = ["state=\"running\"", "stage=\"agent\"", "executor_stage=\"fargate_agent\"", "runner_name=\"dev\""];
    assert_eq!(sum(&running, "gitlab_runner_jobs", &state), 1.0);
    assert_eq!(sum(&running, "staffetta_tasks_running", &["runner_name=\"dev\""]), 1.0);
    for phase in ["run_task", "start", "hand_over"] {
        assert_eq!(sum(&running, "staffetta_launch_seconds_count", &[&format!("phase=\"{phase}\"")]), 1.0, "{phase}");
    }
    assert_eq!(sum(&running, "gitlab_runner_job_duration_seconds_count", &[]), 0.0);
    let (_, headers, list) = get(&format!("{url}/debug/jobs/list")).await;
    assert_eq!(headers["x-list-version"], "2");
    let id = world.job("it").id;
    let expected = format!("/-/jobs/{id} state=running stage=agent executor_stage=fargate_agent duration=");
    assert!(list.starts_with("url=http://") && list.contains(&expected) && list.ends_with("s\n"), "{list}");

    let task = world.fargate.tasks().pop().expect("a task").arn;
    world.fargate.kill_host(&task);
    assert_eq!(world.finished(pipeline).await, Status::Failed);
    let (job, _) = world.run_job("  script: echo hello").await;
    assert_eq!(job.status, Status::Success);
    testkit::eventually("the task is over for the manager", || {
        world.fargate.tasks().iter().all(|task| task.last_status == "STOPPED")
    })
    .await;

    // The manager hears of the end a moment after ECS knows it.
    let text = loop {
        let (status, headers, text) = get(&format!("{url}/metrics")).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::OK, &"text/plain; version=0.0.4; charset=utf-8".parse().expect("a header"))
        );
        if sum(&samples(&text), "gitlab_runner_job_duration_seconds_count", &["mode=\"traditional\""]) == 2.0 {
            break text;
        }
    };
    let counted = samples(&text);
    let system_id = std::fs::read_to_string(world.config_file().with_file_name(".runner_system_id")).expect("the id");
    let own = format!("system_id=\"{}\"", system_id.trim());
    for (name, labels, expected) in [
        ("gitlab_runner_jobs_total", &[own.as_str()][..], 2.0),
        ("gitlab_runner_job_queue_duration_seconds_count", &[&own], 2.0),
        ("gitlab_runner_failed_jobs_total", &["failure_reason=\"runner_system_failure\"", "mode=\"traditional\""], 1.0),
        ("gitlab_runner_worker_processing_failures_total", &["failure_type=\"job_failure\""], 1.0),
        ("gitlab_runner_job_execution_mode_total", &["executor=\"fargate\""], 2.0),
        ("gitlab_runner_concurrent", &[], 1000.0),
        ("gitlab_runner_limit", &["runner_name=\"dev\""], 7.0),
        ("gitlab_runner_request_concurrency_hard_limit", &[&own], 3.0),
        ("gitlab_runner_request_concurrency_used_limit", &[&own], 3.0),
        (
            "gitlab_runner_api_request_statuses_total",
            &["endpoint=\"request_job\"", "status=\"201\"", "method=\"post\""],
            2.0,
        ),
        ("gitlab_runner_api_request_retries_total", &["path=\"/api/v4/runners/verify\"", "method=\"post\""], 1.0),
        ("gitlab_runner_configuration_loaded_total", &[], 1.0),
        ("gitlab_runner_version_info", &["name=\"staffetta\""], 1.0),
        ("gitlab_runner_worker_health_check_failures_total", &[&own], 0.0),
        ("staffetta_aws_calls_total", &["api=\"RunTask\""], 2.0),
        ("staffetta_aws_throttles_total", &[], 0.0),
    ] {
        assert!(counted.keys().any(|series| series.split('{').next() == Some(name)), "{name} is missing");
        assert_eq!(sum(&counted, name, labels), expected, "{name} {labels:?}\n{text}");
    }
    for name in [
        "gitlab_runner_api_request_duration_seconds_count",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
        "gitlab_runner_worker_feeds_total",
    ] {
        assert!(sum(&counted, name, &[]) > 0.0, "{name}\n{text}");
    }
    for runner in world.gitlab.runners() {
        assert!(!text.contains(&runner.token), "a token is shown");
    }
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_answers_what_it_has_and_is_not_ready_once_the_manager_stops() {
    let mut world = World::without_manager(setup()).await;
    let (mut manager, url) = start(&world).await;
    let head = client().head(format!("{url}/metrics")).send().await.expect("an answer");
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.text().await.expect("a body"), "");
    for (method, path, expected) in [
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::GET, "/debug/pprof/", StatusCode::NOT_FOUND),
        (Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = client().request(method, format!("{url}{path}")).send().await.expect("an answer");
        assert_eq!(answer.status(), expected, "{path}");
    }
    assert_eq!(get(&format!("{url}/health/ready")).await.0, StatusCode::OK);

    let pipeline = world.pipeline("it: { tags: [dev], script: [echo under way, sleep 5] }").await;
    world.until_trace("it", "under way").await;
    manager.signal(Signal::SIGQUIT);
    manager.until_log("draining").await;
    let (status, _, said) = get(&format!("{url}/health/ready")).await;
    assert_eq!((status, said.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"));
    assert_eq!(world.finished(pipeline).await, Status::Success);
    manager.ended().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_said_at_the_start_and_a_new_one_needs_a_restart() {
    let world = World::without_manager(setup()).await;
    let (mut manager, url) = start(&world).await;
    let file = world.config_file();
    let with = |address: &str| {
        let text = std::fs::read_to_string(&file).expect("config.toml");
        let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("listen_address")).collect();
        std::fs::write(&file, format!("listen_address = \"{address}\"\n{}", rest.join("\n"))).expect("config.toml");
    };
    let address = url.trim_start_matches("http://").to_owned();
    with(&address);
    let (status, said) = ManagerProcess::start(&file).ended().await;
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("cannot serve metrics on {address} (listen_address)")), "{said}");

    manager.signal(Signal::SIGHUP);
    manager.until_log("a changed `listen_address` needs a restart").await;
    std::fs::write(&file, "concurrent = ").expect("config.toml");
    manager.signal(Signal::SIGHUP);
    manager.until_log("the configuration is not taken").await;
    let counted = samples(&get(&format!("{url}/metrics")).await.2);
    assert_eq!(sum(&counted, "gitlab_runner_configuration_loaded_total", &[]), 2.0);
    assert_eq!(sum(&counted, "gitlab_runner_configuration_loading_error_total", &[]), 1.0);
    assert!(sum(&counted, "gitlab_runner_errors_total", &["level=\"error\""]) >= 1.0);
    manager.signal(Signal::SIGTERM);
    manager.ended().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_counts_with_the_manager_that_launched_it_and_with_no_other() {
    let mut world = World::without_manager(setup()).await;
    let (first, first_url) = start(&world).await;
    let pipeline = world.pipeline("it: { tags: [dev], script: [echo under way, sleep 600] }").await;
    world.until_trace("it", "under way").await;
    // Another system id stands beside another file.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml");
    std::fs::copy(world.config_file(), &file).expect("config.toml");
    std::fs::write(folder.path().join(".runner_system_id"), "r_anothermngr1").expect("the id");
    let mut second = ManagerProcess::start(&file);
    let mut second_url = String::new();
    for text in ["metrics are served", "found a running job of an earlier manager"] {
        let line = second.until_log(text).await;
        if let Some((_, address)) = line.split_once("address=") {
            second_url = format!("http://{}", address.trim());
        }
    }
    for (url, expected) in [(first_url, 1.0), (second_url, 0.0)] {
        let counted = samples(&get(&format!("{url}/metrics")).await.2);
        assert_eq!(sum(&counted, "gitlab_runner_jobs", &["state=\"running\""]), expected);
        assert_eq!(sum(&counted, "staffetta_tasks_running", &[]), expected);
    }
    world.gitlab.cancel_job(world.job("it").id);
    world.finished(pipeline).await;
    drop((first, second));
    world.end().await;
}
