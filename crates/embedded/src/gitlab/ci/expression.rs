//! The language of `rules:if`.
//!
//! `&&` binds tighter than `||`; a variable or string alone is true if it is there and not empty; an undefined
//! variable equals `null`. Values of variables are taken as they are, without expansion, as GitLab does.

use std::collections::BTreeMap;

use regex_automata::meta::Regex;

/// More is nobody's intention, and each level costs a stack frame.
const MAX_DEPTH: usize = 50;

#[derive(Debug, Clone)]
pub(super) enum Expression {
    Or(Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Present(Operand),
    Equal(Operand, Operand),
    Matches(Operand, Pattern),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Variable(String),
    Text(String),
    Null,
}

#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Regex(Regex),
    /// A variable whose value is a pattern in slashes.
    Variable(String),
}

type Variables = BTreeMap<String, String>;

impl Expression {
    /// The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens };
        let expression = parser.or(0)?;
        match parser.tokens.first() {
            None => Ok(expression),
            Some(token) => Err(format!("{} cannot stand where it is", token.describe())),
        }
    }

    pub fn holds(&self, variables: &Variables) -> bool {
        match self {
            Self::Or(left, right) => left.holds(variables) || right.holds(variables),
            Self::And(left, right) => left.holds(variables) && right.holds(variables),
            Self::Not(inner) => !inner.holds(variables),
            Self::Present(operand) => operand.value(variables).is_some_and(|value| !value.trim().is_empty()),
            Self::Equal(left, right) => left.value(variables) == right.value(variables),
            Self::Matches(left, pattern) => {
                let text = left.value(variables).unwrap_or_default();
                match pattern {
                    Pattern::Regex(regex) => regex.is_match(text),
                    // Only the value tells whether it is a pattern; one that is none matches nothing.
                    Pattern::Variable(name) => variables
                        .get(name)
                        .and_then(|value| whole_regex(value))
                        .is_some_and(|regex| regex.is_match(text)),
                }
            }
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, variables: &'a Variables) -> Option<&'a str> {
        match self {
            Self::Variable(name) => variables.get(name).map(String::as_str),
            Self::Text(text) => Some(text),
            Self::Null => None,
        }
    }
}

#[derive(Debug, Clone)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Equal { negated: bool },
    Matches { negated: bool },
    Operand(Operand),
    Regex(Regex),
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Open => "`(`".into(),
            Self::Close => "`)`".into(),
            Self::And => "`&&`".into(),
            Self::Or => "`||`".into(),
            Self::Not => "`!`".into(),
            Self::Equal { negated: false } => "`==`".into(),
            Self::Equal { negated: true } => "`!=`".into(),
            Self::Matches { negated: false } => "`=~`".into(),
            Self::Matches { negated: true } => "`!~`".into(),
            Self::Operand(Operand::Variable(name)) => format!("`${name}`"),
            Self::Operand(Operand::Text(text)) => format!("the string `{text}`"),
            Self::Operand(Operand::Null) => "`null`".into(),
            Self::Regex(_) => "a pattern".into(),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    const OPERATORS: [(&str, Token); 9] = [
        ("(", Token::Open),
        (")", Token::Close),
        ("&&", Token::And),
        ("||", Token::Or),
        ("==", Token::Equal { negated: false }),
        ("!=", Token::Equal { negated: true }),
        ("=~", Token::Matches { negated: false }),
        ("!~", Token::Matches { negated: true }),
        ("!", Token::Not),
    ];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let after;
        if let Some((symbol, token)) = OPERATORS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            tokens.push(token.clone());
            after = &rest[symbol.len()..];
        } else if first == '$' {
            let name = word(&rest[1..]);
            if name.is_empty() {
                return Err("`$` wants the name of a variable behind it, without braces".into());
            }
            tokens.push(Token::Operand(Operand::Variable(name.to_owned())));
            after = &rest[1 + name.len()..];
        } else if first == '"' || first == '\'' {
            let Some(end) = rest[1..].find(first) else { return Err(format!("the quote {first} is not closed")) };
            tokens.push(Token::Operand(Operand::Text(rest[1..=end].to_owned())));
            after = &rest[end + 2..];
        } else if first == '/' {
            let (regex, behind) = regex(rest)?;
            tokens.push(Token::Regex(regex));
            after = behind;
        } else {
            let word = word(rest);
            if word == "null" {
                tokens.push(Token::Operand(Operand::Null));
            } else if word.is_empty() {
                return Err(match first {
                    '=' => "`=` alone is no operator; use `==`".into(),
                    '&' | '|' => format!("`{first}` alone is no operator; use `{first}{first}`"),
                    other => format!("`{other}` cannot stand here"),
                });
            } else {
                return Err(format!("`{word}` is neither a $variable nor a \"string\""));
            }
            after = &rest[word.len()..];
        }
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn word(text: &str) -> &str {
    &text[..text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len())]
}

/// Reads `/pattern/flags` from the start of `text`.
fn regex(text: &str) -> Result<(Regex, &str), String> {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '/' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let Some((end, _)) = end else { return Err("the pattern has no closing `/`".into()) };
    let behind = &text[end + 1..];
    let flags = word(behind);
    if let Some(flag) = flags.chars().find(|flag| !"imsU".contains(*flag)) {
        return Err(format!("`{flag}` is not a flag of a pattern; they are i, m, s and U"));
    }
    let source = text[1..end].replace("\\/", "/");
    if source.is_empty() {
        return Err("the pattern is empty".into());
    }
    let source = if flags.is_empty() { source } else { format!("(?{flags}){source}") };
    let regex = Regex::new(&source).map_err(|error| {
        let reason = error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string);
        // The library draws the pattern over several lines; its last line says what is wrong.
        format!(
            "`{source}` is not a pattern: {}",
            reason.lines().last().unwrap_or_default().trim_start_matches("error: ")
        )
    })?;
    Ok((regex, &behind[flags.len()..]))
}

fn whole_regex(text: &str) -> Option<Regex> {
    let (regex, behind) = text.starts_with('/').then(|| regex(text).ok()).flatten()?;
    behind.trim().is_empty().then_some(regex)
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn or(&mut self, depth: usize) -> Result<Expression, String> {
        let mut left = self.and(depth)?;
        while let Some(Token::Or) = self.tokens.first() {
            self.take();
            left = Expression::Or(Box::new(left), Box::new(self.and(depth)?));
        }
        Ok(left)
    }

    fn and(&mut self, depth: usize) -> Result<Expression, String> {
        let mut left = self.one(depth)?;
        while let Some(Token::And) = self.tokens.first() {
            self.take();
            left = Expression::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels of parentheses"));
        }
        match self.take() {
            Some(Token::Open) => {
                let inner = self.or(depth + 1)?;
                match self.take() {
                    Some(Token::Close) => Ok(inner),
                    _ => Err("a `)` is missing".into()),
                }
            }
            Some(Token::Not) => {
                // GitLab binds `!` tighter than `==`: `!$A == "x"` would not mean what everybody reads.
                if let [Token::Operand(_), Token::Equal { .. } | Token::Matches { .. }, ..] = self.tokens {
                    return Err("`!` before a comparison wants parentheses around the comparison".into());
                }
                Ok(Expression::Not(Box::new(self.one(depth + 1)?)))
            }
            Some(Token::Operand(left)) => self.comparison(left.clone()),
            Some(other) => Err(format!("{} cannot stand where a variable or a string is wanted", other.describe())),
            None => Err("something is missing at the end".into()),
        }
    }

    fn comparison(&mut self, left: Operand) -> Result<Expression, String> {
        let negate = |negated: bool, inner| if negated { Expression::Not(Box::new(inner)) } else { inner };
        match self.tokens.first() {
            Some(&Token::Equal { negated }) => {
                self.take();
                match self.take() {
                    Some(Token::Operand(right)) => Ok(negate(negated, Expression::Equal(left, right.clone()))),
                    Some(Token::Regex(_)) => Err("a pattern is compared with `=~` or `!~`".into()),
                    _ => Err("`==` and `!=` want a variable, a string or `null` behind them".into()),
                }
            }
            Some(&Token::Matches { negated }) => {
                self.take();
                let pattern = match self.take() {
                    Some(Token::Regex(regex)) => Pattern::Regex(regex.clone()),
                    Some(Token::Operand(Operand::Variable(name))) => Pattern::Variable(name.clone()),
                    _ => return Err("`=~` and `!~` want a /pattern/ or a variable behind them".into()),
                };
                Ok(negate(negated, Expression::Matches(left, pattern)))
            }
            _ => Ok(Expression::Present(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str) -> bool {
        let pairs = [
            ("BRANCH", "main"),
            ("TAG", "v1.2.3"),
            ("EMPTY", ""),
            ("SPACE", "  "),
            ("PATTERN", "/^MAI/i"),
            ("WORD", "mai"),
            ("PATH_", "a/b"),
        ];
        let variables = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).holds(&variables)
    }

    #[test]
    fn expressions_hold_as_documented() {
        for (text, expected) in [
            ("$BRANCH", true),
            ("$EMPTY", false),
            ("$SPACE", false),
            ("$UNKNOWN", false),
            ("$BRANCH == \"main\"", true),
            ("$BRANCH=='main'", true),
            ("\"main\" == $BRANCH", true),
            ("$BRANCH != \"main\"", false),
            ("$UNKNOWN == null", true),
            ("$EMPTY == null", false),
            ("$EMPTY == \"\"", true),
            ("$UNKNOWN == \"\"", false),
            ("$UNKNOWN != \"\"", true),
            ("$UNKNOWN == $ALSO_UNKNOWN", true),
            ("$TAG =~ /^v\\d+\\.\\d+/", true),
            ("$TAG =~ /^V/", false),
            ("$TAG =~ /^V/i", true),
            ("$TAG !~ /^v/", false),
            ("$UNKNOWN =~ /x/", false),
            ("$UNKNOWN !~ /x/", true),
            ("$PATH_ =~ /a\\/b/", true),
            ("$BRANCH =~ $PATTERN", true),
            ("$BRANCH =~ $WORD", false),
            ("$BRANCH =~ $UNKNOWN", false),
            ("$BRANCH !~ $UNKNOWN", true),
            ("$BRANCH && $UNKNOWN", false),
            ("$BRANCH || $UNKNOWN", true),
            ("$EMPTY || $BRANCH == \"main\"", true),
            ("$EMPTY && $BRANCH == \"main\"", false),
            ("$BRANCH || $UNKNOWN && $EMPTY", true),
            ("($BRANCH || $UNKNOWN) && $EMPTY", false),
            ("!$EMPTY && !($BRANCH == \"dev\")", true),
            ("\"text\"", true),
            ("null", false),
        ] {
            assert_eq!(holds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_expression_says_what_is_wrong() {
        for (text, message) in [
            ("", "something is missing at the end"),
            ("$A =", "`=` alone is no operator; use `==`"),
            ("$A & $B", "`&` alone is no operator; use `&&`"),
            ("$A == main", "`main` is neither a $variable nor a \"string\""),
            ("$A == \"x", "the quote \" is not closed"),
            ("${A}", "`$` wants the name of a variable behind it, without braces"),
            ("($A", "a `)` is missing"),
            ("$A)", "`)` cannot stand where it is"),
            ("$A $B", "`$B` cannot stand where it is"),
            ("$A =~ \"x\"", "`=~` and `!~` want a /pattern/ or a variable behind them"),
            ("$A == /x/", "a pattern is compared with `=~` or `!~`"),
            ("$A =~ /x", "the pattern has no closing `/`"),
            ("$A =~ /x/g", "`g` is not a flag of a pattern; they are i, m, s and U"),
            ("$A =~ /(/", "`(` is not a pattern: unclosed group"),
            (
                "$A =~ /a(?!b)/",
                "`a(?!b)` is not a pattern: look-around, including look-ahead and look-behind, is not supported",
            ),
            ("$A =~ //", "the pattern is empty"),
            ("!$A == \"x\"", "`!` before a comparison wants parentheses around the comparison"),
            ("== $A", "`==` cannot stand where a variable or a string is wanted"),
            ("$A ==", "`==` and `!=` want a variable, a string or `null` behind them"),
            ("$A # comment", "`#` cannot stand here"),
        ] {
            assert_eq!(Expression::parse(text).map(|_| ()), Err(message.to_owned()), "{text}");
        }
        assert!(Expression::parse(&"(".repeat(10_000)).is_err());
        assert!(Expression::parse(&"!".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(parts in prop::collection::vec(
            prop::sample::select(vec!["$A", "\"x\"", "'", "/x/", "/", "\\", "null", "(", ")", "!", "==", "=~", "&&", "||",
                " ", "é", "$", "i"]), 0..20)) {
            let _ = Expression::parse(&parts.concat());
        }
    }
}
