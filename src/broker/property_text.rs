//! The properties of a message as one text, read and changed on the way into the store.
//!
//! Pure: text in, text out. The text is `name 0x01 value 0x02` repeated (FORMAT.md, "Properties"). Pairs without
//! a name or a value are left out, as RocketMQ's map of them does. Called by the handlers that put messages.

use crate::format::properties;

const NAME_END: u8 = 1;
const PAIR_END: u8 = 2;

/// Every pair of `text` that RocketMQ would see.
fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    text.split(|byte| *byte == PAIR_END).filter_map(|pair| {
        let middle = pair.iter().position(|byte| *byte == NAME_END)?;
        let (name, value) = (&pair[..middle], &pair[middle + 1..]);
        (!name.is_empty() && !value.is_empty()).then_some((name, value, pair))
    })
}

/// How a message asks for a time of delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TimerAsk<'a> {
    pub(super) delay_sec: Option<&'a str>,
    pub(super) delay_ms: Option<&'a str>,
    pub(super) deliver_ms: Option<&'a str>,
    /// The broker took it in as a timed message before.
    pub(super) done: bool,
    /// It takes another message back.
    pub(super) deletes: bool,
}

impl<'a> TimerAsk<'a> {
    /// Reads the properties of a record.
    pub(super) fn of(properties: &properties::Properties<'a>) -> Self {
        let [delay_sec, delay_ms, deliver_ms, out, deletes] = properties.pick([
            properties::TIMER_DELAY_SEC,
            properties::TIMER_DELAY_MS,
            properties::TIMER_DELIVER_MS,
            properties::TIMER_OUT_MS,
            properties::TIMER_DEL_UNIQKEY,
        ]);
        Self { delay_sec, delay_ms, deliver_ms, done: out.is_some(), deletes: deletes.is_some() }
    }

    /// Takes one property in.
    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        let text = || std::str::from_utf8(value).ok().or(Some(""));
        let is = |known: &str| name == known.as_bytes();
        if is(properties::TIMER_DELAY_SEC) {
            self.delay_sec = text();
        } else if is(properties::TIMER_DELAY_MS) {
            self.delay_ms = text();
        } else if is(properties::TIMER_DELIVER_MS) {
            self.deliver_ms = text();
        } else if is(properties::TIMER_OUT_MS) {
            self.done = true;
        } else if is(properties::TIMER_DEL_UNIQKEY) {
            self.deletes = true;
        }
    }

    /// Whether a time is asked for.
    pub(super) const fn is_there(&self) -> bool {
        !self.done && (self.delay_sec.is_some() || self.delay_ms.is_some() || self.deliver_ms.is_some())
    }

    /// The time asked for, when it is `now`; of several ways of asking RocketMQ's order counts. `None` when it is no
    /// number.
    pub(super) fn due_ms(&self, now: i64) -> Option<i64> {
        let number = |text: &str| text.parse::<i64>().ok();
        match (self.delay_sec, self.delay_ms, self.deliver_ms) {
            (Some(seconds), _, _) => now.checked_add(number(seconds)?.checked_mul(1_000)?),
            (None, Some(ms), _) => now.checked_add(number(ms)?),
            (None, None, at) => number(at?),
        }
    }
}

/// What the broker must know of a message's properties before it stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks<'a> {
    /// The producer's own id of the message.
    pub(super) unique_key: Option<&'a str>,
    /// `DELAY`: the level asked for; 0 when none or not a number.
    pub(super) delay_level: i32,
    /// `WAIT=false`: the producer does not wait for the disk.
    pub(super) no_wait: bool,
    /// The first half of a transaction.
    pub(super) transaction: bool,
    /// The time at which it shall be delivered.
    pub(super) timer: TimerAsk<'a>,
    /// Says that its body is several messages.
    pub(super) inner_batch: bool,
    /// Belongs to a group of messages that keep their order.
    pub(super) sharded: bool,
    /// Names a delay level, whatever its value.
    pub(super) delayed: bool,
    /// The priority, which is the queue that the message goes to; below 0 for none.
    pub(super) priority: i32,
}

impl Default for Marks<'_> {
    fn default() -> Self {
        Self {
            unique_key: None,
            delay_level: 0,
            no_wait: false,
            transaction: false,
            timer: TimerAsk::default(),
            inner_batch: false,
            sharded: false,
            delayed: false,
            priority: -1,
        }
    }
}

/// The properties that ask for delivery at a certain time.
pub(super) const TIMERS: [&str; 3] =
    [properties::TIMER_DELIVER_MS, properties::TIMER_DELAY_SEC, properties::TIMER_DELAY_MS];
/// The property that gives a message its priority.
pub(super) const PRIORITY: &str = "_SYS_MSG_PRIORITY_";
/// A property of the pop consumers, which no producer may set.
pub(super) const POP_CHECK: &str = "POP_CK";

/// The number that a value is.
fn number(value: &[u8]) -> Option<i32> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl<'a> Marks<'a> {
    /// Whether a priority counts: only with messages that are nothing else.
    pub(super) const fn is_prioritized(&self) -> bool {
        self.priority >= 0 && !(self.transaction || self.delayed || self.timer.is_there() || self.sharded)
    }

    /// Reads `text`. Of a name given twice the last counts.
    pub(super) fn of(text: &'a str) -> Self {
        let mut marks = Self::default();
        for (name, value, _) in pairs(text.as_bytes()) {
            let is = |known: &str| name == known.as_bytes();
            let says = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
            if is(properties::UNIQ_KEY) {
                marks.unique_key = std::str::from_utf8(value).ok();
            } else if is(properties::DELAY) {
                marks.delay_level = number(value).unwrap_or(0);
                marks.delayed = true;
            } else if is(PRIORITY) {
                marks.priority = number(value).unwrap_or(-1);
            } else if is(properties::SHARDING_KEY) {
                marks.sharded = true;
            } else if is(properties::WAIT) {
                marks.no_wait = !says("true");
            } else if is(properties::TRAN_MSG) {
                marks.transaction = says("true");
            } else if is(properties::INNER_NUM) {
                marks.inner_batch = true;
            } else {
                marks.timer.note(name, value);
            }
        }
        marks
    }
}

/// `text` without the names in `drop` and in `add`, then the pairs of `add`.
pub(super) fn rewritten(text: &[u8], drop: &[&str], add: &[(&str, &str)]) -> Vec<u8> {
    let added: usize = add.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut out = Vec::with_capacity(text.len() + 1 + added);
    for (name, _, pair) in pairs(text) {
        let dropped =
            drop.iter().any(|d| d.as_bytes() == name) || add.iter().any(|(a, _)| a.as_bytes() == name);
        if !dropped {
            out.extend_from_slice(pair);
            out.push(PAIR_END);
        }
    }
    for (name, value) in add {
        out.extend_from_slice(name.as_bytes());
        out.push(NAME_END);
        out.extend_from_slice(value.as_bytes());
        out.push(PAIR_END);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_from_a_client_s_text() {
        let text = "KEYS\x01k\x02UNIQ_KEY\x01C0A8\x02WAIT\x01false\x02DELAY\x013\x02TAGS\x01A";
        let marks = Marks::of(text);
        assert_eq!((marks.unique_key, marks.delay_level, marks.no_wait), (Some("C0A8"), 3, true));
        assert!(!marks.transaction && !marks.timer.is_there() && !marks.inner_batch);
        assert!(Marks::of("TRAN_MSG\x01TRUE\x02").transaction);
        let timer = Marks::of("a\x01b\x02TIMER_DELAY_SEC\x015\x02TIMER_DELIVER_MS\x011\x02").timer;
        assert!(timer.is_there());
        assert_eq!(timer.due_ms(1_000), Some(6_000), "the delay in seconds counts first");
        assert_eq!(Marks::of("TIMER_DELAY_MS\x01x\x02").timer.due_ms(0), None);
        assert!(
            !Marks::of("TIMER_DELAY_SEC\x015\x02TIMER_OUT_MS\x011\x02").timer.is_there(),
            "taken in before"
        );
        assert_eq!(Marks::of("DELAY\x01x\x02WAIT\x01true\x02").delay_level, 0);
        assert_eq!(Marks::of(""), Marks::default());
        let prioritized = |text: &str| Marks::of(text).is_prioritized();
        assert!(prioritized("_SYS_MSG_PRIORITY_\x012\x02") && !prioritized("_SYS_MSG_PRIORITY_\x01-1\x02"));
        for other in ["DELAY\x010", "__SHARDINGKEY\x01k", "TRAN_MSG\x01true", "TIMER_DELAY_MS\x015"] {
            assert!(!prioritized(&format!("_SYS_MSG_PRIORITY_\x012\x02{other}\x02")), "{other}");
        }
    }

    #[test]
    fn a_rewrite_keeps_what_it_does_not_name_and_drops_what_is_no_pair() {
        let text = b"a\x011\x02DELAY\x013\x02junk\x02\x01v\x02n\x01\x02b\x012";
        let new = rewritten(text, &["DELAY"], &[("CLUSTER", "c"), ("a", "9")]);
        assert_eq!(new, b"b\x012\x02CLUSTER\x01c\x02a\x019\x02");
        assert_eq!(rewritten(b"", &[], &[]), b"");
    }
}
