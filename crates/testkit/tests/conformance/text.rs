//! A trace as a person reads it: without time stamps, section markers and colours (protocol 4.9, 4.11).

use std::collections::BTreeMap;

use regex_automata::meta::Regex;

pub struct Trace {
    /// All lines, each with its line feed.
    pub text: String,
    /// By name; what stands in a section inside of another counts for both.
    pub sections: BTreeMap<String, String>,
    /// In the order in which they begin.
    pub begun: Vec<String>,
}

/// `2026-11-21T17:03:02.000001Z 01O` and a flag byte.
const HEADER: &str = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [0-9a-f]{2}[OE][ +]";
const HEADER_BYTES: usize = 32;
const MARKER: &str = r"section_(start|end):\d+:([a-zA-Z0-9_.-]+)(\[[^\]]*\])?\r\x1b\[0K";
const COLOUR: &str = r"\x1b\[[0-9;]*[A-Za-z]";

pub fn read(trace: &[u8]) -> Trace {
    let text = String::from_utf8_lossy(trace);
    let marker = Regex::new(MARKER).expect("a regular expression");
    let colour = Regex::new(COLOUR).expect("a regular expression");
    let mut read = Trace { text: String::new(), sections: BTreeMap::new(), begun: Vec::new() };
    let mut open: Vec<String> = Vec::new();
    for line in lines(&text) {
        let mut from = 0;
        let mut visible = String::new();
        let mut marked = false;
        let mut captures = marker.create_captures();
        loop {
            marker.search_captures(&regex_automata::Input::new(&line).range(from..), &mut captures);
            let Some(found) = captures.get_match() else { break };
            add(&mut read, &open, &without(&colour, &line[from..found.start()]));
            visible += &line[from..found.start()];
            marked = true;
            let part = |group: usize| captures.get_group(group).map_or("", |span| &line[span.range()]);
            let name = part(2).to_owned();
            if part(1) == "start" {
                read.sections.entry(name.clone()).or_default();
                read.begun.push(name.clone());
                open.push(name);
            } else {
                open.retain(|other| *other != name);
            }
            from = found.end();
        }
        let rest = without(&colour, &line[from..]);
        visible += &rest;
        // A line of nothing but markers is no line.
        if !marked || !visible.is_empty() {
            add(&mut read, &open, &(rest + "\n"));
        }
    }
    read
}

fn add(read: &mut Trace, open: &[String], text: &str) {
    read.text += text;
    for name in open {
        *read.sections.entry(name.clone()).or_default() += text;
    }
}

fn without(pattern: &Regex, text: &str) -> String {
    let mut rest = String::new();
    let mut from = 0;
    for found in pattern.find_iter(text) {
        rest += &text[from..found.start()];
        from = found.end();
    }
    rest + &text[from..]
}

/// The lines as they were written: what the time-stamper cut is joined to the last line of its stream.
fn lines(text: &str) -> Vec<String> {
    let header = Regex::new(HEADER).expect("a regular expression");
    let mut lines: Vec<String> = Vec::new();
    let mut last_of: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        if !header.is_match(line) {
            lines.push(line.to_owned());
            continue;
        }
        let (stream, goes_on) = (line[HEADER_BYTES - 4..HEADER_BYTES - 1].to_owned(), &line[HEADER_BYTES - 1..][..1]);
        match last_of.get(&stream) {
            Some(&last) if goes_on == "+" => lines[last] += &line[HEADER_BYTES..],
            _ => {
                last_of.insert(stream, lines.len());
                lines.push(line[HEADER_BYTES..].to_owned());
            }
        }
    }
    lines
}

/// Held by the suite itself, before any case runs.
pub fn check() {
    let stamp = |flags: &str| format!("2026-11-21T17:03:02.000001Z {flags}");
    let start = "section_start:1:step_script\r\x1b[0K";
    let end = "section_end:2:step_script\r\x1b[0K";
    let trace = [
        format!("{}Running\n", stamp("00O ")),
        format!("{}{start}\n{}\x1b[36;1mExecuting\x1b[0;m\n", stamp("00O "), stamp("00O+")),
        format!("{}10%\r\n{}hello\n{}20%\n", stamp("01O "), stamp("01E "), stamp("01O+")),
        format!("{}{end}\n{}done\n", stamp("00O "), stamp("00O+")),
    ];
    let read = read(trace.concat().as_bytes());
    assert_eq!(read.text, "Running\nExecuting\n10%\r20%\nhello\ndone\n");
    assert_eq!(read.sections["step_script"], "Executing\n10%\r20%\nhello\n");
    assert_eq!(read.begun, ["step_script"]);
}
