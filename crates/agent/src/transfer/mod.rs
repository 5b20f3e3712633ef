//! Caches on their way: where they are found, and how they travel (protocol 6.4, 6.5).

pub mod addresses;
mod http;

pub use http::{Fetched, Other, Patience, Transfer, TransferError, write_metadata};
