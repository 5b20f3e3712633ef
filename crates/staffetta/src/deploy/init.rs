//! A new `staffetta.toml`: what was answered, and every other key as a comment.

use std::fmt::Write;

use gitlab::RunnerScope;
use toml::Value;

/// What a new file says.
pub struct Answers {
    pub name: String,
    pub gitlab_url: String,
    /// Where runners are made.
    pub scope: Option<RunnerScope>,
    /// Of every environment that says nothing else.
    pub account: String,
    pub region: String,
    pub manager: Manager,
    /// At least one.
    pub environments: Vec<Environment>,
}

/// Who runs the managers.
pub enum Manager {
    Each,
    /// In this VPC.
    Shared {
        vpc: String,
        subnets: Vec<String>,
    },
    /// Called as this role or user.
    Own {
        principal: String,
    },
}

/// One table. None leaves the key as a comment.
#[derive(Default)]
pub struct Environment {
    pub name: String,
    pub account: Option<String>,
    pub region: Option<String>,
    pub deploy_role: Option<String>,
    pub vpc: String,
    pub subnets: Vec<String>,
    pub assign_public_ip: bool,
    pub image: Option<String>,
    pub runner_token_secret: Option<String>,
    pub manager_cidr: Option<String>,
}

pub fn render(answers: &Answers) -> String {
    let mut text = head(answers);
    text.push_str(&manager_service(&answers.manager));
    for (index, environment) in answers.environments.iter().enumerate() {
        // The keys are explained once.
        text.push_str(&if index == 0 { first(answers, environment) } else { further(environment) });
    }
    text
}

/// `key = value`, or what stands in its place as a comment.
fn line(key: &str, value: Option<Value>, otherwise: &str) -> String {
    match value {
        Some(value) => format!("{key} = {value}"),
        None => format!("#{key} = {otherwise}"),
    }
}

fn text(value: &str) -> Value {
    Value::from(value)
}

fn head(answers: &Answers) -> String {
    let group = match answers.scope {
        Some(RunnerScope::Group { group_id }) => Some(group_id),
        _ => None,
    };
    let project = match answers.scope {
        Some(RunnerScope::Project { project_id }) => Some(project_id),
        _ => None,
    };
    let number = |id: Option<u64>| id.and_then(|id| i64::try_from(id).ok()).map(Value::from);
    let (manager, principal) = match &answers.manager {
        Manager::Each => ("each", None),
        Manager::Shared { .. } => ("shared", None),
        Manager::Own { principal } => ("own", Some(text(principal))),
    };
    format!(
        r##"# The environments that `staffetta deploy` makes and `staffetta doctor` examines. docs/deployment-file.md says more.
#
# A line that begins with "#key = value" shows an optional key; where the comment says nothing else, the value
# shown is what you get without it. Unknown keys are refused.

# The names of all that is made begin with it: at most 20 lower-case letters, digits and -.
name = {name}
gitlab_url = {url}

# The group or project (its id) whose runners `staffetta deploy apply` makes, with a personal access token of the scope
# create_runner in GITLAB_PERSONAL_ACCESS_TOKEN. Without it, give apply each runner's token. Not with a manager of your own.
# No default.
{group}
{project}

# Where the environments are that say nothing else.
account = {account}
region = {region}

# Who runs the managers, which fetch the jobs from GitLab. "each": every environment has its own beside it. "shared":
# one for all, which needs a network path to all tasks. "own": a machine of yours.
manager = {manager}

# With "own": the role or user as which your manager calls AWS.
{principal}

# On everything that is made. No default.
#tags = {{ team = "platform" }}
"##,
        name = text(&answers.name),
        url = text(&answers.gitlab_url),
        group = line("gitlab_group", number(group), "42"),
        project = line("gitlab_project", number(project), "42"),
        account = text(&answers.account),
        region = text(&answers.region),
        manager = text(manager),
        principal = line("principal", principal, "\"arn:aws:iam::123456789012:role/my-manager\""),
    )
}

fn manager_service(manager: &Manager) -> String {
    // A machine of one's own is no service.
    let (header, place) = match manager {
        Manager::Each => ("[manager_service]", None),
        Manager::Shared { vpc, subnets } => ("[manager_service]", Some((text(vpc), Value::from(subnets.clone())))),
        Manager::Own { .. } => ("#[manager_service]", None),
    };
    let (vpc, subnets) = place.unzip();
    format!(
        r##"
# The ECS services of the managers.
{header}
# The default is this version, from the repository that `apply` makes for it.
#image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/tools/staffetta:0.1.0"
#cpu = "0.25 vCPU"
#memory = "0.5 GB"
#architecture = "x86_64"
# Jobs at once of one manager.
#concurrent = 10
#log_retention_days = 30
# With "shared": where it runs. Account and region are by default those at the head of the file.
#account = "123456789012"
#region = "eu-west-1"
{vpc}
{subnets}
#assign_public_ip = false
#deploy_role = "arn:aws:iam::123456789012:role/deploy"
#deploy_external_id = "some-agreed-text"
# With "shared": on its two roles. The roles of an environment have that environment's.
#permissions_boundary = "arn:aws:iam::123456789012:policy/my-boundary"
"##,
        vpc = line("vpc", vpc, "\"vpc-0123456789abcdef0\""),
        subnets = line("subnets", subnets, "[\"subnet-0123456789abcdef0\"]"),
    )
}

fn first(answers: &Answers, environment: &Environment) -> String {
    let Environment { name, account, region, deploy_role, vpc, subnets, .. } = environment;
    let optional = |value: &Option<String>| value.as_deref().map(Value::from);
    format!(
        r##"
# One table per environment: a cluster with its roles and its network, for the jobs whose tags name it.
[environments.{name}]
# By default those at the head of the file.
{account}
{region}
# A role that `deploy` and `doctor` take: for an environment in another account than yours. And the external id that the
# role's trust policy asks for. No default.
{deploy_role}
#deploy_external_id = "some-agreed-text"

# Where the tasks run: several subnets give more addresses and zones. Tasks in a public subnet without NAT need a public
# address to reach GitLab.
vpc = {vpc}
subnets = {subnets}
{public}

# The tags of the runner in GitLab; by default the environment's name.
#runner_tags = ["{name}"]
# A secret in Secrets Manager whose text is the runner's token. By default `apply` makes one; with a manager of your own it
# makes none.
{token}

# FARGATE, FARGATE_SPOT or both. Tasks are spread by weight; a weight of 0 is tried when the others have no room.
#capacity_providers = [{{ name = "FARGATE", weight = 1, base = 0 }}]

# The image of the tasks. The default is `latest` in the repository that `apply` makes for it.
{image}
#cpu = "1 vCPU"
#memory = "2 GB"
# x86_64 or arm64.
#architecture = "x86_64"
# 21 to 200; a task has 20 GiB without it.
#ephemeral_storage_gib = 50

# What jobs may do in AWS: managed policies and one of your own, or a role that you made. No default: nothing.
#job_role_policies = ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
#job_role_inline_policy = '{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}}]}}'
#job_role = "arn:aws:iam::{arns}:role/my-jobs"
# Roles that you made instead of those that `apply` makes. `staffetta deploy policy` shows what each needs, as long as its
# key is not there. No default.
#execution_role = "arn:aws:iam::{arns}:role/my-execution"
#manager_role = "arn:aws:iam::{arns}:role/my-manager"
# A policy that bounds every role that is made. No default.
#permissions_boundary = "arn:aws:iam::{arns}:policy/my-boundary"

# A bucket for the jobs' caches, which removes what is older. Without it caches stay in the task, and are lost with it.
#cache_expire_days = 30
# Days that the tasks' log is kept.
#log_retention_days = 30
# Beside those of the whole file, and over them. No default.
#tags = {{ stage = "{name}" }}

# For a manager of another VPC, or of your own: the network that it comes from, and what it brings when it takes the
# environment's manager role. No default.
{cidr}
#external_id = "some-agreed-text"
"##,
        account = line("account", optional(account), "\"123456789012\""),
        region = line("region", optional(region), "\"eu-west-1\""),
        deploy_role = line("deploy_role", optional(deploy_role), "\"arn:aws:iam::123456789012:role/deploy\""),
        vpc = text(vpc),
        subnets = Value::from(subnets.clone()),
        public = line("assign_public_ip", environment.assign_public_ip.then_some(Value::from(true)), "false"),
        token = line(
            "runner_token_secret",
            optional(&environment.runner_token_secret),
            "\"arn:aws:secretsmanager:eu-west-1:123456789012:secret:ci/dev-AbCdEf\""
        ),
        image = line("image", optional(&environment.image), "\"registry.example.com/ci/node:22\""),
        cidr = line("manager_cidr", optional(&environment.manager_cidr), "\"10.20.0.0/24\""),
        // A role is of the account of its environment.
        arns = account.as_deref().unwrap_or(&answers.account),
    )
}

fn further(environment: &Environment) -> String {
    let mut table = format!("\n[environments.{}]\n", environment.name);
    let keys = [
        ("account", &environment.account),
        ("region", &environment.region),
        ("deploy_role", &environment.deploy_role),
        ("vpc", &Some(environment.vpc.clone())),
    ];
    let last = [
        ("runner_token_secret", &environment.runner_token_secret),
        ("image", &environment.image),
        ("manager_cidr", &environment.manager_cidr),
    ];
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            // Writing to a text cannot fail.
            let _ = writeln!(table, "{key} = {value}");
        }
    };
    for (key, value) in keys {
        put(key, value.as_deref().map(Value::from));
    }
    put("subnets", Some(Value::from(environment.subnets.clone())));
    put("assign_public_ip", environment.assign_public_ip.then_some(Value::from(true)));
    for (key, value) in last {
        put(key, value.as_deref().map(Value::from));
    }
    table
}
