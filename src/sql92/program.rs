//! An expression that was parsed: a program for a stack of values.

use std::cmp::Ordering;

use super::{
    parser::{ParseError, Parser},
    value::Value,
};

/// A value could not be compared: what the expression asks of it does not fit. The message does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {wanted}")]
pub struct EvaluateError {
    value: String,
    wanted: &'static str,
}

impl EvaluateError {
    /// Characters of the value that are kept.
    const SHOWN: usize = 64;

    pub(super) fn new(value: &str, wanted: &'static str) -> Self {
        Self { value: value.chars().take(Self::SHOWN).collect(), wanted }
    }
}

/// The four ways to order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Order {
    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Greater => order.is_gt(),
            Self::GreaterEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessEqual => order.is_le(),
        }
    }

    fn of(self, left: Value<'_>, right: Value<'_>) -> Result<Option<bool>, EvaluateError> {
        Ok(left.order(right)?.map(|order| self.holds(order)))
    }
}

/// Where a string is looked for in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Within,
    Head,
    Tail,
}

/// One step. "Top" is the last value on the stack; numbers of steps count from the program's start and lead forwards.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
    /// Pushes a property's value.
    Property(Box<str>),
    /// Goes to a step when the top is null and leaves it.
    IfNull(usize),
    /// Goes to a step when the top is this boolean and leaves it.
    If(bool, usize),
    /// Takes two, pushes whether they are the same.
    Equal,
    /// Takes two, pushes whether they are ordered so.
    Order(Order),
    /// Takes a value and its lower bound. What `BETWEEN` says of those goes on top of the value; when it is settled by
    /// that, alone, and on to a step.
    Low {
        not: bool,
        end: usize,
    },
    /// Takes a value, what was said of its lower bound, and the upper bound; pushes what `BETWEEN` says.
    High {
        not: bool,
    },
    /// Takes one and pushes whether it is null.
    IsNull,
    /// Turns a truth.
    Not,
    /// Turns a number's sign.
    Negate,
    /// Makes a truth of a property: a string is none.
    Truth,
    /// Takes one, pushes whether it is a string of the list.
    In {
        list: Box<[Box<str>]>,
        not: bool,
    },
    /// Takes one, pushes whether it is a string with that part.
    Has {
        part: Part,
        text: Box<str>,
        not: bool,
    },
    /// Takes two truths.
    And,
    Or,
}

/// An expression, ready to be asked. See the [module](crate::sql92) for the language.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    text: Box<str>,
    steps: Box<[Step]>,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`ParseError`] when it is none, asks for something that no value could answer (`a > 'x'`, `a = NULL`), or is
    /// longer than [`MAX_LENGTH`](super::MAX_LENGTH) or deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let steps = Parser::new(text)?.parse()?;
        Ok(Self { text: text.into(), steps: steps.into() })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the expression says of a message whose properties `get` looks up; `None` for unknown.
    ///
    /// # Errors
    /// [`EvaluateError`] when a value is not of the kind that it is compared with.
    pub fn evaluate<'a>(
        &'a self,
        get: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Option<bool>, EvaluateError> {
        let mut stack: Vec<Value<'a>> = Vec::with_capacity(8);
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            at = run(step, &mut stack, &get)?.unwrap_or(at + 1);
        }
        Ok(stack.pop().unwrap_or(Value::Null).as_truth())
    }

    /// Whether a message with these properties passes: the answer is true, neither unknown nor an error.
    #[must_use]
    pub fn matches<'a>(&'a self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.evaluate(get) == Ok(Some(true))
    }
}

/// Takes one step; the step to go on with when it is not the next.
fn run<'a>(
    step: &'a Step,
    stack: &mut Vec<Value<'a>>,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<usize>, EvaluateError> {
    // The parser leaves no step without its values.
    let pop = |stack: &mut Vec<Value<'a>>| stack.pop().unwrap_or(Value::Null);
    let value = match step {
        Step::Null => Value::Null,
        Step::Bool(value) => Value::Bool(*value),
        Step::Int(value) => Value::Int(*value),
        Step::Long(value) => Value::Long(*value),
        Step::Double(value) => Value::Double(*value),
        Step::Text(text) => Value::Text(text),
        Step::Property(name) => get(name).map_or(Value::Null, Value::Text),
        Step::IfNull(to) => return Ok((stack.last() == Some(&Value::Null)).then_some(*to)),
        Step::If(truth, to) => return Ok((stack.last() == Some(&Value::Bool(*truth))).then_some(*to)),
        Step::Equal => {
            let (right, left) = (pop(stack), pop(stack));
            Value::truth(left.equals(right)?)
        }
        Step::Order(order) => {
            let (right, left) = (pop(stack), pop(stack));
            Value::truth(order.of(left, right)?)
        }
        Step::Low { not, end } => {
            let (low, value) = (pop(stack), pop(stack));
            let order = if *not { Order::Less } else { Order::GreaterEqual };
            let said = order.of(value, low)?;
            if said == Some(*not) {
                stack.push(Value::Bool(*not));
                return Ok(Some(*end));
            }
            stack.push(value);
            Value::truth(said)
        }
        Step::High { not } => {
            let (high, low, value) = (pop(stack), pop(stack).as_truth(), pop(stack));
            let order = if *not { Order::Greater } else { Order::LessEqual };
            let said = order.of(value, high)?;
            Value::truth(if *not { or(low, said) } else { and(low, said) })
        }
        Step::IsNull => Value::Bool(pop(stack) == Value::Null),
        Step::Not => Value::truth(pop(stack).as_truth().map(|truth| !truth)),
        Step::Negate => pop(stack).negated(),
        Step::Truth => match pop(stack) {
            Value::Null => Value::Null,
            value => Value::Bool(value == Value::Bool(true)),
        },
        Step::In { list, not } => match pop(stack) {
            Value::Text(text) => Value::Bool(list.iter().any(|one| **one == *text) != *not),
            _ => Value::Null,
        },
        Step::Has { part, text: wanted, not } => match pop(stack) {
            Value::Text(text) => Value::Bool(has(*part, text, wanted) != *not),
            _ => Value::Bool(false),
        },
        Step::And => {
            let (right, left) = (pop(stack), pop(stack));
            Value::truth(and(left.as_truth(), right.as_truth()))
        }
        Step::Or => {
            let (right, left) = (pop(stack), pop(stack));
            Value::truth(or(left.as_truth(), right.as_truth()))
        }
    };
    stack.push(value);
    Ok(None)
}

fn has(part: Part, text: &str, wanted: &str) -> bool {
    match part {
        Part::Within => text.contains(wanted),
        Part::Head => text.starts_with(wanted),
        Part::Tail => text.ends_with(wanted),
    }
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    if left == Some(false) || right == Some(false) { Some(false) } else { left.and(right) }
}

fn or(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    if left == Some(true) || right == Some(true) { Some(true) } else { left.and(right) }
}
