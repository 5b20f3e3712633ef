//! A job's trace as lines for a screen: without time stamps, section markers and anything that moves the cursor.

use std::borrow::Cow;

/// `2026-11-21T17:03:02.000001Z 01O ` and one flag byte (protocol 4.11).
const HEADER: usize = 32;
/// A line of the trace may go on in the next one if it is so long that the time-stamper cut it (protocol 4.11, 3).
const CUT: usize = 8 * 1024;
/// A longer line is shown in pieces.
const MAX_LINE: usize = 64 * 1024;
/// Styles that are never reset must not grow with the log.
const MAX_STYLE: usize = 128;

/// Reads the trace of one job, which may come in pieces cut anywhere.
pub(super) struct TraceLines {
    keep_styles: bool,
    /// The bytes of the trace so far.
    read: u64,
    at: At,
    /// Stream of the last line: its id and type.
    stream: Option<[u8; 3]>,
    /// Whether the trace's present line has a carriage return, and its length: both let it go on in the next line.
    raw: (bool, usize),
    line: Line,
    /// The styles that are on where the present line begins, and where the text is now.
    style: Vec<u8>,
}

/// What the next byte belongs to.
enum At {
    /// The first bytes of a line of the trace, as far as they look like a header.
    Start(Vec<u8>),
    Text,
    Escape,
    /// Parameters of a control sequence.
    Control(Vec<u8>),
    /// A title or a link, until BEL or the next escape.
    Command,
}

/// The line as it looks on a terminal.
#[derive(Default)]
struct Line {
    text: Vec<u8>,
    /// Something other than a style is in `text`.
    visible: bool,
    /// A carriage return came last: the next character starts the line anew.
    returned: bool,
    /// A section marker was taken out. A line of markers only is no line.
    marked: bool,
    /// The trace's line ended, but its continuation may come.
    ended: bool,
}

impl TraceLines {
    pub fn new(keep_styles: bool) -> Self {
        Self {
            keep_styles,
            read: 0,
            at: At::Start(Vec::new()),
            stream: None,
            raw: (false, 0),
            line: Line::default(),
            style: Vec::new(),
        }
    }

    /// Takes the part of the trace that begins at `offset` and returns the lines that are complete now. What was read
    /// before is passed over.
    pub fn read(&mut self, offset: u64, bytes: &[u8]) -> Vec<String> {
        let known = usize::try_from(self.read.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(known..) else { return Vec::new() };
        self.read = self.read.max(offset + bytes.len() as u64);
        let mut lines = Vec::new();
        new.iter().for_each(|byte| self.byte(*byte, &mut lines));
        lines
    }

    /// The beginning of the present line as far as it can be shown already.
    pub fn partial(&self) -> Option<Cow<'_, str>> {
        if !self.line.visible {
            return None;
        }
        let text = &self.line.text;
        let whole = match std::str::from_utf8(text) {
            Err(error) if error.error_len().is_none() => &text[..error.valid_up_to()],
            _ => text,
        };
        let shown = &whole[..last_marker(whole).unwrap_or(whole.len())];
        (!shown.is_empty()).then(|| String::from_utf8_lossy(shown))
    }

    /// The rest: the trace is over.
    pub fn finish(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if let At::Start(bytes) = std::mem::replace(&mut self.at, At::Start(Vec::new()))
            && !bytes.is_empty()
        {
            self.end_open_line(&mut lines);
            bytes.iter().for_each(|byte| self.text(*byte));
        }
        if self.line.visible || self.line.ended {
            self.end_line(&mut lines);
        }
        lines
    }

    fn byte(&mut self, byte: u8, lines: &mut Vec<String>) {
        self.raw.1 += 1;
        if byte == b'\n' {
            self.raw_line_ends(lines);
            return;
        }
        match &mut self.at {
            At::Start(bytes) => {
                bytes.push(byte);
                let bytes = std::mem::take(bytes);
                self.start(bytes, lines);
            }
            At::Text => self.text(byte),
            At::Escape => match byte {
                b'[' => self.at = At::Control(Vec::new()),
                b']' | b'P' | b'X' | b'^' | b'_' => self.at = At::Command,
                _ => self.at = At::Text,
            },
            At::Control(parameters) => match byte {
                b'm' => {
                    let parameters = std::mem::take(parameters);
                    self.at = At::Text;
                    self.set_style(&parameters);
                }
                0x40..=0x7e => self.at = At::Text,
                _ if parameters.len() < MAX_STYLE => parameters.push(byte),
                _ => self.at = At::Text,
            },
            At::Command => match byte {
                0x07 => self.at = At::Text,
                0x1b => self.at = At::Escape,
                _ => {}
            },
        }
        if self.line.text.len() > MAX_LINE {
            self.end_line(lines);
        }
    }

    /// Decides whether the first bytes of a line are a header, as soon as that can be told.
    fn start(&mut self, bytes: Vec<u8>, lines: &mut Vec<String>) {
        if !looks_like_header(&bytes) {
            self.end_open_line(lines);
            self.stream = None;
            self.at = At::Text;
            bytes.iter().for_each(|byte| self.text(*byte));
        } else if bytes.len() == HEADER {
            let stream = [bytes[28], bytes[29], bytes[30]];
            let goes_on = bytes[31] == b'+' && self.stream == Some(stream);
            if goes_on {
                self.line.ended = false;
            } else {
                self.end_open_line(lines);
            }
            self.stream = Some(stream);
            self.raw.1 = 0;
            self.at = At::Text;
        } else {
            self.at = At::Start(bytes);
        }
    }

    fn raw_line_ends(&mut self, lines: &mut Vec<String>) {
        let (returned, length) = std::mem::take(&mut self.raw);
        if let At::Start(bytes) = std::mem::replace(&mut self.at, At::Start(Vec::new())) {
            // The line is shorter than a header.
            self.end_open_line(lines);
            self.stream = None;
            bytes.iter().for_each(|byte| self.text(*byte));
            self.at = At::Start(Vec::new());
        }
        if self.stream.is_some() && (returned || length > CUT) {
            self.line.ended = true;
        } else {
            self.end_line(lines);
        }
    }

    fn text(&mut self, byte: u8) {
        match byte {
            0x1b => self.at = At::Escape,
            b'\r' => {
                self.raw.0 = true;
                let marker = marker_at_end(&self.line.text);
                if marker > 0 {
                    self.line.text.truncate(self.line.text.len() - marker);
                    self.line.marked = true;
                    self.line.visible = self.line.text.len() > self.styles_before();
                } else {
                    self.line.returned = true;
                }
            }
            b'\t' | 0x20.. if byte != 0x7f => {
                if std::mem::take(&mut self.line.returned) {
                    self.line.text.clone_from(&self.style);
                }
                self.line.text.push(byte);
                self.line.visible = true;
            }
            _ => {}
        }
    }

    /// How much of the present text is styles at its beginning: without other text there is nothing to show.
    fn styles_before(&self) -> usize {
        let text = &self.line.text;
        let mut length = 0;
        while text[length..].starts_with(b"\x1b[") {
            let Some(end) = text[length..].iter().position(|byte| *byte == b'm') else { break };
            length += end + 1;
        }
        length
    }

    fn set_style(&mut self, parameters: &[u8]) {
        if !self.keep_styles {
            return;
        }
        let sequence = [b"\x1b[", parameters, b"m"].concat();
        // `0`, an empty list and whatever begins with one of them switch everything off first.
        let resets = matches!(parameters, [] | [b'0'] | [b'0' | b';', b';', ..] | [b';', ..]);
        if resets || self.style.len() > MAX_STYLE {
            self.style.clear();
        }
        if !matches!(parameters, [] | [b'0'] | [b'0', b';'] | [b';']) {
            self.style.extend_from_slice(&sequence);
        }
        // After a carriage return the next character brings its style along.
        if !self.line.returned {
            self.line.text.extend_from_slice(&sequence);
        }
    }

    fn end_open_line(&mut self, lines: &mut Vec<String>) {
        if self.line.ended {
            self.end_line(lines);
        }
    }

    fn end_line(&mut self, lines: &mut Vec<String>) {
        let line = std::mem::replace(&mut self.line, Line { text: self.style.clone(), ..Line::default() });
        if line.visible || !line.marked {
            lines.push(if line.visible { String::from_utf8_lossy(&line.text).into_owned() } else { String::new() });
        }
    }
}

/// Whether `bytes`, at most a header long, can be the beginning of one.
fn looks_like_header(bytes: &[u8]) -> bool {
    const SHAPE: &[u8; HEADER] = b"0000-00-00T00:00:00.000000Z hhSF";
    bytes.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'h' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        b'S' => matches!(byte, b'O' | b'E'),
        b'F' => matches!(byte, b' ' | b'+'),
        fixed => byte == fixed,
    })
}

/// The length of the section marker that ends `text`, before its carriage return (protocol 4.9).
fn marker_at_end(text: &[u8]) -> usize {
    let Some(start) = last_marker(text) else { return 0 };
    let Ok(marker) = std::str::from_utf8(&text[start..]) else { return 0 };
    let mut parts = marker.splitn(3, ':').skip(1);
    let (Some(seconds), Some(name)) = (parts.next(), parts.next()) else { return 0 };
    let (name, options) = name.split_once('[').map_or((name, "]"), |(name, options)| (name, options));
    let name_is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let is_marker = !seconds.is_empty()
        && seconds.bytes().all(|byte| byte.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(name_is_plain)
        && options.ends_with(']');
    if is_marker { text.len() - start } else { 0 }
}

/// Where the last text begins that is a section marker, or will be one when its carriage return comes.
fn last_marker(text: &[u8]) -> Option<usize> {
    const NAMES: [&[u8]; 2] = [b"section_start:", b"section_end:"];
    // Markers are short; a line can be long.
    let from = text.len().saturating_sub(512);
    (from..text.len()).rev().find(|start| NAMES.iter().any(|name| text[*start..].starts_with(name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamped(stream: &str, flag: char, text: &str) -> String {
        format!("2026-11-21T17:03:02.000001Z {stream}{flag}{text}\n")
    }

    /// Reads `trace` in pieces of `size` bytes.
    fn lines(trace: &str, size: usize, keep_styles: bool) -> Vec<String> {
        let mut reader = TraceLines::new(keep_styles);
        let mut offset = 0;
        let mut lines = Vec::new();
        for piece in trace.as_bytes().chunks(size) {
            lines.extend(reader.read(offset, piece));
            offset += piece.len() as u64;
        }
        lines.extend(reader.finish());
        lines
    }

    #[track_caller]
    fn check(trace: &str, expected: &[&str]) {
        for size in [1, 3, 7, 31, 1_000_000] {
            assert_eq!(lines(trace, size, true), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn headers_are_taken_off_and_continued_lines_joined() {
        let trace = stamped("00O", ' ', "one")
            + &stamped("01O", ' ', "section_start:1:step_script\r\x1b[0K")
            + &stamped("01O", '+', "title")
            + &stamped("01E", ' ', "other stream")
            + &stamped("01E", ' ', "")
            + &stamped("01O", ' ', "section_end:2:step_script\r\x1b[0K")
            + &stamped("01O", '+', "section_start:2:after_script[collapsed=true,hide_duration=true]\r\x1b[0K")
            + &stamped("01O", '+', "Running after_script");
        check(&trace, &["one", "title", "other stream", "", "Running after_script"]);
    }

    #[test]
    fn a_trace_without_headers_reads_the_same() {
        check(
            "section_start:1:get_sources\r\x1b[0Ktitle\nsection_end:1:get_sources\r\x1b[0K\nline\n\nlast",
            &["title", "line", "", "last"],
        );
        check("20\n2026-11-21 no header\n", &["20", "2026-11-21 no header"]);
        check("20", &["20"]);
    }

    #[test]
    fn what_only_looks_like_a_marker_stays() {
        check("section_start:x:y\rnew\n", &["new"]);
        check("the word section_start: is text\n", &["the word section_start: is text"]);
        check("before section_end:7:a.b-c\r\x1b[0Kafter\n", &["before after"]);
    }

    #[test]
    fn progress_shows_its_last_state() {
        check("10%\r20%\r30%\n", &["30%"]);
        check("done\r\nnext\r\n", &["done", "next"]);
        check(&(stamped("01O", ' ', "10%\r") + &stamped("01O", '+', "20%\r") + &stamped("01O", '+', "30%")), &["30%"]);
        // Another stream cannot continue it.
        check(&(stamped("01O", ' ', "10%\r") + &stamped("01E", '+', "20%\r")), &["10%", "20%"]);
    }

    #[test]
    fn styles_are_carried_over_lines_and_everything_else_is_dropped() {
        check("\x1b[31mred\nstill\x1b[0;m off\nplain\n", &["\x1b[31mred", "\x1b[31mstill\x1b[0;m off", "plain"]);
        check("a\x1b[2Jb\x1b[10;3Hc\x1b]0;title\x07d\x08\x07e\x1b(f\n", &["abcde\u{66}"]);
        let plain = lines("\x1b[31mred\x1b[0m\n\x1b[1m\n", 2, false);
        assert_eq!(plain, ["red", ""]);
    }

    #[test]
    fn a_part_that_comes_again_is_passed_over() {
        let mut reader = TraceLines::new(true);
        assert_eq!(reader.read(0, b"one\ntw"), ["one"]);
        assert_eq!(reader.read(0, b"one\n"), Vec::<String>::new());
        assert_eq!(reader.read(4, b"two\nthree\n"), ["two", "three"]);
    }

    #[test]
    fn the_unfinished_line_can_be_seen_but_no_half_of_a_marker_or_character() {
        let mut reader = TraceLines::new(true);
        let mut offset = 0;
        let mut partial = |bytes: &[u8]| {
            let lines = reader.read(offset, bytes);
            offset += bytes.len() as u64;
            (lines, reader.partial().map(Cow::into_owned))
        };
        assert_eq!(partial(b"."), (vec![], Some(".".into())));
        assert_eq!(partial(b".\xc3"), (vec![], Some("..".into())));
        assert_eq!(partial(b"\xa9"), (vec![], Some("..é".into())));
        assert_eq!(partial(b"\n"), (vec!["..é".into()], None));
        assert_eq!(partial(b"x section_start:12:"), (vec![], Some("x ".into())));
        assert_eq!(partial(b"a\r\x1b[0K!"), (vec![], Some("x !".into())));
        assert_eq!(partial(b"\r50%"), (vec![], Some("50%".into())));
    }

    proptest! {
        /// However the trace is cut, the same lines come out.
        #[test]
        fn pieces_do_not_matter(parts in prop::collection::vec(prop::sample::select(vec![
            "text", "é", "\n", "\r", "\r\n", "\x1b[0K", "\x1b[31m", "\x1b[0m", "section_start:1:a", "section_end:2:a\r\x1b[0K",
            "2026-11-21T17:03:02.000001Z 01O ", "2026-11-21T17:03:02.000001Z 01O+", "2026-", "\x1b", "\t", "\x07",
        ]), 0..40), size in 1usize..20) {
            let trace = parts.concat();
            prop_assert_eq!(lines(&trace, size, true), lines(&trace, usize::MAX, true));
        }
    }
}
