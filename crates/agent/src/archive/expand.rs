//! Parameters in the names and paths of artifacts, expanded as in a double-quoted word of a shell (protocol 5.2).

/// `$X`, `${X}`, and `${X:-word}` with its relatives `-`, `:+`, `+`, `:=`, `=`, `:?`, `?`. Anything else in
/// braces, and commands, are refused: the caller then keeps the text as it is.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
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
                    expanded.push_str(&parameter(&after[1..end], lookup)?);
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
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Ok(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    Err("a brace is not closed".into())
}

fn parameter(inside: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let name = name_of(inside);
    let operation = &inside[name.len()..];
    if name.is_empty() {
        return Err(format!("${{{inside}}} is not understood"));
    }
    let value = lookup(name);
    let (empty_counts_as_unset, operator) = match operation.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operation),
    };
    let set = value.as_ref().is_some_and(|value| !(empty_counts_as_unset && value.is_empty()));
    let word = |operator: &str| expand(&operator[1..], lookup);
    match operator.bytes().next() {
        None if !empty_counts_as_unset => Ok(value.unwrap_or_default()),
        Some(b'-' | b'=') => {
            if set {
                Ok(value.unwrap_or_default())
            } else {
                word(operator)
            }
        }
        Some(b'+') => {
            if set {
                word(operator)
            } else {
                Ok(String::new())
            }
        }
        Some(b'?') if set => Ok(value.unwrap_or_default()),
        Some(b'?') => Err(format!("{name} is not set: {}", word(operator)?)),
        _ => Err(format!("${{{inside}}} is not understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
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
    fn what_only_a_shell_could_do_is_refused() {
        for text in ["$(id)", "`id`", "${A", "${A%x}", "${}", "${NONE:?missing}"] {
            assert!(expand(text, &lookup).is_err(), "{text}");
        }
    }
}
