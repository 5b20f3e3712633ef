//! Artifacts as files: which belong to one, and how they travel (protocol 5.2, 5.3, 5.5).

pub mod expand;
pub mod extract;
pub mod glob;
pub mod select;
pub mod write;
