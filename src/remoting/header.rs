//! The two ways a header is written: JSON, and RocketMQ's binary one.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{
    command::{Command, Encoding, Fields, Language},
    frame::MAX_FIELDS,
};

/// Reads a JSON header. Unknown keys are passed over; values of `extFields` may be strings, numbers or booleans.
pub(super) fn decode_json(bytes: &[u8]) -> Result<Command, String> {
    let mut command = Command::response(0, 0);
    command.flag = 0;
    command.language = Language::Other;
    command.version = 0;
    // No more than was received: two allocations for all fields.
    command.fields.reserve(bytes.len());
    let mut input = serde_json::Deserializer::from_slice(bytes);
    input
        .deserialize_map(HeaderVisitor { command: &mut command })
        .and_then(|()| input.end())
        .map_err(|e| e.to_string())?;
    Ok(command)
}

struct HeaderVisitor<'a> {
    command: &'a mut Command,
}

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match key {
                Key::Code => self.command.code = map.next_value_seed(IntSeed)?,
                Key::Flag => self.command.flag = map.next_value_seed(IntSeed)?,
                Key::Opaque => self.command.opaque = map.next_value_seed(IntSeed)?,
                Key::Version => self.command.version = map.next_value_seed(IntSeed)?,
                Key::Language => self.command.language = map.next_value_seed(LanguageSeed)?,
                Key::Remark => {
                    let mut remark = String::new();
                    let there = map.next_value_seed(TextSeed(&mut remark))?;
                    self.command.remark = there.then_some(remark);
                }
                Key::Fields => map.next_value_seed(FieldsSeed(&mut self.command.fields))?,
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

enum Key {
    Code,
    Flag,
    Opaque,
    Version,
    Language,
    Remark,
    Fields,
    Unknown,
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Key, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "code" => Key::Code,
            "flag" => Key::Flag,
            "opaque" => Key::Opaque,
            "version" => Key::Version,
            "language" => Key::Language,
            "remark" => Key::Remark,
            "extFields" => Key::Fields,
            _ => Key::Unknown,
        })
    }
}

/// Appends a field's name.
struct NameSeed<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<(), E> {
        self.0.push_str(name);
        Ok(())
    }
}

/// A whole number of 32 bits, also as a string; null is 0.
struct IntSeed;

impl<'de> DeserializeSeed<'de> for IntSeed {
    type Value = i32;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<i32, D::Error> {
        input.deserialize_any(self)
    }
}

impl Visitor<'_> for IntSeed {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of 32 bits")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<i32, E> {
        i32::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<i32, E> {
        i32::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<i32, E> {
        value.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
    }

    fn visit_unit<E: de::Error>(self) -> Result<i32, E> {
        Ok(0)
    }
}

/// A language's name; null and what is no name is [`Language::Other`].
struct LanguageSeed;

impl<'de> DeserializeSeed<'de> for LanguageSeed {
    type Value = Language;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Language, D::Error> {
        input.deserialize_any(self)
    }
}

impl Visitor<'_> for LanguageSeed {
    type Value = Language;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a language")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Language, E> {
        Ok(Language::from_name(name))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Language, E> {
        Ok(u8::try_from(number).map_or(Language::Other, Language::from_number))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Language, E> {
        Ok(Language::Other)
    }
}

/// Appends a string, number or boolean as text; whether there was one (null is none).
struct TextSeed<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for TextSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<bool, D::Error> {
        input.deserialize_any(self)
    }
}

impl TextSeed<'_> {
    fn append(self, value: impl fmt::Display) -> bool {
        use fmt::Write;
        write!(self.0, "{value}").is_ok()
    }
}

impl Visitor<'_> for TextSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<bool, E> {
        self.0.push_str(value);
        Ok(true)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
        Ok(self.append(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<bool, E> {
        Ok(self.append(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<bool, E> {
        Ok(self.append(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<bool, E> {
        Ok(self.append(value))
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// The object of named values, or null. Of a name that comes twice the last value counts.
struct FieldsSeed<'a>(&'a mut Fields);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of named values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut count = 0;
        loop {
            let start = self.0.mark();
            if map.next_key_seed(NameSeed(self.0.tail()))?.is_none() {
                return Ok(());
            }
            count += 1;
            if count > MAX_FIELDS {
                return Err(de::Error::custom(format_args!("more than {MAX_FIELDS} fields")));
            }
            let middle = self.0.mark();
            let there = map.next_value_seed(TextSeed(self.0.tail()))?;
            self.0.finish(start, middle, there);
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Writes a JSON header, its keys in Java's order.
pub(super) fn encode_json(command: &Command, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":");
    number(command.code, out);
    if !command.fields.is_empty() {
        out.extend_from_slice(b",\"extFields\":{");
        for (at, (name, value)) in command.fields.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            text(name, out);
            out.push(b':');
            text(value, out);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b",\"flag\":");
    number(command.flag, out);
    out.extend_from_slice(b",\"language\":");
    text(command.language.name(), out);
    out.extend_from_slice(b",\"opaque\":");
    number(command.opaque, out);
    if let Some(remark) = &command.remark {
        out.extend_from_slice(b",\"remark\":");
        text(remark, out);
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    number(command.version, out);
    out.push(b'}');
}

fn number(value: i32, out: &mut Vec<u8>) {
    use std::io::Write;
    // A Vec takes every write.
    let _ = write!(out, "{value}");
}

/// A JSON string; control characters, quote and backslash are escaped.
fn text(value: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = value.as_bytes();
    while let Some(at) = first_escaped(rest) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Where the first byte stands that a JSON string escapes. Looks at many at once: the answer to a batch has a
/// kilobyte of ids.
fn first_escaped(text: &[u8]) -> Option<usize> {
    const AT_ONCE: usize = 32;
    let escaped = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let plain = text
        .chunks_exact(AT_ONCE)
        .take_while(|chunk| !chunk.iter().fold(false, |any, byte| any | escaped(byte)))
        .count()
        * AT_ONCE;
    text[plain..].iter().position(escaped).map(|at| plain + at)
}

/// Reads RocketMQ's binary header: `i16 code | u8 language | i16 version | i32 opaque | i32 flag | i32 length, remark
/// | i32 length, fields`, and each field `i16 length, name | i32 length, value`.
pub(super) fn decode_binary(bytes: &[u8]) -> Result<Command, String> {
    let mut input = Input(bytes);
    let mut command = Command::response(i32::from(input.i16()?), 0);
    command.encoding = Encoding::RocketMq;
    command.language = Language::from_number(input.take(1)?[0]);
    command.version = i32::from(input.i16()?);
    command.opaque = input.i32()?;
    command.flag = input.i32()?;
    let remark_len = input.length()?;
    if remark_len > 0 {
        command.remark = Some(utf8(input.take(remark_len)?)?.to_owned());
    }
    let fields_len = input.length()?;
    let mut fields = Input(input.take(fields_len)?);
    command.fields.reserve(fields_len);
    let mut count = 0;
    while !fields.0.is_empty() {
        count += 1;
        if count > MAX_FIELDS {
            return Err(format!("more than {MAX_FIELDS} fields"));
        }
        let start = command.fields.mark();
        let name_len = usize::try_from(fields.i16()?).map_err(|_| "a negative length".to_owned())?;
        command.fields.tail().push_str(utf8(fields.take(name_len)?)?);
        let middle = command.fields.mark();
        let value_len = fields.length()?;
        command.fields.tail().push_str(utf8(fields.take(value_len)?)?);
        command.fields.finish(start, middle, true);
    }
    Ok(command)
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|e| e.to_string())
}

/// The bytes that are left of a binary header. Lengths are checked against them before anything is made of them.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or_else(|| format!("{len} bytes of {}", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) =
            self.0.split_first_chunk().ok_or_else(|| format!("{N} bytes of {}", self.0.len()))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i16(&mut self) -> Result<i16, String> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_be_bytes)
    }

    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.i32()?).map_err(|_| "a negative length".to_owned())
    }
}

/// Writes RocketMQ's binary header.
pub(super) fn encode_binary(command: &Command, out: &mut Vec<u8>) -> Result<(), String> {
    let code =
        i16::try_from(command.code).map_err(|_| format!("code {} takes more than 16 bits", command.code))?;
    let version = i16::try_from(command.version).map_err(|_| format!("version {}", command.version))?;
    out.extend_from_slice(&code.to_be_bytes());
    out.push(command.language.number());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&command.opaque.to_be_bytes());
    out.extend_from_slice(&command.flag.to_be_bytes());
    let remark = command.remark.as_deref().unwrap_or_default();
    put_length(remark.len(), out)?;
    out.extend_from_slice(remark.as_bytes());
    let fields_at = out.len();
    put_length(0, out)?;
    for (name, value) in command.fields.iter() {
        let name_len = i16::try_from(name.len()).map_err(|_| format!("a name of {} bytes", name.len()))?;
        out.extend_from_slice(&name_len.to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        put_length(value.len(), out)?;
        out.extend_from_slice(value.as_bytes());
    }
    let fields_len = i32::try_from(out.len() - fields_at - 4).map_err(|e| e.to_string())?;
    out[fields_at..fields_at + 4].copy_from_slice(&fields_len.to_be_bytes());
    Ok(())
}

fn put_length(len: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let len = i32::try_from(len).map_err(|e| e.to_string())?;
    out.extend_from_slice(&len.to_be_bytes());
    Ok(())
}
