//! A thread of the broker that takes one turn after another until it is stopped: for work that may wait for the disk.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use parking_lot::{Condvar, Mutex};

use super::Broker;
use crate::error::{Error, Result};

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Whether the next sleep ends at once.
    woken: bool,
}

/// Ends the thread's sleep.
#[derive(Debug, Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

impl Signal {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_all();
    }

    /// Sleeps; whether to go on.
    fn sleep(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.stopped && !state.woken {
            self.changed.wait_for(&mut state, time.max(Duration::from_millis(1)));
        }
        state.woken = false;
        !state.stopped
    }
}

/// The thread, not started at first. Dropping it ends the thread, too, without waiting for that.
#[derive(Debug, Default)]
pub(super) struct Worker {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread. Each turn says how long to sleep before the next.
    pub(super) fn start(
        &self,
        name: &'static str,
        broker: &Arc<Broker>,
        mut turn: impl FnMut(&Broker) -> Duration + Send + 'static,
    ) -> Result<()> {
        let (weak, signal) = (Arc::downgrade(broker), Arc::clone(&self.signal));
        let run = move || loop {
            // Held for the turn only: a broker that is dropped without being stopped ends this thread, too.
            let Some(broker) = weak.upgrade() else { return };
            let pause = turn(&broker);
            drop(broker);
            if !signal.sleep(pause) {
                return;
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        *self.thread.lock() = Some(thread.map_err(Error::io("start", format!("the {name} thread")))?);
        Ok(())
    }

    /// Ends the sleep, or the next one.
    pub(super) fn wake(&self) {
        self.signal.change(|state| state.woken = true);
    }

    /// Whether turns shall end soon.
    pub(super) fn is_stopped(&self) -> bool {
        self.signal.state.lock().stopped
    }

    /// Takes no more turns; returns when the thread has ended.
    pub(super) fn stop(&self) {
        self.signal.change(|state| state.stopped = true);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let name = thread.thread().name().unwrap_or("?").to_owned();
            if thread.join().is_err() {
                tracing::error!("the {name} thread ended by a panic");
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signal.change(|state| state.stopped = true);
    }
}
