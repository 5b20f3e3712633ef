//! The embedded GitLab, held against a client written by hand and against Git.

mod artifacts;
mod client;
mod faults;
mod keywords;
mod official_runner;
mod pipelines;
mod registration;
mod reporting;
mod repository;
mod requests;
