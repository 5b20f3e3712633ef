//! GitLab's side: each fault is put in on purpose, and doctor finds it.

use std::io::{Read, Write};
use std::net::TcpListener;

use ::gitlab::{Client, ClientConfig, Info, Proxies, Registration, RunnerScope};
use embedded::gitlab;
use job::secret::ExposeSecret;
use testkit::{AwsFront, Moto};

use crate::findings::Findings;
use crate::operator::{Operator, REGION};

/// Of AWS nothing is asked here but that it answers.
async fn operator() -> (AwsFront, Operator) {
    let front = AwsFront::start(Moto::shared().url()).await;
    let operator = Operator::at(front.url());
    (front, operator)
}

/// One `[[runners]]` entry.
fn runner(name: &str, url: &str, token: &str) -> String {
    format!(
        r#"
[[runners]]
name = "{name}"
url = "{url}"
token = "{token}"
executor = "fargate"

[runners.fargate]
cluster = "{name}"
region = "{REGION}"
subnets = ["subnet-1"]
security_groups = ["sg-1"]
task_definition = "{name}"
"#
    )
}

fn write_config(operator: &Operator, runners: &[String]) {
    operator.write("config.toml", &format!("concurrent = 4\n{}", runners.concat()));
}

async fn gitlab() -> gitlab::Server {
    gitlab::start(gitlab::Config::default()).await.expect("the embedded GitLab")
}

/// Makes a runner as its owner does in the user interface; gives its token.
async fn created(gitlab: &gitlab::Server, registration: Registration) -> String {
    let config =
        ClientConfig { proxies: Proxies::default(), ..ClientConfig::new(gitlab.url(), Info::new("fargate", "")) };
    let client = Client::new(config).expect("a client");
    let personal = gitlab.personal_access_token().into();
    let made = client.create_runner(&personal, RunnerScope::Instance, &registration).await.expect("a runner");
    made.token.expose_secret().to_owned()
}

const CONFIG: [&str; 2] = ["--config", "config.toml"];

#[tokio::test]
async fn a_runner_without_faults_has_none_and_its_owner_sees_all_of_it() {
    let (gitlab, (_aws, operator)) = (gitlab().await, operator().await);
    let token = gitlab.register_runner("dev", &["dev", "fargate"]);
    write_config(&operator, &[runner("dev", gitlab.url(), &token)]);
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    for check in ["gitlab-reachable", "runner-token", "clock"] {
        found.expect("dev", check, "good", &[]);
    }
    for check in ["runner-tags", "runner-settings"] {
        found.expect("dev", check, "skipped", &["GITLAB_PERSONAL_ACCESS_TOKEN"]);
    }
    assert_eq!(gitlab.runners()[0].managers, [""; 0], "doctor is no manager");
    let personal = [("GITLAB_PERSONAL_ACCESS_TOKEN", gitlab.personal_access_token())];
    let found = Findings::of(&operator, &CONFIG, &personal).await;
    found.expect("dev", "runner-tags", "good", &["dev, fargate"]);
    found.expect("dev", "runner-settings", "good", &["not paused"]);
    let found = Findings::of(&operator, &CONFIG, &[("GITLAB_PERSONAL_ACCESS_TOKEN", "glpat-other")]).await;
    found.expect("dev", "runner-settings", "unknown", &["401", "read_api"]);
}

#[tokio::test]
async fn a_token_that_gitlab_does_not_know_is_found() {
    let (gitlab, (_aws, operator)) = (gitlab().await, operator().await);
    write_config(&operator, &[runner("dev", gitlab.url(), "glrt-gone-gone-gone")]);
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    found.expect("dev", "runner-token", "bad", &["does not know", "Create the runner anew"]);
    assert_eq!(found.code, Some(1));
}

#[tokio::test]
async fn a_token_in_a_variable_that_is_not_set_here_is_told_and_the_rest_is_examined() {
    let (gitlab, (_aws, operator)) = (gitlab().await, operator().await);
    let token = gitlab.register_runner("dev", &["dev"]);
    write_config(&operator, &[runner("dev", gitlab.url(), "$DEV_RUNNER_TOKEN")]);
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    found.expect("dev", "gitlab-reachable", "good", &[]);
    found.expect("dev", "runner-token", "unknown", &["DEV_RUNNER_TOKEN"]);
    let found = Findings::of(&operator, &CONFIG, &[("DEV_RUNNER_TOKEN", &token)]).await;
    found.expect("dev", "runner-token", "good", &[]);
}

#[tokio::test]
async fn a_token_that_ends_soon_is_told_in_time() {
    let lifetime = std::time::Duration::from_secs(24 * 3600);
    let config = gitlab::Config { runner_token_lifetime: Some(lifetime), ..gitlab::Config::default() };
    let gitlab = gitlab::start(config).await.expect("the embedded GitLab");
    let (_aws, operator) = operator().await;
    let token = created(&gitlab, Registration { run_untagged: true, ..Registration::default() }).await;
    write_config(&operator, &[runner("dev", gitlab.url(), &token)]);
    Findings::of(&operator, &CONFIG, &[]).await.expect(
        "dev",
        "runner-token",
        "warning",
        &["expires at", "reset-token"],
    );
}

#[tokio::test]
async fn paused_and_protected_runners_are_found() {
    let (gitlab, (_aws, operator)) = (gitlab().await, operator().await);
    let usual = || Registration { tag_list: "dev".into(), ..Registration::default() };
    let paused = created(&gitlab, Registration { paused: true, ..usual() }).await;
    let protected = created(&gitlab, Registration { access_level: "ref_protected".into(), ..usual() }).await;
    write_config(&operator, &[runner("dev", gitlab.url(), &paused), runner("production", gitlab.url(), &protected)]);
    let personal = [("GITLAB_PERSONAL_ACCESS_TOKEN", gitlab.personal_access_token())];
    let found = Findings::of(&operator, &CONFIG, &personal).await;
    found.expect("dev", "runner-settings", "bad", &["paused", "Resume"]);
    found.expect("production", "runner-settings", "warning", &["protected"]);
}

#[tokio::test]
async fn a_dead_gitlab_of_one_environment_does_not_stop_the_others() {
    let (gitlab, (_aws, operator)) = (gitlab().await, operator().await);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    let token = gitlab.register_runner("staging", &["staging"]);
    write_config(
        &operator,
        &[
            runner("dev", &format!("http://{closed}"), "glrt-a"),
            runner("nowhere", "https://gitlab.invalid", "glrt-b"),
            runner("staging", gitlab.url(), &token),
        ],
    );
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    found.expect("dev", "gitlab-reachable", "bad", &["no connection", "firewalls"]);
    found.expect("nowhere", "gitlab-reachable", "bad", &["name is not found", "name servers"]);
    assert_eq!(found.of_check("dev", "runner-token"), [], "it could not be asked");
    found.expect("staging", "runner-token", "good", &[]);
    let only = Findings::of(&operator, &["--config", "config.toml", "--environment", "staging"], &[]).await;
    assert_eq!(only.of_check("dev", "gitlab-reachable"), []);
    let unknown = operator.staffetta(&["doctor", "--config", "config.toml", "--environment", "prod"]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("dev, nowhere, staging"), "{}", unknown.stderr);
}

/// Answers as a GitLab whose clock stands still.
fn gitlab_of_yesterday() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                connection: close\r\ndate: Sun, 22 Nov 2020 03:00:00 GMT\r\n\r\n{}";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_clock_that_is_not_gitlabs_is_found() {
    let (_aws, operator) = operator().await;
    write_config(&operator, &[runner("dev", &gitlab_of_yesterday(), "glrt-a")]);
    let found = Findings::of(&operator, &CONFIG, &[]).await;
    let clocks = found.of_check("dev", "clock");
    let verdicts: Vec<_> = clocks.iter().map(|(verdict, ..)| *verdict).collect();
    // That of AWS, which is moto on this machine, agrees.
    assert_eq!(verdicts, ["bad", "good"], "{clocks:?}");
    assert!(clocks[0].1.contains("ahead of that of http://") && clocks[0].2.contains("timedatectl"), "{clocks:?}");
}
