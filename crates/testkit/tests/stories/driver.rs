//! The Fargate driver under GitLab's runner: what its four commands do, and what they leave.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use embedded::fargate::{CallFault, Delays};
use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::driver::{BUILD_FAILURE, Driver, DriverJob, SYSTEM_FAILURE, signal};
use testkit::program;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn the_four_commands_run_a_script_in_a_task() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);

    let config = job.call(&["config"]).await.succeeded();
    let answer: Value = serde_json::from_str(&config.stdout).expect("JSON");
    assert_eq!(answer["driver"]["name"], "Staffetta");
    assert!(answer["hostname"].as_str().is_some_and(|name| name.starts_with("abcdefghi-")), "{answer}");
    assert_eq!(config.stderr, "");

    let prepared = job.prepare().await.succeeded();
    for line in ["Waiting for a Fargate task (staffetta-sshd) in cluster ci", "  RunTask accepted: ", " answers after "]
    {
        assert!(prepared.stdout.contains(line), "{prepared:?}");
    }
    let files = driver.metadata_files();
    assert_eq!(files.len(), 1);
    assert_eq!(std::fs::metadata(&files[0]).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(driver.metadata()).expect("a folder").permissions().mode() & 0o777, 0o700);

    let ran = job.run("echo to the log; echo and there >&2; cat /proc/self/comm").await.succeeded();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("to the log\ncat\n", "and there\n"));
    assert!(job.exit_code_file().is_none());
    // Files of the task live from one stage to the next.
    job.run("echo kept > $HOME/kept").await.succeeded();
    assert_eq!(job.run("cat $HOME/kept").await.succeeded().stdout, "kept\n");

    let tasks = driver.fargate.tasks();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].environment["STAFFETTA_JOB"], job.id.to_string());
    assert_eq!(tasks[0].started_by.as_deref(), Some("staffetta-driver/abcdefghi"));
    assert!(tasks[0].environment["SSH_PUBLIC_KEY"].starts_with("ssh-ed25519 "));

    job.cleanup().await.succeeded();
    // Nothing is left to do.
    job.cleanup().await.succeeded();
    assert_eq!(driver.fargate.calls()["RunTask"], 1);
    driver.end().await;
}

/// In place of GitLab's driver's file, under its name.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_under_the_name_fargate_and_with_the_short_names_of_its_commands() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let fargate = folder.path().join("fargate");
    std::os::unix::fs::symlink(program("staffetta"), &fargate).expect("a link");
    let script = job.script("exit 0");
    let script = script.to_str().expect("UTF-8");
    for arguments in [&["c", "co"][..], &["custom", "p"], &["c", "r", script, "prepare_script"], &["custom", "cl"]] {
        let mut call = tokio::process::Command::new(&fargate);
        call.arg("--config").arg(driver.ecs_toml()).args(arguments).envs(job.environment()).process_group(0);
        let output = call.output().await.expect("the driver");
        assert!(output.status.success(), "{arguments:?} {output:?}");
    }
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_of_a_script_is_a_build_failure_and_kept_for_allow_failure() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    for code in [1, 7, 137, 255] {
        let ran = job.run(&format!("echo before; exit {code}; echo after")).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(BUILD_FAILURE), "before\n"), "{ran:?}");
        assert_eq!(job.exit_code_file(), Some(code.to_string()));
    }
    // Killed by a signal, as a shell would tell it.
    job.run("kill -9 $$").await.failed(BUILD_FAILURE, "");
    assert_eq!(job.exit_code_file(), Some("137".to_owned()));
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_comes_while_the_script_runs() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let mut child = job.spawn_run("echo first; until [ -e $HOME/go-on ]; do sleep 0.05; done; echo second");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("first"));
    job.run("touch $HOME/go-on").await.succeeded();
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("second"));
    DriverJob::ended(child).await.succeeded();
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_may_print_a_hundred_megabytes() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let mut child = job.spawn_run("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo the end");
    let mut stdout = child.stdout.take().expect("a pipe");
    let (mut count, mut last, mut buffer) = (0, Vec::new(), vec![0; 1 << 16]);
    loop {
        let read = stdout.read(&mut buffer).await.expect("output");
        if read == 0 {
            break;
        }
        count += read;
        last = buffer[..read].to_vec();
    }
    DriverJob::ended(child).await.succeeded();
    assert_eq!(count, 100_000_000 + "\nthe end\n".len());
    assert!(last.ends_with(b"the end\n"));
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_a_script_leaves_behind_do_not_hold_its_stage() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    assert_eq!(job.run("sleep 1000 & echo started").await.succeeded().stdout, "started\n");
    job.run("sleep 1000 & exit 3").await.failed(BUILD_FAILURE, "");
    assert_eq!(job.exit_code_file(), Some("3".to_owned()));
    job.cleanup().await.succeeded();
    driver.end().await;
}

/// sshd starts its sessions with an environment of their own: without help, the AWS CLI finds no credentials.
#[tokio::test(flavor = "multi_thread")]
async fn the_task_role_reaches_the_script() {
    let driver = Driver::start().await;
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/0a1b"),
        ("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/it's a \"$HOME\" `id`"),
    ];
    driver.register("with-role", &environment, "").await;
    let job = driver.job(&[("FARGATE_TASK_DEFINITION", "with-role")]);
    job.prepare().await.succeeded();
    let ran =
        job.run("echo \"$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI\"; echo \"$ECS_CONTAINER_METADATA_URI_V4\"").await;
    assert_eq!(ran.succeeded().stdout, format!("{}\n{}\n", environment[0].1, environment[1].1));
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_jobs_at_once_have_a_task_each() {
    let driver = Driver::start().await;
    let jobs: Vec<_> = (0..50).map(|_| driver.job(&[])).collect();
    let prepared: Vec<_> = jobs.iter().map(|job| job.spawn(&["prepare"])).collect();
    for child in prepared {
        DriverJob::ended(child).await.succeeded();
    }
    let ran: Vec<_> = jobs.iter().map(|job| (job.id, job.spawn_run(&format!("echo job {}", job.id)))).collect();
    for (id, child) in ran {
        assert_eq!(DriverJob::ended(child).await.succeeded().stdout, format!("job {id}\n"));
    }
    assert_eq!(driver.metadata_files().len(), 50);
    let cleaned: Vec<_> = jobs.iter().map(|job| job.spawn(&["cleanup"])).collect();
    for child in cleaned {
        DriverJob::ended(child).await.succeeded();
    }
    assert_eq!(driver.fargate.tasks().len(), 50);
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_chooses_among_the_task_definitions_that_its_runner_allows() {
    let driver = Driver::start().await;
    driver.configure("AllowedTaskDefinitions = [\"node-*\"]", "", "");
    driver.register("node-22", &[], "").await;
    let job = driver.job(&[("VERSION", "22"), ("FARGATE_TASK_DEFINITION", "node-$VERSION")]);
    job.prepare().await.succeeded();
    assert!(driver.fargate.tasks()[0].task_definition.contains("node-22"), "{:?}", driver.fargate.tasks());
    job.cleanup().await.succeeded();

    let job = driver.job(&[("FARGATE_TASK_DEFINITION", "production")]);
    // Final, for another try would not be allowed either; and the job's author is who can mend it.
    job.prepare().await.failed(BUILD_FAILURE, "does not allow the task definition \"production\"; it allows node-*");
    // A flag in config.toml is not the job's.
    let prepared = job.call(&["prepare", "--task-def", "staffetta-sshd"]).await.succeeded();
    assert!(prepared.stdout.contains("(staffetta-sshd)"), "{prepared:?}");
    job.cleanup().await.succeeded();
    assert_eq!(driver.fargate.calls()["RunTask"], 2);
    driver.end().await;
}

/// Every variable of a job is in the driver's environment under `CUSTOM_ENV_`: none of them moves it elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_cannot_point_the_driver_at_another_cluster_or_role() {
    let driver = Driver::start().await;
    driver.configure("AllowedRoles = [\"arn:aws:iam::000000000000:role/ci-*\"]", "", "");
    let mut job = driver.job(&[
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "of-the-job"),
        ("AWS_REGION", "eu-south-1"),
        ("CLUSTER", "other"),
        ("FARGATE_CLUSTER", "other"),
        ("CONFIG_FILE", "/dev/null"),
        ("JOB_RESPONSE_FILE", "/dev/null"),
        ("BUILD_FAILURE_EXIT_CODE", "0"),
        ("SYSTEM_FAILURE_EXIT_CODE", "0"),
        ("CI_JOB_ID", "4711"),
        ("CI_RUNNER_SHORT_TOKEN", "../../etc/cron.d/x"),
    ]);
    // As a runner hands on what the job says.
    job.set("CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN", "../../etc/cron.d/x");
    job.prepare().await.succeeded();
    let tasks = driver.fargate.tasks();
    assert!(tasks[0].arn.contains(":task/ci/"), "{tasks:?}");
    assert_eq!(tasks[0].environment["STAFFETTA_JOB"], job.id.to_string(), "what GitLab sent counts");
    let name = driver.metadata_files()[0].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("unknown-"), "{name}");
    job.cleanup().await.succeeded();

    // GitLab sent no such variable, so what stands in the environment is not the job's: the runner's own word.
    let mut job = driver.job(&[("FARGATE_TASK_DEFINITION", "staffetta-sshd")]);
    job.set("CUSTOM_ENV_FARGATE_TASK_DEFINITION", "production");
    job.prepare().await.succeeded();
    job.cleanup().await.succeeded();

    let job = driver.job(&[("ROLE_ARN", "arn:aws:iam::000000000000:role/admin")]);
    job.prepare().await.failed(BUILD_FAILURE, "does not allow the role \"arn:aws:iam::000000000000:role/admin\"");
    assert_eq!(driver.fargate.calls()["RunTask"], 2);
    // Nor is it taken to look for what it never started.
    job.cleanup().await.succeeded();
    assert_eq!(driver.fargate.calls().get("AssumeRole"), None);
    driver.end().await;
}

/// `ROLE_ARN` and `SESSION_VARS`: the calls for this job are made as that role, to the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_job_makes_its_calls() {
    let driver = Driver::start().await;
    let role = "arn:aws:iam::000000000000:role/ci-dev";
    let job = driver.job(&[("ROLE_ARN", role), ("SESSION_VARS", "TEAM, CI_JOB_ID,NOT_SET"), ("TEAM", "web")]);
    job.prepare().await.succeeded();
    let session = driver.fargate.tasks().remove(0).role_session.expect("a role");
    assert_eq!(session.role, role);
    assert_eq!(
        session.tags,
        [("TEAM".to_owned(), "web".to_owned()), ("CI_JOB_ID".to_owned(), job.id.to_string())].into()
    );
    job.run("true").await.succeeded();
    job.cleanup().await.succeeded();
    assert_eq!(driver.fargate.calls()["AssumeRole"], 2);
    // The sweep at the end of `cleanup` is the manager's own.
    assert_eq!(driver.fargate.calls()["ListTasks"], 1);
    driver.end().await;
}

/// The file that the driver leaves is GitLab's driver's with more in it; and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_gitlabs_driver_prepared_is_cleaned_up() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let file = &driver.metadata_files()[0];
    // abcdefghi-SHA256("https://gitlab.example.com/acme/app-1-1").json, as GitLab's driver names it.
    let name = format!("abcdefghi-{HASH}.json");
    assert_eq!(file.file_name().expect("a name").to_string_lossy(), name);
    let ours: Value = serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
    let theirs = serde_json::json!({
        "TaskARN": ours["TaskARN"], "ContainerIP": ours["ContainerIP"], "PrivateKey": ours["PrivateKey"]
    });
    std::fs::write(file, theirs.to_string()).expect("a file");
    job.run("echo still here").await.succeeded();
    // Once seen, the task's host key is pinned.
    assert!(std::fs::read_to_string(file).expect("a file").contains("\"HostKey\":\"ssh-ed25519 "));
    job.cleanup().await.succeeded();
    driver.end().await;
}

/// `printf 'https://gitlab.example.com/acme/app-1-1' | sha256sum`
const HASH: &str = "35ace0ac3fd78ab04b189f3432551e9039b9e43aff99d01eb0a3b440063bee17";

#[tokio::test(flavor = "multi_thread")]
async fn without_room_the_next_provider_and_subnet_are_tried() {
    let driver = Driver::start().await;
    driver.configure("Subnets = [\"subnet-2\"]\nCapacityProviders = [\"FARGATE_SPOT\", \"FARGATE\"]", "", "");
    driver.fargate.faults().on_call("RunTask", 2, CallFault::CapacityUnavailable);
    let job = driver.job(&[]);
    let prepared = job.prepare().await.succeeded();
    assert!(prepared.stdout.contains("no room in FARGATE_SPOT"), "{prepared:?}");
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_is_told_phase_by_phase() {
    let second = std::time::Duration::from_millis(700);
    let delays = Delays { provisioning: second, pull: second, ..Delays::default() };
    let config = embedded::fargate::Config {
        clusters: vec!["ci".into()],
        delays,
        ..embedded::fargate::Config::new(program("staffetta-agent"))
    };
    let driver = Driver::with(config).await;
    let job = driver.job(&[]);
    let prepared = job.prepare().await.succeeded();
    for phase in ["  network interface: 0.", "  machine: ", " answers after "] {
        assert!(prepared.stdout.contains(phase), "{prepared:?}");
    }
    job.run("echo hello").await.succeeded();
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_script_in_the_task() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let mut child =
        job.spawn_run("trap 'echo cleaning up; touch $HOME/ended; exit 1' TERM; echo ready; sleep 1000 & wait");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("ready"));
    signal(&child, Signal::SIGTERM);
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("cleaning up"));
    DriverJob::ended(child).await.failed(SYSTEM_FAILURE, "told to stop");
    job.run("test -e $HOME/ended").await.succeeded();
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_ignores_the_cancel_is_killed() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let mut child = job.spawn_run("trap '' TERM; echo $$; while :; do sleep 0.1; done");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let pid = lines.next_line().await.expect("a line").expect("a line");
    signal(&child, Signal::SIGTERM);
    DriverJob::ended(child).await.failed(SYSTEM_FAILURE, "told to stop");
    job.run(&format!("! kill -0 {pid}")).await.succeeded();
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_runners_that_write_no_payload_are_served() {
    let driver = Driver::start().await;
    let mut job = driver.job(&[]);
    job.without_payload();
    job.prepare().await.succeeded();
    assert_eq!(driver.fargate.tasks()[0].environment["STAFFETTA_JOB"], job.id.to_string());
    job.cleanup().await.succeeded();
    job.set("JOB_RESPONSE_FILE", "/nonexistent");
    job.prepare().await.failed(SYSTEM_FAILURE, "JOB_RESPONSE_FILE /nonexistent cannot be read");
    assert_eq!(driver.metadata_files(), Vec::<PathBuf>::new());
    driver.end().await;
}
