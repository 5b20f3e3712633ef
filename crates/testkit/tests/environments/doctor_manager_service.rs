//! The manager's service: why it does not run is found, from a first `apply` without its image to a task that does not stay up.

use aws::stack::RunnerToken;
use serde_json::{Value, json};
use staffetta::deploy::file;
use testkit::{Answer, AwsFront, Moto};

use crate::emulator_gaps::{front_of, make_secrets_of_moto};
use crate::findings::Findings;
use crate::healthy_world::{World, in_world, network};
use crate::operator::{ACCOUNT, Operator, REGION};

/// What doctor finds in the healthy world with something before it that answers otherwise.
async fn found_behind(world: &World, fault: impl FnOnce(&AwsFront)) -> Findings {
    let front = AwsFront::start(world.front.url()).await;
    fault(&front);
    let operator = Operator::at(front.url());
    operator.write(file::FILE, &world.operator.read(file::FILE));
    Findings::of(&operator, &["--environment", "dev"], &[]).await
}

#[test]
fn a_manager_that_does_not_run_is_found_with_ecs_own_words() {
    in_world(async |world| {
        world.found("dev").await.expect("dev", "manager-service", "good", &["doc-dev-manager runs, 1 of 1"]);
        let service = |fields: Value| {
            let mut service = json!({"status": "ACTIVE", "desiredCount": 1, "runningCount": 0});
            service.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
            json!([service])
        };
        let pull = "(service doc-dev-manager) was unable to place a task. Reason: CannotPullContainerError.";
        let events = [json!({"message": "(service doc-dev-manager) failed."}), json!({"message": pull})];
        for (services, verdict, words) in [
            (json!([]), "bad", &["has no service doc-dev-manager"][..]),
            (service(json!({"status": "INACTIVE"})), "bad", &["has no service doc-dev-manager"]),
            (
                service(json!({"desiredCount": 0})),
                "bad",
                &["update-service --cluster doc-dev-manager", "--desired-count 1"],
            ),
            (service(json!({})), "warning", &["is being started"]),
            (
                service(json!({"events": events, "deployments": [{"failedTasks": 3}]})),
                "bad",
                &["3 tasks of it failed", pull, "aws logs tail /staffetta/doc-dev-manager", "--desired-status STOPPED"],
            ),
        ] {
            let answer = json!({"services": services}).to_string();
            let found = found_behind(world, |front| front.answer("ecs:DescribeServices", 200, &answer)).await;
            found.expect("dev", "manager-service", verdict, words);
            assert_eq!(found.faults("dev"), [("manager-service", verdict)], "{found:#?}");
        }
    });
}

#[test]
fn a_manager_without_its_stack_is_found() {
    in_world(async |world| {
        let gone = |front: &AwsFront| {
            front.on("cloudformation:DescribeStacks", |call, _| {
                let message = "Stack with id doc-dev-manager does not exist";
                (call.text("StackName") == "doc-dev-manager").then(|| Answer::error(call, "ValidationError", message))
            });
        };
        let found = found_behind(world, gone).await;
        found.expect("dev", "manager-service", "bad", &["there is no stack doc-dev-manager", "deploy apply"]);
        assert_eq!(found.faults("dev"), [("manager-service", "bad")], "{found:#?}");
    });
}

/// What doctor finds after one `apply` of an environment in a network of its own.
async fn found_after_apply(name: &str, block: &str, head: &str, environment: &str) -> Findings {
    let front = front_of(Moto::shared()).await;
    let operator = Operator::at(front.url());
    let network = network(block).await;
    operator.write(
        file::FILE,
        &format!(
            "name = \"{name}\"\ngitlab_url = \"http://127.0.0.1:9\"\naccount = \"{ACCOUNT}\"\nregion = \"{REGION}\"\n{head}\n\
             [environments.dev]\nvpc = \"{}\"\nsubnets = [\"{}\"]\n{environment}\n",
            network.vpc, network.subnet
        ),
    );
    let deployment = file::load(&operator.path(file::FILE)).expect("a file without mistakes").deployment;
    if deployment.environments[0].runner_token == RunnerToken::Made {
        make_secrets_of_moto(&operator, &deployment).await;
    }
    operator.staffetta(&["deploy", "apply"]).await;
    Findings::of(&operator, &[], &[]).await
}

#[tokio::test]
async fn what_the_manager_waits_for_after_the_first_apply_is_found() {
    let found = found_after_apply("first", "10.80", "manager = \"each\"", "").await;
    let words = [
        "first-dev-manager runs no manager, its DesiredCount is 0",
        "the manager's image",
        "the token of the runner dev",
        "docker push",
        "`staffetta deploy apply` starts it",
    ];
    found.expect("dev", "manager-service", "bad", &words);
}

#[tokio::test]
async fn a_manager_of_somebodys_own_is_no_service() {
    let head = format!("manager = \"own\"\nprincipal = \"arn:aws:iam::{ACCOUNT}:role/runner\"");
    let secret = format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:runner-abcdef");
    let environment = format!(
        "manager_cidr = \"10.0.0.0/24\"\nexternal_id = \"some-agreed-text\"\nrunner_token_secret = \"{secret}\""
    );
    let found = found_after_apply("elsewhere", "10.81", &head, &environment).await;
    found.expect("dev", "manager-service", "skipped", &["no service of this deployment", "staffetta verify"]);
}
