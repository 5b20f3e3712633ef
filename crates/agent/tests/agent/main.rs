//! The agent as a process of its own, against a small fake GitLab and real git repositories.

mod arrival;
mod artifacts;
mod ends;
mod scripts;
mod sources;
mod support;
