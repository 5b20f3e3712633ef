//! What whoever runs `deploy` and `doctor` needs: for the calls of these commands, and for what CloudFormation does in their
//! name. Which actions know a resource is from AWS's Service Authorization Reference.

use super::by_cloudformation::{BUCKET, SECRET, arns_of, by_cloudformation};
use super::deployment::{Deployment, Environment, Place};
use super::names::arn;
use super::other_managers::other_managers;
use super::policy::{Statement, statement, with};
use super::roles::{ManagerWork, RESOURCE_ACCOUNT, ecr_repository, manager_statements, manager_work, token_secret_arn};
use super::stacks::{Stack, stacks};
use crate::AssumedRole;

/// Somebody in one account.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    /// The ARN of the `deploy_role` that is taken; none is the person or role that runs the commands.
    pub role: Option<String>,
    /// None: wherever that is.
    pub account: Option<String>,
    pub statements: Vec<Statement>,
}

/// Whoever runs the commands, and each `deploy_role`.
pub fn operators(deployment: &Deployment) -> Vec<Operator> {
    let stacks = stacks(deployment, &|_, _| String::new());
    let mut roles: Vec<Option<&AssumedRole>> = vec![None];
    for stack in &stacks {
        let role = stack.place.deploy_role.as_ref();
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    let take = roles.iter().flatten().map(|role| role.arn.clone()).collect();
    let mut operators = Vec::new();
    for role in roles {
        let is_here = |place: &Place| place.deploy_role.as_ref() == role;
        let here: Vec<_> = stacks.iter().filter(|stack| is_here(&stack.place)).collect();
        let mut statements = Vec::new();
        if !here.is_empty() {
            statements.extend(own_calls(deployment, &here, &is_here));
            statements.extend(by_cloudformation(&here));
        }
        let account = here.first().map(|stack| stack.place.account.clone());
        operators.push(Operator { role: role.map(|role| role.arn.clone()), account, statements });
    }
    operators[0].statements.extend(statement(
        "TakeDeployRoles",
        &["sts:AssumeRole"],
        take,
        "other accounts are reached as their `deploy_role`",
    ));
    operators.retain(|operator| !operator.statements.is_empty());
    operators
}

/// The calls of `deploy` and `doctor` themselves.
fn own_calls(deployment: &Deployment, stacks: &[&Stack], is_here: &dyn Fn(&Place) -> bool) -> Vec<Statement> {
    let environments: Vec<_> = deployment.environments.iter().filter(|it| is_here(&it.place)).collect();
    let managers: Vec<_> = deployment.managers().into_iter().filter(|manager| is_here(manager.place())).collect();
    let anywhere = || vec!["*".to_owned()];
    let stack_arn = |stack: &&Stack| arn(&stack.place, "cloudformation", &format!("stack/{}/*", stack.name));
    let stack_arns: Vec<_> = stacks.iter().map(stack_arn).collect();
    let of_environments =
        |resource: &dyn Fn(&Environment) -> String| environments.iter().map(|it| resource(it)).collect::<Vec<_>>();
    let task_images = environments.iter().map(|environment| deployment.task_image(environment));
    let images = task_images.chain(managers.iter().map(|manager| deployment.manager_image(*manager)));
    let tokens_here = deployment.environments.iter().filter(|it| is_here(deployment.token_place(it)));
    let made_secrets = arns_of(stacks, SECRET);
    let cache_buckets = arns_of(stacks, BUCKET);
    let accounts = environments.iter().map(|it| it.place.account.clone()).collect::<Vec<_>>();
    let in_accounts = |statement| with(statement, "StringEquals", RESOURCE_ACCOUNT, accounts.clone());
    let cached_objects = cache_buckets.iter().map(|bucket| format!("{bucket}/*")).collect();
    let roles = environments.iter().flat_map(|it| {
        [deployment.job_role_arn(it), deployment.execution_role_arn(it), deployment.manager_role_arn(it)]
    });
    let simulated =
        environments.iter().flat_map(|it| [deployment.manager_role_arn(it), deployment.execution_role_arn(it)]);
    let statements = [
        statement(
            "MakeStacks",
            &[
                "cloudformation:ContinueUpdateRollback",
                "cloudformation:CreateChangeSet",
                "cloudformation:CreateStack",
                "cloudformation:DeleteChangeSet",
                "cloudformation:DeleteStack",
                "cloudformation:DescribeChangeSet",
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStacks",
                "cloudformation:ExecuteChangeSet",
            ],
            stack_arns.clone(),
            "`deploy` makes, changes, watches and deletes the stacks of this deployment",
        ),
        statement(
            "LookForOtherManagers",
            &["cloudformation:DescribeStacks"],
            other_managers(deployment)
                .iter()
                .filter(|other| is_here(&other.place) && stacks.iter().all(|stack| stack.name != other.name))
                .map(|other| stack_arn(&other))
                .collect(),
            "managers that stand from a time with another `manager` are told before anything is changed",
        ),
        statement(
            "TagStacks",
            &["cloudformation:TagResource", "cloudformation:UntagResource"],
            stack_arns,
            "no calls of their own: CloudFormation asks for them when a stack is made or changed with tags",
        )
        .map(|statement| {
            with(
                statement,
                "StringEquals",
                "cloudformation:CreateAction",
                ["CreateChangeSet", "CreateStack", "ExecuteChangeSet"],
            )
        }),
        statement(
            "LookAtNetwork",
            &[
                "ec2:DescribeRouteTables",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcEndpoints",
            ],
            anywhere(),
            "subnets, routes, endpoints and security groups are looked at; EC2 knows no resource for this",
        ),
        statement(
            "LookAtClusters",
            &["ecs:DescribeClusters"],
            of_environments(&|it| arn(&it.place, "ecs", &format!("cluster/{}", deployment.environment_name(it)))),
            "the capacity providers of the cluster",
        ),
        statement(
            "LookAtManagers",
            &["ecs:DescribeServices"],
            managers
                .iter()
                .map(|manager| {
                    let name = deployment.manager_name(*manager);
                    arn(manager.place(), "ecs", &format!("service/{name}/{name}"))
                })
                .collect(),
            "whether the manager runs, and ECS's words if it does not",
        ),
        statement(
            "LookAtDefinitions",
            &["ecs:DescribeTaskDefinition", "logs:DescribeLogGroups"],
            anywhere(),
            "the task definition and its log group; neither action knows a resource",
        ),
        statement(
            "LookAtImages",
            &["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            images.filter_map(|image| ecr_repository(&image)).collect(),
            "whether the image is there, and for which architecture",
        ),
        statement("LookAtRoles", &["iam:GetRole"], roles.collect(), "whom the roles trust"),
        statement(
            "SimulateRoles",
            &["iam:SimulatePrincipalPolicy"],
            simulated.collect(),
            "whether the manager may do all that it does, and ECS prepare a task",
        ),
        statement(
            "LookAtQuotas",
            &["servicequotas:GetServiceQuota"],
            of_environments(&|it| arn(&it.place, "servicequotas", "fargate/*")),
            "how many vCPUs may run at once",
        ),
        statement(
            "LookAtTokens",
            &["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"],
            tokens_here.map(|it| token_secret_arn(deployment, deployment.token_place(it), it)).collect(),
            "`apply` looks whether the runner token is there; `doctor` reads it and asks GitLab about it",
        ),
        statement(
            "PutTokens",
            &["secretsmanager:PutSecretValue"],
            made_secrets,
            "`apply` puts the runner token into its secret",
        ),
        statement(
            "ListCaches",
            &["s3:ListBucket"],
            cache_buckets,
            "`destroy` empties the bucket, which CloudFormation does not",
        )
        .map(in_accounts),
        statement("DeleteCaches", &["s3:DeleteObject"], cached_objects, "the same").map(in_accounts),
    ];
    let mut statements: Vec<_> = statements.into_iter().flatten().collect();
    for statement in environments.iter().flat_map(|environment| trial(deployment, environment)) {
        join(&mut statements, statement);
    }
    statements
}

/// What `doctor --run` does like a manager; `destroy --even-with-running-jobs` lists and stops tasks too.
fn trial(deployment: &Deployment, environment: &Environment) -> Vec<Statement> {
    manager_statements(&ManagerWork { cache_bucket: None, ..manager_work(deployment, environment) })
}

/// Puts a statement into one of the same name: one policy has each name once.
fn join(statements: &mut Vec<Statement>, statement: Statement) {
    let Some(there) = statements.iter_mut().find(|there| there.sid == statement.sid) else {
        return statements.push(statement);
    };
    for resource in statement.resources {
        if !there.resources.contains(&resource) {
            there.resources.push(resource);
        }
    }
    for (condition, more) in there.conditions.iter_mut().zip(statement.conditions) {
        for value in more.values {
            if !condition.values.contains(&value) {
                condition.values.push(value);
            }
        }
    }
}
