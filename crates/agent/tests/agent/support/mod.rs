//! One job and what it needs: a GitLab, a repository, a directory for builds.

pub mod gitlab;
pub mod repository;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use gitlab::{FakeGitLab, Final};

/// Never reached unless something hangs: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TOKEN: &str = "job-token-0123456789";

pub struct World {
    pub gitlab: FakeGitLab,
    /// The fields of the payload; tests change them before they run the job.
    pub payload: Value,
    /// The fields of the `[[runners]]` entry.
    pub runner: Value,
    pub elapsed_seconds: f64,
    directory: tempfile::TempDir,
}

/// A job that has ended.
pub struct Ended {
    pub trace: String,
    /// The last state that GitLab was told.
    pub last: Final,
    pub exit: ExitStatus,
}

impl World {
    /// A job without a repository, that runs `script`.
    pub async fn new(script: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("home")).expect("a home");
        let payload = json!({
            "id": 7,
            "token": TOKEN,
            "allow_git_fetch": true,
            "job_info": {"name": "build", "project_id": 12},
            "git_info": {"repo_url": "http://gitlab.test/grp/app.git", "ref": "main"},
            "runner_info": {"timeout": 600},
            "variables": [
                {"key": "GIT_STRATEGY", "value": "none"},
                {"key": "FF_TIMESTAMPS", "value": "false"},
                {"key": "CI_JOB_TOKEN", "value": TOKEN, "masked": true},
            ],
            "steps": [{"name": "script", "script": script}],
            "features": {"trace_sections": false, "failure_reasons": [
                "runner_configuration_error", "unknown_failure", "runner_system_failure", "script_failure",
            ]},
        });
        let runner = json!({
            "name": "dev", "short_token": "abcdefghi", "system_id": "s_0123456789ab",
            "builds_dir": directory.path().join("builds"), "cache_dir": directory.path().join("cache"), "environment": [], "feature_flags": {},
            "output_limit": 200 << 20, "shell": "", "pre_get_sources_script": "", "post_get_sources_script": "",
            "pre_build_script": "", "post_build_script": "", "clone_url": "", "custom_build_dir": true, "safe_directory_checkout": true,
            "clean_git_config": null, "get_sources_timeout": null, "artifact_upload_timeout": 3600,
            "artifact_response_header_timeout": 600, "debug_trace_disabled": false,
            "final_update_retries": 3, "concurrent_id": 0, "concurrent_project_id": 0,
        });
        Self { gitlab: FakeGitLab::start().await, payload, runner, elapsed_seconds: 0.0, directory }
    }

    pub fn variable(&mut self, variable: Value) {
        self.payload["variables"].as_array_mut().expect("a list").push(variable);
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.variable(json!({"key": key, "value": value}));
    }

    pub fn after_script(&mut self, script: &[&str]) {
        self.payload["steps"].as_array_mut().expect("a list").push(json!({"name": "after_script", "script": script}));
    }

    pub fn project(&self) -> PathBuf {
        self.directory.path().join("builds/grp/app")
    }

    /// A place for files of the test itself.
    pub fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A PATH with all programs of this machine but those whose names begin so, and a folder before it for others.
    pub fn programs_without(&self, hidden: &str) -> PathBuf {
        let (own, rest) = (self.place("own"), self.place("programs"));
        for folder in [&own, &rest] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        for place in ["/usr/bin", "/bin"] {
            for program in std::fs::read_dir(place).expect("programs").flatten() {
                let name = program.file_name();
                if !name.to_string_lossy().starts_with(hidden) {
                    let _ = std::os::unix::fs::symlink(program.path(), rest.join(name));
                }
            }
        }
        own
    }

    /// Makes the job find its programs there.
    pub fn hide(&mut self, hidden: &str) -> PathBuf {
        let own = self.programs_without(hidden);
        let path = format!("{}:{}", own.display(), self.place("programs").display());
        self.set("PATH", &path);
        own
    }

    /// A program that the job finds before all others.
    pub fn program(&mut self, name: &str, script: &str) {
        let own = self.place("own");
        std::fs::create_dir_all(&own).expect("a folder");
        write_program(&own.join(name), script);
        let path = std::env::var("PATH").expect("a PATH");
        self.set("PATH", &format!("{}:{path}", own.display()));
    }

    pub fn hand_over(&self) -> Value {
        json!({
            "version": 1,
            "payload": self.payload,
            "gitlab": {"url": self.gitlab.url(), "tls_ca": null, "correlation_id": "0123456789abcdef"},
            "runner": self.runner,
            "trace": {"text": "", "sent": 0, "interval_seconds": 1},
            "elapsed_seconds": self.elapsed_seconds,
        })
    }

    /// The agent's program, with an environment that nothing of this machine disturbs.
    pub fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staffetta-agent"));
        command.args(arguments).env("HOME", self.place("home")).env("TMPDIR", self.directory.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1").kill_on_drop(true);
        command
    }

    pub async fn start(&self) -> Child {
        self.gitlab.give_out_again();
        let mut child = self.agent(&["run"]).stdin(Stdio::piped()).spawn().expect("the agent");
        let mut input = child.stdin.take().expect("it was piped");
        input.write_all(self.hand_over().to_string().as_bytes()).await.expect("the agent reads");
        child
    }

    pub async fn run(&self) -> Ended {
        let child = self.start().await;
        self.end_of(child).await
    }

    pub async fn end_of(&self, mut child: Child) -> Ended {
        let exit = tokio::time::timeout(PATIENCE, child.wait()).await.expect("an end in time").expect("a process");
        let last = self.gitlab.last().unwrap_or_default();
        Ended { trace: self.gitlab.trace(), last, exit }
    }
}

impl Ended {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.last.state, "success", "{}", self.trace);
        assert!(self.exit.success());
        assert!(self.trace.ends_with("\x1b[32;1mJob succeeded\x1b[0;m\n"), "{}", self.trace);
        self
    }

    #[track_caller]
    pub fn failed(self, reason: &str, exit_code: i64) -> Self {
        let Final { state, failure_reason, exit_code: told, .. } = &self.last;
        assert_eq!((state.as_str(), failure_reason.as_str(), *told), ("failed", reason, exit_code), "{}", self.trace);
        assert!(self.exit.success(), "GitLab knows the outcome");
        self
    }

    #[track_caller]
    pub fn shows(&self, text: &str) -> &Self {
        assert!(self.trace.contains(text), "{text:?} is not in:\n{}", self.trace);
        self
    }

    #[track_caller]
    pub fn hides(&self, text: &str) -> &Self {
        assert!(!self.trace.contains(text), "{text:?} is in:\n{}", self.trace);
        self
    }
}

pub fn write_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a program");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// Waits for a process to be gone.
pub async fn gone(pid: &str) {
    let stat = format!("/proc/{}/stat", pid.trim());
    let until = tokio::time::Instant::now() + PATIENCE;
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(tokio::time::Instant::now() < until, "{pid} lives");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
