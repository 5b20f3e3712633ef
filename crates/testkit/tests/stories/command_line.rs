//! The programs as users run them: their output, their exit codes, and what they leave behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testkit::{PATIENCE, Repository, eventually, program};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// A run of `staffetta` with a temporary folder of its own, so that what it leaves there is seen.
struct Run {
    child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    temporary: TempDir,
}

impl Run {
    fn start(arguments: &[&str], folder: &Path) -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(program("staffetta"))
            .args(arguments)
            .arg(folder)
            .env("TMPDIR", temporary.path())
            .env("AWS_ACCESS_KEY_ID", "made-up")
            .env("AWS_SECRET_ACCESS_KEY", "made-up")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("staffetta starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines, temporary }
    }

    async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").expect("UTF-8")
    }

    async fn until(&mut self, text: &str) {
        loop {
            let line = self.line().await.unwrap_or_else(|| panic!("it ended before it said {text:?}"));
            if line.contains(text) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().expect("it runs").cast_signed()), signal).expect("a signal");
    }

    /// The rest of what it says and its exit code. Nothing of it may be left in the temporary folder.
    async fn ended(mut self) -> (String, Option<i32>) {
        let mut said = String::new();
        while let Some(line) = self.line().await {
            said += &format!("{line}\n");
        }
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status");
        let left: Vec<PathBuf> =
            std::fs::read_dir(self.temporary.path()).expect("the folder").flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        (said, status.code())
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// Processes whose command line has this text.
fn processes(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let command_lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    command_lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_passes_six_jobs_in_three_environments() {
    let (said, code) = Run::start(&["local"], &example("three-environments")).ended().await;
    assert_eq!(code, Some(0), "{said}");
    for environment in ["dev", "staging", "production"] {
        for job in ["build", "deploy"] {
            let row = format!("{job}-{environment} ");
            let passed = said.lines().any(|line| line.starts_with(&row) && line.contains(" passed "));
            assert!(passed, "{row} in the table: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_build_is_named_with_its_reason_and_its_deploy_did_not_run() {
    let pipeline = "stages: [build, deploy]\n\
                    build-dev: { stage: build, tags: [dev], script: [exit 3] }\n\
                    deploy-dev: { stage: deploy, tags: [dev], script: [echo deployed] }\n";
    let folder = Repository::of(&[(".gitlab-ci.yml", pipeline)]);
    let (said, code) = Run::start(&["local", "--quiet"], folder.path()).ended().await;
    assert_eq!(code, Some(1));
    assert!(said.contains("build-dev failed (exit code 3); deploy-dev did not run"), "{said}");
    assert!(!said.contains("deployed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_gives_one_object_for_each_event() {
    let folder = Repository::of(&[(".gitlab-ci.yml", "it: { tags: [dev], script: [echo hello] }\n")]);
    let (said, code) = Run::start(&["local", "--json"], folder.path()).ended().await;
    assert_eq!(code, Some(0), "{said}");
    let events: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON: {line}"))).collect();
    let last = events.last().expect("events");
    assert_eq!((&last["event"], &last["status"]), (&"pipeline".into(), &"success".into()), "{last}");
    assert!(events.iter().any(|event| event["event"] == "log" && event["text"] == "hello"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_with_mistakes_starts_nothing() {
    let folder = Repository::of(&[(".gitlab-ci.yml", "it: { tags: [dev], scirpt: [echo hello] }\n")]);
    let (said, code) = Run::start(&["local"], folder.path()).ended().await;
    assert_eq!((said.as_str(), code), ("", Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_the_pipeline_and_leaves_nothing() {
    // A number that no other process here sleeps for.
    let mark = format!("sleep 86{}", std::process::id());
    let pipeline = format!("it: {{ tags: [dev], script: [echo under way, {mark}] }}\n");
    let folder = Repository::of(&[(".gitlab-ci.yml", &pipeline)]);
    let mut run = Run::start(&["local"], folder.path());
    run.until(&format!("$ {mark}")).await;
    eventually("the script sleeps", || processes(&mark) > 0).await;
    run.signal(Signal::SIGINT);
    let (said, code) = run.ended().await;
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("canceled"), "{said}");
    eventually("no process is left", || processes(&mark) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_does_not_wait_for_the_jobs() {
    let mark = format!("sleep 87{}", std::process::id());
    let pipeline =
        format!("it:\n  tags: [dev]\n  script: [\"trap '' TERM; {mark}; {mark}\"]\n  after_script: [{mark}]\n");
    let folder = Repository::of(&[(".gitlab-ci.yml", &pipeline)]);
    let mut run = Run::start(&["local"], folder.path());
    run.until("trap").await;
    eventually("the script sleeps", || processes(&mark) > 0).await;
    run.signal(Signal::SIGINT);
    run.until("cancel").await;
    run.signal(Signal::SIGINT);
    let (_, code) = run.ended().await;
    assert_eq!(code, Some(130));
    eventually("no process is left", || processes(&mark) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_servers_and_the_manager_work_as_three_processes() {
    let folder = Repository::of(&[(".gitlab-ci.yml", "it: { tags: [dev], script: [echo hello] }\n")]);
    let mut gitlab = Run::start(&["embedded", "gitlab", "--until-done", "--repo"], folder.path());
    let gitlab_says: serde_json::Value = serde_json::from_str(&gitlab.line().await.expect("a line")).expect("JSON");
    let mut fargate = Run::start(&["embedded", "fargate", "--cluster", "dev", "--agent"], &program("staffetta-agent"));
    let fargate_says: serde_json::Value = serde_json::from_str(&fargate.line().await.expect("a line")).expect("JSON");
    let settings = tempfile::tempdir().expect("a folder");
    let config = settings.path().join("config.toml");
    let text = format!(
        "concurrent = 1\nshutdown_timeout = 1\n[[runners]]\nname = \"dev\"\nurl = {url}\ntoken = {token}\nexecutor = \"fargate\"\n\
         [runners.fargate]\ncluster = \"dev\"\nregion = \"us-east-1\"\nsubnets = [\"subnet-1\"]\n\
         security_groups = [\"sg-1\"]\ntask_definition = \"staffetta-agent\"\nendpoint_url = {endpoint}\nssh_port = {port}\n",
        url = gitlab_says["url"],
        token = gitlab_says["runners"]["dev"],
        endpoint = fargate_says["url"],
        port = fargate_says["ssh_port"],
    );
    std::fs::write(&config, text).expect("config.toml");
    let manager = Run::start(&["run", "--config"], &config);
    let (_, code) = gitlab.ended().await;
    assert_eq!(code, Some(0), "the pipeline passed");
    manager.signal(Signal::SIGTERM);
    assert_eq!(manager.ended().await.1, Some(0));
    fargate.signal(Signal::SIGTERM);
    assert_eq!(fargate.ended().await.1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_three_mistakes_names_all_three_with_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    let text = "concurrent = 0\n[[runners]]\nname = \"dev\"\nurl = \"gitlab.example.com\"\ntoken = \"glrt-x\"\n\
                executor = \"fargate\"\n[runners.fargate]\nclustre = \"ci\"\n";
    std::fs::write(&config, text).expect("config.toml");
    let output =
        Command::new(program("staffetta")).args(["run", "--config"]).arg(&config).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    for line in [":1: ", ":4: ", ":8: "] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(said.contains("clustre") && said.contains("cluster"), "{said}");
}
