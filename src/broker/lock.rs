//! Which client holds which queue: the locks behind orderly consumption (LOCK_BATCH_MQ 41, UNLOCK_BATCH_MQ 42).
//!
//! A lock is a lease of [`LEASE`]; the client renews it by asking again (Java clients do so every 20 s). It lives in
//! memory only: after a restart each client asks again, as RocketMQ's do. The table is bounded by what it forgets:
//! a group whose leases have all ended goes within [`SWEEP`] of the next request.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Broker, Refusal, Route, json::Json, names};
use crate::remoting::{
    Command, Connection,
    codes::{request, response},
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::LOCK_BATCH_MQ, Route::Answer(lock_batch)),
    (request::UNLOCK_BATCH_MQ, Route::Answer(unlock_batch)),
];

/// How long a lock holds without being renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
/// How often ended leases are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// A queue as clients name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueueName {
    /// The topic.
    pub(crate) topic: String,
    /// The broker, as the client knows it.
    pub(crate) broker: String,
    /// The queue of the topic.
    pub(crate) queue_id: i32,
}

#[derive(Debug)]
struct Lock {
    client: String,
    renewed: Duration,
}

impl Lock {
    fn ended(&self, now: Duration) -> bool {
        now.saturating_sub(self.renewed) > LEASE
    }
}

#[derive(Debug, Default)]
struct Table {
    groups: HashMap<String, HashMap<QueueName, Lock>>,
    swept: Duration,
}

/// All queue locks of this broker. `now` is monotonic time.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    table: Mutex<Table>,
}

impl Locks {
    /// No locks.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Locks for `client` those of `queues` that are free, that it already holds, or whose lease has ended; returns
    /// them.
    pub(crate) fn lock(
        &self,
        now: Duration,
        group: &str,
        client: &str,
        queues: Vec<QueueName>,
    ) -> Vec<QueueName> {
        let mut table = self.table.lock();
        table.sweep(now);
        if queues.is_empty() {
            return queues;
        }
        let held = table.groups.entry(group.to_owned()).or_default();
        let mut granted = Vec::with_capacity(queues.len());
        for queue in queues {
            match held.get_mut(&queue) {
                Some(lock) if lock.client != client && !lock.ended(now) => {}
                Some(lock) => {
                    client.clone_into(&mut lock.client);
                    lock.renewed = now;
                    granted.push(queue);
                }
                None => {
                    held.insert(queue.clone(), Lock { client: client.to_owned(), renewed: now });
                    granted.push(queue);
                }
            }
        }
        granted
    }

    /// Gives up those of `queues` that `client` holds.
    pub(crate) fn unlock(&self, group: &str, client: &str, queues: &[QueueName]) {
        let mut table = self.table.lock();
        let Some(held) = table.groups.get_mut(group) else { return };
        for queue in queues {
            if held.get(queue).is_some_and(|lock| lock.client == client) {
                held.remove(queue);
            }
        }
        if held.is_empty() {
            table.groups.remove(group);
        }
    }

    /// Whether anyone of `group` holds a lock: the group consumes in order.
    pub(crate) fn is_held(&self, now: Duration, group: &str) -> bool {
        let table = self.table.lock();
        table.groups.get(group).is_some_and(|held| held.values().any(|lock| !lock.ended(now)))
    }
}

impl Table {
    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        self.groups.retain(|_, held| {
            held.retain(|_, lock| !lock.ended(now));
            !held.is_empty()
        });
    }
}

/// What both requests say.
struct Request {
    group: String,
    client: String,
    queues: Vec<QueueName>,
}

impl Request {
    fn read(cmd: &Command) -> Result<Self, Refusal> {
        let json = super::body(cmd)?;
        let text = |name: &str| {
            let remark = || Refusal::new(response::INVALID_PARAMETER, format!("the body has no {name}"));
            json.text_of(name).map(str::to_owned).ok_or_else(remark)
        };
        let group = text("consumerGroup")?;
        names::check_group(&group)?;
        let queues = json.get("mqSet").map(Json::items).unwrap_or_default();
        let queues =
            queues.iter().map(QueueName::read).collect::<Option<Vec<_>>>().ok_or_else(|| {
                Refusal::new(response::INVALID_PARAMETER, "mqSet names what cannot be a queue")
            })?;
        Ok(Self { client: text("clientId")?, group, queues })
    }
}

impl QueueName {
    fn read(json: &Json) -> Option<Self> {
        Some(Self {
            topic: json.text_of("topic").filter(|topic| names::is_topic(topic))?.to_owned(),
            broker: json.text_of("brokerName")?.to_owned(),
            queue_id: json.i32_of("queueId")?,
        })
    }

    fn to_json(&self) -> Json {
        Json::map([
            ("brokerName", Json::from(self.broker.as_str())),
            ("queueId", self.queue_id.into()),
            ("topic", self.topic.as_str().into()),
        ])
    }
}

fn lock_batch(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let Request { group, client, queues } = Request::read(cmd)?;
    let granted = broker.locks.lock(broker.clock.monotonic(), &group, &client, queues);
    let granted: Vec<_> = granted.iter().map(QueueName::to_json).collect();
    let body = Json::map([("lockOKMQSet", Json::List(granted))]).compact();
    Ok(cmd.reply(response::SUCCESS).with_body(body))
}

fn unlock_batch(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let Request { group, client, queues } = Request::read(cmd)?;
    broker.locks.unlock(&group, &client, &queues);
    Ok(cmd.reply(response::SUCCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> QueueName {
        QueueName { topic: "t".into(), broker: "b".into(), queue_id: id }
    }

    #[test]
    fn a_queue_belongs_to_one_client_until_its_lease_ends() {
        let locks = Locks::new();
        let at = Duration::from_secs;
        assert_eq!(locks.lock(at(0), "g", "a", vec![queue(0), queue(1)]).len(), 2);
        assert_eq!(locks.lock(at(1), "g", "b", vec![queue(1), queue(2)]), [queue(2)]);
        assert_eq!(locks.lock(at(2), "other", "b", vec![queue(1)]), [queue(1)]);
        assert_eq!(locks.lock(at(50), "g", "a", vec![queue(1)]), [queue(1)], "renewed");
        assert_eq!(locks.lock(at(61), "g", "b", vec![queue(0), queue(1)]), [queue(0)], "0 was not renewed");
        assert_eq!(locks.lock(at(111), "g", "b", vec![queue(1)]), [queue(1)]);
    }

    #[test]
    fn only_the_holder_can_unlock() {
        let locks = Locks::new();
        let now = Duration::from_secs(5);
        locks.lock(now, "g", "a", vec![queue(0)]);
        locks.unlock("g", "b", &[queue(0)]);
        assert!(locks.is_held(now, "g"));
        locks.unlock("g", "a", &[queue(0), queue(7)]);
        assert!(!locks.is_held(now, "g"));
        assert_eq!(locks.lock(now, "g", "b", vec![queue(0)]), [queue(0)]);
    }

    #[test]
    fn ended_leases_are_forgotten() {
        let locks = Locks::new();
        for group in 0..100 {
            locks.lock(Duration::from_secs(1), &format!("g{group}"), "a", vec![queue(0)]);
        }
        assert!(locks.is_held(Duration::from_secs(61), "g1"));
        assert!(!locks.is_held(Duration::from_secs(62), "g1"));
        locks.lock(Duration::from_secs(200), "new", "a", vec![queue(0)]);
        assert_eq!(locks.table.lock().groups.len(), 1);
    }
}
