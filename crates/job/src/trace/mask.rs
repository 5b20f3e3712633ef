//! Masking: of whole phrases, and of what follows a key in a URL or the prefix of a token (protocol 4.12).

use std::sync::Arc;

use super::TraceSettings;
use super::search::{Patterns, Scan};
use crate::secret::ExposeSecret;

const MASK: &[u8] = b"[MASKED]";

/// Lines of a longer secret are masked by themselves from this length on: GitLab masks no shorter value either.
const SHORTEST_LINE: usize = 8;

const URL_KEYS: [&str; 6] =
    ["private_token", "authenticity_token", "rss_token", "x-amz-signature", "x-amz-credential", "x-amz-security-token"];

const PERSONAL_TOKEN: &str = "glpat-";
const DEFAULT_TOKENS: [&str; 13] = [
    "gloas-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glrtr-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
    "_gitlab_session=",
    "gltok-",
];

/// The filters' patterns, shared by all streams of a trace.
pub(super) struct Masks {
    phrases: Option<Arc<Patterns>>,
    url_keys: Option<Arc<Patterns>>,
    token_prefixes: Option<Arc<Patterns>>,
}

impl Masks {
    pub(super) fn new(settings: &TraceSettings) -> Self {
        let url_keys: Vec<_> = URL_KEYS.iter().flat_map(|key| [format!("?{key}="), format!("&{key}=")]).collect();
        Self {
            phrases: Patterns::new(&phrases(settings), false).map(Arc::new),
            url_keys: Patterns::new(&url_keys, true).map(Arc::new),
            token_prefixes: Patterns::new(&token_prefixes(settings), false).map(Arc::new),
        }
    }

    /// The filters of one stream, in the order in which its text passes them.
    pub(super) fn filters(&self) -> [Filter; 3] {
        [
            Filter::new(self.phrases.clone(), Hide::Match),
            Filter::new(self.url_keys.clone(), Hide::ValueAfter(in_url_value)),
            Filter::new(self.token_prefixes.clone(), Hide::ValueAfter(in_token)),
        ]
    }
}

fn phrases(settings: &TraceSettings) -> Vec<String> {
    let mut phrases = Vec::new();
    for secret in &settings.masked {
        let whole = secret.expose_secret().trim();
        phrases.push(whole.to_owned());
        if whole.contains('\n') {
            // A tool may print a key line by line, indented or with other line ends.
            let lines = whole.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
            phrases.extend(lines.map(str::to_owned));
        }
    }
    distinct(phrases)
}

fn token_prefixes(settings: &TraceSettings) -> Vec<String> {
    let defaults: &[&str] = if settings.mask_default_tokens { &DEFAULT_TOKENS } else { &[] };
    let known = defaults.iter().chain([&PERSONAL_TOKEN]).map(|&prefix| prefix.to_owned());
    distinct(known.chain(settings.token_prefixes.iter().map(|prefix| prefix.trim().to_owned())).collect())
}

fn distinct(mut patterns: Vec<String>) -> Vec<String> {
    patterns.retain(|pattern| !pattern.is_empty());
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

fn in_url_value(byte: u8) -> bool {
    !matches!(byte, b'?' | b'&' | b' ') && !byte.is_ascii_control()
}

fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'=' | b'-')
}

/// What becomes unreadable.
#[derive(Clone, Copy)]
enum Hide {
    Match,
    /// The bytes directly after the match, as long as they are of this kind.
    ValueAfter(fn(u8) -> bool),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Outside,
    /// At its first byte, which alone shows that there is a value to hide.
    Begins,
    Hidden,
}

/// One pass over one stream. What could be the beginning of a match waits for the next bytes.
pub(super) struct Filter {
    patterns: Option<Arc<Patterns>>,
    hide: Hide,
    value: Value,
    held: Vec<u8>,
    out: Vec<u8>,
}

impl Filter {
    fn new(patterns: Option<Arc<Patterns>>, hide: Hide) -> Self {
        Self { patterns, hide, value: Value::Outside, held: Vec::new(), out: Vec::new() }
    }

    /// Text in which nothing is found passes uncopied. `last` says that nothing follows.
    pub(super) fn pass<'a>(&'a mut self, text: &'a [u8], last: bool) -> &'a [u8] {
        let Some(patterns) = &self.patterns else { return text };
        let mut joined = std::mem::take(&mut self.held);
        let carried = !joined.is_empty();
        if carried {
            joined.extend_from_slice(text);
        }
        let whole = if carried { &joined } else { text };
        self.out.clear();
        let mut scan = Scan::new(patterns, whole, last);
        let mut done = skip_value(self.hide, &mut self.value, whole, 0, &mut self.out);
        scan.resume(done);
        while let Some(found) = scan.next() {
            match self.hide {
                Hide::Match => {
                    self.out.extend_from_slice(&whole[done..found.start]);
                    self.out.extend_from_slice(MASK);
                    done = found.end;
                }
                Hide::ValueAfter(_) => {
                    self.out.extend_from_slice(&whole[done..found.end]);
                    self.value = Value::Begins;
                    done = skip_value(self.hide, &mut self.value, whole, found.end, &mut self.out);
                    scan.resume(done);
                }
            }
        }
        let undecided = scan.undecided();
        self.held.extend_from_slice(&whole[undecided..]);
        if done == 0 && !carried {
            return &text[..undecided];
        }
        self.out.extend_from_slice(&whole[done..undecided]);
        &self.out
    }
}

/// From `at`, the index after the value that is being hidden.
fn skip_value(hide: Hide, value: &mut Value, text: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let Hide::ValueAfter(belongs) = hide else { return at };
    if *value == Value::Outside || at == text.len() {
        return at;
    }
    let length = text[at..].iter().position(|&byte| !belongs(byte)).unwrap_or(text.len() - at);
    if length > 0 && *value == Value::Begins {
        out.extend_from_slice(MASK);
        *value = Value::Hidden;
    }
    if at + length < text.len() {
        *value = Value::Outside;
    }
    at + length
}
