//! What the templates promise, one test for each promise.

use std::collections::HashSet;

use aws::stack::{
    Architecture, CacheBucket, DESIRED_COUNT, ManagerMode, ParameterValue, Place, RunnerToken, Stack, StackKind, stacks,
};
use serde_json::{Value, json};

use crate::options::{
    deployment, environment, every_option, full, own, place, provider, resource, resources, shared, stack, stacks_of,
    usual,
};

const SECURITY_GROUP: &str = "AWS::EC2::SecurityGroup";
const TASK_DEFINITION: &str = "AWS::ECS::TaskDefinition";

fn names(stacks: &[Stack]) -> Vec<&str> {
    stacks.iter().map(|stack| stack.name.as_str()).collect()
}

#[test]
fn each_environment_has_a_stack_and_each_manager_one_after_it() {
    let stacks = stacks_of(&usual());
    let expected =
        ["ci-dev", "ci-staging", "ci-production", "ci-dev-manager", "ci-staging-manager", "ci-production-manager"];
    assert_eq!(names(&stacks), expected);
    assert_eq!(stacks[3].kind, StackKind::Manager(Some("dev".into())));
    let stacks = stacks_of(&shared());
    assert_eq!(names(&stacks), ["ci-manager-access", "ci-dev", "ci-staging", "ci-production", "ci-manager"]);
    assert_eq!(names(&stacks_of(&own(None))), ["ci-dev"]);
}

/// Without Export, so that it holds across accounts and regions.
#[test]
fn every_parameter_is_filled_from_a_stack_that_is_there_by_then() {
    for (option, deployment) in every_option() {
        let mut outputs = HashSet::new();
        for stack in stacks_of(&deployment) {
            let given: HashSet<_> = stack.parameters.iter().map(|parameter| parameter.name.clone()).collect();
            let taken =
                stack.template["Parameters"].as_object().map(|it| it.keys().cloned().collect()).unwrap_or_default();
            assert_eq!(given, taken, "{option}: {}", stack.name);
            for parameter in &stack.parameters {
                if let ParameterValue::Output { stack: other, output } = &parameter.value {
                    assert!(outputs.contains(&(other.clone(), (*output).to_owned())), "{option}: {parameter:?}");
                }
            }
            let made = stack.template["Outputs"].as_object().into_iter().flat_map(|it| it.keys());
            outputs.extend(made.map(|output| (stack.name.clone(), output.clone())));
        }
    }
}

/// IAM refuses a trust policy that names a role of nobody.
#[test]
fn the_role_of_a_shared_manager_is_there_before_the_roles_that_let_it_in() {
    let stacks = stacks_of(&shared());
    let role = resource(&stacks[0].template, "AWS::IAM::Role");
    assert_eq!((&stacks[0].kind, &role["RoleName"]), (&StackKind::ManagerAccess, &json!("ci-manager")));
    let roles = resources(&stacks[1].template, "AWS::IAM::Role");
    let (_, manager) = roles.iter().find(|(_, role)| role["RoleName"] == "ci-dev-manager").expect("a manager role");
    let principal = &manager["AssumeRolePolicyDocument"]["Statement"][0]["Principal"];
    assert_eq!(*principal, json!({"AWS": "arn:aws:iam::111111111111:role/ci-manager"}));
}

#[test]
fn tasks_are_reached_on_port_22_by_their_manager_and_in_no_other_way() {
    let mut seen = HashSet::new();
    for (option, deployment) in every_option() {
        for stack in stacks_of(&deployment) {
            for (id, group) in resources(&stack.template, SECURITY_GROUP) {
                if id != "TaskSecurityGroup" {
                    assert_eq!(group["SecurityGroupIngress"], Value::Null, "{option}: {id} is reached by nobody");
                    continue;
                }
                let rules = group["SecurityGroupIngress"].as_array().expect("rules");
                let [rule] = &rules[..] else { panic!("{option}: {rules:?}") };
                assert_eq!(
                    (&rule["IpProtocol"], &rule["FromPort"], &rule["ToPort"]),
                    (&json!("tcp"), &json!(22), &json!(22))
                );
                let sources = ["SourceSecurityGroupId", "CidrIp"].map(|key| rule[key].clone());
                let [source] = &sources.iter().filter(|source| !source.is_null()).collect::<Vec<_>>()[..] else {
                    panic!("{option}: {rule}")
                };
                seen.insert(source.to_string());
            }
            for kind in ["AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"] {
                assert!(resources(&stack.template, kind).is_empty(), "{option}: rules go in one direction, facts 10.2");
            }
        }
    }
    let expected = [r#"{"Ref":"ManagerSecurityGroup"}"#, r#""10.0.0.0/16""#, r#""10.1.0.0/16""#];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

#[test]
fn a_manager_of_another_account_in_the_same_vpc_is_named_with_its_account() {
    let mut deployment = shared();
    deployment.manager = ManagerMode::Shared(Place { account: "999999999999".into(), ..place() });
    let stacks = stacks_of(&deployment);
    let groups = resources(&stack(&stacks, "ci-dev").template, SECURITY_GROUP);
    let [("TaskSecurityGroup", group)] = groups[..] else { panic!("{groups:?}") };
    assert_eq!(group["SecurityGroupIngress"][0]["SourceSecurityGroupOwnerId"], "999999999999");
}

/// Without a default strategy a RunTask without one looks for EC2 instances: the article's troubleshooting.
#[test]
fn a_cluster_has_both_capacity_providers_and_the_strategy_of_the_file() {
    let mut dev = environment("dev");
    dev.capacity_providers = vec![provider("FARGATE_SPOT", 4, 0), provider("FARGATE", 1, 2)];
    let stacks = stacks_of(&deployment(vec![dev]));
    let cluster = resource(&stack(&stacks, "ci-dev").template, "AWS::ECS::Cluster");
    assert_eq!(cluster["CapacityProviders"], json!(["FARGATE", "FARGATE_SPOT"]));
    let strategy = json!([
        {"CapacityProvider": "FARGATE_SPOT", "Weight": 4, "Base": 0},
        {"CapacityProvider": "FARGATE", "Weight": 1, "Base": 2},
    ]);
    assert_eq!(cluster["DefaultCapacityProviderStrategy"], strategy);
    let cluster = resource(&stack(&stacks, "ci-dev-manager").template, "AWS::ECS::Cluster");
    assert_eq!(cluster["DefaultCapacityProviderStrategy"], json!([{"CapacityProvider": "FARGATE", "Weight": 1}]));
}

#[test]
fn a_task_is_what_the_file_says_under_the_roles_and_with_the_log_of_its_environment() {
    let stacks = stacks_of(&full());
    let template = &stack(&stacks, "ci-dev").template;
    let definition = resource(template, TASK_DEFINITION);
    let arn = |name: &str| json!(format!("arn:aws:iam::111111111111:role/ci-dev-{name}"));
    for (key, expected) in [
        ("Family", json!("ci-dev")),
        ("Cpu", json!("1024")),
        ("Memory", json!("2048")),
        ("NetworkMode", json!("awsvpc")),
        ("RequiresCompatibilities", json!(["FARGATE"])),
        ("RuntimePlatform", json!({"CpuArchitecture": "ARM64", "OperatingSystemFamily": "LINUX"})),
        ("EphemeralStorage", json!({"SizeInGiB": 100})),
        ("TaskRoleArn", arn("job")),
        ("ExecutionRoleArn", arn("execution")),
    ] {
        assert_eq!(definition[key], expected, "{key}");
    }
    let container = &definition["ContainerDefinitions"][0];
    assert_eq!(container["Name"], "ci-coordinator");
    assert_eq!(container["Image"], "111111111111.dkr.ecr.eu-west-1.amazonaws.com/ci-dev/task:latest");
    assert_eq!(container["PortMappings"], json!([{"ContainerPort": 22, "Protocol": "tcp"}]));
    assert_eq!(container["StopTimeout"], 120);
    let log = &container["LogConfiguration"]["Options"];
    assert_eq!((&log["awslogs-region"], &log["mode"]), (&json!("eu-west-1"), &json!("non-blocking")));
    let group = resource(template, "AWS::Logs::LogGroup");
    assert_eq!((&group["LogGroupName"], &group["RetentionInDays"]), (&log["awslogs-group"], &json!(30)));
    let before = template["Resources"]["TaskDefinition"]["DependsOn"].as_array().expect("an order");
    assert_eq!(before, &["LogGroup", "JobRole", "ExecutionRole", "ManagerRole"].map(Value::from));
}

#[test]
fn what_the_file_does_not_say_is_not_in_the_task() {
    let stacks = stacks_of(&usual());
    let definition = resource(&stack(&stacks, "ci-dev").template, TASK_DEFINITION);
    assert_eq!(definition["EphemeralStorage"], Value::Null);
    assert_eq!(definition["RuntimePlatform"]["CpuArchitecture"], "X86_64");
}

/// With more than one, two managers would ask GitLab for the same jobs' tasks.
#[test]
fn one_manager_runs_at_a_time_and_a_bad_one_is_taken_back() {
    let mut deployment = usual();
    deployment.environments[0].place.assign_public_ip = true;
    let stacks = stacks_of(&deployment);
    let template = &stack(&stacks, "ci-dev-manager").template;
    let service = resource(template, "AWS::ECS::Service");
    let expected = json!({
        "MinimumHealthyPercent": 0, "MaximumPercent": 100, "DeploymentCircuitBreaker": {"Enable": true, "Rollback": true},
    });
    assert_eq!(service["DeploymentConfiguration"], expected);
    assert_eq!(service["AvailabilityZoneRebalancing"], "DISABLED");
    assert_eq!(service["DesiredCount"], json!({"Ref": DESIRED_COUNT}));
    // A change of the count alone is no deployment, and the breaker watches nothing else.
    let container = &resource(template, TASK_DEFINITION)["ContainerDefinitions"][0];
    assert_eq!(container["DockerLabels"], json!({"staffetta.desired-count": {"Ref": DESIRED_COUNT}}));
    let count = &template["Parameters"][DESIRED_COUNT];
    assert_eq!((&count["Default"], &count["MaxValue"]), (&json!(0), &json!(1)));
    let network = &service["NetworkConfiguration"]["AwsvpcConfiguration"];
    assert_eq!(network["SecurityGroups"], json!([{"Ref": "ManagerSecurityGroup"}]));
    assert_eq!((&network["AssignPublicIp"], &network["Subnets"]), (&json!("ENABLED"), &json!(place().subnets)));
}

#[test]
fn a_manager_runs_as_its_environments_manager_role_in_a_cluster_of_its_own_and_writes_to_one_folder() {
    let stacks = stacks_of(&usual());
    let template = &stack(&stacks, "ci-dev-manager").template;
    assert_eq!(resource(template, "AWS::ECS::Cluster")["ClusterName"], "ci-dev-manager");
    let definition = resource(template, TASK_DEFINITION);
    assert_eq!(definition["TaskRoleArn"], "arn:aws:iam::111111111111:role/ci-dev-manager");
    assert_eq!(definition["ExecutionRoleArn"], "arn:aws:iam::111111111111:role/ci-dev-manager-execution");
    let container = &definition["ContainerDefinitions"][0];
    let image =
        format!("111111111111.dkr.ecr.eu-west-1.amazonaws.com/ci-dev-manager/manager:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["Image"], json!(image));
    assert_eq!(container["ReadonlyRootFilesystem"], true);
    let state = json!([{"SourceVolume": "state", "ContainerPath": "/etc/gitlab-runner", "ReadOnly": false}]);
    assert_eq!((&container["MountPoints"], &definition["Volumes"]), (&state, &json!([{"Name": "state"}])));
    assert_eq!(container["LinuxParameters"]["Capabilities"], json!({"Drop": ["ALL"]}));
    assert_eq!(container["PortMappings"], Value::Null);
}

#[test]
fn a_shared_manager_has_the_token_of_each_environment_and_its_own_role() {
    let mut deployment = shared();
    let secret = "arn:aws:secretsmanager:eu-west-1:111111111111:secret:theirs-AbCdEf";
    deployment.environments[1].runner_token = RunnerToken::Secret(secret.into());
    let stacks = stacks_of(&deployment);
    let template = &stack(&stacks, "ci-manager").template;
    let definition = resource(template, TASK_DEFINITION);
    assert_eq!(definition["TaskRoleArn"], "arn:aws:iam::111111111111:role/ci-manager");
    let expected = json!([
        {"Name": "DEV_RUNNER_TOKEN", "ValueFrom": {"Ref": "RunnerTokendev"}},
        {"Name": "STAGING_RUNNER_TOKEN", "ValueFrom": secret},
        {"Name": "PRODUCTION_RUNNER_TOKEN", "ValueFrom": {"Ref": "RunnerTokenproduction"}},
    ]);
    assert_eq!(definition["ContainerDefinitions"][0]["Secrets"], expected);
    let made = resources(template, "AWS::SecretsManager::Secret");
    let made: Vec<_> = made.iter().map(|(_, secret)| secret["Name"].as_str().expect("a name")).collect();
    assert_eq!(made, ["ci-dev-runner-token", "ci-production-runner-token"]);
}

#[test]
fn no_token_stands_in_a_template() {
    for (option, deployment) in every_option() {
        for stack in stacks_of(&deployment) {
            for (id, secret) in resources(&stack.template, "AWS::SecretsManager::Secret") {
                for key in ["SecretString", "GenerateSecretString"] {
                    assert_eq!(secret[key], Value::Null, "{option}: {key} of {id}");
                }
            }
        }
    }
}

#[test]
fn the_managers_configuration_is_the_text_with_the_security_groups_in_their_places() {
    let text = "a ${AWS::Region} ${!x} $DEV_RUNNER_TOKEN";
    let stacks = stacks(&shared(), &|environments, group| {
        let of: Vec<_> = environments.iter().map(|it| format!("{}={}", it.name, group(it))).collect();
        format!("{text} {} {}", of.join(" "), group(environments[0]))
    });
    let definition = resource(&stack(&stacks, "ci-manager").template, TASK_DEFINITION);
    let [variable] = &definition["ContainerDefinitions"][0]["Environment"].as_array().expect("variables")[..] else {
        panic!("{definition}")
    };
    assert_eq!(variable["Name"], "CONFIG_TOML");
    let group = |name: &str| json!({"Ref": format!("TaskSecurityGroup{name}")});
    let pieces = json!([
        "",
        [
            format!("{text} dev="),
            group("dev"),
            " staging=",
            group("staging"),
            " production=",
            group("production"),
            " ",
            group("dev"),
            "",
        ]
    ]);
    assert_eq!(variable["Value"], json!({"Fn::Join": pieces}));
}

#[test]
fn environments_with_names_alike_do_not_get_into_each_others_way() {
    let mut deployment = shared();
    deployment.environments = ["a-1", "a1", "a-b", "ab"].map(environment).to_vec();
    let stacks = stacks_of(&deployment);
    let template = &stack(&stacks, "ci-manager").template;
    assert_eq!(resources(template, "AWS::SecretsManager::Secret").len(), 4);
    assert_eq!(template["Parameters"].as_object().expect("parameters").len(), 2 + 4);
}

/// What stayed would block its name.
#[test]
fn everything_goes_with_its_stack_and_has_the_tags() {
    for (option, deployment) in every_option() {
        for stack in stacks_of(&deployment) {
            for (id, it) in stack.template["Resources"].as_object().expect("resources") {
                assert_eq!((&it["DeletionPolicy"], &it["UpdateReplacePolicy"]), (&json!("Delete"), &json!("Delete")));
                let tags = it["Properties"]["Tags"].as_array().unwrap_or_else(|| panic!("{option}: {id} has no tags"));
                let pairs: Vec<_> = tags.iter().map(|it| (it["Key"].as_str(), it["Value"].as_str())).collect();
                let expected: Vec<_> =
                    stack.tags.iter().map(|(key, value)| (Some(key.as_str()), Some(value.as_str()))).collect();
                assert_eq!(pairs, expected, "{option}: {id}");
            }
            for (id, repository) in resources(&stack.template, "AWS::ECR::Repository") {
                assert_eq!(repository["EmptyOnDelete"], true, "{option}: {id}");
            }
        }
    }
}

#[test]
fn a_tag_of_the_environment_wins_over_one_of_the_deployment() {
    let stacks = stacks_of(&full());
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = [
        pair("cost-center", "42"),
        pair("staffetta:deployment", "ci"),
        pair("staffetta:environment", "dev"),
        pair("team", "platform"),
    ];
    assert_eq!(stack(&stacks, "ci-dev").tags, expected);
}

#[test]
fn the_bucket_of_caches_is_private_encrypted_and_empties_itself() {
    let mut dev = environment("dev");
    dev.cache = Some(CacheBucket { expire_days: 9 });
    let stacks = stacks_of(&deployment(vec![dev]));
    let bucket = resource(&stack(&stacks, "ci-dev").template, "AWS::S3::Bucket");
    assert_eq!(bucket["BucketName"], "ci-dev-cache-111111111111-eu-west-1");
    let closed = bucket["PublicAccessBlockConfiguration"].as_object().expect("a block");
    assert_eq!((closed.len(), closed.values().all(|it| it == true)), (4, true));
    let rule = &bucket["LifecycleConfiguration"]["Rules"][0];
    assert_eq!((&rule["ExpirationInDays"], &rule["Status"]), (&json!(9), &json!("Enabled")));
    let encryption = &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0];
    assert_eq!(encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256");
    assert!(resources(&stack(&stacks_of(&usual()), "ci-dev").template, "AWS::S3::Bucket").is_empty());
}

#[test]
fn a_repository_keeps_the_image_in_use_and_few_others() {
    let rules = |image: Option<&str>| {
        let mut dev = environment("dev");
        dev.image = image.map(str::to_owned);
        let stacks = stacks_of(&deployment(vec![dev]));
        let repository = resource(&stack(&stacks, "ci-dev").template, "AWS::ECR::Repository").clone();
        let text = repository["LifecyclePolicy"]["LifecyclePolicyText"].as_str().expect("a policy").to_owned();
        let policy: Value = serde_json::from_str(&text).expect("JSON");
        let rules = policy["rules"].as_array().expect("rules").clone();
        rules.iter().map(|rule| rule["selection"]["tagPatternList"][0].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let in_use = |tag: &str| vec![Some(tag.to_owned()), None];
    assert_eq!(rules(None), in_use("latest"));
    assert_eq!(rules(Some("111111111111.dkr.ecr.eu-west-1.amazonaws.com/ci-dev/task:v7")), in_use("v7"));
    assert_eq!(rules(Some("registry.example.com/other:v7")), [None]);
}

/// ECR's rules cannot name a digest, so any rule would remove it some day.
#[test]
fn a_repository_whose_image_is_named_by_its_digest_keeps_all() {
    for image in ["ci-dev/task@sha256:00", "ci-dev/task:v7@sha256:00"] {
        let mut dev = environment("dev");
        dev.image = Some(format!("111111111111.dkr.ecr.eu-west-1.amazonaws.com/{image}"));
        let stacks = stacks_of(&deployment(vec![dev]));
        let repository = resource(&stack(&stacks, "ci-dev").template, "AWS::ECR::Repository");
        assert_eq!(repository["LifecyclePolicy"], Value::Null, "{image}");
    }
}

#[test]
fn images_of_china_and_of_the_other_architecture_are_asked_for_where_they_are() {
    let mut deployment = deployment(vec![environment("dev")]);
    deployment.environments[0].place.region = "cn-north-1".into();
    deployment.service.architecture = Architecture::Arm64;
    let stacks = stacks_of(&deployment);
    let definition = resource(&stack(&stacks, "ci-dev").template, TASK_DEFINITION);
    let image = "111111111111.dkr.ecr.cn-north-1.amazonaws.com.cn/ci-dev/task:latest";
    assert_eq!(definition["ContainerDefinitions"][0]["Image"], image);
    assert_eq!(definition["TaskRoleArn"], "arn:aws-cn:iam::111111111111:role/ci-dev-job");
    let definition = resource(&stack(&stacks, "ci-dev-manager").template, TASK_DEFINITION);
    assert_eq!(definition["RuntimePlatform"]["CpuArchitecture"], "ARM64");
}
