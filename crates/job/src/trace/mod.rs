//! The job's log on its way to GitLab: masked, sanitised, time-stamped and cut at its limit, as a
//! pure stream (protocol 4.5, 4.9 to 4.12).

pub mod line;

use std::time::SystemTime;

use crate::secret::SecretString;

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

/// Turns what a job writes into the bytes of its trace.
pub struct Pipeline {}

impl Pipeline {
    /// `already` is the number of bytes that the trace has: they count towards the limit.
    pub fn new(_settings: &TraceSettings, _already: u64) -> Self {
        todo!()
    }

    /// Appends to `out` what of the trace is certain after these bytes.
    pub fn write(&mut self, _stream: Stream, _bytes: &[u8], _now: SystemTime, _out: &mut Vec<u8>) {
        todo!()
    }

    /// Lets out unfinished lines, so that a prompt or a row of dots is seen while it grows.
    pub fn flush_lines(&mut self, _out: &mut Vec<u8>) {
        todo!()
    }

    /// Ends every stream: what was held back comes out.
    pub fn finish(&mut self, _now: SystemTime, _out: &mut Vec<u8>) {
        todo!()
    }
}
