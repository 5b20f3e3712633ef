//! Every mistake of a pipeline's files, each with its place.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, in words for the person who wrote the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Relative to the repository's root where it is inside of it.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// A place in one of the files that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    /// An index, in the order of reading.
    pub file: u16,
    pub line: u32,
}

#[derive(Default)]
pub(super) struct Mistakes {
    files: Vec<PathBuf>,
    found: Vec<(At, String)>,
}

impl Mistakes {
    /// Begins a file; `load` bounds their number far below what an index can hold.
    pub fn begin(&mut self, file: PathBuf) -> u16 {
        self.files.push(file);
        (self.files.len() - 1) as u16
    }

    pub fn add(&mut self, at: At, message: impl Into<String>) {
        self.found.push((at, message.into()));
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Where `at` is, as a message names it.
    pub fn place(&self, at: At) -> String {
        format!("{}:{}", self.files[usize::from(at.file)].display(), at.line)
    }

    /// What several jobs inherit is read for each of them, so the same mistake can be found many times.
    pub fn into_sorted(mut self) -> Vec<Mistake> {
        self.found.sort();
        self.found.dedup();
        let mistake = |(at, message): (At, String)| Mistake {
            file: self.files[usize::from(at.file)].clone(),
            line: at.line,
            message,
        };
        self.found.into_iter().map(mistake).collect()
    }
}
