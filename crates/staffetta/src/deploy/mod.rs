//! `staffetta deploy`: environments from a file, made by CloudFormation.

pub mod config_toml;
pub mod file;
pub mod init;
mod regions;
pub mod tokens;
