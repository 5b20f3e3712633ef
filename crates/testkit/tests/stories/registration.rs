//! `staffetta register` and its siblings as users and scripts run them: what GitLab is told, what is in `config.toml`
//! afterwards, and what is left behind when it goes wrong.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use embedded::gitlab::{Config, Endpoint, Fault, Rule, RunnerView, Server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testkit::{PATIENCE, Terminal, program};
use tokio::process::{Child, Command};
use tokio::time::timeout;

struct Scene {
    gitlab: Server,
    folder: TempDir,
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

const FARGATE: [&str; 8] = [
    "--fargate-cluster",
    "ci-dev",
    "--fargate-subnets",
    "subnet-1,subnet-2",
    "--fargate-security-groups=sg-1",
    "--fargate-task-definition=ci-dev",
    "--fargate-region",
    "eu-west-1",
];

impl Scene {
    async fn start() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let gitlab = embedded::gitlab::start(config).await.expect("the embedded GitLab");
        Self { gitlab, folder: tempfile::tempdir().expect("a folder") }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("etc/config.toml")
    }

    fn write(&self, text: &str) {
        let file = self.config();
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("config.toml");
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).expect("config.toml")
    }

    /// The file with everything that differs from run to run taken out.
    fn steady_text(&self) -> String {
        let mut text = self.text().replace(self.gitlab.url(), "URL");
        for runner in self.gitlab.runners() {
            text = text.replace(&runner.token, &format!("TOKEN-OF-{}", runner.id));
        }
        let line = |line: &str| match line.split_once("token_obtained_at = 20") {
            Some((before, _)) => format!("{before}token_obtained_at = NOW\n"),
            None => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<OsString> {
        let config = [OsString::from("--config"), self.config().into()];
        arguments.iter().map(OsString::from).chain(config).collect()
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        Command::new(program("staffetta"))
            .args(self.arguments(arguments))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("staffetta starts")
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        said(self.spawn(arguments)).await
    }

    async fn register(&self, arguments: &[&str]) -> Said {
        let first = ["register", "--non-interactive", "--url", self.gitlab.url()];
        self.run(&[&first[..], arguments].concat()).await
    }

    fn runner(&self, description: &str) -> RunnerView {
        let all = self.gitlab.runners();
        all.into_iter().find(|runner| runner.description == description).expect("a runner of this description")
    }

    fn asked(&self, path: &str) -> usize {
        self.gitlab.count_requests(|request| request.path.ends_with(path))
    }

    /// Everything in the folder of the configuration.
    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("etc")) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

async fn said(child: Child) -> Said {
    let ended = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends");
    let Output { status, stdout, stderr } = ended.expect("a status");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn the_articles_own_command_registers_with_its_own_template() {
    let scene = Scene::start().await;
    let said = scene
        .run(&[
            "register",
            "--non-interactive",
            "--url",
            scene.gitlab.url(),
            "--registration-token",
            scene.gitlab.registration_token(),
            "--template-config",
            &example("fargate-driver/config.toml"),
            "--description",
            "GitLab runner for dev",
            "--executor",
            "custom",
            "--tag-list",
            "dev",
        ])
        .await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(
        scene.steady_text(),
        r#"concurrent = 1
check_interval = 0

[[runners]]
  name = "GitLab runner for dev"
  url = "URL"
  id = 1
  token = "TOKEN-OF-1"
  token_obtained_at = NOW
  token_expires_at = 0001-01-01T00:00:00Z
  executor = "custom"
  builds_dir = "/opt/gitlab-runner/builds"
  cache_dir = "/opt/gitlab-runner/cache"
  [runners.cache]
    [runners.cache.s3]
    [runners.cache.gcs]
  [runners.custom]
    config_exec = "/opt/gitlab-runner/fargate"
    config_args = ["--config", "/etc/gitlab-runner/ecs.toml", "custom", "config"]
    prepare_exec = "/opt/gitlab-runner/fargate"
    prepare_args = ["--config", "/etc/gitlab-runner/ecs.toml", "custom", "prepare"]
    run_exec = "/opt/gitlab-runner/fargate"
    run_args = ["--config", "/etc/gitlab-runner/ecs.toml", "custom", "run"]
    cleanup_exec = "/opt/gitlab-runner/fargate"
    cleanup_args = ["--config", "/etc/gitlab-runner/ecs.toml", "custom", "cleanup"]
"#
    );
    let runner = scene.runner("GitLab runner for dev");
    assert_eq!(runner.tags, ["dev"]);
    assert_eq!((runner.run_untagged, runner.locked, runner.paused), (false, true, false));
    let mode = fs::metadata(scene.config()).expect("config.toml").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_runner_with_an_authentication_token_is_ready_to_run() {
    let scene =
        Scene::with(Config { runner_token_lifetime: Some(Duration::from_secs(86_400)), ..Config::default() }).await;
    let token = scene.gitlab.register_runner("made in GitLab", &["dev"]);
    let said = scene.register(&[&["--token", &token, "--name", "dev", "--limit", "3"], &FARGATE[..]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!said.err.contains(&token[..20]), "the token is not shown: {}", said.err);
    let loaded = staffetta::config::load(&scene.config()).expect("a configuration without mistakes");
    let runner = &loaded.config.runners[0];
    assert_eq!((runner.name.as_str(), runner.limit.map(|limit| limit.get())), ("dev", Some(3)));
    assert_eq!(runner.fargate.subnets, ["subnet-1", "subnet-2"]);
    assert_eq!(runner.fargate.region.as_deref(), Some("eu-west-1"));
    // GitLab knows the manager by the id that `staffetta run` will have.
    let system_id = fs::read_to_string(scene.config().with_file_name(".runner_system_id")).expect("a system id");
    assert_eq!(scene.runner("made in GitLab").managers, [system_id]);

    let again = scene.register(&["--token", &token, "--name", "another"]).await;
    assert_eq!(again.code, Some(2));
    assert!(again.err.contains("already, as runner \"dev\""), "{}", again.err);
}

#[tokio::test]
async fn what_belongs_to_gitlabs_record_is_refused_beside_an_authentication_token() {
    let scene = Scene::start().await;
    let token = scene.gitlab.register_runner("made", &[]);
    let record = ["--tag-list", "dev", "--locked=false", "--paused", "--name", "dev"];
    let said = scene.register(&[&["--token", &token][..], &record].concat()).await;
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("set --locked, --paused, --tag-list there"), "{}", said.err);
    assert_eq!((scene.asked("/runners/verify"), scene.files().len()), (0, 0));
    // Scripts of old give every token by --registration-token.
    let said = scene.register(&[&["--registration-token", &token][..], &record].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("Without effect: --locked, --paused, --tag-list"), "{}", said.err);
}

#[tokio::test]
async fn an_owner_makes_a_runner_with_a_personal_access_token() {
    let scene = Scene::start().await;
    let personal = scene.gitlab.personal_access_token();
    let record =
        ["--project-id", "1", "--tag-list", "dev,gpu", "--maximum-timeout", "900", "--maintenance-note", "ours"];
    let said = scene
        .register(&[&["--personal-access-token", personal, "--name", "dev"][..], &record, &FARGATE].concat())
        .await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let runner = scene.runner("dev");
    assert!(runner.token.starts_with("glrt-t3_") && scene.text().contains(&runner.token));
    assert_eq!((runner.tags, runner.maximum_timeout), (vec!["dev".into(), "gpu".into()], Some(900)));
    assert_eq!((runner.run_untagged, runner.locked, runner.maintenance_note.as_str()), (false, false, "ours"));

    let said = scene.register(&["--pat", "glpat-wrong", "--name", "other"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("create_runner"), "{}", said.err);
}

#[tokio::test]
async fn the_environment_gives_what_the_command_line_leaves_out() {
    let scene = Scene::start().await;
    let token = scene.gitlab.register_runner("made", &[]);
    let child = Command::new(program("staffetta"))
        .arg("register")
        .env_clear()
        .envs([("CONFIG_FILE", scene.config().to_str().expect("UTF-8")), ("CI_SERVER_URL", scene.gitlab.url())])
        .envs([("CI_SERVER_TOKEN", token.as_str()), ("REGISTER_NON_INTERACTIVE", "true"), ("RUNNER_NAME", "dev")])
        .envs([("RUNNER_EXECUTOR", "fargate"), ("RUNNER_FARGATE_SUBNETS", "a,b"), ("RUNNER_TAG_LIST", "")])
        .envs([("REGISTER_MAXIMUM_TIMEOUT", ""), ("RUNNER_LIMIT", ""), ("GITLAB_PERSONAL_ACCESS_TOKEN", "")])
        // What a job may set for itself says nothing about the runner.
        .envs([("FARGATE_TASK_DEFINITION", "of-a-job")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("staffetta starts");
    let said = said(child).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        scene.text().contains("subnets = [\"a\", \"b\"]") && !scene.text().contains("of-a-job"),
        "{}",
        scene.text()
    );
    // What is still missing is named, with its place.
    for missing in [":13: `runners.fargate.task_definition` must", ":13: `runners.fargate.security_groups` must"] {
        assert!(said.err.contains(missing), "{}", said.err);
    }
}

/// As GitLab's runner has it: one template serves many machines.
#[tokio::test]
async fn a_runner_without_a_name_is_called_by_its_host_and_not_by_the_template() {
    let scene = Scene::start().await;
    let template = example("fargate-driver/config.toml");
    let said = scene.register(&["-r", scene.gitlab.registration_token(), "--template-config", &template]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let host = nix::unistd::gethostname().expect("a name").into_string().expect("UTF-8");
    assert_eq!(scene.gitlab.runners()[0].description, host);
    assert!(scene.text().contains(&format!("name = \"{host}\"")) && scene.text().contains("executor = \"custom\""));
}

#[tokio::test]
async fn what_is_in_the_file_stays_as_it_is() {
    let scene = Scene::start().await;
    let before = "# Ours: ask the platform team.\nconcurrent = 30 # tasks are cheap\n\n[session_server]\n  session_timeout = 60\n";
    scene.write(before);
    let token = scene.gitlab.register_runner("made", &[]);
    let said = scene.register(&[&["--token", &token, "--name", "dev"], &FARGATE[..]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(scene.text().starts_with(&format!("{before}\n[[runners]]\nname = \"dev\"\n")), "{}", scene.text());
    let said = scene.run(&["unregister", "--name", "dev"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(scene.text(), before);
}

#[tokio::test]
async fn runners_that_are_registered_at_once_are_all_in_the_file() {
    let scene = Scene::start().await;
    scene.write("concurrent = 8\n");
    let token = scene.gitlab.registration_token();
    let registrations: Vec<_> = (0..8)
        .map(|number| {
            let name = format!("runner-{number}");
            scene.spawn(&["register", "-n", "--url", scene.gitlab.url(), "-r", token, "--name", &name])
        })
        .collect();
    for registration in registrations {
        let said = said(registration).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let text = scene.text();
    for runner in scene.gitlab.runners() {
        assert_eq!(text.matches(&runner.token).count(), 1, "{text}");
    }
    assert_eq!((text.matches("[[runners]]").count(), scene.gitlab.runners().len()), (8, 8));
    assert_eq!(scene.files(), [".runner_system_id", "config.toml"]);
}

#[tokio::test]
async fn a_no_of_gitlabs_is_told_with_the_way_out_and_nothing_is_written() {
    let scene = Scene::with(Config { registration_tokens: false, ..Config::default() }).await;
    let registration_token = scene.gitlab.registration_token();
    for (arguments, way_out) in [
        (["--token", "glrt-wrong"], "it is wrong, or the runner was deleted"),
        (["--token", "GR1348941wrong"], "give it by --registration-token"),
        (["--registration-token", "wrong"], "invalid token supplied"),
        (["--registration-token", registration_token], "give its glrt- token by --token"),
    ] {
        let said = scene.register(&arguments).await;
        assert_eq!(said.code, Some(1), "{}", said.err);
        assert!(said.err.contains(way_out), "{}", said.err);
    }
    let said = scene.register(&["--pat", scene.gitlab.personal_access_token(), "--maximum-timeout", "5"]).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("needs to be at least 10 minutes"), "{}", said.err);
    scene.gitlab.faults().add(Rule::new(Endpoint::Verify, Fault::Status(422)));
    let said = scene.register(&["--token", "glrt-orphan"]).await;
    assert!(said.code == Some(1) && said.err.contains("no project or group"), "{}", said.err);
    scene.gitlab.set_down(true).await;
    let said = scene.register(&["--token", "glrt-any"]).await;
    assert!(said.code == Some(2) && said.err.contains("cannot reach GitLab"), "{}", said.err);
    assert_eq!(scene.files(), [".runner_system_id"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_before_gitlab_is_asked() {
    let scene = Scene::start().await;
    scene.write("concurrent = \n[[runners]]\ntoken = \"glrt-secret\"\n");
    let said = scene.register(&["-r", scene.gitlab.registration_token()]).await;
    assert!(said.code == Some(2) && said.err.contains("config.toml:1: not valid TOML"), "{}", said.err);
    assert!(!said.err.contains("secret"), "{}", said.err);
    scene.write("[[runners]]\nname = \"dev\"\n");
    let said = scene.register(&["-r", scene.gitlab.registration_token(), "--name", "dev"]).await;
    assert!(said.code == Some(2) && said.err.contains("give this one another --name"), "{}", said.err);
    let nowhere = Scene::start().await;
    fs::write(nowhere.folder.path().join("etc"), "a file where the folder should be").expect("a file");
    let said = nowhere.register(&["-r", nowhere.gitlab.registration_token()]).await;
    assert!(said.code == Some(2) && said.err.contains("cannot"), "{}", said.err);
    assert_eq!(nowhere.asked("/runners"), 0);
    assert_eq!(scene.asked("/runners"), 0);
}

/// GitLab has made the runner and its answer is on the way: the moment in which everything can still go wrong.
async fn while_gitlab_answers(scene: &Scene, more: &[&str]) -> Child {
    scene.gitlab.faults().add(Rule::new(Endpoint::Register, Fault::Slow(Duration::from_secs(1))));
    let arguments = ["register", "-n", "--url", scene.gitlab.url(), "-r", scene.gitlab.registration_token()];
    let child = scene.spawn(&[&arguments[..], more].concat());
    let made = |gitlab: &Server| !gitlab.runners().is_empty();
    timeout(PATIENCE, scene.gitlab.wait_until(made)).await.expect("a runner");
    child
}

#[tokio::test]
async fn a_runner_that_cannot_be_written_down_is_deleted_again() {
    let scene = Scene::start().await;
    let child = while_gitlab_answers(&scene, &[]).await;
    scene.write("broken =");
    let said = said(child).await;
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("runner 1 was deleted in GitLab again"), "{}", said.err);
    assert!(said.err.contains("config.toml:1: not valid TOML"), "{}", said.err);
    assert_eq!((scene.gitlab.runners(), scene.text().as_str()), (vec![], "broken ="));
}

#[tokio::test]
async fn a_runner_is_left_in_gitlab_where_that_is_wanted() {
    let scene = Scene::start().await;
    let child = while_gitlab_answers(&scene, &["--leave-runner"]).await;
    scene.write("broken =");
    let said = said(child).await;
    assert!(said.code == Some(2) && said.err.contains("left in GitLab"), "{}", said.err);
    assert_eq!(scene.gitlab.runners().len(), 1);
}

#[tokio::test]
async fn ctrl_c_while_gitlab_answers_leaves_neither_runner_nor_entry() {
    let scene = Scene::start().await;
    let child = while_gitlab_answers(&scene, &[]).await;
    kill(Pid::from_raw(child.id().expect("it runs").cast_signed()), Signal::SIGINT).expect("a signal");
    let said = said(child).await;
    assert_eq!(said.code, Some(130), "{}", said.err);
    assert!(said.err.contains("runner 1 was deleted in GitLab again"), "{}", said.err);
    assert_eq!((scene.gitlab.runners(), scene.files()), (vec![], vec![".runner_system_id".to_owned()]));
}

#[tokio::test]
async fn without_a_terminal_everything_that_is_missing_is_told_at_once() {
    let scene = Scene::start().await;
    for arguments in [&["register"][..], &["register", "--non-interactive"]] {
        let said = scene.run(arguments).await;
        assert_eq!(said.code, Some(2));
        assert!(said.err.contains("--url (or CI_SERVER_URL)") && said.err.contains("--token (or CI_SERVER_TOKEN)"));
    }
    for (flag, reason) in [("--docker-image=ruby", "on Fargate only"), ("--cache-type", "--template-config")] {
        let said = scene.run(&["register", flag]).await;
        assert!(said.code == Some(2) && said.err.contains(reason) && said.err.lines().count() == 1, "{}", said.err);
    }
    let said = scene.register(&["--token", "glrt-x", "--executor", "docker"]).await;
    assert!(said.code == Some(2) && said.err.contains("not docker"), "{}", said.err);
    assert!(scene.files().is_empty());
}

#[tokio::test]
async fn on_a_terminal_what_is_missing_is_asked_for_and_the_token_is_not_shown() {
    let scene = Scene::start().await;
    let mut terminal = Terminal::start(&scene.arguments(&["register"]));
    for (question, answer) in [
        ("Address of GitLab", scene.gitlab.url()),
        ("Authentication token", scene.gitlab.registration_token()),
        ("Name of the runner [", "dev"),
        ("Tags", "dev,fargate"),
        ("ECS cluster", "ci-dev"),
        ("AWS region", ""),
        ("Subnets", "subnet-1, subnet-2"),
        ("Security groups", "sg-1"),
        ("Task definition", "ci-dev"),
    ] {
        terminal.until(question).await;
        terminal.answer(answer);
    }
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(scene.gitlab.registration_token()), "{shown}");
    assert!(shown.contains("takes it up at once"), "{shown}");
    let runner = scene.runner("dev");
    assert_eq!((runner.tags, runner.run_untagged), (vec!["dev".into(), "fargate".into()], false));
    let loaded = staffetta::config::load(&scene.config()).expect("a configuration without mistakes");
    assert_eq!(loaded.config.runners[0].fargate.subnets, ["subnet-1", "subnet-2"]);
}

#[tokio::test]
async fn ctrl_c_at_a_question_leaves_nothing() {
    let scene = Scene::start().await;
    let mut terminal = Terminal::start(&scene.arguments(&["register", "--url", scene.gitlab.url()]));
    terminal.until("Authentication token").await;
    terminal.until_echo(false).await;
    terminal.signal(Signal::SIGINT);
    terminal.until_echo(true).await;
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(130), "{shown}");
    assert_eq!((scene.files().len(), scene.gitlab.requests().len()), (0, 0));
}

#[tokio::test]
async fn verify_tells_valid_from_invalid_from_unknown_and_deletes_only_what_gitlab_does_not_know() {
    let scene = Scene::start().await;
    let url = scene.gitlab.url();
    let entry = |name: &str, token: &str| {
        format!("\n# {name}\n[[runners]]\nname = \"{name}\"\nurl = \"{url}\"\ntoken = \"{token}\"\n")
    };
    let good = scene.gitlab.register_runner("good", &[]);
    let (good, bad) = (entry("good", &good), entry("bad", "glrt-bad"));
    let away =
        "\n[[runners]]\nname = \"away\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"glrt-away\"\nexecutor = \"docker\"\n";
    let odd = "\n[[runners]]\nname = \"odd\"\nurl = \"ftp://h\"\ntoken = \"glrt-odd\"\n";
    scene.write(&format!("{odd}{good}{bad}{away}"));
    let said = scene.run(&["verify"]).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    let answers: Vec<_> = said.out.lines().map(|line| line.split("  ").last().expect("a column").trim()).collect();
    let [first, "valid", "not valid", last] = answers[..] else { panic!("{}", said.out) };
    assert!(first.starts_with("unknown: ") && last.starts_with("unknown: cannot reach"), "{}", said.out);
    scene.write(&format!("concurrent = 1\n{good}{bad}{away}"));
    assert!(scene.text().contains("bad"), "nothing is deleted unasked");
    assert_eq!(scene.run(&["verify", "--name", "good"]).await.code, Some(0));
    assert_eq!(scene.run(&["verify", "--name", "away", "--delete"]).await.code, Some(2));
    assert_eq!(scene.run(&["verify", "--url", url, "--token", "glrt-bad"]).await.code, Some(1));
    let said = scene.run(&["verify", "--name", "wrong"]).await;
    assert!(said.code == Some(2) && said.err.contains("good, bad, away"), "{}", said.err);

    let said = scene.run(&["verify", "--delete"]).await;
    assert_eq!(said.code, Some(2), "one is still unknown: {}", said.out);
    assert_eq!(scene.text(), format!("concurrent = 1\n{good}{away}"));
}

#[tokio::test]
async fn unregister_deletes_an_old_runner_and_of_a_new_one_only_its_manager() {
    let scene = Scene::start().await;
    let token = scene.gitlab.register_runner("new", &[]);
    for arguments in [["-r", scene.gitlab.registration_token(), "--name", "old"], ["-t", &token, "--name", "new"]] {
        assert_eq!(scene.register(&arguments).await.code, Some(0));
    }
    let gone = "\n[[runners]]\nname = \"gone\"\ntoken = \"glrt-gone\"\nurl = \"";
    // It cannot be asked about, and is no reason not to let the others go.
    let odd = "\n[[runners]]\nname = \"odd\"\ntoken = \"glrt-odd\"\nurl = \"ftp://h\"\n";
    scene.write(&format!("{}{odd}{gone}{}\"\n", scene.text(), scene.gitlab.url()));
    assert_eq!(scene.runner("new").managers.len(), 1);
    let said = scene.run(&["unregister"]).await;
    assert!(said.code == Some(2) && said.err.contains("--all-runners"), "{}", said.err);

    let said = scene.run(&["unregister", "--all-runners"]).await;
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(
        said.err.contains("odd stays: ") && said.err.contains("gone stays: GitLab does not know its token"),
        "{}",
        said.err
    );
    let left: Vec<_> = scene.gitlab.runners().into_iter().map(|runner| (runner.description, runner.managers)).collect();
    assert_eq!(left, [("new".to_owned(), vec![])]);
    assert!(scene.text().contains("\"gone\"") && scene.text().matches("[[runners]]").count() == 2, "{}", scene.text());

    scene.gitlab.set_down(true).await;
    let said = scene.run(&["unregister", "--name", "gone"]).await;
    assert!(said.code == Some(2) && scene.text().contains("glrt-gone"), "{}", said.err);
}

#[tokio::test]
async fn list_shows_every_entry_and_no_token() {
    let scene = Scene::start().await;
    let said = scene.run(&["list"]).await;
    assert!(said.code == Some(2) && said.err.contains("staffetta register"), "{}", said.err);
    scene.write(
        "[[runners]]\nname = \"dev\"\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-t1_abcdefghijklmnop\"\n\
         executor = \"docker\"\nid = 7\ntoken_expires_at = 2031-01-01T00:00:00Z\n",
    );
    let said = scene.run(&["list"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "dev  docker  abcdefghi  https://gitlab.example.com\n"));
    let said = scene.run(&["list", "--json"]).await;
    let list: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let expected = serde_json::json!([{
        "name": "dev", "executor": "docker", "url": "https://gitlab.example.com", "id": 7, "token": "abcdefghi",
        "token_expires_at": "2031-01-01T00:00:00Z"
    }]);
    assert_eq!(list, expected);
}

#[tokio::test]
async fn a_reset_token_is_in_the_file_and_good() {
    let scene = Scene::start().await;
    let token = scene.gitlab.register_runner("dev", &[]);
    assert_eq!(scene.register(&["-t", &token, "--name", "dev"]).await.code, Some(0));
    let before = scene.text();
    let said = scene.run(&["reset-token", "--name", "dev"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let renewed = scene.runner("dev").token;
    assert!(renewed != token && !said.out.contains(&renewed), "{}", said.out);
    assert_eq!(scene.text().lines().count(), before.lines().count());
    assert_eq!(scene.run(&["verify"]).await.code, Some(0));

    // The runner's own token is lost: its owner has another way.
    scene.write(&scene.text().replace(&renewed, "glrt-lost"));
    let said = scene.run(&["reset-token", "--name", "dev"]).await;
    assert!(said.code == Some(1) && said.err.contains("does not accept the token"), "{}", said.err);
    let by_id = ["reset-token", "--url", scene.gitlab.url(), "--id", "1"];
    let said = scene.run(&[&by_id[..], &["--pat", scene.gitlab.personal_access_token()]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(scene.run(&["verify"]).await.code, Some(0));
    scene.write(&scene.text().replace(&scene.runner("dev").token, "glrt-lost"));
    let reset = Command::new(program("staffetta"))
        .args(scene.arguments(&by_id))
        .env_clear()
        .env("GITLAB_PERSONAL_ACCESS_TOKEN", scene.gitlab.personal_access_token())
        .stdout(Stdio::null())
        .status();
    assert!(reset.await.expect("a status").success());
    assert_eq!(scene.run(&["verify"]).await.code, Some(0));

    scene.write(&scene.text().replace(&scene.runner("dev").token, "$DEV_TOKEN"));
    let said = scene.run(&["reset-token", "--all-runners"]).await;
    assert!(said.code == Some(2) && said.err.contains("in the environment"), "{}", said.err);
}
