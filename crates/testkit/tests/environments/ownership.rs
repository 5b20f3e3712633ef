//! What stands in the way of `deploy`: nothing of somebody else is touched, and nothing is left running by a change that cannot
//! be made in place.

use serde_json::Value;
use testkit::{AwsFront, Moto};

use crate::emulator_gaps::{forget_parameters_of_moto, front_of};
use crate::operator::{ACCOUNT, Network, Operator, REGION};

const STACKS_OF_OTHERS: &str =
    r#"{"Resources": {"Prod": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "precious"}}}}"#;

/// moto, a front before it, and an operator.
struct World {
    front: AwsFront,
    operator: Operator,
    network: Network,
    _moto: Moto,
}

impl World {
    async fn start() -> Self {
        let moto = Moto::start();
        let front = front_of(&moto).await;
        let operator = Operator::at(front.url());
        let network = operator.default_network().await;
        Self { front, operator, network, _moto: moto }
    }

    /// Writes a file for these environments, whose tokens somebody keeps: nothing of it needs a GitLab.
    fn ask_for(&self, name: &str, manager: &str, environments: &[&str]) {
        let Network { vpc, subnets } = &self.network;
        let place = format!("vpc = {vpc:?}\nsubnets = {subnets:?}\n");
        let mut file = format!(
            "name = {name:?}\ngitlab_url = \"https://gitlab.example.com\"\naccount = \"{ACCOUNT}\"\nregion = \"{REGION}\"\n\
             manager = {manager:?}\n"
        );
        if manager == "shared" {
            file.push_str(&format!("[manager_service]\n{place}"));
        }
        for name in environments {
            file.push_str(&format!(
                "[environments.{name}]\n{place}runner_token_secret = \
                 \"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-AbCdEf\"\n"
            ));
        }
        self.operator.write("staffetta.toml", &file);
    }

    /// The names of all stacks.
    async fn stacks(&self) -> Vec<String> {
        let stacks = self.operator.aws("cloudformation describe-stacks").await;
        let stacks = stacks["Stacks"].as_array().expect("stacks").iter();
        let mut names: Vec<_> = stacks.map(|stack| stack["StackName"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    /// What deploy did that changes something, since the first `seen` calls.
    fn changes_since(&self, seen: usize) -> Vec<String> {
        let reads = ["Describe", "Get", "List", "BatchGet"];
        let calls = self.front.calls().into_iter().skip(seen).filter(|call| call.who == "deploy");
        calls.map(|call| call.action).filter(|action| !reads.iter().any(|read| action.starts_with(read))).collect()
    }

    /// The command begins nothing, and says all of these words.
    async fn is_refused(&self, arguments: &[&str], words: &[&str]) {
        let seen = self.front.calls().len();
        let said = self.operator.staffetta(arguments).await;
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:?}");
        for words in words {
            assert!(said.stderr.contains(words), "{arguments:?}: {words} is not in\n{}", said.stderr);
        }
        assert_eq!(self.changes_since(seen), [""; 0], "{arguments:?}");
    }

    async fn are_refused(&self, commands: &[&[&str]], words: &[&str]) {
        for command in commands {
            self.is_refused(command, words).await;
        }
    }
}

const PLAN: &[&str] = &["deploy", "plan"];
const APPLY: &[&str] = &["deploy", "apply"];
const DESTROY: &[&str] = &["deploy", "destroy", "--yes"];

#[tokio::test]
async fn stacks_of_somebody_else_are_never_touched_and_all_are_told() {
    let world = World::start().await;
    let operator = &world.operator;
    operator.write("foreign.json", STACKS_OF_OTHERS);
    operator.write("tagged.json", r#"{"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}"#);
    operator.aws("cloudformation create-stack --stack-name acme-dev --template-body file://foreign.json").await;
    let tags = "Key=staffetta:deployment,Value=other Key=staffetta:environment,Value=dev";
    let create = "cloudformation create-stack --template-body file://tagged.json";
    operator.aws(&format!("{create} --stack-name acme-dev-manager --tags {tags}")).await;
    world.ask_for("acme", "each", &["dev"]);
    let words = [
        "the stack acme-dev (123456789012, us-east-1) in CREATE_COMPLETE belongs to somebody else (it has no tag staffetta:deployment)",
        "belongs to somebody else (its tag says staffetta:deployment is \"other\" and staffetta:environment is \"dev\"): choose \
         another `name`",
    ];
    world.are_refused(&[PLAN, APPLY, DESTROY], &words).await;
    operator.aws("s3api head-bucket --bucket precious").await;
}

#[tokio::test]
async fn two_deployments_whose_names_run_together_do_not_take_each_other_over() {
    let world = World::start().await;
    world.ask_for("colx", "each", &["dev-a"]);
    world.operator.staffetta(APPLY).await.good();
    world.ask_for("colx-dev", "each", &["a"]);
    let words = ["its tag says staffetta:deployment is \"colx\" and staffetta:environment is \"dev-a\""];
    world.are_refused(&[PLAN, APPLY, DESTROY], &words).await;
    world.ask_for("colx", "each", &["dev-a"]);
    world.operator.staffetta(DESTROY).await.good();
    assert_eq!(world.stacks().await, [""; 0]);
}

#[tokio::test]
async fn a_record_that_blocks_a_name_is_somebody_elses_too() {
    let world = World::start().await;
    let operator = &world.operator;
    operator.write("foreign.json", STACKS_OF_OTHERS);
    let set =
        "create-change-set --change-set-type CREATE --change-set-name reviewed --template-body file://foreign.json";
    operator.aws(&format!("cloudformation {set} --stack-name acme-dev")).await;
    world.ask_for("acme", "each", &["dev"]);
    world.are_refused(&[PLAN, APPLY, DESTROY], &["in REVIEW_IN_PROGRESS belongs to somebody else"]).await;
}

#[tokio::test]
async fn managers_of_another_mode_are_found_before_anything_is_changed() {
    let world = World::start().await;
    world.ask_for("ci", "each", &["dev", "staging"]);
    world.operator.staffetta(APPLY).await.good();
    world.ask_for("ci", "shared", &["dev", "staging"]);
    let words = [
        "the stack ci-dev-manager (123456789012, us-east-1) is of `manager = \"each\"`, and the file says \"shared\"",
        "the stack ci-staging-manager",
        "destroy with the old file first: `staffetta deploy destroy --file OLD_FILE`",
    ];
    world.are_refused(&[PLAN, APPLY, DESTROY], &words).await;
    world
        .is_refused(DESTROY, &["aws cloudformation delete-stack --stack-name ci-dev-manager --region us-east-1"])
        .await;

    world.ask_for("ci", "each", &["dev", "staging"]);
    world.operator.staffetta(DESTROY).await.good();
    world.ask_for("ci", "shared", &["dev", "staging"]);
    world.operator.staffetta(APPLY).await.good();
    assert_eq!(world.stacks().await, ["ci-dev", "ci-manager", "ci-manager-access", "ci-staging"]);
    world.ask_for("ci", "each", &["dev", "staging"]);
    let words = ["the stack ci-manager (", "the stack ci-manager-access (", "is of `manager = \"shared\"`"];
    world.are_refused(&[PLAN, APPLY, DESTROY], &words).await;
}

#[tokio::test]
async fn an_environment_goes_only_when_the_shared_manager_has_let_it_go() {
    let world = World::start().await;
    let operator = &world.operator;
    world.ask_for("ci", "shared", &["dev", "staging"]);
    operator.staffetta(APPLY).await.good();
    operator.write("old.toml", &operator.read("staffetta.toml"));
    let only_dev = ["deploy", "destroy", "--yes", "--file", "old.toml", "--environment", "dev"];
    let words = [
        "the shared manager ci-manager (123456789012, us-east-1) still takes the jobs of dev",
        "`staffetta deploy destroy --file OLD_FILE --environment dev`",
    ];
    world.is_refused(&only_dev, &words).await;

    world.ask_for("ci", "shared", &["staging"]);
    operator.staffetta(APPLY).await.good();
    forget_parameters_of_moto(&world.front, "ci-manager");
    operator.staffetta(&only_dev).await.good();
    assert_eq!(world.stacks().await, ["ci-manager", "ci-manager-access", "ci-staging"]);
}

#[tokio::test]
async fn a_plan_of_one_environment_looks_at_no_other() {
    let world = World::start().await;
    world.ask_for("ci", "each", &["dev", "production"]);
    let seen = world.front.calls().len();
    world.operator.staffetta(&["deploy", "plan", "--environment", "dev"]).await.good();
    let calls = world.front.calls().into_iter().skip(seen).filter(|call| call.action == "DescribeStacks");
    let looked_at: Vec<_> = calls.map(|call| call.text("StackName").to_owned()).collect();
    assert!(looked_at.iter().any(|name| name == "ci-dev"), "{looked_at:?}");
    assert!(looked_at.iter().all(|name| !name.contains("production")), "{looked_at:?}");
}

#[tokio::test]
async fn another_vpc_is_refused_where_the_security_groups_stand() {
    let mut world = World::start().await;
    world.ask_for("ci", "each", &["dev"]);
    world.operator.staffetta(APPLY).await.good();
    let old = world.network.vpc.clone();
    let id = |value: &Value| value.as_str().expect("an id").to_owned();
    let vpc = world.operator.aws("ec2 create-vpc --cidr-block 10.9.0.0/16").await;
    let vpc = id(&vpc["Vpc"]["VpcId"]);
    let subnet = world.operator.aws(&format!("ec2 create-subnet --vpc-id {vpc} --cidr-block 10.9.1.0/24")).await;
    world.network = Network { vpc: vpc.clone(), subnets: vec![id(&subnet["Subnet"]["SubnetId"])] };
    world.ask_for("ci", "each", &["dev"]);
    let says = format!("ci-dev (123456789012, us-east-1) stands in {old}, and the file says {vpc}");
    let words = [says.as_str(), "`staffetta deploy destroy --environment dev`, then `staffetta deploy apply`"];
    world.are_refused(&[PLAN, APPLY], &words).await;
    world.operator.staffetta(DESTROY).await.good();
    world.operator.staffetta(APPLY).await.good();
}

#[tokio::test]
async fn what_keeps_a_plan_from_looking_is_told_with_what_to_do() {
    let world = World::start().await;
    world.ask_for("ci", "each", &["dev"]);
    world.front.fail("sts:GetCallerIdentity", "ExpiredToken", "The security token included in the request is expired");
    let said = world.operator.staffetta(PLAN).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    for words in ["ExpiredToken", "log in again"] {
        assert!(said.stderr.contains(words), "{words} is not in\n{}", said.stderr);
    }
}
