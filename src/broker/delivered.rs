//! What was delivered before a kill and is not noted as delivered: its copies stand in the log already, so it must not be
//! put once more.
//!
//! The delay service and the timers note from time to time how far they are, and with that a place in the log that all
//! later copies lie behind ([`Copies::since`]). At start the log is read from there on ([`Copies::find`]), and each copy
//! is kept by its content. A waiting message that makes the same copy is passed over, once for each copy found
//! ([`Copies::put_rest`]). Messages whose copies have the same content are the same to every consumer, so it does not
//! matter which of them a copy came from.
//!
//! ```text
//! log   ... | noted | copies that are not noted | end at start | what is put from now on
//!                   ^ since                     ^ until
//! ```
//! Invariants: only messages that stood in the log at start are passed over; the place is not moved on while copies are
//! left that no message has claimed. Bounds: [`MAX_SCAN`] bytes of the log are read, and copies that nothing claims
//! (their messages are gone) are forgotten when the log has grown by [`MAX_KEPT`].

use std::{collections::HashMap, net::SocketAddr};

use parking_lot::Mutex;

use super::{
    Broker, names,
    property_text::rewritten,
    release::{Release, put_all},
};
use crate::{
    error::Result,
    format::{message::Record, properties},
    store::Store,
    types::{PhysicalOffset, QueueId},
};

/// Bytes of the log that are read at most.
const MAX_SCAN: u64 = 4 << 30;
/// How far the log grows before copies are forgotten that nothing has claimed.
const MAX_KEPT: u64 = 1 << 30;
/// How far the log grows before a place is noted again while nothing is delivered.
pub(super) const STEP: u64 = 64 << 20;

/// Properties in which two copies of one message differ: the store adds the first ones, and the timers say when they
/// delivered.
const VARYING: [&str; 5] = [
    properties::CRC32,
    properties::INNER_MULTI_QUEUE_OFFSET,
    properties::WAIT,
    properties::TIMER_ENQUEUE_MS,
    properties::TIMER_DEQUEUE_MS,
];

/// The content of a copy and where it went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    topic: String,
    queue: QueueId,
    properties: Vec<u8>,
    born_timestamp: i64,
    born_host: SocketAddr,
    reconsume_times: i32,
    flag: i32,
    body_size: usize,
    body_crc: u32,
}

impl Content {
    /// The content of `record`, were it a message of this queue with these properties.
    fn new(topic: &str, queue: QueueId, text: &[u8], record: &Record<'_>) -> Self {
        Self {
            topic: topic.to_owned(),
            queue,
            properties: rewritten(text, &VARYING, &[]),
            born_timestamp: record.born_timestamp.get(),
            born_host: record.born_host,
            reconsume_times: record.reconsume_times,
            flag: record.flag,
            body_size: record.body.len(),
            body_crc: record.body_crc,
        }
    }

    fn of_release(store: &Store, release: &Release<'_>) -> Option<Self> {
        let (topic, queue) = store.queue_name(release.queue())?;
        Some(Self::new(&topic, queue, release.properties(), &release.stored().record()))
    }
}

/// Whether a record may be the copy of a message that waited: it stands where such a message wants to go, or goes round
/// the wheel once more.
fn is_copy(record: &Record<'_>) -> bool {
    let property = |name| record.properties.get(name);
    let there = property(properties::REAL_TOPIC) == Some(record.topic)
        && property(properties::REAL_QID).and_then(|id| id.parse().ok()) == Some(record.queue_id.get());
    there || record.topic == names::TIMER_TOPIC && property(properties::TIMER_ROLL_TIMES).is_some()
}

/// Which service made a copy: the timers add when they did behind what the message got when it came to them, and the
/// delay service adds no such thing, though a message may have it from an earlier wait.
fn is_of_timers(record: &Record<'_>) -> bool {
    let marks = [properties::REAL_QID, properties::TIMER_DEQUEUE_MS].map(str::as_bytes);
    let last = record.properties.iter().filter(|(name, _)| marks.contains(name)).last();
    last.is_some_and(|(name, _)| name == marks[1])
}

#[derive(Debug, Default)]
struct Found {
    /// How many copies of a content no message has claimed.
    copies: HashMap<Content, usize>,
    /// Where the log ended at start.
    until: PhysicalOffset,
    /// A place that all copies lie behind which are not noted as delivered; `None` when it is unknown.
    since: Option<PhysicalOffset>,
}

/// The copies of one service.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<Found>);

impl Copies {
    /// Nothing is known but the place that was noted.
    pub(super) fn since(since: Option<PhysicalOffset>) -> Self {
        Self(Mutex::new(Found { since, ..Found::default() }))
    }

    /// The place to note: all copies lie behind it which are not noted as delivered.
    pub(super) fn noted(&self) -> Option<PhysicalOffset> {
        self.0.lock().since
    }

    /// Whether that place may move on: no copies are left that nothing has claimed. `end` is where the log ends now.
    pub(super) fn are_claimed(&self, end: PhysicalOffset) -> bool {
        let mut found = self.0.lock();
        if !found.copies.is_empty() && end.since(found.until) >= MAX_KEPT {
            tracing::warn!(
                copies = found.copies.len(),
                "delivered copies whose messages are gone, forgotten"
            );
            found.copies = HashMap::new();
        }
        found.copies.is_empty()
    }

    /// Moves the place on.
    pub(super) fn note(&self, to: PhysicalOffset) {
        let mut found = self.0.lock();
        found.since = found.since.max(Some(to));
    }

    /// Reads the log from the places that the delay service and the timers have noted, for each not from before the
    /// place where its first message waits.
    pub(super) fn find(store: &Store, each: [(&Self, PhysicalOffset); 2]) {
        let status = store.status();
        let end = status.max_offset;
        let from = each.map(|(copies, first)| {
            let mut found = copies.0.lock();
            found.until = end;
            let least = PhysicalOffset(end.get() - i64::try_from(MAX_SCAN).unwrap_or(i64::MAX));
            found.since.map(|since| since.max(first).max(status.min_offset).max(least))
        });
        let Some(mut at) = from.into_iter().flatten().min() else { return };
        let segment = i64::try_from(store.config().commit_log_file_size).unwrap_or(i64::MAX).max(1);
        let mut count = 0_u64;
        while at < end {
            let Ok(Some(stored)) = store.message_at(at) else {
                // The rest of the segment is blank, or damaged.
                at = PhysicalOffset((at.get() / segment + 1).saturating_mul(segment));
                continue;
            };
            let record = stored.record();
            let of = usize::from(is_of_timers(&record));
            if is_copy(&record) && from[of].is_some_and(|from| at >= from) {
                let content = Content::new(record.topic, record.queue_id, record.properties.raw(), &record);
                *each[of].0.0.lock().copies.entry(content).or_default() += 1;
                count += 1;
            }
            at = at.plus(record.total_size);
        }
        if count > 0 {
            tracing::info!(copies = count, "delivered before, as the log says, and not noted");
        }
    }

    /// Puts what no copy was found of, in order; where the last one ends in the log.
    pub(super) fn put_rest(&self, broker: &Broker, mut releases: Vec<Release<'_>>) -> Result<PhysicalOffset> {
        let claimed = self.claim(&broker.store, &mut releases);
        put_all(broker, &releases).inspect_err(|_| {
            let mut found = self.0.lock();
            claimed.into_iter().for_each(|content| *found.copies.entry(content).or_default() += 1);
        })
    }

    /// Takes out of `releases` what stands in the log already.
    fn claim(&self, store: &Store, releases: &mut Vec<Release<'_>>) -> Vec<Content> {
        let mut found = self.0.lock();
        let mut claimed = Vec::new();
        if found.copies.is_empty() {
            return claimed;
        }
        let until = found.until;
        releases.retain(|release| {
            if release.stored().physical_offset() >= until {
                return true;
            }
            let Some(content) = Content::of_release(store, release) else { return true };
            let Some(left) = found.copies.get_mut(&content) else { return true };
            *left -= 1;
            if *left == 0 {
                found.copies.remove(&content);
            }
            claimed.push(content);
            false
        });
        claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config,
        message::{Message, Queue, StoredMessage},
        types::StoreTimestamp,
    };

    const WAITS: &[u8] = b"REAL_TOPIC\x01T\x02REAL_QID\x010\x02";

    fn put(store: &Store, queue: Queue, body: &[u8], text: &[u8]) -> StoredMessage {
        let message = Message::new(queue, body).properties_raw(text).born_timestamp(StoreTimestamp(7));
        let at = store.put(&message).unwrap().physical_offset();
        store.message_at(at).unwrap().unwrap()
    }

    /// Which of these messages are put once more.
    fn rest(copies: &Copies, store: &Store, waiting: &[&StoredMessage], queue: Queue) -> Vec<usize> {
        let mut releases: Vec<_> =
            waiting.iter().map(|stored| Release::to(stored, queue, WAITS.to_vec())).collect();
        let places: Vec<_> = waiting.iter().map(|stored| stored.physical_offset()).collect();
        copies.claim(store, &mut releases);
        let left = |at: &PhysicalOffset| releases.iter().any(|left| left.stored().physical_offset() == *at);
        (0..places.len()).filter(|n| left(&places[*n])).collect()
    }

    #[test]
    fn each_copy_stands_for_one_message_of_its_service_that_stood_in_the_log_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path()).commit_log_file_size(1u64 << 20)).unwrap();
        let (real, parked) = (store.queue("T", 0).unwrap(), store.queue(names::SCHEDULE_TOPIC, 0).unwrap());
        let before = put(&store, real, b"before", WAITS);
        let since = before.physical_offset().plus(before.record().total_size);
        let [a, again, b, t] = [b"a", b"a", b"b", b"t"].map(|body| put(&store, parked, body, WAITS));
        put(&store, real, b"a", &[WAITS, b"WAIT\x01false\x02"].concat());
        put(&store, real, b"t", &[WAITS, b"TIMER_ENQUEUE_MS\x015\x02TIMER_DEQUEUE_MS\x016\x02"].concat());
        // Sent by a client, and in another queue than it names.
        put(&store, real, b"b", b"UNIQ_KEY\x01U\x02");
        put(&store, store.queue("T", 1).unwrap(), b"b", WAITS);

        let noted = || Copies::since(Some(since));
        let (delays, timers) = (noted(), noted());
        Copies::find(&store, [(&delays, PhysicalOffset::ZERO), (&timers, PhysicalOffset::ZERO)]);
        let later = put(&store, parked, b"t", WAITS);
        let end = store.status().max_offset;
        assert!(!delays.are_claimed(end) && !timers.are_claimed(end));
        assert_eq!(rest(&delays, &store, &[&before, &a, &again, &b, &t], real), [0, 2, 3, 4]);
        assert!(delays.are_claimed(end), "the timers' copies are no concern of the delays'");
        assert_eq!(rest(&timers, &store, &[&later], real), [0], "it came when the copy was there");
        assert_eq!(rest(&timers, &store, &[&t], real), [] as [usize; 0]);
        assert!(timers.are_claimed(end));

        // From where the first message waits on, or nowhere: no file told a place.
        let (unknown, none) = (Copies::since(None), noted());
        Copies::find(&store, [(&unknown, PhysicalOffset::ZERO), (&none, end)]);
        assert!(unknown.are_claimed(end) && none.are_claimed(end));
        unknown.note(end);
        assert_eq!(unknown.noted(), Some(end));
        store.close().unwrap();
    }

    #[test]
    fn what_waited_twice_counts_as_the_service_s_that_had_it_last() {
        let text = |text: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(Config::new(dir.path()).commit_log_file_size(1u64 << 20)).unwrap();
            let stored = put(&store, store.queue("T", 0).unwrap(), b"x", text);
            let found = (is_copy(&stored.record()), is_of_timers(&stored.record()));
            store.close().unwrap();
            found
        };
        let timed = [WAITS, b"TIMER_DEQUEUE_MS\x016\x02"].concat();
        assert_eq!(text(WAITS), (true, false));
        assert_eq!(text(&timed), (true, true));
        let delayed_again =
            rewritten(&timed, &[], &[(properties::REAL_TOPIC, "T"), (properties::REAL_QID, "0")]);
        assert_eq!(text(&delayed_again), (true, false));
        assert_eq!(text(b"UNIQ_KEY\x01U\x02"), (false, false));
    }
}
