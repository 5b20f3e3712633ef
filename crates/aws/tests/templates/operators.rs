//! What whoever runs the commands needs, held against CloudFormation's own schemas.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aws::AssumedRole;
use aws::stack::{Operator, Statement, document, managed_policies, operators, roles};
use serde_json::{Value, json};

use crate::options::{ACCOUNT, environment, every_option, full, own, shared, stacks_of, usual};

/// What the handlers of our types may call, and never do for our templates.
const NOT_NEEDED: [(&str, &str); 45] = [
    ("kms:*", "nothing has a key of its own"),
    ("ecs:PutAccountSetting", "cluster: no settings of the account"),
    ("ecs:PutAccountSettingDefault", "the same"),
    ("firehose:TagDeliveryStream", "log group: no delivery"),
    ("logs:AssociateKmsKey", "log group: no key"),
    ("logs:DisassociateKmsKey", "the same"),
    ("logs:CreateLogDelivery", "log group: no delivery"),
    ("s3:REST.PUT.OBJECT", "the same"),
    ("logs:PutDataProtectionPolicy", "log group: no policy"),
    ("logs:DeleteDataProtectionPolicy", "the same"),
    ("logs:PutIndexPolicy", "log group: no index"),
    ("logs:DeleteIndexPolicy", "the same"),
    ("logs:PutResourcePolicy", "log group: no policy of the resource"),
    ("logs:DeleteResourcePolicy", "the same"),
    ("logs:PutBearerTokenAuthentication", "log group: nobody writes with a bearer token"),
    ("logs:PutLogGroupDeletionProtection", "log group: it goes with its stack"),
    ("ec2:UpdateSecurityGroupRuleDescriptionsEgress", "security group: no rules for what leaves"),
    ("iam:UpdateRole", "role: neither description nor duration"),
    ("iam:UpdateRoleDescription", "the same"),
    ("iam:DeleteRolePermissionsBoundary", "role: nobody takes a boundary away"),
    ("secretsmanager:GetRandomPassword", "secret: it is made empty"),
    ("secretsmanager:GetSecretValue", "the same"),
    ("secretsmanager:*Replica*", "secret: in one region"),
    ("secretsmanager:*Regions", "the same"),
    ("ecr:SetRepositoryPolicy", "repository: no policy of its own"),
    ("ecr:DeleteRepositoryPolicy", "the same"),
    ("ecr:PutImageTagMutability", "repository: as ECR makes it"),
    ("s3tables:*", "bucket: no metadata tables"),
    ("s3:*BucketMetadata*TableConfiguration", "the same"),
    (
        "s3:Put*AccelerateConfiguration",
        "bucket: encryption, lifecycle, ownership, public access and tags are all it has",
    ),
    ("s3:Put*AnalyticsConfiguration", "the same"),
    ("s3:Put*InventoryConfiguration", "the same"),
    ("s3:Put*MetricsConfiguration", "the same"),
    ("s3:Put*IntelligentTieringConfiguration", "the same"),
    ("s3:Put*ReplicationConfiguration", "the same"),
    ("s3:Put*ObjectLockConfiguration", "the same"),
    ("s3:PutBucketAbac", "the same"),
    ("s3:*Acl", "the same"),
    ("s3:PutBucketCORS", "the same"),
    ("s3:PutBucketLogging", "the same"),
    ("s3:PutBucketNotification", "the same"),
    ("s3:PutBucketReplication", "the same"),
    ("s3:Put*BucketVersioning", "the same"),
    ("s3:PutBucketWebsite", "the same"),
    ("s3:Delete*", "bucket: what it has is changed, and goes with it"),
];

fn matches(pattern: &str, action: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = action.strip_prefix(first) else { return false };
    let pieces: Vec<_> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// Of a type: what its handlers create, read, update and delete with.
fn handlers(schemas: &Path, kind: &str) -> BTreeSet<String> {
    let read = |path: PathBuf| -> Value {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).expect("JSON")
    };
    let file = read(schemas.join("providers/us-east-1.json"))[kind].as_str().expect("a known type").to_owned();
    let schema = read(schemas.join(format!("resources/{file}.json")));
    let phases = ["create", "read", "update", "delete"].into_iter();
    let lists = phases.filter_map(|phase| schema["handlers"][phase]["permissions"].as_array());
    lists.flatten().map(|action| action.as_str().expect("an action").to_owned()).collect()
}

fn schemas() -> PathBuf {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cfn-lint/lib");
    let python = fs::read_dir(&libraries).expect("cfn-lint is installed by scripts/install-cfn-lint");
    let python = python.filter_map(Result::ok).next().expect("a folder of Python");
    python.path().join("site-packages/cfnlint/data/schemas")
}

fn is_by_cloudformation(statement: &Statement) -> bool {
    statement.conditions.iter().any(|condition| condition.key == "aws:CalledVia")
}

fn actions(operators: &[Operator], wanted: impl Fn(&Statement) -> bool) -> BTreeSet<String> {
    let statements = operators.iter().flat_map(|operator| &operator.statements);
    statements.filter(|it| wanted(it)).flat_map(|it| it.actions.iter().map(|action| (*action).to_owned())).collect()
}

#[test]
fn cloudformation_may_do_in_the_operators_name_what_its_handlers_do_for_these_templates_and_no_more() {
    let deployment = full();
    let kinds: BTreeSet<_> = stacks_of(&deployment)
        .iter()
        .flat_map(|stack| {
            stack.template["Resources"].as_object().expect("resources").values().cloned().collect::<Vec<_>>()
        })
        .map(|resource| resource["Type"].as_str().expect("a type").to_owned())
        .collect();
    assert_eq!(kinds.len(), 9, "{kinds:?}");
    let schemas = schemas();
    let called: BTreeSet<_> = kinds.iter().flat_map(|kind| handlers(&schemas, kind)).collect();
    let excepted = |action: &String| NOT_NEEDED.iter().any(|(pattern, _)| matches(pattern, action));
    let allowed = actions(&operators(&deployment), is_by_cloudformation);
    for (pattern, why) in NOT_NEEDED {
        assert!(called.iter().any(|action| matches(pattern, action)), "{pattern} is not called anyway: {why}");
    }
    // `iam:PassRole` of a task definition; buckets with replication have it too.
    let needed: BTreeSet<_> =
        called.iter().filter(|action| !excepted(action) || allowed.contains(*action)).cloned().collect();
    assert_eq!(allowed, needed);
}

#[test]
fn an_operator_makes_the_stacks_of_the_deployment_and_no_others() {
    for (option, deployment) in every_option() {
        let operators = operators(&deployment);
        let stacks = stacks_of(&deployment);
        let makes: Vec<_> = operators
            .iter()
            .flat_map(|operator| &operator.statements)
            .filter(|statement| statement.sid == "MakeStacks")
            .flat_map(|statement| statement.resources.clone())
            .collect();
        assert_eq!(makes.len(), stacks.len(), "{option}");
        for stack in &stacks {
            let end = format!(":{}:{}:stack/{}/*", stack.place.region, stack.place.account, stack.name);
            assert!(makes.iter().any(|arn| arn.ends_with(&end)), "{option}: {end}");
        }
        for statement in operators.iter().flat_map(|operator| &operator.statements) {
            let knows_none = statement.resources == ["*"];
            assert!(knows_none || !statement.resources.iter().any(|it| it == "*"), "{option}: {statement:?}");
        }
    }
}

#[test]
fn what_is_in_other_accounts_is_for_the_roles_there() {
    let mut deployment = shared();
    for (number, environment) in deployment.environments.iter_mut().enumerate().skip(1) {
        let account = number.to_string().repeat(12);
        environment.place.account = account.clone();
        environment.place.deploy_role = Some(AssumedRole {
            arn: format!("arn:aws:iam::{account}:role/deploy"),
            session_name: "staffetta".into(),
            external_id: None,
            tags: Vec::new(),
        });
    }
    deployment.environments[1].place.account = "222222222222".into();
    let operators = operators(&deployment);
    let of = |operator: &Operator| (operator.role.clone(), operator.account.clone());
    let role = |account: &str| Some(format!("arn:aws:iam::{account}:role/deploy"));
    let expected = [
        (None, Some(ACCOUNT.to_owned())),
        (role("111111111111"), Some("222222222222".to_owned())),
        (role("222222222222"), Some("222222222222".to_owned())),
    ];
    assert_eq!(operators.iter().map(of).collect::<Vec<_>>(), expected);
    let takes =
        |operator: &Operator| operator.statements.iter().any(|statement| statement.actions == ["sts:AssumeRole"]);
    assert_eq!(operators.iter().map(takes).collect::<Vec<_>>(), [true, false, false]);
    for (operator, other) in
        [(&operators[1], "ci-production"), (&operators[2], "ci-staging"), (&operators[1], "ci-dev")]
    {
        let text = document(&operator.statements).to_string();
        assert!(!text.contains(&format!("cluster/{other}")), "{text}");
    }
}

/// Also where no stack has a manager, and where the manager is in another account.
#[test]
fn doctor_may_read_the_token_of_every_environment_where_it_is() {
    let mut apart = shared();
    for environment in &mut apart.environments {
        environment.place.account = "222222222222".into();
    }
    for (deployment, secrets) in [
        (
            usual(),
            ["ci-dev-runner-token-??????", "ci-production-runner-token-??????", "ci-staging-runner-token-??????"]
                .to_vec(),
        ),
        (
            apart,
            ["ci-dev-runner-token-??????", "ci-production-runner-token-??????", "ci-staging-runner-token-??????"]
                .to_vec(),
        ),
        (own(None), vec!["gitlab/dev-AbCdEf"]),
    ] {
        let operators = operators(&deployment);
        let statements = operators.iter().flat_map(|operator| &operator.statements);
        let reads: Vec<_> = statements
            .filter(|statement| statement.actions.contains(&"secretsmanager:GetSecretValue"))
            .flat_map(|statement| statement.resources.clone())
            .collect();
        let expected =
            secrets.iter().map(|secret| format!("arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:{secret}"));
        assert_eq!(reads, expected.collect::<Vec<_>>());
    }
}

/// What makes a role mightier, or lets it be made.
const RIGHTS: [&str; 6] = [
    "iam:AttachRolePolicy",
    "iam:CreateRole",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
];

#[test]
fn a_role_with_a_boundary_gets_rights_within_it_only() {
    let mut deployment = usual();
    let boundary = format!("arn:aws:iam::{ACCOUNT}:policy/boundary");
    deployment.environments[2].permissions_boundary = Some(boundary.clone());
    let operators = operators(&deployment);
    let is_production = |role: &String| role.contains("/ci-production");
    let mut seen = BTreeSet::new();
    for statement in operators.iter().flat_map(|operator| &operator.statements) {
        if statement.resources.iter().any(is_production) {
            assert!(!statement.actions.contains(&"iam:DeleteRolePermissionsBoundary"), "{statement:?}");
            for action in RIGHTS.iter().filter(|action| statement.actions.contains(action)) {
                let condition = json!({"iam:PermissionsBoundary": [boundary]});
                assert_eq!(statement.json()["Condition"]["StringEquals"], condition, "{statement:?}");
                assert!(statement.resources.iter().all(is_production), "{statement:?}");
                seen.insert(*action);
            }
        }
    }
    assert_eq!(seen, RIGHTS.into());
    deployment.environments.truncate(2);
    let all = actions(&aws::stack::operators(&deployment), |it| it.sid.starts_with("RightsOf"));
    assert!(RIGHTS.iter().all(|action| all.contains(*action)), "{all:?}");
}

/// Their ids are not known before, and CloudFormation tags them too late for a condition on tags.
#[test]
fn groups_of_other_vpcs_are_opened_by_nobody() {
    for (option, deployment) in every_option() {
        let vpcs: BTreeSet<_> = stacks_of(&deployment).iter().map(|stack| stack.place.vpc.clone()).collect();
        for statement in operators(&deployment).iter().flat_map(|operator| &operator.statements) {
            let changes = ["ec2:AuthorizeSecurityGroup", "ec2:RevokeSecurityGroup", "ec2:DeleteSecurityGroup"];
            if statement.actions.iter().any(|action| changes.iter().any(|change| action.starts_with(change))) {
                let bound = statement.conditions.iter().find(|it| it.key == "ec2:Vpc").expect("bounded by the VPC");
                let is_ours = |arn: &String| vpcs.iter().any(|vpc| arn.ends_with(&format!(":vpc/{vpc}")));
                assert!(!bound.values.is_empty() && bound.values.iter().all(is_ours), "{option}: {bound:?}");
            }
        }
    }
}

/// Its name is free for everybody once it is deleted.
#[test]
fn caches_are_read_written_and_emptied_in_the_bucket_of_ones_own_account_alone() {
    let deployment = full();
    let operators = operators(&deployment);
    let roles = roles(&deployment);
    let all = operators.iter().flat_map(|it| &it.statements).chain(roles.iter().flat_map(|it| &it.statements));
    let own: Vec<_> = all.filter(|it| it.actions[0].starts_with("s3:") && !is_by_cloudformation(it)).collect();
    assert_eq!(own.len(), 4);
    for statement in own {
        let condition = json!({"StringEquals": {"aws:ResourceAccount": [ACCOUNT]}});
        assert_eq!(statement.json()["Condition"], condition, "{statement:?}");
    }
}

#[test]
fn the_operators_policy_comes_in_pieces_that_iam_takes() {
    let mut deployment = usual();
    deployment.environments = (0..10).map(|number| environment(&format!("environment-{number}"))).collect();
    let statements = operators(&deployment).remove(0).statements;
    let policies = managed_policies(&statements);
    assert!((2..=10).contains(&policies.len()), "{} policies, and a role may have ten", policies.len());
    let longest = policies.iter().map(|policy| policy.to_string().len()).max();
    assert!(longest <= Some(6_144), "{longest:?}");
    let all = policies.iter().flat_map(|policy| policy["Statement"].as_array().expect("statements").clone());
    assert_eq!(all.collect::<Vec<_>>(), statements.iter().map(Statement::json).collect::<Vec<_>>());
}
