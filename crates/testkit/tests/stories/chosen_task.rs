//! A job chooses the task definition of its task, within what its runner allows.

use embedded::gitlab::Status;
use testkit::{Setup, World};

async fn world(allowed: &str) -> World {
    let mut world = World::without_manager(Setup::default()).await;
    let file = world.config_file();
    let text = std::fs::read_to_string(&file).expect("config.toml");
    let key = format!("allowed_task_definitions = {allowed}\nplatform_version = \"1.3.0\"\ntask_definition =");
    std::fs::write(&file, text.replace("task_definition =", &key)).expect("config.toml");
    world.start_manager().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_in_the_task_definition_that_it_asks_for() {
    let mut world = world(r#"["*-sshd"]"#).await;
    let yaml = "  variables: { IMAGE: sshd, FARGATE_TASK_DEFINITION: \"staffetta-$IMAGE:1\", FARGATE_PLATFORM_VERSION: LATEST }\n  \
                script: echo hello";
    let (job, trace) = world.run_job(yaml).await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(trace.contains("Waiting for a Fargate task (staffetta-sshd:1) in cluster dev"), "{trace}");
    let tasks = world.fargate.tasks();
    assert!(tasks[0].task_definition.ends_with("task-definition/staffetta-sshd:1"), "{tasks:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_asks_for_another_task_definition_than_allowed_fails_before_a_task_is_paid_for() {
    let mut world = world("[]").await;
    let yaml = "  variables: { FARGATE_TASK_DEFINITION: staffetta-sshd }\n  script: echo hello";
    let (job, trace) = world.run_job(yaml).await;
    assert_eq!(job.status, Status::Failed);
    let told = "this runner does not allow the task definition \"staffetta-sshd\"; it allows staffetta-agent";
    assert!(trace.contains(told), "{trace}");
    assert_eq!(job.failure_reason.as_deref(), Some("runner_configuration_error"), "{trace}");
    assert_eq!(world.fargate.calls().get("RunTask"), None);
    world.end().await;
}
