//! One Fargate task per job: start it, watch it, stop it, and say what happened to it.
//!
//! [`Regions`] is made once per process, a [`Fargate`] once per runner; both are cheap to clone.

mod allowed;
mod buckets;
mod calls;
mod config;
mod connect;
mod describe;
mod errors;
mod explain;
mod list_tasks;
mod phases;
mod placement;
mod public_ip;
mod run_task;
mod stop_reasons;
mod stop_task;
mod task;

pub use allowed::{Choice, NotAllowed, role_is_allowed, role_pattern_mistake};
pub use calls::Calls;
pub use config::{CapacityProvider, ConfigMistake, Credentials, FargateConfig, external_id_mistake, subnets_mistake};
pub use connect::{ConnectError, Fargate, Regions};
pub use explain::{Explanation, checks_of_doctor, explain};
pub use phases::{Phase, phases};
pub use run_task::{Launch, LaunchError, Waiting};
pub use task::{Container, Status, Task, Timestamps};
