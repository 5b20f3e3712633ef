//! A shared manager in a VPC of its own: doctor finds whether there is a way to the tasks, and back.

use serde_json::json;
use staffetta::deploy::file;
use testkit::Moto;

use crate::emulator_gaps::front_of;
use crate::findings::Findings;
use crate::healthy_world::{ec2, made, network};
use crate::operator::{ACCOUNT, Operator, REGION};

#[tokio::test]
async fn a_shared_manager_needs_routes_there_and_back() {
    let moto = Moto::shared();
    let front = front_of(moto).await;
    let operator = Operator::at(front.url());
    let (manager, tasks) = (network("10.70").await, network("10.71").await);
    let secret = json!({"Name": "hub-token", "SecretString": "glrt-x", "ClientRequestToken": "hub-token-with-32-letters-or-more"});
    let secret = moto.json("secretsmanager", "secretsmanager.CreateSecret", &secret).await;
    let file = format!(
        r#"
name = "hub"
gitlab_url = "http://127.0.0.1:9"
account = "{ACCOUNT}"
region = "{REGION}"
manager = "shared"
[manager_service]
vpc = "{}"
subnets = ["{}"]
[environments.dev]
vpc = "{}"
subnets = ["{}"]
manager_cidr = "10.70.1.0/24"
external_id = "some-agreed-text"
runner_token_secret = {}
"#,
        manager.vpc, manager.subnet, tasks.vpc, tasks.subnet, secret["ARN"]
    );
    operator.write(file::FILE, &file);
    operator.staffetta(&["deploy", "apply"]).await.good();
    let found = async || Findings::of(&operator, &[], &[]).await;

    let nothing = found().await;
    nothing.expect("dev", "manager-path", "bad", &[&format!("{} has no route to 10.71.1.0/24", manager.subnet)]);
    nothing.expect("dev", "ssh-in", "good", &["10.70.1.0/24 on port 22"]);
    nothing.expect("dev", "manager-egress", "good", &[]);

    let peering = [("VpcId", manager.vpc.as_str()), ("PeerVpcId", &tasks.vpc)];
    let peering = made("CreateVpcPeeringConnection", &peering, "vpcPeeringConnectionId").await;
    ec2("AcceptVpcPeeringConnection", &[("VpcPeeringConnectionId", &peering)]).await;
    let route = async |table: &str, block: &str| {
        let to = [("RouteTableId", table), ("DestinationCidrBlock", block), ("VpcPeeringConnectionId", &peering)];
        ec2("CreateRoute", &to).await;
    };
    route(&manager.table, "10.71.0.0/16").await;
    let command = format!("create-route --route-table-id {} --destination-cidr-block 10.70.1.0/24", tasks.table);
    found().await.expect("dev", "manager-path", "bad", &[&format!("{} has no route", tasks.subnet), &command]);
    route(&tasks.table, "10.70.0.0/16").await;
    found().await.expect("dev", "manager-path", "good", &[&format!("there and back by {peering}")]);
}
