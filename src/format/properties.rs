//! The properties of a message as the log holds them: `name 0x01 value 0x02`, repeated. FORMAT.md, "Properties".
//!
//! Reading follows Java's: text is cut at 0x02 (the last one may be missing), a piece at its first 0x01, pieces
//! without a name or without a value do not count, and of two values for a name the later one counts.
//! Callers: dispatch for every record, filters, the broker.

use crate::error::Error;

/// Stands between a name and its value.
pub const NAME_END: u8 = 1;
/// Stands behind a pair.
pub const PAIR_END: u8 = 2;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

names! {
    /// Keys to find the message by, separated by spaces.
    KEYS = "KEYS";
    /// What consumers filter by.
    TAGS = "TAGS";
    /// The id that the client made; indexed like a key.
    UNIQ_KEY = "UNIQ_KEY";
    /// The delay level, from 1.
    DELAY = "DELAY";
    /// `false` when the producer does not wait for the disk.
    WAIT = "WAIT";
    /// The topic that a delayed or half message is for.
    REAL_TOPIC = "REAL_TOPIC";
    /// The queue that a delayed or half message is for.
    REAL_QID = "REAL_QID";
    /// The topic that a message came from before it was retried.
    RETRY_TOPIC = "RETRY_TOPIC";
    /// The id that a message had before it was retried.
    ORIGIN_MESSAGE_ID = "ORIGIN_MESSAGE_ID";
    /// The broker's cluster; the store gives it no meaning.
    CLUSTER = "CLUSTER";
    /// How many messages an inner batch holds.
    INNER_NUM = "INNER_NUM";
    /// The queue offset of the first message of an inner batch.
    INNER_BASE = "INNER_BASE";
    /// The `%LMQ%` queues that also get the message, separated by commas.
    INNER_MULTI_DISPATCH = "INNER_MULTI_DISPATCH";
    /// The offsets of the message in those queues, separated by commas; written by the store.
    INNER_MULTI_QUEUE_OFFSET = "INNER_MULTI_QUEUE_OFFSET";
    /// The checksum of the whole record; always the last property, written by the store.
    CRC32 = "__CRC32#";
    /// The broker's region.
    MSG_REGION = "MSG_REGION";
    /// Whether the message is traced.
    TRACE_ON = "TRACE_ON";
    /// `true` for a half message.
    TRAN_MSG = "TRAN_MSG";
    /// The producer group.
    PGROUP = "PGROUP";
    /// How often the message was retried.
    RECONSUME_TIME = "RECONSUME_TIME";
    /// How often the message may be retried.
    MAX_RECONSUME_TIMES = "MAX_RECONSUME_TIMES";
    /// The consumer group's retry topic and offset bookkeeping of the client.
    MIN_OFFSET = "MIN_OFFSET";
    /// The greatest queue offset when the message was pulled.
    MAX_OFFSET = "MAX_OFFSET";
    /// When a timed message is due, in milliseconds since 1970.
    TIMER_DELIVER_MS = "TIMER_DELIVER_MS";
    /// The delay of a timed message in seconds.
    TIMER_DELAY_SEC = "TIMER_DELAY_SEC";
    /// The delay of a timed message in milliseconds.
    TIMER_DELAY_MS = "TIMER_DELAY_MS";
    /// When a timed message is due, rounded, as the broker keeps it.
    TIMER_OUT_MS = "TIMER_OUT_MS";
    /// When a timed message came into the wheel, in milliseconds since 1970; the greatest number when it never did.
    TIMER_ENQUEUE_MS = "TIMER_ENQUEUE_MS";
    /// When a timed message left the wheel.
    TIMER_DEQUEUE_MS = "TIMER_DEQUEUE_MS";
    /// How often a timed message went round because it was due too far away.
    TIMER_ROLL_TIMES = "TIMER_ROLL_TIMES";
    /// The timed message that this one takes back: its topic, a plus sign and its unique key.
    TIMER_DEL_UNIQKEY = "TIMER_DEL_UNIQKEY";
    /// Seconds after which a half message is checked the first time.
    CHECK_IMMUNITY_TIME_IN_SECONDS = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    /// The queue offset of the half message that a check is about.
    TRAN_PREPARED_QUEUE_OFFSET = "TRAN_PREPARED_QUEUE_OFFSET";
    /// How often a half message was checked.
    TRANSACTION_CHECK_TIMES = "TRANSACTION_CHECK_TIMES";
    /// The transaction's id.
    TRANSACTION_ID = "__transactionId__";
    /// The topic that a dead message came from.
    DLQ_ORIGIN_TOPIC = "DLQ_ORIGIN_TOPIC";
    /// The id that a dead message had.
    DLQ_ORIGIN_MESSAGE_ID = "DLQ_ORIGIN_MESSAGE_ID";
    /// The group that messages of one order go by.
    SHARDING_KEY = "__SHARDINGKEY";
    /// The correlation of a request and its reply.
    CORRELATION_ID = "CORRELATION_ID";
    /// When the message was born, for consumers that cannot see the record.
    BORN_TIMESTAMP = "BORN_TIMESTAMP";
    /// Left by a store with duplication enabled.
    DUP_INFO = "DUP_INFO";
}

/// Properties as they stand in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// Properties that stand in `raw`, which may be any bytes.
    #[must_use]
    pub const fn new(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// The bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether zero bytes stand in the text: no writer puts them there, so a part of the record never reached the
    /// disk. A missing last separator proves nothing, for releases 4.9.1 to 5.1.4 left it out.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.0.contains(&0)
    }

    /// The pairs in their order, as bytes; a name may come twice.
    #[must_use]
    pub const fn iter(&self) -> Iter<'a> {
        Iter { raw: self.0, at: 0 }
    }

    /// The value of `name`; `None` also when it is not UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let [value] = self.pick([name]);
        value
    }

    /// The values of several names in one pass.
    ///
    /// ```
    /// use reput::format::properties::{KEYS, Properties, TAGS, UNIQ_KEY};
    /// let properties = Properties::new(b"KEYS\x01a b\x02TAGS\x01eu\x02");
    /// assert_eq!(properties.pick([TAGS, UNIQ_KEY, KEYS]), [Some("eu"), None, Some("a b")]);
    /// ```
    #[inline]
    #[must_use]
    pub fn pick<const N: usize>(&self, names: [&str; N]) -> [Option<&'a str>; N] {
        let mut found: [Option<&'a [u8]>; N] = [None; N];
        for (name, value) in self.iter() {
            for (slot, wanted) in found.iter_mut().zip(names) {
                if name == wanted.as_bytes() {
                    *slot = Some(value);
                }
            }
        }
        found.map(|value| value.and_then(|value| std::str::from_utf8(value).ok()))
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The pairs of [`Properties`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.raw.len() {
            let start = self.at;
            let first = separator(self.raw, start);
            let end = match self.raw.get(first) {
                Some(&NAME_END) => pair_end(self.raw, first + 1),
                _ => first,
            };
            self.at = end + 1;
            // A name and a value of at least one byte each; without a separator `first` is `end`.
            if first > start
                && first + 1 < end
                && let (Some(name), Some(value)) = (self.raw.get(start..first), self.raw.get(first + 1..end))
            {
                return Some((name, value));
            }
        }
        None
    }
}

const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Marks each byte below 3 of `word` by its high bit; behind the first such byte the marks mean nothing.
#[inline]
const fn small_bytes(word: u64) -> u64 {
    // Adding 0x7d to the low seven bits carries into the eighth exactly for bytes from 3 on. Sums never carry into the
    // neighbour.
    !((word & LOW).wrapping_add(0x7d7d_7d7d_7d7d_7d7d) | word) & HIGH
}

/// The place of the first separator of either kind at or behind `at`, or the length.
#[inline]
fn separator(raw: &[u8], mut at: usize) -> usize {
    loop {
        // Eight bytes a step.
        let small = match raw.get(at..).and_then(<[u8]>::first_chunk) {
            Some(eight) => small_bytes(u64::from_be_bytes(*eight)),
            None => return last_separator(raw, at),
        };
        if small == 0 {
            at += 8;
            continue;
        }
        at += (small.leading_zeros() / 8) as usize;
        match raw.get(at) {
            Some(0) => at += 1,
            _ => return at,
        }
    }
}

/// [`separator`] with less than eight bytes left.
#[inline]
fn last_separator(raw: &[u8], at: usize) -> usize {
    match raw.last_chunk() {
        Some(last) if at < raw.len() => {
            // The bytes before `at` are shifted out; zeros come in, which look like a byte that ends the search.
            let word = u64::from_be_bytes(*last) << (8 * (at + 8 - raw.len()));
            let found = at + (small_bytes(word).leading_zeros() / 8) as usize;
            match raw.get(found) {
                Some(0) => one_by_one(raw, found),
                Some(_) => found,
                None => raw.len(),
            }
        }
        _ => one_by_one(raw, at),
    }
}

/// The place of the first pair end at or behind `at`, or the length.
#[inline]
fn pair_end(raw: &[u8], mut at: usize) -> usize {
    loop {
        at = separator(raw, at);
        match raw.get(at) {
            Some(&NAME_END) => at += 1,
            _ => return at,
        }
    }
}

fn one_by_one(raw: &[u8], at: usize) -> usize {
    let is_end = |byte: &u8| *byte == NAME_END || *byte == PAIR_END;
    raw.get(at..).and_then(|rest| rest.iter().position(is_end)).map_or(raw.len(), |found| at + found)
}

/// Whether properties that somebody means would pass for ones of which a power cut has kept a part from the disk:
/// recovery knows those by their zeros.
#[inline]
pub(crate) fn look_torn(raw: &[u8]) -> bool {
    const SECTOR: usize = 512;
    raw.first() == Some(&0)
        || raw.last() == Some(&0)
        || (raw.len() > SECTOR && raw.split(|byte| *byte != 0).any(|zeros| zeros.len() >= SECTOR))
}

/// Properties being put together. What comes out is what a record holds, without the checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// No properties.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Starts from encoded properties, adding the separator that may be missing at their end.
    #[must_use]
    pub fn from_raw(raw: &[u8]) -> Self {
        let mut bytes = raw.to_vec();
        if bytes.last().is_some_and(|&last| last != PAIR_END) {
            bytes.push(PAIR_END);
        }
        Self(bytes)
    }

    /// Adds a pair behind the others. If the name is there already, the new value is the one that counts.
    ///
    /// # Errors
    /// [`Error::IllegalMessage`] when name or value is empty or holds a separator: it would not read back.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let illegal = |why: &str| Err(Error::IllegalMessage { why: format!("property {name:?} {why}") });
        if name.is_empty() || value.is_empty() {
            return illegal("needs a name and a value");
        }
        if [name, value].iter().any(|text| separator(text.as_bytes(), 0) < text.len()) {
            return illegal("holds a separator, byte 1 or 2");
        }
        self.0.reserve(name.len() + value.len() + 2);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(NAME_END);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(PAIR_END);
        Ok(())
    }

    /// Puts a pair in the place of all pairs of that name.
    ///
    /// # Errors
    /// As [`PropertiesBuf::push`]; nothing has changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let mut pair = Self::new();
        pair.push(name, value)?;
        self.remove(name);
        self.0.append(&mut pair.0);
        Ok(())
    }

    /// Takes every pair of that name away. Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.get().iter().any(|(n, _)| n == name.as_bytes()) {
            return false;
        }
        let mut kept = Vec::with_capacity(self.0.len());
        for (n, value) in Properties(&self.0).iter().filter(|(n, _)| *n != name.as_bytes()) {
            kept.extend_from_slice(n);
            kept.push(NAME_END);
            kept.extend_from_slice(value);
            kept.push(PAIR_END);
        }
        self.0 = kept;
        true
    }

    /// The pairs so far.
    #[must_use]
    pub fn get(&self) -> Properties<'_> {
        Properties(&self.0)
    }

    /// What the record holds.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the record holds, owned.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Forgets all pairs and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reading rule written plainly, to hold the fast scan against.
    fn plainly(raw: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        raw.split(|&b| b == 2)
            .filter_map(|piece| {
                let at = piece.iter().position(|&b| b == 1)?;
                let (name, value) = (&piece[..at], &piece[at + 1..]);
                (!name.is_empty() && !value.is_empty()).then(|| (name.to_vec(), value.to_vec()))
            })
            .collect()
    }

    #[test]
    fn pieces_without_name_or_value_do_not_count() {
        let raw = b"a\x01b\x02\x01x\x02y\x01\x02z\x02\x02k\x01v\x01w\x02last\x01one";
        let pairs: Vec<_> = Properties::new(raw).iter().collect();
        assert_eq!(pairs, [(&b"a"[..], &b"b"[..]), (b"k", b"v\x01w"), (b"last", b"one")]);
    }

    #[test]
    fn text_with_bytes_never_written_is_torn() {
        assert!(Properties::new(b"KEYS\x01k\x02TA\0\0\0\0").is_torn());
        for whole in [&b""[..], b"KEYS\x01k", b"KEYS\x01k\x02"] {
            assert!(!Properties::new(whole).is_torn());
        }
    }

    #[test]
    fn of_two_values_the_later_counts() {
        assert_eq!(Properties::new(b"K\x011\x02K\x012\x02").get("K"), Some("2"));
    }

    #[test]
    fn a_separator_cannot_be_smuggled_into_a_name_or_value() {
        let mut buf = PropertiesBuf::new();
        buf.push("a", "1").unwrap();
        for (name, value) in [("x\u{1}", "y"), ("x", "y\u{2}TAGS\u{1}z"), ("", "v"), ("n", "")] {
            assert!(buf.push(name, value).is_err());
            assert!(buf.set(name, value).is_err());
        }
        assert_eq!(buf.as_bytes(), b"a\x011\x02");
    }

    #[test]
    fn set_replaces_and_remove_takes_all() {
        let mut buf = PropertiesBuf::from_raw(b"a\x011\x02b\x012\x02a\x013");
        buf.set("a", "4").unwrap();
        assert_eq!(buf.as_bytes(), b"b\x012\x02a\x014\x02");
        assert!(buf.remove("b") && !buf.remove("b"));
        assert_eq!(buf.into_bytes(), b"a\x014\x02");
    }

    proptest! {
        #[test]
        fn the_scan_agrees_with_the_plain_rule(raw in prop::collection::vec(prop_oneof![4 => Just(1u8), 4 => Just(2u8), 1 => Just(0u8), 12 => 3u8..=255, 2 => Just(128u8)], 0..120)) {
            let fast: Vec<_> = Properties::new(&raw).iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(fast, plainly(&raw));
        }

        #[test]
        fn long_values_scan_alike(raw in prop::collection::vec(prop_oneof![1 => 0u8..3, 40 => any::<u8>()], 0..400)) {
            let fast: Vec<_> = Properties::new(&raw).iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(fast, plainly(&raw));
        }

        #[test]
        fn what_is_pushed_comes_back(pairs in prop::collection::vec(("[^\u{1}\u{2}]{1,20}", "[^\u{1}\u{2}]{1,60}"), 0..8)) {
            let mut buf = PropertiesBuf::new();
            for (name, value) in &pairs {
                buf.push(name, value).unwrap();
            }
            let back: Vec<_> = buf.get().iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            let want: Vec<_> = pairs.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes())).collect();
            prop_assert_eq!(back, want);
        }
    }
}
