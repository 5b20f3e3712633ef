//! Settings of config.toml whose effect takes two processes, a network in between, or a clock to see. The others have cases in
//! tests/conformance/cases/settings.yaml.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embedded::fargate::Delays;
use embedded::gitlab::{Config, Status, Variable};
use nix::sys::signal::Signal;
use testkit::{ManagerProcess, Setup, World, eventually, program};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::tls_proxy::{self, CERTIFICATES, LetsIn};

/// A world with the runner dev only.
fn one_runner() -> Setup {
    Setup { runners: vec![("dev", vec!["dev"])], ..Setup::default() }
}

fn edit(world: &World, change: impl Fn(String) -> String) {
    let text = std::fs::read_to_string(world.config_file()).expect("config.toml");
    std::fs::write(world.config_file(), change(text)).expect("config.toml");
}

fn address_of(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

fn job_requests(world: &World) -> usize {
    world.gitlab.count_requests(|request| request.path.ends_with("jobs/request"))
}

/// Carries connections to `target` and keeps what goes there: a proxy for requests of plain HTTP, for servers read the whole
/// URL of such a request too.
async fn recorder(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, record) = (listener.local_addr().expect("an address"), Arc::<Mutex<Vec<u8>>>::default());
    let kept = record.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(target).await?;
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let back = tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    let read = from_client.read(&mut buffer).await?;
                    if read == 0 {
                        break;
                    }
                    kept.lock().expect("no panic").extend_from_slice(&buffer[..read]);
                    to_server.write_all(&buffer[..read]).await?;
                }
                drop(to_server);
                let _ = back.await;
                std::io::Result::Ok(())
            });
        }
    });
    (address, record)
}

fn has(record: &Mutex<Vec<u8>>, text: &str) -> bool {
    String::from_utf8_lossy(&record.lock().expect("no panic")).contains(text)
}

fn through_proxy(config: &std::path::Path, proxy: SocketAddr) -> ManagerProcess {
    let mut command = Command::new(program("staffetta"));
    command.args(["run", "--config"]).arg(config);
    command.env("HTTP_PROXY", proxy.to_string()).env("HTTPS_PROXY", format!("http://{proxy}"));
    ManagerProcess::of(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_the_agent_and_the_jobs_files_each_go_through_the_proxy_that_they_are_told() {
    let world = World::without_manager(one_runner()).await;
    let gitlab = address_of(world.gitlab.url());
    let (of_manager, manager_said) = recorder(gitlab).await;
    let (of_runner, runner_said) = recorder(gitlab).await;
    let (of_job, job_said) = recorder(gitlab).await;
    let mut world = world;
    let url = world.gitlab.url();
    edit(&world, |text| {
        let entry =
            format!("environment = [\"HTTP_PROXY=http://{of_runner}\"]\nlabels = {{ team = \"platform\" }}\nexecutor");
        text.replace(&format!("url = \"{url}\""), "url = \"http://gitlab.invalid\"").replacen("executor", &entry, 1)
    });
    let manager = through_proxy(&world.config_file(), of_manager);
    let (job, trace) = world
        .run_job(&format!(
            "  variables: {{ HTTP_PROXY: 'http://{of_job}', GIT_STRATEGY: none }}\n  script: echo made > made\n  \
             artifacts: {{ paths: [made] }}"
        ))
        .await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(has(&manager_said, "POST http://gitlab.invalid/api/v4/jobs/request HTTP/1.1"));
    assert!(has(&manager_said, r#""labels":{"team":"platform"}"#), "labels are told with the request");
    assert!(has(&runner_said, "PATCH http://gitlab.invalid/api/v4/jobs/") && !has(&runner_said, "/artifacts"));
    assert!(has(&job_said, "/artifacts?") && !has(&job_said, "PATCH http"));
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_is_called_through_the_proxy_and_an_endpoint_on_this_machine_is_not() {
    let world = World::without_manager(Setup::default()).await;
    let (proxy, said) = recorder(address_of(world.gitlab.url())).await;
    let endpoint = format!("endpoint_url = \"{}\"\n", world.fargate.url());
    // Dev is at AWS, the others are at the embedded Fargate.
    edit(&world, |text| text.replacen(&endpoint, "", 1));
    let manager = through_proxy(&world.config_file(), proxy);
    eventually("the manager calls ECS", || has(&said, "CONNECT ecs.us-east-1.amazonaws.com:443")).await;
    eventually("it calls the embedded Fargate", || world.fargate.calls().contains_key("ListTasks")).await;
    assert!(!has(&said, "http://127.0.0.1"), "the way to this machine is direct");
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_certificate_opens_gitlab_to_the_manager_to_the_agent_and_to_the_job() {
    let mut world = World::without_manager(one_runner()).await;
    let (listener, front) = tls_proxy::listener().await;
    tls_proxy::serve(listener, world.gitlab.address(), LetsIn::ItsOwn);
    let url = world.gitlab.url();
    let files = format!(
        "tls-ca-file = \"{CERTIFICATES}/authority.pem\"\ntls-cert-file = \"{CERTIFICATES}/server.pem\"\n\
         tls-key-file = \"{CERTIFICATES}/server.key\"\nexecutor"
    );
    edit(&world, |text| {
        text.replace(&format!("url = \"{url}\""), &format!("url = \"https://{front}\"")).replacen("executor", &files, 1)
    });
    world.start_manager().await;
    let (job, trace) = world
        .run_job(
            "  variables: { GIT_STRATEGY: none }\n  script:\n    - grep -q 'BEGIN CERTIFICATE' \"$CI_SERVER_TLS_CERT_FILE\"\n    \
             - grep -q 'PRIVATE KEY' \"$CI_SERVER_TLS_KEY_FILE\"\n    - echo made > made\n  artifacts: { paths: [made] }",
        )
        .await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert_eq!(job.artifacts.len(), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_not_ready_within_prepare_timeout_ends_its_job_as_timed_out() {
    let mut setup = Setup { runner: "prepare_timeout = \"2s\"".into(), ..one_runner() };
    setup.fargate.delays = Delays { provisioning: Duration::from_secs(600), ..Delays::default() };
    let mut world = World::start(setup).await;
    let (job, trace) = world.run_job("  script: echo never").await;
    assert_eq!(job.failure_reason.as_deref(), Some("job_execution_timeout"), "{trace}");
    assert!(trace.contains("prepare timeout: exceeded timeout of 2s"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_too_large_to_be_handed_over_fails_at_once_and_says_so() {
    let variables = vec![Variable::new("HUGE", "x".repeat(33 << 20)).file().raw()];
    let gitlab = Config { variables, ..Setup::default().gitlab };
    let mut world = World::start(Setup { gitlab, ..one_runner() }).await;
    let started = std::time::Instant::now();
    let (job, trace) = world.run_job("  script: echo never").await;
    assert_eq!(job.status, Status::Failed);
    assert!(trace.contains("the job is too large to be handed over"), "{}", &trace[..trace.len().min(2000)]);
    assert!(started.elapsed() < Duration::from_secs(60), "repeated until the patience was over");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_strict_check_interval_the_next_job_waits_its_time() {
    let job = |name: &str| format!("{name}: {{ tags: [dev], script: [echo hello] }}\n");
    for (strict, expected) in [(true, Status::Pending), (false, Status::Success)] {
        let runner = format!("strict_check_interval = {strict}");
        let mut world = World::without_manager(Setup { runner, ..one_runner() }).await;
        edit(&world, |text| text.replace("check_interval = 1\n", "check_interval = 3600\n"));
        let pipeline = world.pipeline(&format!("{}{}", job("a"), job("b"))).await;
        world.start_manager().await;
        if expected.is_complete() {
            assert_eq!(world.finished(pipeline).await, expected);
        } else {
            let over = |gitlab: &embedded::gitlab::Server| gitlab.jobs().iter().any(|job| job.status.is_complete());
            world.until("one job is over", over).await;
            assert_eq!(world.gitlab.jobs().iter().filter(|job| job.status == expected).count(), 1);
            assert_eq!(job_requests(&world), 1);
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_refused_rests_for_its_interval_and_no_longer_than_until_the_next_reload() {
    let runner = "unhealthy_requests_limit = 2\nunhealthy_interval = \"1h\"".into();
    let world = World::without_manager(Setup { runner, ..one_runner() }).await;
    edit(&world, |text| text.replace("token = \"", "token = \"glrt-wrong"));
    let mut manager = ManagerProcess::start(&world.config_file());
    eventually("two requests", || job_requests(&world) >= 2).await;
    manager.signal(Signal::SIGHUP);
    manager.until_log("configuration read again").await;
    eventually("two more, for a reload forgets what was", || job_requests(&world) >= 4).await;
    edit(&world, |text| text.replace("\"1h\"", "\"1s\""));
    manager.signal(Signal::SIGHUP);
    manager.until_log("configuration read again").await;
    eventually("one more after each second", || job_requests(&world) >= 8).await;
    manager.signal(Signal::SIGTERM);
    manager.ended().await;
    world.end().await;
}

/// The lines of a manager that starts and is told to stop.
async fn log_of_a_life(format: &str) -> String {
    let world = World::without_manager(Setup { global: format!("log_format = \"{format}\""), ..one_runner() }).await;
    let mut manager = ManagerProcess::start(&world.config_file());
    manager.until_log("ready for jobs").await;
    manager.signal(Signal::SIGTERM);
    let (status, log) = manager.ended().await;
    assert!(status.success(), "{log}");
    world.end().await;
    assert!(!log.contains('\u{1b}'), "no colours where there is no terminal: {log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_json_is_one_object_a_line_with_the_keys_of_gitlabs_runner() {
    let log = log_of_a_life("json").await;
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(lines.len() >= 3, "{log}");
    for line in &lines {
        let time: jiff::Timestamp = line["time"].as_str().expect("a time").parse().expect("a time");
        assert!(time.as_second() > 0 && line["level"].is_string() && line["msg"].is_string(), "{line}");
    }
    let ready = lines.iter().find(|line| line["msg"] == "ready for jobs").expect("the line");
    assert_eq!((&ready["level"], &ready["runner"]), (&"info".into(), &"dev".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_text_is_keys_and_values() {
    let log = log_of_a_life("text").await;
    assert!(log.lines().all(|line| line.starts_with("time=\"") && line.contains(" level=")), "{log}");
    assert!(log.contains(r#"level=info msg="ready for jobs" runner=dev"#), "{log}");
    // And the one for people, which is not made for programs.
    log_of_a_life("runner").await;
}
