//! A task as ECS describes it, reduced to what the journey of a job needs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_sdk_ecs::types as ecs;
use aws_smithy_types::DateTime;
use job::ids::TaskArn;
use job::task::{CONTAINER, DEADLINE};

/// One look at a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub arn: TaskArn,
    pub last_status: Status,
    /// Only ever [`Status::Running`] or [`Status::Stopped`].
    pub desired_status: Status,
    /// Where the manager reaches the task; the public address if the runner uses that one. Known before the task runs.
    pub address: Option<IpAddr>,
    /// The id of the task's network interface: EC2 knows its public address.
    pub network_interface: Option<String>,
    pub timestamps: Timestamps,
    /// Absent on some Spot interruptions, although documented.
    pub stop_code: Option<String>,
    pub stopped_reason: Option<String>,
    /// May be empty for a task that never started, and may hold containers that AWS adds.
    pub containers: Vec<Container>,
    pub started_by: Option<String>,
    /// What RunTask set for the job's container.
    pub environment: BTreeMap<String, String>,
    /// `FARGATE` or `FARGATE_SPOT`.
    pub capacity_provider: Option<String>,
    /// Rises with each change; an answer with a lower one is an older look.
    pub version: i64,
}

/// ECS's states of a task in their order (facts 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
    Deleted,
    /// ECS does not know the task (any more): `MISSING`.
    Gone,
}

/// When ECS saw what happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamps {
    pub created: Option<SystemTime>,
    pub connectivity: Option<SystemTime>,
    pub pull_started: Option<SystemTime>,
    pub pull_stopped: Option<SystemTime>,
    pub started: Option<SystemTime>,
    pub stopping: Option<SystemTime>,
    pub execution_stopped: Option<SystemTime>,
    pub stopped: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// Absent if it never ran.
    pub exit_code: Option<i32>,
    pub reason: Option<String>,
}

impl Status {
    /// An unknown word counts as not yet running: the caller's own deadline bounds the wait.
    fn read(word: Option<&str>) -> Self {
        match word.unwrap_or_default() {
            "PENDING" => Self::Pending,
            "ACTIVATING" => Self::Activating,
            "RUNNING" => Self::Running,
            "DEACTIVATING" => Self::Deactivating,
            "STOPPING" => Self::Stopping,
            "DEPROVISIONING" => Self::Deprovisioning,
            "STOPPED" => Self::Stopped,
            "DELETED" => Self::Deleted,
            _ => Self::Provisioning,
        }
    }
}

impl Task {
    /// A task of which no more is known than that ECS once named it.
    pub fn unseen(arn: TaskArn) -> Self {
        Self {
            arn,
            last_status: Status::Provisioning,
            desired_status: Status::Running,
            address: None,
            network_interface: None,
            timestamps: Timestamps::default(),
            stop_code: None,
            stopped_reason: None,
            containers: Vec::new(),
            started_by: None,
            environment: BTreeMap::new(),
            capacity_provider: None,
            version: 0,
        }
    }

    /// `None` if ECS left out the ARN, without which a task cannot be spoken of.
    pub(super) fn read(task: &ecs::Task) -> Option<Self> {
        let desired_status = match task.desired_status() {
            Some("STOPPED") => Status::Stopped,
            _ => Status::Running,
        };
        let environment = task.overrides().into_iter().flat_map(|overrides| overrides.container_overrides());
        let environment = environment.filter(|container| container.name() == Some(CONTAINER));
        Some(Self {
            arn: TaskArn::new(task.task_arn()?),
            last_status: Status::read(task.last_status()),
            desired_status,
            address: private_address(task),
            network_interface: interface_detail(task, "networkInterfaceId").map(str::to_owned),
            timestamps: Timestamps {
                created: time(task.created_at()),
                connectivity: time(task.connectivity_at()),
                pull_started: time(task.pull_started_at()),
                pull_stopped: time(task.pull_stopped_at()),
                started: time(task.started_at()),
                stopping: time(task.stopping_at()),
                execution_stopped: time(task.execution_stopped_at()),
                stopped: time(task.stopped_at()),
            },
            stop_code: task.stop_code().map(|code| code.as_str().to_owned()),
            stopped_reason: task.stopped_reason().map(str::to_owned),
            containers: task.containers().iter().filter_map(Container::read).collect(),
            started_by: task.started_by().map(str::to_owned),
            environment: environment
                .flat_map(|container| container.environment())
                .filter_map(|pair| Some((pair.name()?.to_owned(), pair.value()?.to_owned())))
                .collect(),
            capacity_provider: task.capacity_provider_name().map(str::to_owned),
            version: task.version(),
        })
    }

    /// After which nobody lets it live, as whoever started it wrote into its environment.
    pub fn deadline(&self) -> Option<SystemTime> {
        let seconds = self.environment.get(DEADLINE)?.parse().ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// On its way to RUNNING, and nobody has asked it to stop.
    pub fn is_starting(&self) -> bool {
        self.last_status < Status::Running && self.desired_status == Status::Running
    }

    /// It has ended; nothing of it runs and nothing is paid.
    pub fn is_over(&self) -> bool {
        self.last_status >= Status::Stopped
    }

    /// It has ended or is about to: no use in reaching it.
    pub fn is_ending(&self) -> bool {
        self.desired_status == Status::Stopped || self.last_status > Status::Running
    }

    /// The container that runs the job, by its name: others may stand before it.
    fn job_container(&self) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == CONTAINER)
    }

    pub fn exit_code(&self) -> Option<i32> {
        self.job_container()?.exit_code
    }
}

impl Container {
    fn read(container: &ecs::Container) -> Option<Self> {
        Some(Self {
            name: container.name()?.to_owned(),
            exit_code: container.exit_code(),
            reason: container.reason().map(str::to_owned),
        })
    }
}

/// The job's container says it best; until it exists, the attachment of the network interface does (facts 8).
fn private_address(task: &ecs::Task) -> Option<IpAddr> {
    let container = task.containers().iter().find(|container| container.name() == Some(CONTAINER));
    let interfaces = container.into_iter().flat_map(|container| container.network_interfaces());
    interfaces
        .filter_map(|interface| interface.private_ipv4_address().or(interface.ipv6_address()))
        .chain(interface_detail(task, "privateIPv4Address"))
        .find_map(|address| address.parse().ok())
}

fn interface_detail<'a>(task: &'a ecs::Task, name: &str) -> Option<&'a str> {
    let attachments = task.attachments().iter();
    attachments
        .filter(|attachment| attachment.r#type() == Some("ElasticNetworkInterface"))
        .flat_map(|attachment| attachment.details())
        .find(|detail| detail.name() == Some(name))?
        .value()
}

fn time(stamp: Option<&DateTime>) -> Option<SystemTime> {
    SystemTime::try_from(*stamp?).ok()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Attachment, ContainerOverride, KeyValuePair, NetworkInterface, TaskOverride};

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:111122223333:task/ci-dev/0a1b";

    fn pair(name: &str, value: &str) -> KeyValuePair {
        KeyValuePair::builder().name(name).value(value).build()
    }

    fn attachment() -> Attachment {
        let builder = Attachment::builder().r#type("ElasticNetworkInterface").details(pair("subnetId", "subnet-1"));
        builder.details(pair("networkInterfaceId", "eni-1")).details(pair("privateIPv4Address", "10.0.0.7")).build()
    }

    fn container(name: &str, address: &str) -> ecs::Container {
        let interface = NetworkInterface::builder().private_ipv4_address(address).build();
        ecs::Container::builder().name(name).network_interfaces(interface).build()
    }

    #[test]
    fn the_address_is_that_of_the_jobs_container() {
        let task = ecs::Task::builder()
            .task_arn(ARN)
            .containers(container("aws-guardduty-agent-x", "10.0.0.9"))
            .containers(container(CONTAINER, "10.0.0.8"))
            .attachments(attachment())
            .build();
        let task = Task::read(&task).expect("a task");
        assert_eq!(task.address, Some("10.0.0.8".parse().expect("an address")));
        assert_eq!(task.network_interface.as_deref(), Some("eni-1"));
    }

    #[test]
    fn before_the_container_exists_the_attachment_has_the_address() {
        let other = Attachment::builder().r#type("Service Connect").details(pair("privateIPv4Address", "10.9.9.9"));
        let task = ecs::Task::builder()
            .task_arn(ARN)
            .last_status("PROVISIONING")
            .attachments(other.build())
            .attachments(attachment())
            .build();
        let task = Task::read(&task).expect("a task");
        assert_eq!(task.address, Some("10.0.0.7".parse().expect("an address")));
        assert!(task.is_starting());
    }

    #[test]
    fn the_environment_is_that_of_the_jobs_override() {
        let sidecar = ContainerOverride::builder().name("sidecar").environment(pair("A", "sidecar"));
        let ours = ContainerOverride::builder().name(CONTAINER).environment(pair("A", "ours"));
        let overrides = TaskOverride::builder().container_overrides(sidecar.build()).container_overrides(ours.build());
        let task = ecs::Task::builder().task_arn(ARN).overrides(overrides.build()).build();
        assert_eq!(Task::read(&task).expect("a task").environment["A"], "ours");
    }

    #[test]
    fn an_empty_list_of_containers_and_unknown_words_are_no_obstacle() {
        let task = Task::read(&ecs::Task::builder().task_arn(ARN).last_status("NEW_WORD").build()).expect("a task");
        assert_eq!((task.exit_code(), task.address, task.is_starting()), (None, None, true));
        assert!(Task::read(&ecs::Task::builder().build()).is_none());
    }

    #[test]
    fn a_task_that_was_told_to_stop_is_ending_before_it_is_over() {
        let task = ecs::Task::builder().task_arn(ARN).last_status("RUNNING").desired_status("STOPPED").build();
        let task = Task::read(&task).expect("a task");
        assert!(task.is_ending() && !task.is_over() && !task.is_starting());
    }
}
