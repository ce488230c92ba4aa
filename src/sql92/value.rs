//! Values, and how Java's classes of them compare.

use std::cmp::Ordering;

use super::{number, program::EvaluateError};

/// What an operand comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Missing or unknown.
    Null,
    Bool(bool),
    /// A whole number of Java's `int`.
    Int(i32),
    /// A whole number beyond that.
    Long(i64),
    Double(f64),
    Text(&'a str),
}

impl<'a> Value<'a> {
    pub(super) const fn truth(truth: Option<bool>) -> Self {
        match truth {
            Some(truth) => Self::Bool(truth),
            None => Self::Null,
        }
    }

    pub(super) const fn as_truth(self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// The number with its sign turned; anything else is unknown.
    pub(super) const fn negated(self) -> Self {
        match self {
            Self::Int(number) => Self::Int(number.wrapping_neg()),
            Self::Long(number) => Self::Long(number.wrapping_neg()),
            Self::Double(number) => Self::Double(-number),
            _ => Self::Null,
        }
    }

    /// Whether both are the same; a null on one side only leaves it unknown or false, on both sides makes it true.
    pub(super) fn equals(self, other: Self) -> Result<Option<bool>, EvaluateError> {
        match (self, other) {
            (Self::Null, Self::Null) => Ok(Some(true)),
            (Self::Null, _) => Ok(None),
            (_, Self::Null) => Ok(Some(false)),
            _ => Ok(Some(self.compare(other)? == Ordering::Equal)),
        }
    }

    /// How both are ordered; strings count as numbers. `None` when one is null.
    pub(super) fn order(self, other: Self) -> Result<Option<Ordering>, EvaluateError> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => Ok(None),
            (Self::Text(left), Self::Text(right)) => Ok(Some(doubles(double(left)?, double(right)?))),
            _ => self.compare(other).map(Some),
        }
    }

    /// Compares as RocketMQ does: values of different classes are brought to one, those that cannot be count as less.
    fn compare(self, other: Self) -> Result<Ordering, EvaluateError> {
        #[expect(clippy::cast_precision_loss, reason = "as Java's doubleValue")]
        Ok(match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(&right),
            (Self::Text(left), Self::Text(right)) => left.cmp(right),
            (Self::Int(left), Self::Int(right)) => left.cmp(&right),
            (Self::Long(left), Self::Long(right)) => left.cmp(&right),
            (Self::Int(left), Self::Long(right)) => i64::from(left).cmp(&right),
            (Self::Long(left), Self::Int(right)) => left.cmp(&i64::from(right)),
            (Self::Double(left), Self::Double(right)) => doubles(left, right),
            (Self::Int(left), Self::Double(right)) => doubles(f64::from(left), right),
            (Self::Double(left), Self::Int(right)) => doubles(left, f64::from(right)),
            (Self::Long(left), Self::Double(right)) => doubles(left as f64, right),
            (Self::Double(left), Self::Long(right)) => doubles(left, right as f64),
            (Self::Int(left), Self::Text(right)) => left.cmp(&int(right)?),
            (Self::Text(left), Self::Int(right)) => int(left)?.cmp(&right),
            (Self::Long(left), Self::Text(right)) => left.cmp(&long(right)?),
            (Self::Text(left), Self::Long(right)) => long(left)?.cmp(&right),
            (Self::Double(left), Self::Text(right)) => doubles(left, double(right)?),
            (Self::Text(left), Self::Double(right)) => doubles(double(left)?, right),
            (Self::Text(left), Self::Bool(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
            (Self::Bool(_), Self::Text(right)) => return Err(EvaluateError::new(right, "a boolean's equal")),
            _ => Ordering::Less,
        })
    }
}

/// Java's order: -0.0 before 0.0, NaN behind everything and equal to itself.
fn doubles(left: f64, right: f64) -> Ordering {
    left.total_cmp(&right)
}

fn int(text: &str) -> Result<i32, EvaluateError> {
    number::int(text).ok_or_else(|| EvaluateError::new(text, "a whole number of 32 bits"))
}

fn long(text: &str) -> Result<i64, EvaluateError> {
    number::long(text).ok_or_else(|| EvaluateError::new(text, "a whole number of 64 bits"))
}

fn double(text: &str) -> Result<f64, EvaluateError> {
    number::double(text).ok_or_else(|| EvaluateError::new(text, "a number"))
}
