//! A deployment file as data: what is wanted, with every default filled in and every rule that needs no AWS kept.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::AssumedRole;
use crate::fargate::CapacityProvider;

/// Some environments of one GitLab, and who runs their managers.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Begins the name of everything that is made: 1 to 20 lower-case letters, digits and `-`.
    pub name: String,
    pub gitlab_url: String,
    pub manager: ManagerMode,
    pub service: ManagerService,
    /// At least one, each with its own name; in the order of the file.
    pub environments: Vec<Environment>,
    /// On everything that is made.
    pub tags: BTreeMap<String, String>,
}

/// Who runs the managers.
#[derive(Debug, Clone)]
pub enum ManagerMode {
    /// One ECS service beside each environment, in its account and VPC: no role reaches two environments.
    Each,
    /// One ECS service for all, which may only take the environments' manager roles.
    Shared(Place),
    /// A machine of somebody's own: `principal` (the ARN of a role or user) may take the environments' manager roles. No
    /// token is `Made`: nothing here would start a manager with it.
    Own { principal: String },
}

/// What the managers' ECS services are like.
#[derive(Debug, Clone)]
pub struct ManagerService {
    /// None: the version of this program, in the repository of its stack.
    pub image: Option<String>,
    /// CPU units and MiB: one of Fargate's pairs.
    pub cpu: u32,
    pub memory: u32,
    pub architecture: Architecture,
    /// Jobs at once of one manager.
    pub concurrent: u32,
    /// One of CloudWatch Logs' numbers.
    pub log_retention_days: u32,
    /// Of a shared manager: the ARN of a policy, on its own two roles. Others have their environment's.
    pub permissions_boundary: Option<String>,
}

/// Where something runs, and as whom it is deployed there.
#[derive(Debug, Clone)]
pub struct Place {
    /// 12 digits.
    pub account: String,
    pub region: String,
    pub vpc: String,
    /// 1 to 16, all in `vpc`.
    pub subnets: Vec<String>,
    pub assign_public_ip: bool,
    /// Taken by `deploy` and `doctor`; none calls as the operator itself.
    pub deploy_role: Option<AssumedRole>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Arm64,
}

/// One table of `[environments]`.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `dev`: 1 to 20 lower-case letters, digits and `-`.
    pub name: String,
    pub place: Place,
    /// The tags of its runner in GitLab. By default its name.
    pub runner_tags: Vec<String>,
    /// Never empty; a weight of 0 makes a provider a fallback only.
    pub capacity_providers: Vec<CapacityProvider>,
    /// None: `latest` in the repository of its stack.
    pub image: Option<String>,
    pub cpu: u32,
    pub memory: u32,
    pub architecture: Architecture,
    /// 21 to 200; none is Fargate's own 20.
    pub ephemeral_storage_gib: Option<u32>,
    pub job_role: JobRole,
    /// ARNs of roles that somebody else made.
    pub execution_role: Option<String>,
    pub manager_role: Option<String>,
    /// The ARN of a policy, on every role that is made.
    pub permissions_boundary: Option<String>,
    /// Over those of the deployment.
    pub tags: BTreeMap<String, String>,
    pub log_retention_days: u32,
    pub runner_token: RunnerToken,
    /// A bucket for caches; none keeps caches in the task.
    pub cache: Option<CacheBucket>,
    /// Shared and own managers: what they bring when they take this environment's manager role.
    pub external_id: Option<String>,
    /// A block of IPv4 that a manager of another VPC comes from; none is the manager's security group. A manager of
    /// somebody's own has one.
    pub manager_cidr: Option<String>,
}

/// What jobs may do in AWS.
#[derive(Debug, Clone)]
pub enum JobRole {
    /// The ARN of a role that somebody else made.
    Existing(String),
    Made {
        /// ARNs of managed policies.
        policies: Vec<String>,
        /// A whole policy document.
        inline: Option<Value>,
    },
}

/// Where the runner's token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerToken {
    /// The ARN of a secret whose text is the token.
    Secret(String),
    /// A secret that is made; `apply` puts the token into it.
    Made,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheBucket {
    /// After so many days an object is removed.
    pub expire_days: u32,
}
