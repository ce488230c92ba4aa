//! Pops and notifications that found nothing wait here until a message arrives or their time is up.
//!
//! Owns the waiting requests by topic and group, in the order of their coming. A message wakes one pop and one
//! notification of each group that takes it, not all: the others would find it gone. Bounds: `maxPopPollingSize` in
//! all, `popPollingSize` for one topic, group and queue. The lock is held for look-ups and moves only.
//!
//! A message may arrive between a pop's look at the queues and its coming here, so whoever puts a request looks again
//! when it can be found (as in `broker::hold`).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    broker::{names, selection::Selection},
    remoting::{Command, Connection},
    reput::Arrival,
};

/// What a waiting request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pop,
    Notification,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) conn: Arc<Connection>,
    pub(super) cmd: Command,
    pub(super) kind: Kind,
    /// The queue that it asks for; below 0 for any.
    pub(super) queue: i32,
    /// Monotonic time at which it is answered in any case.
    pub(super) deadline: Duration,
    /// Monotonic time at which to look again without a message.
    pub(super) look_at: Duration,
    pub(super) filter: Selection,
}

impl Waiter {
    const fn asks_for(&self, queue: i32) -> bool {
        self.queue < 0 || queue < 0 || self.queue == queue
    }
}

#[derive(Debug)]
struct Entry {
    id: u64,
    waiter: Waiter,
}

/// Topic -> group -> its waiting requests.
type Topics = HashMap<String, HashMap<String, VecDeque<Entry>>>;

#[derive(Debug, Default)]
struct Inner {
    topics: Topics,
    /// Retry topic -> the topic and group whose retries it holds, for those that wait.
    retries: HashMap<String, (String, String)>,
    next_id: u64,
    stopped: bool,
}

/// The waiting requests of a broker.
#[derive(Debug)]
pub(super) struct PopHold {
    inner: Mutex<Inner>,
    /// How many wait; lets the dispatcher pass by without the lock while none does.
    count: AtomicUsize,
    limit: usize,
    limit_each: usize,
}

impl PopHold {
    /// Room for `limit` requests, of them `limit_each` for one topic, group and queue.
    pub(super) fn new(limit: usize, limit_each: usize) -> Self {
        Self { inner: Mutex::default(), count: AtomicUsize::new(0), limit, limit_each }
    }

    /// Takes a request in and gives the number that it can be taken out by; gives it back when there is no room.
    pub(super) fn put(&self, topic: &str, group: &str, waiter: Waiter) -> Result<u64, Box<Waiter>> {
        let mut inner = self.inner.lock();
        if inner.stopped || self.count.load(Ordering::SeqCst) >= self.limit {
            return Err(Box::new(waiter));
        }
        let waiting = inner.topics.get(topic).and_then(|groups| groups.get(group));
        let same = |entry: &&Entry| entry.waiter.queue == waiter.queue && entry.waiter.kind == waiter.kind;
        if waiting.is_some_and(|waiting| waiting.iter().filter(same).count() >= self.limit_each) {
            return Err(Box::new(waiter));
        }
        if waiting.is_none() {
            for retry in [names::pop_retry_topic(topic, group), names::pop_retry_topic_v2(topic, group)] {
                inner.retries.insert(retry, (topic.to_owned(), group.to_owned()));
            }
        }
        let id = inner.next_id;
        inner.next_id += 1;
        let groups = inner.topics.entry(topic.to_owned()).or_default();
        groups.entry(group.to_owned()).or_default().push_back(Entry { id, waiter });
        self.count.fetch_add(1, Ordering::SeqCst);
        Ok(id)
    }

    /// Takes one request out, unless it has left already.
    pub(super) fn take(&self, topic: &str, group: &str, id: u64) -> Option<Waiter> {
        self.first(topic, group, |entry| entry.id == id)
    }

    /// A message arrived: takes out those that it wakes.
    pub(super) fn arrived(&self, arrival: &Arrival<'_>) -> Vec<Waiter> {
        let topic = arrival.topic;
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let mut inner = self.inner.lock();
        let retry =
            topic.starts_with(names::RETRY_PREFIX).then(|| inner.retries.get(topic).cloned()).flatten();
        let mut woken = Vec::new();
        if let Some((topic, group)) = &retry {
            inner.wake(topic, group, -1, arrival, &mut woken);
        }
        let groups: Vec<String> =
            inner.topics.get(topic).map(|groups| groups.keys().cloned().collect()).unwrap_or_default();
        for group in groups {
            inner.wake(topic, &group, arrival.queue_id.get(), arrival, &mut woken);
        }
        self.count.fetch_sub(woken.len(), Ordering::SeqCst);
        woken
    }

    /// Takes out the first pop of a group that asks for a queue; below 0 for any queue.
    pub(super) fn next_pop(&self, topic: &str, group: &str, queue: i32) -> Option<Waiter> {
        self.first(topic, group, |entry| entry.waiter.kind == Kind::Pop && entry.waiter.asks_for(queue))
    }

    /// Takes out the requests that are to look again at `now`, and drops those that nobody waits for any more.
    pub(super) fn due(&self, now: Duration) -> Vec<Waiter> {
        self.sweep(|_, _, entry| now >= entry.waiter.look_at)
    }

    /// Takes out all requests of a group in a topic.
    pub(super) fn of_group(&self, topic: &str, group: &str) -> Vec<Waiter> {
        self.sweep(|of, by, _| of == topic && by == group)
    }

    /// Takes out everything and holds nothing from now on.
    pub(super) fn stop(&self) -> Vec<Waiter> {
        self.inner.lock().stopped = true;
        self.sweep(|_, _, _| true)
    }

    /// Pops of a group that wait for exactly this queue number.
    pub(super) fn waiting(&self, topic: &str, group: &str, queue: i32) -> usize {
        let inner = self.inner.lock();
        let waiting = inner.topics.get(topic).and_then(|groups| groups.get(group));
        let counts = |entry: &&Entry| entry.waiter.kind == Kind::Pop && entry.waiter.queue == queue;
        waiting.map_or(0, |waiting| waiting.iter().filter(counts).count())
    }

    /// The topics and groups that have waiting requests.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let inner = self.inner.lock();
        let each = inner.topics.iter();
        each.flat_map(|(topic, groups)| groups.keys().map(|group| (topic.clone(), group.clone()))).collect()
    }

    fn first(&self, topic: &str, group: &str, which: impl Fn(&Entry) -> bool) -> Option<Waiter> {
        let mut inner = self.inner.lock();
        let waiting = inner.topics.get_mut(topic)?.get_mut(group)?;
        let at = waiting.iter().position(which)?;
        let taken = waiting.remove(at)?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        inner.tidy(topic, group);
        Some(taken.waiter)
    }

    fn sweep(&self, ready: impl Fn(&str, &str, &Entry) -> bool) -> Vec<Waiter> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let (mut taken, mut gone, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        let mut inner = self.inner.lock();
        for (topic, groups) in &mut inner.topics {
            for (group, waiting) in groups {
                let leaves = |entry: &Entry| entry.waiter.conn.is_closed() || ready(topic, group, entry);
                if !waiting.iter().any(leaves) {
                    continue;
                }
                for entry in std::mem::take(waiting) {
                    if entry.waiter.conn.is_closed() {
                        gone.push(entry.waiter);
                    } else if ready(topic, group, &entry) {
                        taken.push(entry.waiter);
                    } else {
                        waiting.push_back(entry);
                    }
                }
                if waiting.is_empty() {
                    empty.push((topic.clone(), group.clone()));
                }
            }
        }
        for (topic, group) in empty {
            inner.tidy(&topic, &group);
        }
        self.count.fetch_sub(taken.len() + gone.len(), Ordering::SeqCst);
        drop(inner);
        taken
    }
}

impl Inner {
    /// Takes out the first pop and the first notification of a group that a message is for.
    fn wake(&mut self, topic: &str, group: &str, queue: i32, arrival: &Arrival<'_>, woken: &mut Vec<Waiter>) {
        let Some(waiting) = self.topics.get_mut(topic).and_then(|groups| groups.get_mut(group)) else {
            return;
        };
        for kind in [Kind::Pop, Kind::Notification] {
            let fits = |entry: &Entry| {
                let waiter = &entry.waiter;
                waiter.kind == kind
                    && waiter.asks_for(queue)
                    && !waiter.conn.is_closed()
                    && waiter.filter.wants(arrival)
            };
            if let Some(entry) = waiting.iter().position(fits).and_then(|at| waiting.remove(at)) {
                woken.push(entry.waiter);
            }
        }
        self.tidy(topic, group);
    }

    /// Forgets a group that has nothing waiting.
    fn tidy(&mut self, topic: &str, group: &str) {
        let Some(groups) = self.topics.get_mut(topic) else { return };
        if groups.get(group).is_some_and(|waiting| !waiting.is_empty()) {
            return;
        }
        groups.remove(group);
        if groups.is_empty() {
            self.topics.remove(topic);
        }
        self.retries.remove(&names::pop_retry_topic(topic, group));
        self.retries.remove(&names::pop_retry_topic_v2(topic, group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        TagFilter,
        format::{hash, properties::Properties},
        types::{QueueId, QueueOffset, StoreTimestamp},
    };

    fn waiter(opaque: i32, kind: Kind, queue: i32, tags: &str) -> Waiter {
        let mut cmd = Command::request(0);
        cmd.opaque = opaque;
        let conn = Connection::detached(1, "127.0.0.1:1".parse().unwrap());
        let time = Duration::from_secs(10);
        Waiter {
            conn,
            cmd,
            kind,
            queue,
            deadline: time,
            look_at: time,
            filter: Selection::Tags(TagFilter::parse(tags)),
        }
    }

    fn numbers(woken: &[Waiter]) -> Vec<i32> {
        woken.iter().map(|waiter| waiter.cmd.opaque).collect()
    }

    /// A message with tag A in queue 0.
    fn arrival(topic: &str) -> Arrival<'_> {
        Arrival {
            topic,
            queue_id: QueueId(0),
            queue_offset: QueueOffset(0),
            tags_code: hash::tags_code(Some("A")),
            store_timestamp: StoreTimestamp(0),
            properties: Properties::new(b""),
        }
    }

    #[test]
    fn a_message_wakes_one_pop_and_one_notification_of_each_group_that_takes_it() {
        let hold = PopHold::new(100, 100);
        for (n, group, kind, queue, tags) in [
            (1, "g", Kind::Pop, 3, "*"),
            (2, "g", Kind::Pop, -1, "B"),
            (3, "g", Kind::Pop, -1, "A"),
            (4, "g", Kind::Pop, 0, "*"),
            (5, "g", Kind::Notification, -1, "*"),
            (6, "h", Kind::Pop, -1, "*"),
        ] {
            hold.put("t", group, waiter(n, kind, queue, tags)).unwrap();
        }
        assert!(hold.arrived(&arrival("u")).is_empty());
        let mut woken = numbers(&hold.arrived(&arrival("t")));
        woken.sort_unstable();
        assert_eq!(woken, [3, 5, 6]);
        assert_eq!(numbers(&hold.arrived(&arrival("t"))), [4]);
        assert!(hold.arrived(&arrival("t")).is_empty());
        assert_eq!(hold.waiting("t", "g", -1), 1);
        assert_eq!(hold.next_pop("t", "g", 3).unwrap().cmd.opaque, 1);
    }

    #[test]
    fn a_retry_wakes_the_group_that_it_is_for() {
        let hold = PopHold::new(100, 100);
        for n in [1, 2] {
            hold.put("t", "g", waiter(n, Kind::Pop, 2, "*")).unwrap();
        }
        assert!(hold.arrived(&arrival("%RETRY%h_t")).is_empty());
        assert_eq!(numbers(&hold.arrived(&arrival("%RETRY%g_t"))), [1]);
        assert_eq!(numbers(&hold.arrived(&arrival("%RETRY%g+t"))), [2]);
        let inner = hold.inner.lock();
        assert!(inner.topics.is_empty() && inner.retries.is_empty(), "nothing is left behind");
    }

    #[test]
    fn beyond_its_bounds_and_after_the_stop_it_takes_nothing() {
        let hold = PopHold::new(3, 2);
        let put = |n, queue| hold.put("t", "g", waiter(n, Kind::Pop, queue, "*"));
        assert!(put(1, 0).is_ok() && put(2, 0).is_ok() && put(3, 0).is_err(), "two of one queue");
        assert!(put(4, 1).is_ok() && put(5, 2).is_err(), "three in all");
        assert_eq!(numbers(&hold.stop()), [1, 2, 4]);
        assert!(put(6, 0).is_err());
    }

    #[test]
    fn those_whose_time_has_come_and_those_that_are_gone_leave() {
        let hold = PopHold::new(9, 9);
        let id = hold.put("t", "g", waiter(1, Kind::Pop, 0, "*")).unwrap();
        let early = Waiter { look_at: Duration::from_secs(5), ..waiter(2, Kind::Pop, 0, "*") };
        hold.put("t", "g", early).unwrap();
        let closed = waiter(3, Kind::Pop, 0, "*");
        let conn = Arc::clone(&closed.conn);
        hold.put("t", "h", closed).unwrap();
        conn.close();
        assert_eq!(numbers(&hold.due(Duration::from_secs(5))), [2]);
        assert_eq!(hold.names(), [("t".to_owned(), "g".to_owned())]);
        assert_eq!(hold.take("t", "g", id).unwrap().cmd.opaque, 1);
        assert!(hold.take("t", "g", id).is_none() && hold.names().is_empty());
    }
}
