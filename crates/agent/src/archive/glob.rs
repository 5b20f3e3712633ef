//! Patterns of artifact paths, with the meaning that GitLab's runner gives them (protocol 5.2): `**` is any
//! number of directories, also none, and `*`, `?` and `[a-z]` stay within one name.

/// `{a,b}` multiplies patterns; a job's author could otherwise fill the memory with one line.
const MOST_ALTERNATIVES: usize = 1000;
/// Each of them is a step deeper, with a text of its own.
const MOST_BRACES: usize = 100;
/// A shorter name has no use for more.
const LONGEST_TEXT: usize = 256;

/// One pattern, ready to be compared with paths.
pub struct Pattern {
    /// What is left when the braces are spelt out.
    alternatives: Vec<Vec<Name>>,
}

/// What one name of a path may be.
enum Name {
    /// `**`.
    Directories,
    Made(Vec<Part>),
}

/// One thing that a name may be made of.
enum Part {
    Any,
    One,
    Char(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.matches('{').count() > MOST_BRACES {
            return Err(format!("more than {MOST_BRACES} braces"));
        }
        let mut spelt_out = Vec::new();
        spell_out(String::new(), pattern, &mut spelt_out)?;
        let name = |text: &str| match text {
            "**" => Ok(Name::Directories),
            text => parse(text).map(Name::Made).ok_or_else(|| format!("{text:?} is not closed")),
        };
        let alternatives = spelt_out.iter().map(|pattern| pattern.split('/').map(name).collect());
        Ok(Self { alternatives: alternatives.collect::<Result<_, _>>()? })
    }

    /// `path` is relative and slash separated.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<_> = path.split('/').collect();
        self.alternatives.iter().any(|pattern| match_path(pattern, &path))
    }
}

/// A pattern for any text, in which slashes mean nothing: that of a shell's parameter expansion.
pub struct Text(Vec<Part>);

impl Text {
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > LONGEST_TEXT {
            return Err(format!("a pattern is longer than {LONGEST_TEXT} bytes"));
        }
        parse(pattern).map(Self).ok_or_else(|| format!("{pattern:?} is not closed"))
    }

    pub fn matches(&self, text: &str) -> bool {
        match_name(&self.0, text)
    }
}

/// Adds to `found` every pattern that `done` and the braces of `rest` make together.
fn spell_out(done: String, rest: &str, found: &mut Vec<String>) -> Result<(), String> {
    let Some(open) = unescaped(rest, 0, |byte| byte == b'{') else {
        if found.len() == MOST_ALTERNATIVES {
            return Err(format!("more than {MOST_ALTERNATIVES} alternatives"));
        }
        found.push(done + rest);
        return Ok(());
    };
    let (mut depth, mut at) = (0_usize, open);
    let mut cuts = vec![open];
    loop {
        let found = unescaped(rest, at, |byte| matches!(byte, b'{' | b'}' | b','));
        at = found.ok_or("a brace is not closed")?;
        match rest.as_bytes()[at] {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ if depth == 1 => cuts.push(at),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        at += 1;
    }
    cuts.push(at);
    for cut in cuts.windows(2) {
        let alternative = format!("{}{}", &rest[cut[0] + 1..cut[1]], &rest[at + 1..]);
        spell_out(format!("{done}{}", &rest[..open]), &alternative, found)?;
    }
    Ok(())
}

/// The first byte from `start` on that is wanted, neither escaped nor in a character class.
fn unescaped(text: &str, start: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut at, mut in_class) = (start, false);
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b']' => in_class = false,
            byte if !in_class && wanted(*byte) => return Some(at),
            b'[' => in_class = true,
            _ => {}
        }
        at += 1;
    }
    None
}

fn match_path(pattern: &[Name], path: &[&str]) -> bool {
    match_all(pattern, path, |name, found| match name {
        Name::Directories => Fit::AnyNumber,
        Name::Made(parts) => Fit::One(found.is_some_and(|found| match_name(parts, found))),
    })
}

fn match_name(parts: &[Part], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    match_all(parts, &name, |part, found| match (part, found) {
        (Part::Any, _) => Fit::AnyNumber,
        (_, None) => Fit::One(false),
        (Part::One, Some(_)) => Fit::One(true),
        (Part::Char(wanted), Some(c)) => Fit::One(wanted == c),
        (Part::Class { negated, ranges }, Some(c)) => {
            Fit::One(ranges.iter().any(|(low, high)| low <= c && c <= high) != *negated)
        }
    })
}

/// What a part of a pattern takes of what is left, whose first element it sees.
enum Fit {
    AnyNumber,
    One(bool),
}

/// Whether the pattern takes exactly all elements. Takes a product of both lengths at most: only the last part that takes any
/// number ever has to take more, as whatever an earlier one could take in its stead the last one can take too.
fn match_all<P, T>(pattern: &[P], elements: &[T], fit: impl Fn(&P, Option<&T>) -> Fit) -> bool {
    let (mut part, mut at) = (0, 0);
    // Where to go on when a later part does not fit: behind that last part, one element further.
    let mut retry = None;
    loop {
        let fits = match pattern.get(part) {
            None if at == elements.len() => return true,
            None => false,
            Some(wanted) => match fit(wanted, elements.get(at)) {
                Fit::AnyNumber => {
                    retry = Some((part, at));
                    part += 1;
                    continue;
                }
                Fit::One(fits) => fits,
            },
        };
        if fits {
            (part, at) = (part + 1, at + 1);
        } else {
            match retry {
                Some((star, from)) if from < elements.len() => {
                    retry = Some((star, from + 1));
                    (part, at) = (star + 1, from + 1);
                }
                _ => return false,
            }
        }
    }
}

/// `None` if a class or an escape has no end.
fn parse(pattern: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Char(chars.next()?),
            '[' => {
                let negated = chars.next_if(|c| matches!(c, '^' | '!')).is_some();
                let mut ranges = Vec::new();
                loop {
                    let low = match chars.next()? {
                        ']' if !ranges.is_empty() => break,
                        '\\' => chars.next()?,
                        c => c,
                    };
                    let mut ahead = chars.clone();
                    let high = match (ahead.next(), ahead.next()) {
                        (Some('-'), Some(high)) if high != ']' => {
                            chars = ahead;
                            if high == '\\' { chars.next()? } else { high }
                        }
                        _ => low,
                    };
                    ranges.push((low, high));
                }
                Part::Class { negated, ranges }
            }
            c => Part::Char(c),
        });
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).expect(pattern).matches(path)
    }

    #[test]
    fn two_stars_are_any_number_of_directories_also_none() {
        for (pattern, paths) in [
            ("**/*.css", &["a.css", "d/a.css", "d/e/.css"][..]),
            ("d/**", &["d", "d/a", "d/e/f"]),
            ("d/**/f", &["d/f", "d/e/f", "d/e/e/f"]),
            ("**", &["a", "a/b"]),
        ] {
            for path in paths {
                assert!(matches(pattern, path), "{pattern} {path}");
            }
        }
        for (pattern, path) in [("d/**", "e/d"), ("d/**/f", "d/e/g"), ("a**b", "a/b"), ("*", "a/b"), ("**/x", "yx")] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        assert!(matches("a**b", "axyb"), "beside other characters two stars are one");
    }

    #[test]
    fn wildcards_stay_within_a_name() {
        for (pattern, path) in [
            ("*.t?t", "a.txt"),
            ("*a*b*", "xaybz"),
            ("a*a*a", "aaaaa"),
            ("[a-c]x", "bx"),
            ("[^a-c]x", "dx"),
            ("[!a]", "b"),
            ("[]a]", "]"),
            ("[a-]", "-"),
            ("[\\]]", "]"),
            ("\\*", "*"),
            ("ü?", "üé"),
            ("*", ".hidden"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in
            [("?", "ab"), ("?", ""), ("[a-c]", "d"), ("[^a]", "a"), ("\\*", "a"), ("a?", "a/"), ("*a", "ab")]
        {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn braces_are_alternatives() {
        for path in ["src/a.c", "src/a.h", "inc/x/a.h"] {
            assert!(matches("{src,inc/{x,y}}/*.{c,h}", path), "{path}");
        }
        assert!(!matches("{src,inc/{x,y}}/*.{c,h}", "inc/a.h"));
        assert!(matches("a{,.b}", "a") && matches("[{]a,b}", "{a,b}") && matches("\\{a\\}", "{a}"));
    }

    #[test]
    fn what_is_not_closed_or_too_much_is_refused() {
        for pattern in ["{a,b", "[a", "a\\", &"{a,b}".repeat(20), &"{a}".repeat(100_000)] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        assert!(Text::new(&"a".repeat(257)).is_err() && Text::new(&"a".repeat(256)).is_ok());
    }

    #[test]
    fn many_stars_take_no_longer_than_few() {
        let pattern = format!("{}b", "**/a/".repeat(40));
        assert!(!matches(&pattern, &["a"; 200].join("/")));
        assert!(matches(&pattern, &format!("{}/b", ["a"; 200].join("/"))));
        assert!(!matches(&format!("{}b", "*a".repeat(40)), &"a".repeat(200)));
    }

    proptest::proptest! {
        #[test]
        fn a_path_matches_itself_and_its_stars(names in proptest::collection::vec("[a-z.{}\\[\\]*?\\\\]{1,6}", 1..4)) {
            let path = names.join("/");
            let escaped: String = path.chars().map(|c| if c == '/' { c.to_string() } else { format!("\\{c}") }).collect();
            assert!(matches(&escaped, &path));
            assert!(matches("**", &path));
            assert!(matches(&vec!["*"; names.len()].join("/"), &path));
        }
    }
}
