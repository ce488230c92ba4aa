//! What POP consumers carry between their requests: the text by which a popped message is named again, and the lists
//! of offsets in an answer.
//!
//! Pure. A message is named by `start popTime invisibleTime reviveQueue retry broker queue offset`, separated by
//! blanks; clients may append more. Lists hold `retry queue value` for each queue, separated by `;`. `retry` tells the
//! kind of topic: 0 an ordinary one, 1 `%RETRY%group_topic`, 2 `%RETRY%group+topic`.

use std::fmt::{self, Write as _};

use crate::{
    broker::{Refusal, names},
    remoting::codes::response,
};

/// The revive queue of messages that are popped in order, which have no check points.
pub(super) const ORDER_QUEUE: i32 = 999;

/// The kind of a topic, as its number.
pub(super) fn kind(topic: &str) -> char {
    match topic.strip_prefix(names::RETRY_PREFIX) {
        Some(rest) if rest.contains('+') => '2',
        Some(_) => '1',
        None => '0',
    }
}

/// The topic that a kind, an ordinary topic and a group stand for.
pub(super) fn topic_of(kind: &str, topic: &str, group: &str) -> Option<String> {
    match kind {
        "0" => Some(topic.to_owned()),
        "1" => Some(names::pop_retry_topic(topic, group)),
        "2" => Some(names::pop_retry_topic_v2(topic, group)),
        _ => None,
    }
}

/// How a popped message is named; what of it the broker needs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtraInfo {
    /// The first offset of its check point.
    pub(super) start: i64,
    pub(super) pop_time: i64,
    pub(super) invisible: i64,
    pub(super) revive_queue: i32,
}

impl ExtraInfo {
    /// Reads what a client sends; `revive_queues` bounds the revive queue.
    pub(super) fn read(text: &str, revive_queues: i32) -> Result<Self, Refusal> {
        let mut words = text.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
        let read = (number(), number(), number(), number());
        // The kind of the topic and the broker.
        let named = words.next().is_some() && words.next().is_some();
        match read {
            (Some(start), Some(pop_time), Some(invisible), Some(queue)) if named && start >= 0 => {
                let queue = i32::try_from(queue)
                    .ok()
                    .filter(|queue| *queue == ORDER_QUEUE || (0..revive_queues).contains(queue));
                let revive_queue =
                    queue.ok_or_else(|| bad(text, "there is no such queue for check points"))?;
                Ok(Self { start, pop_time, invisible, revive_queue })
            }
            _ => Err(bad(text, "needed are: start popTime invisibleTime reviveQueue retry broker")),
        }
    }

    pub(super) const fn is_ordered(&self) -> bool {
        self.revive_queue == ORDER_QUEUE
    }

    /// The text for one message.
    pub(super) fn text(&self, topic: &str, broker: &str, queue: i32, offset: i64) -> String {
        let Self { start, pop_time, invisible, revive_queue } = self;
        format!("{start} {pop_time} {invisible} {revive_queue} {} {broker} {queue} {offset}", kind(topic))
    }
}

fn bad(text: &str, why: &str) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("extraInfo {:?}: {why}", names::shorten(text)))
}

/// A list of one entry for each queue.
#[derive(Debug, Default)]
pub(super) struct List(String);

impl List {
    /// Adds `retry key value`.
    pub(super) fn add(&mut self, topic: &str, key: impl fmt::Display, value: impl fmt::Display) {
        let between = if self.0.is_empty() { "" } else { ";" };
        // Writing into a String cannot fail.
        let _ = write!(self.0, "{between}{} {key} {value}", kind(topic));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

/// Offsets of one queue, separated by commas.
pub(super) struct Offsets<'a>(pub(super) &'a [i64]);

impl fmt::Display for Offsets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, offset) in self.0.iter().enumerate() {
            write!(f, "{}{offset}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_named_as_rocketmq_s_clients_name_it() {
        let info = ExtraInfo { start: 0, pop_time: 1_795_240_432_692, invisible: 60_000, revive_queue: 0 };
        let text = info.text("t", "broker-a", 1, 1);
        assert_eq!(text, "0 1795240432692 60000 0 0 broker-a 1 1");
        assert_eq!(ExtraInfo::read(&text, 8).unwrap(), info);
        // The proxy appends the offset in the log.
        assert_eq!(ExtraInfo::read("0 1795240432692 60000 0 0 broker-a 1 1 3465", 8).unwrap(), info);
        assert!(ExtraInfo::read("0 1 2 999 0 b 1 1", 8).unwrap().is_ordered());
        let kinds = ["t", "%RETRY%g_t", "%RETRY%g+t"].map(kind);
        assert_eq!(kinds, ['0', '1', '2']);
        for (kind, topic) in kinds.iter().zip(["t", "%RETRY%g_t", "%RETRY%g+t"]) {
            assert_eq!(topic_of(&kind.to_string(), "t", "g").as_deref(), Some(topic));
        }
        assert_eq!(topic_of("3", "t", "g"), None);
    }

    #[test]
    fn what_names_no_message_is_refused() {
        for text in [
            "",
            "1",
            "1 2 3 4",
            "1 2 3 4 0",
            "a 2 3 4 0 b 1 1",
            "-1 2 3 4 0 b 1 1",
            "1 2 3 8 0 b 1 1",
            "1 2 3 -1 0 b 1 1",
        ] {
            let refusal = ExtraInfo::read(text, 8).unwrap_err();
            assert_eq!(refusal.code, response::SYSTEM_ERROR, "{text}");
        }
    }

    #[test]
    fn lists_look_as_in_a_recorded_answer() {
        let (mut starts, mut offsets) = (List::default(), List::default());
        for (queue, of) in [(0, &[0_i64, 1][..]), (3, &[0, 1, 2])] {
            starts.add("t", queue, of[0]);
            offsets.add("t", queue, Offsets(of));
        }
        assert_eq!((starts.text(), offsets.text()), ("0 0 0;0 3 0", "0 0 0,1;0 3 0,1,2"));
    }
}
