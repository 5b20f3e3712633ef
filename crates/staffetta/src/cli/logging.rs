//! The manager's own log: to standard error, in the format and at the level that `config.toml` names.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::LogFormat;

/// Says everything of ours at `level` and only what is wrong of the libraries. `STAFFETTA_LOG` overrides it,
/// in the syntax of tracing's `EnvFilter`.
pub fn start(format: LogFormat, level: Level) {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    start_with(BoxMakeWriter::new(io::stderr), colours, format, level);
}

/// The same, at the end of a file where one is named.
pub fn start_in(file: Option<&Path>, format: LogFormat, level: Level) -> io::Result<()> {
    match file {
        Some(file) => {
            let file = File::options().append(true).create(true).open(file)?;
            start_with(BoxMakeWriter::new(file), false, format, level);
        }
        None => start(format, level),
    }
    Ok(())
}

fn start_with(writer: BoxMakeWriter, colours: bool, format: LogFormat, level: Level) {
    let filter = EnvFilter::try_from_env("STAFFETTA_LOG").unwrap_or_else(|_| {
        let ours = ["staffetta", "aws::fargate", "gitlab", "ssh"].map(|part| format!("{part}={level}")).join(",");
        EnvFilter::new(format!("warn,russh=error,aws_config=error,{ours}"))
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Runner => log.with_ansi(colours).init(),
    }
}

/// For commands that show something else: the manager speaks only if `STAFFETTA_LOG` says so.
pub fn start_if_asked_for() {
    if std::env::var_os("STAFFETTA_LOG").is_some() {
        start(LogFormat::Runner, Level::INFO);
    }
}
