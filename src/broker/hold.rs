//! Long polling: pulls that found nothing new wait here until a message arrives or their time is up.
//!
//! Owns the held pulls, by topic and queue. A pull comes in with the offset it waits for; it leaves, exactly once,
//!
//! * on arrival of a message that its filter lets through ([`Hold::arrived`], called by the dispatcher for every
//!   message, so it only looks up and moves; the pulls are answered elsewhere),
//! * when a re-check every [`RECHECK`] finds that the queue has moved on, with or without matching messages,
//! * when its group is moved to another offset,
//! * when its time is up, its connection has closed, or the broker stops.
//!
//! Bounds: [`Hold::new`]'s limit for all, beyond which a pull is answered at once; one entry a pull, and one in the order
//! of deadlines, so that a look for those whose time is up visits no others. The lock is held for look-ups and moves
//! only; no answer is made under it. Only the re-check visits all.
//!
//! A message may arrive between the pull's look at the queue and its coming here:
//!
//! ```text
//! pull                                 dispatcher
//! reads max offset = 7
//!                                      publishes offset 7, arrived(8): nobody held
//! put(held, || max offset)             
//!   inserts, then asks again: 8 > 7
//!   takes it out: Woken
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::reput::Arrival;

/// How often held pulls are compared with their queues.
pub(super) const RECHECK: Duration = Duration::from_secs(5);

/// A pull that waits. `P` is what is needed to answer it.
#[derive(Debug)]
pub(crate) struct Held<P> {
    /// Wake when the queue's maximum offset is above this one.
    pub(crate) offset: i64,
    /// Monotonic time at which it is answered in any case.
    pub(crate) deadline: Duration,
    /// The pull.
    pub(crate) pull: P,
}

/// What became of a pull given to [`Hold::put`].
#[derive(Debug)]
pub(crate) enum Put<P> {
    /// It waits.
    Held,
    /// Something arrived meanwhile: pull again.
    Woken(Held<P>),
    /// No room, or the broker stops: answer now.
    Refused(Held<P>),
}

/// A held pull, seen from here.
pub(crate) trait Waiting: Send {
    /// Whether a message that arrived is one that the pull asks for. Called under the lock.
    fn wants(&self, arrival: &Arrival<'_>) -> bool;
    /// Whether nobody waits for the answer any more.
    fn is_gone(&self) -> bool;
}

/// The pulls of each queue, by the number that each is known by here.
type Queues<P> = HashMap<i32, HashMap<u64, Held<P>>>;

#[derive(Debug)]
struct Inner<P> {
    topics: HashMap<Arc<str>, Queues<P>>,
    /// When the time of each pull is up, and where it is.
    deadlines: BTreeMap<(Duration, u64), (Arc<str>, i32)>,
    next_id: u64,
    stopped: bool,
}

impl<P: Waiting> Inner<P> {
    fn put(&mut self, topic: &str, queue_id: i32, held: Held<P>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let known = self.topics.get_key_value(topic);
        let topic = known.map_or_else(|| Arc::from(topic), |(topic, _)| Arc::clone(topic));
        self.deadlines.insert((held.deadline, id), (Arc::clone(&topic), queue_id));
        self.topics.entry(topic).or_default().entry(queue_id).or_default().insert(id, held);
        id
    }

    /// Takes out the pulls of a queue that `which` chooses.
    fn take(
        &mut self,
        topic: &str,
        queue_id: i32,
        mut which: impl FnMut(u64, &Held<P>) -> bool,
    ) -> Vec<Held<P>> {
        let Some(queues) = self.topics.get_mut(topic) else { return Vec::new() };
        let Some(waiting) = queues.get_mut(&queue_id) else { return Vec::new() };
        let mut taken = Vec::new();
        for (id, held) in waiting.extract_if(|id, held| which(*id, held)) {
            self.deadlines.remove(&(held.deadline, id));
            taken.push(held);
        }
        self.forget_empty(topic, queue_id);
        taken
    }

    fn take_one(&mut self, topic: &str, queue_id: i32, id: u64) -> Option<Held<P>> {
        let held = self.topics.get_mut(topic)?.get_mut(&queue_id)?.remove(&id)?;
        self.deadlines.remove(&(held.deadline, id));
        self.forget_empty(topic, queue_id);
        Some(held)
    }

    fn forget_empty(&mut self, topic: &str, queue_id: i32) {
        let Some(queues) = self.topics.get_mut(topic) else { return };
        if queues.get(&queue_id).is_some_and(HashMap::is_empty) {
            queues.remove(&queue_id);
        }
        if queues.is_empty() {
            self.topics.remove(topic);
        }
    }
}

/// The held pulls of a broker.
#[derive(Debug)]
pub(crate) struct Hold<P> {
    inner: Mutex<Inner<P>>,
    /// How many are held; lets the dispatcher pass by without the lock while none is.
    count: AtomicUsize,
    limit: usize,
}

impl<P: Waiting> Hold<P> {
    /// Room for `limit` pulls.
    pub(crate) fn new(limit: usize) -> Self {
        let inner = Inner { topics: HashMap::new(), deadlines: BTreeMap::new(), next_id: 0, stopped: false };
        Self { inner: Mutex::new(inner), count: AtomicUsize::new(0), limit }
    }

    /// How many pulls wait.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether no pull waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds a pull of a queue. `max_offset` reads the queue's maximum offset; it is asked once the pull can be found
    /// by the dispatcher.
    pub(crate) fn put(
        &self,
        topic: &str,
        queue_id: i32,
        held: Held<P>,
        max_offset: impl FnOnce() -> i64,
    ) -> Put<P> {
        let offset = held.offset;
        let id = {
            let mut inner = self.inner.lock();
            if inner.stopped || self.len() >= self.limit {
                return Put::Refused(held);
            }
            self.count.fetch_add(1, Ordering::SeqCst);
            inner.put(topic, queue_id, held)
        };
        if max_offset() <= offset {
            return Put::Held;
        }
        // Whoever took it out meanwhile answers it.
        match self.inner.lock().take_one(topic, queue_id, id) {
            Some(held) => {
                self.count.fetch_sub(1, Ordering::SeqCst);
                Put::Woken(held)
            }
            None => Put::Held,
        }
    }

    /// A message arrived. Takes out the pulls that want it.
    pub(crate) fn arrived(&self, arrival: &Arrival<'_>) -> Vec<Held<P>> {
        if self.is_empty() {
            return Vec::new();
        }
        let offset = arrival.queue_offset.get();
        let mut inner = self.inner.lock();
        let taken = inner.take(arrival.topic, arrival.queue_id.get(), |_, held| {
            offset >= held.offset && held.pull.wants(arrival)
        });
        self.count.fetch_sub(taken.len(), Ordering::SeqCst);
        taken
    }

    /// Takes out the pulls whose time is up at `now`; those that nobody waits for any more are dropped.
    pub(crate) fn due(&self, now: Duration) -> Vec<Held<P>> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut inner = self.inner.lock();
        let mut due = Vec::new();
        while let Some(first) = inner.deadlines.first_entry()
            && first.key().0 <= now
        {
            let ((_, id), (topic, queue_id)) = first.remove_entry();
            due.extend(inner.take_one(&topic, queue_id, id));
        }
        self.count.fetch_sub(due.len(), Ordering::SeqCst);
        drop(inner);
        due.retain(|held| !held.pull.is_gone());
        due
    }

    /// Takes out the pulls whose queue has moved on, and drops those that nobody waits for any more. `max_offset` is asked
    /// without a lock.
    pub(crate) fn moved(&self, max_offset: impl Fn(&str, i32) -> i64) -> Vec<Held<P>> {
        let mut maxima: HashMap<Arc<str>, HashMap<i32, i64>> = HashMap::new();
        for (topic, queue_id) in self.queues() {
            let max = max_offset(&topic, queue_id);
            maxima.entry(topic).or_default().insert(queue_id, max);
        }
        self.sweep(|topic, queue_id, held| {
            maxima.get(topic).and_then(|ids| ids.get(&queue_id)).is_some_and(|max| *max > held.offset)
        })
    }

    /// Takes out the pulls of a topic that `which` chooses.
    pub(crate) fn chosen(&self, topic: &str, which: impl Fn(&P) -> bool) -> Vec<Held<P>> {
        self.sweep(|of, _, held| of == topic && which(&held.pull))
    }

    /// Takes out everything and holds nothing from now on.
    pub(crate) fn stop(&self) -> Vec<Held<P>> {
        self.inner.lock().stopped = true;
        self.sweep(|_, _, _| true)
    }

    fn queues(&self) -> Vec<(Arc<str>, i32)> {
        let inner = self.inner.lock();
        inner.topics.iter().flat_map(|(topic, ids)| ids.keys().map(|id| (Arc::clone(topic), *id))).collect()
    }

    fn sweep(&self, ready: impl Fn(&str, i32, &Held<P>) -> bool) -> Vec<Held<P>> {
        if self.is_empty() {
            return Vec::new();
        }
        let (mut due, mut gone) = (Vec::new(), Vec::new());
        let mut inner = self.inner.lock();
        let Inner { topics, deadlines, .. } = &mut *inner;
        topics.retain(|topic, queues| {
            queues.retain(|queue_id, waiting| {
                let taken =
                    waiting.extract_if(|_, held| held.pull.is_gone() || ready(topic, *queue_id, held));
                for (id, held) in taken {
                    deadlines.remove(&(held.deadline, id));
                    let list = if held.pull.is_gone() { &mut gone } else { &mut due };
                    list.push(held);
                }
                !waiting.is_empty()
            });
            !queues.is_empty()
        });
        self.count.fetch_sub(gone.len() + due.len(), Ordering::SeqCst);
        drop(inner);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::properties::Properties,
        types::{QueueId, QueueOffset, StoreTimestamp, TagsCode},
    };
    use std::sync::{Arc, atomic::AtomicBool};

    #[derive(Debug)]
    struct Pull {
        name: &'static str,
        tag: Option<i64>,
        gone: Arc<AtomicBool>,
    }

    impl Waiting for Pull {
        fn wants(&self, arrival: &Arrival<'_>) -> bool {
            self.tag.is_none_or(|tag| tag == arrival.tags_code.get())
        }

        fn is_gone(&self) -> bool {
            self.gone.load(Ordering::SeqCst)
        }
    }

    fn pull(name: &'static str, offset: i64, deadline: u64, tag: Option<i64>) -> Held<Pull> {
        let pull = Pull { name, tag, gone: Arc::default() };
        Held { offset, deadline: Duration::from_secs(deadline), pull }
    }

    fn arrival(topic: &str, queue_id: i32, offset: i64, tag: i64) -> Arrival<'_> {
        Arrival {
            topic,
            queue_id: QueueId(queue_id),
            queue_offset: QueueOffset(offset),
            tags_code: TagsCode(tag),
            store_timestamp: StoreTimestamp(0),
            properties: Properties::new(b""),
        }
    }

    fn names(held: &[Held<Pull>]) -> Vec<&'static str> {
        let mut names: Vec<_> = held.iter().map(|held| held.pull.name).collect();
        names.sort_unstable();
        names
    }

    fn hold(hold: &Hold<Pull>, held: Held<Pull>) {
        let offset = held.offset;
        assert!(matches!(hold.put("t", 0, held, || offset), Put::Held));
    }

    #[test]
    fn arrival_wakes_those_of_that_queue_whose_filter_lets_the_message_through() {
        let held = Hold::new(10);
        hold(&held, pull("all", 5, 20, None));
        hold(&held, pull("tag 1", 5, 20, Some(1)));
        hold(&held, pull("tag 2", 5, 20, Some(2)));
        hold(&held, pull("later", 9, 20, None));
        assert!(held.arrived(&arrival("t", 1, 5, 1)).is_empty());
        assert!(held.arrived(&arrival("u", 0, 5, 1)).is_empty());
        assert_eq!(names(&held.arrived(&arrival("t", 0, 5, 1))), ["all", "tag 1"]);
        assert_eq!(held.len(), 2);
        assert_eq!(names(&held.arrived(&arrival("t", 0, 9, 7))), ["later"]);
    }

    #[test]
    fn a_message_that_comes_while_the_pull_is_put_away_wakes_it() {
        let held = Hold::new(10);
        hold(&held, pull("other", 5, 20, None));
        match held.put("t", 0, pull("late", 5, 20, None), || 6) {
            Put::Woken(woken) => assert_eq!(woken.pull.name, "late"),
            other => panic!("{other:?}"),
        }
        assert_eq!(held.len(), 1);
        assert_eq!(names(&held.moved(|_, _| 6)), ["other"]);
    }

    #[test]
    fn time_and_closed_connections_empty_it() {
        let held = Hold::new(10);
        hold(&held, pull("20", 5, 20, None));
        hold(&held, pull("30", 5, 30, None));
        let closed = pull("closed", 5, 30, None);
        let gone = Arc::clone(&closed.pull.gone);
        hold(&held, closed);
        let closed_later = pull("closed later", 5, 25, None);
        let gone_later = Arc::clone(&closed_later.pull.gone);
        hold(&held, closed_later);
        assert!(held.due(Duration::from_secs(19)).is_empty());
        gone.store(true, Ordering::SeqCst);
        assert_eq!(names(&held.due(Duration::from_secs(20))), ["20"]);
        assert!(held.moved(|_, _| 5).is_empty());
        assert_eq!(held.len(), 2, "the closed one was dropped");
        gone_later.store(true, Ordering::SeqCst);
        assert_eq!(names(&held.due(Duration::from_secs(30))), ["30"]);
        let inner = held.inner.lock();
        assert!(held.is_empty() && inner.topics.is_empty() && inner.deadlines.is_empty());
    }

    #[test]
    fn a_look_for_those_whose_time_is_up_visits_no_others() {
        #[derive(Debug)]
        struct Counting(Arc<AtomicUsize>);
        impl Waiting for Counting {
            fn wants(&self, _: &Arrival<'_>) -> bool {
                true
            }
            fn is_gone(&self) -> bool {
                self.0.fetch_add(1, Ordering::SeqCst);
                false
            }
        }
        let (held, visits) = (Hold::new(2_000), Arc::new(AtomicUsize::new(0)));
        for n in 0..2_000 {
            let pull = Counting(Arc::clone(&visits));
            let late = Held { offset: 5, deadline: Duration::from_millis(2_000 - n), pull };
            assert!(matches!(held.put(&format!("t{}", n % 7), 0, late, || 5), Put::Held));
        }
        assert!(held.due(Duration::ZERO).is_empty());
        let due = held.due(Duration::from_millis(3));
        assert_eq!(due.iter().map(|held| held.deadline.as_millis()).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((visits.load(Ordering::SeqCst), held.len()), (3, 1_997));
        assert_eq!(held.arrived(&arrival("t0", 0, 5, 1)).len(), 286);
        assert_eq!(held.stop().len(), 1_997 - 286);
        assert!(held.inner.lock().deadlines.is_empty());
    }

    #[test]
    fn a_recheck_wakes_without_asking_the_filter() {
        let held = Hold::new(10);
        hold(&held, pull("tag 1", 5, 20, Some(1)));
        assert!(held.moved(|_, _| 5).is_empty());
        assert_eq!(names(&held.moved(|_, _| 6)), ["tag 1"]);
    }

    #[test]
    fn the_pulls_of_a_topic_can_be_chosen_by_what_they_are() {
        let held = Hold::new(10);
        hold(&held, pull("mine", 5, 20, None));
        hold(&held, pull("other", 5, 20, None));
        assert!(held.chosen("u", |_| true).is_empty());
        assert_eq!(names(&held.chosen("t", |pull| pull.name == "mine")), ["mine"]);
        assert_eq!(held.len(), 1);
    }

    #[test]
    fn beyond_the_limit_and_after_the_stop_pulls_are_answered_at_once() {
        let held = Hold::new(1);
        hold(&held, pull("a", 5, 20, None));
        assert!(matches!(held.put("t", 0, pull("b", 5, 20, None), || 5), Put::Refused(_)));
        assert_eq!(names(&held.stop()), ["a"]);
        assert!(matches!(held.put("t", 0, pull("c", 5, 20, None), || 5), Put::Refused(_)));
    }
}
