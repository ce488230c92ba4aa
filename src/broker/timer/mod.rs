//! Timed messages: delivered at any second, up to `timerMaxDelaySec` from now.
//!
//! A message that asks for a time goes to rmq_sys_wheel_timer with its real topic and queue as properties ([`park`]). One
//! thread follows that topic and writes a unit for each message into the timer log ([`log`]), where all units of one
//! second are a chain whose end stands in the wheel ([`wheel`]); second after second it puts the messages of a chain to
//! their real queues, in order ([`turn`]). What is due beyond `timerRollWindowSlot` seconds goes round again until it is
//! near enough. [`recall`] takes a message back.
//!
//! The files are RocketMQ's, `timerwheel`, `timerlog/` and `config/timercheck`, so either broker can go on where the
//! other stopped. Invariants: a unit is written before the topic's offset moves past its message; a second is over only
//! when all its messages are in the log; and the checkpoint says either only when that is durable. What a kill left
//! delivered and not in the checkpoint is found in the log again ([`Copies`]) and does not come twice. The wheel holds nothing that does not follow from
//! the timer log, and the timer log nothing that does not follow from the topic; [`state`] makes both agree at start.

mod format;
mod log;
mod park;
mod recall;
mod report;
mod state;
mod turn;
mod wheel;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

pub(super) use park::Timed;
use {
    state::{Shown, State},
    wheel::Wheel,
};

use super::{
    Broker, BrokerConfig, Route, counts::Counts, delivered::Copies, names, topics::Topics, worker::Worker,
};
use crate::{
    error::Result,
    format::hash::java_string_hash,
    store::Store,
    types::{PhysicalOffset, QueueOffset, StoreTimestamp},
    vfs::Vfs,
};

/// The codes that these files answer.
pub(super) const ROUTES: &[&[(i32, Route)]] = &[recall::ROUTES, report::ROUTES];

/// The pause after a turn that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The timers.
#[derive(Debug)]
pub(crate) struct Timer {
    /// `None` when the broker has no timers.
    state: Option<Mutex<State>>,
    /// Shared with the state, so that senders need not wait for a turn. Made for the first timed message.
    wheel: Arc<Mutex<Option<Arc<Wheel>>>>,
    /// Shared as well: a turn may take as long as the disk wants.
    shown: Option<Arc<Shown>>,
    /// What was delivered and is not in the checkpoint, as the log says.
    delivered: Copies,
    worker: Worker,
}

impl Timer {
    /// Opens the files, as far as there are any, and makes them agree with the topic.
    pub(super) fn load(
        config: &BrokerConfig,
        vfs: &Arc<dyn Vfs>,
        store: &Store,
        now: StoreTimestamp,
    ) -> Result<Self> {
        let wheel = Arc::default();
        let state = if config.timer_wheel {
            Some(Mutex::new(State::load(config, vfs, store, now, Arc::clone(&wheel))?))
        } else {
            None
        };
        let (mut delivered, mut shown) = (Copies::default(), None);
        if let Some(state) = &state {
            let state = state.lock();
            (delivered, shown) = (Copies::since(state.since), Some(Arc::clone(&state.shown)));
        }
        Ok(Self { state, wheel, shown, delivered, worker: Worker::default() })
    }

    /// The copies that it does not know of, and a place that none of them lies before.
    pub(super) fn copies(&self, store: &Store) -> (&Copies, PhysicalOffset) {
        let queue = store.find_queue(names::TIMER_TOPIC, park::TIMER_QUEUE);
        let used = queue.is_some_and(|queue| store.max_offset(queue) > QueueOffset::ZERO);
        (&self.delivered, if used { PhysicalOffset::ZERO } else { PhysicalOffset(i64::MAX) })
    }

    /// Counts what waits of each topic: what `counts` says may be from before a kill.
    pub(super) fn recount(&self, counts: &Counts, topics: &Topics, now: StoreTimestamp) {
        let Some(state) = &self.state else { return };
        let waiting = std::mem::take(&mut state.lock().waiting_by_topic);
        let (topics, _) = topics.all();
        counts.recount(topics.iter().map(|topic| topic.name.as_str()), now, |topic| {
            waiting.get(&java_string_hash(topic)).copied().unwrap_or(0)
        });
    }

    /// The checkpoint as it was saved last; `None` when the broker has no timers.
    fn saved(&self) -> Option<Vec<u8>> {
        self.shown.as_ref().map(|shown| shown.saved_bytes())
    }

    /// The time before which all is delivered; `None` when the broker has no timers.
    pub(super) fn passed(&self) -> Option<i64> {
        self.shown.as_ref().map(|shown| shown.passed())
    }

    /// Starts the thread.
    pub(super) fn start(broker: &Arc<Broker>) -> Result<()> {
        if broker.timer.state.is_none() {
            return Ok(());
        }
        broker.timer.worker.start("timer", broker, |broker| match broker.timer.turn(broker) {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "timed messages not delivered, trying again");
                RETRY
            }
        })
    }

    /// One turn; how long until the next is worth taking.
    fn turn(&self, broker: &Broker) -> Result<Duration> {
        let Some(state) = &self.state else { return Ok(RETRY) };
        let mut state = state.lock();
        state.take_turn(broker)?;
        state.save_due(broker)?;
        Ok(state.until_next(broker.clock.now()))
    }

    /// Ends the thread.
    pub(super) fn quiesce(&self) {
        self.worker.stop();
    }

    /// Saves how far it came; all that was delivered is durable.
    pub(super) fn stop(&self, broker: &Broker) -> Result<()> {
        self.state.as_ref().map_or(Ok(()), |state| state.lock().save(broker))
    }

    /// Messages that wait for a time; `None` when nothing waits for it.
    fn count(&self, out_ms: i64) -> Option<i32> {
        let wheel = self.wheel.lock().clone()?;
        wheel.get(out_ms).map(|slot| slot.count)
    }

    /// What operators are told: milliseconds that delivery is behind, messages of the topic that are not in the wheel
    /// yet, messages that wait.
    pub(super) fn figures(&self, broker: &Broker) -> Option<[i64; 3]> {
        self.shown.as_ref().map(|shown| shown.figures(broker))
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::mpsc};

    use super::*;
    use crate::{
        Config,
        broker::{self, Door, shut},
        clock::SystemClock,
        remoting::{
            Command, Connection, Service,
            codes::{request, response},
        },
        vfs::OsVfs,
    };

    /// A turn holds the state for as long as the disk takes; a name server's or an operator's question must not wait.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn how_far_the_timers_are_is_told_while_a_turn_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig::new(Config::new(dir.path()).commit_log_file_size(1u64 << 20));
        let clock = Arc::new(SystemClock::new());
        let broker = Arc::new(broker::open(config, Arc::new(OsVfs), clock).unwrap());
        let turn = broker.timer.state.as_ref().unwrap().lock();
        let (tell, told) = mpsc::channel();
        let door = Door(Arc::clone(&broker));
        let asks = std::thread::spawn(move || {
            let conn = Connection::detached(1, SocketAddr::from(([127, 0, 0, 1], 4_000)));
            for code in [request::GET_BROKER_RUNTIME_INFO, request::GET_TIMER_CHECK_POINT] {
                door.serve(&conn, vec![Command::request(code)]);
                let mut sent = Vec::new();
                while sent.is_empty() {
                    std::thread::sleep(Duration::from_millis(1));
                    sent = conn.take_sent();
                }
                tell.send(sent.remove(0)).unwrap();
            }
        });
        let answer = || told.recv_timeout(Duration::from_secs(20)).expect("not answered");
        let info = answer();
        assert_eq!(info.code, response::SUCCESS);
        let text = String::from_utf8(info.body.to_bytes().to_vec()).unwrap();
        assert!(text.contains("\"timerCongestNum\":\"0\""), "{text}");
        let saved = answer();
        assert_eq!((saved.code, saved.body.len()), (response::SUCCESS, 56));
        drop(turn);
        asks.join().unwrap();
        shut(&broker).await.unwrap();
    }
}
