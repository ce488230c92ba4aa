//! How far a check has come while recovery reads the log, and after.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use super::Progress;
use crate::{
    clock::SystemClock,
    config::Config,
    error::{Error, Result},
    store::Store,
    types::PhysicalOffset,
    vfs::{OverlayVfs, Vfs},
};

/// How often recovery is asked where it is.
const EVERY: Duration = Duration::from_millis(50);

/// A check under way.
pub(super) struct Reading<'p> {
    tell: &'p mut dyn FnMut(Progress),
    first: PhysicalOffset,
    /// Bytes of the log that may be anything but zero, roughly.
    log: u64,
}

impl<'p> Reading<'p> {
    /// Looks how much there is to read.
    pub(super) fn new(config: &Config, vfs: &dyn Vfs, tell: &'p mut dyn FnMut(Progress)) -> Result<Self> {
        let dir = config.commit_log_path();
        let (mut first, mut end) = (None, 0);
        for entry in vfs.list(&dir).map_err(Error::io("list", &dir))? {
            let Some(base) = entry.name.parse::<u64>().ok().filter(|_| !entry.is_dir && entry.len > 0) else {
                continue;
            };
            first = first.or(Some(base));
            let path = dir.join(&entry.name);
            let file = vfs.open(&path).map_err(Error::io("open", &path))?;
            let mut at = 0;
            while let Some(data) = file.data_from(at) {
                at = data.end;
                end = base.saturating_add(at as u64);
            }
        }
        let first = first.unwrap_or(0);
        let log = end.saturating_sub(first);
        let first = PhysicalOffset(i64::try_from(first).unwrap_or(i64::MAX));
        Ok(Self { tell, first, log })
    }

    fn tell(&mut self, read: u64, of: u64) {
        (self.tell)(Progress { done: (read.min(self.log)) + of, total: 2 * self.log });
    }

    /// Opens the store on a thread of its own, and says meanwhile how far it is.
    pub(super) fn open(&mut self, config: &Config, overlay: &Arc<OverlayVfs>) -> Result<Store> {
        let over: Arc<dyn Vfs> = Arc::<OverlayVfs>::clone(overlay);
        let (done, opened) = mpsc::channel();
        self.tell(0, 0);
        let store = thread::scope(|scope| {
            let opening = thread::Builder::new().name("reput-verify".into()).spawn_scoped(scope, move || {
                let opened = Store::open_stepped(config.clone(), over, Arc::new(SystemClock::new()));
                // Whoever waits is told by the end of this thread if not by this.
                let _ = done.send(());
                opened
            });
            let opening = opening.map_err(Error::io("start a thread for", &config.root))?;
            while opened.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let reached = config.reached.get();
                if reached > self.first {
                    self.tell(reached.since(self.first), 0);
                }
            }
            opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let (store, _steps) = store?;
        self.tell(self.log, 0);
        Ok(store)
    }

    /// Says how far the second walk is, which counts its own bytes.
    pub(super) fn again(&mut self, now: Progress) {
        self.tell(now.done, self.log);
    }

    /// All is read.
    pub(super) fn end(&mut self) {
        self.tell(self.log, self.log);
    }
}
