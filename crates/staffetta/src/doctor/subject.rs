//! What is examined: the environments of a deployment file, or those of any `config.toml`.

use std::cell::RefCell;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws::AssumedRole;
use aws::stack::{Architecture, Deployment, ManagerWork};
use job::secret::{ExposeSecret, SecretString};

use super::{Finding, deployed};
use crate::config::{self, Mistakes, Runner};

/// One environment, and what is known about it before it is looked at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The environment's name in the deployment file, or the runner's.
    pub name: String,
    /// As the manager has it. Its token is no use where [`Self::token`] is an error.
    pub runner: Runner,
    /// Or why it is not known here.
    pub token: Result<SecretString, String>,
    /// The tags by which jobs ask for it; none if nobody wrote down which they are to be.
    pub tags: Option<Vec<String>>,
    /// Jobs at once: the environment's own limit, or that of its manager.
    pub concurrent: usize,
    /// What its tasks are to run on.
    pub architecture: Option<Architecture>,
    /// 12 digits.
    pub account: Option<String>,
    pub manager: Manager,
    /// As whom doctor looks and `--run` starts a task; none is whoever runs it.
    pub as_role: Option<AssumedRole>,
}

/// The manager as AWS sees it.
#[derive(Debug, Clone, Default)]
pub struct Manager {
    /// The ARN of the role whose permissions count; none takes the caller's.
    pub role: Option<String>,
    /// As the deployment has it; none derives it from the runner.
    pub work: Option<ManagerWork>,
    /// Ids of its security groups and subnets; empty where the manager is not known.
    pub security_groups: Vec<String>,
    pub subnets: Vec<String>,
    /// Where a manager of another VPC comes from.
    pub cidr: Option<String>,
    /// Its ECS service, where the deployment has one.
    pub place: Option<ManagerPlace>,
}

/// How a task in the place of the manager is started.
#[derive(Debug, Clone)]
pub struct ManagerPlace {
    /// Of its cluster and of its task definition.
    pub name: String,
    pub log_group: String,
    pub region: String,
    pub subnets: Vec<String>,
    pub security_group: String,
    pub assign_public_ip: bool,
    /// As whom doctor looks there; none is whoever runs it.
    pub as_role: Option<AssumedRole>,
}

/// An environment that somebody wrote down, before anything is asked.
pub enum Written {
    Runner(Box<Subject>),
    Environment { deployment: Arc<Deployment>, index: usize, file: PathBuf },
}

impl Written {
    pub fn name(&self) -> &str {
        match self {
            Self::Runner(subject) => &subject.name,
            Self::Environment { deployment, index, .. } => &deployment.environments[*index].name,
        }
    }

    /// By its name, or by that of its runner, which its jobs' logs have.
    pub fn is_called(&self, name: &str) -> bool {
        match self {
            Self::Runner(subject) => subject.name == name,
            Self::Environment { deployment, index, .. } => {
                let environment = &deployment.environments[*index];
                environment.name == name || deployment.environment_name(environment) == name
            }
        }
    }

    /// The deployment and the index of the environment in it.
    pub(super) fn deployed(&self) -> Option<(Arc<Deployment>, usize)> {
        match self {
            Self::Runner(_) => None,
            Self::Environment { deployment, index, .. } => Some((deployment.clone(), *index)),
        }
    }

    /// What the deployment file says of the runner, whatever stands in AWS.
    pub(super) fn runner_of_file(&self) -> Option<Runner> {
        match self {
            Self::Runner(_) => None,
            Self::Environment { deployment, index, file } => {
                deployed::runner_of_file(deployment, &deployment.environments[*index], file)
            }
        }
    }

    /// Or why it cannot be examined.
    pub(super) async fn subject(self) -> Result<Subject, Finding> {
        match self {
            Self::Runner(subject) => Ok(*subject),
            Self::Environment { deployment, index, file } => {
                deployed::subject(&deployment, &deployment.environments[index], &file).await
            }
        }
    }
}

/// The environments of a deployment file.
pub fn of_deployment(file: &Path, deployment: Deployment) -> Vec<Written> {
    let deployment = Arc::new(deployment);
    let written = |index| Written::Environment { deployment: deployment.clone(), index, file: file.to_owned() };
    (0..deployment.environments.len()).map(written).collect()
}

/// The runners of a `config.toml` of any installation.
pub fn of_config(file: &Path) -> Result<Vec<Written>, Mistakes> {
    // The manager's environment is not always that of whoever looks.
    let unset = RefCell::new(Vec::new());
    let environment = |name: &str| {
        let value = env::var(name).ok().filter(|value| !value.is_empty());
        Some(value.unwrap_or_else(|| {
            let stand_in = format!("not-set-{name}");
            unset.borrow_mut().push((stand_in.clone(), name.to_owned()));
            stand_in
        }))
    };
    // A task of the manager's image that is doctor's own has no such file: `staffetta container` did not run there.
    let text = match env::var("CONFIG_TOML") {
        Ok(text) if !file.exists() => text,
        _ => config::read::read_text(file)?,
    };
    let config = config::load_as(file, &text, &environment)?.config;
    let unset = unset.into_inner();
    let concurrent = config.concurrent;
    let written = |runner: Runner| {
        let missing = unset.iter().find(|(stand_in, _)| runner.token.expose_secret().contains(stand_in));
        let subject = Subject {
            name: runner.name.clone(),
            token: match missing {
                Some((_, name)) => Err(format!("the variable {name}, which has it, is not set here")),
                None => Ok(runner.token.clone()),
            },
            tags: None,
            concurrent: runner.limit.map_or(concurrent, |limit| limit.get().min(concurrent)),
            architecture: None,
            account: None,
            manager: Manager { role: runner.fargate.role_arn.clone(), ..Manager::default() },
            // As the manager: its tasks may be in another account.
            as_role: runner.fargate.runner_role("staffetta-doctor"),
            runner,
        };
        Written::Runner(Box::new(subject))
    };
    Ok(config.runners.into_iter().map(written).collect())
}
