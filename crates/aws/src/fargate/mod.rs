//! One Fargate task per job: start it, watch it, stop it, and say what happened to it.

mod config;

pub use config::{CapacityProvider, ConfigMistake, Credentials, FargateConfig};
