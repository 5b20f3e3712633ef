//! The agent as a process of its own, against a small fake GitLab and real git repositories.

mod arrival;
mod artifacts;
mod caches;
mod ends;
mod scripts;
mod sources;
mod sources_of_git;
mod sources_without_git;
mod support;
