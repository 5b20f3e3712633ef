//! What doctor makes of a deployment file: its stacks, the secrets of its tokens, the tags that it asks for. CloudFormation's
//! answers are told to the front here; whole worlds are examined elsewhere.

use embedded::gitlab;
use serde_json::json;
use staffetta::deploy::file;
use testkit::{AwsFront, Moto};

use crate::findings::Findings;
use crate::operator::{ACCOUNT, Operator, REGION};

/// An operator who has run `deploy init` for one environment.
async fn initialised(gitlab: &gitlab::Server) -> (AwsFront, Operator) {
    let front = AwsFront::start(Moto::shared().url()).await;
    let operator = Operator::at(front.url());
    let url = gitlab.url();
    let arguments = format!(
        "deploy init --non-interactive --gitlab-url {url} --gitlab-project 1 --account {ACCOUNT} --region {REGION} \
         --vpc vpc-0123456789abcdef0 --subnets subnet-0123456789abcdef0 --environment dev"
    );
    operator.staffetta(&arguments.split(' ').collect::<Vec<_>>()).await.good();
    (front, operator)
}

async fn gitlab() -> gitlab::Server {
    gitlab::start(gitlab::Config::default()).await.expect("the embedded GitLab")
}

/// Every stack is in this status, with the outputs of an environment.
fn stacks_are(front: &AwsFront, status: &str) {
    let output = |name: &str| {
        format!("<member><OutputKey>{name}</OutputKey><OutputValue>sg-0123456789abcdef0</OutputValue></member>")
    };
    let outputs = ["TaskSecurityGroup", "ManagerSecurityGroup"].map(output).concat();
    front.answer(
        "cloudformation:DescribeStacks",
        200,
        &format!(
            "<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>ci-dev</StackName>\
             <StackId>arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/ci-dev/1</StackId>\
             <StackStatus>{status}</StackStatus><StackStatusReason>why it is so</StackStatusReason>\
             <Outputs>{outputs}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
        ),
    );
}

fn secret_is(front: &AwsFront, token: &str) {
    front.answer("secretsmanager:GetSecretValue", 200, &json!({"SecretString": token}).to_string());
}

#[tokio::test]
async fn an_environment_that_was_not_applied_is_told_and_nothing_is_guessed_about_it() {
    let gitlab = gitlab().await;
    let (front, operator) = initialised(&gitlab).await;
    let found = Findings::of(&operator, &[], &[]).await;
    found.expect("dev", "stack", "bad", &["there is no stack ci-dev", "staffetta deploy apply"]);
    assert_eq!(found.of_check("dev", "cluster"), []);
    // That needs no stack.
    found.expect("dev", "gitlab-reachable", "good", &[gitlab.url()]);
    assert_eq!(found.code, Some(1));
    for (status, verdict) in
        [("ROLLBACK_COMPLETE", "bad"), ("UPDATE_ROLLBACK_FAILED", "bad"), ("UPDATE_IN_PROGRESS", "unknown")]
    {
        stacks_are(&front, status);
        Findings::of(&operator, &[], &[]).await.expect("dev", "stack", verdict, &[status]);
    }
    front.fail("cloudformation:DescribeStacks", "AccessDenied", "not you");
    let found = Findings::of(&operator, &[], &[]).await;
    found.expect("dev", "stack", "unknown", &["cloudformation:DescribeStacks", "not you"]);
    assert_eq!(found.code, Some(2));
}

#[tokio::test]
async fn the_file_that_the_environment_names_is_read_and_its_warnings_are_told() {
    let gitlab = gitlab().await;
    let (front, operator) = initialised(&gitlab).await;
    front.fail("cloudformation:DescribeStacks", "AccessDenied", "not you");
    operator.write("other.toml", &operator.read(file::FILE).replace(REGION, "us-east-9"));
    let said = operator.staffetta_with(&["doctor"], &[("STAFFETTA_FILE", "other.toml")]).await;
    assert!(said.stdout.contains("not you"), "{said:?}");
    assert!(said.stderr.contains("other.toml:") && said.stderr.contains("us-east-9"), "{said:?}");
}

#[tokio::test]
async fn a_token_is_read_where_apply_put_it_or_doctor_says_why_not() {
    let gitlab = gitlab().await;
    let (front, operator) = initialised(&gitlab).await;
    stacks_are(&front, "UPDATE_COMPLETE");
    // As `echo` leaves it.
    secret_is(&front, &format!("{}\n", gitlab.register_runner("dev", &["dev"])));
    Findings::of(&operator, &[], &[]).await.expect("dev", "runner-token", "good", &["knows the token"]);
    secret_is(&front, "");
    Findings::of(&operator, &[], &[]).await.expect("dev", "runner-token", "unknown", &["ci-dev-runner-token is empty"]);
    front.fail("secretsmanager:GetSecretValue", "AccessDeniedException", "not you");
    let found = Findings::of(&operator, &[], &[]).await;
    found.expect("dev", "runner-token", "unknown", &["secretsmanager:GetSecretValue", "ci-dev-runner-token"]);
    found.expect("dev", "gitlab-reachable", "good", &[]);
}

#[tokio::test]
async fn tags_of_the_file_that_the_runner_does_not_have_are_found() {
    let gitlab = gitlab().await;
    let (front, operator) = initialised(&gitlab).await;
    stacks_are(&front, "CREATE_COMPLETE");
    secret_is(&front, &gitlab.register_runner("dev", &["fargate"]));
    let personal = [("GITLAB_PERSONAL_ACCESS_TOKEN", gitlab.personal_access_token())];
    // By the name of its runner, as a job's log has it.
    let found = Findings::of(&operator, &["--environment", "ci-dev"], &personal).await;
    found.expect("dev", "runner-tags", "bad", &["the tags fargate", "the file says dev", "add dev"]);
}
