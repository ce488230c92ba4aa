//! From tokens to a program, with a stack of operators in place of recursion.
//!
//! Operators wait on a stack until what stands to their right is complete. Every operand on the other stack knows what
//! kind of expression it is, so that combinations which RocketMQ refuses are refused here.

use super::{
    lexer::{Lexer, Token},
    program::{Order, Part, Step},
};

/// Bytes of an expression.
pub const MAX_LENGTH: usize = 65_536;
/// Operators and open parentheses that may wait at a time.
pub const MAX_DEPTH: usize = 1_024;

/// An expression that cannot be understood, with the place where this showed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid SQL92 expression at byte {at}: {why}")]
pub struct ParseError {
    /// The byte of the text before which reading ended.
    pub at: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// What is known of a complete operand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A comparison or a combination of such.
    Truth,
    TrueOrFalse,
    Null,
    Whole(i64),
    Fraction(f64),
    Text,
    Property,
    Negated,
}

#[derive(Clone, Copy, Debug)]
struct Operand {
    kind: Kind,
    /// The first of its steps; they reach to the program's end or to the next operand.
    start: usize,
}

/// An operator whose right side is not complete. `jump` is the step that leads past it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Waiting {
    Open,
    Not,
    Negate,
    Plus,
    Order {
        order: Order,
        jump: usize,
    },
    /// `BETWEEN`, before its `AND`.
    Low {
        not: bool,
        jump: usize,
    },
    /// `BETWEEN`, behind its `AND`.
    High {
        not: bool,
        jump: usize,
        low: usize,
    },
    Equal {
        not: bool,
    },
    And {
        jump: usize,
    },
    Or {
        jump: usize,
    },
}

impl Waiting {
    /// How tightly it binds to its right.
    const fn strength(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Or { .. } => 1,
            Self::And { .. } => 2,
            Self::Equal { .. } => 3,
            _ => 4,
        }
    }
}

/// Reads one expression.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The next token, when it has been looked at.
    peeked: Option<Token<'a>>,
    steps: Vec<Step>,
    operands: Vec<Operand>,
    waiting: Vec<Waiting>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, ParseError> {
        if text.len() > MAX_LENGTH {
            return Err(ParseError { at: MAX_LENGTH, why: "it is longer than 65536 bytes" });
        }
        Ok(Self {
            lexer: Lexer::new(text),
            peeked: None,
            steps: Vec::new(),
            operands: Vec::new(),
            waiting: Vec::new(),
        })
    }

    pub(super) fn parse(mut self) -> Result<Vec<Step>, ParseError> {
        loop {
            self.operand()?;
            if self.operators()? {
                return Ok(self.steps);
            }
        }
    }

    /// Reads what may stand where an operand is due, up to its first word or number.
    fn operand(&mut self) -> Result<(), ParseError> {
        loop {
            let start = self.steps.len();
            let (kind, step) = match self.take()? {
                Token::Open => {
                    self.wait(Waiting::Open)?;
                    continue;
                }
                Token::Not => {
                    self.wait(Waiting::Not)?;
                    continue;
                }
                Token::Minus => {
                    self.wait(Waiting::Negate)?;
                    continue;
                }
                Token::Plus => {
                    self.wait(Waiting::Plus)?;
                    continue;
                }
                Token::Name(name) => (Kind::Property, Step::Property(name.into())),
                Token::Text(text) => (Kind::Text, Step::Text(plain(text))),
                Token::True => (Kind::TrueOrFalse, Step::Bool(true)),
                Token::False => (Kind::TrueOrFalse, Step::Bool(false)),
                Token::Null => (Kind::Null, Step::Null),
                Token::Whole(digits) => {
                    let number: i64 =
                        digits.parse().map_err(|_| self.error("the number is above 9223372036854775807"))?;
                    (Kind::Whole(number), i32::try_from(number).map_or(Step::Long(number), Step::Int))
                }
                Token::Fraction(digits) => {
                    let number: f64 = digits.parse().map_err(|_| self.error("this is no number"))?;
                    if number == 0.0 || number.is_infinite() {
                        return Err(self.error("the number is not between 4.9e-324 and 1.8e308"));
                    }
                    (Kind::Fraction(number), Step::Double(number))
                }
                _ => return Err(self.error("a name, a value or a parenthesis is missing before this")),
            };
            self.steps.push(step);
            self.operands.push(Operand { kind, start });
            return Ok(());
        }
    }

    /// Reads what may follow an operand. Whether the expression is complete; else another operand is due.
    fn operators(&mut self) -> Result<bool, ParseError> {
        loop {
            self.reduce(4)?;
            let token = self.peek()?;
            if let Some(Waiting::Low { not, jump }) = self.waiting.last().copied() {
                if token != Token::And {
                    return Err(self.error("BETWEEN needs an AND after its first bound"));
                }
                self.take()?;
                self.waiting.pop();
                self.check_ordered()?;
                let low = self.push(Step::Low { not, end: 0 });
                self.wait(Waiting::High { not, jump, low })?;
                return Ok(false);
            }
            match token {
                Token::Close => {
                    self.reduce(1)?;
                    if self.waiting.pop().is_none() {
                        return self.finish();
                    }
                    self.take()?;
                }
                Token::Or => {
                    self.reduce(1)?;
                    self.combine(true)?;
                    return Ok(false);
                }
                Token::And => {
                    self.reduce(2)?;
                    self.combine(false)?;
                    return Ok(false);
                }
                Token::Equal | Token::NotEqual => {
                    self.reduce(3)?;
                    self.take()?;
                    self.wait(Waiting::Equal { not: token == Token::NotEqual })?;
                    return Ok(false);
                }
                Token::Is => {
                    self.reduce(3)?;
                    self.is_null()?;
                }
                _ => match self.comparison(token)? {
                    Compared::Complete => {}
                    Compared::Needs => return Ok(false),
                    Compared::Other => return self.finish(),
                },
            }
        }
    }

    /// What comes now is no part of the expression.
    fn finish(&mut self) -> Result<bool, ParseError> {
        self.reduce(1)?;
        if !self.waiting.is_empty() {
            return Err(self.error("a closing parenthesis or an operator is missing before this"));
        }
        self.be_truth()?;
        Ok(true)
    }

    /// The operators that compare one operand with something.
    fn comparison(&mut self, token: Token<'a>) -> Result<Compared, ParseError> {
        let order = match token {
            Token::Greater => Order::Greater,
            Token::GreaterEqual => Order::GreaterEqual,
            Token::Less => Order::Less,
            Token::LessEqual => Order::LessEqual,
            Token::Not | Token::Between | Token::In => return self.worded(),
            Token::Contains | Token::StartsWith | Token::EndsWith => return self.worded(),
            _ => return Ok(Compared::Other),
        };
        self.take()?;
        self.check_ordered()?;
        let jump = self.push(Step::IfNull(0));
        self.wait(Waiting::Order { order, jump })?;
        Ok(Compared::Needs)
    }

    fn worded(&mut self) -> Result<Compared, ParseError> {
        let mut word = self.take()?;
        let not = word == Token::Not;
        if not {
            word = self.take()?;
        }
        let part = match word {
            Token::Between => {
                self.check_ordered()?;
                let jump = self.push(Step::IfNull(0));
                self.wait(Waiting::Low { not, jump })?;
                return Ok(Compared::Needs);
            }
            Token::In => {
                let list = self.list()?;
                if self.kind() != Kind::Property {
                    return Err(self.error("only a property can be IN a list"));
                }
                self.push(Step::In { list, not });
                self.become_kind(Kind::Truth);
                return Ok(Compared::Complete);
            }
            Token::Contains => Part::Within,
            Token::StartsWith => Part::Head,
            Token::EndsWith => Part::Tail,
            _ => return Err(self.error("NOT must stand before IN, BETWEEN, CONTAINS, STARTSWITH, ENDSWITH")),
        };
        let text = self.text()?;
        if text.is_empty() {
            // The operand is not even looked at.
            let start = self.operands.last().map_or(0, |operand| operand.start);
            self.steps.truncate(start);
            self.push(Step::Bool(false));
        } else {
            self.push(Step::Has { part, text, not });
        }
        self.become_kind(Kind::Truth);
        Ok(Compared::Complete)
    }

    fn list(&mut self) -> Result<Box<[Box<str>]>, ParseError> {
        if self.take()? != Token::Open {
            return Err(self.error("IN needs a list: ('a', 'b')"));
        }
        let mut list = Vec::new();
        loop {
            list.push(self.text()?);
            match self.take()? {
                Token::Comma => {}
                Token::Close => return Ok(list.into()),
                _ => return Err(self.error("a comma or a closing parenthesis is missing in the list")),
            }
        }
    }

    fn text(&mut self) -> Result<Box<str>, ParseError> {
        match self.take()? {
            Token::Text(text) => Ok(plain(text)),
            _ => Err(self.error("a string in quotes is needed here")),
        }
    }

    fn is_null(&mut self) -> Result<(), ParseError> {
        self.take()?;
        let mut word = self.take()?;
        let not = word == Token::Not;
        if not {
            word = self.take()?;
        }
        if word != Token::Null {
            return Err(self.error("IS needs NULL or NOT NULL"));
        }
        self.push(Step::IsNull);
        if not {
            self.push(Step::Not);
        }
        self.become_kind(Kind::Truth);
        Ok(())
    }

    /// `AND` and `OR`.
    fn combine(&mut self, either: bool) -> Result<(), ParseError> {
        self.take()?;
        self.be_truth()?;
        let jump = self.push(Step::If(either, 0));
        self.wait(if either { Waiting::Or { jump } } else { Waiting::And { jump } })
    }

    /// Completes the operators that bind at least so tightly: their right side is there.
    fn reduce(&mut self, strength: u8) -> Result<(), ParseError> {
        while let Some(last) = self.waiting.last().copied().filter(|last| last.strength() >= strength) {
            if matches!(last, Waiting::Low { .. }) {
                return Ok(());
            }
            self.waiting.pop();
            self.complete(last)?;
        }
        Ok(())
    }

    fn complete(&mut self, operator: Waiting) -> Result<(), ParseError> {
        match operator {
            Waiting::Plus => return Ok(()),
            Waiting::Open | Waiting::Low { .. } => {}
            Waiting::Not => {
                self.be_truth()?;
                self.push(Step::Not);
            }
            Waiting::Negate => {
                self.push(Step::Negate);
                self.become_kind(Kind::Negated);
                return Ok(());
            }
            Waiting::Order { order, jump } => {
                self.check_ordered()?;
                self.operands.pop();
                self.push(Step::Order(order));
                self.land(jump);
            }
            Waiting::High { not, jump, low } => {
                self.check_ordered()?;
                let high = self.operands.pop().map(|operand| operand.kind);
                let least = self.operands.pop().map(|operand| operand.kind);
                if !not && is_above(least, high) {
                    return Err(self.error("the first bound of BETWEEN is above the second"));
                }
                self.push(Step::High { not });
                self.land(jump);
                self.land(low);
            }
            Waiting::Equal { not } => {
                self.complete_equal()?;
                if not {
                    self.push(Step::Not);
                }
            }
            Waiting::And { jump } => {
                self.be_truth()?;
                self.operands.pop();
                self.push(Step::And);
                self.land(jump);
            }
            Waiting::Or { jump } => {
                self.be_truth()?;
                self.operands.pop();
                self.push(Step::Or);
                self.land(jump);
            }
        }
        self.become_kind(Kind::Truth);
        Ok(())
    }

    fn complete_equal(&mut self) -> Result<(), ParseError> {
        let right = self.kind();
        self.operands.pop();
        let left = self.kind();
        if left == Kind::Null || right == Kind::Null {
            return Err(self.error("NULL equals nothing: write IS NULL"));
        }
        if left == Kind::TrueOrFalse && matches!(right, Kind::Whole(_) | Kind::Fraction(_) | Kind::Text) {
            return Err(self.error("TRUE and FALSE cannot be compared with this"));
        }
        self.push(Step::Equal);
        Ok(())
    }

    /// The last operand must be something that can be less or greater.
    fn check_ordered(&self) -> Result<(), ParseError> {
        match self.kind() {
            Kind::Whole(_) | Kind::Fraction(_) | Kind::Property | Kind::Negated => Ok(()),
            _ => Err(self.error("only numbers and properties can be less or greater")),
        }
    }

    /// The last operand must be a truth, or a property, which is made one.
    fn be_truth(&mut self) -> Result<(), ParseError> {
        match self.kind() {
            Kind::Truth | Kind::TrueOrFalse | Kind::Null => Ok(()),
            Kind::Property => {
                self.push(Step::Truth);
                self.become_kind(Kind::Truth);
                Ok(())
            }
            _ => Err(self.error("a condition is needed before this, not a value")),
        }
    }

    fn kind(&self) -> Kind {
        self.operands.last().map_or(Kind::Null, |operand| operand.kind)
    }

    fn become_kind(&mut self, kind: Kind) {
        if let Some(operand) = self.operands.last_mut() {
            operand.kind = kind;
        }
    }

    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// Lets the jump at a step lead here.
    fn land(&mut self, jump: usize) {
        let here = self.steps.len();
        if let Some(Step::IfNull(to) | Step::If(_, to) | Step::Low { end: to, .. }) = self.steps.get_mut(jump)
        {
            *to = here;
        }
    }

    fn wait(&mut self, operator: Waiting) -> Result<(), ParseError> {
        if self.waiting.len() == MAX_DEPTH {
            return Err(self.error("it is nested more than 1024 deep"));
        }
        self.waiting.push(operator);
        Ok(())
    }

    fn peek(&mut self) -> Result<Token<'a>, ParseError> {
        let token = match self.peeked {
            Some(token) => token,
            None => self.lexer.next().ok_or_else(|| self.error("no word, number or sign begins here"))?,
        };
        self.peeked = Some(token);
        Ok(token)
    }

    fn take(&mut self) -> Result<Token<'a>, ParseError> {
        let token = self.peek()?;
        self.peeked = None;
        Ok(token)
    }

    const fn error(&self, why: &'static str) -> ParseError {
        ParseError { at: self.lexer.at(), why }
    }
}

/// What [`Parser::comparison`] found.
enum Compared {
    /// The operand is a truth now.
    Complete,
    /// Another operand is due.
    Needs,
    /// No operator that compares.
    Other,
}

/// Whether both are numbers and the first is the greater one.
fn is_above(low: Option<Kind>, high: Option<Kind>) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "as Java's doubleValue")]
    match (low, high) {
        (Some(Kind::Whole(low)), Some(Kind::Whole(high))) => low > high,
        (Some(Kind::Whole(low)), Some(Kind::Fraction(high))) => low as f64 > high,
        (Some(Kind::Fraction(low)), Some(Kind::Whole(high))) => low > high as f64,
        (Some(Kind::Fraction(low)), Some(Kind::Fraction(high))) => low > high,
        _ => false,
    }
}

/// A string without the doubling of its quotes.
fn plain(text: &str) -> Box<str> {
    text.replace("''", "'").into()
}
