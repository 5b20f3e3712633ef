//! The deployment whose policies are judged, and what in it stands for the worlds of the test suite.
//!
//! Those worlds are not made from a deployment file: their clusters are called as each test likes, their accounts are those of the
//! emulators, their task definitions are the built-in ones of the embedded Fargate. Here alone is said what a call would have
//! named if `staffetta deploy` had made its world.

use std::path::Path;

use aws::stack::{Deployment, Environment, Purpose, Role, arn, operators, roles};
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
}

impl Judged {
    pub fn new() -> Self {
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
        Self { each: read(&each), shared: read(&shared) }
    }

    /// Everybody who calls AWS and has a policy of ours.
    pub fn principals(&self) -> Vec<Principal> {
        let mut principals = vec![Principal {
            name: OPERATOR.to_owned(),
            kind: OPERATOR,
            statements: [&self.each, &self.shared]
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

    pub fn cluster_arn(&self, environment: &Environment) -> String {
        arn(&environment.place, "ecs", &format!("cluster/{}", self.each.environment_name(environment)))
    }

    /// Any task of the environment's cluster.
    pub fn task_arn(&self, environment: &Environment, task: &str) -> String {
        let cluster = self.each.environment_name(environment);
        arn(&environment.place, "ecs", &format!("task/{cluster}/{}", last(task)))
    }

    /// IAM is asked about a revision, also where RunTask names the family alone (since October 2024; aws-cdk issue 30390).
    pub fn task_definition_arn(&self, environment: &Environment) -> String {
        arn(&environment.place, "ecs", &format!("task-definition/{}:1", self.each.environment_name(environment)))
    }

    /// Of the environment's task definition.
    pub fn task_role_arns(&self, environment: &Environment) -> [String; 2] {
        [self.each.job_role_arn(environment), self.each.execution_role_arn(environment)]
    }

    pub fn manager_role_arn(&self, environment: &Environment) -> String {
        self.each.manager_role_arn(environment)
    }

    /// Is this the manager role of some environment?
    pub fn is_manager_role(&self, arn: &str) -> bool {
        self.each.environments.iter().any(|environment| last(arn) == self.each.manager_role_name(environment))
    }

    pub fn bucket_arn(&self, environment: &Environment) -> String {
        arn(&environment.place, "s3", &self.each.cache_bucket(environment))
    }

    /// Is it about something that a deployment makes, or about nothing that has a name?
    pub fn is_of_deployment(&self, question: &Question) -> bool {
        let names =
            std::iter::once(&question.resource).chain(question.context.get("ecs:cluster").into_iter().flatten());
        let has_no_name = |name: &str| name == "*" || name.contains(":servicequotas:");
        names.filter(|name| !has_no_name(name)).all(|name| name.contains(&format!("{}-", self.each.name)))
    }

    /// In the account and region of the deployment.
    pub fn arn(&self, service: &str, resource: &str) -> String {
        arn(&self.each.environments[0].place, service, resource)
    }
}

/// The deployment of doctor's tests, whose names are others, and its tokens in secrets that somebody else made.
const RENAMED: [(&str, &str); 3] = [("doc-isolated", "ci-staging"), ("doc-", "ci-"), ("-of-doctor-", "-runner-token-")];

/// As the deployment that is judged calls it.
pub fn renamed(name: &str) -> String {
    RENAMED.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
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
