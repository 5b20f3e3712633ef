//! The header of 32 bytes before every line (protocol 4.11).

use std::time::SystemTime;

use jiff::Timestamp;
use memchr::{memchr, memchr_iter, memrchr};

use super::Stream;

const LENGTH: usize = 32;
const FLAG: usize = LENGTH - 1;
/// An unfinished line is let out when it is longer than this.
const LONGEST_PART: usize = 8 * 1024;

/// `2024-06-19T19:22:45.123456Z 01O ` before a line, with a `+` at its end before the rest of one.
pub(super) struct Header([u8; LENGTH]);

impl Header {
    /// Made once for each write: all its lines have the same time.
    pub(super) fn new(stream: Stream, now: SystemTime) -> Self {
        let id = match stream {
            Stream::Runner => "00O",
            Stream::Out => "01O",
            Stream::Err => "01E",
        };
        // A clock that is thousands of years off is not worth a failure.
        let text = format!("{:.6} {id}", Timestamp::try_from(now).unwrap_or_default());
        let mut header = [b' '; LENGTH];
        let length = text.len().min(FLAG);
        header[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self(header)
    }
}

/// Puts headers before the lines of one stream and keeps its unfinished line.
#[derive(Default)]
pub(super) struct Stamper {
    /// With its header.
    unfinished: Vec<u8>,
    /// The next header goes on with the line before it.
    continues: bool,
}

impl Stamper {
    pub(super) fn write(&mut self, text: &[u8], header: &Header, out: &mut Vec<u8>) {
        let (lines, rest) = text.split_at(memrchr(b'\n', text).map_or(0, |end| end + 1));
        let mut start = 0;
        for end in memchr_iter(b'\n', lines) {
            self.begin(header);
            out.append(&mut self.unfinished);
            out.extend_from_slice(&lines[start..=end]);
            start = end + 1;
        }
        if rest.is_empty() {
            return;
        }
        self.begin(header);
        let too_long = self.unfinished.len() + rest.len() > LONGEST_PART;
        self.unfinished.extend_from_slice(rest);
        // A progress bar rewrites its line with carriage returns and may never end it.
        if too_long || memchr(b'\r', rest).is_some() {
            self.let_out(out);
        }
    }

    fn begin(&mut self, header: &Header) {
        if self.unfinished.is_empty() {
            self.unfinished.extend_from_slice(&header.0);
            if std::mem::take(&mut self.continues) {
                self.unfinished[FLAG] = b'+';
            }
        }
    }

    /// Ends the unfinished line; what comes next goes on with it.
    pub(super) fn let_out(&mut self, out: &mut Vec<u8>) {
        if !self.unfinished.is_empty() {
            out.append(&mut self.unfinished);
            out.push(b'\n');
            self.continues = true;
        }
    }
}
