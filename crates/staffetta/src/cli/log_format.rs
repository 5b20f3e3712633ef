//! Two of the formats of GitLab's runner: `text` (`time="…" level=info msg="…" key=value`) and `json`, with the same keys.

use std::fmt;

use jiff::{Timestamp, Unit};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

pub enum KeyValue {
    Text,
    Json,
}

impl<S, N> FormatEvent<S, N> for KeyValue
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let now = Timestamp::now();
        let now = now.round(Unit::Second).unwrap_or(now).to_string();
        match self {
            Self::Json => writeln!(writer, "{}", json(&now, level, fields)),
            Self::Text => writeln!(writer, "{}", text(&now, level, &fields)),
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

fn json(now: &str, level: &str, fields: Fields) -> Value {
    let mut line = fields.others;
    for (key, value) in [("level", level), ("msg", &fields.message), ("time", now)] {
        line.insert(key.to_owned(), value.into());
    }
    Value::Object(line)
}

fn text(now: &str, level: &str, fields: &Fields) -> String {
    let mut line = format!("time={} level={level} msg={}", quoted(now), quoted(&fields.message));
    for (key, value) in &fields.others {
        let value = value.as_str().map_or_else(|| value.to_string(), quoted);
        line += &format!(" {key}={value}");
    }
    line
}

/// As it is if it is one plain word.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) { value.to_owned() } else { format!("{value:?}") }
}

impl Fields {
    fn keep(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        let others = [("job", Value::from(7)), ("runner", "dev".into()), ("reason", "line one\n\"two\"".into())];
        let others = others.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        Fields { message: "cannot report a job".into(), others }
    }

    #[test]
    fn a_line_of_text_stays_one_line_whatever_is_in_it() {
        assert_eq!(
            text("2026-01-31T01:02:03Z", "warning", &fields()),
            r#"time="2026-01-31T01:02:03Z" level=warning msg="cannot report a job" job=7 runner=dev reason="line one\n\"two\"""#
        );
    }

    #[test]
    fn a_line_of_json_has_the_keys_of_gitlabs_runner() {
        let line = json("2026-01-31T01:02:03Z", "info", fields()).to_string();
        assert_eq!(line.lines().count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["level"], &read["msg"]), (&"info".into(), &"cannot report a job".into()));
        assert_eq!((&read["time"], &read["job"]), (&"2026-01-31T01:02:03Z".into(), &7.into()));
    }
}
