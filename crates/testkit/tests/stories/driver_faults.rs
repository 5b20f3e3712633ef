//! What goes wrong around the driver: each fault has a sentence, and is never taken for the script's.

use std::path::PathBuf;
use std::time::Duration;

use embedded::fargate::{Delays, TaskFault};
use testkit::driver::{Driver, DriverJob, SYSTEM_FAILURE};
use testkit::program;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_ecs_toml_is_told_at_once_and_no_task_is_started() {
    let driver = Driver::start().await;
    driver.write(
        "LogLevel = \"loud\"\n[Fargate]\nRegion = \"eu-west-1\"\nSubnett = \"subnet-1\"\n[SSH]\nPort = \"22\"\n",
    );
    let job = driver.job(&[]);
    for call in ["config", "prepare", "cleanup"] {
        let ended = job.call(&[call]).await.failed(SYSTEM_FAILURE, "ecs.toml:1: `LogLevel` must be one of");
        for mistake in ["did you mean `Subnet`?", "`Fargate.Cluster` ", "`SSH.Port` must be "] {
            assert!(ended.stderr.contains(mistake), "{mistake}: {ended:?}");
        }
    }
    driver.write("[Fargate]\nCluster = ");
    job.prepare().await.failed(SYSTEM_FAILURE, "not valid TOML");
    std::fs::remove_file(driver.ecs_toml()).expect("ecs.toml");
    job.prepare().await.failed(SYSTEM_FAILURE, "cannot be read: No such file");
    assert!(driver.fargate.tasks().is_empty());
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_directory_that_cannot_be_used_is_told_before_a_task_is_paid_for() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    driver.configure("", "Directory = \"/dev/null/metadata\"", "");
    job.prepare().await.failed(SYSTEM_FAILURE, "`Directory` in [TaskMetadata] of ecs.toml must be a folder");
    driver.configure("", "# no directory", "");
    job.call(&["config"]).await.failed(SYSTEM_FAILURE, "`TaskMetadata.Directory` is missing");
    job.prepare().await.failed(SYSTEM_FAILURE, "`TaskMetadata.Directory` is missing");
    assert!(driver.fargate.tasks().is_empty());
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_without_a_task_is_told_what_is_missing() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.run("true").await.failed(SYSTEM_FAILURE, "nothing is known of a task for job 1");
    driver.end().await;
}

/// Seconds after ECS has told the task's address, as at AWS.
#[tokio::test(flavor = "multi_thread")]
async fn an_sshd_that_answers_late_is_waited_for() {
    let driver = Driver::start().await;
    driver.register("late", &[], "sleep 3").await;
    let job = driver.job(&[("FARGATE_TASK_DEFINITION", "late")]);
    job.prepare().await.succeeded();
    job.run("true").await.succeeded();
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_take_the_key_is_told_so_and_its_task_is_stopped() {
    let driver = Driver::start().await;
    driver.register("wrong-key", &[], "SSH_PUBLIC_KEY='ssh-ed25519 AAAA nobody'").await;
    let job = driver.job(&[("FARGATE_TASK_DEFINITION", "wrong-key")]);
    job.prepare().await.failed(SYSTEM_FAILURE, "the image must write the variable SSH_PUBLIC_KEY to that user's");
    driver.idle().await;
    job.cleanup().await.succeeded();
    driver.end().await;
}

/// Every script would seem to fail by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_cannot_run_commands_is_found_before_the_first_script() {
    let driver = Driver::start().await;
    if !driver.is_isolated() {
        return;
    }
    let nologin = "sed -i 's|^root:\\(.*\\):[^:]*$|root:\\1:/usr/sbin/nologin|' /etc/passwd";
    driver.register("nologin", &[], nologin).await;
    let job = driver.job(&[("FARGATE_TASK_DEFINITION", "nologin")]);
    let prepared = job.prepare().await.failed(SYSTEM_FAILURE, "the user root of the task's image cannot run commands");
    assert!(prepared.stderr.contains("This account is currently not available"), "{prepared:?}");
    driver.idle().await;
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_host_key_changes_is_not_given_another_script() {
    let driver = Driver::start().await;
    if !driver.is_isolated() {
        return;
    }
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    // sshd reads its host key anew with SIGHUP.
    job.run(
        "set -e; key=$(tr '\\0' ' ' < /proc/1/cmdline | sed -n 's/.*HostKey=\\([^ ]*\\).*/\\1/p'); rm $key
         ssh-keygen -q -t ed25519 -N '' -f $key; kill -HUP 1",
    )
    .await
    .succeeded();
    let script = "echo this must not run";
    let mut ran = job.run(script).await;
    // Until sshd has started itself anew, it has its old key.
    for _ in 0..100 {
        if ran.code == Some(0) {
            ran = job.run(script).await;
        }
    }
    let ran = ran.failed(SYSTEM_FAILURE, "the task's host key changed from SHA256:");
    assert_eq!(ran.stdout, "");
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_under_a_script_is_a_system_failure() {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let mut child =
        job.spawn_run("echo before; until [ -e $HOME/go-on ]; do sleep 0.05; done; kill -9 $PPID; sleep 1000");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("before"));
    job.run("touch $HOME/go-on").await.succeeded();
    let ran = DriverJob::ended(child).await.failed(SYSTEM_FAILURE, "the connection to the task was lost");
    assert!(ran.stderr.contains("the task itself still runs"), "{ran:?}");
    assert_eq!(job.exit_code_file(), None);
    job.cleanup().await.succeeded();
    driver.end().await;
}

/// A task that dies under a script: what ECS knows of it stands in the log.
async fn dies(fault: impl Fn(&Driver, &str), reason: &str) {
    let driver = Driver::start().await;
    let job = driver.job(&[]);
    job.prepare().await.succeeded();
    let mut child = job.spawn_run("echo ready; sleep 1000");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("ready"));
    fault(&driver, &driver.fargate.tasks()[0].arn);
    DriverJob::ended(child).await.failed(SYSTEM_FAILURE, reason);
    assert_eq!(job.exit_code_file(), None);
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_runs_out_of_memory_is_called_by_that_name() {
    dies(|driver, arn| driver.fargate.out_of_memory(arn), "OutOfMemoryError").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spot_interruption_is_called_by_that_name() {
    dies(|driver, arn| driver.fargate.interrupt_task(arn, Duration::ZERO), "Spot").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_is_called_by_that_name() {
    dies(|driver, arn| driver.fargate.kill_host(arn), "The machine of the task failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_told_with_the_fix() {
    let driver = Driver::start().await;
    driver.fargate.faults().on_task(1, TaskFault::CannotPull);
    let job = driver.job(&[]);
    job.prepare().await.failed(SYSTEM_FAILURE, "CannotPullContainerError");
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_reached_in_time_is_stopped() {
    let delays = Delays { pull: Duration::from_secs(3600), ..Delays::default() };
    let config = embedded::fargate::Config {
        clusters: vec!["ci".into()],
        delays,
        ..embedded::fargate::Config::new(program("staffetta-agent"))
    };
    let driver = Driver::with(config).await;
    driver.configure("StartTimeout = \"2s\"", "", "");
    let job = driver.job(&[]);
    job.prepare().await.failed(SYSTEM_FAILURE, "did not become reachable within");
    driver.idle().await;
    job.cleanup().await.succeeded();
    driver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cluster_of_that_name_and_an_ecs_that_is_not_there_are_told() {
    let driver = Driver::start().await;
    let text = std::fs::read_to_string(driver.ecs_toml()).expect("ecs.toml");
    driver.write(&text.replace("Cluster = \"ci\"", "Cluster = \"ci-dve\""));
    let job = driver.job(&[]);
    // Each try tells the reason, and leaves nothing to look for.
    for _ in 0..2 {
        let prepared = job.prepare().await.failed(SYSTEM_FAILURE, "ClusterNotFoundException");
        assert!(!prepared.stdout.contains("An earlier try"), "{prepared:?}");
        assert_eq!(driver.metadata_files(), Vec::<PathBuf>::new());
        job.cleanup().await.succeeded();
    }
    driver.write(&text);
    let mut job = driver.job(&[]);
    job.set("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    driver.configure("StartTimeout = \"2s\"", "", "");
    job.prepare().await.failed(SYSTEM_FAILURE, "Check the manager's way to the ECS endpoint");
    // Nobody can say that no call arrived.
    assert_eq!(driver.metadata_files().len(), 1);
    std::fs::remove_dir_all(driver.metadata()).expect("the metadata");
    driver.end().await;
}
