//! One request or response: what the header says, and a body of byte pieces.
//!
//! A [`Command`] knows nothing of frames or sockets; [`super::frame`] turns it into bytes and back. Field names and
//! values of one command lie in a single string, so that decoding a header of fifteen fields allocates twice.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicI32, Ordering},
};

use bytes::{Bytes, BytesMut};

/// The protocol version that is announced: RocketMQ 5.5.0.
pub const VERSION: i32 = 513;

const FLAG_RESPONSE: i32 = 1;
const FLAG_ONEWAY: i32 = 1 << 1;

/// The language of the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Language {
    #[default]
    Java,
    Cpp,
    Dotnet,
    Python,
    Delphi,
    Erlang,
    Ruby,
    Other,
    Http,
    Go,
    Php,
    Oms,
    Rust,
    NodeJs,
}

impl Language {
    /// Every language, in the order of its number.
    pub const ALL: [Self; 14] = [
        Self::Java,
        Self::Cpp,
        Self::Dotnet,
        Self::Python,
        Self::Delphi,
        Self::Erlang,
        Self::Ruby,
        Self::Other,
        Self::Http,
        Self::Go,
        Self::Php,
        Self::Oms,
        Self::Rust,
        Self::NodeJs,
    ];

    /// The name in JSON headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Java => "JAVA",
            Self::Cpp => "CPP",
            Self::Dotnet => "DOTNET",
            Self::Python => "PYTHON",
            Self::Delphi => "DELPHI",
            Self::Erlang => "ERLANG",
            Self::Ruby => "RUBY",
            Self::Other => "OTHER",
            Self::Http => "HTTP",
            Self::Go => "GO",
            Self::Php => "PHP",
            Self::Oms => "OMS",
            Self::Rust => "RUST",
            Self::NodeJs => "NODE_JS",
        }
    }

    /// The number in binary headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The language of a JSON header; one that is not known is [`Self::Other`].
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|language| language.name() == name).unwrap_or(Self::Other)
    }

    /// The language of a binary header; one that is not known is [`Self::Other`].
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Other)
    }
}

/// How a header is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON, what every client sends by default and every answer uses.
    #[default]
    Json,
    /// RocketMQ's binary header. Its code has 16 bits only.
    RocketMq,
}

/// Why a field of a request cannot be used. Its text is fit for the remark of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The field is not there.
    #[error("the request has no field {name}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The field does not read as what it must be.
    #[error("the field {name} cannot be {value:?}")]
    Invalid {
        /// Its name.
        name: String,
        /// What it holds, shortened.
        value: String,
    },
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    middle: usize,
    end: usize,
}

/// The named values of a command, in the order in which they came.
#[derive(Clone, Default)]
pub struct Fields {
    text: String,
    spans: Vec<Span>,
}

impl Fields {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self { text: String::new(), spans: Vec::new() }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// The value of `name`, which must be there.
    ///
    /// # Errors
    /// [`FieldError::Missing`].
    pub fn text(&self, name: &str) -> Result<&str, FieldError> {
        self.get(name).ok_or_else(|| FieldError::Missing { name: name.to_owned() })
    }

    /// The value of `name`, which must be there and read as a `T`.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<T, FieldError> {
        read(name, self.text(name)?)
    }

    /// The value of `name`, if it is there; then it must read as a `T`.
    ///
    /// # Errors
    /// [`FieldError::Invalid`].
    pub fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, FieldError> {
        self.get(name).map(|value| read(name, value)).transpose()
    }

    /// The value of `name`, or `default` when it is not there.
    ///
    /// # Errors
    /// [`FieldError::Invalid`].
    pub fn parse_or<T: FromStr>(&self, name: &str, default: T) -> Result<T, FieldError> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// Sets `name`, in its old place when it was there already.
    pub fn set(&mut self, name: &str, value: impl fmt::Display) {
        let at = self.position(name);
        let span = self.append(name, value);
        match at {
            Some(at) => self.spans[at] = span,
            None => self.spans.push(span),
        }
    }

    /// Makes room for the usual number of fields, with `text` bytes in all.
    pub(super) fn reserve(&mut self, text: usize) {
        self.text.reserve(text);
        self.spans.reserve(16);
    }

    /// Where the next field's text would start. A decoder appends name and value to [`Self::tail`] and then calls
    /// [`Self::finish`].
    pub(super) const fn mark(&self) -> usize {
        self.text.len()
    }

    /// The text that a decoder appends to.
    pub(super) const fn tail(&mut self) -> &mut String {
        &mut self.text
    }

    /// Ends the field whose name starts at `start` and whose value starts at `middle`; without `keep` it is dropped.
    /// Of a name that comes twice the last value counts.
    pub(super) fn finish(&mut self, start: usize, middle: usize, keep: bool) {
        if !keep {
            self.text.truncate(start);
            return;
        }
        let span = Span { start, middle, end: self.text.len() };
        let at = self.position(&self.text[start..middle]);
        match at {
            Some(at) => self.spans[at] = span,
            None => self.spans.push(span),
        }
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            self.spans.remove(at);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.iter().position(|(have, _)| have == name)
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|s| (&self.text[s.start..s.middle], &self.text[s.middle..s.end]))
    }

    fn append(&mut self, name: &str, value: impl fmt::Display) -> Span {
        use fmt::Write;
        let start = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        // Writing to a String fails only when the value's own Display does; then what it wrote is its text.
        let _ = write!(self.text, "{value}");
        Span { start, middle, end: self.text.len() }
    }
}

fn read<T: FromStr>(name: &str, value: &str) -> Result<T, FieldError> {
    value
        .parse()
        .map_err(|_| FieldError::Invalid { name: name.to_owned(), value: value.chars().take(100).collect() })
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Fields {
    /// Equal when both hold the same names and values, in any order.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl Eq for Fields {}

/// The bytes after a header, in pieces that are sent without being copied together.
#[derive(Clone, Default)]
pub struct Body {
    // Nearly every body is one piece, which then takes no allocation of its own.
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { first: Bytes::new(), rest: Vec::new() }
    }

    /// Adds a piece behind the others.
    pub fn push(&mut self, piece: Bytes) {
        if self.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.push(piece);
        }
    }

    /// Bytes in all pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.rest.iter().all(Bytes::is_empty)
    }

    /// The pieces in order; none is empty unless the body is.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The pieces in order, taken out.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.first).chain(self.rest)
    }

    /// All bytes in one piece: the piece itself when there is only one (every received body), else a copy.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut all = BytesMut::with_capacity(self.len());
        self.pieces().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Body {}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { first: bytes, rest: Vec::new() }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl FromIterator<Bytes> for Body {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut body = Self::empty();
        pieces.into_iter().for_each(|piece| body.push(piece));
        body
    }
}

/// One request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is asked ([`super::codes::request`]) or how it went ([`super::codes::response`]).
    pub code: i32,
    /// Bit 0: a response. Bit 1: nobody waits for a response.
    pub flag: i32,
    /// The number that a response repeats from its request.
    pub opaque: i32,
    /// The language of the sender.
    pub language: Language,
    /// The version of the sender.
    pub version: i32,
    /// Text for people, mostly why something failed.
    pub remark: Option<String>,
    /// The named values.
    pub fields: Fields,
    /// The bytes behind the header.
    pub body: Body,
    /// How the header is written, or was.
    pub encoding: Encoding,
}

impl Command {
    /// A request with a number of its own.
    #[must_use]
    pub fn request(code: i32) -> Self {
        static OPAQUE: AtomicI32 = AtomicI32::new(0);
        Self::new(code, 0, OPAQUE.fetch_add(1, Ordering::Relaxed))
    }

    /// A request that is not answered.
    #[must_use]
    pub fn oneway(code: i32) -> Self {
        let mut command = Self::request(code);
        command.flag |= FLAG_ONEWAY;
        command
    }

    /// A response to the request numbered `opaque`. [`Self::reply`] takes the number from the request.
    #[must_use]
    pub const fn response(code: i32, opaque: i32) -> Self {
        Self::new(code, FLAG_RESPONSE, opaque)
    }

    /// The response to this request. It is JSON whatever the request was, as a RocketMQ broker answers.
    #[must_use]
    pub const fn reply(&self, code: i32) -> Self {
        Self::response(code, self.opaque)
    }

    const fn new(code: i32, flag: i32, opaque: i32) -> Self {
        Self {
            code,
            flag,
            opaque,
            language: Language::Java,
            version: VERSION,
            remark: None,
            fields: Fields::new(),
            body: Body::empty(),
            encoding: Encoding::Json,
        }
    }

    /// Whether this answers a request.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender waits for no answer.
    #[must_use]
    pub const fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// With this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// With this field.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.fields.set(name, value);
        self
    }

    /// With this field when there is a value.
    #[must_use]
    pub fn with_optional_field(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with_field(name, value),
            None => self,
        }
    }

    /// With this remark.
    #[must_use]
    pub fn with_remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_set_in_place_read_typed_and_removed() {
        let mut fields = Fields::new();
        fields.set("a", 1);
        fields.set("b", true);
        fields.set("a", "x");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("a", "x"), ("b", "true")]);
        assert_eq!(fields.parse::<bool>("b"), Ok(true));
        assert_eq!(fields.parse_or("c", 7), Ok(7));
        assert_eq!(fields.parse::<i32>("c"), Err(FieldError::Missing { name: "c".into() }));
        assert_eq!(fields.optional::<i32>("a").unwrap_err().to_string(), "the field a cannot be \"x\"");
        fields.remove("a");
        assert_eq!((fields.len(), fields.get("a")), (1, None));
    }

    #[test]
    fn a_body_of_many_pieces_reads_as_one() {
        let body: Body = ["", "ab", "", "c"].map(|s| Bytes::from_static(s.as_bytes())).into_iter().collect();
        assert_eq!((body.len(), body.pieces().count()), (3, 2));
        assert_eq!(body, Body::from(b"abc".to_vec()));
        assert!(Body::empty().is_empty() && !body.is_empty());
    }

    #[test]
    fn a_reply_repeats_the_number_of_its_request() {
        let request = Command::oneway(10);
        assert!(request.is_oneway() && !request.is_response());
        let reply = request.reply(3);
        assert!(reply.is_response() && !reply.is_oneway());
        assert_eq!(reply.opaque, request.opaque);
    }
}
