//! The stacks of a deployment and its roles, as data: what the issue and AWS ask of them, for every option.

mod isolation;
mod lint;
mod operators;
mod options;
mod policies;
mod templates;
