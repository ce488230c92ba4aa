//! JSON as RocketMQ's name server reads and writes it: maps whose keys are numbers may come without quotes, and
//! older clients expect them so.

use serde::de::DeserializeOwned;

/// How keys that are numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberKeys {
    /// `{0:"…"}`, what clients before 4.9.4 and other languages' expect.
    Bare,
    /// `{"0":"…"}`, JSON as everyone else knows it.
    Quoted,
}

impl NumberKeys {
    /// The key `number`, with its colon.
    pub(super) fn key(self, number: i64) -> String {
        match self {
            Self::Bare => format!("{number}:"),
            Self::Quoted => format!("\"{number}\":"),
        }
    }
}

/// A JSON string.
pub(super) fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// Puts members, each `key:value`, into an object.
pub(super) fn object(members: impl IntoIterator<Item = String>) -> String {
    format!("{{{}}}", members.into_iter().collect::<Vec<_>>().join(","))
}

/// Puts values into an array.
pub(super) fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// Reads JSON whose number keys may lack quotes.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_slice(&quote_number_keys(bytes)))
        .map_err(|e| format!("the body does not read: {e}"))
}

/// Puts quotes around every number that stands where a key belongs. One pass; grows by two bytes a key.
fn quote_number_keys(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    let mut rest = bytes;
    let mut key_may_follow = false;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'"' {
            let len = string_len(rest);
            out.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
            key_may_follow = false;
            continue;
        }
        let digits = rest.iter().position(|b| !matches!(b, b'0'..=b'9' | b'-')).unwrap_or(rest.len());
        if digits > 0 {
            let is_key = key_may_follow
                && rest[digits - 1].is_ascii_digit()
                && rest[digits..].trim_ascii_start().first() == Some(&b':');
            out.extend(is_key.then_some(b'"'));
            out.extend_from_slice(&rest[..digits]);
            out.extend(is_key.then_some(b'"'));
            rest = &rest[digits..];
            key_may_follow = false;
            continue;
        }
        if !byte.is_ascii_whitespace() {
            key_may_follow = matches!(byte, b'{' | b',');
        }
        out.push(byte);
        rest = after;
    }
    out
}

/// Bytes of the string that `bytes` starts with, its quotes included.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn number_keys_without_quotes_are_read() {
        let value: Value = read(br#"{"a":{0:"x", -1 : [1,2],"t":"{0:\"y\\"},"n":[3,4]}"#).unwrap();
        assert_eq!(value, json!({"a": {"0": "x", "-1": [1, 2], "t": "{0:\"y\\"}, "n": [3, 4]}));
    }

    #[test]
    fn broken_json_is_an_error_and_not_a_panic() {
        for bytes in
            [&b""[..], b"{", b"{0", b"{0:", b"\"", b"\"\\", b"{\"a\\", b"[1,2", b"{-:1}", b"\xff{0:1}"]
        {
            assert!(read::<Value>(bytes).is_err(), "{bytes:?}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(read::<Value>(deep.as_bytes()).is_err());
    }
}
