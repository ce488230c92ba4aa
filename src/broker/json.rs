//! JSON as RocketMQ's fastjson writes and reads it.
//!
//! Pure. Owns the value type [`Json`], its lenient reader (keys that are numbers or objects need no quotes; nesting is
//! bounded) and its two layouts: one line for the wire, tabs for files. Called by every table of the broker that
//! outlives a restart and by every handler with a JSON body.

use std::fmt::Write as _;

/// Nesting that the reader follows; RocketMQ's own files and bodies need 6.
const MAX_DEPTH: usize = 64;

/// A JSON value. Maps keep their order, and their keys may be any value, as fastjson's may.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    /// Numbers that stand on one line in files too, as fastjson writes a Java array; read, they are a list.
    Row(Vec<i32>),
    Map(Vec<(Json, Json)>),
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Json {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<f64> for Json {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Json {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl Json {
    /// A map with text keys, in the order given.
    pub(crate) fn map<K: Into<Json>>(pairs: impl IntoIterator<Item = (K, Json)>) -> Self {
        Self::Map(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// The value of a text key of a map.
    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Self::Map(pairs) => {
                pairs.iter().find(|(key, _)| matches!(key, Json::Text(text) if text == name)).map(|(_, v)| v)
            }
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number, also when it is quoted.
    pub(crate) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The entries of a list; none for everything else.
    pub(crate) fn items(&self) -> &[Json] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The pairs of a map; none for everything else.
    pub(crate) fn pairs(&self) -> &[(Json, Json)] {
        match self {
            Self::Map(pairs) => pairs,
            _ => &[],
        }
    }

    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Self::text)
    }

    pub(crate) fn int_of(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(Self::int)
    }

    /// A 32-bit number; `None` also when it is out of range.
    pub(crate) fn i32_of(&self, name: &str) -> Option<i32> {
        self.int_of(name).and_then(|value| i32::try_from(value).ok())
    }

    pub(crate) fn bool_of(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(Self::bool)
    }

    /// Reads one value; what follows it must be blank.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text =
            std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 after byte {}", e.valid_up_to()))?;
        let mut reader = Reader { bytes: text.as_bytes(), text, at: 0 };
        let value = reader.value(0)?;
        reader.blanks();
        if reader.at == reader.bytes.len() { Ok(value) } else { Err(reader.wrong("the end")) }
    }

    /// On one line, as it goes over the wire.
    pub(crate) fn compact(&self) -> String {
        let mut out = String::new();
        write_value(self, &mut out, None);
        out
    }

    /// With tabs, as RocketMQ's files look; no newline at the end.
    pub(crate) fn pretty(&self) -> String {
        let mut out = String::new();
        write_value(self, &mut out, Some(0));
        out
    }
}

fn write_value(value: &Json, out: &mut String, indent: Option<usize>) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Int(number) => push(out, format_args!("{number}")),
        // Java writes 0.0, never 0, and JSON has no NaN.
        Json::Float(number) if number.is_finite() => push(out, format_args!("{number:?}")),
        Json::Float(_) => out.push_str("0.0"),
        Json::Text(text) => write_text(text, out),
        Json::List(items) => write_group(out, indent, ['[', ']'], items, |item, out, inner| {
            write_value(item, out, inner);
        }),
        Json::Row(numbers) => write_group(out, None, ['[', ']'], numbers, |number, out, _| {
            push(out, format_args!("{number}"));
        }),
        Json::Map(pairs) => write_group(out, indent, ['{', '}'], pairs, |(key, value), out, inner| {
            // A key that is an object is written on one line even in files.
            write_value(key, out, None);
            out.push(':');
            write_value(value, out, inner);
        }),
    }
}

fn write_group<T>(
    out: &mut String,
    indent: Option<usize>,
    [open, close]: [char; 2],
    items: &[T],
    mut one: impl FnMut(&T, &mut String, Option<usize>),
) {
    out.push(open);
    let inner = indent.map(|depth| depth + 1);
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        new_line(out, inner);
        one(item, out, inner);
    }
    if !items.is_empty() {
        new_line(out, indent);
    }
    out.push(close);
}

fn new_line(out: &mut String, indent: Option<usize>) {
    if let Some(depth) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', depth));
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => push(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push(out: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = out.write_fmt(args);
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self, wanted: &str) -> String {
        match self.bytes.get(self.at) {
            Some(byte) => format!("{wanted} expected at byte {}, found {:?}", self.at, char::from(*byte)),
            None => format!("{wanted} expected, the text ends at byte {}", self.at),
        }
    }

    fn blanks(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// The next byte that is not blank.
    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} at byte {}", self.at));
        }
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(quote @ (b'"' | b'\'')) => self.quoted(quote).map(Json::Text),
            Some(_) => self.word(),
            None => Err(self.wrong("a value")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            if self.eat(b']') {
                return Ok(Json::List(items));
            }
            items.push(self.value(depth + 1)?);
            if !self.eat(b',') && self.peek() != Some(b']') {
                return Err(self.wrong("',' or ']'"));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut pairs = Vec::new();
        loop {
            if self.eat(b'}') {
                return Ok(Json::Map(pairs));
            }
            let key = self.value(depth + 1)?;
            if !self.eat(b':') {
                return Err(self.wrong("':'"));
            }
            pairs.push((key, self.value(depth + 1)?));
            if !self.eat(b',') && self.peek() != Some(b'}') {
                return Err(self.wrong("',' or '}'"));
            }
        }
    }

    /// A number, `true`, `false`, `null`, or a bare word as fastjson accepts for keys.
    fn word(&mut self) -> Result<Json, String> {
        let start = self.at;
        let ends =
            |b: u8| b.is_ascii_whitespace() || matches!(b, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"');
        while self.bytes.get(self.at).is_some_and(|b| !ends(*b)) {
            self.at += 1;
        }
        let word = &self.text[start..self.at];
        match word {
            "" => Err(self.wrong("a value")),
            "null" => Ok(Json::Null),
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ if word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => word
                .parse()
                .map(Json::Int)
                .or_else(|_| word.parse().map(Json::Float))
                .map_err(|_| format!("{word:?} at byte {start} is not a number")),
            _ if word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '.' | '%')) => {
                Ok(Json::Text(word.into()))
            }
            _ => Err(format!("{word:?} at byte {start} is not a value")),
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        let mut plain = self.at;
        loop {
            match self.bytes.get(self.at) {
                None => return Err(self.wrong("the end of a text")),
                Some(&byte) if byte == quote => {
                    out.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    out.push_str(&self.text[plain..self.at]);
                    self.escape(&mut out)?;
                    plain = self.at;
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), String> {
        self.at += 1;
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.wrong("an escape"))?;
        self.at += 1;
        match byte {
            b'n' => out.push('\n'),
            b't' => out.push('\t'),
            b'r' => out.push('\r'),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'"' | b'\\' | b'/' | b'\'' => out.push(char::from(byte)),
            b'u' => {
                let high = self.hex4()?;
                let paired = (0xd800..0xdc00).contains(&high) && self.bytes[self.at..].starts_with(b"\\u");
                let code = if paired {
                    self.at += 2;
                    let low = self.hex4()?;
                    0x1_0000 + ((high - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff)
                } else {
                    high
                };
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => {
                self.at -= 1;
                return Err(self.wrong("an escape"));
            }
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| self.wrong("four hex digits"))?;
        let code = u32::from_str_radix(digits, 16).map_err(|_| self.wrong("four hex digits"))?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_as_java_writes_it_comes_back_to_the_byte() {
        let text = "{\n\t\"dataVersion\":{\n\t\t\"counter\":1\n\t},\n\t\"empty\":{},\n\t\"list\":[\n\t\t\"a\"\n\t],\n\t\"offsetTable\":{\n\t\t2:1,\n\t\t18:0\n\t}\n}";
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.pretty(), text);
        assert_eq!(json.get("offsetTable").unwrap().pairs()[1], (Json::Int(18), Json::Int(0)));
        assert_eq!(
            json.compact(),
            r#"{"dataVersion":{"counter":1},"empty":{},"list":["a"],"offsetTable":{2:1,18:0}}"#
        );
    }

    #[test]
    fn an_object_can_be_a_key() {
        let text = r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"T"}:7},"consumeTps":0.0}"#;
        let json = Json::parse(text.as_bytes()).unwrap();
        let (key, value) = &json.get("offsetTable").unwrap().pairs()[0];
        assert_eq!((key.text_of("topic"), value.int()), (Some("T"), Some(7)));
        assert_eq!(json.compact(), text);
    }

    #[test]
    fn strict_json_quoted_numbers_and_escapes_are_read() {
        let json = Json::parse(
            br#" {"a":"12","b":true,"c":null,"d":-1.5e3,"e":"x\u0001\ud83d\ude00\n","f":[1,2,]} "#,
        )
        .unwrap();
        assert_eq!((json.int_of("a"), json.bool_of("b")), (Some(12), Some(true)));
        assert_eq!((json.get("c"), json.get("d")), (Some(&Json::Null), Some(&Json::Float(-1500.0))));
        assert_eq!(json.text_of("e"), Some("x\u{1}\u{1f600}\n"));
        assert_eq!(json.get("f").unwrap().items().len(), 2);
        assert_eq!(Json::parse(json.compact().as_bytes()).unwrap(), json);
    }

    #[test]
    fn torn_or_hostile_text_is_an_error_and_not_a_crash() {
        let whole = br#"{"a":{"b":[1,"x\u00e9"]},0:1}"#;
        for end in 0..whole.len() {
            assert!(Json::parse(&whole[..end]).is_err(), "{end}");
        }
        assert!(Json::parse(whole).is_ok());
        for bad in [
            &b"{\"a\":1} x"[..],
            b"[1 2]",
            b"{\"a\" 1}",
            b"\"\\q\"",
            b"-",
            b"12ab",
            b"\xff",
            b"\"\\ud800\\u\"",
        ] {
            assert!(Json::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
