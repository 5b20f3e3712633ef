//! From text to expressions.

use super::{Error, Expression, Operator, Part, Value};

/// How deep brackets, operators without a left side and strings in strings may lie in each other.
const DEPTH: usize = 64;
/// How many operators and accesses one expression may have: each lies inside the next.
const LENGTH: usize = 500;

const RESERVED: [&str; 35] = [
    "array",
    "as",
    "break",
    "case",
    "const",
    "continue",
    "default",
    "else",
    "fallthrough",
    "float",
    "for",
    "func",
    "function",
    "goto",
    "if",
    "import",
    "in",
    "int",
    "let",
    "loop",
    "map",
    "namespace",
    "number",
    "object",
    "package",
    "range",
    "return",
    "string",
    "struct",
    "switch",
    "type",
    "var",
    "void",
    "while",
    "null",
];

/// From the weakest to the strongest; of two that begin alike the longer one first.
const BINARY: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[("*", Operator::Times), ("/", Operator::Divide), ("%", Operator::Modulo)],
];

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// Text with any number of `${{ … }}` in it.
pub(super) fn template(text: &str) -> Result<Vec<Part>, Error> {
    let mut parser = Parser { text, at: 0, depth: 0, length: 0 };
    let mut parts = Vec::new();
    let mut plain = String::new();
    while let Some(next) = parser.peek() {
        if parser.take(r"\${{") {
            plain.push_str(OPEN);
        } else if parser.take(OPEN) {
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parser.length = 0;
            parts.push(Part::Expression(parser.interpolated()?));
        } else {
            plain.push(next);
            parser.at += next.len_utf8();
        }
    }
    parts.push(Part::Text(plain));
    Ok(parts)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    length: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// As [`Self::take`], after white space.
    fn symbol(&mut self, word: &str) -> bool {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.take(word)
    }

    fn expect(&mut self, word: &str) -> Result<(), Error> {
        if self.symbol(word) { Ok(()) } else { Err(self.error(self.at, format!("expected `{word}`"))) }
    }

    fn error(&self, at: usize, what: impl Into<String>) -> Error {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Error::Syntax {
            what: what.into(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The manager parses, and its stack is not the job's to exhaust.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH {
            return Err(self.error(self.at, "the expression is nested too deep"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn longer(&mut self) -> Result<(), Error> {
        self.length += 1;
        if self.length > LENGTH { Err(self.error(self.at, "the expression is too long")) } else { Ok(()) }
    }

    /// What follows `${{`, and its end.
    fn interpolated(&mut self) -> Result<Expression, Error> {
        let expression = self.deeper(Self::expression)?;
        self.expect(CLOSE)?;
        Ok(expression)
    }

    fn expression(&mut self) -> Result<Expression, Error> {
        self.binary(0)
    }

    fn binary(&mut self, level: usize) -> Result<Expression, Error> {
        let Some(operators) = BINARY.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some((_, operator)) = operators.iter().find(|(word, _)| self.symbol(word)) {
            self.longer()?;
            left = Expression::Binary(*operator, left.into(), self.binary(level + 1)?.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, Error> {
        for (word, operator) in [("!", Operator::Not), ("-", Operator::Minus), ("+", Operator::Plus)] {
            if self.symbol(word) {
                return Ok(Expression::Unary(operator, self.deeper(Self::unary)?.into()));
            }
        }
        self.elements()
    }

    /// A value and what is taken out of it.
    fn elements(&mut self) -> Result<Expression, Error> {
        let mut of = self.value()?;
        loop {
            let element = if self.symbol(".") {
                self.symbol("");
                let Some(name) = self.word() else { return Err(self.error(self.at, "expected a name")) };
                Expression::Literal(Value::String(name.to_owned()))
            } else if self.symbol("[") {
                let element = self.deeper(Self::expression)?;
                self.expect("]")?;
                element
            } else {
                return Ok(of);
            };
            self.longer()?;
            of = Expression::Element(of.into(), element.into());
        }
    }

    fn value(&mut self) -> Result<Expression, Error> {
        if self.symbol("(") {
            let inner = self.deeper(Self::expression)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.symbol("[") {
            return Ok(Expression::Array(self.list("]", Self::expression)?));
        }
        if self.symbol("{") {
            return Ok(Expression::Object(self.list("}", Self::field)?));
        }
        if self.symbol("\"") {
            return self.deeper(Self::double_quoted);
        }
        if self.symbol("'") {
            return self.single_quoted();
        }
        if self.peek().is_some_and(|c| c.is_ascii_digit()) {
            return self.number();
        }
        let at = self.at;
        match self.word() {
            None => Err(self.error(at, "expected a value")),
            Some("null") => Ok(Expression::Literal(Value::Null)),
            Some("true") => Ok(Expression::Literal(Value::Bool(true))),
            Some("false") => Ok(Expression::Literal(Value::Bool(false))),
            Some(word) if RESERVED.contains(&word) => Err(self.error(at, format!("`{word}` is a reserved word"))),
            Some(word) if self.symbol("(") => Ok(Expression::Call(word.to_owned(), self.list(")", Self::expression)?)),
            Some(word) => Ok(Expression::Name(word.to_owned())),
        }
    }

    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = &rest[..length];
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.at += length;
        Some(word)
    }

    /// Items between commas, also after the last one.
    fn list<T>(&mut self, close: &str, item: fn(&mut Self) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        while !self.symbol(close) {
            items.push(self.deeper(item)?);
            if !self.symbol(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    /// `key: value`. A bare name is the key itself, not a variable.
    fn field(&mut self) -> Result<(Expression, Expression), Error> {
        self.symbol("");
        let key = match self.word() {
            Some(name) => Expression::Literal(Value::String(name.to_owned())),
            None => self.value()?,
        };
        self.expect(":")?;
        Ok((key, self.expression()?))
    }

    fn number(&mut self) -> Result<Expression, Error> {
        let rest = self.rest();
        let digits =
            |from: usize| rest[from..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| from + end);
        let mut end = digits(0);
        if rest[end..].starts_with('.') {
            end = digits(end + 1);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            end = digits(end + 1 + sign);
        }
        let number: Result<f64, _> = rest[..end].parse();
        match number {
            Ok(number) if number.is_finite() => {
                self.at += end;
                Ok(Expression::Literal(Value::Number(number)))
            }
            _ => Err(self.error(self.at, format!("`{}` is no number", &rest[..end]))),
        }
    }

    fn single_quoted(&mut self) -> Result<Expression, Error> {
        let start = self.at - 1;
        let mut text = String::new();
        loop {
            if self.take(r"\\") {
                text.push('\\');
            } else if self.take(r"\'") {
                text.push('\'');
            } else if self.take("'") {
                return Ok(Expression::Literal(Value::String(text)));
            } else if let Some(next) = self.peek() {
                text.push(next);
                self.at += next.len_utf8();
            } else {
                return Err(self.error(start, "the string never ends"));
            }
        }
    }

    fn double_quoted(&mut self) -> Result<Expression, Error> {
        let start = self.at - 1;
        let mut parts = Vec::new();
        let mut plain = String::new();
        loop {
            if self.take(r"\${{") {
                plain.push_str(OPEN);
            } else if self.take(OPEN) {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Expression(self.interpolated()?));
            } else if self.take("\"") {
                break;
            } else if self.take("\\") {
                plain.push(self.escape()?);
            } else if let Some(next) = self.peek() {
                plain.push(next);
                self.at += next.len_utf8();
            } else {
                return Err(self.error(start, "the string never ends"));
            }
        }
        if parts.is_empty() {
            return Ok(Expression::Literal(Value::String(plain)));
        }
        parts.push(Part::Text(plain));
        Ok(Expression::Template(parts))
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, Error> {
        let at = self.at - 1;
        let letter = self.peek().ok_or_else(|| self.error(at, "the string never ends"))?;
        self.at += letter.len_utf8();
        Ok(match letter {
            '\\' | '"' | '/' => letter,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            'u' => {
                let code = self.rest().get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let character = code.and_then(char::from_u32);
                let character =
                    character.ok_or_else(|| self.error(at, r"`\u` needs the four digits of a character"))?;
                self.at += 4;
                character
            }
            other => return Err(self.error(at, format!(r"`\{other}` is no escape sequence"))),
        })
    }
}
