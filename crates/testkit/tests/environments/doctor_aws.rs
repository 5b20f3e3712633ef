//! AWS's side: each fault is put into a healthy world by a call of AWS, doctor finds it and nothing else, and it is taken out
//! again.

use serde_json::{Value, json};
use staffetta::deploy::file;
use testkit::{Answer, AwsFront, Moto};

use crate::findings::Findings;
use crate::healthy_world::{NAMES, Network, SERVICES, World, ec2, ecr, ecs, in_world, index, made, push};
use crate::operator::{ACCOUNT, Operator, REGION};

/// That this is what is wrong, and nothing else; and that what is told of the last has these words.
#[track_caller]
fn expect(found: &Findings, environment: &str, faults: &[(&str, &str)], words: &[&str]) {
    assert_eq!(found.faults(environment), faults, "{found:#?}");
    let (check, verdict) = faults[faults.len() - 1];
    let all = found.of_check(environment, check);
    let text: Vec<_> = all.iter().filter(|it| it.0 == verdict).map(|it| format!("{} {}", it.1, it.2)).collect();
    for word in words {
        assert!(text.iter().any(|text| text.contains(word)), "no {word:?} in {text:?}");
    }
}

#[test]
fn a_healthy_world_has_no_findings() {
    in_world(async |world| {
        for name in NAMES {
            let found = world.found(name).await;
            assert_eq!((found.faults(name), found.code), (vec![], Some(0)), "{found:#?}");
        }
        let found = world.found("dev").await;
        found.expect("dev", "way-out", "good", &[&world.nat_gateway]);
        found.expect("dev", "ssh-in", "good", &[&world.dev.manager_group]);
        found.expect("dev", "vcpu-quota", "good", &["100 vCPU on demand"]);
        let found = world.found("isolated").await;
        found.expect("isolated", "way-out", "skipped", &["ecr.api, ecr.dkr, s3, logs", "127.0.0.1"]);
        found.expect("isolated", "vpc-endpoints", "good", &["ecr.api", "ecr.dkr", "logs"]);
    });
}

async fn put_providers(names: &[&str], default: &[&str]) {
    let default: Vec<_> = default.iter().map(|name| json!({"capacityProvider": name, "weight": 1})).collect();
    let question =
        json!({"cluster": "doc-dev", "capacityProviders": names, "defaultCapacityProviderStrategy": default});
    ecs("PutClusterCapacityProviders", question).await;
}

#[test]
fn a_cluster_without_a_default_strategy_is_found() {
    in_world(async |world| {
        put_providers(&["FARGATE", "FARGATE_SPOT"], &[]).await;
        let found = world.found("dev").await;
        put_providers(&["FARGATE", "FARGATE_SPOT"], &["FARGATE"]).await;
        let command = "put-cluster-capacity-providers --cluster doc-dev --capacity-providers FARGATE FARGATE_SPOT";
        expect(&found, "dev", &[("cluster-default-strategy", "warning")], &[command]);
    });
}

#[test]
fn a_capacity_provider_that_the_cluster_does_not_have_is_found() {
    in_world(async |world| {
        put_providers(&["FARGATE_SPOT"], &["FARGATE_SPOT"]).await;
        let found = world.found("dev").await;
        put_providers(&["FARGATE", "FARGATE_SPOT"], &["FARGATE"]).await;
        expect(
            &found,
            "dev",
            &[("cluster-providers", "bad")],
            &["does not have FARGATE", "--capacity-providers FARGATE_SPOT FARGATE"],
        );
        assert_eq!(found.code, Some(1));
    });
}

#[test]
fn a_cluster_that_was_deleted_is_found() {
    in_world(async |world| {
        ecs("DeleteCluster", json!({"cluster": "doc-dev"})).await;
        let found = world.found("dev").await;
        ecs("CreateCluster", json!({"clusterName": "doc-dev"})).await;
        put_providers(&["FARGATE", "FARGATE_SPOT"], &["FARGATE"]).await;
        expect(&found, "dev", &[("cluster", "bad")], &["doc-dev is INACTIVE", "create-cluster --cluster-name doc-dev"]);
    });
}

#[test]
fn a_container_of_another_name_is_found() {
    in_world(async |world| {
        let found = world.found_with_definition("dev", |it| it["containerDefinitions"][0]["name"] = json!("job")).await;
        expect(&found, "dev", &[("task-container", "bad")], &["no container ci-coordinator, only job"]);
    });
}

#[test]
fn a_container_without_port_22_is_found() {
    in_world(async |world| {
        let found =
            world.found_with_definition("dev", |it| it["containerDefinitions"][0]["portMappings"] = json!([])).await;
        expect(&found, "dev", &[("task-container", "warning")], &["not even 22", "\"containerPort\": 22"]);
    });
}

#[test]
fn cpu_and_memory_that_do_not_pair_are_found() {
    in_world(async |world| {
        let found = world.found_with_definition("dev", |it| it["memory"] = json!("1024")).await;
        expect(&found, "dev", &[("task-size", "bad")], &["cpu 1024 does not go with memory 1024 MiB"]);
    });
}

#[test]
fn a_task_definition_that_is_not_for_fargate_is_found() {
    in_world(async |world| {
        let for_instances = |it: &mut Value| {
            it["networkMode"] = json!("bridge");
            it["requiresCompatibilities"] = json!(["EC2"]);
        };
        let found = world.found_with_definition("dev", for_instances).await;
        let words = ["does not have networkMode awsvpc and FARGATE among its compatibilities"];
        expect(&found, "dev", &[("task-definition", "bad")], &words);
    });
}

#[test]
fn a_task_definition_that_was_deregistered_is_found() {
    in_world(async |world| {
        let healthy = world.definition("dev").await;
        let all = ecs("ListTaskDefinitions", json!({"familyPrefix": "doc-dev"})).await;
        for arn in all["taskDefinitionArns"].as_array().expect("revisions") {
            if arn.as_str().is_some_and(|arn| arn.contains("/doc-dev:")) {
                ecs("DeregisterTaskDefinition", json!({"taskDefinition": arn})).await;
            }
        }
        let found = world.found("dev").await;
        ecs("RegisterTaskDefinition", healthy).await;
        expect(&found, "dev", &[("task-definition", "bad"), ("vcpu-quota", "unknown")], &[]);
        found.expect("dev", "task-definition", "bad", &["was deregistered", "deploy apply"]);
    });
}

#[test]
fn a_task_definition_without_an_execution_role_is_found() {
    in_world(async |world| {
        let without = |it: &mut Value| {
            it.as_object_mut().expect("a definition").remove("executionRoleArn");
        };
        let found = world.found_with_definition("dev", without).await;
        expect(&found, "dev", &[("task-roles", "bad")], &["has no execution role", "AmazonECSTaskExecutionRolePolicy"]);
    });
}

#[test]
fn a_role_that_does_not_exist_is_found() {
    in_world(async |world| {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/gone");
        let found = world.found_with_definition("dev", |it| it["taskRoleArn"] = json!(role)).await;
        expect(&found, "dev", &[("task-roles", "bad")], &["the task role", "role/gone does not exist"]);
    });
}

#[test]
fn a_role_that_does_not_trust_ecs_is_found() {
    in_world(async |world| {
        let trust = async |service: &str| {
            let allow = json!({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"});
            let document = json!({"Version": "2012-10-17", "Statement": [allow]}).to_string();
            let parameters = [("RoleName", "doc-dev-execution"), ("PolicyDocument", &document)];
            Moto::shared().query("iam", "UpdateAssumeRolePolicy", &parameters).await;
        };
        trust("ec2.amazonaws.com").await;
        let found = world.found("dev").await;
        trust("ecs-tasks.amazonaws.com").await;
        let command = "aws iam update-assume-role-policy --role-name doc-dev-execution";
        expect(&found, "dev", &[("task-roles", "bad")], &["does not trust ecs-tasks.amazonaws.com", command]);
    });
}

#[test]
fn a_log_group_that_is_not_there_is_found() {
    in_world(async |world| {
        let group = json!({"logGroupName": "/staffetta/doc-dev"});
        Moto::shared().json("logs", "Logs_20140328.DeleteLogGroup", &group).await;
        let found = world.found("dev").await;
        Moto::shared().json("logs", "Logs_20140328.CreateLogGroup", &group).await;
        let command = "aws logs create-log-group --log-group-name /staffetta/doc-dev --region us-east-1";
        expect(&found, "dev", &[("task-log", "bad")], &[command]);
    });
}

#[test]
fn a_log_in_another_region_is_found() {
    in_world(async |world| {
        let abroad = |it: &mut Value| {
            it["containerDefinitions"][0]["logConfiguration"]["options"]["awslogs-region"] = json!("eu-west-1")
        };
        let found = world.found_with_definition("dev", abroad).await;
        // CreateLogStream and PutLogEvents, neither of which the execution role may do there.
        let denied = ("execution-permissions", "bad");
        let faults = [denied, denied, ("task-log", "warning"), ("task-log", "bad")];
        expect(&found, "dev", &faults, &["/staffetta/doc-dev is not there in eu-west-1"]);
    });
}

#[test]
fn an_image_that_is_not_in_the_repository_is_found() {
    in_world(async |world| {
        let question = json!({"repositoryName": "doc-dev/task", "imageIds": [{"imageTag": "latest"}]});
        ecr("BatchDeleteImage", question).await;
        let found = world.found("dev").await;
        push("doc-dev/task", "latest", &index("amd64")).await;
        expect(
            &found,
            "dev",
            &[("task-image", "bad")],
            &["doc-dev/task in us-east-1 has no image latest", "--platform linux/amd64 --push"],
        );
    });
}

#[test]
fn a_repository_that_is_not_there_is_found() {
    in_world(async |world| {
        let repository = json!({"repositoryName": "doc-dev/task", "force": true});
        ecr("DeleteRepository", repository.clone()).await;
        let found = world.found("dev").await;
        ecr("CreateRepository", repository).await;
        push("doc-dev/task", "latest", &index("amd64")).await;
        let words = ["has no repository doc-dev/task", "ecr create-repository --repository-name doc-dev/task"];
        expect(&found, "dev", &[("task-image", "bad")], &words);
    });
}

#[test]
fn an_image_for_another_architecture_is_found() {
    in_world(async |world| {
        push("doc-dev/task", "latest", &index("arm64")).await;
        let found = world.found("dev").await;
        push("doc-dev/task", "latest", &index("amd64")).await;
        expect(&found, "dev", &[("task-architecture", "bad")], &["is for arm64; tasks run on X86_64"]);
    });
}

#[test]
fn the_architecture_of_a_single_image_is_read_from_its_configuration() {
    in_world(async |world| {
        let moto = Moto::shared();
        moto.create_bucket("doc-layers").await;
        moto.put_object("doc-layers", "config", br#"{"architecture": "arm64", "os": "linux"}"#.to_vec()).await;
        // moto has no such call.
        let signed = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=peer/20260101/us-east-1/s3/aws4_request&X-Amz-Signature=made-up";
        let url = format!("{}/doc-layers/config?{signed}", moto.url());
        world.front.on("ecr:GetDownloadUrlForLayer", move |call, _| {
            let answer = json!({"downloadUrl": url, "layerDigest": call.text("layerDigest")});
            Some(Answer::new(200, answer.to_string()))
        });
        let image = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 1, "digest": format!("sha256:{}", "cd".repeat(32))},
            "layers": [],
        });
        push("doc-dev/task", "latest", &image).await;
        let found = world.found("dev").await;
        push("doc-dev/task", "latest", &index("amd64")).await;
        expect(&found, "dev", &[("task-architecture", "bad")], &["is for arm64; tasks run on X86_64"]);
    });
}

#[test]
fn a_quota_that_is_too_small_is_found() {
    in_world(async |world| {
        world.front.answer("servicequotas:GetServiceQuota", 200, r#"{"Quota": {"Value": 6.0}}"#);
        let found = world.found("dev").await;
        world.front.answer("servicequotas:GetServiceQuota", 200, r#"{"Quota": {"Value": 100.0}}"#);
        let command =
            "request-service-quota-increase --service-code fargate --quota-code L-3032A538 --desired-value 10";
        expect(&found, "dev", &[("vcpu-quota", "warning")], &["room for 6 tasks", command]);
        assert_eq!(found.code, Some(0));
    });
}

#[test]
fn a_subnet_that_does_not_exist_and_one_of_another_vpc_are_found() {
    in_world(async |world| {
        let healthy = world.operator.read(file::FILE);
        let with = |subnet: &str| {
            healthy
                .replace(&format!("[\"{}\"]", world.dev.subnet), &format!("[\"{}\", \"{subnet}\"]", world.dev.subnet))
        };
        world.operator.write(file::FILE, &with("subnet-0123456789abcdef0"));
        let missing = world.found("dev").await;
        world.operator.write(file::FILE, &with(&world.isolated.subnet));
        let other_vpc = world.found("dev").await;
        world.operator.write(file::FILE, &healthy);
        expect(&missing, "dev", &[("subnets", "bad")], &["not there in us-east-1: subnet-0123456789abcdef0"]);
        expect(&other_vpc, "dev", &[("subnets", "bad")], &["different VPCs", &world.isolated.vpc]);
    });
}

#[test]
fn a_subnet_with_too_few_addresses_is_found() {
    in_world(async |world| {
        let healthy = world.operator.read(file::FILE);
        // 16 addresses, of which AWS keeps five.
        let small = [("VpcId", world.dev.vpc.as_str()), ("CidrBlock", "10.50.9.0/28")];
        let small = made("CreateSubnet", &small, "subnetId").await;
        ec2("AssociateRouteTable", &[("RouteTableId", &world.dev.table), ("SubnetId", &small)]).await;
        world.operator.write(file::FILE, &healthy.replace(&world.dev.subnet, &small));
        let found = world.found("dev").await;
        world.operator.write(file::FILE, &healthy);
        expect(&found, "dev", &[("subnet-addresses", "warning")], &[&format!("{small} 11; 10 jobs at once want 15")]);
    });
}

#[test]
fn a_private_subnet_without_a_way_out_is_found() {
    in_world(async |world| {
        let route = [("RouteTableId", world.dev.table.as_str()), ("DestinationCidrBlock", "0.0.0.0/0")];
        let to = |target| [&route[..], &[target]].concat();
        ec2("DeleteRoute", &route).await;
        let none = world.found("dev").await;
        ec2("CreateRoute", &to(("GatewayId", &world.internet_gateway))).await;
        let without_address = world.found("dev").await;
        ec2("ReplaceRoute", &to(("NatGatewayId", &world.nat_gateway))).await;
        let create = format!("create-route --route-table-id {}", world.dev.table);
        let words = ["no route to the internet", "missing for ecr.api, ecr.dkr, s3, logs", &create];
        expect(&none, "dev", &[("way-out", "bad")], &words);
        expect(
            &without_address,
            "dev",
            &[("way-out", "bad")],
            &["tasks get no public address", "assign_public_ip = true"],
        );
    });
}

#[test]
fn exactly_the_missing_endpoint_of_an_isolated_subnet_is_found() {
    in_world(async |world| {
        for service in SERVICES {
            world.remove_endpoint(service).await;
            let found = world.found("isolated").await;
            world.make_endpoint(service).await;
            let command =
                format!("--service-name com.amazonaws.us-east-1.{service} --subnet-ids {}", world.isolated.subnet);
            expect(&found, "isolated", &[("way-out", "bad")], &[&format!("missing for {service}"), &command]);
        }
        world.remove_endpoint("s3").await;
        let found = world.found("isolated").await;
        world.make_endpoint_of_s3().await;
        let command = format!("--service-name com.amazonaws.us-east-1.s3 --route-table-ids {}", world.isolated.table);
        expect(&found, "isolated", &[("way-out", "bad")], &["missing for s3", &command]);
    });
}

#[test]
fn endpoints_that_do_not_let_tasks_in_are_found() {
    in_world(async |world| {
        world.let_into_endpoints("RevokeSecurityGroupIngress").await;
        let found = world.found("isolated").await;
        world.let_into_endpoints("AuthorizeSecurityGroupIngress").await;
        let command = format!(
            "authorize-security-group-ingress --group-id {} --protocol tcp --port 443 --source-group {}",
            world.endpoint_group, world.isolated.task_group
        );
        expect(&found, "isolated", &[("vpc-endpoints", "bad"); 3], &["ecr.api does not let in 443", &command]);
    });
}

#[test]
fn a_group_that_does_not_let_the_manager_in_is_found() {
    in_world(async |world| {
        let Network { task_group, manager_group, .. } = &world.dev;
        let rule = world.rule(task_group, "22");
        let from_manager = [&rule[..], &[("IpPermissions.1.Groups.1.GroupId", manager_group.as_str())]].concat();
        ec2("RevokeSecurityGroupIngress", &from_manager).await;
        let found = world.found("dev").await;
        ec2("AuthorizeSecurityGroupIngress", &from_manager).await;
        let command = format!(
            "authorize-security-group-ingress --group-id {task_group} --protocol tcp --port 22 --source-group {manager_group}"
        );
        expect(&found, "dev", &[("ssh-in", "bad")], &["lets nobody in on port 22", &command]);
    });
}

#[test]
fn port_22_for_everybody_is_found() {
    in_world(async |world| {
        let rule = world.rule(&world.dev.task_group, "22");
        let from_everywhere = [&rule[..], &[("IpPermissions.1.IpRanges.1.CidrIp", "0.0.0.0/0")]].concat();
        ec2("AuthorizeSecurityGroupIngress", &from_everywhere).await;
        let found = world.found("dev").await;
        ec2("RevokeSecurityGroupIngress", &from_everywhere).await;
        expect(
            &found,
            "dev",
            &[("ssh-in", "warning")],
            &["0.0.0.0/0 on port 22", "--protocol tcp --port 22 --cidr 0.0.0.0/0"],
        );
    });
}

#[test]
fn groups_that_let_nobody_out_are_found() {
    in_world(async |world| {
        let Network { task_group, manager_group, .. } = &world.dev;
        for (group, check) in [(task_group, "task-egress"), (manager_group, "manager-egress")] {
            let all = [
                ("GroupId", group.as_str()),
                ("IpPermissions.1.IpProtocol", "-1"),
                ("IpPermissions.1.IpRanges.1.CidrIp", "0.0.0.0/0"),
            ];
            ec2("RevokeSecurityGroupEgress", &all).await;
            let found = world.found("dev").await;
            ec2("AuthorizeSecurityGroupEgress", &all).await;
            expect(&found, "dev", &[(check, "bad")], &[&format!("authorize-security-group-egress --group-id {group}")]);
        }
    });
}

/// What doctor finds with a config.toml for the world's `dev` that names these security groups.
async fn found_with_groups(world: &World, groups: &[&str]) -> Findings {
    let operator = Operator::at(world.front.url());
    operator.write(
        "config.toml",
        &format!(
            "concurrent = 1\n[[runners]]\nname = \"dev\"\nurl = \"http://127.0.0.1:9\"\ntoken = \"glrt-x\"\nexecutor = \"fargate\"\n\
             [runners.fargate]\ncluster = \"doc-dev\"\nregion = \"{REGION}\"\ntask_definition = \"doc-dev\"\n\
             subnets = [\"{}\"]\nsecurity_groups = {groups:?}\n",
            world.dev.subnet
        ),
    );
    Findings::of(&operator, &["--config", "config.toml"], &[]).await
}

#[test]
fn security_groups_that_are_missing_or_of_another_vpc_are_found() {
    in_world(async |world| {
        let found = found_with_groups(world, &[&world.dev.task_group]).await;
        found.expect("dev", "security-groups", "good", &[&world.dev.task_group]);
        let found = found_with_groups(world, &[&world.dev.task_group, "sg-0123456789abcdef0"]).await;
        found.expect("dev", "security-groups", "bad", &["sg-0123456789abcdef0"]);
        let found = found_with_groups(world, &[&world.isolated.task_group]).await;
        found.expect("dev", "security-groups", "bad", &[&world.isolated.task_group, &world.isolated.vpc]);
    });
}

#[test]
fn credentials_of_another_account_are_found() {
    in_world(async |world| {
        let operator = Operator::at(world.front.url());
        let (own, other) = (format!("account = \"{ACCOUNT}\""), "account = \"210987654321\"");
        operator.write(file::FILE, &world.operator.read(file::FILE).replace(&own, other));
        let found = Findings::of(&operator, &["--environment", "dev"], &[]).await;
        let words = [&format!("in account {ACCOUNT}")[..], "the deployment is for account 210987654321", "deploy_role"];
        found.expect("dev", "aws-identity", "bad", &words);
        assert_eq!(found.code, Some(1));
    });
}

#[test]
fn what_the_operator_may_not_look_at_is_unknown_and_names_the_permission() {
    in_world(async |world| {
        let denied = ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"];
        for (action, code, checks) in [
            ("ecs:DescribeClusters", denied[1], &["cluster"][..]),
            ("ecs:DescribeTaskDefinition", denied[1], &["task-definition", "vcpu-quota"]),
            ("ecs:DescribeServices", denied[1], &["manager-service"]),
            ("ecr:BatchGetImage", denied[1], &["task-image"]),
            ("logs:DescribeLogGroups", denied[1], &["task-log"]),
            ("servicequotas:GetServiceQuota", denied[1], &["vcpu-quota"]),
            ("iam:GetRole", denied[0], &["manager-role", "task-roles", "task-roles"]),
            ("ec2:DescribeSubnets", denied[2], &["subnets"]),
            ("ec2:DescribeRouteTables", denied[2], &["way-out", "manager-path"]),
            ("ec2:DescribeVpcEndpoints", denied[2], &["vpc-endpoints"]),
            ("ec2:DescribeSecurityGroups", denied[2], &["security-groups"]),
        ] {
            let world_of_one = AwsFront::start(world.front.url()).await;
            world_of_one.fail(action, code, "not you");
            let operator = Operator::at(world_of_one.url());
            operator.write(file::FILE, &world.operator.read(file::FILE));
            let found = Findings::of(&operator, &["--environment", "dev"], &[]).await;
            let faults: Vec<_> = checks.iter().map(|check| (*check, "unknown")).collect();
            assert_eq!((found.faults("dev"), found.code), (faults, Some(2)), "{action}: {found:#?}");
            let first = found.of_check("dev", checks[0])[0];
            assert!(first.1.contains(action) && first.2.contains(action), "{first:?}");
        }
    });
}

#[test]
fn lists_of_several_pages_are_read_to_the_end() {
    in_world(async |world| {
        let front = AwsFront::start(world.front.url()).await;
        // A first page without anything; what is there comes with the next one.
        front.on("ec2:DescribeRouteTables", |call, _| {
            let page = "<R><routeTableSet/><nextToken>page-2</nextToken></R>";
            call.text("NextToken").is_empty().then(|| Answer::new(200, page))
        });
        front.on("logs:DescribeLogGroups", |call, _| {
            // moto does not know this token.
            let page = match call.text("nextToken") {
                "" => r#"{"logGroups": [{"logGroupName": "/staffetta/doc-dev-manager"}], "nextToken": "page-2"}"#,
                _ => r#"{"logGroups": [{"logGroupName": "/staffetta/doc-dev"}]}"#,
            };
            Some(Answer::new(200, page))
        });
        let operator = Operator::at(front.url());
        operator.write(file::FILE, &world.operator.read(file::FILE));
        let found = Findings::of(&operator, &["--environment", "dev"], &[]).await;
        assert_eq!((found.faults("dev"), found.code), (vec![], Some(0)), "{found:#?}");
        found.expect("dev", "way-out", "good", &[&world.nat_gateway]);
        found.expect("dev", "task-log", "good", &["/staffetta/doc-dev"]);
    });
}
