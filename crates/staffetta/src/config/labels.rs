//! `labels`: what a runner's owner wants GitLab to show of it (protocol 2.2).

use std::collections::BTreeMap;

use super::Runner;
use super::section::Section;

/// Over all labels of one runner; GitLab takes no more.
const MOST: usize = 32;

/// The table of one place; names and values that GitLab would refuse are mistakes.
pub fn labels(section: &mut Section) -> BTreeMap<String, String> {
    let found = section.named_texts("labels");
    let path = section.name_of("labels");
    for (name, value) in &found {
        if !is_name(name) {
            let rule = "3 to 65 letters, digits, `.`, `_` or `-`, and neither `.` nor `-` first";
            section.mistake(value.at, format!("`{path}.{name}` is not the name of a label: {rule}"));
        }
        if !is_value(&value.value) {
            let rule = "must be 1 to 256 letters, digits, `.`, `_` or `-`";
            section.mistake(value.at, format!("`{path}.{name}` {rule}"));
        }
    }
    found.into_iter().map(|(name, value)| (name, value.value)).collect()
}

/// Gives those of the file to every runner, under the runner's own.
pub fn spread(section: &mut Section, of_file: BTreeMap<String, String>, runners: &mut [Runner]) {
    for runner in runners {
        let own = std::mem::replace(&mut runner.labels, of_file.clone());
        runner.labels.extend(own);
        let count = runner.labels.len();
        if count > MOST {
            let message = format!("runner \"{}\" has {count} labels, and GitLab takes {MOST}", runner.name);
            section.mistake(section.at, message);
        }
    }
}

fn is_name(name: &str) -> bool {
    (3..=65).contains(&name.len()) && name.bytes().all(is_allowed) && !name.starts_with(['.', '-'])
}

fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(is_allowed)
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_those_that_gitlab_takes() {
        let long = |length| "a".repeat(length);
        for (name, expected) in [
            ("abc".to_owned(), true),
            ("_ab".to_owned(), true),
            ("a.b-c_9".to_owned(), true),
            (long(65), true),
            (long(66), false),
            ("ab".to_owned(), false),
            ("-ab".to_owned(), false),
            (".ab".to_owned(), false),
            ("a b".to_owned(), false),
            ("äää".to_owned(), false),
        ] {
            assert_eq!(is_name(&name), expected, "{name}");
        }
        for (value, expected) in
            [(long(1), true), (long(256), true), (long(257), false), (String::new(), false), ("a/b".to_owned(), false)]
        {
            assert_eq!(is_value(&value), expected, "{value}");
        }
    }
}
