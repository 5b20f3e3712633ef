//! The manager's own log: to standard error, in the format and at the level that `config.toml` names.

use std::fs::File;
use std::io;
use std::path::Path;

use tracing::Level;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use super::log_format::KeyValue;
use crate::config::LogFormat;
use crate::{metrics, terminal};

/// Says everything of ours at `level` and only what is wrong of the libraries. `STAFFETTA_LOG` overrides it,
/// in the syntax of tracing's `EnvFilter`.
pub fn start(format: LogFormat, level: Level) {
    let colours = terminal::colours(&io::stderr());
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
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Json => lines.event_format(KeyValue::Json).boxed(),
        LogFormat::Text => lines.event_format(KeyValue::Text).boxed(),
        LogFormat::Runner => lines.with_target(false).with_ansi(colours).boxed(),
    };
    Registry::default().with(lines).with(filter).with(metrics::log::Count).init();
}

/// For commands that show something else: the manager speaks only if `STAFFETTA_LOG` says so.
pub fn start_if_asked_for() {
    if std::env::var_os("STAFFETTA_LOG").is_some() {
        start(LogFormat::Runner, Level::INFO);
    }
}
