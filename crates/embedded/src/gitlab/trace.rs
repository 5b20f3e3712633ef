//! The stored trace of a job.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Bytes in a file, opened for each append: a thousand running jobs need no thousand file descriptors.
pub(super) struct Trace {
    path: PathBuf,
    keep: bool,
    size: u64,
    /// CRC-32 of all bytes; `None` when it cannot be known any more.
    sum: Option<crc32fast::Hasher>,
}

impl Trace {
    pub(super) fn new(path: PathBuf, keep: bool) -> Self {
        Self { path, keep, size: 0, sum: Some(crc32fast::Hasher::new()) }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Eight lower-case hexadecimal digits after `crc32:` (protocol 4.3).
    pub(super) fn checksum(&self) -> Option<String> {
        self.sum.clone().map(|sum| format!("crc32:{:08x}", sum.finalize()))
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.keep {
            OpenOptions::new().create(true).append(true).open(&self.path)?.write_all(bytes)?;
        }
        self.size += bytes.len() as u64;
        if let Some(sum) = &mut self.sum {
            sum.update(bytes);
        }
        Ok(())
    }

    /// Forgets all bytes from `keep` on. The sum of bytes that are not kept cannot be known afterwards.
    pub(super) fn cut(&mut self, keep: u64) -> io::Result<()> {
        if keep >= self.size {
            return Ok(());
        }
        self.size = keep;
        if !self.keep {
            self.sum = None;
            return Ok(());
        }
        OpenOptions::new().write(true).open(&self.path)?.set_len(keep)?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(&fs::read(&self.path)?);
        self.sum = Some(sum);
        Ok(())
    }

    /// Empty when nothing was written or nothing is kept.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        match File::open(&self.path) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut file, &mut bytes)?;
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_is_cut_has_the_sum_of_what_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut trace = Trace::new(directory.path().join("1"), true);
        trace.append(b"123456789").expect("append");
        assert_eq!(trace.checksum().as_deref(), Some("crc32:cbf43926"));
        trace.append(b"more").expect("append");
        trace.cut(9).expect("cut");
        assert_eq!((trace.size(), trace.checksum().as_deref()), (9, Some("crc32:cbf43926")));
        assert_eq!(trace.read().expect("read"), b"123456789");
    }

    #[test]
    fn a_trace_that_is_not_kept_is_still_summed() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut trace = Trace::new(directory.path().join("1"), false);
        trace.append(b"1234").expect("append");
        trace.append(b"56789").expect("append");
        assert_eq!((trace.size(), trace.checksum().as_deref()), (9, Some("crc32:cbf43926")));
        assert_eq!(trace.read().expect("read"), b"");
        trace.cut(1).expect("cut");
        assert_eq!((trace.size(), trace.checksum()), (1, None));
    }
}
