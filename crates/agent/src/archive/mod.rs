//! Which files belong to an artifact or a cache, and how they travel (protocol 5.2, 5.3, 5.5, 6).
//!
//! Three steps, each usable by itself and none of them asynchronous:
//!
//! ```text
//! select::select(project, &Wanted { paths, exclude, untracked }) -> Selection { entries, notes }
//! write::write(format, project, &entries, level, into: impl io::Write)
//! extract::extract(archive: File, root, abandoned) -> how many entries
//! ```
//!
//! An archive is written front to back, so `into` may be a file or a connection.

use std::io;

mod ahead;
mod deflate;
pub mod expand;
pub mod extract;
pub mod glob;
pub mod select;
pub mod write;
mod zip_stream;

/// An error of the file system, with what can be done where that is known.
pub fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full; a task definition may ask for more (ephemeralStorage)".into()
        }
        _ => error.to_string(),
    }
}
