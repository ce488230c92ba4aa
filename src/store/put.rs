//! The way of a put: checks and encoding lengths outside any lock, then one lock that owns the appender and the
//! next offset of every queue.
//!
//! Invariant: under the lock, offsets are taken and the record is appended, or neither; so a queue has no gaps and
//! its order is the log's order.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;

use super::{Inner, Store, registry::Registered};
use crate::{
    commit_log::Appender,
    config::FlushDiskType,
    consume_queue::QueueKind,
    dispatch,
    error::{Error, Result},
    format::{
        message::{Draft, Measured, Place},
        message_id::MessageId,
        properties::{self, Properties, PropertiesBuf},
    },
    message::{Message, PutStatus, Queue},
    segment::prefetch,
    types::{PhysicalOffset, QueueOffset, StoreTimestamp, SysFlag, TransactionType},
};

/// What the put lock guards.
#[derive(Debug)]
pub(super) struct PutState {
    pub(super) appender: Appender,
    /// By handle; filled up to the newest handle that was put to.
    next: Vec<QueueOffset>,
}

impl PutState {
    pub(super) const fn new(appender: Appender) -> Self {
        Self { appender, next: Vec::new() }
    }

    #[inline]
    fn next(&mut self, inner: &Inner, queue: Queue) -> Option<&mut QueueOffset> {
        let at = queue.0 as usize;
        if self.next.len() <= at {
            self.meet(inner, at)?;
        }
        self.next.get_mut(at)
    }

    #[cold]
    fn meet(&mut self, inner: &Inner, at: usize) -> Option<()> {
        while self.next.len() <= at {
            let handle = Queue(u32::try_from(self.next.len()).ok()?);
            self.next.push(inner.registry.get(handle)?.first);
        }
        Some(())
    }
}

/// A message on its way: everything that can be known before the lock.
struct Prepared<'a> {
    queue: Queue,
    measured: Measured<'a>,
    /// Queue offsets that this message takes: 0 for prepared and rolled back ones, the number inside for an inner
    /// batch, else 1.
    takes: i64,
    extra: Extra,
    wait: bool,
}

/// Properties whose value is known only under the lock.
enum Extra {
    None,
    InnerBase,
    /// The queues that INNER_MULTI_DISPATCH names.
    MultiDispatch(Vec<Queue>),
}

/// What a put came to: the message stands in the log at its place. How durable it is, [`Appended::wait`] tells;
/// dropping this waits for nothing.
///
/// It is also a future of what `wait` returns, for any executor.
#[derive(Debug)]
#[must_use = "a put is acknowledged by `wait`, `on_durable` or `.await`"]
pub struct Appended<'s> {
    inner: &'s Arc<Inner>,
    place: Placed,
    /// Where the waiting must reach: the end of the record, or of the batch it came in.
    until: PhysicalOffset,
    wait: bool,
    pending: Option<Arc<Mutex<Pending>>>,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    physical: PhysicalOffset,
    size: usize,
    queue_offset: QueueOffset,
    at: StoreTimestamp,
    host: SocketAddr,
}

#[derive(Debug, Default)]
struct Pending {
    done: Option<Result<PutStatus>>,
    waker: Option<Waker>,
}

impl Appended<'_> {
    /// Where the record starts.
    #[must_use]
    pub const fn physical_offset(&self) -> PhysicalOffset {
        self.place.physical
    }

    /// The message's number in its queue.
    #[must_use]
    pub const fn queue_offset(&self) -> QueueOffset {
        self.place.queue_offset
    }

    /// Bytes of the record.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.place.size
    }

    /// The time that the record carries.
    #[must_use]
    pub const fn store_timestamp(&self) -> StoreTimestamp {
        self.place.at
    }

    /// The id that names the broker and the place.
    #[must_use]
    pub fn message_id(&self) -> String {
        MessageId { host: self.place.host, offset: self.place.physical }.to_string()
    }

    /// Blocks until the message is as durable as the store promises: at once under `ASYNC_FLUSH` (it survives
    /// `kill -9`), after the disk has it under `SYNC_FLUSH`. Waits `syncFlushTimeout` at most.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when a sync failed: whether the message survives is then unknown.
    #[inline]
    pub fn wait(self) -> Result<PutStatus> {
        if self.inner.config.flush_disk_type == FlushDiskType::Async {
            return Ok(PutStatus::Ok);
        }
        let timeout = Duration::from_millis(self.inner.config.sync_flush_timeout_ms);
        self.wait_timeout(timeout)
    }

    /// [`Appended::wait`] with its own limit; [`PutStatus::FlushDiskTimeout`] when it passes. The message is stored
    /// all the same.
    ///
    /// # Errors
    /// As [`Appended::wait`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<PutStatus> {
        let log = &self.inner.log;
        let reached = match (self.inner.config.flush_disk_type, self.wait) {
            (FlushDiskType::Async, _) => return Ok(PutStatus::Ok),
            (FlushDiskType::Sync, true) => log.wait_durable(self.until, timeout)?,
            (FlushDiskType::Sync, false) => log.wait_written(self.until).map(|()| true)?,
        };
        Ok(status(reached))
    }

    /// Calls `then` with what [`Appended::wait`] would return, as soon as that is known: at once under
    /// `ASYNC_FLUSH`, else from the thread that syncs, so `then` must be short and must not block.
    pub fn on_durable(self, then: impl FnOnce(Result<PutStatus>) + Send + 'static) {
        let log = &self.inner.log;
        let done: Box<dyn FnOnce(Result<bool>) + Send> = Box::new(move |reached| then(reached.map(status)));
        match (self.inner.config.flush_disk_type, self.wait) {
            (FlushDiskType::Async, _) => done(Ok(true)),
            (FlushDiskType::Sync, true) => log.on_durable(self.until, done),
            // The write that makes it survive `kill -9` comes just before the sync; this is the rarer wish.
            (FlushDiskType::Sync, false) => done(log.wait_written(self.until).map(|()| true)),
        }
    }
}

const fn status(reached: bool) -> PutStatus {
    if reached { PutStatus::Ok } else { PutStatus::FlushDiskTimeout }
}

impl Future for Appended<'_> {
    type Output = Result<PutStatus>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(pending) = &self.pending {
            let mut pending = pending.lock();
            pending.waker = Some(cx.waker().clone());
            return pending.done.take().map_or(Poll::Pending, Poll::Ready);
        }
        let pending = Arc::new(Mutex::new(Pending { done: None, waker: Some(cx.waker().clone()) }));
        self.pending = Some(Arc::clone(&pending));
        let asked = Appended {
            inner: self.inner,
            place: self.place,
            until: self.until,
            wait: self.wait,
            pending: None,
        };
        let told = Arc::clone(&pending);
        asked.on_durable(move |result| {
            let mut told = told.lock();
            told.done = Some(result);
            if let Some(waker) = told.waker.take() {
                waker.wake();
            }
        });
        let done = pending.lock().done.take();
        done.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Store {
    /// Appends a message. Returns when it stands in the log; nothing is waited for.
    ///
    /// Takes a lock for the time of a memory copy. At a segment's end it may wait for the next segment to be made.
    ///
    /// # Errors
    /// A typed error for each limit that the message breaks, [`Error::NoSpace`] and [`Error::DiskFull`] while there
    /// is no room (puts resume by themselves), [`Error::Poisoned`] after a failed sync, [`Error::Closed`].
    /// [`Error::put_status`] gives RocketMQ's word for each. After an error nothing was stored, but for one: where the
    /// log cannot be mapped and the disk fails during this very put, it is [`Error::Poisoned`], and whether the message
    /// is there, the next open tells.
    pub fn put(&self, message: &Message<'_>) -> Result<Appended<'_>> {
        let inner = &self.inner;
        inner.check_open_for_puts()?;
        let prepared = inner.prepare(message)?;
        let place = inner.append_one(&prepared)?;
        Ok(Appended {
            inner,
            until: place.physical.plus(place.size),
            place,
            wait: prepared.wait,
            pending: None,
        })
    }

    /// Appends several messages as one step: they stand one behind the other in one segment, with the same store
    /// timestamp. RocketMQ's batch put; used by brokers also for all messages of one network read.
    ///
    /// The result is in the order of `messages`; each waits for the end of the whole batch.
    ///
    /// # Errors
    /// As [`Store::put`]; [`Error::RecordTooLarge`] when the batch does not fit into one segment. After an error
    /// none of the messages was stored; where the disk failed during this very put, the next open may find the first
    /// ones of them.
    pub fn put_batch(&self, messages: &[Message<'_>]) -> Result<Vec<Appended<'_>>> {
        let inner = &self.inner;
        inner.check_open_for_puts()?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        // Plain loops: collecting moves each of these twice.
        let mut prepared = Vec::with_capacity(messages.len());
        for message in messages {
            prepared.push(inner.prepare(message)?);
        }
        let mut all = Vec::with_capacity(messages.len());
        inner.append(&prepared, |message, place, until| {
            all.push(Appended { inner, place, until, wait: message.wait, pending: None });
        })?;
        Ok(all)
    }
}

impl Inner {
    #[inline]
    fn registered(&self, queue: Queue) -> Result<&Registered> {
        let found = self.registry.get(queue);
        found.filter(|entry| !entry.is_deleted()).ok_or_else(|| no_such_queue(found))
    }

    #[inline]
    fn prepare<'a>(&'a self, message: &'a Message<'_>) -> Result<Prepared<'a>> {
        if let Some(why) = &message.illegal {
            return Err(Error::IllegalMessage { why: why.clone() });
        }
        if properties::look_torn(&message.properties) {
            let why = "properties that begin or end with a byte 0, or have 512 of them in a row, would pass for torn ones";
            return Err(Error::IllegalMessage { why: why.into() });
        }
        let target = self.registered(message.queue)?;
        // Copied under the lock; with thousands of topics it is far away.
        prefetch(target.topic.as_ptr().addr());
        let store_host = message.store_host.unwrap_or(self.store_host);
        let draft = Draft {
            topic: &target.topic,
            queue_id: target.id,
            flag: message.flag,
            sys_flag: message.sys_flag,
            born_timestamp: message.born_timestamp.unwrap_or_else(|| self.clock.now_coarse()),
            born_host: message.born_host.unwrap_or(store_host),
            store_host,
            reconsume_times: message.reconsume_times,
            prepared_transaction_offset: message.prepared_transaction_offset,
            body: message.body,
            properties: &message.properties,
        };
        let plain = message.sys_flag.is_plain() && target.kind == QueueKind::Simple;
        let (takes, extra) = if plain && !self.config.multi_dispatch {
            (1, Extra::None)
        } else {
            self.offsets_taken(message, target)?
        };
        let measured = draft.measure(self.limits)?;
        Ok(Prepared { queue: message.queue, measured, takes, extra, wait: message.wait_store })
    }

    fn offsets_taken(&self, message: &Message<'_>, target: &Registered) -> Result<(i64, Extra)> {
        let all = Properties::new(&message.properties);
        let inner_batch = message.sys_flag.has(SysFlag::INNER_BATCH);
        if inner_batch && target.kind == QueueKind::Simple {
            return Err(Error::IllegalMessage { why: "an inner batch needs a BatchCQ topic".into() });
        }
        if inner_batch {
            let count = all.get(properties::INNER_NUM).and_then(|n| n.parse::<i64>().ok()).filter(|n| *n > 0);
            let count = count
                .ok_or_else(|| Error::IllegalMessage { why: "an inner batch needs INNER_NUM".into() })?;
            return Ok((count, Extra::InnerBase));
        }
        match message.sys_flag.transaction() {
            TransactionType::Prepared | TransactionType::Rollback => return Ok((0, Extra::None)),
            TransactionType::None | TransactionType::Commit => {}
        }
        if self.config.multi_dispatch
            && dispatch::spreads(&target.topic)
            && let Some(names) = all.get(properties::INNER_MULTI_DISPATCH).filter(|names| !names.is_empty())
        {
            let further = names.split(',').map(|name| self.further_queue(name, target.id));
            return Ok((1, Extra::MultiDispatch(further.collect::<Result<Vec<_>>>()?)));
        }
        Ok((1, Extra::None))
    }

    /// [`Inner::append`] for one message, which nearly always has no properties to be added.
    #[inline]
    fn append_one(&self, message: &Prepared<'_>) -> Result<Placed> {
        if !matches!(message.extra, Extra::None) {
            return self.append_completed(message);
        }
        let mut guard = self.put.lock();
        let state = guard.as_mut().ok_or(Error::Closed)?;
        let next = *state.next(self, message.queue).ok_or_else(not_of_this_store)?;
        let queue_offset = if message.takes == 0 { QueueOffset::ZERO } else { next };
        let (now, size) = (self.clock.now_coarse(), message.measured.total_size());
        let physical = state.appender.append(size, |physical_offset, sink| {
            message.measured.encode(Place { queue_offset, physical_offset, store_timestamp: now }, sink);
        })?;
        if let Some(slot) = state.next.get_mut(message.queue.0 as usize) {
            *slot = next.plus(message.takes);
        }
        self.stats.put(1, size);
        drop(guard);
        self.follow(now, 1);
        Ok(Placed { physical, size, queue_offset, at: now, host: message.measured.store_host() })
    }

    #[cold]
    fn append_completed(&self, message: &Prepared<'_>) -> Result<Placed> {
        let mut placed = None;
        self.append(std::slice::from_ref(message), |_, place, _| placed = Some(place))?;
        placed.ok_or_else(not_of_this_store)
    }

    /// Appends all of `messages` under one lock and tells each one's place, and where all of them end.
    fn append<'p, 'm>(
        &self,
        messages: &'p [Prepared<'m>],
        mut each: impl FnMut(&'p Prepared<'m>, Placed, PhysicalOffset),
    ) -> Result<()> {
        let mut guard = self.put.lock();
        let state = guard.as_mut().ok_or(Error::Closed)?;
        let texts = state.extra_properties(self, messages)?;
        let completed = complete(messages, &texts)?;
        let measured = |n: usize| completed.get(n).unwrap_or(&messages[n].measured);
        let total: usize = (0..messages.len()).map(|n| measured(n).total_size()).sum();
        let now = self.clock.now_coarse();
        let PutState { appender, next } = state;
        appender.append(total, |start, sink| {
            let (mut physical, until) = (start, start.plus(total));
            for (n, message) in messages.iter().enumerate() {
                let slot = &mut next[message.queue.0 as usize];
                let queue_offset = if message.takes == 0 { QueueOffset::ZERO } else { *slot };
                let place = Place { queue_offset, physical_offset: physical, store_timestamp: now };
                let measured = measured(n);
                measured.encode(place, sink);
                *slot = slot.plus(message.takes);
                if let Extra::MultiDispatch(queues) = &message.extra {
                    for queue in queues {
                        let slot = &mut next[queue.0 as usize];
                        *slot = slot.plus(1);
                    }
                }
                let size = measured.total_size();
                let placed = Placed { physical, size, queue_offset, at: now, host: measured.store_host() };
                each(message, placed, until);
                physical = physical.plus(size);
            }
        })?;
        self.stats.put(messages.len(), total);
        drop(guard);
        self.follow(now, messages.len());
        Ok(())
    }

    /// Sees to it that what was just published is dispatched.
    #[inline]
    fn follow(&self, now: StoreTimestamp, messages: usize) {
        if !self.turns.are_open() || !self.turns.take(now, messages) {
            self.log.announce();
        }
    }
}

#[cold]
fn no_such_queue(found: Option<&Registered>) -> Error {
    Error::NoSuchQueue {
        topic: found.map_or_else(String::new, |entry| entry.topic.to_string()),
        queue_id: found.map_or_else(Default::default, |entry| entry.id),
    }
}

#[cold]
fn not_of_this_store() -> Error {
    Error::IllegalMessage { why: "the queue is not of this store".into() }
}

/// Offsets that earlier messages of the same batch take, per queue.
#[derive(Default)]
struct Taken(HashMap<Queue, i64>);

impl Taken {
    fn add(&mut self, message: &Prepared<'_>) {
        *self.0.entry(message.queue).or_default() += message.takes;
        if let Extra::MultiDispatch(queues) = &message.extra {
            for queue in queues {
                *self.0.entry(*queue).or_default() += 1;
            }
        }
    }

    fn of(&self, queue: Queue) -> i64 {
        self.0.get(&queue).copied().unwrap_or(0)
    }
}

impl PutState {
    /// Makes sure that every queue of the messages has its next offset here. For messages with properties that
    /// hold such offsets, the text of those; empty when no message has any.
    fn extra_properties(&mut self, inner: &Inner, messages: &[Prepared<'_>]) -> Result<Vec<Vec<u8>>> {
        for message in messages {
            self.next(inner, message.queue).ok_or_else(not_of_this_store)?;
        }
        if messages.iter().all(|message| matches!(message.extra, Extra::None)) {
            return Ok(Vec::new());
        }
        let (mut taken, mut texts) = (Taken::default(), Vec::with_capacity(messages.len()));
        for message in messages {
            let base = *self.next(inner, message.queue).ok_or_else(not_of_this_store)?;
            let mut text = PropertiesBuf::default();
            match &message.extra {
                Extra::None => {}
                Extra::InnerBase => {
                    text.push(properties::INNER_BASE, &base.plus(taken.of(message.queue)).to_string())?;
                }
                Extra::MultiDispatch(queues) => {
                    let mut offsets = Vec::with_capacity(queues.len());
                    for queue in queues {
                        let next =
                            self.next(inner, *queue).ok_or_else(not_of_this_store)?.plus(taken.of(*queue));
                        offsets.push(next.to_string());
                    }
                    text.push(properties::INNER_MULTI_QUEUE_OFFSET, &offsets.join(","))?;
                }
            }
            texts.push(text.into_bytes());
            taken.add(message);
        }
        Ok(texts)
    }
}

/// The messages with their extra properties; empty when there are none.
fn complete<'b>(messages: &'b [Prepared<'_>], texts: &'b [Vec<u8>]) -> Result<Vec<Measured<'b>>> {
    messages.iter().zip(texts).map(|(message, text)| message.measured.with_extra(text)).collect()
}
