//! POP: consumers without queues of their own. The broker gives a message to whoever asks first, hides it from the
//! others for a while, and gives it again unless it is acknowledged by then.
//!
//! Owns the waiting pops, what is popped in order, the open check points, and the modes of groups. One pop of a topic
//! and group runs at a time ([`Pop::lock`]). What must outlive a kill is in the revive topic and in the groups'
//! offsets; the rest can be lost at the price of a message that comes twice.
//!
//! ```text
//! receive, ack, invisible, look, assignment   the requests
//! admission      the checks that they share
//! hold           requests that wait
//! order          popping in order
//! revive         giving again what is due, from the revive topic
//! check_point, extra_info   what is written and sent
//! log            writing it
//! ```

mod ack;
mod admission;
mod assignment;
mod check_point;
mod extra_info;
mod hold;
mod invisible;
mod log;
mod look;
mod order;
mod receive;
mod revive;

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::{Arc, Weak, atomic::AtomicUsize},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use super::{Broker, Route, config::BrokerConfig, config_file::ConfigFile, send_queue::Kind as Queued};
use crate::{error::Result, remoting::codes::request};
use {
    assignment::Assignments,
    hold::{Kind, PopHold, Waiter},
    order::Orders,
    receive::Visit,
    revive::Revive,
};

/// The codes that these files answer.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::QUERY_ASSIGNMENT, Route::Take(assignment::query)),
    (request::SET_MESSAGE_REQUEST_MODE, Route::Answer(assignment::set_mode)),
    (request::GET_ALL_MESSAGE_REQUEST_MODE, Route::Answer(assignment::all_modes)),
    (request::POP_MESSAGE, Route::Queued(Queued::Ack, receive::serve)),
    (request::ACK_MESSAGE, Route::Queued(Queued::Ack, ack::one)),
    (request::BATCH_ACK_MESSAGE, Route::Queued(Queued::Ack, ack::batch)),
    (request::CHANGE_MESSAGE_INVISIBLETIME, Route::Queued(Queued::Ack, invisible::change)),
    (request::NOTIFICATION, Route::Take(look::notify)),
    (request::PEEK_MESSAGE, Route::Aside(look::peek)),
    (request::POLLING_INFO, Route::Answer(look::info)),
];

/// How often the hold is looked at for requests whose time is up.
const TICK: Duration = Duration::from_millis(100);
/// How often waiting requests are compared with their queues.
const RECHECK: Duration = Duration::from_secs(5);
/// Locks that the topics and groups share.
const LOCKS: usize = 256;

/// The state of POP consumption.
#[derive(Debug)]
pub(super) struct Pop {
    hold: PopHold,
    orders: Orders,
    revive: Revive,
    assignments: Assignments,
    /// Counts pops.
    turn: AtomicUsize,
    locks: Vec<Mutex<()>>,
}

impl Pop {
    /// Reads the tables; `file` gives the file of a name.
    pub(super) fn load(config: &BrokerConfig, file: impl Fn(&str) -> Result<ConfigFile>) -> Result<Self> {
        Ok(Self {
            hold: PopHold::new(config.pop_held, config.pop_held_each),
            orders: Orders::load(file("consumerOrderInfo.json")?)?,
            revive: Revive::new(config),
            assignments: Assignments::load(file("messageRequestMode.json")?)?,
            turn: AtomicUsize::new(0),
            locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
        })
    }

    /// Holds off other pops of the topic by the group.
    fn lock(&self, topic: &str, group: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        (topic, group).hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0);
        self.locks[at].lock()
    }

    /// Nothing is given again when this returns.
    pub(super) fn stop_giving(&self) {
        self.revive.stop();
    }

    /// Writes `consumerOrderInfo.json`.
    pub(super) fn save(&self, broker: &Broker) -> Result<()> {
        self.orders.save(broker)
    }
}

/// Wires the hold to the store's arrivals and to the clock, and starts giving again. Must be called within a tokio
/// runtime.
pub(super) fn start(broker: &Arc<Broker>) {
    let weak = Arc::downgrade(broker);
    broker.store.on_arrival(Arc::new(move |arrival| {
        let Some(broker) = weak.upgrade() else { return };
        let woken = broker.pop.hold.arrived(arrival);
        if !woken.is_empty() {
            // Not on the dispatcher's thread: it has other messages to pass on.
            broker.runtime.clone().spawn(async move { serve_all(&broker, woken, Visit::Woken) });
        }
    }));
    broker.runtime.spawn(tick(Arc::downgrade(broker)));
    broker.every(Duration::from_millis(broker.config.revive_interval_ms), |broker| {
        broker.pop.revive.step(broker)
    });
    broker.every(Duration::from_millis(broker.config.save_offsets_ms), |broker| {
        if let Err(error) = broker.pop.save(broker) {
            tracing::error!(%error, "consumerOrderInfo.json not saved");
        }
    });
}

/// Answers everything that waits; nothing waits from now on.
pub(super) fn stop(broker: &Arc<Broker>) {
    let waiting = broker.pop.hold.stop();
    serve_all(broker, waiting, Visit::Last);
}

/// Lets the pops of a group look again: an administrator moved the group.
pub(super) fn wake_group(broker: &Arc<Broker>, group: &str, topic: &str) {
    let waiting = broker.pop.hold.of_group(topic, group);
    serve_all(broker, waiting, Visit::Woken);
}

/// Lets one pop of a group look at a queue again.
fn wake(broker: &Arc<Broker>, topic: &str, group: &str, queue: i32) {
    if let Some(waiter) = broker.pop.hold.next_pop(topic, group, queue) {
        serve_again(broker, waiter, Visit::Woken);
    }
}

fn serve_all(broker: &Arc<Broker>, waiters: Vec<Waiter>, visit: Visit) {
    for waiter in waiters {
        serve_again(broker, waiter, visit);
    }
}

/// Serves a request that waited.
fn serve_again(broker: &Arc<Broker>, waiter: Waiter, visit: Visit) {
    let Waiter { conn, cmd, kind, .. } = waiter;
    match kind {
        Kind::Pop => receive::answer_in_turn(broker, conn, cmd, visit),
        Kind::Notification => look::notify_on(broker, &conn, cmd, visit),
    }
}

async fn tick(broker: Weak<Broker>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rechecked = tokio::time::Instant::now();
    loop {
        let at = ticks.tick().await;
        let Some(broker) = broker.upgrade() else { return };
        let now = broker.clock.monotonic();
        for waiter in broker.pop.hold.due(now) {
            let visit = if now >= waiter.deadline { Visit::Last } else { Visit::Woken };
            serve_again(&broker, waiter, visit);
        }
        if at.duration_since(rechecked) < RECHECK {
            continue;
        }
        rechecked = at;
        for (topic, group) in broker.pop.hold.names() {
            let reading = look::Reading { topic: &topic, group: &group, queue: -1, order: false };
            if look::has_message(&broker, &reading, None) {
                wake(&broker, &topic, &group, -1);
            }
        }
    }
}
