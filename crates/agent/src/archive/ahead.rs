//! Reading a zip from a file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// A large file should not be a million calls, a small one not a long read.
const AHEAD: usize = 32 * 1024;

/// A file that is read ahead, and not anew for a seek within what was: a zip is a seek and a few bytes for each entry.
pub struct Ahead {
    file: BufReader<File>,
    at: u64,
}

impl Ahead {
    pub fn new(file: File) -> Self {
        Self { file: BufReader::with_capacity(AHEAD, file), at: 0 }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Ahead {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let offset = match to {
            SeekFrom::Start(to) => i64::try_from(i128::from(to) - i128::from(self.at)).ok(),
            SeekFrom::Current(offset) => Some(offset),
            SeekFrom::End(_) => None,
        };
        // Negative places are left to the file to refuse.
        match offset.and_then(|offset| Some((offset, self.at.checked_add_signed(offset)?))) {
            Some((offset, at)) => {
                self.file.seek_relative(offset)?;
                self.at = at;
            }
            None => self.at = self.file.seek(to)?,
        }
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn reading_ahead_is_reading() {
        let bytes: Vec<u8> = (0..3 * AHEAD).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).and_then(|()| file.rewind()).expect("a file");
        let mut ahead = Ahead::new(file);
        let end = bytes.len() as u64;
        let places = [
            SeekFrom::Start(10),
            SeekFrom::Current(100),
            SeekFrom::Start(5),
            SeekFrom::End(-300),
            SeekFrom::Current(-500),
        ];
        let expected = [10, 110 + 8, 5, end - 300, end - 300 + 8 - 500];
        for (to, at) in places.into_iter().zip(expected) {
            let mut eight = [0; 8];
            assert_eq!(ahead.seek(to).expect("a place"), at);
            ahead.read_exact(&mut eight).expect("bytes");
            assert_eq!(eight, bytes[at as usize..at as usize + 8]);
        }
        assert!(ahead.seek(SeekFrom::Current(-(end as i64) * 2)).is_err());
    }
}
