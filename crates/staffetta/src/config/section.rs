//! Reads a TOML table key by key, and knows afterwards which keys nobody asked for.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Remark, keys};

/// What differs between the kinds of file.
pub struct Dialect {
    /// What messages call the file.
    name: &'static str,
    /// Shows every key.
    example: &'static str,
    /// `cluster` is `Cluster`, and `INFO` is `info`: the library that GitLab's driver reads its file with has it so.
    any_case: bool,
}

pub const CONFIG_TOML: Dialect = Dialect { name: "config.toml", example: "examples/config.toml", any_case: false };
pub const ECS_TOML: Dialect = Dialect { name: "ecs.toml", example: "examples/ecs.toml", any_case: true };
pub const STAFFETTA_TOML: Dialect =
    Dialect { name: "staffetta.toml", example: "examples/staffetta.toml", any_case: false };

/// Everything that there is to tell about one file.
pub struct Report<'t> {
    file: &'t Path,
    text: &'t str,
    dialect: &'static Dialect,
    pub mistakes: Vec<Remark>,
    pub warnings: Vec<Remark>,
    /// Full paths of the keys that were asked for, whether the file has them or not.
    #[cfg(test)]
    pub asked: std::collections::BTreeSet<String>,
}

impl<'t> Report<'t> {
    pub fn new(file: &'t Path, text: &'t str, dialect: &'static Dialect) -> Self {
        Self {
            file,
            text,
            dialect,
            mistakes: Vec::new(),
            warnings: Vec::new(),
            #[cfg(test)]
            asked: Default::default(),
        }
    }

    /// `at` is a byte of the file.
    pub fn mistake(&mut self, at: usize, message: impl Into<String>) {
        let remark = self.remark(at, message.into());
        self.mistakes.push(remark);
    }

    pub fn warning(&mut self, at: usize, message: impl Into<String>) {
        let remark = self.remark(at, message.into());
        self.warnings.push(remark);
    }

    fn remark(&self, at: usize, message: String) -> Remark {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Remark { file: self.file.to_owned(), line: Some(line), message }
    }
}

/// A table of the file. What its methods cannot read they report, and answer as if the key were absent.
pub struct Section<'r, 't> {
    pub report: &'r mut Report<'t>,
    table: &'r DeTable<'t>,
    /// How a person would write the table: empty for the file's root, `runners.fargate`.
    path: String,
    /// The first byte of its header.
    pub at: usize,
    asked: Vec<&'static str>,
    /// Keys whose value was reported already.
    unreadable: Vec<&'static str>,
}

/// A value and the byte of the file where its key stands.
pub struct Found<T> {
    pub value: T,
    pub at: usize,
}

impl<'r, 't> Section<'r, 't> {
    pub fn root(report: &'r mut Report<'t>, table: &'r DeTable<'t>) -> Self {
        Self { report, table, path: String::new(), at: 0, asked: Vec::new(), unreadable: Vec::new() }
    }

    /// `runners.fargate.cluster`
    pub fn name_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn mistake(&mut self, at: usize, message: impl Into<String>) {
        self.report.mistake(at, message);
    }

    /// A key that must be there is absent or empty. Says nothing about a key whose value was reported already.
    pub fn missing(&mut self, key: &'static str, advice: &str) {
        if !self.unreadable.contains(&key) {
            let message = format!("`{}` is missing: {advice}", self.name_of(key));
            self.report.mistake(self.at, message);
        }
    }

    /// A key that was read has a value that cannot be used.
    pub fn wrong(&mut self, key: &'static str, message: &str) {
        if !self.unreadable.contains(&key) {
            let at = self.find(key).map_or(self.at, |(key, _)| key.span().start);
            let message = format!("`{}` {message}", self.name_of(key));
            self.report.mistake(at, message);
        }
    }

    /// Reads past a key.
    pub fn skip(&mut self, key: &'static str) {
        self.asked.push(key);
    }

    fn get(&mut self, key: &'static str) -> Option<(usize, &'r Spanned<DeValue<'t>>)> {
        self.asked.push(key);
        #[cfg(test)]
        self.report.asked.insert(self.name_of(key));
        self.find(key).map(|(key, value)| (key.span().start, value))
    }

    /// The key as the file has it. Of two that differ only in their case, the exact one; the other is an unknown key.
    fn find(&self, key: &str) -> Option<(&'r Spanned<Cow<'t, str>>, &'r Spanned<DeValue<'t>>)> {
        let table = self.table;
        let like =
            || table.iter().find(|(name, _)| self.report.dialect.any_case && name.get_ref().eq_ignore_ascii_case(key));
        table.get_key_value(key).or_else(like)
    }

    fn refuse(&mut self, key: &'static str, at: usize, message: String) {
        self.unreadable.push(key);
        self.report.mistake(at, message);
    }

    /// Reads a key with `read`, which answers nothing for a value that is not `wanted`.
    fn take<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&DeValue) -> Option<T>,
    ) -> Option<Found<T>> {
        let (at, value) = self.get(key)?;
        let found = read(value.get_ref());
        if found.is_none() {
            let message = format!("`{}` must be {wanted}{}", self.name_of(key), but_is(value.get_ref()));
            self.refuse(key, at, message);
        }
        Some(Found { value: found?, at })
    }

    pub fn text(&mut self, key: &'static str) -> Option<Found<String>> {
        self.take(key, "a text in quotes", |value| value.as_str().map(str::to_owned))
    }

    /// A text that counts as absent when it is empty.
    pub fn filled_text(&mut self, key: &'static str) -> Option<Found<String>> {
        self.text(key).filter(|found| !found.value.is_empty())
    }

    /// A text that is empty when it is absent.
    pub fn word(&mut self, key: &'static str) -> String {
        self.text(key).map(|found| found.value).unwrap_or_default()
    }

    /// The value that belongs to one of a few names; empty counts as absent.
    pub fn one_of<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let found = self.filled_text(key)?;
        let any_case = self.report.dialect.any_case;
        let is = |name: &str| name == found.value || any_case && name.eq_ignore_ascii_case(&found.value);
        let choice = choices.iter().find(|(name, _)| is(name));
        if choice.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let message = format!("`{}` must be one of {}", self.name_of(key), names.join(", "));
            self.refuse(key, found.at, message);
        }
        choice.map(|(_, value)| *value)
    }

    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.filled_text(key).map(|found| found.value.into())
    }

    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.take(key, "true or false", |value| value.as_bool()).map(|found| found.value)
    }

    pub fn number<T: TryFrom<i64>>(&mut self, key: &'static str, wanted: &str) -> Option<T> {
        self.take(key, wanted, |value| integer(value)?.try_into().ok()).map(|found| found.value)
    }

    /// A number, or a text that says it in words, such as "1 vCPU".
    pub fn amount(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&str) -> Option<u32>,
    ) -> Option<Found<u32>> {
        self.take(key, wanted, |value| match value {
            DeValue::String(text) => read(text),
            value => integer(value)?.try_into().ok(),
        })
    }

    pub fn at_least_one<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let found = self.take(key, "a whole number of 1 or more", |value| {
            integer(value).filter(|number| *number >= 1)?.try_into().ok()
        });
        found.map(|found| found.value)
    }

    /// Whole seconds. 0 and less is the default, as in GitLab's runner.
    pub fn seconds(&mut self, key: &'static str) -> Option<Duration> {
        let seconds: i64 = self.number(key, "a whole number of seconds")?;
        u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }

    /// A text such as `1h30m` or `90s`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let found = self.text(key)?;
        let parsed = found.value.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
        if parsed.is_none() {
            let message = format!("`{}` must be a duration such as \"90s\", \"15m\" or \"1h30m\"", self.name_of(key));
            self.refuse(key, found.at, message);
        }
        parsed
    }

    /// A duration that is waited for: 0 would be no time at all, and is the default.
    pub fn waiting_time(&mut self, key: &'static str) -> Option<Duration> {
        self.duration(key).filter(|duration| !duration.is_zero())
    }

    /// A point in time. The year 1, which stands for "never" in what `gitlab-runner register` writes, is none.
    pub fn date(&mut self, key: &'static str) -> Option<Timestamp> {
        let found = self.take(key, "a date with its offset, such as 2030-01-31T00:00:00Z", |value| match value {
            DeValue::Datetime(_) if is_empty(value) => Some(None),
            DeValue::Datetime(date) => date.to_string().parse().ok().map(Some),
            _ => None,
        });
        found?.value
    }

    pub fn texts(&mut self, key: &'static str) -> Option<Found<Vec<String>>> {
        self.take(key, "a list of texts, such as [\"one\", \"two\"]", |value| {
            value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        })
    }

    /// A list that is empty when it is absent.
    pub fn words(&mut self, key: &'static str) -> Vec<String> {
        self.texts(key).map(|found| found.value).unwrap_or_default()
    }

    pub fn contains(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Whether the key has more than a placeholder.
    pub fn contains_something(&self, key: &str) -> bool {
        self.find(key).is_some_and(|(_, value)| !is_empty(value.get_ref()))
    }

    /// Whether the key has a list of texts and not one of tables.
    pub fn holds_texts(&self, key: &str) -> bool {
        let list = self.find(key).and_then(|(_, value)| value.get_ref().as_array());
        list.is_some_and(|items| !items.is_empty() && items.iter().all(|item| item.get_ref().is_str()))
    }

    /// Every key of a table whose keys are free, and whose values are true or false.
    pub fn flags(&mut self, key: &'static str) -> Vec<(String, Found<bool>)> {
        self.free_keys(key, "true or false", |value| value.as_bool())
    }

    /// The same with texts.
    pub fn named_texts(&mut self, key: &'static str) -> Vec<(String, Found<String>)> {
        self.free_keys(key, "a text in quotes", |value| value.as_str().map(str::to_owned))
    }

    fn free_keys<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&DeValue) -> Option<T>,
    ) -> Vec<(String, Found<T>)> {
        let Some((at, value)) = self.get(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`{0}` must be a table: write [{0}]", self.name_of(key));
            self.refuse(key, at, message);
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in table {
            let at = name.span().start;
            match read(value.get_ref()) {
                Some(value) => found.push((name.get_ref().to_string(), Found { value, at })),
                None => {
                    let name = format!("{}.{}", self.name_of(key), name.get_ref());
                    self.report.mistake(at, format!("`{name}` must be {wanted}{}", but_is(value.get_ref())));
                }
            }
        }
        found
    }

    pub fn section(&mut self, key: &'static str) -> Option<Section<'_, 't>> {
        let (at, value) = self.get(key)?;
        let path = self.name_of(key);
        match value.get_ref() {
            DeValue::Table(table) => Some(Section {
                report: self.report,
                table,
                path,
                at: value.span().start,
                asked: Vec::new(),
                unreadable: Vec::new(),
            }),
            other => {
                self.refuse(key, at, format!("`{path}` must be a table: write [{path}]{}", but_is(other)));
                None
            }
        }
    }

    /// Calls `read` for each table of a list of tables.
    pub fn sections<T>(&mut self, key: &'static str, mut read: impl FnMut(Section<'_, 't>) -> T) -> Vec<T> {
        let Some((at, value)) = self.get(key) else { return Vec::new() };
        let path = self.name_of(key);
        let tables: Option<Vec<_>> = value.get_ref().as_array().and_then(|items| {
            items.iter().map(|item| item.get_ref().as_table().map(|table| (item.span().start, table))).collect()
        });
        let Some(tables) = tables else {
            self.refuse(key, at, format!("`{path}` must be a list of tables: write [[{path}]]"));
            return Vec::new();
        };
        let section = |(at, table)| {
            read(Section {
                report: self.report,
                table,
                path: path.clone(),
                at,
                asked: Vec::new(),
                unreadable: Vec::new(),
            })
        };
        tables.into_iter().map(section).collect()
    }

    /// Calls `read` for each table of a table whose keys are free, in the order of the file.
    pub fn named_sections<T>(&mut self, key: &'static str, mut read: impl FnMut(&str, Section<'_, 't>) -> T) -> Vec<T> {
        let Some((at, value)) = self.get(key) else { return Vec::new() };
        let path = self.name_of(key);
        let Some(tables) = value.get_ref().as_table() else {
            self.refuse(key, at, format!("`{path}` must be a table of tables: write [{path}.NAME]"));
            return Vec::new();
        };
        let mut entries: Vec<_> = tables.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut found = Vec::new();
        for (name, value) in entries {
            let path = format!("{path}.{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => {
                    let at = value.span().start;
                    let (asked, unreadable) = (Vec::new(), Vec::new());
                    found.push(read(
                        name.get_ref(),
                        Section { report: self.report, table, path, at, asked, unreadable },
                    ));
                }
                other => {
                    let message = format!("`{path}` must be a table: write [{path}]{}", but_is(other));
                    self.report.mistake(name.span().start, message);
                }
            }
        }
        found
    }

    /// Reports every key that nobody asked for: understood by GitLab's runner but not acted on, or unknown.
    pub fn finish(self, without_effect: &[(&'static str, &str)]) {
        let Dialect { name: file, example, .. } = self.report.dialect;
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            if self.asked.iter().any(|asked| self.find(asked).is_some_and(|(found, _)| found.get_ref() == name)) {
                continue;
            }
            let at = key.span().start;
            let full = self.name_of(name);
            if let Some((_, why)) = without_effect.iter().find(|(known, _)| *known == name) {
                if !is_empty(value.get_ref()) {
                    self.report.warning(at, format!("`{full}` is understood but has no effect: {why}"));
                }
                continue;
            }
            let known = self.asked.iter().copied().chain(without_effect.iter().map(|(known, _)| *known));
            let advice = match keys::nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("remove it, or see {example} for the keys there are"),
            };
            self.report.mistake(at, format!("`{full}` is not a key of {file}: {advice}"));
        }
    }
}

fn integer(value: &DeValue) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Says of what kind the value is; a text is not shown, it may be a secret at the wrong place.
fn but_is(value: &DeValue) -> String {
    match value {
        DeValue::Integer(number) => format!("; it is {number}"),
        DeValue::String(_) => "; it is a text".to_owned(),
        DeValue::Float(number) => format!("; it is {number}"),
        DeValue::Boolean(flag) => format!("; it is {flag}"),
        DeValue::Datetime(date) => format!("; it is the date {date}"),
        DeValue::Array(_) => "; it is a list".to_owned(),
        DeValue::Table(_) => "; it is a table".to_owned(),
    }
}

/// What `gitlab-runner register` writes as a placeholder: `[runners.cache.s3]` with nothing in it, the year 1.
fn is_empty(value: &DeValue) -> bool {
    match value {
        DeValue::Table(table) => table.values().all(|value| is_empty(value.get_ref())),
        DeValue::Datetime(date) => date.date.is_some_and(|date| date.year == 1),
        _ => false,
    }
}
