//! The embedded Fargate: its API, its tasks, and AWS's own command line against it.

mod accounts;
mod api;
mod aws_cli;
mod record;
mod support;
mod tasks;
