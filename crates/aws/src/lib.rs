//! AWS, and the only crate that knows its SDK: Fargate tasks.

pub mod fargate;
