//! What CloudFormation does with the rights of whoever makes a stack.

use serde_json::Value;

use super::deployment::Place;
use super::names::arn;
use super::policy::{Statement, statement, with};
use super::roles::ECS_TASKS;
use super::stacks::Stack;

/// A type of resource, and what CloudFormation does with the caller's rights to make, read, change and delete one.
struct Kind {
    name: &'static str,
    sid: &'static str,
    service: &'static str,
    /// What it is called by, and its resources in policies.
    property: &'static str,
    resources: &'static [&'static str],
    actions: &'static [&'static str],
    /// Actions that know no resource.
    anywhere: &'static [&'static str],
}

pub(super) const SECRET: &str = "AWS::SecretsManager::Secret";
pub(super) const BUCKET: &str = "AWS::S3::Bucket";
const TASK_DEFINITION: &str = "AWS::ECS::TaskDefinition";
const SECURITY_GROUP: &str = "AWS::EC2::SecurityGroup";
const ROLE: &str = "AWS::IAM::Role";

/// The actions are those of `handlers` in CloudFormation's schemas of these types, without what is for properties that the
/// templates do not have, and without those of `rules_of_groups` and `rights_of_roles`. A test compares them with the schemas in
/// cfn-lint.
static KINDS: [Kind; 9] = [
    Kind {
        name: "AWS::ECS::Cluster",
        sid: "Clusters",
        service: "ecs",
        property: "ClusterName",
        resources: &["cluster/{}"],
        actions: &[
            "ecs:CreateCluster",
            "ecs:DeleteCluster",
            "ecs:DescribeClusters",
            "ecs:ListTagsForResource",
            "ecs:PutClusterCapacityProviders",
            "ecs:TagResource",
            "ecs:UntagResource",
            "ecs:UpdateCluster",
            "ecs:UpdateClusterSettings",
        ],
        anywhere: &[],
    },
    Kind {
        name: TASK_DEFINITION,
        sid: "TaskDefinitions",
        service: "ecs",
        property: "Family",
        resources: &["task-definition/{}:*"],
        actions: &["ecs:ListTagsForResource", "ecs:RegisterTaskDefinition", "ecs:TagResource", "ecs:UntagResource"],
        anywhere: &["ecs:DeregisterTaskDefinition", "ecs:DescribeTaskDefinition"],
    },
    Kind {
        name: "AWS::ECS::Service",
        sid: "Services",
        service: "ecs",
        // The manager's cluster is called like its service.
        property: "ServiceName",
        resources: &["service/{}/{}", "service-deployment/{}/{}/*"],
        actions: &[
            "ecs:CreateService",
            "ecs:DeleteService",
            "ecs:DescribeServiceDeployments",
            "ecs:DescribeServices",
            "ecs:ListServiceDeployments",
            "ecs:ListTagsForResource",
            "ecs:StopServiceDeployment",
            "ecs:TagResource",
            "ecs:UntagResource",
            "ecs:UpdateService",
        ],
        anywhere: &[],
    },
    Kind {
        name: "AWS::Logs::LogGroup",
        sid: "LogGroups",
        service: "logs",
        property: "LogGroupName",
        resources: &["log-group:{}", "log-group:{}:*"],
        actions: &[
            "logs:CreateLogGroup",
            "logs:DeleteLogGroup",
            "logs:DeleteRetentionPolicy",
            "logs:GetDataProtectionPolicy",
            "logs:ListTagsForResource",
            "logs:PutRetentionPolicy",
            "logs:TagResource",
            "logs:UntagResource",
        ],
        anywhere: &["logs:DescribeIndexPolicies", "logs:DescribeLogGroups", "logs:DescribeResourcePolicies"],
    },
    Kind {
        name: SECURITY_GROUP,
        sid: "SecurityGroups",
        service: "ec2",
        property: "VpcId",
        // Their ids are not known before.
        resources: &["security-group/*", "vpc/{}"],
        actions: &["ec2:CreateSecurityGroup", "ec2:CreateTags", "ec2:DeleteTags"],
        anywhere: &["ec2:DescribeInstances", "ec2:DescribeSecurityGroups"],
    },
    Kind {
        name: ROLE,
        sid: "Roles",
        service: "iam",
        property: "RoleName",
        resources: &["role/{}"],
        actions: &[
            "iam:DeleteRole",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:ListAttachedRolePolicies",
            "iam:ListRolePolicies",
            "iam:TagRole",
            "iam:UntagRole",
            "iam:UpdateAssumeRolePolicy",
        ],
        anywhere: &[],
    },
    Kind {
        name: SECRET,
        sid: "Secrets",
        service: "secretsmanager",
        property: "Name",
        resources: &["secret:{}-??????"],
        actions: &[
            "secretsmanager:CreateSecret",
            "secretsmanager:DeleteSecret",
            "secretsmanager:DescribeSecret",
            "secretsmanager:TagResource",
            "secretsmanager:UntagResource",
            "secretsmanager:UpdateSecret",
        ],
        anywhere: &[],
    },
    Kind {
        name: BUCKET,
        sid: "Buckets",
        service: "s3",
        property: "BucketName",
        resources: &["{}"],
        actions: &[
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:GetAccelerateConfiguration",
            "s3:GetAnalyticsConfiguration",
            "s3:GetBucketAbac",
            "s3:GetBucketCORS",
            "s3:GetBucketLogging",
            "s3:GetBucketMetadataTableConfiguration",
            "s3:GetBucketNotification",
            "s3:GetBucketObjectLockConfiguration",
            "s3:GetBucketOwnershipControls",
            "s3:GetBucketPublicAccessBlock",
            "s3:GetBucketTagging",
            "s3:GetBucketVersioning",
            "s3:GetBucketWebsite",
            "s3:GetEncryptionConfiguration",
            "s3:GetIntelligentTieringConfiguration",
            "s3:GetInventoryConfiguration",
            "s3:GetLifecycleConfiguration",
            "s3:GetMetricsConfiguration",
            "s3:GetReplicationConfiguration",
            "s3:ListBucket",
            "s3:ListTagsForResource",
            "s3:PutBucketOwnershipControls",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketTagging",
            "s3:PutEncryptionConfiguration",
            "s3:PutLifecycleConfiguration",
            "s3:TagResource",
            "s3:UntagResource",
        ],
        anywhere: &[],
    },
    Kind {
        name: "AWS::ECR::Repository",
        sid: "Repositories",
        service: "ecr",
        property: "RepositoryName",
        resources: &["repository/{}"],
        actions: &[
            "ecr:CreateRepository",
            "ecr:DeleteLifecyclePolicy",
            "ecr:DeleteRepository",
            "ecr:DescribeRepositories",
            "ecr:GetLifecyclePolicy",
            "ecr:GetRepositoryPolicy",
            "ecr:ListTagsForResource",
            "ecr:PutImageScanningConfiguration",
            "ecr:PutLifecyclePolicy",
            "ecr:TagResource",
            "ecr:UntagResource",
        ],
        anywhere: &[],
    },
];

/// Every resource of a type in these stacks, with its place.
fn of_kind<'a>(stacks: &[&'a Stack], kind: &str) -> Vec<(&'a Place, &'a Value)> {
    let all = stacks.iter().flat_map(|stack| {
        let resources = stack.template["Resources"].as_object().into_iter().flat_map(|resources| resources.values());
        resources.map(|resource| (&stack.place, resource))
    });
    all.filter(|(_, resource)| resource["Type"] == kind).map(|(place, it)| (place, &it["Properties"])).collect()
}

/// What policies call the resources of a type in these stacks.
pub(super) fn arns_of(stacks: &[&Stack], name: &str) -> Vec<String> {
    let mut arns = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.name == name) {
        for (place, properties) in of_kind(stacks, name) {
            let name = properties[kind.property].as_str().unwrap_or_default();
            arns.extend(kind.resources.iter().map(|resource| arn(place, kind.service, &resource.replace("{}", name))));
        }
    }
    arns
}

const WHY: &str = "CloudFormation makes and deletes what is in the stacks with the rights of whoever called it";

/// Who may reach what is in a security group. The ids are not known before, and CloudFormation tags a group only after its rules
/// (aws-cdk issue 13204), so no tag can bound this: the VPC does.
fn rules_of_groups(stacks: &[&Stack]) -> Option<Statement> {
    let (vpcs, groups): (Vec<_>, Vec<_>) =
        arns_of(stacks, SECURITY_GROUP).into_iter().partition(|arn| arn.contains(":vpc/"));
    let actions = [
        "ec2:AuthorizeSecurityGroupEgress",
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:DeleteSecurityGroup",
        "ec2:RevokeSecurityGroupEgress",
        "ec2:RevokeSecurityGroupIngress",
        "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
    ];
    let made = statement("SecurityGroupRules", &actions, groups, "the same; in these VPCs only")?;
    Some(with(made, "ArnEquals", "ec2:Vpc", vpcs))
}

/// What a role may do. One with a boundary of the file is made, and gets policies, only while it has that boundary, and nobody
/// takes it away: whoever has this makes nothing mightier.
fn rights_of_roles(stacks: &[&Stack]) -> Vec<Statement> {
    let actions = [
        "iam:AttachRolePolicy",
        "iam:CreateRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
        "iam:PutRolePermissionsBoundary",
        "iam:PutRolePolicy",
    ];
    let (mut free, mut bounded, mut boundaries) = (Vec::new(), Vec::new(), Vec::new());
    for (place, role) in of_kind(stacks, ROLE) {
        let role_arn = arn(place, "iam", &format!("role/{}", role["RoleName"].as_str().unwrap_or_default()));
        match role["PermissionsBoundary"].as_str() {
            Some(boundary) => {
                bounded.push(role_arn);
                boundaries.push(boundary.to_owned());
            }
            None => free.push(role_arn),
        }
    }
    let takes_away = ["iam:DeleteRolePermissionsBoundary"];
    let free = statement("RightsOfRoles", &[&takes_away[..], &actions[..]].concat(), free, WHY);
    let bounded = statement("RightsOfBoundedRoles", &actions, bounded, "the same; within the `permissions_boundary`");
    let bounded = bounded.map(|it| with(it, "StringEquals", "iam:PermissionsBoundary", boundaries));
    free.into_iter().chain(bounded).collect()
}

/// What CloudFormation does in the caller's name, which nobody can do directly with these statements.
pub(super) fn by_cloudformation(stacks: &[&Stack]) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut anywhere = Vec::new();
    for kind in &KINDS {
        let made = statement(kind.sid, kind.actions, arns_of(stacks, kind.name), WHY);
        if made.is_some() {
            anywhere.extend(kind.anywhere);
        }
        statements.extend(made);
    }
    statements.extend(statement(
        "AnyResource",
        &anywhere,
        vec!["*".into()],
        "the same; these actions know no resource",
    ));
    statements.extend(rules_of_groups(stacks));
    statements.extend(rights_of_roles(stacks));
    let mut passed = Vec::new();
    let mut linked = Vec::new();
    for (place, definition) in of_kind(stacks, TASK_DEFINITION) {
        let roles = [&definition["TaskRoleArn"], &definition["ExecutionRoleArn"]];
        passed.extend(roles.into_iter().filter_map(Value::as_str).map(str::to_owned));
        linked.push(arn(place, "iam", "role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"));
    }
    let pass = statement("PassRoles", &["iam:PassRole"], passed, "a task definition names its two roles");
    statements.extend(pass.map(|it| with(it, "StringEquals", "iam:PassedToService", [ECS_TASKS])));
    let why = "the first cluster of an account makes the role by which ECS attaches network interfaces";
    let link = statement("LinkEcs", &["iam:CreateServiceLinkedRole"], linked, why);
    statements.extend(link.map(|it| with(it, "StringEquals", "iam:AWSServiceName", ["ecs.amazonaws.com"])));
    let called = |it| with(it, "ForAnyValue:StringEquals", "aws:CalledVia", ["cloudformation.amazonaws.com"]);
    statements.into_iter().map(called).collect()
}
