//! The delay service: messages that wait in SCHEDULE_TOPIC_XXXX, one queue a level, until they are due.
//!
//! Owns `delayOffset.json` (level -> next queue offset) and one thread. A queue entry's tags code is the time at which
//! the message is due (FORMAT.md, "ConsumeQueue entry"). Each turn ([`Schedule::step`]) looks at the head of every
//! level, puts what is due to its real topic and queue, in order, and says when the next turn is worth taking.
//!
//! Invariants: an offset moves past a message only after its copy is in the log, and reaches the file only after that
//! copy is durable. The file also says, in a field that RocketMQ does not read, behind which place in the log all later
//! copies lie; what a kill left delivered and not noted is found there again ([`Copies`]) and does not come twice. Only
//! after a kill of RocketMQ's broker, whose file lacks that, can it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Broker,
    config_file::{ConfigFile, DataVersion},
    delivered::{Copies, STEP},
    json::Json,
    names,
    property_text::rewritten,
    release::Release,
    worker::Worker,
};
use crate::{
    ExtUnit, Filter,
    clock::Clock,
    error::Result,
    format::properties,
    message::{GetStatus, Queue, StoredMessage},
    store::{GetRequest, Store},
    types::{PhysicalOffset, QueueOffset, StoreTimestamp, SysFlag, TagsCode, TransactionType},
};

/// The longest sleep: a message put to the first level is seen this soon.
const TURN: Duration = Duration::from_millis(100);
/// A message may have been put later than its stamp says, by so many milliseconds ([`Clock::now_coarse`]). It waits in
/// full all the same.
const STAMP_LAG: i64 = 10;
/// The pause after a level that could not be delivered.
const RETRY: Duration = Duration::from_secs(1);
/// Messages delivered by one put.
const BATCH: usize = 32;
/// Puts of one level before the next level has its turn.
const ROUNDS: usize = 64;

/// The field of the file that tells which copies it does not know of.
const SINCE: &str = "deliveredTo";

/// Properties that end with the delay, and the checksum of the record they stood in.
const ENDED: [&str; 4] =
    [properties::DELAY, properties::TIMER_DELIVER_MS, properties::TIMER_DELAY_SEC, properties::CRC32];

/// A delay on the way into the store.
pub(super) struct Delay {
    level: i32,
    level_text: String,
    real_topic: String,
    real_queue: String,
}

impl Delay {
    /// The delay that `level` asks for; `None` when it asks for none, or when the message is part of a transaction
    /// that is not committed.
    pub(super) fn of(
        broker: &Broker,
        level: i32,
        sys_flag: SysFlag,
        topic: &str,
        queue_id: i32,
    ) -> Option<Self> {
        let delayed = matches!(sys_flag.transaction(), TransactionType::None | TransactionType::Commit);
        let levels = i32::try_from(broker.schedule.levels.len()).unwrap_or(i32::MAX);
        let level = level.min(levels);
        (level > 0 && delayed).then(|| Self {
            level,
            level_text: level.to_string(),
            real_topic: topic.to_owned(),
            real_queue: queue_id.to_string(),
        })
    }

    /// What the waiting message carries.
    pub(super) fn properties(&self) -> [(&'static str, &str); 3] {
        [
            (properties::DELAY, &self.level_text),
            (properties::REAL_TOPIC, &self.real_topic),
            (properties::REAL_QID, &self.real_queue),
        ]
    }

    /// The queue of SCHEDULE_TOPIC_XXXX that it waits in.
    pub(super) const fn queue_id(&self) -> i32 {
        self.level - 1
    }
}

/// Where a level stands, and what may be said of it in the file.
#[derive(Debug)]
struct Table {
    /// Level -> offset of the next message to deliver.
    offsets: BTreeMap<i32, i64>,
    /// Level -> offset whose messages are all delivered durably.
    durable: BTreeMap<i32, i64>,
    /// Offsets whose copies end at a place that was not durable yet, in the order of those places.
    pending: VecDeque<(i32, i64, PhysicalOffset)>,
    /// What the file said of the place behind which copies lie that it does not know of.
    since: Option<PhysicalOffset>,
    version: DataVersion,
}

/// The delay service.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Milliseconds of each level, the first being level 1.
    levels: Vec<i64>,
    table: Mutex<Table>,
    file: ConfigFile,
    worker: Worker,
    /// What was delivered and is not in the file, as the log says.
    delivered: Copies,
}

impl Schedule {
    /// Reads `delayOffset.json`. `levels` are the delays in milliseconds.
    pub(crate) fn load(file: ConfigFile, levels: Vec<i64>, now: StoreTimestamp) -> Result<Self> {
        let table = file.load(read_table)?.unwrap_or_else(|| Table {
            offsets: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: VecDeque::new(),
            since: Some(PhysicalOffset::ZERO),
            version: DataVersion::new(now.get()),
        });
        let delivered = Copies::since(table.since);
        Ok(Self { levels, table: Mutex::new(table), file, worker: Worker::default(), delivered })
    }

    /// Takes every offset back into its queue, which a log that was cut, or lost its front, leaves outside. A level
    /// whose queue is gone begins at 0. This must be done before anything is put: the first new message of such a
    /// queue has the number that the kept offset is past.
    pub(crate) fn clamp(&self, bounds_of: impl Fn(i32) -> Option<[QueueOffset; 2]>) {
        let mut table = self.table.lock();
        let Table { offsets, durable, .. } = &mut *table;
        for (level, kept) in offsets {
            let [min, max] = bounds_of(level.saturating_sub(1)).unwrap_or_default().map(QueueOffset::get);
            let offset = (*kept).clamp(min, max.max(min));
            if offset != *kept {
                tracing::warn!(
                    level,
                    kept,
                    min,
                    max,
                    "the delay offset lies outside of its queue, corrected"
                );
                *kept = offset;
                durable.insert(*level, offset);
            }
        }
    }

    /// Starts the thread.
    pub(crate) fn start(broker: &Arc<Broker>) -> Result<()> {
        let period = Duration::from_millis(broker.config.save_delay_offsets_ms);
        let mut saved = None;
        broker.schedule.worker.start("delay", broker, move |broker| {
            let pause = broker.schedule.step(broker);
            let now = broker.clock.monotonic();
            if now.saturating_sub(*saved.get_or_insert(now)) >= period {
                saved = Some(now);
                if let Err(error) = broker.schedule.save(broker.store.status().durable_offset) {
                    tracing::error!(%error, "delayOffset.json not saved");
                }
            }
            pause
        })
    }

    /// Delivers nothing more; returns when the thread has ended.
    pub(crate) fn stop(&self) {
        self.worker.stop();
    }

    /// Writes `delayOffset.json`. `durable` is where the log is durable to. Nothing is delivered meanwhile.
    pub(crate) fn save(&self, durable: PhysicalOffset) -> Result<()> {
        let json = {
            let mut table = self.table.lock();
            let mut noted = None;
            while table.pending.front().is_some_and(|(_, _, end)| *end <= durable) {
                if let Some((level, offset, end)) = table.pending.pop_front() {
                    table.durable.insert(level, offset);
                    noted = noted.max(Some(end));
                }
            }
            // What is delivered from now on lies behind the end of the log.
            let since = self.delivered.noted().unwrap_or_default();
            if table.pending.is_empty() && (noted.is_some() || durable.since(since) >= STEP) {
                noted = Some(durable);
            }
            if let Some(noted) = noted.filter(|_| self.delivered.are_claimed(durable)) {
                self.delivered.note(noted);
            }
            table_json(&table.durable, table.version, self.delivered.noted())
        };
        self.file.save(&json)
    }

    /// The copies that it does not know of, and where the first message waits that may have one.
    pub(super) fn copies(&self, store: &Store) -> (&Copies, PhysicalOffset) {
        let first = |n: usize| {
            let queue = store.find_queue(names::SCHEDULE_TOPIC, i32::try_from(n).ok()?)?;
            let next = self.offset(i32::try_from(n + 1).ok()?).max(store.min_offset(queue).get());
            Some(store.entries(queue, QueueOffset(next), 1).ok()?.first()?.offset)
        };
        let first = (0..self.levels.len()).filter_map(first).min();
        (&self.delivered, first.unwrap_or(PhysicalOffset(i64::MAX)))
    }

    /// As `delayOffset.json`: where each level stands now.
    pub(crate) fn to_json(&self) -> Json {
        let table = self.table.lock();
        table_json(&table.offsets, table.version, None)
    }

    /// The next offset to deliver of `level`.
    pub(crate) fn offset(&self, level: i32) -> i64 {
        self.table.lock().offsets.get(&level).copied().unwrap_or(0)
    }

    /// Moves a level on to `offset`; what was delivered before it ends at `end` in the log.
    fn advance(&self, level: i32, offset: i64, end: PhysicalOffset, now: StoreTimestamp) {
        let mut table = self.table.lock();
        table.offsets.insert(level, offset);
        table.pending.push_back((level, offset, end));
        table.version.step(now.get());
    }

    /// Delivers what is due on every level; how long until something may be.
    pub(crate) fn step(&self, broker: &Broker) -> Duration {
        let mut pause = TURN;
        let mut failed = false;
        for (n, delay) in self.levels.iter().enumerate() {
            let Ok(queue_id) = i32::try_from(n) else { break };
            let Some(queue) = broker.store.find_queue(names::SCHEDULE_TOPIC, queue_id) else { continue };
            match self.deliver_level(broker, queue_id + 1, queue, *delay) {
                Ok(wait) => pause = pause.min(wait),
                Err(error) => {
                    tracing::warn!(level = queue_id + 1, %error, "delayed messages not delivered, trying again");
                    failed = true;
                }
            }
        }
        if failed { RETRY } else { pause }
    }

    /// Delivers what is due on one level, up to a bound that leaves the other levels their turn.
    fn deliver_level(&self, broker: &Broker, level: i32, queue: Queue, delay: i64) -> Result<Duration> {
        for _ in 0..ROUNDS {
            if self.worker.is_stopped() {
                break;
            }
            if let Turn::Wait(wait) = self.deliver(broker, level, queue, delay)? {
                return Ok(wait);
            }
        }
        Ok(Duration::ZERO)
    }

    fn deliver(&self, broker: &Broker, level: i32, queue: Queue, delay: i64) -> Result<Turn> {
        let store = &broker.store;
        let kept = self.offset(level);
        let (min, max) = (store.min_offset(queue).get(), store.max_offset(queue).get());
        let offset = kept.clamp(min, max.max(min));
        if offset != kept {
            tracing::warn!(level, kept, min, max, "the delay offset lies outside of its queue, corrected");
            self.advance(level, offset, PhysicalOffset::ZERO, broker.clock.now());
        }
        if offset >= max {
            return Ok(Turn::Wait(TURN));
        }
        let due = Due::new(&*broker.clock, delay);
        let request = GetRequest {
            queue,
            offset: QueueOffset(offset),
            max_messages: BATCH,
            max_bytes: usize::MAX,
            max_scan: BATCH,
            filter: Some(&due),
        };
        let found = store.fetch(&request)?;
        let messages = found.messages;
        let Some(last) = messages.last() else {
            let next = found.next_offset.get();
            if found.status != GetStatus::NoMatchedMessage && next > offset {
                tracing::warn!(level, offset, next, "delayed messages are gone from the log");
                self.advance(level, next, PhysicalOffset::ZERO, broker.clock.now());
                return Ok(Turn::More);
            }
            return Ok(Turn::Wait(due.wait()));
        };
        let next = last.queue_offset().get() + 1;
        let end = self.put_real(broker, &messages)?;
        self.advance(level, next, end, broker.clock.now());
        Ok(Turn::More)
    }

    /// Puts messages to their real topics; where the last one ends in the log.
    fn put_real(&self, broker: &Broker, messages: &[StoredMessage]) -> Result<PhysicalOffset> {
        let real = messages
            .iter()
            .filter_map(|stored| {
                let text =
                    rewritten(stored.record().properties.raw(), &ENDED, &[(properties::WAIT, "false")]);
                let real = Release::new(broker, stored, text);
                if real.is_none() {
                    tracing::error!(offset = %stored.physical_offset(), "a delayed message names no real queue, left out");
                }
                real
            })
            .collect();
        self.delivered.put_rest(broker, real)
    }
}

enum Turn {
    /// There may be more that is due.
    More,
    /// Nothing is due for this long.
    Wait(Duration),
}

/// Lets queue entries pass while they are due, and none behind the first that is not.
struct Due<'a> {
    clock: &'a dyn Clock,
    now: i64,
    delay: i64,
    closed: AtomicBool,
    next: AtomicI64,
}

impl<'a> Due<'a> {
    fn new(clock: &'a dyn Clock, delay: i64) -> Self {
        let (closed, next) = (AtomicBool::new(false), AtomicI64::new(0));
        Self { clock, now: clock.now().get(), delay, closed, next }
    }

    /// Whether a due time is later than that of a message put at this very moment, which may be after the turn began:
    /// it was set by another clock or another `messageDelayLevel`, and is due at once, as in RocketMQ.
    fn is_foreign(&self, due: i64) -> bool {
        due > self.clock.now().get().saturating_add(self.delay)
    }

    /// How long until the first entry that did not pass is due.
    fn wait(&self) -> Duration {
        if !self.closed.load(Ordering::Relaxed) {
            return TURN;
        }
        let ms = self.next.load(Ordering::Relaxed).saturating_sub(self.now);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(TURN)
    }
}

impl Filter for Due<'_> {
    fn by_queue_entry(&self, tags_code: TagsCode, _ext: Option<&ExtUnit>) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        let due = tags_code.get();
        let waited = due.saturating_add(STAMP_LAG);
        if waited <= self.now || self.is_foreign(due) {
            return true;
        }
        self.next.store(waited, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
        false
    }
}

/// `since` is a field of the file only, which RocketMQ passes over.
fn table_json(offsets: &BTreeMap<i32, i64>, version: DataVersion, since: Option<PhysicalOffset>) -> Json {
    let table = offsets.iter().map(|(level, offset)| (*level, Json::from(*offset)));
    let pairs = [("dataVersion", version.to_json()), ("offsetTable", Json::map(table))];
    Json::map(pairs.into_iter().chain(since.map(|since| (SINCE, since.get().into()))))
}

fn read_table(json: &Json) -> Result<Table, String> {
    let mut offsets = BTreeMap::new();
    for (level, offset) in json.get("offsetTable").ok_or("no offsetTable")?.pairs() {
        let level = level.int().and_then(|level| i32::try_from(level).ok());
        let (Some(level), Some(offset)) = (level, offset.int()) else {
            return Err("offsetTable holds what is no level or no offset".into());
        };
        offsets.insert(level, offset);
    }
    let version = DataVersion::from_json(json.get("dataVersion")).unwrap_or_default();
    let since = json.int_of(SINCE).map(PhysicalOffset);
    Ok(Table { durable: offsets.clone(), offsets, pending: VecDeque::new(), since, version })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, vfs::OsVfs};

    fn schedule(dir: &std::path::Path) -> Schedule {
        let file = ConfigFile::new(Arc::new(OsVfs), dir, "delayOffset.json").unwrap();
        Schedule::load(file, vec![1_000, 5_000], StoreTimestamp(7)).unwrap()
    }

    #[test]
    fn an_offset_reaches_the_file_only_after_the_copies_before_it_are_durable() {
        let dir = tempfile::tempdir().unwrap();
        let first = schedule(dir.path());
        first.advance(1, 3, PhysicalOffset(100), StoreTimestamp(8));
        first.advance(2, 9, PhysicalOffset(150), StoreTimestamp(8));
        first.advance(1, 5, PhysicalOffset(200), StoreTimestamp(8));
        assert_eq!((first.offset(1), first.offset(2)), (5, 9));
        for (durable, level1, level2) in [(99, 0, 0), (150, 3, 9), (199, 3, 9), (200, 5, 9)] {
            first.save(PhysicalOffset(durable)).unwrap();
            let again = schedule(dir.path());
            assert_eq!((again.offset(1), again.offset(2)), (level1, level2), "durable to {durable}");
        }
    }

    #[test]
    fn the_file_says_behind_which_place_the_copies_lie_that_it_does_not_know_of() {
        let dir = tempfile::tempdir().unwrap();
        let noted = || schedule(dir.path()).delivered.noted().map(PhysicalOffset::get);
        let first = schedule(dir.path());
        assert_eq!(noted(), Some(0), "no file: they may be anywhere");
        first.advance(1, 3, PhysicalOffset(100), StoreTimestamp(8));
        first.advance(2, 9, PhysicalOffset(150), StoreTimestamp(8));
        first.save(PhysicalOffset(140)).unwrap();
        assert_eq!(noted(), Some(100), "the next copy lies behind the one that is durable");
        first.save(PhysicalOffset(180)).unwrap();
        assert_eq!(noted(), Some(180), "all copies are known");
        first.save(PhysicalOffset(181)).unwrap();
        assert_eq!(noted(), Some(180), "nothing was delivered, so nothing is written");
        let far = 180 + i64::try_from(STEP).unwrap();
        first.save(PhysicalOffset(far)).unwrap();
        assert_eq!(noted(), Some(far), "or more of the log would be read than need be");
        let java = first.to_json().pretty();
        assert!(!java.contains(SINCE));
        std::fs::write(dir.path().join("delayOffset.json"), java).unwrap();
        assert_eq!(noted(), None, "RocketMQ's broker does not say");
    }

    #[test]
    fn a_file_that_java_wrote_is_read_and_its_levels_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let text = "{\n\t\"dataVersion\":{\n\t\t\"counter\":2,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1795240246000\n\t},\n\t\"offsetTable\":{1:4,18:2\n\t}\n}";
        std::fs::write(dir.path().join("delayOffset.json"), text).unwrap();
        let schedule = schedule(dir.path());
        assert_eq!((schedule.offset(1), schedule.offset(2), schedule.offset(18)), (4, 0, 2));
        schedule.advance(1, 5, PhysicalOffset::ZERO, StoreTimestamp(8));
        schedule.save(PhysicalOffset::ZERO).unwrap();
        let saved = std::fs::read_to_string(dir.path().join("delayOffset.json")).unwrap();
        assert!(saved.contains("1:5") && saved.contains("18:2"), "{saved}");
    }

    #[test]
    fn every_offset_is_taken_back_into_its_queue_and_to_0_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let text = "{\"offsetTable\":{1:5,2:5,3:5,4:5,-2147483648:5}}";
        std::fs::write(dir.path().join("delayOffset.json"), text).unwrap();
        let first = schedule(dir.path());
        first.clamp(|queue| match queue {
            0 => None,
            1 => Some([QueueOffset(0), QueueOffset(3)]),
            2 => Some([QueueOffset(7), QueueOffset(9)]),
            3 => Some([QueueOffset(2), QueueOffset(5)]),
            _ => None,
        });
        first.save(PhysicalOffset::ZERO).unwrap();
        for schedule in [first, schedule(dir.path())] {
            assert_eq!([1, 2, 3, 4].map(|level| schedule.offset(level)), [0, 3, 7, 5]);
        }
    }

    #[test]
    fn what_is_due_passes_and_nothing_behind_what_is_not() {
        let passes = |due: &Due<'_>, at: i64| due.by_queue_entry(TagsCode(at), None);
        let clock = ManualClock::new(StoreTimestamp(1_000));
        let due = Due::new(&clock, 500);
        assert!(passes(&due, 900) && passes(&due, 1_000 - STAMP_LAG));
        assert!(passes(&due, 1_501), "later than the level can make it: the clock was set back");
        assert_eq!(due.wait(), TURN);
        assert!(!passes(&due, 1_030) && !passes(&due, 900), "order is kept");
        assert_eq!(due.wait(), Duration::from_millis(40));
    }

    #[test]
    fn a_message_that_is_put_while_a_turn_looks_is_not_due() {
        let clock = ManualClock::new(StoreTimestamp(1_000));
        let due = Due::new(&clock, 500);
        clock.advance(Duration::from_millis(3));
        assert!(!due.by_queue_entry(TagsCode(1_503), None));
    }

    /// The put may have been that much later than the stamp.
    #[test]
    fn a_message_is_not_due_before_it_has_waited_in_full() {
        let clock = ManualClock::new(StoreTimestamp(1_000));
        assert!(!Due::new(&clock, 500).by_queue_entry(TagsCode(1_000 - STAMP_LAG + 1), None));
    }
}
