//! A server in Python that stands in for AWS on loopback.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::{AwsFront, aws_call};

/// It ends with its standard input, so that it never outlives the process that started it, however that ends.
const ENDS_WITH_US: &str = r#"
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
"#;

pub struct Emulator {
    process: Child,
    url: String,
}

impl Emulator {
    /// Runs `program` with the Python of `target/NAME`, which `scripts/install-NAME` makes, and returns when it says
    /// `Running on URL`.
    pub fn start(name: &str, program: &str) -> Self {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(name).join("bin/python");
        assert!(python.is_file(), "{name} is missing: run scripts/install-{name} first");
        let mut command = Command::new(python);
        command.args(["-c", &format!("{ENDS_WITH_US}{program}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("Python starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("it was piped"));
        let mut said = String::new();
        let url = loop {
            let before = said.len();
            let read = stderr.read_line(&mut said).expect("its words");
            assert!(read > 0, "{name} ended at once:\n{said}");
            if let Some((_, rest)) = said[before..].split_once("Running on ") {
                break rest.split_whitespace().next().unwrap_or_default().to_owned();
            }
        };
        // A log that nobody reads would stop it in the end.
        thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        // Only where somebody wants to know: another hop costs the benchmarks time.
        let url = if aws_call::record_file().is_some() { AwsFront::for_good(url) } else { url };
        Self { process, url }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
