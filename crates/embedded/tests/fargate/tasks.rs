//! Tasks that really run: their states, their processes, what goes wrong with them, and that nothing is left.

use std::process::Stdio;
use std::time::Duration;

use crate::support::*;
use embedded::fargate::{Delays, EngineMode, Stuck, TaskFault, TaskView};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const TICK: Duration = Duration::from_millis(30);

#[tokio::test]
async fn a_task_walks_through_the_states_of_ecs() {
    let delays = Delays { provisioning: TICK, pending: TICK, pull: TICK, report: TICK, deprovisioning: TICK };
    let (server, _agent) = server(EngineMode::Auto, |config| config.delays = delays).await;
    let arn = run_script(&server, "sleep 0.1; exit 3").await;

    let mut seen: Vec<String> = Vec::new();
    let note = |tasks: &[TaskView]| {
        if seen.last() != Some(&tasks[0].last_status) {
            seen.push(tasks[0].last_status.clone());
        }
        tasks[0].last_status == "STOPPED"
    };
    server.wait_for(SOON, note).await.unwrap();
    // The two states in between may be over before anybody looks.
    seen.retain(|status| status != "DEACTIVATING" && status != "STOPPING");
    let expected = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEPROVISIONING", "STOPPED"];
    assert_eq!(seen, expected);

    let task = describe(&server, &arn).await;
    assert_eq!(task["version"], 6);
    assert_eq!(task["desiredStatus"], "STOPPED");
    assert_eq!(task["stopCode"], "EssentialContainerExited");
    assert_eq!(task["stoppedReason"], "Essential container in task exited");
    assert_eq!(task["containers"][0]["exitCode"], 3);
    assert_eq!(task["containers"][0]["lastStatus"], "STOPPED");
    let moments = [
        "createdAt",
        "connectivityAt",
        "pullStartedAt",
        "pullStoppedAt",
        "startedAt",
        "stoppingAt",
        "executionStoppedAt",
        "stoppedAt",
    ];
    let moments = moments.map(|name| task[name].as_f64().unwrap_or_else(|| panic!("no {name} in {task}")));
    assert!(moments[0] > 1.7e9 && moments[4] - moments[0] >= 0.12, "{moments:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_running_task_shows_its_network_interface() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;
    let arn = run_script(&server, "echo listen on $STAFFETTA_LISTEN; sleep 86400").await;
    let address = until(&server, &arn, "RUNNING").await.address.unwrap().to_string();
    until_printed(&server, &arn, &format!("listen on {address}:{}\n", server.ssh_port())).await;

    let task = describe(&server, &arn).await;
    let attachment = &task["attachments"][0];
    assert_eq!(attachment["type"], "ElasticNetworkInterface");
    assert_eq!(attachment["status"], "ATTACHED");
    let names: Vec<_> = attachment["details"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    let all = ["subnetId", "networkInterfaceId", "macAddress", "privateDnsName", "privateIPv4Address"];
    assert_eq!(names, all);
    assert_eq!(attachment["details"][0]["value"], "subnet-1");
    assert_eq!(attachment["details"][4]["value"], *address);
    let interface = &task["containers"][0]["networkInterfaces"][0];
    assert_eq!(interface["privateIpv4Address"], *address);
    assert_eq!(interface["attachmentId"], attachment["id"]);
    server.shutdown().await;
}

#[tokio::test]
async fn the_agent_is_started_as_the_image_says() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let says = match engine {
            EngineMode::ProcessGroup => "process groups: tasks share this machine's files and processes",
            _ => "namespaces: each task sees this machine's files copy-on-write",
        };
        assert!(server.engine().starts_with(says), "{}", server.engine());
        let arn = arn_of(&must(&server, "RunTask", run_request()).await);
        until_printed(&server, &arn, "agent serve\n").await;
        server.shutdown().await;
    }
}

#[tokio::test]
async fn the_end_of_the_first_process_ends_its_children() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let marker = format!("86{}", rand::random_range(100_000..999_999));
        let script =
            format!("setsid sleep {marker} & setsid sh -c 'sleep {marker} & sleep {marker}' & sleep 0.1; exit 5");
        let arn = run_script(&server, &script).await;
        assert_eq!(until(&server, &arn, "STOPPED").await.exit_code, Some(5), "{engine:?}");
        assert!(processes_with(&marker).is_empty(), "{engine:?}");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_task_killed_by_a_signal_exits_with_128_and_the_signal() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        // The first process of a namespace cannot kill itself, so a child of it does, and its shell tells.
        let arn = run_script(&server, "sh -c 'kill -9 $$'; exit $?").await;
        assert_eq!(until(&server, &arn, "STOPPED").await.exit_code, Some(137), "{engine:?}");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn files_of_a_task_are_seen_by_no_other_task_and_not_outside() {
    if !nix::unistd::geteuid().is_root() {
        return; // Process groups share the machine's files, and the engine says so.
    }
    let (server, _agent) = server(EngineMode::Namespaces, |_| {}).await;
    let name = format!("staffetta-test-{}", rand::random::<u32>());
    let write =
        format!("for d in /etc /root /tmp /var/tmp /run /dev/shm; do echo mine > $d/{name}; done; rm -f /etc/passwd");
    let read = format!("cat /etc/{name} /root/{name} /tmp/{name} /var/tmp/{name} /run/{name} /dev/shm/{name}");
    let first = run_script(&server, &format!("{write}; {read}; echo written; sleep 86400")).await;
    assert_eq!(until_printed(&server, &first, "written").await.matches("mine").count(), 6);
    let second = run_script(&server, &format!("{read}; test -s /etc/passwd && exit 9")).await;
    assert_eq!(until(&server, &second, "STOPPED").await.exit_code, Some(9));
    let log = String::from_utf8(server.task_log(&second).unwrap()).unwrap();
    assert_eq!(log.matches("No such file").count(), 6, "{log}");
    assert!(
        ["/etc", "/root", "/tmp", "/var/tmp", "/run", "/dev/shm"]
            .iter()
            .all(|d| !std::path::Path::new(d).join(&name).exists())
    );
    assert!(std::path::Path::new("/etc/passwd").exists());
    server.shutdown().await;
}

#[tokio::test]
async fn a_task_in_namespaces_sees_only_its_own_processes_and_a_working_system() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (server, _agent) = server(EngineMode::Namespaces, |_| {}).await;
    let script = "echo pid $$; ls -d /proc/[0-9]* | wc -l; test -s /etc/resolv.conf && echo resolver; \
                  echo x > /dev/null && test -r /dev/urandom && echo devices; \
                  touch /sys/x 2>/dev/null || echo sys is read-only; \
                  test -x /usr/local/bin/staffetta-agent && echo the agent is there; \
                  echo x 2>/dev/null > /usr/local/bin/staffetta-agent || echo and cannot be changed";
    let arn = run_script(&server, script).await;
    until(&server, &arn, "STOPPED").await;
    let log = String::from_utf8(server.task_log(&arn).unwrap()).unwrap();
    assert!(log.starts_with("pid 1\n"), "{log}");
    for line in ["resolver", "devices", "sys is read-only", "the agent is there", "and cannot be changed"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_task_sees_the_root_directory_that_was_given() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let copy =
        "for f in /bin/sh $(ldd /bin/sh | grep -o '/[^ ]*'); do mkdir -p \"$0$(dirname $f)\"; cp -L $f \"$0$f\"; done";
    let copied = Command::new("sh").arg("-c").arg(copy).arg(root.path()).status().await.unwrap();
    assert!(copied.success());
    std::fs::write(root.path().join("only-here"), "from the given root\n").unwrap();
    let path = root.path().to_owned();
    let (server, _agent) = server(EngineMode::Auto, |config| config.root = Some(path)).await;
    let script = "read line < /only-here; echo \"$line\"; echo changed > /only-here; test -e /usr/bin/env || echo and nothing else";
    let arn = run_script(&server, script).await;
    until(&server, &arn, "STOPPED").await;
    assert_eq!(String::from_utf8(server.task_log(&arn).unwrap()).unwrap(), "from the given root\nand nothing else\n");
    assert_eq!(std::fs::read_to_string(root.path().join("only-here")).unwrap(), "from the given root\n");
    server.shutdown().await;
}

#[tokio::test]
async fn stop_task_lets_the_first_process_end_in_its_own_way() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let arn = run_script(&server, "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done").await;
        until_printed(&server, &arn, "ready").await;
        let stop = json!({"cluster": "default", "task": arn, "reason": "job cancelled"});
        let answer = must(&server, "StopTask", stop).await["task"].clone();
        assert_eq!(answer["desiredStatus"], "STOPPED");
        assert_ne!(answer["lastStatus"], "STOPPED");
        let task = until(&server, &arn, "STOPPED").await;
        assert_eq!(task.exit_code, Some(4), "{engine:?}");
        assert_eq!(task.stop_code.as_deref(), Some("UserInitiated"));
        assert_eq!(task.stopped_reason.as_deref(), Some("job cancelled"));
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_after_its_stop_timeout() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let container = json!({"name": "ci-coordinator", "image": "staffetta/agent", "stopTimeout": 1,
            "command": ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]});
        must(&server, "RegisterTaskDefinition", definition("stubborn", json!([container]))).await;
        let mut request = run_request();
        request["taskDefinition"] = json!("stubborn");
        let arn = arn_of(&must(&server, "RunTask", request).await);
        until_printed(&server, &arn, "ready").await;
        must(&server, "StopTask", json!({"cluster": "default", "task": arn})).await;
        assert_eq!(until(&server, &arn, "STOPPED").await.exit_code, Some(137));
        server.shutdown().await;
    }
}

fn definition(family: &str, containers: Value) -> Value {
    json!({"family": family, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256",
        "memory": "512", "containerDefinitions": containers})
}

#[tokio::test]
async fn a_sidecar_may_end_and_the_essential_container_ends_the_task() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;
    let container = |name: &str, essential: bool, script: &str| {
        json!({"name": name, "image": "staffetta/agent", "essential": essential, "command": ["sh", "-c", script],
            "environment": [{"name": "WHO", "value": name}], "workingDirectory": "/usr"})
    };
    let containers =
        json!([container("side", false, "exit 2"), container("job", true, "echo $WHO in $PWD; sleep 0.2; exit 6")]);
    must(&server, "RegisterTaskDefinition", definition("two", containers)).await;
    let mut request = run_request();
    request["taskDefinition"] = json!("two:1");
    request["overrides"] =
        json!({"containerOverrides": [{"name": "job", "environment": [{"name": "WHO", "value": "me"}]}]});
    let arn = arn_of(&must(&server, "RunTask", request).await);
    let task = until(&server, &arn, "STOPPED").await;
    assert_eq!(task.exit_code, Some(6));
    assert_eq!(task.environment["WHO"], "me");
    let shape = describe(&server, &arn).await;
    assert_eq!(shape["containers"][0]["exitCode"], 2);
    assert_eq!(String::from_utf8(server.task_log(&arn).unwrap()).unwrap(), "me in /usr\n");
    server.shutdown().await;
}

#[tokio::test]
async fn an_unknown_image_cannot_be_pulled() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;
    let containers = json!([{"name": "ci-coordinator", "image": "node:22"}]);
    must(&server, "RegisterTaskDefinition", definition("node", containers)).await;
    let mut request = run_request();
    request["taskDefinition"] = json!("node");
    let arn = arn_of(&must(&server, "RunTask", request).await);
    let task = until(&server, &arn, "STOPPED").await;
    assert_eq!(task.stop_code.as_deref(), Some("TaskFailedToStart"));
    let text = "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
                docker.io/node:22: docker.io/node:22: not found";
    assert_eq!(task.stopped_reason.as_deref(), Some(text));
    let container = &describe(&server, &arn).await["containers"][0];
    assert_eq!(container["reason"], text);
    assert_eq!(container.get("exitCode"), None);
    server.shutdown().await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_fails_to_start() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let mut request = run_request();
        let container = json!({"name": "ci-coordinator", "command": ["/no/such/program"]});
        request["overrides"] = json!({"containerOverrides": [container]});
        let arn = arn_of(&must(&server, "RunTask", request).await);
        let task = until(&server, &arn, "STOPPED").await;
        assert_eq!(task.stop_code.as_deref(), Some("TaskFailedToStart"));
        let reason = task.stopped_reason.unwrap();
        assert!(reason.starts_with("CannotStartContainerError: failed to create containerd task"), "{reason}");
        assert!(reason.contains("No such file"), "{reason}");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn faults_before_the_start_end_the_task_with_the_words_of_ecs() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;
    let cases = [
        (TaskFault::CannotPull, "CannotPullContainerError: "),
        (TaskFault::NetworkInterfaceTimeout, "Timeout waiting for network interface provisioning to complete."),
    ];
    for (fault, words) in cases {
        server.faults().on_task(1, fault);
        let arn = arn_of(&must(&server, "RunTask", run_request()).await);
        let task = until(&server, &arn, "STOPPED").await;
        assert_eq!(task.stop_code.as_deref(), Some("TaskFailedToStart"));
        assert!(task.stopped_reason.unwrap().starts_with(words));
        assert_eq!(task.exit_code, None);
    }
    let arn = arn_of(&must(&server, "RunTask", run_request()).await);
    until(&server, &arn, "RUNNING").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_task_that_never_starts_stays_until_it_is_stopped() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;
    for (stuck_in, status) in [(Stuck::Provisioning, "PROVISIONING"), (Stuck::Pending, "PENDING")] {
        server.faults().on_task(1, TaskFault::NeverStarts { stuck_in });
        let arn = arn_of(&must(&server, "RunTask", run_request()).await);
        until(&server, &arn, status).await;
        must(&server, "StopTask", json!({"cluster": "default", "task": arn})).await;
        let task = until(&server, &arn, "STOPPED").await;
        assert_eq!(task.stop_code.as_deref(), Some("UserInitiated"));
        assert_eq!(task.address.is_some(), stuck_in == Stuck::Pending);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_spot_interruption_gives_notice_and_then_kills() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let (after, notice) = (Duration::from_millis(200), Duration::from_millis(300));
        server.faults().on_task(1, TaskFault::SpotInterruption { after, notice });
        let arn = run_script(&server, "trap 'echo noticed' TERM; echo ready; while :; do sleep 0.02; done").await;
        let noticed = |tasks: &[TaskView]| tasks[0].desired_status == "STOPPED";
        let tasks = server.wait_for(SOON, noticed).await.unwrap();
        assert_eq!(tasks[0].last_status, "RUNNING", "the notice comes first");
        until_printed(&server, &arn, "noticed").await;
        let task = until(&server, &arn, "STOPPED").await;
        assert_eq!(task.stop_code.as_deref(), Some("SpotInterruption"));
        assert_eq!(task.stopped_reason.as_deref(), Some("Your Spot Task was interrupted."));
        assert_eq!(task.exit_code, Some(137));
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_lost_host_takes_the_processes_without_a_word() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let marker = format!("86{}", rand::random_range(100_000..999_999));
        let arn = run_script(&server, &format!("trap 'echo noticed' TERM; echo ready; sleep {marker}")).await;
        until_printed(&server, &arn, "ready").await;
        server.kill_host(&arn);
        let task = until(&server, &arn, "STOPPED").await;
        assert_eq!(task.stop_code.as_deref(), Some("InfrastructureHealth"));
        assert_eq!(task.exit_code, None);
        assert_eq!(server.task_log(&arn).unwrap(), b"ready\n");
        assert!(processes_with(&marker).is_empty());
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_task_out_of_memory_says_so_in_its_container() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;
    server.faults().on_task(1, TaskFault::OutOfMemory { after: Duration::from_millis(50) });
    let arn = run_script(&server, "sleep 86400").await;
    let task = until(&server, &arn, "STOPPED").await;
    assert_eq!(task.stop_code.as_deref(), Some("EssentialContainerExited"));
    assert_eq!(task.exit_code, Some(137));
    let reason = describe(&server, &arn).await["containers"][0]["reason"].clone();
    assert_eq!(reason, "OutOfMemoryError: container killed due to memory usage");
    server.shutdown().await;
}

#[tokio::test]
async fn faults_can_be_set_over_http() {
    let (server, _agent) = server(EngineMode::Auto, |_| {}).await;
    let post = |body: &'static str| http(&server, "POST", "/_embedded/faults", "", body);
    assert_eq!(post(r#"{"task": "cannot_pull", "times": 2}"#).await.unwrap().0, 204);
    let arn = arn_of(&must(&server, "RunTask", run_request()).await);
    assert_eq!(until(&server, &arn, "STOPPED").await.stop_code.as_deref(), Some("TaskFailedToStart"));
    assert_eq!(http(&server, "DELETE", "/_embedded/faults", "", "").await.unwrap().0, 204);
    let arn = arn_of(&must(&server, "RunTask", run_request()).await);
    until(&server, &arn, "RUNNING").await;
    assert_eq!(post(r#"{"task": "cannot_fly"}"#).await.unwrap().0, 400);

    until_printed(&server, &arn, "agent serve").await;
    let id = arn.rsplit('/').next().unwrap();
    let (status, log) = http(&server, "GET", &format!("/_embedded/tasks/{id}/log"), "", "").await.unwrap();
    assert_eq!((status, log.contains("agent serve")), (200, true), "{log}");
    server.shutdown().await;
}

#[tokio::test]
async fn openssh_lets_one_key_in_and_the_agent_is_not_there() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let keys = tempfile::tempdir().unwrap();
        for name in ["ours", "other"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(keys.path().join(name));
            assert!(keygen.status().await.unwrap().success());
        }
        let public_key = std::fs::read_to_string(keys.path().join("ours.pub")).unwrap();
        let mut request = run_request();
        request["taskDefinition"] = json!("staffetta-sshd:1");
        let environment = json!([{"name": "SSH_PUBLIC_KEY", "value": public_key.trim()}]);
        request["overrides"] = json!({"containerOverrides": [{"name": "ci-coordinator", "environment": environment}]});
        let arn = arn_of(&must(&server, "RunTask", request).await);
        let address = until(&server, &arn, "RUNNING").await.address.unwrap();
        until_printed(&server, &arn, "Server listening").await;

        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let ssh = |key: &str, command: &str| {
            let mut ssh = Command::new("ssh");
            ssh.args(["-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
            ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i"]);
            ssh.arg(keys.path().join(key)).args(["-p", &server.ssh_port().to_string()]);
            ssh.arg(format!("{user}@{address}")).arg(command).stdin(Stdio::null());
            ssh
        };
        let output = ssh("ours", "echo hello; command -v staffetta-agent; exit 7").output().await.unwrap();
        let log = String::from_utf8_lossy(&server.task_log(&arn).unwrap()).into_owned();
        assert_eq!(output.status.code(), Some(7), "{engine:?} {} {log}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, b"hello\n");
        assert_eq!(ssh("other", "true").output().await.unwrap().status.code(), Some(255));

        // A session that is open, with a process that left it, when the task is stopped.
        let marker = format!("86{}", rand::random_range(100_000..999_999));
        let mut open = ssh("ours", &format!("setsid sleep {marker} & echo up; sleep {marker}"));
        let mut open = open.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(open.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
        must(&server, "StopTask", json!({"cluster": "default", "task": arn})).await;
        until(&server, &arn, "STOPPED").await;
        assert_ne!(open.wait().await.unwrap().code(), Some(0));
        until_gone(&marker).await;
        server.shutdown().await;
    }
}

#[tokio::test]
async fn dropping_the_server_kills_its_tasks() {
    for engine in engines() {
        let (server, _agent) = server(engine, |_| {}).await;
        let marker = format!("86{}", rand::random_range(100_000..999_999));
        let arn = run_script(&server, &format!("setsid sleep {marker} & echo ready; sleep {marker}")).await;
        until_printed(&server, &arn, "ready").await;
        drop(server);
        until_gone(&marker).await;
    }
}

/// Not a test: the server of the next two tests, in a process of its own. It says when its task runs, and waits for a
/// line before it shuts down.
#[tokio::test]
#[ignore = "a helper process of the tests below"]
async fn serve_until_told() {
    let engine = match std::env::var("STAFFETTA_TEST_ENGINE").unwrap().as_str() {
        "Namespaces" => EngineMode::Namespaces,
        _ => EngineMode::ProcessGroup,
    };
    let marker = std::env::var("STAFFETTA_TEST_MARKER").unwrap();
    let (server, _agent) = server(engine, |_| {}).await;
    let arn = run_script(&server, &format!("trap '' TERM; setsid sleep {marker} & echo ready; sleep {marker}")).await;
    until_printed(&server, &arn, "ready").await;
    println!("\nready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    server.shutdown().await;
}

async fn start_helper(engine: EngineMode, marker: &str, scratch: &std::path::Path) -> Child {
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tasks::serve_until_told", "--ignored", "--nocapture"])
        .env("STAFFETTA_TEST_ENGINE", format!("{engine:?}"))
        .env("STAFFETTA_TEST_MARKER", marker)
        .env("TMPDIR", scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    while lines.next_line().await.unwrap().expect("the helper ended early") != "ready" {}
    // Whoever prints after this must not fail for it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    assert!(!processes_with(marker).is_empty());
    helper
}

#[tokio::test]
async fn shutdown_leaves_no_process_no_mount_and_no_file() {
    for engine in engines() {
        let marker = format!("86{}", rand::random_range(100_000..999_999));
        let scratch = tempfile::tempdir().unwrap();
        let mut helper = start_helper(engine, &marker, scratch.path()).await;
        drop(helper.stdin.take());
        assert!(helper.wait().await.unwrap().success());
        assert!(processes_with(&marker).is_empty(), "{engine:?}");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "{engine:?}");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(scratch.path().to_str().unwrap()), "{engine:?}: {mounts}");
    }
}

#[tokio::test]
async fn a_killed_server_takes_its_tasks_along() {
    for engine in engines() {
        let marker = format!("86{}", rand::random_range(100_000..999_999));
        let scratch = tempfile::tempdir().unwrap();
        let mut helper = start_helper(engine, &marker, scratch.path()).await;
        helper.kill().await.unwrap();
        until_gone(&marker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_run_at_once() {
    let (server, _agent) = server(EngineMode::ProcessGroup, |_| {}).await;
    let mut request = run_request();
    request["count"] = json!(10);
    let container = json!({"name": "ci-coordinator", "command": ["sleep", "86400"]});
    request["overrides"] = json!({"containerOverrides": [container]});
    for _ in 0..100 {
        assert_eq!(must(&server, "RunTask", request.clone()).await["tasks"].as_array().unwrap().len(), 10);
    }
    let running = |tasks: &[TaskView]| tasks.iter().filter(|task| task.last_status == "RUNNING").count() == 1000;
    let tasks = server.wait_for(Duration::from_secs(120), running).await.expect("1,000 tasks run");
    let addresses: std::collections::HashSet<_> = tasks.iter().filter_map(|task| task.address).collect();
    assert_eq!(addresses.len(), 1000);
    server.shutdown().await;
}
