//! From expressions to values.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Error, Expression, Operator, Part, Value, parse};

/// Bytes that the expressions of one job may make: copies of inputs, and values written as text.
const MOST_MADE: usize = 4 << 20;

/// What expressions can refer to: `job.inputs`, each with whether it is sensitive.
pub struct Context {
    inputs: BTreeMap<String, (Value, bool)>,
    made: Cell<usize>,
}

/// One evaluation.
struct Evaluation<'a> {
    context: &'a Context,
    /// Something sensitive was looked at.
    sensitive: Cell<bool>,
}

impl Context {
    pub fn new(inputs: BTreeMap<String, (Value, bool)>) -> Self {
        Self { inputs, made: Cell::new(0) }
    }

    /// The text with every `${{ … }}` replaced by its value.
    pub fn expand(&self, text: &str) -> Result<String, Error> {
        let evaluation = Evaluation { context: self, sensitive: Cell::new(false) };
        let expanded = evaluation.template(&parse::template(text)?)?;
        if evaluation.sensitive.get() { Err(Error::Sensitive) } else { Ok(expanded) }
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Value(what.into()))
}

impl Evaluation<'_> {
    fn template(&self, parts: &[Part]) -> Result<String, Error> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Expression(expression) => text.push_str(&self.text(self.evaluate(expression)?)?),
            }
        }
        Ok(text)
    }

    fn evaluate(&self, expression: &Expression) -> Result<Value, Error> {
        Ok(match expression {
            Expression::Literal(value) => value.clone(),
            Expression::Template(parts) => Value::String(self.template(parts)?),
            Expression::Name(name) if name == "job" => {
                Value::Object(BTreeMap::from([("inputs".to_owned(), self.all_inputs()?)]))
            }
            Expression::Name(name) => return wrong(format!("`{name}` is not defined")),
            Expression::Element(of, element) => return self.element(of, element),
            Expression::Call(name, arguments) => return self.call(name, arguments),
            Expression::Array(items) => {
                Value::Array(items.iter().map(|item| self.evaluate(item)).collect::<Result<_, _>>()?)
            }
            Expression::Object(fields) => {
                let field = |(key, value): &(Expression, Expression)| match self.evaluate(key)? {
                    Value::String(key) => Ok((key, self.evaluate(value)?)),
                    other => wrong(format!("a key must be a string, not {}", other.kind())),
                };
                Value::Object(fields.iter().map(field).collect::<Result<_, _>>()?)
            }
            Expression::Unary(operator, of) => return unary(*operator, self.evaluate(of)?),
            Expression::Binary(operator, left, right) => {
                let left = self.evaluate(left)?;
                match operator {
                    Operator::Or if left.is_truthy() => left,
                    Operator::And if !left.is_truthy() => left,
                    Operator::Or | Operator::And => return self.evaluate(right),
                    operator => return binary(*operator, left, self.evaluate(right)?),
                }
            }
        })
    }

    fn element(&self, of: &Expression, element: &Expression) -> Result<Value, Error> {
        let element = self.evaluate(element)?;
        // So that looking at one input does not look at all of them.
        if let (true, Value::String(name)) = (is_inputs(of), &element) {
            let Some((value, sensitive)) = self.context.inputs.get(name) else {
                return wrong(format!("there is no `{name}` in job.inputs"));
            };
            return self.copy(value, *sensitive);
        }
        match (self.evaluate(of)?, element) {
            (Value::Object(mut fields), Value::String(name)) => match fields.remove(&name) {
                Some(value) => Ok(value),
                None => wrong(format!("the object has no `{name}`")),
            },
            (Value::Array(mut items), Value::Number(index)) => {
                let whole = index >= 0.0 && index.fract() == 0.0 && index < items.len() as f64;
                // In range, as was just seen.
                if whole {
                    Ok(items.swap_remove(index as usize))
                } else {
                    wrong(format!("the array has no element {index}"))
                }
            }
            (Value::Object(_), other) => wrong(format!("an object has no element of kind {}", other.kind())),
            (Value::Array(_), other) => wrong(format!("an array has no element of kind {}", other.kind())),
            (other, _) => wrong(format!("a {} has no elements", other.kind())),
        }
    }

    fn all_inputs(&self) -> Result<Value, Error> {
        let copy =
            |(name, (value, sensitive)): (&String, &(Value, bool))| Ok((name.clone(), self.copy(value, *sensitive)?));
        Ok(Value::Object(self.context.inputs.iter().map(copy).collect::<Result<_, _>>()?))
    }

    fn copy(&self, value: &Value, sensitive: bool) -> Result<Value, Error> {
        self.make(value.size())?;
        self.sensitive.set(self.sensitive.get() || sensitive);
        Ok(value.clone())
    }

    /// Each level of arrays in text in arrays doubles the backslashes, so the text of a value is counted as made.
    fn text(&self, value: Value) -> Result<String, Error> {
        let text = match value {
            Value::String(text) => return Ok(text),
            value => value.to_string(),
        };
        self.make(text.len())?;
        Ok(text)
    }

    /// Nothing else makes a value longer than what it is made of: every value is used once.
    fn make(&self, bytes: usize) -> Result<(), Error> {
        self.context.made.set(self.context.made.get().saturating_add(bytes));
        if self.context.made.get() > MOST_MADE {
            return wrong(format!("the expressions are too much: they would become more than {MOST_MADE} bytes"));
        }
        Ok(())
    }

    fn call(&self, name: &str, arguments: &[Expression]) -> Result<Value, Error> {
        let argument = match arguments {
            _ if !["str", "num", "bool"].contains(&name) => return wrong(format!("there is no function `{name}`")),
            [argument] => self.evaluate(argument)?,
            _ => return wrong(format!("`{name}` takes one value, not {}", arguments.len())),
        };
        Ok(match (name, argument) {
            ("str", value) => Value::String(self.text(value)?),
            ("bool", value) => Value::Bool(value.is_truthy()),
            (_, Value::Number(number)) => Value::Number(number),
            (_, Value::String(text)) => match text.parse() {
                Ok(number) => return finite(number),
                Err(_) => return wrong(format!("{text:?} is no number")),
            },
            (_, other) => return wrong(format!("`{name}` cannot take {}", other.kind())),
        })
    }
}

fn is_inputs(expression: &Expression) -> bool {
    matches!(expression, Expression::Element(of, element)
        if matches!(&**of, Expression::Name(name) if name == "job")
            && matches!(&**element, Expression::Literal(Value::String(name)) if name == "inputs"))
}

fn unary(operator: Operator, value: Value) -> Result<Value, Error> {
    Ok(match (operator, value) {
        (Operator::Not, value) => Value::Bool(!value.is_truthy()),
        (Operator::Minus, Value::Number(number)) => Value::Number(-number),
        (Operator::Plus, Value::Number(number)) => Value::Number(number),
        (operator, value) => return wrong(format!("`{}` cannot take {}", operator.word(), value.kind())),
    })
}

fn binary(operator: Operator, left: Value, right: Value) -> Result<Value, Error> {
    let kinds = (left.kind(), right.kind());
    let cannot = || wrong(format!("`{}` cannot take {} and {}", operator.word(), kinds.0, kinds.1));
    let ordered = |wanted: fn(Ordering) -> bool| match order(&left, &right) {
        Some(order) => Ok(Value::Bool(wanted(order))),
        None => cannot(),
    };
    match operator {
        Operator::Equal => return Ok(Value::Bool(left == right)),
        Operator::NotEqual => return Ok(Value::Bool(left != right)),
        Operator::Less => return ordered(Ordering::is_lt),
        Operator::LessOrEqual => return ordered(Ordering::is_le),
        Operator::Greater => return ordered(Ordering::is_gt),
        Operator::GreaterOrEqual => return ordered(Ordering::is_ge),
        _ => {}
    }
    match (operator, left, right) {
        (Operator::Plus, Value::String(left), Value::String(right)) => Ok(Value::String(left + &right)),
        (Operator::Plus, Value::Number(left), Value::Number(right)) => finite(left + right),
        (Operator::Minus, Value::Number(left), Value::Number(right)) => finite(left - right),
        (Operator::Times, Value::Number(left), Value::Number(right)) => finite(left * right),
        (Operator::Divide | Operator::Modulo, Value::Number(_), Value::Number(0.0)) => wrong("division by zero"),
        (Operator::Divide, Value::Number(left), Value::Number(right)) => finite(left / right),
        (Operator::Modulo, Value::Number(left), Value::Number(right)) => finite(left % right),
        _ => cannot(),
    }
}

fn finite(number: f64) -> Result<Value, Error> {
    if number.is_finite() { Ok(Value::Number(number)) } else { wrong("the number is too large") }
}

/// `None` for values of different kinds. Objects by length, then keys, then values.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    let each = |left: &mut dyn Iterator<Item = (&Value, &Value)>| {
        left.map(|(left, right)| order(left, right)).find(|order| *order != Some(Ordering::Equal))
    };
    match (left, right) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => left.partial_cmp(right),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Array(left), Value::Array(right)) => {
            each(&mut left.iter().zip(right)).unwrap_or(Some(left.len().cmp(&right.len())))
        }
        (Value::Object(left), Value::Object(right)) => {
            let keys = left.len().cmp(&right.len()).then_with(|| left.keys().cmp(right.keys()));
            if keys.is_ne() { Some(keys) } else { each(&mut left.values().zip(right.values())).unwrap_or(Some(keys)) }
        }
        _ => None,
    }
}
