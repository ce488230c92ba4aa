//! How far the timers are, and how that is found again at start and saved.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicI64,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    format::{CHECKPOINT, Checkpoint, Slot, Unit},
    log::TimerLog,
    park::TIMER_QUEUE,
    wheel::Wheel,
};
use crate::{
    broker::{Broker, BrokerConfig, names},
    error::{Error, Result},
    store::{GetRequest, Store},
    types::{PhysicalOffset, QueueOffset, StoreTimestamp},
    vfs::Vfs,
};

/// A checkpoint's file is read up to here.
const MAX_CHECKPOINT: u64 = 1 << 16;
/// How often files of the timer log that nobody needs are looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(30);

/// What the timer log says beyond the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Messages of the topic before this number were seen before the checkpoint.
    pub(super) queue_offset: i64,
    /// Of them, those that were due before this time are delivered.
    pub(super) read_ms: i64,
    /// Places in the log of messages that have their unit already.
    pub(super) units: HashSet<i64>,
}

/// A state that the checkpoint may take once the log is durable to `end`.
#[derive(Clone, Copy, Debug)]
struct Reached {
    read_ms: i64,
    queue_offset: i64,
    end: PhysicalOffset,
    /// All copies that are put later lie behind this place; `None` when some before it are not part of the state.
    since: Option<PhysicalOffset>,
}

/// How far the timers are, for those who ask while a turn is under way.
#[derive(Debug, Default)]
pub(super) struct Shown {
    read_ms: AtomicI64,
    queue_offset: AtomicI64,
    waiting: AtomicI64,
    /// The checkpoint as it was saved last.
    saved: Mutex<Vec<u8>>,
}

impl Shown {
    pub(super) fn saved_bytes(&self) -> Vec<u8> {
        self.saved.lock().clone()
    }

    /// The time before which all is delivered.
    pub(super) fn passed(&self) -> i64 {
        self.read_ms.load(Acquire)
    }

    pub(super) fn figures(&self, broker: &Broker) -> [i64; 3] {
        let end = broker
            .store
            .find_queue(names::TIMER_TOPIC, TIMER_QUEUE)
            .map_or(0, |queue| broker.store.max_offset(queue).get());
        let now = floor(broker.clock.now().get(), broker.config.timer_precision_ms());
        let (read, taken) = (self.read_ms.load(Acquire), self.queue_offset.load(Acquire));
        [(now - read).max(0), (end - taken).max(0), self.waiting.load(Acquire)]
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) vfs: Arc<dyn Vfs>,
    wheel_path: PathBuf,
    check_path: PathBuf,
    shared_wheel: Arc<Mutex<Option<Arc<Wheel>>>>,
    pub(super) log: TimerLog,
    pub(super) precision_ms: i64,
    /// Milliseconds beyond which a message goes round again.
    pub(super) window_ms: i64,
    /// All times before this one are over.
    pub(super) read_ms: i64,
    /// Messages of the time `read_ms` that are delivered.
    pub(super) done: usize,
    /// The time that is now. Never goes back.
    pub(super) write_ms: i64,
    /// The next message of the topic.
    pub(super) queue_offset: i64,
    pub(super) before: Before,
    /// Where the last message that was delivered ends in the log.
    pub(super) delivered: PhysicalOffset,
    /// Messages that wait.
    pub(super) waiting: i64,
    /// Of them those of each topic, by its hash, as they were found at start.
    pub(super) waiting_by_topic: HashMap<i32, i64>,
    /// What the checkpoint says, or may say next.
    saved: Checkpoint,
    reached: Option<Reached>,
    /// The same place as the checkpoint had it at start.
    pub(super) since: Option<PhysicalOffset>,
    pub(super) shown: Arc<Shown>,
    next_save: Duration,
    next_clean: Duration,
}

impl State {
    pub(super) fn load(
        config: &BrokerConfig,
        vfs: &Arc<dyn Vfs>,
        store: &Store,
        now: StoreTimestamp,
        shared_wheel: Arc<Mutex<Option<Arc<Wheel>>>>,
    ) -> Result<Self> {
        let precision_ms = config.timer_precision_ms();
        let check_path = config.store.path("config").join("timercheck");
        let bytes = vfs.read(&check_path, MAX_CHECKPOINT).map_err(Error::io("read", &check_path))?;
        let read = bytes.as_deref().and_then(Checkpoint::decode);
        let since = read.map_or(Some(0), |saved| saved.since).map(PhysicalOffset);
        let saved = read.unwrap_or_default();
        let write_ms = floor(now.get(), precision_ms);

        let mut slots: HashMap<i64, Slot> = HashMap::new();
        let (mut units, mut waiting_by_topic) = (HashSet::new(), HashMap::new());
        let mut last: Option<Unit> = None;
        // The log may have lost its tail. Another message may come to stand where a lost one stood: it is no longer
        // the unit's, and has none yet.
        let log_end = store.status().max_offset.get();
        let log = TimerLog::open(vfs, &config.store.path("timerlog"), config.timer_log_size, |at, unit| {
            if unit.offset >= log_end {
                return false;
            }
            if at >= saved.log_end {
                units.insert(unit.offset);
            }
            last = Some(*unit);
            if unit.due_ms >= saved.read_ms {
                let time = unit.due_ms.div_euclid(precision_ms);
                let slot = Slot::with(slots.get(&time).copied(), time, at, unit.deed);
                slots.insert(time, slot);
                *waiting_by_topic.entry(unit.topic_hash).or_default() += unit.deed.counts();
            }
            true
        })?;
        let oldest = slots.keys().min().map_or(write_ms, |time| time * precision_ms);
        let read_ms = if saved.read_ms > 0 {
            saved.read_ms
        } else {
            // What nobody has taken in yet was due when it was stored at the earliest.
            let unread = stored_at(store, saved.queue_offset).unwrap_or(write_ms);
            oldest.min(floor(unread, precision_ms).max(write_ms - config.timer_window_ms())).min(write_ms)
        };
        let wheel_path = config.store.path("timerwheel");
        let there = vfs.stat(&wheel_path).map_err(Error::io("look at", &wheel_path))?.is_some();
        if there || !slots.is_empty() {
            let wheel = Wheel::open(&**vfs, &wheel_path, precision_ms)?;
            let changed = wheel.agree(read_ms, &slots)?;
            tracing::debug!(slots = slots.len(), changed, "timer wheel agrees with the timer log");
            *shared_wheel.lock() = Some(Arc::new(wheel));
        }
        let number = last.and_then(|unit| number_of(store, &unit));
        if number.is_none() {
            // Where the units end in the topic is unknown: it is read from its start, past all that have theirs.
            log.each(|_, unit| {
                units.insert(unit.offset);
            });
        }
        let behind_last = number.map_or(0, |number| number + 1);
        // Numbers of messages that are lost are given out again.
        let seen = saved.queue_offset.min(end_of_topic(store));
        let mut state = Self {
            vfs: Arc::clone(vfs),
            wheel_path,
            check_path,
            shared_wheel,
            log,
            precision_ms,
            window_ms: config.timer_window_ms(),
            read_ms,
            done: 0,
            write_ms,
            queue_offset: saved.queue_offset.min(behind_last),
            before: Before { queue_offset: seen, read_ms, units },
            delivered: PhysicalOffset::ZERO,
            waiting: slots.values().map(|slot| i64::from(slot.count)).sum(),
            waiting_by_topic,
            saved,
            reached: None,
            since,
            shown: Arc::default(),
            next_save: Duration::ZERO,
            next_clean: Duration::ZERO,
        };
        state.keep_within(store);
        state.show();
        state.show_saved();
        Ok(state)
    }

    /// The topic's queue may have lost its front to retention, or its end to a crash.
    pub(super) fn keep_within(&mut self, store: &Store) {
        let Some(queue) = store.find_queue(names::TIMER_TOPIC, TIMER_QUEUE) else {
            self.queue_offset = 0;
            return;
        };
        let (min, max) = (store.min_offset(queue).get(), store.max_offset(queue).get());
        self.queue_offset = self.queue_offset.clamp(min, max.max(min));
    }

    /// The wheel; made when it is needed first.
    pub(super) fn wheel(&self) -> Result<Arc<Wheel>> {
        let mut shared = self.shared_wheel.lock();
        if let Some(wheel) = &*shared {
            return Ok(Arc::clone(wheel));
        }
        let wheel = Arc::new(Wheel::open(&*self.vfs, &self.wheel_path, self.precision_ms)?);
        *shared = Some(Arc::clone(&wheel));
        Ok(wheel)
    }

    /// The wheel, if anything ever waited.
    pub(super) fn made_wheel(&self) -> Option<Arc<Wheel>> {
        self.shared_wheel.lock().clone()
    }

    /// How long until the next time begins.
    pub(super) fn until_next(&self, now: StoreTimestamp) -> Duration {
        let left = floor(now.get(), self.precision_ms) + self.precision_ms - now.get();
        Duration::from_millis(u64::try_from(left).unwrap_or(1))
    }

    /// Saves when it is time to.
    pub(super) fn save_due(&mut self, broker: &Broker) -> Result<()> {
        let now = broker.clock.monotonic();
        if now >= self.next_clean {
            self.next_clean = now + CLEAN_EVERY;
            self.log.delete_before(broker.store.status().min_offset.get())?;
        }
        if now < self.next_save {
            return Ok(());
        }
        self.next_save = now + Duration::from_millis(broker.config.timer_flush_interval_ms);
        self.save(broker)
    }

    /// Makes timer log and wheel durable, then says in the checkpoint how far all is that is durable.
    pub(super) fn save(&mut self, broker: &Broker) -> Result<()> {
        let durable = broker.store.status().durable_offset;
        // Part of a time, or copies from before a kill that are not passed yet: they lie before such a place.
        let whole = self.done == 0 && broker.timer.delivered.are_claimed(durable);
        let now = Reached {
            read_ms: self.read_ms,
            queue_offset: self.queue_offset,
            end: self.delivered,
            since: whole.then(|| self.delivered.max(durable)),
        };
        let reached = match self.reached.take() {
            // An older one is waited for first, or under load none would ever be reached.
            Some(older) if older.end > durable => {
                self.reached = Some(older);
                return Ok(());
            }
            Some(older) if now.end > durable => {
                self.reached = Some(now);
                older
            }
            None if now.end > durable => {
                self.reached = Some(now);
                return Ok(());
            }
            _ => now,
        };
        let log_end = self.log.end();
        if (reached.read_ms, reached.queue_offset, log_end)
            == (self.saved.read_ms, self.saved.queue_offset, self.saved.log_end)
        {
            return Ok(());
        }
        self.log.sync()?;
        if let Some(wheel) = self.made_wheel()
            && log_end != self.saved.log_end
        {
            wheel.sync()?;
        }
        if let Some(since) = reached.since {
            broker.timer.delivered.note(since);
        }
        let mut next = Checkpoint {
            read_ms: reached.read_ms,
            log_end,
            queue_offset: reached.queue_offset,
            master_queue_offset: reached.queue_offset,
            version: self.saved.version,
            since: broker.timer.delivered.noted().map(PhysicalOffset::get),
        };
        next.version.step(broker.clock.now().get());
        // A broker that never had a timed message leaves no files of timers.
        if self.made_wheel().is_some() || next.queue_offset > 0 || self.saved != Checkpoint::default() {
            self.vfs
                .replace(&self.check_path, &next.encode())
                .map_err(Error::io("write", &self.check_path))?;
            self.saved = next;
            self.show_saved();
        }
        Ok(())
    }

    /// Lets others see how far it is.
    pub(super) fn show(&self) {
        self.shown.waiting.store(self.waiting, Release);
        self.shown.queue_offset.store(self.queue_offset, Release);
        self.shown.read_ms.store(self.read_ms, Release);
    }

    fn show_saved(&self) {
        *self.shown.saved.lock() = self.saved.encode()[..CHECKPOINT].to_vec();
    }
}

/// Behind the last message of the timer topic.
fn end_of_topic(store: &Store) -> i64 {
    let queue = store.find_queue(names::TIMER_TOPIC, TIMER_QUEUE);
    queue.map_or(0, |queue| store.max_offset(queue).get())
}

/// The beginning of the time that `ms` lies in.
pub(super) const fn floor(ms: i64, precision_ms: i64) -> i64 {
    ms.div_euclid(precision_ms) * precision_ms
}

/// When the next message of the topic from `number` on was stored.
fn stored_at(store: &Store, number: i64) -> Option<i64> {
    let queue = store.find_queue(names::TIMER_TOPIC, TIMER_QUEUE)?;
    let number = QueueOffset(number).max(store.min_offset(queue));
    let found = store.fetch(&GetRequest { max_messages: 1, ..GetRequest::new(queue, number) }).ok()?;
    found.messages.first().map(|stored| stored.record().store_timestamp.get())
}

/// The number that a unit's message has in the topic; `None` when its place holds another message now.
fn number_of(store: &Store, unit: &Unit) -> Option<i64> {
    let stored = store.message_at(PhysicalOffset(unit.offset)).ok()??;
    let record = stored.record();
    let same = record.topic == names::TIMER_TOPIC && i32::try_from(record.total_size) == Ok(unit.size);
    same.then(|| record.queue_offset.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, golden_stores, vfs::OsVfs};

    #[test]
    fn timers_that_java_wrote_are_taken_on_as_they_stand() {
        let golden = golden_stores::broker();
        let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
        let config = BrokerConfig::new(Config::new(golden.store_dir()));
        let wheel_before = std::fs::read(golden.store_dir().join("timerwheel")).unwrap();
        let store = Store::open(config.store.clone()).unwrap();
        // One of Java's two messages was delivered, the other is due an hour after it.
        let now = StoreTimestamp(1_795_241_300_000);
        let shared = Arc::default();
        let state = State::load(&config, &vfs, &store, now, Arc::clone(&shared)).unwrap();
        assert_eq!((state.read_ms, state.queue_offset, state.waiting), (1_795_241_268_000, 2, 1));
        assert_eq!((state.log.end(), state.before.units.len()), (104, 0));
        let slot = state.wheel().unwrap().get(1_795_244_832_000).unwrap();
        assert_eq!((slot.first, slot.last, slot.count), (52, 52, 1));
        store.close().unwrap();
        drop(state);
        assert!(
            std::fs::read(golden.store_dir().join("timerwheel")).unwrap() == wheel_before,
            "the wheel was changed"
        );
    }

    #[test]
    fn of_a_log_that_is_gone_nothing_was_seen_and_nothing_waits() {
        let golden = golden_stores::broker();
        let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
        let config = BrokerConfig::new(Config::new(golden.store_dir()));
        std::fs::remove_dir_all(golden.store_dir().join("commitlog")).unwrap();
        let store = Store::open(config.store.clone()).unwrap();
        let now = StoreTimestamp(1_795_241_300_000);
        let state = State::load(&config, &vfs, &store, now, Arc::default()).unwrap();
        assert_eq!((state.queue_offset, state.before.queue_offset), (0, 0));
        assert_eq!((state.before.units.len(), state.log.end(), state.waiting), (0, 0, 0));
        store.close().unwrap();
    }

    #[test]
    fn a_lost_wheel_or_checkpoint_is_made_again_from_what_is_left() {
        for lost in ["timerwheel", "config/timercheck"] {
            let golden = golden_stores::broker();
            let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
            let config = BrokerConfig::new(Config::new(golden.store_dir()));
            std::fs::remove_file(golden.store_dir().join(lost)).unwrap();
            let store = Store::open(config.store.clone()).unwrap();
            let now = StoreTimestamp(1_795_241_300_000);
            let state = State::load(&config, &vfs, &store, now, Arc::default()).unwrap();
            let slot = state.wheel().unwrap().get(1_795_244_832_000).unwrap();
            assert_eq!((slot.first, slot.last, slot.count), (52, 52, 1), "without {lost}");
            store.close().unwrap();
        }
    }
}
