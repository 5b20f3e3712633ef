//! Embedded Fargate: ECS (JSON 1.1), the few EC2 and STS calls around it, and an engine that really runs the tasks.
//!
//! It answers on one loopback port and holds a state, not a script: a task is validated as ECS validates it, walks
//! ECS's states, has a network interface, an address of its own (127.x.y.z) and a process, and stays visible for an
//! hour after it stopped. What is stored and shown but has no effect: sizes, roles, health checks, `dependsOn`, mount
//! points, log drivers and limits of a task definition.
//!
//! The texts and numbers come from AWS's API model and from transcripts; where neither gives a wording it is ours.

mod accounts;
mod addresses;
mod ec2_api;
mod ecs_api;
mod engine;
mod failure;
mod faults;
mod lifecycle;
mod listener;
mod rates;
mod record;
mod server;
mod sizes;
mod state;
mod sts_api;
mod task_json;
mod world;
mod xml;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use accounts::Role;
pub use engine::EngineError;
pub use faults::{CallFault, Faults, Rule, Stuck, TaskFault};
pub use server::{Server, StartError, start};
pub use state::TaskView;
pub use sts_api::RoleSession;

/// How an embedded Fargate is to be. `Config::new` gives the usual one; change what differs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one. Loopback only: whoever reaches the port can run commands here.
    pub listen: SocketAddr,
    /// The executable that the image `staffetta/agent` runs.
    pub agent: PathBuf,
    /// Clusters that exist from the start, with both Fargate capacity providers: names, or ARNs of clusters in other accounts
    /// than that of whoever has no role.
    pub clusters: Vec<String>,
    /// Without any, everybody may take every role, and all is one account. Otherwise these are all the roles, and what their
    /// keys sign is a call in the account of the role. Task definitions are the same in every account.
    pub roles: Vec<Role>,
    /// The region that stands in ARNs and zone names.
    pub region: String,
    /// Subnets and security groups that exist although their ids have another form than `subnet-…` and `sg-…`.
    pub network_ids: Vec<String>,
    pub delays: Delays,
    /// Throttle as ECS does.
    pub real_rates: bool,
    pub engine: EngineMode,
    /// The root file system of the tasks; `None` is this machine's. Tasks see it copy-on-write.
    pub root: Option<PathBuf>,
    /// How long a stopped task stays visible.
    pub stopped_visible: Duration,
    /// How long after RunTask a task is still MISSING; ECS is eventually consistent.
    pub visible_after: Duration,
    /// Gets a line of JSON for each call: `who` (the access key id), `role` (the ARN, where these are keys of a role), `service`,
    /// `region`, `action`, `parameters`, and of AssumeRole `gives`: the new access key id.
    pub record: Option<PathBuf>,
}

impl Config {
    pub fn new(agent: impl Into<PathBuf>) -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agent: agent.into(),
            clusters: vec!["default".into()],
            roles: Vec::new(),
            region: "us-east-1".into(),
            network_ids: Vec::new(),
            delays: Delays::default(),
            real_rates: false,
            engine: EngineMode::Auto,
            root: None,
            stopped_visible: Duration::from_secs(3600),
            visible_after: Duration::ZERO,
            record: None,
        }
    }
}

/// How long a task takes for each step of its life. The default is no time at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// PROVISIONING: until the network interface is attached and the address known.
    pub provisioning: Duration,
    /// PENDING.
    pub pending: Duration,
    /// ACTIVATING: the pull of the image.
    pub pull: Duration,
    /// From the start of the first process until ECS says RUNNING.
    pub report: Duration,
    /// DEPROVISIONING: from the end of the last process until ECS says STOPPED.
    pub deprovisioning: Duration,
}

impl Delays {
    /// What AWS's own sample event shows for a quarter vCPU in 2025 (facts 5.3): 20 s from request to RUNNING.
    pub fn fargate() -> Delays {
        Delays {
            provisioning: Duration::from_millis(7_500),
            pending: Duration::from_millis(2_800),
            pull: Duration::from_millis(9_300),
            report: Duration::from_millis(800),
            deprovisioning: Duration::from_secs(10),
        }
    }
}

/// How a task's processes are kept apart from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineMode {
    /// Namespaces where they work, else process groups; `Server::engine` says which and why.
    Auto,
    /// Own mount and process namespaces, copy-on-write files. Needs root.
    Namespaces,
    /// A process group with a home and a temporary directory of its own; all other files are this machine's.
    ProcessGroup,
}
