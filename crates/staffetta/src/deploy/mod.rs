//! `staffetta deploy`: environments from a file, made by CloudFormation.

pub mod file;
mod regions;
