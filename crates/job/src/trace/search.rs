//! Finds patterns in a stream: of all matches the leftmost, of those the longest, however the
//! stream is cut into pieces.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

/// Above this many bytes of patterns the automaton is a compact one: a dense one costs about half a
/// kilobyte for each byte of a pattern, and a private key has thousands.
const DENSE: usize = 2048;

pub(super) struct Patterns {
    automaton: AhoCorasick,
    by_first_byte: Vec<Vec<Box<[u8]>>>,
    longest: usize,
    any_case: bool,
}

impl Patterns {
    /// `None` if there is nothing to look for. `any_case` (ASCII only) expects patterns that begin with no letter.
    pub(super) fn new(patterns: &[String], any_case: bool) -> Option<Self> {
        let bytes: usize = patterns.iter().map(String::len).sum();
        let kind = if bytes > DENSE { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(any_case)
            .kind(Some(kind))
            .build(patterns)
            .ok()?;
        let mut by_first_byte = vec![Vec::new(); 256];
        for pattern in patterns {
            by_first_byte[usize::from(*pattern.as_bytes().first()?)].push(pattern.as_bytes().into());
        }
        let longest = patterns.iter().map(String::len).max()?;
        Some(Self { automaton, by_first_byte, longest, any_case })
    }

    /// The first index from `from` on where a pattern begins that the end of `text` cuts off.
    fn cut_off(&self, text: &[u8], from: usize) -> usize {
        let reach = text.len().saturating_sub(self.longest - 1);
        (from.max(reach)..text.len()).find(|&index| self.begins_pattern(&text[index..])).unwrap_or(text.len())
    }

    fn begins_pattern(&self, tail: &[u8]) -> bool {
        self.by_first_byte[usize::from(tail[0])].iter().any(|pattern| {
            pattern.len() > tail.len()
                && if self.any_case {
                    pattern[..tail.len()].eq_ignore_ascii_case(tail)
                } else {
                    pattern.starts_with(tail)
                }
        })
    }
}

/// One look over the text at hand.
pub(super) struct Scan<'a> {
    patterns: &'a Patterns,
    text: &'a [u8],
    at: usize,
    /// From here on the text must wait for what follows.
    undecided: usize,
}

impl<'a> Scan<'a> {
    /// `last` says that nothing follows the text.
    pub(super) fn new(patterns: &'a Patterns, text: &'a [u8], last: bool) -> Self {
        let undecided = if last { text.len() } else { patterns.cut_off(text, 0) };
        Self { patterns, text, at: 0, undecided }
    }

    /// The next match that nothing to come can change: one that begins before every cut-off pattern
    /// can be neither extended nor overtaken by it.
    pub(super) fn next(&mut self) -> Option<Range<usize>> {
        let found = self.patterns.automaton.find(Input::new(self.text).range(self.at..))?;
        if found.start() >= self.undecided {
            return None;
        }
        self.resume(found.end());
        Some(found.range())
    }

    /// Goes on from `at`, which is not before the last match's end.
    pub(super) fn resume(&mut self, at: usize) {
        self.at = at;
        if at > self.undecided {
            self.undecided = self.patterns.cut_off(self.text, at);
        }
    }

    /// After the last match: text before this index is plain, the rest is to be kept.
    pub(super) fn undecided(&self) -> usize {
        self.undecided
    }
}
