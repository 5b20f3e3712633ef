//! The job's log on its way to GitLab: masked, sanitised, time-stamped and cut at its limit, as a
//! pure stream (protocol 4.5, 4.9 to 4.12).
//!
//! Every step works on whole writes, and passes them on uncopied where it changes nothing: a job
//! that prints a gigabyte must not wait for its log.

pub mod line;

mod limit;
mod mask;
mod search;
mod stamp;
#[cfg(test)]
mod tests;
mod utf8;

use std::time::SystemTime;

use limit::Limit;
use mask::{Filter, Masks};
use stamp::{Header, Stamper};
use utf8::Utf8;

use crate::secret::SecretString;

/// A larger write is taken in parts: each step keeps a copy of one part at most.
const PART: usize = 64 * 1024;

/// Who wrote the bytes (protocol 4.11). Lines of one stream never mix with those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The runner's own lines and section markers: `00O`.
    Runner,
    /// The standard output of the job's scripts: `01O`.
    Out,
    /// Their standard error: `01E`.
    Err,
}

/// What a job's trace looks like and what must not appear in it.
#[derive(Debug, Clone, Default)]
pub struct TraceSettings {
    /// `FF_TIMESTAMPS`: a header of 32 bytes before every line.
    pub timestamps: bool,
    /// Bytes of trace after which the rest is dropped; 0 stands for GitLab's default of 4 MiB.
    pub output_limit: u64,
    /// Values of masked variables, expanded.
    pub masked: Vec<SecretString>,
    /// The server's own prefixes of tokens (`features.token_mask_prefixes`).
    pub token_prefixes: Vec<String>,
    /// `FF_MASK_ALL_DEFAULT_TOKENS`: every kind of GitLab token is masked, not only `glpat-`.
    pub mask_default_tokens: bool,
}

/// Turns what a job writes into the bytes of its trace, which are always valid UTF-8.
pub struct Pipeline {
    /// In the order of [`Stream`].
    streams: [Steps; 3],
    timestamps: bool,
    limit: Limit,
}

/// What one stream passes through.
struct Steps {
    utf8: Utf8,
    filters: [Filter; 3],
    stamper: Stamper,
}

impl Steps {
    fn new(masks: &Masks) -> Self {
        Self { utf8: Utf8::default(), filters: masks.filters(), stamper: Stamper::default() }
    }

    /// `header` is missing if the trace has no timestamps.
    fn write(&mut self, bytes: &[u8], header: Option<&Header>, last: bool, out: &mut Vec<u8>) {
        let [phrases, urls, tokens] = &mut self.filters;
        let text = self.utf8.pass(bytes, last);
        let text = tokens.pass(urls.pass(phrases.pass(text, last), last), last);
        match header {
            Some(header) => self.stamper.write(text, header, out),
            None => out.extend_from_slice(text),
        }
    }
}

impl Pipeline {
    /// `already` is the number of bytes that the trace has: they count towards the limit.
    pub fn new(settings: &TraceSettings, already: u64) -> Self {
        let masks = Masks::new(settings);
        Self {
            streams: std::array::from_fn(|_| Steps::new(&masks)),
            timestamps: settings.timestamps,
            limit: Limit::new(settings.output_limit, already),
        }
    }

    /// Appends to `out` what of the trace is certain after these bytes.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: SystemTime, out: &mut Vec<u8>) {
        if self.limit.reached() {
            return;
        }
        let header = self.timestamps.then(|| Header::new(stream, now));
        let start = out.len();
        for part in bytes.chunks(PART) {
            self.streams[stream as usize].write(part, header.as_ref(), false, out);
        }
        self.limit.cut(out, start);
    }

    /// Lets out unfinished lines, so that a prompt or a row of dots is seen while it grows: stamped
    /// lines would wait for their end. What may be the beginning of a secret stays.
    pub fn flush_lines(&mut self, out: &mut Vec<u8>) {
        if self.limit.reached() {
            return;
        }
        let start = out.len();
        for steps in &mut self.streams {
            steps.stamper.let_out(out);
        }
        self.limit.cut(out, start);
    }

    /// Ends every stream: what was held back comes out.
    pub fn finish(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        if self.limit.reached() {
            return;
        }
        let start = out.len();
        for stream in [Stream::Runner, Stream::Out, Stream::Err] {
            let header = self.timestamps.then(|| Header::new(stream, now));
            let steps = &mut self.streams[stream as usize];
            steps.write(&[], header.as_ref(), true, out);
            steps.stamper.let_out(out);
        }
        self.limit.cut(out, start);
    }
}
