//! Parameters in the names and paths of artifacts, expanded as in a double-quoted word of a shell (protocol 5.2).

use super::glob::Text;

/// Cutting and replacing compare each part of a value with a pattern; a name or a path is shorter than this.
const LONGEST_CUT: usize = 4096;
/// How deep parameters may stand in the words of others. Nobody needs more; a stack ends somewhere.
const DEEPEST: usize = 32;

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `$X`, `${X}`, `${#X}`, and `${X:-word}` with its relatives `-`, `:+`, `+`, `:=`, `=`, `:?`, `?`; as in bash also
/// `${X#cut}`, `${X%cut}`, `${X/a/b}`, `${X:1:2}`, `${X^^}`, `${X,,}`. Anything else in braces, arithmetic, and
/// commands are refused: the caller then keeps the text as it is.
pub fn expand(text: &str, lookup: Lookup) -> Result<String, String> {
    expand_at(0, text, lookup)
}

fn expand_at(depth: usize, text: &str, lookup: Lookup) -> Result<String, String> {
    if depth > DEEPEST {
        return Err(format!("its parameters are nested more than {DEEPEST} times"));
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\', '`']) {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match rest.as_bytes()[at] {
            b'\\' => match after.chars().next() {
                Some(c @ ('$' | '\\' | '`' | '"')) => {
                    expanded.push(c);
                    &after[1..]
                }
                _ => {
                    expanded.push('\\');
                    after
                }
            },
            b'`' => return Err("commands are not run here".into()),
            _ => match after.bytes().next() {
                Some(b'(') => return Err("commands are not run here".into()),
                Some(b'{') => {
                    let end = closing_brace(after)?;
                    expanded.push_str(&parameter(depth, &after[1..end], lookup)?);
                    &after[end + 1..]
                }
                _ => {
                    let name = name_of(after);
                    match name {
                        "" => expanded.push('$'),
                        _ => expanded.push_str(&lookup(name).unwrap_or_default()),
                    }
                    &after[name.len()..]
                }
            },
        };
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn name_of(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

fn closing_brace(text: &str) -> Result<usize, String> {
    let mut depth = 0_usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'{' => depth += 1,
            b'}' if depth == 1 => return Ok(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    Err("a brace is not closed".into())
}

fn parameter(depth: usize, inside: &str, lookup: Lookup) -> Result<String, String> {
    let unknown = || Err(format!("${{{inside}}} is not understood"));
    if let Some(name) = inside.strip_prefix('#') {
        return match name_of(name) {
            "" => unknown(),
            whole if whole == name => Ok(lookup(name).unwrap_or_default().chars().count().to_string()),
            _ => unknown(),
        };
    }
    let name = name_of(inside);
    let operation = &inside[name.len()..];
    if name.is_empty() {
        return unknown();
    }
    let value = lookup(name);
    let (empty_counts_as_unset, operator) = match operation.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operation),
    };
    let set = value.as_ref().is_some_and(|value| !(empty_counts_as_unset && value.is_empty()));
    let value = value.unwrap_or_default();
    let word = |operator: &str| expand_at(depth + 1, &operator[1..], lookup);
    match operator.bytes().next() {
        None if !empty_counts_as_unset => Ok(value),
        Some(b'-' | b'=') if set => Ok(value),
        Some(b'-' | b'=') => word(operator),
        Some(b'+') if set => word(operator),
        Some(b'+') => Ok(String::new()),
        Some(b'?') if set => Ok(value),
        Some(b'?') => Err(format!("{name} is not set: {}", word(operator)?)),
        _ if empty_counts_as_unset => slice(&value, operator).map_or_else(unknown, Ok),
        Some(b'^') => Ok(cased(&value, operator == "^^", char::to_uppercase)),
        Some(b',') => Ok(cased(&value, operator == ",,", char::to_lowercase)),
        Some(b'#' | b'%' | b'/') if value.len() > LONGEST_CUT => Err(format!("{name} is too long to be cut")),
        Some(b'#' | b'%') => cut(depth, value, operator, lookup),
        Some(b'/') => replaced(depth, &value, &operator[1..], lookup),
        _ => unknown(),
    }
}

/// `offset` or `offset:length`, in characters; a negative offset counts from the end.
fn slice(value: &str, operator: &str) -> Option<String> {
    let (offset, length) = operator.split_once(':').map_or((operator, None), |(offset, length)| (offset, Some(length)));
    let count = value.chars().count();
    let offset: i64 = offset.trim().parse().ok()?;
    let from = match offset {
        0.. => usize::try_from(offset).unwrap_or(count),
        _ => count.checked_sub(usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX))?,
    };
    let length = length.map_or(Some(count), |length| length.trim().parse().ok())?;
    Some(value.chars().skip(from).take(length).collect())
}

fn cased<I: Iterator<Item = char>>(value: &str, all: bool, case: impl Fn(char) -> I) -> String {
    let mut cased = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        if all || at == 0 { cased.extend(case(c)) } else { cased.push(c) }
    }
    cased
}

/// Without the shortest (`#`, `%`) or the longest (`##`, `%%`) beginning or end that matches.
fn cut(depth: usize, value: String, operator: &str, lookup: Lookup) -> Result<String, String> {
    let mark = &operator[..1];
    let longest = operator[1..].starts_with(mark);
    let pattern = Text::new(&expand_at(depth + 1, operator.trim_start_matches(mark), lookup)?)?;
    let places = value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let cut = match mark {
        "#" => {
            let mut ends = places.filter(|at| pattern.matches(&value[..*at]));
            if longest { ends.next_back() } else { ends.next() }.map(|at| &value[at..])
        }
        _ => {
            let mut starts = places.filter(|at| pattern.matches(&value[*at..]));
            if longest { starts.next() } else { starts.next_back() }.map(|at| &value[..at])
        }
    };
    Ok(cut.map_or(value.clone(), str::to_owned))
}

/// `a/b`: the first `a` becomes `b`; `/a/b`: each of them; `#a/b` and `%a/b`: one at the beginning or the end.
fn replaced(depth: usize, value: &str, operation: &str, lookup: Lookup) -> Result<String, String> {
    let place = operation.chars().next().filter(|c| matches!(c, '/' | '#' | '%'));
    let operation = if place.is_some() { &operation[1..] } else { operation };
    let (mut escaped, mut middle) = (false, operation.len());
    for (at, byte) in operation.bytes().enumerate() {
        match byte {
            b'/' if !escaped => {
                middle = at;
                break;
            }
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    let pattern = Text::new(&expand_at(depth + 1, &operation[..middle], lookup)?)?;
    let with = expand_at(depth + 1, operation.get(middle + 1..).unwrap_or_default(), lookup)?;
    let (mut done, mut at, mut again) = (String::with_capacity(value.len()), 0, true);
    while at < value.len() {
        let ends = value[at..].char_indices().map(|(end, c)| at + end + c.len_utf8());
        let fits = |end: &usize| {
            let right_place = match place {
                Some('#') => at == 0,
                Some('%') => *end == value.len(),
                _ => true,
            };
            right_place && pattern.matches(&value[at..*end])
        };
        match ends.rev().find(fits).filter(|_| again) {
            Some(end) => {
                done.push_str(&with);
                (at, again) = (end, place == Some('/'));
            }
            None => {
                let c = value[at..].chars().next().unwrap_or_default();
                done.push(c);
                at += c.len_utf8();
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "SHA" => Some("0123456789abcdef".into()),
            "REF" => Some("feature/one/two".into()),
            "FILE" => Some("app.tar.gz".into()),
            "LONG" => Some("x".repeat(5000)),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn names_and_defaults_are_expanded_as_a_shell_does() {
        for (text, expanded) in [
            ("dist/$A/x", "dist/a/x"),
            ("${A}_$NONE.", "a_."),
            ("${NONE:-default}", "default"),
            ("${NONE:-$A/${EMPTY:-b}}", "a/b"),
            ("${EMPTY-x}", ""),
            ("${A:+yes}${EMPTY:+no}", "yes"),
            ("a\\$A \\n $ $1", "a$A \\n $ $1"),
            ("{a,b}/*", "{a,b}/*"),
            ("é$Aé", "éaé"),
        ] {
            assert_eq!(expand(text, &lookup).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn values_are_cut_and_replaced_as_bash_does() {
        let mut script = String::new();
        let texts = [
            "${SHA:0:8}",
            "${SHA:8}",
            "${SHA: -4}",
            "${SHA:2: 3}",
            "${#REF}",
            "${FILE%.*}",
            "${FILE%%.*}",
            "${FILE#*.}",
            "${FILE##*.}",
            "${FILE%.zip}",
            "${REF//\\//-}",
            "${REF/\\//-}",
            "${REF//e}",
            "${REF/#feature/f}",
            "${REF/%two/2}",
            "${REF//[aeiou]/_}",
            "${REF^}",
            "${REF^^}",
            "${NONE#x}",
            "${NONE//x/y}",
            "${REF//o?/$A}",
            "${REF##${NONE:-*}/}",
            "${FILE/a*/x}",
        ];
        for text in texts {
            script += &format!("printf '%s\\n' \"{text}\"\n");
        }
        let mut bash = std::process::Command::new("bash");
        for name in ["A", "SHA", "REF", "FILE"] {
            bash.env(name, lookup(name).expect(name));
        }
        let output = bash.env_remove("NONE").args(["-c", &script]).output().expect("bash");
        let expected = String::from_utf8(output.stdout).expect("text");
        for (text, expected) in texts.into_iter().zip(expected.lines()) {
            assert_eq!(expand(text, &lookup).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_only_a_shell_could_do_is_refused() {
        for text in [
            "$(id)",
            "`id`",
            "${A",
            "${A@Q}",
            "${}",
            "${#}",
            "${#A B}",
            "${NONE:?missing}",
            "$((1+1))",
            "${SHA:x}",
            "${SHA: -40}",
            "${A/[/x}",
            "${LONG%x}",
            "${A%$REF${LONG:0:256}}",
        ] {
            assert!(expand(text, &lookup).is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_in_parameters_end_somewhere() {
        let nested = |depth| "${NONE:-".repeat(depth) + "x" + &"}".repeat(depth);
        assert_eq!(expand(&nested(32), &lookup).as_deref(), Ok("x"));
        for depth in [33, 4000] {
            assert!(expand(&nested(depth), &lookup).expect_err("too deep").contains("more than 32 times"));
        }
    }
}
