//! The deployment whose policies are judged, and what in it stands for the worlds of the test suite.
//!
//! Most of those worlds are not made from a deployment file: their clusters are called as each test likes, their accounts are those
//! of the emulators, their task definitions are the built-in ones of the embedded Fargate. Here alone is said what a call would have
//! named if `staffetta deploy` had made its world. One world is made so, and its calls are judged as they stand: that of the story
//! `generated_config`.

use std::collections::BTreeMap;
use std::path::Path;

use aws::stack::{Deployment, Environment, Place, Purpose, Role, arn, operators, roles};
use staffetta::deploy::file;
use testkit::AwsCall;
use testkit::iam::Question;

use crate::comparison::Principal;

/// The account of moto, and so of whatever `deploy` and `doctor` do in the tests; also their region.
const COMMON: &str = r#"
name = "ci"
gitlab_url = "https://gitlab.example.com"
gitlab_group = 1
account = "123456789012"
region = "us-east-1"
"#;

const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "production"];

pub struct Judged {
    /// Each environment has a manager.
    each: Deployment,
    /// They share one.
    shared: Deployment,
    /// Production is in another account, and is reached by a role there.
    apart: Deployment,
    /// What roles each family of task definitions was registered with.
    task_roles: BTreeMap<String, Vec<String>>,
}

/// What a manager's call is about.
pub struct About {
    pub cluster: String,
    /// A revision.
    pub definition: String,
    /// Of the task definition; none if it is not known.
    pub task_roles: Option<Vec<String>>,
    pub bucket: String,
}

impl Judged {
    /// `calls` are all that were recorded.
    pub fn new(calls: &[AwsCall]) -> Self {
        // All in one account: nothing but names keeps the environments apart.
        let environment = |name: &str, more: &str| {
            format!(
                "[environments.{name}]\nvpc = \"vpc-1\"\nsubnets = [\"subnet-1\"]\ncache_expire_days = 30\n{more}\n"
            )
        };
        let all = |more: &dyn Fn(&str) -> String| ENVIRONMENTS.map(|name| environment(name, &more(name))).concat();
        let each = format!("{COMMON}manager = \"each\"\n{}", all(&|_| String::new()));
        let service = "[manager_service]\nvpc = \"vpc-1\"\nsubnets = [\"subnet-1\"]\n";
        let external_id = |name: &str| format!("external_id = \"staffetta/{name}\"");
        let shared = format!("{COMMON}manager = \"shared\"\n{service}{}", all(&external_id));
        let read = |text: &str| match file::read(Path::new("staffetta.toml"), text) {
            Ok(loaded) => loaded.deployment,
            Err(mistakes) => panic!("{mistakes}"),
        };
        let elsewhere = "account = \"222222222222\"\ndeploy_role = \"arn:aws:iam::222222222222:role/staffetta-deploy\"";
        let role = |name: &str| if name == "production" { elsewhere.to_owned() } else { String::new() };
        let apart = format!("{COMMON}{}", all(&role));
        let registered = calls.iter().filter(|call| call.name() == "ecs:RegisterTaskDefinition");
        let roles = |call: &AwsCall| ["taskRoleArn", "executionRoleArn"].map(|key| call.text(key).to_owned()).to_vec();
        let task_roles = registered.map(|call| (call.text("family").to_owned(), roles(call))).collect();
        Self { each: read(&each), shared: read(&shared), apart: read(&apart), task_roles }
    }

    /// Everybody who calls AWS and has a policy of ours.
    pub fn principals(&self) -> Vec<Principal> {
        let mut principals = vec![Principal {
            name: OPERATOR.to_owned(),
            kind: OPERATOR,
            statements: [&self.each, &self.shared, &self.apart]
                .into_iter()
                .flat_map(operators)
                .flat_map(|it| it.statements)
                .collect(),
        }];
        principals.extend(roles(&self.each).into_iter().filter_map(principal));
        let of_shared = |role: &Role| role.environment.is_none();
        principals.extend(roles(&self.shared).into_iter().filter(of_shared).filter_map(principal));
        principals
    }

    /// The environment that a call is about: by the name in its cluster or in its role; where a test has others, dev.
    pub fn environment(&self, call: &AwsCall) -> &Environment {
        let names = [
            last(call.text("cluster")),
            call.role.as_deref().map(last).unwrap_or_default(),
            last(call.text("RoleArn")),
        ];
        let named = |environment: &&Environment| names.iter().any(|name| name.contains(&environment.name));
        self.each.environments.iter().find(named).unwrap_or(&self.each.environments[0])
    }

    /// Made by a manager whose config.toml names what a deployment has: it calls as the manager role of the deployment itself.
    pub fn is_by_generated_config(&self, call: &AwsCall) -> bool {
        let is_role = |environment: &Environment| call.role == Some(self.each.manager_role_arn(environment));
        self.each.environments.iter().any(is_role)
    }

    /// What a call of a manager is about: what it names itself, or what stands for that.
    pub fn about(&self, call: &AwsCall) -> About {
        let environment = self.environment(call);
        if !self.is_by_generated_config(call) {
            let name = self.each.environment_name(environment);
            return About {
                cluster: arn(&environment.place, "ecs", &format!("cluster/{name}")),
                definition: arn(&environment.place, "ecs", &format!("task-definition/{name}:1")),
                task_roles: Some(vec![self.each.job_role_arn(environment), self.each.execution_role_arn(environment)]),
                bucket: arn(&environment.place, "s3", &self.each.cache_bucket(environment)),
            };
        }
        let place = self.place(call);
        let named = |kind: &str, name: &str| match name.starts_with("arn:") {
            true => name.to_owned(),
            false => arn(&place, "ecs", &format!("{kind}/{name}")),
        };
        let family = call.text("taskDefinition");
        // IAM is asked about a revision, also where RunTask names the family alone (since October 2024; aws-cdk issue 30390).
        let revision = if family.contains(':') { family.to_owned() } else { format!("{family}:1") };
        About {
            cluster: named("cluster", call.text("cluster")),
            definition: named("task-definition", &revision),
            task_roles: self.task_roles.get(family).cloned(),
            bucket: arn(&place, "s3", call.text("Bucket")),
        }
    }

    /// Where a call is made that is judged as it stands: its region, and the account of its role. Without a role, and for all other
    /// calls, the account of the deployment.
    fn place(&self, call: &AwsCall) -> Place {
        let mut place = self.each.environments[0].place.clone();
        let role = call.role.as_deref().filter(|role| self.is_by_generated_config(call) || self.is_deploy_role(role));
        if let Some(account) = role.and_then(|role| role.split(':').nth(4)) {
            place.account = account.to_owned();
            place.region.clone_from(&call.region);
        }
        place
    }

    /// In which what a call is about is.
    pub fn account(&self, call: &AwsCall) -> String {
        self.place(call).account
    }

    /// Is this a role that the operator takes to deploy?
    pub fn is_deploy_role(&self, arn: &str) -> bool {
        let roles = self.apart.environments.iter().filter_map(|environment| environment.place.deploy_role.as_ref());
        roles.into_iter().any(|role| role.arn == arn)
    }

    pub fn manager_role_arn(&self, environment: &Environment) -> String {
        self.each.manager_role_arn(environment)
    }

    /// Is this the manager role of some environment?
    pub fn is_manager_role(&self, arn: &str) -> bool {
        self.each.environments.iter().any(|environment| last(arn) == self.each.manager_role_name(environment))
    }

    /// Is it about something that a deployment makes, or about nothing that has a name?
    pub fn is_of_deployment(&self, question: &Question) -> bool {
        let names =
            std::iter::once(&question.resource).chain(question.context.get("ecs:cluster").into_iter().flatten());
        let has_no_name = |name: &str| name == "*" || name.contains(":servicequotas:");
        names.filter(|name| !has_no_name(name)).all(|name| name.contains(&format!("{}-", self.each.name)))
    }

    /// The ARN of what an operator's call names, where the call is made.
    pub fn arn(&self, call: &AwsCall, service: &str, resource: &str) -> String {
        arn(&self.place(call), service, &renamed(resource))
    }

    /// The environments of which no such call of a manager with a generated config.toml was recorded.
    pub fn without_generated(&self, calls: &[AwsCall], name: &str) -> Vec<String> {
        let generated = || calls.iter().filter(|call| call.name() == name && self.is_by_generated_config(call));
        let is_there = |environment: &str| generated().any(|call| self.environment(call).name == environment);
        ENVIRONMENTS.iter().filter(|name| !is_there(name)).map(|name| (*name).to_owned()).collect()
    }
}

/// Deployments of the tests with other names, and tokens in secrets that somebody else made.
const RENAMED: [(&str, &str); 14] = [
    ("doc-isolated", "ci-staging"),
    ("doc-", "ci-"),
    ("hub-token-", "ci-dev-runner-token-"),
    ("hub-", "ci-"),
    ("first-", "ci-"),
    ("elsewhere-", "ci-"),
    ("acme-", "ci-"),
    ("colx-dev-a", "ci-dev"),
    ("colx-dev-manager", "ci-manager"),
    ("colx-", "ci-"),
    ("-of-doctor-", "-runner-token-"),
    ("secret:dev-a-", "secret:dev-"),
    ("secret:dev-", "secret:ci-dev-runner-token-"),
    ("secret:staging-", "secret:ci-staging-runner-token-"),
];

/// As the deployment that is judged calls it.
pub fn renamed(name: &str) -> String {
    let name = RENAMED.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    // One test has so many environments that their template grows too large.
    match name.split_once("ci-environment-") {
        Some((before, after)) => format!("{before}ci-dev{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => name,
    }
}

pub const OPERATOR: &str = "operator";
pub const SHARED_MANAGER: &str = "shared manager";

pub fn manager_of(environment: &Environment) -> String {
    format!("manager of {}", environment.name)
}

/// None for jobs: their role has what the deployment file says, and nothing of ours.
fn principal(role: Role) -> Option<Principal> {
    let kind = match role.purpose {
        Purpose::Job => return None,
        Purpose::Execution => "execution role",
        Purpose::Manager => "manager",
        Purpose::SharedManager => SHARED_MANAGER,
        Purpose::ManagerExecution => "manager's execution role",
    };
    let name = match &role.environment {
        Some(environment) => format!("{kind} of {environment}"),
        None => kind.to_owned(),
    };
    Some(Principal { name, kind, statements: role.statements })
}

/// The name at the end of an ARN; a name itself.
pub fn last(arn: &str) -> &str {
    arn.rsplit(['/', ':']).next().unwrap_or_default()
}
