//! The Fargate client against a server that answers word by word what a test tells it to.

mod roles;
mod run_task;
mod scripted;
mod tasks;
