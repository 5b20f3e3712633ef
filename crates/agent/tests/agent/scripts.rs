//! What scripts see, and what is seen of them.

use serde_json::json;

use crate::support::{World, gone, read};

#[tokio::test]
async fn a_job_runs_in_bash_and_in_sh() {
    for (shell, name) in [("bash", "bash"), ("sh", "sh")] {
        let mut world = World::new(&["echo \"shell: $0\"", "echo done"]).await;
        world.runner["shell"] = json!(shell);
        let ended = world.run().await.succeeded();
        ended.shows(&format!("/{name}\n")).shows("\x1b[32;1m$ echo done\x1b[0;m\ndone\n");
        assert!(ended.last.bytes > 0);
    }
}

#[tokio::test]
async fn the_exit_code_of_a_failing_script_reaches_gitlab() {
    for shell in ["bash", "sh"] {
        let mut world = World::new(&["echo before", "(exit 42)", "echo never"]).await;
        world.runner["shell"] = json!(shell);
        let ended = world.run().await.failed("script_failure", 42);
        ended.shows("before\n").hides("\nnever");
        assert!(ended.trace.ends_with("\x1b[31;1mERROR: Job failed: exit code 42\x1b[0;m\n"), "{}", ended.trace);
    }
}

#[tokio::test]
async fn what_before_script_sets_lives_in_the_script_but_not_in_after_script() {
    // GitLab sends before_script and script as one list.
    let mut world =
        World::new(&["cd /", "export A=from-before", "f() { echo \"f in $(pwd)\"; }", "f", "echo A=$A"]).await;
    world.after_script(&["echo \"after: A=[$A] in $(pwd)\""]);
    let project = world.project().display().to_string();
    world
        .run()
        .await
        .succeeded()
        .shows("f in /\n")
        .shows("A=from-before\n")
        .shows(&format!("after: A=[] in {project}\n"));
}

#[tokio::test]
async fn after_script_knows_how_the_script_ended_and_cannot_change_it() {
    for (script, status) in [("true", "success"), ("false", "failed")] {
        let mut world = World::new(&["echo $CI_JOB_STATUS", script]).await;
        world.after_script(&["echo status=$CI_JOB_STATUS", "exit 3"]);
        let ended = world.run().await;
        ended.shows("running\n").shows(&format!("status={status}\n"));
        ended.shows("WARNING: after_script failed, but job will continue unaffected: exit code 3");
        match script {
            "true" => drop(ended.succeeded()),
            _ => drop(ended.failed("script_failure", 1)),
        }
    }
}

#[tokio::test]
async fn after_script_fails_the_job_if_it_was_asked_to() {
    let mut world = World::new(&["true"]).await;
    world.set("AFTER_SCRIPT_IGNORE_ERRORS", "false");
    world.after_script(&["exit 3"]);
    world.run().await.failed("script_failure", 3);
}

#[tokio::test]
async fn gitlab_env_carries_variables_to_later_stages() {
    let mut world = World::new(&["echo COLOUR=blue >> $GITLAB_ENV", "echo \"now: [$COLOUR]\""]).await;
    world.payload["steps"]
        .as_array_mut()
        .expect("steps")
        .push(json!({"name": "release", "script": ["echo step: $COLOUR"]}));
    world.after_script(&["echo after: $COLOUR"]);
    let ended = world.run().await.succeeded();
    // The release step's script is expanded by the runner, which does not know the new variable.
    ended.shows("now: []\n").shows("step:\n").shows("after: blue\n");
    ended.shows("Executing \"step_script\" stage").shows("Executing \"step_release\" stage");
}

#[tokio::test]
async fn file_variables_are_files_and_others_are_expanded() {
    let script =
        ["cat \"$KEY\"", "stat -c 'mode %a' \"$KEY\"", "echo \"path=$COPY\"", "echo \"$RAW\"", "echo \"$DIR\""];
    let mut world = World::new(&script).await;
    world.variable(json!({"key": "KEY", "value": "line 1\nline 2\n", "file": true}));
    world.set("COPY", "$KEY");
    world.set("DIR", "${CI_PROJECT_DIR}/sub");
    world.variable(json!({"key": "RAW", "value": "$KEY", "raw": true}));
    let ended = world.run().await.succeeded();
    let temporary = format!("{}.tmp", world.project().display());
    ended.shows("line 1\nline 2\n").shows("mode 600\n").shows(&format!("path={temporary}/KEY\n")).shows("\n$KEY\n");
    ended.shows(&format!("{}/sub\n", world.project().display()));
    assert!(!std::path::Path::new(&temporary).exists(), "nothing secret stays");
}

#[tokio::test]
async fn masked_values_never_reach_the_trace() {
    let mut world = World::new(&[
        "echo \"whole: $SECRET\"",
        "printf 'hun'; sleep 0.3; printf 'ter2\\n'",
        "echo \"token: $CI_JOB_TOKEN\"",
        "echo \"error: $SECRET\" >&2",
    ])
    .await;
    world.variable(json!({"key": "BASE", "value": "hunter"}));
    world.variable(json!({"key": "SECRET", "value": "${BASE}2", "masked": true}));
    let ended = world.run().await.succeeded();
    ended.shows("whole: [MASKED]\n").shows("token: [MASKED]\n").shows("error: [MASKED]\n");
    ended.hides("hunter2").hides(crate::support::TOKEN);
    assert_eq!(ended.trace.matches("[MASKED]").count(), 4, "{}", ended.trace);
}

#[tokio::test]
async fn sections_and_timestamps_have_gitlabs_form() {
    let mut world = World::new(&["echo hello", "echo oops >&2"]).await;
    world.payload["features"]["trace_sections"] = json!(true);
    world.payload["variables"] = json!([{"key": "GIT_STRATEGY", "value": "none"}]);
    let trace = world.run().await.trace;
    let streams: Vec<_> = trace
        .lines()
        .map(|line| {
            let (header, text) = line.split_at(32);
            assert!(header.len() == 32 && header.as_bytes()[26] == b'Z', "{line:?}");
            (&header[28..31], text.trim_end_matches('\r'))
        })
        .collect();
    let has = |stream, text: &str| streams.iter().any(|(of, line)| *of == stream && line.contains(text));
    assert!(has("01O", "hello") && has("01E", "oops") && has("00O", "Job succeeded"), "{trace}");
    for section in ["prepare_script", "get_sources", "step_script", "cleanup_file_variables"] {
        for kind in ["start", "end"] {
            let marker = format!(":{section}");
            let found =
                streams.iter().any(|(_, line)| line.contains(&format!("section_{kind}:")) && line.contains(&marker));
            assert!(found, "section_{kind} {section} in {trace}");
        }
    }
    assert!(!trace.contains("after_script"), "a stage with nothing to do says nothing");
}

#[tokio::test]
async fn the_runners_scripts_lie_around_the_jobs() {
    let mut world = World::new(&["echo the job", "A=1"]).await;
    world.runner["pre_build_script"] = json!("A=0; echo before the job");
    world.runner["post_build_script"] = json!("echo after the job: $A");
    let trace = world.run().await.succeeded().trace;
    let at = |text: &str| trace.find(text).unwrap_or_else(|| panic!("{text:?} in {trace}"));
    assert!(at("\nbefore the job") < at("\nthe job") && at("\nthe job") < at("\nafter the job: 1"));
}

#[tokio::test]
async fn nothing_that_a_script_starts_outlives_it() {
    let mut world = World::new(&[
        "sleep 600 & echo $! > plain",
        "setsid sh -c 'sleep 600 & echo $! > daemon' ",
        "(setsid setsid sleep 600 & echo $! > escaped)",
    ])
    .await;
    world.after_script(&["cat plain daemon escaped"]);
    world.run().await.succeeded();
    for file in ["plain", "daemon", "escaped"] {
        gone(&read(world.project().join(file))).await;
    }
}

#[tokio::test]
async fn orphans_do_not_pile_up_as_zombies() {
    // Each inner shell ends before its child does, which then belongs to the agent.
    let count = "ps -o stat= --ppid $(cut -d' ' -f4 /proc/$$/stat) | grep -c Z || true";
    let world = World::new(&[
        "for i in 1 2 3 4 5 6 7 8 9 10; do sh -c 'sleep 0.01 &'; done",
        "sleep 0.3",
        &format!("echo zombies: $({count})"),
    ])
    .await;
    world.run().await.succeeded().shows("zombies: 0\n");
}

#[tokio::test]
async fn bytes_of_any_kind_and_of_any_number_are_taken_without_being_held() {
    let world = World::new(&[
        "head -c 50000000 /dev/zero | tr '\\0' 'x' | fold -w 99",
        "printf '\\377\\376\\n'",
        // The shell's parent is the agent.
        "grep VmHWM /proc/$PPID/status",
    ])
    .await;
    let ended = world.run().await.succeeded();
    ended.shows("\u{fffd}\u{fffd}\n");
    assert!(ended.trace.len() > 50_000_000);
    let line = ended.trace.lines().find(|line| line.starts_with("VmHWM:")).expect("the most memory that it used");
    let kilobytes: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    // Far below the output, far above the 8 MB of a release build: those are measured, not asserted.
    assert!(kilobytes < 40_000, "{kilobytes} kB");
}

#[tokio::test]
async fn output_beyond_the_limit_is_dropped_and_the_job_goes_on() {
    let mut world = World::new(&["head -c 100000 /dev/zero | tr '\\0' x", "echo x > made"]).await;
    world.runner["output_limit"] = json!(10_000);
    let ended = world.run().await;
    assert_eq!(ended.last.state, "success");
    ended.shows("exceeded limit of 10000 bytes");
    assert!(ended.trace.len() < 11_000);
    assert!(world.project().join("made").exists());
}

#[tokio::test]
async fn what_this_runner_does_not_do_is_said() {
    let mut world = World::new(&["true"]).await;
    world.payload["image"] = json!({"name": "alpine:3.22"});
    world.payload["services"] = json!([{"name": "postgres:18"}]);
    let ended = world.run().await.succeeded();
    ended.shows("image alpine:3.22 is not used").shows("services are not started");
}

#[tokio::test]
async fn a_clone_path_outside_of_the_builds_directory_is_refused() {
    let mut world = World::new(&["echo never"]).await;
    world.set("GIT_CLONE_PATH", "/etc");
    world.run().await.failed("runner_configuration_error", 0).shows("GIT_CLONE_PATH").hides("never\n");
}

#[tokio::test]
async fn a_shell_that_is_not_there_is_named() {
    let mut world = World::new(&["echo never"]).await;
    world.runner["shell"] = json!("zsh");
    let ended = world.run().await.failed("runner_system_failure", 0);
    ended.shows("prepare environment: shell not found in this image: there is no zsh").hides("never\n");
}

#[tokio::test]
async fn a_job_that_ends_before_its_last_stage_leaves_no_secret() {
    let mut world = World::new(&["cat \"$KEY\"", "sleep 600"]).await;
    world.payload["runner_info"]["timeout"] = json!(1);
    world.variable(json!({"key": "KEY", "value": "in a file\n", "file": true}));
    world.run().await.failed("job_execution_timeout", 0).shows("in a file\n");
    let temporary = format!("{}.tmp", world.project().display());
    assert!(!std::path::Path::new(&temporary).exists(), "{temporary} is still there");
}

#[tokio::test]
async fn too_many_variables_for_later_stages_are_the_scripts_failure() {
    let mut world = World::new(&["head -c 2000000 /dev/zero | tr '\\0' x >> \"$GITLAB_ENV\""]).await;
    world.set("AFTER_SCRIPT_IGNORE_ERRORS", "false");
    world.after_script(&["echo never"]);
    let ended = world.run().await.failed("script_failure", 1);
    ended.shows("the file $GITLAB_ENV is larger than").hides("\nnever");
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_warned_about() {
    let mut world = World::new(&["true"]).await;
    world.set("RUNNER_SCRIPT_TIMEOUT", "soon");
    world.run().await.succeeded().shows("WARNING: Ignoring malformed RUNNER_SCRIPT_TIMEOUT timeout: soon");
}

#[tokio::test]
async fn a_traced_script_does_not_print_secrets() {
    let mut world = World::new(&["echo visible $SECRET"]).await;
    world.set("CI_DEBUG_TRACE", "true");
    world.variable(json!({"key": "SECRET", "value": "hunter2", "masked": true}));
    world.run().await.succeeded().shows("+ echo visible [MASKED]").hides("hunter2");
}
