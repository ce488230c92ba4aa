//! Java's `String.hashCode` and what the store derives from it: the tags code of a queue entry and the key hash
//! of an index entry.
//!
//! The hash runs over UTF-16 code units and wraps at 32 bits: `h = 31 * h + unit`. Text is nearly always ASCII,
//! where units are bytes; that path takes eight bytes a step. Callers: dispatch and recovery for every record,
//! queries, tag filters.

use std::hash::Hasher;

use crate::types::TagsCode;

/// A running `String.hashCode`: feeding it pieces gives the hash of the joined text.
///
/// ```
/// use reput::format::hash::{JavaHash, java_string_hash};
/// assert_eq!(JavaHash::new().text("orders").text("#").text("k1").value(), java_string_hash("orders#k1"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JavaHash(i32);

impl JavaHash {
    /// The hash of no text.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// The hash with `text` appended.
    #[inline]
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        ascii(self.0, text.as_bytes()).map_or_else(|| Self(units(self.0, text)), Self)
    }

    /// The hash with text appended that may be no UTF-8; `None` then.
    #[inline]
    #[must_use]
    pub fn bytes(self, text: &[u8]) -> Option<Self> {
        match ascii(self.0, text) {
            Some(hash) => Some(Self(hash)),
            None => std::str::from_utf8(text).ok().map(|text| Self(units(self.0, text))),
        }
    }

    /// The hash so far.
    #[must_use]
    pub const fn value(self) -> i32 {
        self.0
    }
}

/// 31 to the power of the index, wrapped.
const POWERS: [u32; 9] = {
    let (mut powers, mut n) = ([1u32; 9], 1);
    while n < 9 {
        powers[n] = powers[n - 1].wrapping_mul(31);
        n += 1;
    }
    powers
};

/// The hash of ASCII text; `None` when a byte is none.
#[inline]
fn ascii(hash: i32, text: &[u8]) -> Option<i32> {
    let (eights, rest) = text.as_chunks::<8>();
    let (mut hash, mut all) = (hash.cast_unsigned(), 0);
    for eight in eights {
        let word = u64::from_be_bytes(*eight);
        all |= word;
        hash = hash.wrapping_mul(POWERS[8]).wrapping_add(polynomial(word));
    }
    if !rest.is_empty() {
        let word = short_word(text, rest);
        all |= word;
        hash = hash.wrapping_mul(POWERS[rest.len() & 7]).wrapping_add(polynomial(word));
    }
    (all & 0x8080_8080_8080_8080 == 0).then_some(hash.cast_signed())
}

/// The up to seven bytes at the end of `text` as a number, the last one lowest.
#[inline]
fn short_word(text: &[u8], rest: &[u8]) -> u64 {
    if let Some(last) = text.last_chunk::<8>() {
        return u64::from_be_bytes(*last) & (u64::MAX >> (64 - 8 * rest.len()));
    }
    match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let first = u64::from(u32::from_be_bytes(*first)) << (8 * (rest.len() - 4));
            first | u64::from(u32::from_be_bytes(*last))
        }
        _ => rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// The hash of the eight bytes of `word`, each below 128, the highest first; zeros in front do not count.
#[inline]
fn polynomial(word: u64) -> u32 {
    const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    const PAIRS: u64 = 0x0000_ffff_0000_ffff;
    // Neighbours are joined in place: bytes to pairs below 2^12, pairs to fours below 2^22, and those at last.
    let pairs = (word >> 8 & BYTES) * 31 + (word & BYTES);
    let fours = (pairs >> 16 & PAIRS) * 961 + (pairs & PAIRS);
    let [a, b, c, d, e, f, g, h] = fours.to_be_bytes();
    let (high, low) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    high.wrapping_mul(POWERS[4]).wrapping_add(low)
}

fn units(hash: i32, text: &str) -> i32 {
    text.encode_utf16().fold(hash, |h, unit| h.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// `String.hashCode` of `text`.
///
/// ```
/// assert_eq!(reput::format::hash::java_string_hash("TagA"), 2_598_919);
/// ```
#[must_use]
pub fn java_string_hash(text: &str) -> i32 {
    JavaHash::new().text(text).value()
}

/// What a queue entry keeps of the TAGS property: its hash, sign-extended; 0 without tags. The text counts as a
/// whole, also when it names several tags.
#[must_use]
pub fn tags_code(tags: Option<&str>) -> TagsCode {
    TagsCode(tags.map_or(0, |tags| i64::from(java_string_hash(tags))))
}

/// The index type that marks a tag: entries of `topic#T#tags`.
pub const TAG_INDEX_TYPE: &str = "T";

/// The beginnings of every index key of one topic, hashed once: `topic#` and `topic#T#`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexKeys {
    plain: JavaHash,
    tagged: JavaHash,
}

impl IndexKeys {
    /// The keys of `topic`.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        let plain = JavaHash::new().text(topic).text("#");
        Self { plain, tagged: plain.text(TAG_INDEX_TYPE).text("#") }
    }

    /// The hash of `topic#key`; 0 for a key that is no UTF-8.
    #[inline]
    #[must_use]
    pub fn key(self, key: impl AsRef<[u8]>) -> i32 {
        self.plain.bytes(key.as_ref()).map_or(0, fold)
    }

    /// The hash of `topic#T#tags`; 0 for tags that are no UTF-8.
    #[inline]
    #[must_use]
    pub fn tags(self, tags: impl AsRef<[u8]>) -> i32 {
        self.tagged.bytes(tags.as_ref()).map_or(0, fold)
    }

    /// The hash of `topic#index_type#key`.
    #[must_use]
    pub fn typed(self, index_type: &str, key: &str) -> i32 {
        fold(self.plain.text(index_type).text("#").text(key))
    }
}

/// A short hash for topic names, which only an administrator chooses.
#[derive(Debug, Default)]
pub(crate) struct NameHasher(u64);

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        const MULTIPLIER: u64 = 0x517c_c1b7_2722_0a95;
        let mut step = |word: u64| self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            step(u64::from_be_bytes(*word));
        }
        if !rest.is_empty() {
            step(short_word(bytes, rest));
        }
    }

    #[inline]
    fn write_u8(&mut self, _end: u8) {
        // Text is one field here: nothing has to be told apart by its end.
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The table looks at the upper bits as well as at the lower.
        self.0 ^ self.0 >> 32
    }
}

/// An index entry keeps the absolute value; the one hash that has none becomes 0.
#[inline]
fn fold(hash: JavaHash) -> i32 {
    hash.value().checked_abs().unwrap_or(0)
}

/// The hash that the index keeps for `key` of `topic`, never negative.
#[must_use]
pub fn index_key_hash(topic: &str, index_type: Option<&str>, key: &str) -> i32 {
    let keys = IndexKeys::of(topic);
    index_type.map_or_else(|| keys.key(key), |index_type| keys.typed(index_type, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_javas() {
        for (text, hash) in [
            ("", 0),
            ("a", 97),
            ("TagA", 2_598_919),
            ("polygenelubricants", i32::MIN),
            ("f5a5a608", 0),
            ("\u{fc}", 0xfc),
            ("\u{1f600}", 0xd83d * 31 + 0xde00),
        ] {
            assert_eq!(java_string_hash(text), hash, "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_have_no_hash() {
        for bytes in [&b"\xff"[..], b"abcdefgh\x80", b"\xc3", b"abcdefghijk\xe2\x82"] {
            assert_eq!(JavaHash::new().bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_key_whose_hash_has_no_absolute_value_gets_zero() {
        assert_eq!(fold(JavaHash::new().text("polygenelubricants")), 0);
        assert_eq!(fold(JavaHash(-7)), 7);
    }

    proptest! {
        #[test]
        fn hashing_in_pieces_and_in_steps_of_eight_changes_nothing(a in any::<String>(), b in "[ -~]{0,40}") {
            let slow = |text: &str| text.encode_utf16().fold(0i32, |h, u| h.wrapping_mul(31).wrapping_add(i32::from(u)));
            prop_assert_eq!(java_string_hash(&a), slow(&a));
            prop_assert_eq!(java_string_hash(&b), slow(&b));
            for text in [&a, &b] {
                prop_assert_eq!(JavaHash::new().bytes(text.as_bytes()), Some(JavaHash(slow(text))));
            }
            let joined = format!("{a}#{b}");
            prop_assert_eq!(index_key_hash(&a, None, &b), slow(&joined).checked_abs().unwrap_or(0));
            let typed = format!("{a}#T#{b}");
            prop_assert_eq!(IndexKeys::of(&a).tags(&b), slow(&typed).checked_abs().unwrap_or(0));
        }
    }
}
