//! `staffetta deploy`: environments from a file, made by CloudFormation.

pub mod apply;
mod cause;
pub mod config_toml;
pub mod costs;
mod decide;
pub mod destroy;
pub mod file;
mod follow;
pub mod init;
pub mod operate;
pub mod ownership;
pub mod places;
pub mod plan;
pub mod preflight;
pub mod progress;
mod quiet;
pub mod ready;
mod regions;
pub mod review;
pub mod tokens;
