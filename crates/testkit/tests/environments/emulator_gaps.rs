//! What the emulators leave out in silence (facts 10.2), put there by their own calls: in this place, and nowhere else. What none of
//! them keeps is held by tests of the templates, and docs/deploy.md lists it under "Not tried on AWS".

use aws::stack::Deployment;
use serde_json::{Map, Value};
use testkit::{Answer, AwsFront, Moto};

use crate::operator::Operator;

/// moto with a front before it that also has quotas of Fargate, which moto has not, and runs a task of each service, which moto
/// never does.
pub async fn front_of(moto: &Moto) -> AwsFront {
    let front = AwsFront::start(moto.url()).await;
    let runs = r#"{"services": [{"status": "ACTIVE", "desiredCount": 1, "runningCount": 1}], "failures": []}"#;
    front.answer("ecs:DescribeServices", 200, runs);
    front.answer("servicequotas:GetServiceQuota", 200, r#"{"Quota": {"Value": 100.0}}"#);
    front
}

/// moto makes no secrets from templates, and `apply` puts tokens into them: they have to be there before, empty.
pub async fn make_secrets_of_moto(operator: &Operator, deployment: &Deployment) {
    for environment in &deployment.environments {
        let secret = deployment.token_secret(environment);
        operator.aws(&format!("secretsmanager create-secret --name {secret}")).await;
    }
}

/// moto's clusters lose their capacity providers on the way from a template, and its task definitions become ones for EC2,
/// without roles. `templates` is what `staffetta deploy template` prints.
pub async fn mend_environments_of_moto(operator: &Operator, templates: &Value) {
    for template in templates.as_object().expect("templates by stack").values() {
        let resources = &template["Resources"];
        if resources["TaskSecurityGroup"].is_null() {
            // A manager's.
            continue;
        }
        let cluster = &resources["Cluster"]["Properties"];
        let input = serde_json::json!({
            "cluster": cluster["ClusterName"],
            "capacityProviders": cluster["CapacityProviders"],
            "defaultCapacityProviderStrategy": as_ecs_has_it(&cluster["DefaultCapacityProviderStrategy"]),
        });
        operator.write("input.json", &input.to_string());
        operator.aws("ecs put-cluster-capacity-providers --cli-input-json file://input.json").await;
        operator.write("input.json", &as_ecs_has_it(&resources["TaskDefinition"]["Properties"]).to_string());
        operator.aws("ecs register-task-definition --cli-input-json file://input.json").await;
    }
}

/// moto does not know EmptyOnDelete and deletes no repository with images, which CloudFormation then does.
pub async fn empty_repositories_of_moto(operator: &Operator) {
    let repositories = operator.aws("ecr describe-repositories").await;
    for repository in repositories["repositories"].as_array().expect("repositories") {
        let name = repository["repositoryName"].as_str().expect("a name");
        let images = operator.aws(&format!("ecr list-images --repository-name {name}")).await;
        if images["imageIds"].as_array().is_some_and(|images| !images.is_empty()) {
            let input = serde_json::json!({"repositoryName": name, "imageIds": images["imageIds"]});
            operator.write("input.json", &input.to_string());
            operator.aws("ecr batch-delete-image --cli-input-json file://input.json").await;
        }
    }
}

/// moto keeps parameters that the template of a stack no longer has, which CloudFormation forgets: this stack of the deployment `ci`,
/// of all environments, is described without any.
pub fn forget_parameters_of_moto(front: &AwsFront, stack: &'static str) {
    front.on("cloudformation:DescribeStacks", move |call, _| {
        let described = format!(
            "<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackId>arn</StackId><StackName>{stack}</StackName>\
             <StackStatus>UPDATE_COMPLETE</StackStatus><Tags><member><Key>staffetta:deployment</Key><Value>ci</Value></member></Tags>\
             </member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
        );
        (call.text("StackName") == stack).then(|| Answer::new(200, described))
    });
}

/// ECS's own calls have the keys of CloudFormation with a small first letter.
fn as_ecs_has_it(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let small = |key: &String| {
                let (first, rest) = key.split_at(1);
                first.to_ascii_lowercase() + rest
            };
            Value::Object(fields.iter().map(|(key, value)| (small(key), as_ecs_has_it(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(as_ecs_has_it).collect(),
        other => other.clone(),
    }
}
