//! From an empty folder to environments and back, as docs/deploy.md tells it: `init`, `plan`, `apply`, `doctor`, `destroy`.

use std::path::Path;

use aws::stack::Deployment;
use embedded::gitlab;
use serde_json::{Value, json};
use staffetta::deploy::file;
use testkit::Moto;
use tokio::process::Command;

use crate::emulator_gaps::{empty_repositories_of_moto, front_of, make_secrets_of_moto, mend_environments_of_moto};
use crate::operator::{ACCOUNT, Network, Operator, REGION};

const ENVIRONMENTS: [&str; 3] = ["dev", "production", "staging"];

/// An operator who has run `deploy init` and nothing else.
async fn initialised(operator: &Operator, gitlab: &gitlab::Server, Network { vpc, subnets }: &Network) -> Deployment {
    let subnets = subnets.join(",");
    let url = gitlab.url();
    let arguments = format!(
        "deploy init --non-interactive --gitlab-url {url} --gitlab-project 1 --account {ACCOUNT} --region {REGION} --vpc {vpc} \
         --subnets {subnets} --assign-public-ip"
    );
    let said = operator.staffetta(&arguments.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(said.good(), "staffetta deploy plan\n");
    file::load(&operator.path("staffetta.toml")).expect("a file without mistakes").deployment
}

/// What `deploy template` prints, each template judged by cfn-lint.
async fn linted_templates(operator: &Operator) -> Value {
    let templates: Value =
        serde_json::from_str(&operator.staffetta(&["deploy", "template"]).await.good()).expect("JSON");
    let lint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cfn-lint/bin/cfn-lint");
    let mut command = Command::new(&lint);
    for (name, template) in templates.as_object().expect("templates by stack") {
        operator.write(&format!("{name}.json"), &template.to_string());
        command.arg(operator.path(&format!("{name}.json")));
    }
    let output = command.output().await.expect("cfn-lint is missing: run scripts/install-cfn-lint first");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    templates
}

/// Puts an image for x86-64 where this name says, as a push does.
async fn push(operator: &Operator, image: &str) {
    let (_, path) = image.split_once('/').expect("a registry");
    let (repository, tag) = path.split_once(':').expect("a tag");
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": {"architecture": "amd64", "os": "linux"},
        }],
    });
    operator.write("manifest.json", &manifest.to_string());
    let put =
        format!("ecr put-image --repository-name {repository} --image-tag {tag} --image-manifest file://manifest.json");
    operator.aws(&format!("{put} --image-manifest-media-type application/vnd.oci.image.index.v1+json")).await;
}

/// The stacks that stand, by name.
async fn standing(operator: &Operator) -> Vec<String> {
    let stacks = operator.aws("cloudformation describe-stacks").await;
    let stacks = stacks["Stacks"].as_array().expect("stacks").iter();
    let mut names: Vec<_> = stacks
        .filter(|stack| {
            ["CREATE_COMPLETE", "UPDATE_COMPLETE"].contains(&stack["StackStatus"].as_str().unwrap_or_default())
        })
        .map(|stack| stack["StackName"].as_str().expect("a name").to_owned())
        .collect();
    names.sort();
    names
}

/// Everything that doctor does not call good.
async fn faults(operator: &Operator, gitlab: &gitlab::Server) -> Vec<Value> {
    let token = [("GITLAB_PERSONAL_ACCESS_TOKEN", gitlab.personal_access_token())];
    let said = operator.staffetta_with(&["doctor", "--json"], &token).await;
    let report: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let findings = report["findings"].as_array().expect("findings").iter();
    findings.filter(|finding| finding["verdict"] != "good").cloned().collect()
}

/// What doctor says to do about this check, done as it says.
async fn mend_as_told(operator: &Operator, faults: &[Value], check: &str) {
    let fault = faults.iter().find(|fault| fault["check"] == check).expect("the fault");
    let fix = fault["fix"].as_str().expect("a fix");
    let command = fix.split('`').find_map(|quoted| quoted.strip_prefix("aws "));
    operator.aws(command.unwrap_or_else(|| panic!("no command of the AWS CLI: {fix}"))).await;
}

#[tokio::test]
async fn from_an_empty_folder_to_three_environments_and_back() {
    let moto = Moto::start();
    let front = front_of(&moto).await;
    let gitlab = gitlab::start(gitlab::Config::default()).await.expect("the embedded GitLab");
    let operator = Operator::at(front.url());
    let network = operator.public_network().await;
    let deployment = initialised(&operator, &gitlab, &network).await;

    let templates = linted_templates(&operator).await;
    let stacks: Vec<_> = templates.as_object().expect("templates").keys().cloned().collect();
    let expected: Vec<_> =
        ENVIRONMENTS.iter().flat_map(|name| [format!("ci-{name}"), format!("ci-{name}-manager")]).collect();
    assert_eq!(stacks, expected);

    let plan = operator.staffetta(&["deploy", "plan"]).await.good();
    assert!(plan.contains("Stacks: 6 to make."), "{plan}");
    assert_eq!(standing(&operator).await, [""; 0], "a plan made something");

    make_secrets_of_moto(&operator, &deployment).await;
    let personal = [("GITLAB_PERSONAL_ACCESS_TOKEN", gitlab.personal_access_token())];
    let applied = operator.staffetta_with(&["deploy", "apply"], &personal).await.good();
    assert_eq!(standing(&operator).await, expected);
    // The managers wait for their image.
    assert!(applied.contains("ci-dev-manager/manager:"), "{applied}");
    let runners = gitlab.runners();
    for environment in &deployment.environments {
        let runner = runners.iter().find(|runner| runner.description == deployment.environment_name(environment));
        let runner = runner.unwrap_or_else(|| panic!("no runner for {}: {runners:?}", environment.name));
        let secret = deployment.token_secret(environment);
        let stored = operator.aws(&format!("secretsmanager get-secret-value --secret-id {secret}")).await;
        assert_eq!(stored["SecretString"], runner.token.as_str(), "{secret}");
    }

    let before = front.calls().len();
    let again = operator.staffetta_with(&["deploy", "apply"], &personal).await.good();
    assert!(again.to_lowercase().contains("no change"), "{again}");
    let changing = ["CreateStack", "ExecuteChangeSet", "DeleteStack", "PutSecretValue"];
    let calls = front.calls();
    let made: Vec<_> = calls[before..].iter().filter(|call| changing.contains(&call.action.as_str())).collect();
    assert!(made.is_empty(), "{made:?}: {again}");

    for environment in &deployment.environments {
        push(&operator, &deployment.task_image(environment)).await;
        push(&operator, &deployment.manager_image(aws::stack::ManagerOf::One(environment))).await;
    }
    operator.staffetta_with(&["deploy", "apply"], &personal).await.good();
    for name in ENVIRONMENTS {
        let stack = operator.aws(&format!("cloudformation describe-stacks --stack-name ci-{name}-manager")).await;
        let parameters = stack["Stacks"][0]["Parameters"].as_array().expect("parameters");
        let count = parameters.iter().find(|parameter| parameter["ParameterKey"] == "DesiredCount").expect("a count");
        assert_eq!(count["ParameterValue"], "1", "{name}");
    }
    assert_eq!(gitlab.runners().len(), 3, "each runner is made once");

    mend_environments_of_moto(&operator, &templates).await;
    assert_eq!(faults(&operator, &gitlab).await, [Value::Null; 0], "a healthy world");

    operator.aws("logs delete-log-group --log-group-name /staffetta/ci-staging").await;
    operator.aws("ecr batch-delete-image --repository-name ci-production/task --image-ids imageTag=latest").await;
    operator.aws("ecs put-cluster-capacity-providers --cluster ci-dev --capacity-providers FARGATE --default-capacity-provider-strategy []").await;
    let found = faults(&operator, &gitlab).await;
    let told: Vec<_> = found.iter().map(|it| json!([it["environment"], it["check"], it["verdict"]])).collect();
    let put_in = [
        json!(["dev", "cluster-default-strategy", "warning"]),
        json!(["staging", "task-log", "bad"]),
        json!(["production", "task-image", "bad"]),
    ];
    assert_eq!(told, put_in, "{found:?}");
    mend_as_told(&operator, &found, "cluster-default-strategy").await;
    mend_as_told(&operator, &found, "task-log").await;
    push(&operator, &deployment.task_image(&deployment.environments[2])).await;
    assert_eq!(faults(&operator, &gitlab).await, [Value::Null; 0], "all is mended");

    empty_repositories_of_moto(&operator).await;
    operator.staffetta(&["deploy", "destroy", "--yes"]).await.good();
    assert_eq!(standing(&operator).await, [""; 0]);
    let left = operator.aws("ecr describe-repositories").await;
    assert_eq!(left["repositories"], json!([]));
    gitlab.shutdown().await;
}
