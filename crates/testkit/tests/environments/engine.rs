//! `deploy plan`, `apply` and `destroy`: each state that a stack can be in, and each way to fail.

use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::{Answer, AwsCall, AwsFront, Moto, Terminal};

use crate::emulator_gaps::front_of;
use crate::operator::{ACCOUNT, Network, Operator, REGION};

/// One environment, whose token somebody keeps: nothing of it needs a GitLab.
fn file_of(Network { vpc, subnets }: &Network, secret: &str, more: &str) -> String {
    format!(
        r#"
name = "ci"
gitlab_url = "https://gitlab.example.com"
account = "{ACCOUNT}"
region = "{REGION}"

[environments.dev]
vpc = "{vpc}"
subnets = {subnets:?}
runner_token_secret = "{secret}"
{more}
"#
    )
}

/// moto, a front before it, and an operator with a file.
pub struct World {
    pub front: AwsFront,
    pub operator: Operator,
    network: Network,
    /// The ARN of the secret with the token.
    pub secret: String,
    _moto: Moto,
}

impl World {
    pub async fn start() -> Self {
        let moto = Moto::start();
        let front = front_of(&moto).await;
        let operator = Operator::at(front.url());
        let network = operator.default_network().await;
        let secret = operator.aws("secretsmanager create-secret --name dev --secret-string glrt-made-up").await;
        let secret = secret["ARN"].as_str().expect("an ARN").to_owned();
        let world = Self { front, operator, network, secret, _moto: moto };
        world.ask_for("");
        world
    }

    /// Writes the file anew.
    pub fn ask_for(&self, more: &str) {
        self.operator.write("staffetta.toml", &file_of(&self.network, &self.secret, more));
    }

    pub async fn status(&self, stack: &str) -> String {
        let said = self.operator.aws_says(&format!("cloudformation describe-stacks --stack-name {stack}")).await;
        let stacks: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        stacks["Stacks"][0]["StackStatus"].as_str().unwrap_or("none").to_owned()
    }

    /// `staffetta deploy COMMAND` as a person runs it.
    pub fn on_terminal(&self, command: &str) -> Terminal {
        let file = self.operator.path("staffetta.toml");
        let arguments = ["deploy".into(), command.into(), "--file".into(), file.into_os_string()];
        let access = [("AWS_ACCESS_KEY_ID", "deploy"), ("AWS_SECRET_ACCESS_KEY", "made-up")];
        Terminal::start_with(&arguments, &[access.as_slice(), &[("AWS_ENDPOINT_URL", self.front.url())]].concat())
    }

    pub async fn managers(&self) -> String {
        let stacks = self.operator.aws("cloudformation describe-stacks --stack-name ci-dev-manager").await;
        let parameters = stacks["Stacks"][0]["Parameters"].as_array().expect("parameters").iter();
        let mut counts = parameters.filter(|parameter| parameter["ParameterKey"] == "DesiredCount");
        counts.next().expect("a count")["ParameterValue"].as_str().expect("a number").to_owned()
    }

    /// What deploy did that changes something, since the first `seen` calls.
    fn changes_since(&self, seen: usize) -> Vec<String> {
        let reads = ["Describe", "Get", "List", "BatchGet"];
        let calls = self.front.calls().into_iter().skip(seen).filter(|call| call.who == "deploy");
        calls.map(|call| call.action).filter(|action| !reads.iter().any(|read| action.starts_with(read))).collect()
    }
}

/// A stack in states that no emulator reaches. What is not said here moto answers.
#[derive(Clone, Default)]
pub struct Story(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// CloudFormation's word.
    status: Option<&'static str>,
    /// Type and name, status, reason; oldest first.
    events: Vec<[&'static str; 3]>,
}

impl Story {
    /// Answers for this stack. `id` is its ARN.
    pub fn of(front: &AwsFront, stack: &'static str, id: &str) -> Self {
        let story = Self::default();
        let is_it = move |call: &AwsCall| {
            let name = call.text("StackName");
            name == stack || name.contains(&format!(":stack/{stack}/"))
        };
        let (told, stack_id) = (story.clone(), id.to_owned());
        front.on("cloudformation:DescribeStacks", move |call, _| {
            let status = told.0.lock().expect("a story").status.filter(|_| is_it(call))?;
            let tag =
                |key: &str, value: &str| format!("<member><Key>staffetta:{key}</Key><Value>{value}</Value></member>");
            let tags = tag("deployment", "ci") + &tag("environment", "dev");
            let member = format!(
                "<member><StackId>{stack_id}</StackId><StackName>{stack}</StackName><StackStatus>{status}</StackStatus>\
                 <Tags>{tags}</Tags></member>"
            );
            Some(answer("DescribeStacks", &format!("<Stacks>{member}</Stacks>")))
        });
        let (told, stack_id) = (story.clone(), id.to_owned());
        front.on("cloudformation:DescribeStackEvents", move |call, _| {
            let told = told.0.lock().expect("a story");
            if !is_it(call) || told.events.is_empty() {
                return None;
            }
            let event = |(at, [resource, status, reason]): (usize, &[&str; 3])| {
                let (kind, name) = resource.split_once(' ').expect("type and name");
                format!(
                    "<member><EventId>{at}</EventId><Timestamp>2026-11-22T03:00:0{at}Z</Timestamp><StackId>{stack_id}</StackId>\
                     <LogicalResourceId>{name}</LogicalResourceId><ResourceType>{kind}</ResourceType>\
                     <ResourceStatus>{status}</ResourceStatus><ResourceStatusReason>{reason}</ResourceStatusReason></member>"
                )
            };
            let members: String = told.events.iter().enumerate().map(event).rev().collect();
            Some(answer("DescribeStackEvents", &format!("<StackEvents>{members}</StackEvents>")))
        });
        story
    }

    pub fn tell(&self, status: Option<&'static str>, events: &[[&'static str; 3]]) {
        *self.0.lock().expect("a story") = Told { status, events: events.to_vec() };
    }
}

pub fn answer(action: &str, result: &str) -> Answer {
    Answer::new(200, format!("<{action}Response><{action}Result>{result}</{action}Result></{action}Response>"))
}

pub const STACK: &str = "AWS::CloudFormation::Stack ci-dev";
pub const PRETENDED: &str = "arn:aws:cloudformation:us-east-1:123456789012:stack/ci-dev/pretended";

#[tokio::test]
async fn a_change_in_the_file_is_planned_applied_and_then_is_no_change() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(applied.contains("ci-dev: made\n") && applied.contains("ci-dev-manager: made\n"), "{applied}");

    world.ask_for("cache_expire_days = 7");
    let plan = operator.staffetta(&["deploy", "plan"]).await.good();
    let words = ["  + AWS::S3::Bucket  CacheBucket\n", "Stacks: 2 to change.\n"];
    assert!(plan.contains(words[0]) && plan.contains(words[1]), "{plan}");
    let sets = operator.aws("cloudformation list-change-sets --stack-name ci-dev").await;
    assert_eq!(sets["Summaries"], json!([]), "a plan leaves nothing");

    let applied = operator.staffetta(&["deploy", "apply", "--json"]).await.good();
    let objects = applied.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON object in each line"));
    let done: Vec<_> =
        objects.filter(|object| object["event"] == "done").map(|object| object["result"].clone()).collect();
    assert_eq!(done, ["updated", "updated"]);
    operator.aws(&format!("s3api head-bucket --bucket ci-dev-cache-{ACCOUNT}-{REGION}")).await;

    let seen = front.calls().len();
    let again = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(again.contains("No change"), "{again}");
    let changes = world.changes_since(seen);
    assert!(
        changes.iter().all(|change| ["CreateChangeSet", "DeleteChangeSet"].contains(&change.as_str())),
        "{changes:?}"
    );
    let plan = operator.staffetta(&["deploy", "plan", "--json"]).await.good();
    let plan: Value = serde_json::from_str(&plan).expect("JSON");
    assert_eq!(
        (&plan["stacks"][0]["action"], &plan["stacks"][1]["action"]),
        (&json!("no_change"), &json!("no_change"))
    );
}

#[tokio::test]
async fn a_failure_tells_its_first_cause_and_what_stands_and_the_next_apply_makes_all_of_it() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    let story = Story::of(front, "ci-dev", PRETENDED);
    let begun = story.clone();
    front.on("cloudformation:CreateStack", move |_, number| {
        begun.tell((number == 1).then_some("ROLLBACK_COMPLETE"), &[
            [STACK, "CREATE_IN_PROGRESS", "User Initiated"],
            ["AWS::ECS::Cluster Cluster", "CREATE_FAILED", "Resource creation cancelled"],
            [
                "AWS::IAM::Role JobRole",
                "CREATE_FAILED",
                "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: iam:CreateRole on resource: \
                 arn:aws:iam::123456789012:role/ci-dev-job",
            ],
            ["AWS::EC2::SecurityGroup TaskSecurityGroup", "CREATE_FAILED", "Resource creation cancelled"],
            [STACK, "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [JobRole]."],
            [STACK, "ROLLBACK_COMPLETE", ""],
        ]);
        if number > 1 {
            begun.tell(None, &[]);
            return None;
        }
        Some(answer("CreateStack", &format!("<StackId>{PRETENDED}</StackId>")))
    });
    let said = operator.staffetta(&["deploy", "apply"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    for words in [
        "first cause: AWS::IAM::Role JobRole CREATE_FAILED: User: arn:aws:iam::123456789012:user/ada is not authorized",
        "fix:         Allow iam:CreateRole on arn:aws:iam::123456789012:role/ci-dev-job to arn:aws:iam::123456789012:user/ada;",
        "  ci-dev (123456789012, us-east-1): ROLLBACK_COMPLETE\n",
        "  ci-dev-manager (123456789012, us-east-1): not there\n",
        "run `staffetta deploy apply` again",
    ] {
        assert!(said.stdout.contains(words), "{words} is not in\n{}", said.stdout);
    }

    let gone = story.clone();
    front.on("cloudformation:DeleteStack", move |_, _| {
        gone.tell(None, &[]);
        None
    });
    let again = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(again.contains("its record is deleted, and it is made anew"), "{again}");
    assert_eq!([world.status("ci-dev").await, world.status("ci-dev-manager").await], ["CREATE_COMPLETE"; 2]);
}

#[tokio::test]
async fn an_update_that_is_stuck_is_taken_back_first() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    operator.staffetta(&["deploy", "apply"]).await.good();
    let stacks = operator.aws("cloudformation describe-stacks --stack-name ci-dev").await;
    let story = Story::of(front, "ci-dev", stacks["Stacks"][0]["StackId"].as_str().expect("an ARN"));
    let stuck = [[STACK, "UPDATE_IN_PROGRESS", "User Initiated"], [STACK, "UPDATE_ROLLBACK_FAILED", "stuck"]];
    story.tell(Some("UPDATE_ROLLBACK_FAILED"), &stuck);
    let continued = story.clone();
    front.on("cloudformation:ContinueUpdateRollback", move |_, _| {
        let more = [[STACK, "UPDATE_ROLLBACK_IN_PROGRESS", ""], [STACK, "UPDATE_ROLLBACK_COMPLETE", ""]];
        continued.tell(Some("UPDATE_ROLLBACK_COMPLETE"), &[stuck.as_slice(), &more].concat());
        Some(answer("ContinueUpdateRollback", ""))
    });
    let over = story.clone();
    front.on("cloudformation:ExecuteChangeSet", move |_, _| {
        over.tell(None, &[]);
        None
    });
    world.ask_for("cache_expire_days = 7");
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    for words in ["the update before is taken back first", "UPDATE_ROLLBACK_COMPLETE\n", "ci-dev: changed\n"] {
        assert!(applied.contains(words), "{words} is not in\n{applied}");
    }
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_left_with_exact_advice() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    let story = Story::of(front, "ci-dev", PRETENDED);
    story.tell(Some("UPDATE_ROLLBACK_FAILED"), &[[STACK, "UPDATE_ROLLBACK_FAILED", "stuck"]]);
    let continued = story.clone();
    front.on("cloudformation:ContinueUpdateRollback", move |_, _| {
        continued.tell(
            Some("UPDATE_ROLLBACK_FAILED"),
            &[
                [STACK, "UPDATE_ROLLBACK_FAILED", "stuck"],
                ["AWS::ECS::Service Service", "UPDATE_FAILED", "Service was not ACTIVE"],
                [STACK, "UPDATE_ROLLBACK_FAILED", "The following resource(s) failed to update: [Service]."],
            ],
        );
        Some(answer("ContinueUpdateRollback", ""))
    });
    let plan = operator.staffetta(&["deploy", "plan"]).await.good();
    assert!(plan.contains("the update before is taken back first"), "{plan}");
    let said = operator.staffetta(&["deploy", "apply"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    for words in [
        "first cause: AWS::ECS::Service Service UPDATE_FAILED: Service was not ACTIVE",
        "aws cloudformation continue-update-rollback --stack-name ci-dev --region us-east-1 --resources-to-skip",
    ] {
        assert!(said.stdout.contains(words), "{words} is not in\n{}", said.stdout);
    }
    story.tell(Some("IMPORT_ROLLBACK_FAILED"), &[[STACK, "IMPORT_ROLLBACK_FAILED", ""]]);
    let said = operator.staffetta(&["deploy", "apply"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("with the tool that began it"), "{said:?}");
}

#[tokio::test]
async fn an_operation_of_somebody_else_is_waited_for() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    operator.staffetta(&["deploy", "apply"]).await.good();
    let stacks = operator.aws("cloudformation describe-stacks --stack-name ci-dev").await;
    let story = Story::of(front, "ci-dev", stacks["Stacks"][0]["StackId"].as_str().expect("an ARN"));
    story.tell(Some("UPDATE_IN_PROGRESS"), &[[STACK, "UPDATE_IN_PROGRESS", "User Initiated"]]);
    let over = story.clone();
    let seen = Mutex::new(0);
    front.on("cloudformation:DescribeStackEvents", move |call, _| {
        let mut seen = seen.lock().expect("a number");
        *seen += usize::from(call.text("StackName").contains("ci-dev/"));
        // Where it begins, a first look, and then it is over.
        if *seen == 3 {
            over.tell(None, &[]);
        }
        None
    });
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(applied.contains("which somebody else began: waiting for its end"), "{applied}");
    assert!(applied.contains("ci-dev: no change\n"), "{applied}");
}

#[tokio::test]
async fn a_file_that_does_not_fit_the_account_begins_nothing_and_tells_each_line() {
    let world = World::start().await;
    let World { operator, front, network, .. } = &world;
    let other = operator.aws("ec2 create-vpc --cidr-block 10.9.0.0/16").await;
    let other = other["Vpc"]["VpcId"].as_str().expect("an id");
    let subnet = operator.aws(&format!("ec2 create-subnet --vpc-id {other} --cidr-block 10.9.1.0/24")).await;
    let subnet = subnet["Subnet"]["SubnetId"].as_str().expect("an id").to_owned();
    let subnets = vec![network.subnets[0].clone(), subnet.clone(), "subnet-0123456789abcdef0".to_owned()];
    let file = file_of(&Network { vpc: network.vpc.clone(), subnets }, &world.secret, "");
    operator.write("staffetta.toml", &file);
    let seen = front.calls().len();
    for command in ["plan", "apply"] {
        let said = operator.staffetta(&["deploy", command]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        for words in [
            format!("staffetta.toml:9: the subnet {subnet} is in {other}, not in {}", network.vpc),
            "staffetta.toml:9: there is no subnet subnet-0123456789abcdef0 in us-east-1".to_owned(),
        ] {
            assert!(said.stderr.contains(&words), "{words} is not in\n{}", said.stderr);
        }
    }
    operator.write("staffetta.toml", &file.replace(&format!("account = \"{ACCOUNT}"), "account = \"999999999999"));
    let said = operator.staffetta(&["deploy", "apply"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let words = "staffetta.toml:4: the account is 999999999999, but the credentials are of 123456789012";
    assert!(said.stderr.contains(words), "{said:?}");
    assert_eq!(world.changes_since(seen), [""; 0]);
}

#[tokio::test]
async fn destroy_refuses_while_jobs_run_unless_told_and_a_later_apply_makes_all_anew() {
    let world = World::start().await;
    let World { operator, front, network, .. } = &world;
    world.ask_for("cache_expire_days = 7");
    operator.staffetta(&["deploy", "apply"]).await.good();
    let bucket = format!("ci-dev-cache-{ACCOUNT}-{REGION}");
    operator.write("cache.zip", "cached");
    for key in ["a&b<c>.zip", "project/1/default"] {
        operator.aws(&format!("s3api put-object --bucket {bucket} --key {key} --body cache.zip")).await;
    }
    let subnet = &network.subnets[0];
    let stacks = operator.aws("cloudformation describe-stacks --stack-name ci-dev").await;
    let outputs = stacks["Stacks"][0]["Outputs"].as_array().expect("outputs");
    let group = outputs.iter().find(|output| output["OutputKey"] == "TaskSecurityGroup").expect("a group");
    let group = group["OutputValue"].as_str().expect("an id");
    let configuration = format!("awsvpcConfiguration={{subnets=[{subnet}],securityGroups=[{group}]}}");
    // moto cannot run what it makes from templates.
    let container = r#"[{"name":"job","image":"job","memory":512}]"#;
    let like = "--network-mode awsvpc --requires-compatibilities FARGATE --cpu 256 --memory 512";
    operator
        .aws(&format!("ecs register-task-definition --family job {like} --container-definitions {container}"))
        .await;
    let run = "ecs run-task --cluster ci-dev --task-definition job --launch-type FARGATE --network-configuration";
    let task = operator.aws(&format!("{run} {configuration}")).await;
    let task = task["tasks"][0]["taskArn"].as_str().expect("an ARN").to_owned();

    let seen = front.calls().len();
    let refused = operator.staffetta(&["deploy", "destroy", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("ci-dev: 1 running"), "{refused:?}");
    let unasked = operator.staffetta(&["deploy", "destroy", "--even-with-running-jobs"]).await;
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.stderr.contains("no terminal to ask on"), "{unasked:?}");
    assert_eq!(world.changes_since(seen), [""; 0]);

    let destroyed = operator.staffetta(&["deploy", "destroy", "--yes", "--even-with-running-jobs"]).await.good();
    let deleted: Vec<_> = destroyed.lines().filter(|line| line.ends_with(": deleted")).collect();
    assert_eq!(deleted, ["ci-dev-manager: deleted", "ci-dev: deleted"], "{destroyed}");
    assert!(destroyed.contains(&format!("{bucket}: 2 cached objects deleted")), "{destroyed}");
    let stopped = front.calls().into_iter().find(|call| call.name() == "ecs:StopTask").expect("a task that is stopped");
    assert_eq!(stopped.text("task"), task);
    let left = operator.aws_says(&format!("s3api head-bucket --bucket {bucket}")).await;
    assert_ne!(left.code, Some(0), "the bucket is still there");

    let again = operator.staffetta(&["deploy", "destroy", "--yes"]).await.good();
    assert!(again.contains("ci-dev: not there\n"), "{again}");
    operator.staffetta(&["deploy", "apply"]).await.good();
    operator.aws(&format!("s3api head-bucket --bucket {bucket}")).await;
}

#[tokio::test]
async fn a_refusal_of_a_call_names_the_action_and_who_needs_it() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    front.fail(
        "cloudformation:CreateStack",
        "AccessDenied",
        "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: cloudformation:CreateStack on resource: \
         arn:aws:cloudformation:us-east-1:123456789012:stack/ci-dev/*",
    );
    let said = operator.staffetta(&["deploy", "apply"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    for words in [
        "Allow cloudformation:CreateStack on",
        "to arn:aws:iam::123456789012:user/ada;",
        "ci-dev-manager (123456789012, us-east-1): not there",
    ] {
        assert!(said.stdout.contains(words), "{words} is not in\n{}", said.stdout);
    }
}

#[tokio::test]
async fn a_change_set_that_nobody_executed_does_not_block_the_name() {
    let world = World::start().await;
    let World { operator, .. } = &world;
    operator.write("none.json", r#"{"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}"#);
    let set = "create-change-set --change-set-type CREATE --change-set-name forgotten --template-body file://none.json";
    let tags = "Key=staffetta:deployment,Value=ci Key=staffetta:environment,Value=dev";
    operator.aws(&format!("cloudformation {set} --stack-name ci-dev --tags {tags}")).await;
    assert_eq!(world.status("ci-dev").await, "REVIEW_IN_PROGRESS");
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(applied.contains("never executed: its record is deleted"), "{applied}");
    assert_eq!(world.status("ci-dev").await, "CREATE_COMPLETE");
}

#[tokio::test]
async fn a_manager_starts_with_its_image_and_is_not_stopped_for_want_of_the_next_one() {
    let world = World::start().await;
    let World { operator, front, .. } = &world;
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    let push = format!("docker push {ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/ci-dev-manager/manager:");
    assert!(applied.contains(&push), "{applied}");
    assert!(applied.contains("as the file says. No manager runs yet in ci-dev-manager.\n"), "{applied}");
    assert_eq!(world.managers().await, "0");

    let manifest = r#"{"images": [{"imageManifest": "{\"manifests\": []}"}]}"#;
    front.answer("ecr:BatchGetImage", 200, manifest);
    let plan = operator.staffetta(&["deploy", "plan"]).await.good();
    let planned = front
        .calls()
        .into_iter()
        .rfind(|call| call.text("StackName") == "ci-dev-manager" && call.action == "CreateChangeSet");
    let planned = planned.unwrap_or_else(|| panic!("no change set of the manager's stack: {plan}"));
    let key = planned.parameters.iter().find(|(_, value)| *value == "DesiredCount").expect("the parameter").0;
    assert_eq!(planned.text(&key.replace("ParameterKey", "ParameterValue")), "1", "the plan starts a manager");
    operator.staffetta(&["deploy", "apply"]).await.good();
    assert_eq!(world.managers().await, "1");

    front.answer("ecr:BatchGetImage", 200, r#"{"images": [], "failures": [{"failureCode": "ImageNotFound"}]}"#);
    world.ask_for("log_retention_days = 7\ncache_expire_days = 3");
    let said = operator.staffetta(&["deploy", "apply"]).await;
    assert_eq!(said.code, Some(1), "the manager's stack is not as the file says: {said:?}");
    let end = "Not as the file says: ci-dev-manager, as long as something is missing.\n";
    for words in ["ci-dev: changed", "It stays as it is.", end, &push] {
        assert!(said.stdout.contains(words), "{words} is not in\n{}", said.stdout);
    }
    assert_eq!(world.managers().await, "1");
    let json = operator.staffetta(&["deploy", "apply", "--json"]).await;
    let end: Value = serde_json::from_str(json.stdout.lines().last().expect("an end")).expect("JSON");
    assert_eq!((json.code, &end["held"], &end["waiting"]), (Some(1), &json!(["ci-dev-manager"]), &json!([])));
}

#[tokio::test]
async fn a_secret_that_the_file_names_is_looked_at_before_its_manager_starts() {
    let world = World::start().await;
    let World { operator, front, secret, .. } = &world;
    front.answer("ecr:BatchGetImage", 200, r#"{"images": [{"imageManifest": "{\"manifests\": []}"}]}"#);
    operator.aws(&format!("secretsmanager delete-secret --secret-id {secret}")).await;
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    let words = format!("the secret {secret}, which the file names for the runner dev");
    assert!(applied.contains(&words) && applied.contains("No manager runs yet in ci-dev-manager."), "{applied}");
    assert_eq!(world.managers().await, "0");

    front.fail("secretsmanager:DescribeSecret", "AccessDeniedException", "not you");
    let applied = operator.staffetta(&["deploy", "apply"]).await.good();
    assert!(applied.contains("it cannot be seen whether this is there: the runner token in"), "{applied}");
    assert!(applied.contains("No manager runs yet in ci-dev-manager."), "{applied}");
}

#[tokio::test]
async fn ctrl_c_says_that_cloudformation_goes_on_and_how_to_look() {
    let world = World::start().await;
    let story = Story::of(&world.front, "ci-dev", PRETENDED);
    story.tell(Some("CREATE_IN_PROGRESS"), &[[STACK, "CREATE_IN_PROGRESS", "User Initiated"]]);
    let mut terminal = world.on_terminal("apply");
    terminal.until("which somebody else began").await;
    terminal.signal(Signal::SIGINT);
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(130), "{shown}");
    let words = "aws cloudformation describe-stack-events --stack-name ci-dev --region us-east-1";
    assert!(shown.contains("CloudFormation goes on with ci-dev") && shown.contains(words), "{shown}");
}

#[tokio::test]
async fn destroy_deletes_what_is_called_by_its_name_and_nothing_else() {
    let world = World::start().await;
    world.operator.staffetta(&["deploy", "apply"]).await.good();
    let mut terminal = world.on_terminal("destroy");
    terminal.until("Type the name of the deployment (ci) to delete them").await;
    terminal.answer("yes");
    let (code, shown) = terminal.ended().await;
    assert!(code == Some(1) && shown.contains("Nothing was deleted."), "{code:?} {shown}");
    assert_eq!(world.status("ci-dev").await, "CREATE_COMPLETE");

    let mut terminal = world.on_terminal("destroy");
    terminal.until("Type the name of the deployment (ci) to delete them").await;
    terminal.answer("ci");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!([world.status("ci-dev").await, world.status("ci-dev-manager").await], ["none"; 2]);
}
