//! Numbers for queues, found by topic and queue number without a search: the dispatcher and recovery keep what they
//! know of each queue in an array, and look it up for every record.

use std::{collections::HashMap, hash::BuildHasherDefault};

use crate::{
    error::Result,
    format::hash::{IndexKeys, NameHasher},
    types::{QueueId, TopicName},
};

/// No queue.
const NONE: u32 = u32::MAX;
/// Queues with numbers below this are found by place.
const DENSE: usize = 1024;

/// One topic.
#[derive(Debug)]
struct Topic {
    name: TopicName,
    hashes: IndexKeys,
    dense: Vec<u32>,
    others: HashMap<QueueId, u32>,
}

impl Topic {
    #[inline]
    fn find(&self, id: QueueId) -> Option<u32> {
        match usize::try_from(id.0).ok().and_then(|number| self.dense.get(number)) {
            Some(&place) if place != NONE => Some(place),
            Some(_) => None,
            None => self.others.get(&id).copied(),
        }
    }
}

/// A topic that was met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicPlace(usize);

/// See the module's text. Grows with the topics and queues that are met, and only so.
#[derive(Debug, Default)]
pub(crate) struct QueuePlaces {
    by_name: HashMap<TopicName, usize, BuildHasherDefault<NameHasher>>,
    topics: Vec<Topic>,
    /// The topic of the last record: the next one's is often the same.
    latest: usize,
}

impl QueuePlaces {
    /// The topic of this name.
    ///
    /// # Errors
    /// [`crate::Error::InvalidTopic`].
    #[inline]
    pub(crate) fn topic(&mut self, name: &str) -> Result<TopicPlace> {
        if self.topics.get(self.latest).is_none_or(|topic| topic.name.as_str() != name) {
            self.latest = match self.by_name.get(name) {
                Some(place) => *place,
                None => self.meet(name)?,
            };
        }
        Ok(TopicPlace(self.latest))
    }

    #[cold]
    fn meet(&mut self, name: &str) -> Result<usize> {
        let (name, place) = (TopicName::new(name)?, self.topics.len());
        let hashes = IndexKeys::of(&name);
        self.topics.push(Topic { name: name.clone(), hashes, dense: Vec::new(), others: HashMap::new() });
        self.by_name.insert(name, place);
        Ok(place)
    }

    /// The name of a topic.
    pub(crate) fn name(&self, topic: TopicPlace) -> &TopicName {
        &self.topics[topic.0].name
    }

    /// The beginnings of a topic's index keys.
    #[inline]
    pub(crate) fn hashes(&self, topic: TopicPlace) -> IndexKeys {
        self.topics[topic.0].hashes
    }

    /// The number that a queue was given.
    #[inline]
    pub(crate) fn find(&self, topic: TopicPlace, id: QueueId) -> Option<u32> {
        self.topics[topic.0].find(id)
    }

    /// [`QueuePlaces::find`] by name.
    pub(crate) fn find_by_name(&self, name: &str, id: QueueId) -> Option<u32> {
        self.topics.get(*self.by_name.get(name)?)?.find(id)
    }

    /// Gives a queue a number, which must be below 2^32 - 1.
    pub(crate) fn set(&mut self, topic: TopicPlace, id: QueueId, place: u32) {
        let topic = &mut self.topics[topic.0];
        match usize::try_from(id.0) {
            Ok(number) if number < DENSE => {
                topic.dense.resize(topic.dense.len().max(number + 1), NONE);
                topic.dense[number] = place;
            }
            _ => {
                topic.others.insert(id, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
