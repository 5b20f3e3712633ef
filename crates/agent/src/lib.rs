//! The agent: runs one job inside its task, tells GitLab about it, and ends the task.
//!
//! It never knows AWS. The journey of a job is [`run`], its stages are in [`stages`]; [`serve`] and
//! [`detached`] are the two ways by which a job arrives.

pub mod archive;
mod blocking;
pub mod container;
pub mod detached;
#[cfg(test)]
mod fixtures;
pub mod git;
mod note;
pub mod proc;
pub mod process;
pub mod run;
pub mod serve;
pub mod shell;
pub mod stages;
pub mod stop;
pub mod transfer;
pub mod workspace;
