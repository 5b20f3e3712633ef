//! Two healthy environments on moto, as `deploy apply` makes them: `dev` with NAT, `isolated` with VPC endpoints only. And the
//! calls of AWS that put faults into them.

use std::sync::OnceLock;

use embedded::gitlab;
use serde_json::{Value, json};
use staffetta::deploy::file;
use testkit::{AwsFront, Moto};
use tokio::runtime::{self, Runtime};
use tokio::sync::Mutex;

use crate::emulator_gaps::{front_of, mend_environments_of_moto};
use crate::findings::Findings;
use crate::operator::{ACCOUNT, Operator, REGION};

/// A VPC of moto, with what an environment has in it.
#[derive(Default)]
pub struct Network {
    pub vpc: String,
    pub subnet: String,
    pub table: String,
    /// Of the tasks and of their manager, which the stack made.
    pub task_group: String,
    pub manager_group: String,
}

pub struct World {
    pub operator: Operator,
    pub front: AwsFront,
    /// Only held, so that they go on.
    _gitlab: gitlab::Server,
    pub dev: Network,
    /// Without any way to the internet.
    pub isolated: Network,
    pub internet_gateway: String,
    pub nat_gateway: String,
    pub endpoint_group: String,
}

const ECS: &str = "AmazonEC2ContainerServiceV20141113";
const ECR: &str = "AmazonEC2ContainerRegistry_V20150921";
/// That of the manager's image.
const MANAGER_VERSION: &str = env!("CARGO_PKG_VERSION");
pub const NAMES: [&str; 2] = ["dev", "isolated"];
/// What tasks and their manager need there, beside S3.
pub const SERVICES: [&str; 5] = ["ecr.api", "ecr.dkr", "logs", "secretsmanager", "ecs"];

/// Runs a test in the one world of this process: one after the other, for each finds the fault that it put in and no other.
pub fn in_world(test: impl AsyncFnOnce(&'static World)) {
    static WORLD: OnceLock<(Runtime, World, Mutex<()>)> = OnceLock::new();
    let (runtime, world, turn) = WORLD.get_or_init(|| {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let world = runtime.block_on(World::start());
        (runtime, world, Mutex::new(()))
    });
    runtime.block_on(async {
        let _turn = turn.lock().await;
        test(world).await;
    });
}

pub async fn ec2(action: &str, parameters: &[(&str, &str)]) -> String {
    Moto::shared().query("ec2", action, parameters).await
}

/// The same, of which an id is wanted.
pub async fn made(action: &str, parameters: &[(&str, &str)], tag: &str) -> String {
    let answer = ec2(action, parameters).await;
    let text = answer.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once('<')).map(|(text, _)| text);
    text.unwrap_or_else(|| panic!("no {tag}: {answer}")).to_owned()
}

pub async fn ecs(action: &str, question: Value) -> Value {
    Moto::shared().json("ecs", &format!("{ECS}.{action}"), &question).await
}

pub async fn ecr(action: &str, question: Value) -> Value {
    Moto::shared().json("ecr", &format!("{ECR}.{action}"), &question).await
}

/// A VPC with one subnet and a table of its own.
pub async fn network(block: &str) -> Network {
    let vpc = made("CreateVpc", &[("CidrBlock", &format!("{block}.0.0/16"))], "vpcId").await;
    let subnet = [("VpcId", vpc.as_str()), ("CidrBlock", &format!("{block}.1.0/24"))];
    let subnet = made("CreateSubnet", &subnet, "subnetId").await;
    let table = made("CreateRouteTable", &[("VpcId", &vpc)], "routeTableId").await;
    ec2("AssociateRouteTable", &[("RouteTableId", &table), ("SubnetId", &subnet)]).await;
    Network { vpc, subnet, table, ..Network::default() }
}

/// An image under a tag of a repository. `manifest` is an index or one image's.
pub async fn push(repository: &str, tag: &str, manifest: &Value) {
    let question = json!({
        "repositoryName": repository, "imageTag": tag, "imageManifest": manifest.to_string(),
        "imageManifestMediaType": manifest["mediaType"],
    });
    ecr("PutImage", question).await;
}

pub fn index(architecture: &str) -> Value {
    let image = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "ab".repeat(32)), "size": 1,
        "platform": {"architecture": architecture, "os": "linux"},
    });
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [image]})
}

impl World {
    async fn start() -> Self {
        let gitlab = gitlab::start(gitlab::Config::default()).await.expect("the embedded GitLab");
        let front = front_of(Moto::shared()).await;
        let operator = Operator::at(front.url());
        let (mut dev, mut isolated) = (network("10.50").await, network("10.60").await);
        let internet_gateway = made("CreateInternetGateway", &[], "internetGatewayId").await;
        ec2("AttachInternetGateway", &[("InternetGatewayId", &internet_gateway), ("VpcId", &dev.vpc)]).await;
        let address = made("AllocateAddress", &[("Domain", "vpc")], "allocationId").await;
        let nat = [("SubnetId", dev.subnet.as_str()), ("AllocationId", &address)];
        let nat_gateway = made("CreateNatGateway", &nat, "natGatewayId").await;
        let route = [
            ("RouteTableId", dev.table.as_str()),
            ("DestinationCidrBlock", "0.0.0.0/0"),
            ("NatGatewayId", &nat_gateway),
        ];
        ec2("CreateRoute", &route).await;
        let group = [("GroupName", "endpoints"), ("GroupDescription", "endpoints"), ("VpcId", isolated.vpc.as_str())];
        let endpoint_group = made("CreateSecurityGroup", &group, "groupId").await;
        let token = |name: &'static str| {
            let secret = json!({
                "Name": format!("doc-{name}-of-doctor"), "SecretString": gitlab.register_runner(name, &[name]),
                "ClientRequestToken": format!("{name:->32}"),
            });
            async move {
                let made = Moto::shared().json("secretsmanager", "secretsmanager.CreateSecret", &secret).await;
                made["ARN"].as_str().expect("an ARN").to_owned()
            }
        };
        let environment = |name: &str, Network { vpc, subnet, .. }: &Network, secret: String| {
            format!(
                "\n[environments.{name}]\nvpc = \"{vpc}\"\nsubnets = [\"{subnet}\"]\nrunner_token_secret = \"{secret}\"\n"
            )
        };
        let head = format!(
            "name = \"doc\"\ngitlab_url = \"{}\"\naccount = \"{ACCOUNT}\"\nregion = \"{REGION}\"\nmanager = \"each\"\n",
            gitlab.url()
        );
        let environments =
            [environment("dev", &dev, token("dev").await), environment("isolated", &isolated, token("isolated").await)];
        operator.write(file::FILE, &format!("{head}{}", environments.concat()));
        operator.staffetta(&["deploy", "apply"]).await.good();
        for name in NAMES {
            push(&format!("doc-{name}-manager/manager"), MANAGER_VERSION, &index("amd64")).await;
        }
        // Now the managers start.
        operator.staffetta(&["deploy", "apply"]).await.good();
        let templates = operator.staffetta(&["deploy", "template"]).await.good();
        mend_environments_of_moto(&operator, &serde_json::from_str(&templates).expect("JSON")).await;
        for (name, network) in [("dev", &mut dev), ("isolated", &mut isolated)] {
            push(&format!("doc-{name}/task"), "latest", &index("amd64")).await;
            let stack = operator.aws(&format!("cloudformation describe-stacks --stack-name doc-{name}")).await;
            let outputs = stack["Stacks"][0]["Outputs"].as_array().expect("outputs").clone();
            let output = |key: &str| {
                let output = outputs.iter().find(|output| output["OutputKey"] == key).expect("an output");
                output["OutputValue"].as_str().expect("a value").to_owned()
            };
            network.task_group = output("TaskSecurityGroup");
            network.manager_group = output("ManagerSecurityGroup");
        }
        let world =
            Self { operator, front, _gitlab: gitlab, dev, isolated, internet_gateway, nat_gateway, endpoint_group };
        world.let_into_endpoints("AuthorizeSecurityGroupIngress").await;
        for service in SERVICES {
            world.make_endpoint(service).await;
        }
        world.make_endpoint_of_s3().await;
        world
    }

    pub async fn let_into_endpoints(&self, action: &str) {
        let rule = self.rule(&self.endpoint_group, "443");
        ec2(action, &[&rule[..], &[("IpPermissions.1.IpRanges.1.CidrIp", "10.60.0.0/16")]].concat()).await;
    }

    pub async fn make_endpoint(&self, service: &str) {
        let parameters = [
            ("VpcId", self.isolated.vpc.as_str()),
            ("VpcEndpointType", "Interface"),
            ("ServiceName", &format!("com.amazonaws.{REGION}.{service}")),
            ("SubnetId.1", &self.isolated.subnet),
            ("SecurityGroupId.1", &self.endpoint_group),
            ("PrivateDnsEnabled", "true"),
        ];
        ec2("CreateVpcEndpoint", &parameters).await;
    }

    pub async fn make_endpoint_of_s3(&self) {
        let service = format!("com.amazonaws.{REGION}.s3");
        let parameters = [
            ("VpcId", self.isolated.vpc.as_str()),
            ("VpcEndpointType", "Gateway"),
            ("ServiceName", &service),
            ("RouteTableId.1", &self.isolated.table),
        ];
        ec2("CreateVpcEndpoint", &parameters).await;
    }

    pub async fn remove_endpoint(&self, service: &str) {
        let name = format!("com.amazonaws.{REGION}.{service}");
        let filter = [
            ("Filter.1.Name", "vpc-id"),
            ("Filter.1.Value.1", self.isolated.vpc.as_str()),
            ("Filter.2.Name", "service-name"),
            ("Filter.2.Value.1", &name),
        ];
        let id = made("DescribeVpcEndpoints", &filter, "vpcEndpointId").await;
        ec2("DeleteVpcEndpoints", &[("VpcEndpointId.1", &id)]).await;
    }

    /// The head of a rule of TCP in a security group.
    pub fn rule<'a>(&self, group: &'a str, port: &'a str) -> [(&'a str, &'a str); 4] {
        [
            ("GroupId", group),
            ("IpPermissions.1.IpProtocol", "tcp"),
            ("IpPermissions.1.FromPort", port),
            ("IpPermissions.1.ToPort", port),
        ]
    }

    pub async fn found(&self, environment: &str) -> Findings {
        Findings::of(&self.operator, &["--environment", environment], &[]).await
    }

    /// What stands in ECS of an environment's task definition, as it is registered.
    pub async fn definition(&self, name: &str) -> Value {
        let described = ecs("DescribeTaskDefinition", json!({"taskDefinition": format!("doc-{name}")})).await;
        let mut definition = described["taskDefinition"].clone();
        let fields = definition.as_object_mut().expect("a definition");
        for key in ["taskDefinitionArn", "revision", "status", "compatibilities", "requiresAttributes", "registeredAt"]
        {
            fields.remove(key);
        }
        definition
    }

    /// Registers a changed task definition, looks, and registers the old one again.
    pub async fn found_with_definition(&self, name: &str, change: impl FnOnce(&mut Value)) -> Findings {
        let healthy = self.definition(name).await;
        let mut changed = healthy.clone();
        change(&mut changed);
        ecs("RegisterTaskDefinition", changed).await;
        let found = self.found(name).await;
        ecs("RegisterTaskDefinition", healthy).await;
        found
    }
}
