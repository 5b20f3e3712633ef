//! `staffetta local`: a pipeline on this machine, without an account.

pub mod event;
pub mod git_snapshot;
pub mod pipeline;
pub mod render;
pub mod servers;
pub mod summary;
pub mod timing;
mod trace_lines;
