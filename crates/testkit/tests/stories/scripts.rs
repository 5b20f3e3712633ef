use embedded::gitlab::{Config, Status, Variable};
use testkit::{Setup, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_prints_100_mb_passes_and_its_log_is_cut_at_the_limit() {
    let mut world = World::start(Setup::default()).await;
    let (job, trace) = world.run_job("  script: head -c 100000000 /dev/zero | tr '\\0' x | fold -w 99").await;
    assert_eq!(job.status, Status::Success);
    assert!(trace.contains("exceeded limit of 4194304 bytes"), "the end: {}", &trace[trace.len() - 300..]);
    assert!(trace.len() < 4_194_304 + 1_000, "{} bytes", trace.len());
    assert_eq!(job.trace_matches, Some(true));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_arrive_as_replacement_characters() {
    let mut world = World::start(Setup::default()).await;
    let (job, trace) = world.run_job("  script: \"printf 'a\\\\377\\\\376b\\\\000c\\\\n'\"").await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(trace.contains("a\u{fffd}\u{fffd}b"), "{trace:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_value_never_shows_also_when_it_is_written_in_two_parts() {
    let secret = "correct-horse-battery";
    let gitlab = Config { variables: vec![Variable::new("SECRET", secret).masked()], ..Setup::default().gitlab };
    let mut world = World::start(Setup { gitlab, ..Setup::default() }).await;
    let (job, trace) = world
        .run_job("  script:\n    - echo whole $SECRET\n    - printf correct-; sleep 0.3; printf '%s\\n' horse-battery\n    - echo $SECRET >&2")
        .await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(!trace.contains(secret), "{trace}");
    assert_eq!(trace.matches("[MASKED]").count(), 3, "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_kills_its_agent_fails_as_a_lost_task_and_hangs_nothing() {
    for definition in ["staffetta-agent", "staffetta-sshd"] {
        let mut world = World::start(Setup { task_definition: definition, ..Setup::default() }).await;
        // In its own image the agent is process 1, which nobody in the task can kill. Beside OpenSSH it is a process like
        // any other, and its log since the last update dies with it.
        let (job, trace) = world
            .run_job(
                "  script: [echo killing, pkill -KILL -f staffetta-agent || true, sleep 600]\n  timeout: 20 seconds",
            )
            .await;
        assert_eq!(job.status, Status::Failed, "{definition}: {trace}");
        let reason = if definition == "staffetta-sshd" { "its agent is gone" } else { "execution took longer than" };
        assert!(trace.contains(reason), "{definition}: {trace}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_has_no_token_of_the_runner_and_no_credential_of_the_manager() {
    let mut world = World::start(Setup::default()).await;
    let config = std::fs::read_to_string(world.config_file()).expect("config.toml");
    let tokens: Vec<&str> = config.lines().filter_map(|line| line.strip_prefix("token = ")).collect();
    let (job, trace) =
        world.run_job("  script:\n    - env\n    - cat /proc/1/environ /proc/1/cmdline | tr '\\0' '\\n'").await;
    assert_eq!(job.status, Status::Success, "{trace}");
    for token in tokens {
        assert!(!trace.contains(token.trim_matches('"')), "{trace}");
    }
    assert!(!trace.contains("AWS_SECRET_ACCESS_KEY"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_script_starts_outlives_its_stage_in_any_kind_of_task() {
    for definition in ["staffetta-agent", "staffetta-sshd"] {
        let mut world = World::start(Setup { task_definition: definition, ..Setup::default() }).await;
        // The second leaves its process group and its parent; the third its session, twice.
        let (job, trace) = world
            .run_job(
                "  script:\n    - sleep 600 & echo $! > plain\n    - setsid sh -c 'sleep 600 & echo $! > daemon'\n    \
                 - setsid setsid sh -c 'echo $$ > twice; exec sleep 600' &\n    - until test -s daemon && test -s twice; do :; done\n  \
                 after_script:\n    - for file in plain daemon twice; do kill -0 $(cat $file) 2>/dev/null || echo \"$file is gone\"; done",
            )
            .await;
        assert_eq!(job.status, Status::Success, "{definition}: {trace}");
        for file in ["plain", "daemon", "twice"] {
            assert!(trace.contains(&format!("{file} is gone")), "{definition}: {trace}");
        }
        world.end().await;
    }
}
