//! The manager and its command line: `staffetta run`, `staffetta local`, the embedded servers for other clients.

pub mod cli;
pub mod config;
mod container;
pub mod local;
pub mod manager;
mod reach;
mod registration;
