//! Moa, the language of `${{ … }}` (GitLab's documentation, "Moa expression language"): values, and templates of them.
//!
//! The expressions come from jobs and are evaluated in the manager, so their depth and what they may become are bounded.

mod eval;
mod parse;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

pub use eval::Context;

/// Why a template has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} at {line}:{column}")]
    Syntax { what: String, line: usize, column: usize },
    #[error("{0}")]
    Value(String),
    /// The value depends on an input that nobody may read in a job's configuration.
    #[error("sensitive inputs are unsupported in interpolations yet")]
    Sensitive,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(bool) => *bool,
            Self::Number(number) => *number != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::Array(items) => !items.is_empty(),
            Self::Object(fields) => !fields.is_empty(),
        }
    }

    /// Roughly, in bytes.
    fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Null | Self::Bool(_) | Self::Number(_) => 0,
                Self::String(text) => text.len(),
                Self::Array(items) => items.iter().map(Self::size).sum(),
                Self::Object(fields) => fields.iter().map(|(key, value)| key.len() + value.size()).sum(),
            }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(bool) => json!(bool),
            // 3 is written 3, not 3.0.
            Self::Number(number) => match serde_json::from_str(&number.to_string()) {
                Ok(number) => number,
                Err(_) => json!(number),
            },
            Self::String(text) => json!(text),
            Self::Array(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(bool) => Self::Bool(bool),
            serde_json::Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(fields) => {
                Self::Object(fields.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

/// As text among text: a string without quotes, arrays and objects as JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<null>"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(text),
            Self::Array(_) | Self::Object(_) => write!(f, "{}", self.to_json()),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Literal(Value),
    Template(Vec<Part>),
    Name(String),
    /// `a.b`, `a["b"]` and `a[0]` alike.
    Element(Box<Expression>, Box<Expression>),
    Call(String, Vec<Expression>),
    Array(Vec<Expression>),
    Object(Vec<(Expression, Expression)>),
    Unary(Operator, Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Expression(Expression),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Not,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
}

impl Operator {
    fn word(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Not => "!",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let inputs = json!({
            "name": "fred", "age": 1, "ratio": 0.5, "spaghetti": false, "friends": ["bob", "sally"],
            "address": {"line1": "42 Wallaby Way", "post-code": null}, "empty": "",
        });
        let serde_json::Value::Object(inputs) = inputs else { unreachable!() };
        let inputs = inputs.into_iter().map(|(key, value)| (key, (value.into(), false)));
        let secret = ("password".to_owned(), (Value::String("123456".into()), true));
        Context::new(inputs.chain([secret]).collect())
    }

    fn expand(text: &str) -> Result<String, Error> {
        context().expand(text)
    }

    #[test]
    fn text_and_expressions_mix() {
        for (text, expanded) in [
            ("plain $ {text} ${NAME} $$ }} ${ {", "plain $ {text} ${NAME} $$ }} ${ {"),
            ("Hello ${{ job.inputs.name }}, ${{job.inputs.name}}!", "Hello fred, fred!"),
            (r"use \${{ to begin", "use ${{ to begin"),
            ("${{ job.inputs.friends[1] }} ${{ job.inputs.address.line1 }}", "sally 42 Wallaby Way"),
            (r#"${{ job["inputs"]["address"]["post-code"] }}"#, "<null>"),
            ("${{\n  job.inputs.age\n}}é", "1é"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn values_become_text_as_a_reader_expects() {
        for (expression, text) in [
            ("job.inputs.age", "1"),
            ("job.inputs.ratio", "0.5"),
            ("1.5e3", "1500"),
            ("2E-4", "0.0002"),
            ("job.inputs.spaghetti", "false"),
            ("job.inputs.friends", r#"["bob","sally"]"#),
            ("job.inputs.address", r#"{"line1":"42 Wallaby Way","post-code":null}"#),
            ("[1, 2.5, 'a', null,]", r#"[1,2.5,"a",null]"#),
            ("{a: 1, 'b': true, (job.inputs.name): {}}", r#"{"a":1,"b":true,"fred":{}}"#),
            ("str(null)", "<null>"),
            ("str(42) + num('3.14')", "!"),
            ("num(' 3.14')", "!"),
            ("num('3.14') + 1", "4.140000000000001"),
            ("bool('x')", "true"),
            ("[] == []", "true"),
        ] {
            let result = expand(&format!("${{{{ {expression} }}}}"));
            match text {
                "!" => assert!(matches!(result, Err(Error::Value(_))), "{expression}: {result:?}"),
                text => assert_eq!(result.as_deref(), Ok(text), "{expression}"),
            }
        }
    }

    #[test]
    fn operators_bind_and_decide_as_documented() {
        for (expression, text) in [
            ("1 + 2 * 3 - 4 / 2", "5"),
            ("(1 + 2) * 3", "9"),
            ("10 % 3", "1"),
            ("-7 % 3", "-1"),
            ("- -5", "5"),
            ("+5", "5"),
            ("'a' + 'b'", "ab"),
            ("1 == '1'", "false"),
            ("1 != 2 && 2 >= 2", "true"),
            ("'abc' < 'abd'", "true"),
            ("[1, 2] < [1, 3]", "true"),
            ("{b: 1} > {}", "true"),
            ("false < true", "true"),
            ("null == null", "true"),
            ("job.inputs.empty || 'default'", "default"),
            ("job.inputs.name == 'fred' && 'yes' || 'no'", "yes"),
            ("0 && job.nothing", "0"),
            ("'set' || job.nothing", "set"),
            ("!job.inputs.spaghetti", "true"),
            ("!!'x'", "true"),
            (r#""${{ job.inputs.name }} is ${{ 1 + 1 }}""#, "fred is 2"),
            (r#""tab\tquote\"\u0041 \${{ no }}""#, "tab\tquote\"A ${{ no }}"),
            (r"'raw \n \' \\ ${{ no }}'", r"raw \n ' \ ${{ no }}"),
        ] {
            assert_eq!(expand(&format!("${{{{ {expression} }}}}")).as_deref(), Ok(text), "{expression}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, told) in [
            ("x ${{ job.inputs.name", "expected `}}` at 1:22"),
            ("${{ job.inputs.name + }}", "expected a value at 1:23"),
            ("\n${{ 'open }}", "the string never ends at 2:5"),
            ("${{ }}", "expected a value at 1:5"),
            ("${{ 1 2 }}", "expected `}}` at 1:7"),
            ("${{ for }}", "`for` is a reserved word at 1:5"),
            (r#"${{ "\q" }}"#, r"`\q` is no escape sequence at 1:6"),
            ("${{ job.inputs.nobody }}", "there is no `nobody` in job.inputs"),
            ("${{ env.HOME }}", "`env` is not defined"),
            ("${{ job.inputs.friends[2] }}", "the array has no element 2"),
            ("${{ job.inputs.friends['x'] }}", "an array has no element of kind string"),
            ("${{ job.inputs.name.x }}", "a string has no elements"),
            ("${{ 'a' + 1 }}", "`+` cannot take string and number"),
            ("${{ -'a' }}", "`-` cannot take string"),
            ("${{ 1 / 0 }}", "division by zero"),
            ("${{ 1 < 'a' }}", "`<` cannot take number and string"),
            ("${{ now() }}", "there is no function `now`"),
            ("${{ str() }}", "`str` takes one value, not 0"),
            ("${{ {(1): 2} }}", "a key must be a string, not number"),
        ] {
            assert_eq!(expand(text).map_err(|error| error.to_string()), Err(told.to_owned()), "{text}");
        }
    }

    #[test]
    fn whatever_touches_a_sensitive_value_is_sensitive() {
        for text in [
            "${{ job.inputs.password }}",
            "x${{ 'a' + job.inputs.password }}",
            "${{ str(job.inputs) }}",
            "${{ [job.inputs.password][0] }}",
            "${{ job.inputs.password == '123456' && 'guessed' || 'wrong' }}",
            "${{ !job.inputs.password }}",
            "${{ \"${{ job.inputs.password }}\" }}",
        ] {
            assert_eq!(expand(text), Err(Error::Sensitive), "{text}");
        }
        assert_eq!(expand("${{ true || job.inputs.password }}").as_deref(), Ok("true"));
    }

    #[test]
    fn neither_depth_nor_length_can_hurt_the_manager() {
        for open in ["(", "[", "!", "-", "{a:", "\"${{ "] {
            let text = format!("${{{{ {}", open.repeat(100_000));
            assert!(matches!(expand(&text), Err(Error::Syntax { what, .. }) if what.contains("too deep")), "{open}");
        }
        for again in ["+1", ".a", "==1", "[0]"] {
            let text = format!("${{{{ x{} }}}}", again.repeat(100_000));
            assert!(matches!(expand(&text), Err(Error::Syntax { what, .. }) if what.contains("too long")), "{again}");
        }
        let big = Value::String("x".repeat(1 << 20));
        let context = Context::new(BTreeMap::from([("big".to_owned(), (big, false))]));
        let error = context.expand(&"${{ job.inputs.big }}".repeat(100)).expect_err("100 MiB");
        assert!(error.to_string().contains("too much"), "{error}");
        for text in [
            // Each level doubles the backslashes.
            format!("${{{{ {}'a'{} }}}}", "str([".repeat(30), "])".repeat(30)),
            format!("${{{{ {}'a'{} }}}}", "[\"${{ ".repeat(20), " }}\"]".repeat(20)),
            // Few characters that are many digits.
            "${{ 1e308 }}".repeat(20_000),
        ] {
            let error = expand(&text).expect_err(&text).to_string();
            assert!(error.contains("too much"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "[ -~é\n]{0,40}", inside in "[-a-c0-9()\\[\\]{}.,:+*/%!<>=&|\"'$ \\\\]{0,40}") {
            let _ = expand(&text);
            let _ = expand(&format!("${{{{{inside}}}}}"));
        }
    }
}
