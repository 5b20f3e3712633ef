//! embedded

pub mod gitlab;
