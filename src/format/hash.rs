//! Java's `String.hashCode` and what the store derives from it: the tags code of a queue entry and the key hash
//! of an index entry.
//!
//! The hash runs over UTF-16 code units and wraps at 32 bits: `h = 31 * h + unit`. Text is nearly always ASCII,
//! where units are bytes; that path takes four bytes a step. Callers: dispatch and recovery for every record,
//! queries, tag filters.

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
        if text.is_ascii() { Self(ascii(self.0, text.as_bytes())) } else { Self(units(self.0, text)) }
    }

    /// The hash so far.
    #[must_use]
    pub const fn value(self) -> i32 {
        self.0
    }
}

fn ascii(mut hash: i32, bytes: &[u8]) -> i32 {
    const P2: i32 = 31 * 31;
    const P3: i32 = P2 * 31;
    const P4: i32 = P3 * 31;
    let (fours, rest) = bytes.as_chunks::<4>();
    for four in fours {
        let [a, b, c, d] = four.map(i32::from);
        // At most 127 * (29791 + 961 + 31 + 1): the sum of the four does not wrap, only the product may.
        hash = hash.wrapping_mul(P4).wrapping_add(a * P3 + b * P2 + c * 31 + d);
    }
    for &byte in rest {
        hash = hash.wrapping_mul(31).wrapping_add(i32::from(byte));
    }
    hash
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

/// The beginning of every index key of one topic, hashed once: `topic#`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexKeys(JavaHash);

impl IndexKeys {
    /// The keys of `topic`.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        Self(JavaHash::new().text(topic).text("#"))
    }

    /// The hash of `topic#key`.
    #[must_use]
    pub fn key(self, key: &str) -> i32 {
        fold(self.0.text(key))
    }

    /// The hash of `topic#T#tags`.
    #[must_use]
    pub fn tags(self, tags: &str) -> i32 {
        self.typed(TAG_INDEX_TYPE, tags)
    }

    /// The hash of `topic#index_type#key`.
    #[must_use]
    pub fn typed(self, index_type: &str, key: &str) -> i32 {
        fold(self.0.text(index_type).text("#").text(key))
    }
}

/// An index entry keeps the absolute value; the one hash that has none becomes 0.
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
    fn a_key_whose_hash_has_no_absolute_value_gets_zero() {
        assert_eq!(fold(JavaHash::new().text("polygenelubricants")), 0);
        assert_eq!(fold(JavaHash(-7)), 7);
    }

    proptest! {
        #[test]
        fn hashing_in_pieces_and_in_steps_of_four_changes_nothing(a in any::<String>(), b in "[ -~]{0,40}") {
            let slow = |text: &str| text.encode_utf16().fold(0i32, |h, u| h.wrapping_mul(31).wrapping_add(i32::from(u)));
            prop_assert_eq!(java_string_hash(&a), slow(&a));
            prop_assert_eq!(java_string_hash(&b), slow(&b));
            let joined = format!("{a}#{b}");
            prop_assert_eq!(index_key_hash(&a, None, &b), slow(&joined).checked_abs().unwrap_or(0));
            let typed = format!("{a}#T#{b}");
            prop_assert_eq!(IndexKeys::of(&a).tags(&b), slow(&typed).checked_abs().unwrap_or(0));
        }
    }
}
