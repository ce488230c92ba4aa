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

    /// Reads the log from the places that `each` have noted, but not from before `first`, where their first message
    /// waits.
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
            if is_copy(&record) {
                for ((copies, _), _) in
                    each.iter().zip(from).filter(|(_, from)| from.is_some_and(|from| at >= from))
                {
                    let content =
                        Content::new(record.topic, record.queue_id, record.properties.raw(), &record);
                    *copies.0.lock().copies.entry(content).or_default() += 1;
                    count += 1;
                }
            }
            at = at.plus(record.total_size);
        }
        tracing::info!(copies = count, "delivered before, as the log says, and not noted");
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
