//! The embedded GitLab.

pub mod ci;
