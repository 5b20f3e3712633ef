//! One file of YAML as nodes that know their lines.
//!
//! Scalars mean what they mean to GitLab, whose reader is Ruby's Psych and speaks YAML 1.1: `yes` is a boolean,
//! `010` is 8, `12:30` is 45000, and in a mapping the later of an own key and a `<<` wins.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use super::mistakes::{At, Mistakes};

/// GitLab's own bound for the nesting of a file.
const MAX_DEPTH: usize = 100;
/// How many nodes aliases may copy: a few lines of nested aliases can ask for more than a machine has.
const MAX_COPIES: usize = 100_000;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub at: At,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As Ruby would print it.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Map),
    /// `!reference [job, keyword, …]`. One that is still here after loading has been reported.
    Reference(Vec<String>),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Map(pub Vec<Entry>);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub at: At,
    pub value: Node,
}

impl Map {
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    /// The value of `key`; a null is as good as none: that is how GitLab lets a job drop what it would inherit.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value).filter(|node| node.value != Value::Null)
    }

    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let index = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(index).value)
    }

    /// The key keeps its first position, as in Ruby.
    pub fn insert(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|present| present.key == entry.key) {
            Some(present) => *present = entry,
            None => self.0.push(entry),
        }
    }
}

impl Node {
    /// How a message calls a value that is not what was wanted.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(text) => format!("the number {text}"),
            Value::Text(text) if text.chars().count() > 40 => "a string".into(),
            Value::Text(text) => format!("the string `{}`", text.escape_debug()),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Reference(path) => format!("a reference to {}", path.join(", ")),
        }
    }

    /// (levels, nodes)
    fn measure(&self) -> (usize, usize) {
        let join = |(depth, count): (usize, usize), child: &Node| {
            let (below, nodes) = child.measure();
            (depth.max(below + 1), count + nodes)
        };
        match &self.value {
            Value::List(items) => items.iter().fold((1, 1), join),
            Value::Map(map) => map.0.iter().map(|entry| &entry.value).fold((1, 1), join),
            _ => (1, 1),
        }
    }
}

/// Reads the one document of `text`; `None` if it cannot be read to its end.
pub(super) fn parse(text: &str, file: u16, mistakes: &mut Mistakes) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        text,
        file,
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        copies_left: MAX_COPIES,
        mistakes,
    };
    reader.document().ok()
}

/// The mistake is reported; the rest of the file cannot be understood.
struct Stop;

struct Reader<'a, 'm> {
    text: &'a str,
    file: u16,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    copies_left: usize,
    mistakes: &'m mut Mistakes,
}

impl<'a> Reader<'a, '_> {
    fn document(&mut self) -> Result<Node, Stop> {
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd => return Ok(Node { at: self.at(1), value: Value::Null }),
                event => {
                    let node = self.node(event, at, 1)?;
                    self.only_document()?;
                    return Ok(node);
                }
            }
        }
    }

    fn only_document(&mut self) -> Result<(), Stop> {
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart(_) => {
                    return self.stop(at, "a second document begins here (`spec` and its inputs are not supported)");
                }
                _ => {}
            }
        }
    }

    fn at(&self, line: usize) -> At {
        At { file: self.file, line: u32::try_from(line).unwrap_or(u32::MAX).max(1) }
    }

    fn stop<T>(&mut self, at: At, message: impl Into<String>) -> Result<T, Stop> {
        self.mistakes.add(at, message);
        Err(Stop)
    }

    fn next(&mut self) -> Result<(Event<'a>, At), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.at(span.start.line()))),
            Some(Err(error)) => {
                let at = self.at(error.marker().line());
                match line_indented_by_tab(self.text, at.line) {
                    Some(line) => {
                        self.stop(At { line, ..at }, "this line is indented with a tab; YAML allows spaces only")
                    }
                    None => self.stop(at, format!("not YAML: {}", error.info())),
                }
            }
            None => Ok((Event::StreamEnd, self.at(1))),
        }
    }

    fn node(&mut self, event: Event<'a>, at: At, depth: usize) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            return self.stop(at, format!("nested more than {MAX_DEPTH} levels deep"));
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, at, depth),
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag, at)),
            Event::SequenceStart(anchor, tag) => (anchor, self.list(tag, at, depth)?),
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), at);
                (anchor, Value::Map(self.map(depth)?))
            }
            // The parser yields balanced events, so nothing else stands where a node is wanted.
            other => return self.stop(at, format!("not YAML: {other:?} where a value is wanted")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, at: At, depth: usize) -> Result<Node, Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            return self.stop(at, "this alias stands inside of what it repeats");
        };
        let (levels, nodes) = node.measure();
        if depth + levels > MAX_DEPTH {
            return self.stop(at, format!("nested more than {MAX_DEPTH} levels deep"));
        }
        let node = node.clone();
        match self.copies_left.checked_sub(nodes) {
            Some(left) => self.copies_left = left,
            None => return self.stop(at, format!("the aliases up to here repeat more than {MAX_COPIES} values")),
        }
        Ok(node)
    }

    fn list(&mut self, tag: Option<Cow<'a, Tag>>, at: At, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => break,
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
        if !tag.as_deref().is_some_and(is_reference) {
            self.no_tag(tag.as_deref(), at);
            return Ok(Value::List(items));
        }
        let path: Option<Vec<String>> = items
            .into_iter()
            .map(|item| match item.value {
                Value::Text(text) => Some(text),
                _ => None,
            })
            .collect();
        match path {
            Some(path) if !path.is_empty() => Ok(Value::Reference(path)),
            _ => {
                self.mistakes
                    .add(at, "`!reference` wants a list of strings, for example `!reference [.setup, script]`");
                Ok(Value::Reference(Vec::new()))
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Map, Stop> {
        let mut map = Map::default();
        let mut own: HashMap<String, u32> = HashMap::new();
        loop {
            let (key, at) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(map),
                (Event::Scalar(text, style, anchor, tag), at) => {
                    let key = text.into_owned();
                    if anchor != 0 {
                        let value = self.scalar(&key, style, tag, at);
                        self.anchors.insert(anchor, Node { at, value });
                    }
                    (key, at)
                }
                (event, at) => match self.node(event, at, depth + 1)?.value {
                    Value::Text(text) | Value::Number(text) => (text, at),
                    _ => return self.stop(at, "a key must be a string"),
                },
            };
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            if key == "<<" {
                self.merge(&mut map, value);
                continue;
            }
            if let Some(first) = own.insert(key.clone(), at.line) {
                self.mistakes.add(at, format!("`{key}` stands here for the second time; the first is in line {first}"));
            }
            map.insert(Entry { key, at, value });
        }
    }

    fn merge(&mut self, map: &mut Map, node: Node) {
        let parts = match node.value {
            Value::Map(part) => vec![part],
            Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
                let part = |item: Node| if let Value::Map(part) = item.value { part } else { Map::default() };
                items.into_iter().map(part).collect()
            }
            _ => return self.mistakes.add(node.at, "`<<` wants a mapping or a list of mappings, usually an alias"),
        };
        // Of several, the first wins.
        for part in parts.into_iter().rev() {
            part.0.into_iter().for_each(|entry| map.insert(entry));
        }
    }

    fn no_tag(&mut self, tag: Option<&Tag>, at: At) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.mistakes.add(at, format!("the tag `{tag}` is unknown; GitLab has only `!reference [job, keyword]`"));
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<Cow<'a, Tag>>, at: At) -> Value {
        if let Some(tag) = &tag {
            if is_reference(tag) {
                self.mistakes.add(at, "`!reference` wants a list, for example `!reference [.setup, script]`");
                return Value::Reference(Vec::new());
            }
            self.no_tag(Some(tag), at);
        }
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if style != ScalarStyle::Plain || is_text {
            return Value::Text(text.to_owned());
        }
        if is_date(text) {
            self.mistakes.add(at, format!("GitLab takes {text} for a date and refuses it; put it in quotes"));
        }
        resolve(text)
    }
}

fn is_reference(tag: &Tag) -> bool {
    tag.handle == "!" && tag.suffix == "reference"
}

/// The last line up to `line` whose indentation has a tab, if it is that line or the one before it: the parser
/// notices some tabs one line late.
fn line_indented_by_tab(text: &str, line: u32) -> Option<u32> {
    let indented = |line: &str| line.trim_start_matches(' ').starts_with('\t') && !line.trim().is_empty();
    let lines: Vec<&str> = text.lines().take(line as usize).collect();
    lines.iter().enumerate().skip(lines.len().saturating_sub(2)).rev().find(|(_, line)| indented(line)).map(
        // The index is below `line`, a u32.
        |(index, _)| index as u32 + 1,
    )
}

/// A plain scalar by the rules of YAML 1.1 as Psych applies them.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        _ => {}
    }
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => return Value::Bool(true),
        "no" | "false" | "off" => return Value::Bool(false),
        _ => {}
    }
    match integer(text).or_else(|| sixties(text)) {
        Some(number) => Value::Number(number.to_string()),
        None => float(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number),
    }
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = signed(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let plain = digits.replace(['_', ','], "");
    let number = match plain.as_bytes() {
        [b'0', b'x', ..] => i128::from_str_radix(&plain[2..], 16),
        [b'0', b'b', ..] => i128::from_str_radix(&plain[2..], 2),
        [b'0', _, ..] => i128::from_str_radix(&plain[1..], 8),
        _ => plain.parse(),
    };
    number.ok().map(|number| sign * number)
}

/// `12:30` and `1:02:03`. Psych always counts the first part as hours.
fn sixties(text: &str) -> Option<i128> {
    let (sign, digits) = signed(text);
    let parts: Vec<&str> = digits.split(':').collect();
    if !(2..=3).contains(&parts.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') {
        return None;
    }
    let mut total = 0;
    for (index, part) in parts.iter().enumerate() {
        let number: i128 = part.parse::<u32>().ok()?.into();
        if index > 0 && (number > 59 || part.len() > 2) {
            return None;
        }
        total += number * [3600, 60, 1][index];
    }
    Some(sign * total)
}

fn signed(text: &str) -> (i128, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// A decimal number with a point, printed as Ruby prints a float: `1.10` becomes `1.1`.
fn float(text: &str) -> Option<String> {
    let (sign, digits) = signed(text);
    let (whole, rest) = digits.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(index) => (&rest[..index], Some(&rest[index + 1..])),
        None => (rest, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let starts_well = whole.is_empty() || whole.starts_with(|first: char| first.is_ascii_digit());
    let whole = whole.replace(['_', ','], "");
    let exponent_is_signed =
        exponent.is_none_or(|part| part.starts_with(['+', '-']) && part.len() > 1 && all_digits(&part[1..]));
    let has_digits = !(whole.is_empty() && fraction.is_empty());
    if !starts_well || !all_digits(&whole) || !all_digits(fraction) || !exponent_is_signed || !has_digits {
        return None;
    }
    let number: f64 = format!("0{whole}.{fraction}0e{}", exponent.unwrap_or("0")).parse().ok()?;
    Some(ruby_float(if sign < 0 { -number } else { number }))
}

fn ruby_float(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let with_point = |digits: &str| if digits.contains('.') { digits.to_owned() } else { format!("{digits}.0") };
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return with_point(&number.to_string());
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}e{:+03}", with_point(digits), exponent.parse::<i32>().unwrap_or(0))
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten();
    let [year, month, day] = parts[..] else { return false };
    year.len() == 4
        && number(year).is_some()
        && (1..=2).contains(&month.len())
        && number(month).is_some_and(|month| month <= 12)
        && (1..=2).contains(&day.len())
        && number(day).is_some_and(|day| day <= 31)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let mut mistakes = Mistakes::default();
        let file = mistakes.begin(PathBuf::from("ci.yml"));
        let node = parse(text, file, &mut mistakes);
        (node, mistakes.into_sorted().iter().map(ToString::to_string).collect())
    }

    /// The node as one line; lines of the source are left out.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) => format!("#{text}"),
            Value::Text(text) => text.clone(),
            Value::Reference(path) => format!("@{}", path.join(".")),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
            Value::Map(map) => {
                let entry = |entry: &Entry| format!("{}: {}", entry.key, show(&entry.value));
                format!("{{{}}}", map.0.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn shown(text: &str) -> String {
        let (node, mistakes) = read(text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        show(&node.unwrap())
    }

    #[test]
    fn scalars_mean_what_they_mean_to_gitlab() {
        for (text, meaning) in [
            ("yes", "true"),
            ("Off", "false"),
            ("'yes'", "yes"),
            ("~", "null"),
            ("010", "#8"),
            ("08", "08"),
            ("0x1F", "#31"),
            ("1_000", "#1000"),
            ("-12", "#-12"),
            ("12:30", "#45000"),
            ("12:99", "12:99"),
            ("1.10", "#1.1"),
            ("20.", "#20.0"),
            ("1.2.3", "1.2.3"),
            (".", "."),
            ("1e3", "1e3"),
            ("1.0e+20", "#1.0e+20"),
            ("0.00005", "#5.0e-05"),
            ("0.0005", "#0.0005"),
            ("!!str 12", "12"),
            ("7d", "7d"),
        ] {
            assert_eq!(shown(&format!("a: {text}")), format!("{{a: {meaning}}}"), "{text}");
        }
    }

    #[test]
    fn every_value_knows_its_line() {
        let (node, _) = read("a:\n  b: 1\n\n  c:\n    - x\n    - y\n");
        let Value::Map(map) = node.unwrap().value else { panic!("a mapping") };
        let Value::Map(inner) = &map.0[0].value.value else { panic!("a mapping") };
        assert_eq!((map.0[0].at.line, inner.0[0].value.at.line, inner.0[1].at.line), (1, 2, 4));
        let Value::List(items) = &inner.0[1].value.value else { panic!("a list") };
        assert_eq!((items[0].at.line, items[1].at.line), (5, 6));
    }

    #[test]
    fn anchors_merge_keys_and_references_are_read() {
        assert_eq!(
            shown("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: !reference [a, x]\n"),
            "{a: {x: #1, y: #2}, b: {x: #1, y: #3}, c: @a.x}"
        );
    }

    #[test]
    fn of_several_merged_mappings_the_first_wins() {
        assert_eq!(
            shown("a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc:\n  <<: [*a, *b]\n"),
            "{a: {x: #1}, b: {x: #2, z: #3}, c: {x: #1, z: #3}}"
        );
    }

    #[test]
    fn a_merge_below_a_key_wins_over_it_as_in_psych() {
        assert_eq!(shown("a: &a {x: 1}\nb:\n  x: 2\n  <<: *a\n"), "{a: {x: #1}, b: {x: #1}}");
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_line() {
        for (text, mistakes) in [
            ("a: 1\nb: [1,\n", &["ci.yml:3: not YAML: "][..]),
            ("a:\n\tb: 1\n", &["ci.yml:2: this line is indented with a tab; YAML allows spaces only"]),
            (
                "a: 1\nb: 2\na: 3\nb: 4\n",
                &[
                    "ci.yml:3: `a` stands here for the second time; the first is in line 1",
                    "ci.yml:4: `b` stands here for the second time; the first is in line 2",
                ],
            ),
            ("a: 1\n---\nb: 2\n", &["ci.yml:2: a second document begins here"]),
            ("a: &a\n  b: *a\n", &["ci.yml:2: this alias stands inside of what it repeats"]),
            ("a: *b\n", &["ci.yml:1: not YAML: "]),
            ("a: !ruby x\n", &["ci.yml:1: the tag `!ruby` is unknown; "]),
            ("a: 2024-01-31\n", &["ci.yml:1: GitLab takes 2024-01-31 for a date and refuses it; put it in quotes"]),
            ("a:\n  <<: 5\n", &["ci.yml:2: `<<` wants a mapping"]),
            ("a: !reference x\n", &["ci.yml:1: `!reference` wants a list"]),
            ("{[a]: b}", &["ci.yml:1: a key must be a string"]),
        ] {
            let found = read(text).1;
            assert_eq!(found.len(), mistakes.len(), "{text:?}: {found:?}");
            for (found, wanted) in found.iter().zip(mistakes) {
                assert!(found.starts_with(wanted), "{text:?}: {found}");
            }
        }
    }

    #[test]
    fn aliases_cannot_ask_for_more_than_a_machine_has() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
        }
        let found = read(&bomb).1;
        assert!(found[0].contains("repeat more than 100000 values"), "{found:?}");
    }

    #[test]
    fn nesting_is_bounded_also_through_aliases() {
        let deep = "[".repeat(150) + &"]".repeat(150);
        assert!(read(&deep).1[0].contains("nested more than 100 levels deep"));
        let half =
            format!("a: &a {}{}\nb: &b {}*a{}\n", "[".repeat(60), "]".repeat(60), "[".repeat(60), "]".repeat(60));
        assert!(read(&half).1[0].starts_with("ci.yml:2: nested more than 100 levels deep"));
        assert!(!read(&"[".repeat(100_000)).1.is_empty());
    }

    proptest! {
        #[test]
        fn no_input_makes_the_reader_panic(text in "\\PC{0,80}(\n[ \t-]{0,4}\\PC{0,30}){0,8}") {
            let _ = read(&text);
        }

        #[test]
        fn no_yaml_like_input_makes_the_reader_panic(parts in prop::collection::vec(
            prop::sample::select(vec!["a", ":", " ", "\n", "-", "- ", ": ", "[", "]", "{", "}", "&a", "*a", "<<: ",
                "!reference ", "!", "|", ">", "'", "\"", "#", "\t", "?", "0x", ".", "---\n", "%", ",", "é", "1"]), 0..60)) {
            let _ = read(&parts.concat());
        }
    }
}
