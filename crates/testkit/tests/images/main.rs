//! The images: built from their Dockerfiles by the script of `make images`, started as a container runtime starts them.
//!
//! They need root for namespaces of their own, `buildah`, and the static programs. `make test` brings all of that and
//! then asks for these tests; `cargo test` alone shows them as ignored.

mod agent;
mod build;
mod container;
mod manager;
mod task_nodejs;
