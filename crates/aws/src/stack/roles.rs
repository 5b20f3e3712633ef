//! The roles that the stacks make, and why each may do what it may. The facts of IAM are those of facts 9 and of AWS's Service
//! Authorization Reference.

use serde_json::{Value, json};

use super::deployment::{Deployment, Environment, JobRole, ManagerMode, Place, RunnerToken};
use super::names::{ManagerOf, arn, partition};
use super::policy::{Condition, Purpose, Role, Statement};
use crate::inspect::EcrImage;

/// All roles: of each environment, then of the managers' ECS services. Roles that the file brings along are not among them.
pub fn roles(deployment: &Deployment) -> Vec<Role> {
    let mut roles = Vec::new();
    for environment in &deployment.environments {
        roles.extend(environment_roles(deployment, environment));
    }
    for manager in deployment.managers() {
        if let ManagerOf::All(place) = manager {
            roles.push(shared_manager_role(deployment, place));
        }
        roles.push(manager_execution_role(deployment, manager));
    }
    roles
}

/// The roles of an environment's stack.
pub(super) fn environment_roles(deployment: &Deployment, environment: &Environment) -> Vec<Role> {
    let role = |purpose, name, trust, statements| Role {
        purpose,
        name,
        account: environment.place.account.clone(),
        environment: Some(environment.name.clone()),
        trust,
        managed: Vec::new(),
        given: None,
        statements,
        boundary: environment.permissions_boundary.clone(),
    };
    let mut roles = Vec::new();
    if let JobRole::Made { policies, inline } = &environment.job_role {
        let name = deployment.job_role_name(environment);
        let role = role(Purpose::Job, name, trusts_ecs(&environment.place), Vec::new());
        roles.push(Role { managed: policies.clone(), given: inline.clone(), ..role });
    }
    if environment.execution_role.is_none() {
        let (place, log_group) = (&environment.place, deployment.log_group(environment));
        let statements = task_preparation(place, &deployment.task_image(environment), &log_group);
        let name = deployment.execution_role_name(environment);
        roles.push(role(Purpose::Execution, name, trusts_ecs(place), statements));
    }
    if environment.manager_role.is_none() {
        let name = deployment.manager_role_name(environment);
        let trust = trusts_manager(deployment, environment);
        roles.push(role(Purpose::Manager, name, trust, manager_statements(&manager_work(deployment, environment))));
    }
    roles
}

/// The role of a shared manager's task.
pub(super) fn shared_manager_role(deployment: &Deployment, place: &Place) -> Role {
    let manager = ManagerOf::All(place);
    let take = Statement {
        sid: "TakeManagerRoles",
        actions: vec!["sts:AssumeRole"],
        resources: deployment.environments.iter().map(|environment| deployment.manager_role_arn(environment)).collect(),
        conditions: Vec::new(),
        why: "everything that a shared manager does in AWS it does as the manager role of the job's environment",
    };
    service_role(deployment, manager, Purpose::SharedManager, deployment.manager_name(manager), vec![take])
}

/// With which ECS prepares a manager's own task.
pub(super) fn manager_execution_role(deployment: &Deployment, manager: ManagerOf) -> Role {
    let place = manager.place();
    let log_group = deployment.manager_log_group(manager);
    let mut statements = task_preparation(place, &deployment.manager_image(manager), &log_group);
    let environments = deployment.environments_of(manager).into_iter();
    statements.push(Statement {
        sid: "ReadRunnerTokens",
        actions: vec!["secretsmanager:GetSecretValue"],
        resources: environments.map(|environment| token_secret_arn(deployment, place, environment)).collect(),
        conditions: Vec::new(),
        why: "ECS puts the runner tokens into the manager's environment",
    });
    let name = deployment.manager_execution_role_name(manager);
    service_role(deployment, manager, Purpose::ManagerExecution, name, statements)
}

fn service_role(
    deployment: &Deployment,
    manager: ManagerOf,
    purpose: Purpose,
    name: String,
    statements: Vec<Statement>,
) -> Role {
    let (environment, boundary) = match manager {
        ManagerOf::One(environment) => (Some(environment.name.clone()), environment.permissions_boundary.clone()),
        ManagerOf::All(_) => (None, deployment.service.permissions_boundary.clone()),
    };
    Role {
        purpose,
        name,
        account: manager.place().account.clone(),
        environment,
        trust: trusts_ecs(manager.place()),
        managed: Vec::new(),
        given: None,
        statements,
        boundary,
    }
}

/// What a manager does in AWS for the jobs of one runner: from this follows what its role needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerWork {
    /// The ARN of the cluster.
    pub cluster: String,
    /// ARNs of the task definitions that are started: of all revisions with `:*`.
    pub task_definitions: Vec<String>,
    /// ARNs of the task definition's task role and execution role.
    pub task_roles: Vec<String>,
    /// Tasks get the tags of their task definition.
    pub tags_tasks: bool,
    /// Tasks are reached by their public addresses.
    pub finds_public_addresses: bool,
    /// The ARN of the bucket of caches, which is in the cluster's account.
    pub cache_bucket: Option<String>,
}

/// Of the manager of an environment.
pub fn manager_work(deployment: &Deployment, environment: &Environment) -> ManagerWork {
    let place = &environment.place;
    let name = deployment.environment_name(environment);
    ManagerWork {
        cluster: arn(place, "ecs", &format!("cluster/{name}")),
        task_definitions: vec![arn(place, "ecs", &format!("task-definition/{name}:*"))],
        task_roles: vec![deployment.job_role_arn(environment), deployment.execution_role_arn(environment)],
        tags_tasks: true,
        finds_public_addresses: false,
        cache_bucket: environment.cache.as_ref().map(|_| arn(place, "s3", &deployment.cache_bucket(environment))),
    }
}

/// What the role of a manager needs. `iam:PassRole` and `ecs:TagResource` are no calls: ECS asks for them when RunTask starts
/// a task with these roles, and when it gives the task tags (the config.toml that is made here has `propagate_tags`; AWS page
/// "Grant permission to tag resources on creation"). ECS has no condition for subnets and security groups.
pub fn manager_statements(work: &ManagerWork) -> Vec<Statement> {
    let on_cluster = || Condition { operator: "ArnEquals", key: "ecs:cluster", values: vec![work.cluster.clone()] };
    let tasks = format!("{}/*", work.cluster.replacen(":cluster/", ":task/", 1));
    let mut statements = vec![Statement {
        sid: "StartTasks",
        actions: vec!["ecs:RunTask"],
        resources: work.task_definitions.clone(),
        conditions: vec![on_cluster()],
        why: "one task for each job, from this environment's task definition, in its cluster",
    }];
    if work.tags_tasks {
        statements.push(Statement {
            sid: "TagTasks",
            actions: vec!["ecs:TagResource"],
            resources: vec![tasks.clone()],
            conditions: vec![Condition {
                operator: "StringEquals",
                key: "ecs:CreateAction",
                values: vec!["RunTask".into()],
            }],
            why: "a task gets the tags of its task definition when it is started, for the bill; later nobody can tag it",
        });
    }
    statements.push(Statement {
        sid: "WatchAndStopTasks",
        actions: vec!["ecs:DescribeTasks", "ecs:StopTask"],
        resources: vec![tasks],
        conditions: Vec::new(),
        why: "to reach a task, to see how it ended, and to end it",
    });
    statements.push(Statement {
        sid: "FindTasks",
        actions: vec!["ecs:ListTasks"],
        // It knows no resource that a task without an instance has.
        resources: vec!["*".into()],
        conditions: vec![on_cluster()],
        why: "after a restart the manager looks for the tasks that it had",
    });
    if !work.task_roles.is_empty() {
        statements.push(Statement {
            sid: "PassTaskRoles",
            actions: vec!["iam:PassRole"],
            resources: work.task_roles.clone(),
            conditions: vec![Condition {
                operator: "StringEquals",
                key: "iam:PassedToService",
                values: vec![ECS_TASKS.into()],
            }],
            why: "a task is started with these two roles and no others",
        });
    }
    if work.finds_public_addresses {
        statements.push(Statement {
            sid: "FindPublicAddresses",
            actions: vec!["ec2:DescribeNetworkInterfaces"],
            resources: vec!["*".into()],
            conditions: Vec::new(),
            why: "ECS does not tell a task's public address; EC2's answer knows no resource",
        });
    }
    if let Some(bucket) = &work.cache_bucket {
        let account = work.cluster.split(':').nth(4).unwrap_or_default();
        let in_account =
            || Condition { operator: "StringEquals", key: RESOURCE_ACCOUNT, values: vec![account.to_owned()] };
        statements.push(Statement {
            sid: "SignForCaches",
            actions: vec!["s3:GetObject", "s3:PutObject"],
            resources: vec![format!("{bucket}/*")],
            conditions: vec![in_account()],
            why: "the manager signs an address for each cache of a job; the task has no right of its own there",
        });
        statements.push(Statement {
            sid: "TellMissingCaches",
            actions: vec!["s3:ListBucket"],
            resources: vec![bucket.clone()],
            conditions: vec![in_account()],
            why: "nothing is listed, but without it S3 calls a cache that is not there forbidden",
        });
    }
    statements
}

/// A bucket's name is free for everybody once it is deleted: with this another account's bucket of the name is out of reach.
pub(super) const RESOURCE_ACCOUNT: &str = "aws:ResourceAccount";

pub(super) const ECS_TASKS: &str = "ecs-tasks.amazonaws.com";

fn task_preparation(place: &Place, image: &str, log_group: &str) -> Vec<Statement> {
    execution_statements(&[image], &[], &[arn(place, "logs", &format!("log-group:{log_group}:*"))])
}

/// What an execution role needs, as which ECS prepares a task: it pulls the images, reads the secrets and opens the logs.
/// `secrets` and `log_groups` are ARNs; those of log groups end in `:*`.
pub fn execution_statements(images: &[&str], secrets: &[String], log_groups: &[String]) -> Vec<Statement> {
    let mut statements = Vec::new();
    let repositories: Vec<_> = images.iter().filter_map(|image| ecr_repository(image)).collect();
    if !repositories.is_empty() {
        statements.push(Statement {
            sid: "LogInToRegistry",
            actions: vec!["ecr:GetAuthorizationToken"],
            resources: vec!["*".into()],
            conditions: Vec::new(),
            why: "the image is in ECR; the log-in knows no resource",
        });
        statements.push(Statement {
            sid: "PullImage",
            actions: vec!["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            resources: repositories,
            conditions: Vec::new(),
            why: "the image's own repository and no other",
        });
    }
    let (parameters, secrets): (Vec<_>, Vec<_>) = secrets.iter().cloned().partition(|secret| secret.contains(":ssm:"));
    for (sid, action, resources) in
        [("ReadSecrets", "secretsmanager:GetSecretValue", secrets), ("ReadParameters", "ssm:GetParameters", parameters)]
    {
        if !resources.is_empty() {
            let why = "ECS puts them into the container's environment";
            statements.push(Statement { sid, actions: vec![action], resources, conditions: Vec::new(), why });
        }
    }
    if !log_groups.is_empty() {
        statements.push(Statement {
            sid: "WriteLog",
            actions: vec!["logs:CreateLogStream", "logs:PutLogEvents"],
            resources: log_groups.to_vec(),
            conditions: Vec::new(),
            why: "what the container prints goes into the log group",
        });
    }
    statements
}

/// The ARN of the repository of an image in ECR; none for any other registry.
pub(super) fn ecr_repository(image: &str) -> Option<String> {
    let EcrImage { account, region, repository, .. } = EcrImage::parse(image)?;
    Some(format!("arn:{}:ecr:{region}:{account}:repository/{repository}", partition(&region)))
}

/// What names the secret of a runner's token in a policy. Secrets Manager ends the ARN of a secret with six characters of its
/// own, which are not known before it is there.
pub(super) fn token_secret_arn(deployment: &Deployment, place: &Place, environment: &Environment) -> String {
    let secret = deployment.token_secret(environment);
    match environment.runner_token {
        RunnerToken::Secret(_) => secret,
        RunnerToken::Made => arn(place, "secretsmanager", &format!("secret:{secret}-??????")),
    }
}

/// ECS may take the role for tasks of this account and region. It tells no cluster (AWS page "Task IAM role").
fn trusts_ecs(place: &Place) -> Value {
    trust(
        json!({"Service": ECS_TASKS}),
        json!({
            "StringEquals": {"aws:SourceAccount": place.account},
            "ArnLike": {"aws:SourceArn": arn(place, "ecs", "*")},
        }),
    )
}

/// Who takes the manager role of an environment.
fn trusts_manager(deployment: &Deployment, environment: &Environment) -> Value {
    let principal = match &deployment.manager {
        ManagerMode::Each => return trusts_ecs(&environment.place),
        ManagerMode::Shared(place) => deployment.manager_task_role_arn(ManagerOf::All(place)),
        ManagerMode::Own { principal } => principal.clone(),
    };
    let condition = match &environment.external_id {
        Some(id) => json!({"StringEquals": {"sts:ExternalId": id}}),
        None => json!({}),
    };
    trust(json!({"AWS": principal}), condition)
}

fn trust(principal: Value, condition: Value) -> Value {
    let mut statement = json!({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"});
    if condition.as_object().is_some_and(|condition| !condition.is_empty()) {
        statement["Condition"] = condition;
    }
    json!({"Version": "2012-10-17", "Statement": [statement]})
}
