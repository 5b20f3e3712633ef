//! The manager, the Fargate driver and their command line; the embedded servers for other clients.

mod cidr;
pub mod cli;
pub mod config;
mod container;
pub mod deploy;
pub mod doctor;
mod driver;
pub mod local;
pub mod manager;
pub mod metrics;
mod reach;
mod registration;
mod secrets;
mod terminal;
