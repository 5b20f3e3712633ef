//! What the embedded ECS knows: clusters, task definitions, tasks. Rules over it take the time as an argument.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::accounts::{ACCOUNT, account_of};
use super::addresses::Addresses;
use super::engine::Log;
use super::failure::Failure;
use super::lifecycle::Order;
use super::rates::{Bucket, Rates};
use super::sts_api::{RoleSession, Taken};

#[derive(Debug)]
pub(super) struct State {
    pub region: String,
    /// By ARN.
    pub clusters: BTreeMap<String, Cluster>,
    /// By family; index 0 is revision 1.
    pub definitions: BTreeMap<String, Vec<Arc<TaskDefinition>>>,
    /// By id.
    pub tasks: BTreeMap<String, Task>,
    pub tokens: HashMap<ClientToken, Launched>,
    /// By account.
    pub rates: HashMap<String, Rates>,
    pub addresses: Addresses,
    /// The roles that were taken, by the access key that was given out for them.
    pub sessions: HashMap<String, Taken>,
    /// Calls so far by API, refused ones included.
    pub calls: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub arn: String,
    pub name: String,
    pub capacity_providers: Vec<String>,
    pub default_strategy: Vec<StrategyItem>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StrategyItem {
    pub capacity_provider: String,
    /// ECS's own default is 0, which launches nothing.
    #[serde(default)]
    pub weight: u32,
    #[serde(default)]
    pub base: u32,
}

#[derive(Debug, Clone)]
pub(super) struct TaskDefinition {
    pub arn: String,
    pub family: String,
    pub revision: usize,
    pub active: bool,
    pub registered_at: SystemTime,
    pub deregistered_at: Option<SystemTime>,
    /// As it was registered, with ECS's defaults filled in.
    pub body: Map<String, Value>,
    pub tags: Vec<Value>,
    pub containers: Vec<ContainerDefinition>,
}

/// The part of a container definition that the engine acts on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerDefinition {
    pub name: String,
    pub image: String,
    pub essential: Option<bool>,
    pub entry_point: Vec<String>,
    pub command: Vec<String>,
    pub environment: Vec<KeyValue>,
    pub secrets: Vec<Secret>,
    pub working_directory: Option<String>,
    pub stop_timeout: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct KeyValue {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

/// The part of a container's override that the engine acts on.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ContainerOverride {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: Vec<KeyValue>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Secret {
    pub value_from: String,
}

/// A RunTask's clientToken and the ARN of the cluster that it counts in.
pub(super) type ClientToken = (String, String);

/// What was started under a client token.
#[derive(Debug)]
pub(super) struct Launched {
    pub request: Value,
    pub arns: Vec<String>,
    pub at: SystemTime,
}

#[derive(Debug)]
pub(super) struct Task {
    pub id: String,
    pub arn: String,
    pub cluster_arn: String,
    pub definition: Arc<TaskDefinition>,
    pub status: Status,
    pub stop_wanted: bool,
    pub version: u64,
    pub created_at: SystemTime,
    pub visible_from: SystemTime,
    pub times: Times,
    pub stop: Option<Stop>,
    pub containers: Vec<Container>,
    pub interface: Interface,
    /// As given, to be shown again.
    pub overrides: Value,
    pub container_overrides: Vec<ContainerOverride>,
    pub cpu: u32,
    pub memory: u32,
    pub storage_gib: u64,
    pub capacity_provider: Option<String>,
    pub platform_version: String,
    pub started_by: Option<String>,
    pub role_session: Option<RoleSession>,
    pub group: String,
    pub tags: Vec<Value>,
    pub execute_command: bool,
    pub log: Log,
    pub orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
}

#[derive(Debug, Default)]
pub(super) struct Times {
    pub connectivity: Option<SystemTime>,
    pub pull_started: Option<SystemTime>,
    pub pull_stopped: Option<SystemTime>,
    pub started: Option<SystemTime>,
    pub stopping: Option<SystemTime>,
    pub execution_stopped: Option<SystemTime>,
    pub stopped: Option<SystemTime>,
}

#[derive(Debug)]
pub(super) struct Stop {
    pub code: &'static str,
    pub reason: String,
}

#[derive(Debug)]
pub(super) struct Container {
    pub arn: String,
    pub runtime_id: Option<String>,
    pub exit_code: Option<i32>,
    pub reason: Option<String>,
}

/// The task's elastic network interface.
#[derive(Debug)]
pub(super) struct Interface {
    pub attachment: String,
    pub id: String,
    pub mac: String,
    pub subnet: String,
    pub security_groups: Vec<String>,
    /// Reachable from outside the VPC, with an address that EC2 tells.
    pub public: bool,
    /// Known from the end of PROVISIONING on.
    pub address: Option<Ipv4Addr>,
}

/// One task as a test or a program in the same process sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    pub arn: String,
    pub task_definition: String,
    pub last_status: String,
    pub desired_status: String,
    /// When the RunTask that started it arrived.
    pub created_at: SystemTime,
    pub stop_code: Option<String>,
    pub stopped_reason: Option<String>,
    /// Of the first essential container.
    pub exit_code: Option<i32>,
    pub address: Option<Ipv4Addr>,
    pub started_by: Option<String>,
    /// Whose keys signed the RunTask; none are keys that AssumeRole did not give.
    pub role_session: Option<RoleSession>,
    /// The environment of the containers' overrides.
    pub environment: BTreeMap<String, String>,
}

impl State {
    pub(super) fn arn(&self, account: &str, resource: &str) -> String {
        format!("arn:aws:ecs:{}:{account}:{resource}", self.region)
    }

    /// Takes tokens of the account's buckets; all or none.
    pub(super) fn take(&mut self, account: &str, buckets: &[Bucket], count: u32, now: Instant) -> bool {
        self.rates.entry(account.to_owned()).or_default().take(buckets, count, now)
    }

    /// The account's cluster of this name or ARN; without either, `default`.
    pub(super) fn cluster(&self, account: &str, asked: Option<&str>) -> Result<&Cluster, Failure> {
        let asked = asked.unwrap_or("default");
        let found = match asked.starts_with("arn:") {
            true => self.clusters.get(asked).filter(|cluster| cluster.account() == account),
            false => self.clusters.get(&self.arn(account, &format!("cluster/{asked}"))),
        };
        found.ok_or_else(|| Failure::new("ClusterNotFoundException", "Cluster not found."))
    }

    /// The definition of this `family`, `family:revision` or ARN. Without a revision: the latest active one.
    pub(super) fn definition(&self, asked: &str) -> Option<&Arc<TaskDefinition>> {
        let name = match asked.strip_prefix("arn:") {
            Some(_) => asked.strip_prefix(&self.arn(ACCOUNT, "task-definition/"))?,
            None => asked,
        };
        match name.split_once(':') {
            Some((family, revision)) => {
                self.definitions.get(family)?.get(revision.parse::<usize>().ok()?.checked_sub(1)?)
            }
            None => self.definitions.get(name)?.iter().rfind(|definition| definition.active),
        }
    }

    /// The task of this id or ARN, if it is of this cluster and can be seen at `now`.
    pub(super) fn visible_task(&mut self, cluster_arn: &str, asked: &str, now: SystemTime) -> Option<&mut Task> {
        let task = self.tasks.get_mut(task_id(asked))?;
        let named = !asked.starts_with("arn:") || task.arn == asked;
        (named && task.cluster_arn == cluster_arn && task.visible_from <= now).then_some(task)
    }

    /// Forgets tasks that stopped long ago, and tokens that have expired: after a day, or an hour after their task.
    pub(super) fn forget(&mut self, stopped_visible: Duration, now: SystemTime) {
        let over = |since: SystemTime, after: Duration| now.duration_since(since).is_ok_and(|age| age >= after);
        self.tasks.retain(|_, task| !task.times.stopped.is_some_and(|at| over(at, stopped_visible)));
        let tasks = &self.tasks;
        self.tokens.retain(|_, launched| {
            let known = launched.arns.iter().any(|arn| tasks.contains_key(task_id(arn)));
            known && !over(launched.at, Duration::from_secs(24 * 3600))
        });
    }
}

impl Cluster {
    pub(super) fn account(&self) -> &str {
        account_of(&self.arn)
    }
}

/// The id at the end of a task's ARN, or the id itself.
pub(super) fn task_id(asked: &str) -> &str {
    asked.rsplit('/').next().unwrap_or(asked)
}

impl Task {
    /// Walks on to `status`. ECS counts only some of the steps (facts 2.1).
    pub(super) fn walk_to(&mut self, status: Status) {
        self.status = status;
        if !matches!(status, Status::Activating | Status::Deactivating | Status::Stopping) {
            self.version += 1;
        }
    }

    /// The task is to stop. The first reason stays.
    pub(super) fn want_stop(&mut self, code: &'static str, reason: &str, now: SystemTime) {
        if !self.stop_wanted {
            self.stop_wanted = true;
            self.version += 1;
            self.times.stopping = Some(now);
            self.stop = Some(Stop { code, reason: reason.into() });
        }
    }

    pub(super) fn view(&self) -> TaskView {
        let main = self.definition.containers.iter().position(ContainerDefinition::is_essential);
        TaskView {
            arn: self.arn.clone(),
            task_definition: self.definition.arn.clone(),
            last_status: self.status.name().into(),
            desired_status: self.desired_status().into(),
            created_at: self.created_at,
            stop_code: self.stop.as_ref().map(|stop| stop.code.into()),
            stopped_reason: self.stop.as_ref().map(|stop| stop.reason.clone()),
            exit_code: main.and_then(|index| self.containers[index].exit_code),
            address: self.interface.address,
            started_by: self.started_by.clone(),
            role_session: self.role_session.clone(),
            environment: self
                .container_overrides
                .iter()
                .flat_map(|one| &one.environment)
                .map(|one| (one.name.clone(), one.value.clone()))
                .collect(),
        }
    }

    pub(super) fn desired_status(&self) -> &'static str {
        if self.stop_wanted { "STOPPED" } else { "RUNNING" }
    }
}

impl ContainerDefinition {
    pub(super) fn is_essential(&self) -> bool {
        self.essential.unwrap_or(true)
    }
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Provisioning => "PROVISIONING",
            Status::Pending => "PENDING",
            Status::Activating => "ACTIVATING",
            Status::Running => "RUNNING",
            Status::Deactivating => "DEACTIVATING",
            Status::Stopping => "STOPPING",
            Status::Deprovisioning => "DEPROVISIONING",
            Status::Stopped => "STOPPED",
        }
    }
}
