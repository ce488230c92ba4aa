//! Tokens of an expression. The longest one counts, as in the grammar of RocketMQ.

/// A token; text stands as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
    /// Digits without a mark of its size.
    Whole(&'a str),
    Fraction(&'a str),
    /// What stands between the quotes, quotes within still doubled.
    Text(&'a str),
    Name(&'a str),
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Open,
    Comma,
    Close,
    Plus,
    Minus,
    End,
}

const WORDS: [(&str, Token<'static>); 12] = [
    ("NOT", Token::Not),
    ("AND", Token::And),
    ("OR", Token::Or),
    ("BETWEEN", Token::Between),
    ("IN", Token::In),
    ("TRUE", Token::True),
    ("FALSE", Token::False),
    ("NULL", Token::Null),
    ("IS", Token::Is),
    ("CONTAINS", Token::Contains),
    ("STARTSWITH", Token::StartsWith),
    ("ENDSWITH", Token::EndsWith),
];

const SIGNS: [(&str, Token<'static>); 11] = [
    ("<>", Token::NotEqual),
    (">=", Token::GreaterEqual),
    ("<=", Token::LessEqual),
    ("=", Token::Equal),
    (">", Token::Greater),
    ("<", Token::Less),
    ("(", Token::Open),
    (",", Token::Comma),
    (")", Token::Close),
    ("+", Token::Plus),
    ("-", Token::Minus),
];

/// Reads tokens one after the other.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The byte at which the next token is looked for.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The next token; `None` when none can begin here.
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        let rest = &self.text[self.at..];
        let Some(first) = rest.bytes().next() else { return Some(Token::End) };
        let (len, token) = match first {
            b'\'' => {
                let len = quoted(rest)?;
                (len, Token::Text(&rest[1..len - 1]))
            }
            b'0'..=b'9' | b'.' => number(rest)?,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => {
                let len = run(rest, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'));
                let word = &rest[..len];
                let known = WORDS.iter().find(|(of, _)| of.eq_ignore_ascii_case(word));
                (len, known.map_or(Token::Name(word), |(_, token)| *token))
            }
            _ => {
                let (sign, token) = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign))?;
                (sign.len(), *token)
            }
        };
        self.at += len;
        Some(token)
    }

    /// Passes over white space and comments. A comment without an end is none.
    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let len = if let Some(comment) = rest.strip_prefix("--") {
                comment.find(['\n', '\r']).map_or(0, |end| end + 3)
            } else if let Some(comment) = rest.strip_prefix("/*") {
                comment.find("*/").map_or(0, |end| end + 4)
            } else {
                run(rest, |b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0c))
            };
            if len == 0 {
                return;
            }
            self.at += len;
        }
    }
}

/// Bytes at the front that are all `of` a kind.
fn run(text: &str, of: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|b| !of(b)).unwrap_or(text.len())
}

/// The length of a string that begins here, quotes included: up to the last quote that is not one of a pair.
fn quoted(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut end = None;
    let mut at = 1;
    while let Some(step) = bytes.get(at..)?.iter().position(|b| *b == b'\'') {
        at += step + 1;
        end = Some(at);
        if bytes.get(at) != Some(&b'\'') {
            break;
        }
        at += 1;
    }
    end
}

fn number(text: &str) -> Option<(usize, Token<'_>)> {
    let digits = |from: usize| run(&text[from..], |b| b.is_ascii_digit());
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let exponent = |from: usize| {
        if !matches!(byte(from), Some(b'e' | b'E')) {
            return 0;
        }
        let sign = usize::from(matches!(byte(from + 1), Some(b'+' | b'-')));
        match digits(from + 1 + sign) {
            0 => 0,
            len => 1 + sign + len,
        }
    };
    let whole = digits(0);
    if byte(whole) == Some(b'.') {
        let fraction = digits(whole + 1);
        if whole + fraction == 0 {
            return None;
        }
        let len = whole + 1 + fraction;
        let len = len + exponent(len);
        return Some((len, Token::Fraction(&text[..len])));
    }
    let power = exponent(whole);
    if power > 0 {
        return Some((whole + power, Token::Fraction(&text[..whole + power])));
    }
    // No other whole number begins with a zero.
    if byte(0) == Some(b'0') {
        return Some((1, Token::Whole(&text[..1])));
    }
    let mark = usize::from(matches!(byte(whole), Some(b'l' | b'L')));
    Some((whole + mark, Token::Whole(&text[..whole])))
}
