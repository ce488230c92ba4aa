//! SQL92 filter expressions, as RocketMQ 5.5 understands them: parsed once, then asked of every message's properties.
//!
//! Pure: text in, truth out. [`Expression::parse`] reads tokens (`lexer`), checks them and turns them into a short
//! program for a stack of values (`parser`); [`Expression::evaluate`] runs it (`program`) with Java's rules for
//! comparing and reading values (`value`, `number`). Nothing recurses: neither depth nor length of an expression
//! can use up a thread's stack, and both are bounded.
//!
//! # The language
//! From loose to tight: `OR`; `AND`; `=`, `<>`, `IS [NOT] NULL`; `<`, `<=`, `>`, `>=`, `[NOT] BETWEEN low AND high`,
//! `[NOT] IN ('a', 'b')`, `[NOT] CONTAINS 'part'`, `[NOT] STARTSWITH 'head'`, `[NOT] ENDSWITH 'tail'`; and before an
//! operand `NOT`, `-`, `+`, so that `NOT a = 1` means `(NOT a) = 1`. Operands are property names, `'strings'` with `''`
//! for a quote, whole numbers (`10`, `10L`), numbers with a point or an exponent above 0, `TRUE`, `FALSE`, `NULL` and
//! anything in parentheses. Words may be written in any case. `-- to the line's end` and `/* … */` are comments. There
//! is neither arithmetic nor `LIKE`. What follows a complete expression is not looked at, but for one token.
//!
//! # Its answers
//! True, false, or unknown when a property is missing. Property values are strings; beside a number they are read as
//! a number of its kind, and beside a boolean as a boolean. One that cannot be read so fails the whole expression, even
//! below a `NOT`, unless `AND` or `OR` was decided before. Only true lets a message pass.
//!
//! ```
//! use reput::sql92::Expression;
//! let expression = Expression::parse("amount > 100 AND region IN ('eu', 'us')")?;
//! let of = |name: &str| match name {
//!     "amount" => Some("250"),
//!     "region" => Some("eu"),
//!     _ => None,
//! };
//! assert_eq!(expression.evaluate(of), Ok(Some(true)));
//! assert_eq!(expression.evaluate(|_| None), Ok(None));
//! assert!(Expression::parse("amount > 'much'").is_err());
//! # Ok::<(), reput::sql92::ParseError>(())
//! ```

mod lexer;
mod number;
mod parser;
mod program;
mod value;

pub use parser::{MAX_DEPTH, MAX_LENGTH, ParseError};
pub use program::{EvaluateError, Expression};

#[cfg(test)]
mod tests;
