//! `staffetta doctor`: finds what stops jobs before they run.
//!
//! A check looks by `aws::inspect`, which answers plain data, and a pure function judges what was seen. To add one: its id in
//! [`CHECKS`], a function `check(&Subject, &Session) -> Vec<Finding>` in a file of this folder, its line in [`examine_aws`], and
//! its section in docs/troubleshooting.md. A check that finds nothing wrong says so with one good finding for each id.

mod cluster;
mod deployed;
mod finding;
mod gitlab;
mod identity;
mod image;
mod logs;
mod manager_service;
mod network;
mod permissions;
mod quota;
pub mod report;
mod roles;
mod subject;
mod task_definition;
mod trial_run;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws::{Session, inspect};
use futures::FutureExt;
use futures::future::BoxFuture;
use job::secret::SecretString;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use finding::{Finding, Verdict};
pub use subject::{Manager, Subject, Written, of_config, of_deployment};

/// Every check by its id, in the order in which the findings of an environment are shown. docs/troubleshooting.md has a
/// section for each.
pub const CHECKS: &[&str] = &[
    "stack",
    "gitlab-reachable",
    "runner-token",
    "runner-tags",
    "runner-settings",
    "clock",
    "aws-identity",
    "manager-role",
    "manager-permissions",
    "manager-service",
    "cluster",
    "cluster-providers",
    "cluster-default-strategy",
    "task-definition",
    "task-size",
    "task-container",
    "task-roles",
    "execution-permissions",
    "task-image",
    "task-architecture",
    "task-log",
    "vcpu-quota",
    "subnets",
    "subnet-addresses",
    "way-out",
    "vpc-endpoints",
    "security-groups",
    "ssh-in",
    "task-egress",
    "manager-egress",
    "manager-path",
    "trial-run",
];

/// A network that swallows everything must not hold up the others.
const LONGEST: Duration = Duration::from_secs(90);

/// What whoever runs doctor brings along and wants.
#[derive(Clone, Default)]
pub struct Wishes {
    /// A personal access token of GitLab, which shows what only a runner's owner may see.
    pub personal: Option<SecretString>,
    /// A real task is to go through the whole journey of a job.
    pub trial_run: bool,
    /// Once it is cancelled nothing more is looked at, and the task is stopped.
    pub stop: CancellationToken,
    /// By environment, the command that finds or stops the task of its trial: what is left where nobody waits for the end.
    pub left: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Wishes {
    fn leaves(&self, environment: &str, command: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(environment.to_owned(), command);
    }
}

/// All findings about one environment, in the order of [`CHECKS`].
pub async fn examine(written: Written, wishes: &Wishes) -> Vec<Finding> {
    let name = written.name().to_owned();
    let look = async {
        let (deployed, runner_of_file) = (written.deployed(), written.runner_of_file());
        let subject = match written.subject().boxed().await {
            Ok(subject) => subject,
            Err(finding) => {
                // Neither GitLab nor the clock needs a stack or credentials.
                let of_gitlab = match &runner_of_file {
                    Some(runner) => within("gitlab-reachable", gitlab::check_reach(runner).boxed()).await,
                    None => Vec::new(),
                };
                return ([vec![finding], of_gitlab].concat(), None);
            }
        };
        let service = async {
            match &deployed {
                Some((deployment, index)) => {
                    manager_service::check(deployment, &deployment.environments[*index]).boxed().await
                }
                None => Vec::new(),
            }
        };
        let (findings, service) = tokio::join!(
            examine_subject(&subject, wishes.personal.as_ref()).boxed(),
            within(manager_service::SERVICE, service.boxed())
        );
        ([findings, service].concat(), Some(subject))
    };
    let (mut findings, subject) = tokio::select! {
        looked = look => looked,
        () = wishes.stop.cancelled() => return Vec::new(),
    };
    if let Some(subject) = subject.filter(|_| wishes.trial_run) {
        findings.extend(trial_run::check(&subject, wishes).boxed().await);
        wishes.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&subject.name);
    }
    for finding in &mut findings {
        finding.environment = Some(name.clone());
    }
    findings.sort_by_key(|finding| CHECKS.iter().position(|check| *check == finding.check));
    findings
}

async fn examine_subject(subject: &Subject, personal: Option<&SecretString>) -> Vec<Finding> {
    let fargate = &subject.runner.fargate;
    let of_aws = async {
        let (region, endpoint_url) = (fargate.region.as_deref(), fargate.endpoint_url.as_deref());
        match Session::open(region, endpoint_url, subject.as_role.as_ref()).await {
            Ok(session) => examine_aws(subject, &session).await,
            Err(error) => vec![Finding::bad(
                "aws-identity",
                error.to_string(),
                "No task can be started.",
                "Set region in [runners.fargate] (Region in ecs.toml), or AWS_REGION.",
            )],
        }
    };
    let (of_gitlab, of_aws) =
        tokio::join!(within("gitlab-reachable", gitlab::check(subject, personal).boxed()), of_aws);
    [of_gitlab, of_aws].concat()
}

/// One line for each file of checks, side by side.
async fn examine_aws(subject: &Subject, session: &Session) -> Vec<Finding> {
    let (identity, permissions, cluster, task) = tokio::join!(
        within("aws-identity", identity::check(subject, session).boxed()),
        within("manager-role", permissions::check(subject, session).boxed()),
        within("cluster", cluster::check(subject, session).boxed()),
        within("task-definition", examine_task(subject, session).boxed()),
    );
    [identity, permissions, cluster, task].concat()
}

/// All that depends on what a task is made of.
async fn examine_task(subject: &Subject, session: &Session) -> Vec<Finding> {
    let fargate = &subject.runner.fargate;
    let seen = inspect::task_definition(session, &fargate.task_definition).await;
    let definition = task_definition::usable(&fargate.task_definition, session.region(), &seen);
    let known = definition.as_ref().ok().copied();
    let of_definition = async {
        let definition = match definition {
            Ok(definition) => definition,
            Err(finding) => return vec![finding],
        };
        let (roles, permissions, images, logs) = tokio::join!(
            roles::check(fargate, session, definition).boxed(),
            permissions::check_execution(subject, session, definition).boxed(),
            image::check(subject, session, definition).boxed(),
            logs::check(session, definition).boxed(),
        );
        [task_definition::check(fargate.ssh_port, definition), roles, permissions, images, logs].concat()
    };
    let (of_definition, network, quota) = tokio::join!(
        of_definition,
        network::check(subject, session, known).boxed(),
        quota::check(subject, session, known).boxed(),
    );
    [of_definition, network, quota].concat()
}

/// Checks that take too long become one finding: `check` is the first of their ids. Calls of AWS are large futures: all of them
/// in one would be more than the stack of a thread.
async fn within(check: &'static str, looking: BoxFuture<'_, Vec<Finding>>) -> Vec<Finding> {
    timeout(LONGEST, looking).await.unwrap_or_else(|_| {
        let evidence = format!("no end after {} s", LONGEST.as_secs());
        vec![Finding::unknown(check, evidence, "Check this machine's network, and run doctor again.")]
    })
}
