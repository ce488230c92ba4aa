//! Numbers for queues, found by topic and queue number without a search: the dispatcher and recovery keep what they
//! know of each queue in an array, and look it up for every record.
//!
//! With thousands of topics each look-up meets cold memory, so it touches little: a bucket of the table of names, and
//! one line of the topic, which holds a short name and the first queues itself. [`QueuePlaces::expect`] fetches both
//! ahead for several records at once.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault},
};

use crate::{
    error::Result,
    format::hash::{IndexKeys, NameHasher},
    segment::prefetch_value,
    types::{QueueId, TopicName},
};

/// No queue, no topic.
const NONE: u32 = u32::MAX;
/// Queues with numbers below this are found by place.
const DENSE: usize = 1024;
/// Of those, the ones that a topic's line holds.
const FIRST: usize = 4;
/// Bytes of a name that a topic's line holds.
const SHORT: usize = 39;
/// Fewer topics than this stay in the cache by themselves.
const MANY: usize = 256;
/// Names that are expected together.
pub(crate) const GROUP: usize = 16;

/// One topic, in one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Topic {
    rest: Box<Rest>,
    first: [u32; FIRST],
    /// Length of the name, which is in `short` if it fits.
    len: u8,
    short: [u8; SHORT],
}

#[derive(Debug)]
struct Rest {
    name: TopicName,
    hashes: IndexKeys,
    /// By number from [`FIRST`] on.
    dense: Vec<u32>,
    others: HashMap<QueueId, u32>,
}

impl Topic {
    fn new(name: TopicName) -> Self {
        let (mut short, len) = ([0; SHORT], name.len());
        if let Some(place) = short.get_mut(..len) {
            place.copy_from_slice(name.as_bytes());
        }
        let len = u8::try_from(len).unwrap_or(u8::MAX);
        let hashes = IndexKeys::of(&name);
        let rest = Rest { name, hashes, dense: Vec::new(), others: HashMap::new() };
        Self { rest: Box::new(rest), first: [NONE; FIRST], len, short }
    }

    #[inline]
    fn is(&self, name: &str) -> bool {
        match self.short.get(..self.len.into()) {
            Some(short) => short == name.as_bytes(),
            None => self.rest.name.as_str() == name,
        }
    }

    #[inline]
    fn find(&self, id: QueueId) -> Option<u32> {
        let number = usize::try_from(id.0).unwrap_or(usize::MAX);
        let place = match self.first.get(number) {
            Some(&place) => place,
            None => self.rest.find(id, number),
        };
        Some(place).filter(|place| *place != NONE)
    }
}

impl Rest {
    fn find(&self, id: QueueId, number: usize) -> u32 {
        match self.dense.get(number.wrapping_sub(FIRST)) {
            Some(&place) => place,
            None => self.others.get(&id).copied().unwrap_or(NONE),
        }
    }
}

/// A topic that was met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicPlace(usize);

/// Where a topic of a name stands, if its hash is as `tag` says.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tag: u32,
    place: u32,
}

/// Topics by the hash of their names: open addressing, at most half full.
#[derive(Debug, Default)]
struct Names {
    buckets: Vec<Bucket>,
    count: usize,
}

impl Names {
    #[inline]
    fn split(hash: u64) -> (usize, u32) {
        (usize::try_from(hash & u64::from(u32::MAX)).unwrap_or(0), u32::try_from(hash >> 32).unwrap_or(0))
    }

    /// Topics whose names may have this hash.
    #[inline]
    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (at, tag) = Self::split(hash);
        let mask = self.buckets.len().wrapping_sub(1);
        (at..)
            .map_while(move |at| self.buckets.get(at & mask).filter(|bucket| bucket.place != NONE))
            .filter(move |bucket| bucket.tag == tag)
            .map(|bucket| bucket.place as usize)
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        let mask = self.buckets.len().wrapping_sub(1);
        if let Some(bucket) = self.buckets.get(Self::split(hash).0 & mask) {
            prefetch_value(bucket, 1);
        }
    }

    fn insert(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        self.count += 1;
        if self.count * 2 > self.buckets.len() {
            let len = (self.buckets.len() * 2).max(64);
            let old = std::mem::replace(&mut self.buckets, vec![Bucket { tag: 0, place: NONE }; len]);
            for bucket in old.into_iter().filter(|bucket| bucket.place != NONE) {
                self.set(hash_of(bucket.place), bucket.place);
            }
        }
        self.set(hash, place);
    }

    fn set(&mut self, hash: u64, place: u32) {
        let (at, tag) = Self::split(hash);
        let mask = self.buckets.len() - 1;
        let free = (at..).map(|at| at & mask).find(|at| self.buckets[*at].place == NONE);
        if let Some(at) = free {
            self.buckets[at] = Bucket { tag, place };
        }
    }
}

/// See the module's text. Grows with the topics and queues that are met, and only so.
#[derive(Debug, Default)]
pub(crate) struct QueuePlaces {
    names: Names,
    topics: Vec<Topic>,
    /// The topic of the last record: the next one's is often the same.
    latest: usize,
}

#[inline]
fn hash_of(name: &str) -> u64 {
    BuildHasherDefault::<NameHasher>::default().hash_one(name)
}

impl QueuePlaces {
    /// The topic of this name.
    ///
    /// # Errors
    /// [`crate::Error::InvalidTopic`].
    #[inline]
    pub(crate) fn topic(&mut self, name: &str) -> Result<TopicPlace> {
        if self.topics.get(self.latest).is_none_or(|topic| !topic.is(name)) {
            self.latest = match self.place(name) {
                Some(place) => place,
                None => self.meet(name)?,
            };
        }
        Ok(TopicPlace(self.latest))
    }

    #[inline]
    fn place(&self, name: &str) -> Option<usize> {
        self.names.candidates(hash_of(name)).find(|place| self.topics[*place].is(name))
    }

    #[cold]
    fn meet(&mut self, name: &str) -> Result<usize> {
        let (name, place) = (TopicName::new(name)?, self.topics.len());
        let number = u32::try_from(place).unwrap_or(NONE - 1);
        let hash = hash_of(&name);
        self.topics.push(Topic::new(name));
        let topics = &self.topics;
        self.names.insert(hash, number, |place| hash_of(&topics[place as usize].rest.name));
        Ok(place)
    }

    /// Brings closer what finding these topics will look at, [`GROUP`] of them at most.
    #[inline]
    pub(crate) fn expect<'n>(&self, names: impl Iterator<Item = &'n str>) {
        if self.topics.len() < MANY {
            return;
        }
        let (mut hashes, mut count) = ([0; GROUP], 0);
        for (hash, name) in hashes.iter_mut().zip(names) {
            *hash = hash_of(name);
            self.names.prefetch(*hash);
            count += 1;
        }
        for hash in &hashes[..count] {
            if let Some(topic) = self.names.candidates(*hash).next().and_then(|place| self.topics.get(place))
            {
                prefetch_value(topic, 1);
            }
        }
    }

    /// The name of a topic.
    pub(crate) fn name(&self, topic: TopicPlace) -> &TopicName {
        &self.topics[topic.0].rest.name
    }

    /// The beginnings of a topic's index keys.
    #[inline]
    pub(crate) fn hashes(&self, topic: TopicPlace) -> IndexKeys {
        self.topics[topic.0].rest.hashes
    }

    /// The number that a queue was given.
    #[inline]
    pub(crate) fn find(&self, topic: TopicPlace, id: QueueId) -> Option<u32> {
        self.topics[topic.0].find(id)
    }

    /// [`QueuePlaces::find`] by name.
    pub(crate) fn find_by_name(&self, name: &str, id: QueueId) -> Option<u32> {
        self.topics.get(self.place(name)?)?.find(id)
    }

    /// Gives a queue a number, which must be below 2^32 - 1.
    pub(crate) fn set(&mut self, topic: TopicPlace, id: QueueId, place: u32) {
        let Topic { first, rest, .. } = &mut self.topics[topic.0];
        match usize::try_from(id.0) {
            Ok(number) if number < FIRST => first[number] = place,
            Ok(number) if number < DENSE => {
                let number = number - FIRST;
                rest.dense.resize(rest.dense.len().max(number + 1), NONE);
                rest.dense[number] = place;
            }
            _ => {
                rest.others.insert(id, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_fits_into_one_cache_line() {
        assert_eq!((size_of::<Topic>(), align_of::<Topic>()), (64, 64));
    }

    #[test]
    fn thousands_of_topics_are_told_apart_whatever_their_names_begin_with() {
        let mut places = QueuePlaces::default();
        let name = |n: usize| format!("{}{n}", "t".repeat(n % 3 * 37));
        for n in 0..3 * MANY {
            let place = places.topic(&name(n)).unwrap();
            assert_eq!(place.0, n);
            places.set(place, QueueId(0), u32::try_from(n).unwrap());
        }
        let names: Vec<_> = (0..3 * MANY).map(name).collect();
        places.expect(names.iter().take(GROUP).map(String::as_str));
        for (n, name) in names.iter().enumerate().rev() {
            assert_eq!(places.topic(name).unwrap().0, n);
            assert_eq!(places.find_by_name(name, QueueId(0)), u32::try_from(n).ok());
        }
        assert_eq!(places.find_by_name("t", QueueId(0)), None);
    }

    #[test]
    fn a_queue_is_found_by_the_number_that_it_was_given() {
        let mut places = QueuePlaces::default();
        let mut given = Vec::new();
        for (topic, id) in
            [("a", 0), ("b", 3), ("a", 1023), ("a", 1024), ("b", i32::MAX), ("a", 3), ("b", -1)]
        {
            let place = places.topic(topic).unwrap();
            assert_eq!(places.find(place, QueueId(id)), None);
            let number = u32::try_from(given.len()).unwrap();
            places.set(place, QueueId(id), number);
            given.push((topic, id, number));
        }
        for (topic, id, number) in given {
            let place = places.topic(topic).unwrap();
            assert_eq!(places.name(place).as_str(), topic);
            assert_eq!(places.find(place, QueueId(id)), Some(number));
            assert_eq!(places.find_by_name(topic, QueueId(id)), Some(number));
        }
        assert_eq!(places.find_by_name("c", QueueId(0)), None);
        assert!(places.topic("no/topic").is_err());
    }
}
