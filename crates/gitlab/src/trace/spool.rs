//! All bytes of one trace, to be read again from any offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

/// A small trace never touches the disk.
const IN_MEMORY: usize = 64 * 1024;

/// The beginning of a long trace lies in a file without a name, its end in memory. Where no file
/// can be written (the job may have filled the disk) all of it stays in memory: the pipeline's
/// limit bounds it.
pub(super) struct Spool {
    file: Option<File>,
    in_file: u64,
    memory: Vec<u8>,
    /// Size of `memory` at which it moves to the file.
    full: usize,
    sum: crc32fast::Hasher,
}

impl Spool {
    pub(super) fn new() -> Self {
        Self { file: None, in_file: 0, memory: Vec::new(), full: IN_MEMORY, sum: crc32fast::Hasher::new() }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.memory.extend_from_slice(bytes);
        if self.memory.len() < self.full {
            return;
        }
        match self.spill() {
            Ok(()) => self.full = IN_MEMORY,
            Err(error) => {
                // Tried again when as much has come once more, not with every write.
                self.full = self.memory.len() * 2;
                tracing::warn!(%error, "the trace cannot be kept in a file; it stays in memory");
            }
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        file.write_all_at(&self.memory, self.in_file)?;
        self.in_file += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.in_file + self.memory.len() as u64
    }

    pub(super) fn crc32(&self) -> u32 {
        self.sum.clone().finalize()
    }

    /// Up to `most` bytes from `start` on; empty only at the end.
    pub(super) fn read(&self, start: u64, most: usize) -> io::Result<Bytes> {
        if let Some(file) = self.file.as_ref().filter(|_| start < self.in_file) {
            let length = (self.in_file - start).min(most as u64);
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, start)?;
            return Ok(bytes.into());
        }
        let from = ((start - self.in_file) as usize).min(self.memory.len());
        let to = from.saturating_add(most).min(self.memory.len());
        Ok(Bytes::copy_from_slice(&self.memory[from..to]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_can_be_read_again_from_memory_and_file() {
        let mut spool = Spool::new();
        let mut all = Vec::new();
        for round in 0..50_u32 {
            let bytes: Vec<u8> = (0..3_001_u32).map(|index| (round * 31 + index) as u8).collect();
            spool.append(&bytes);
            all.extend_from_slice(&bytes);
        }
        assert!(spool.in_file > 0 && !spool.memory.is_empty());
        assert_eq!(spool.len(), all.len() as u64);
        assert_eq!(spool.crc32(), crc32fast::hash(&all));
        for (start, most) in [(0, 10), (100_000, 1 << 20), (spool.in_file, 5), (all.len() as u64, 10)] {
            let bytes = spool.read(start, most).expect("readable");
            let from = start as usize;
            assert_eq!(bytes, all[from..from + bytes.len()]);
        }
        let mut whole = Vec::new();
        while whole.len() < all.len() {
            whole.extend_from_slice(&spool.read(whole.len() as u64, 1 << 20).expect("readable"));
        }
        assert_eq!(whole, all);
    }
}
