//! Counters of the store, written on the put and get paths and read without locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Live counters; each only grows.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    put_failures: AtomicU64,
    gets: AtomicU64,
    got_messages: AtomicU64,
    got_bytes: AtomicU64,
    dispatched: AtomicU64,
}

/// The counters at one moment, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Messages put.
    pub puts: u64,
    /// Bytes of records put.
    pub put_bytes: u64,
    /// Puts that were refused or failed.
    pub put_failures: u64,
    /// Reads of queues.
    pub gets: u64,
    /// Messages returned by them.
    pub got_messages: u64,
    /// Bytes of records returned by them.
    pub got_bytes: u64,
    /// Records dispatched into queues and index.
    pub dispatched: u64,
}

impl Stats {
    /// Called under the put lock only, so that no locked addition is needed.
    #[inline]
    pub(crate) fn put(&self, messages: usize, bytes: usize) {
        self.puts.store(self.puts.load(Relaxed) + messages as u64, Relaxed);
        self.put_bytes.store(self.put_bytes.load(Relaxed) + bytes as u64, Relaxed);
    }

    pub(crate) fn put_failed(&self) {
        self.put_failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self, messages: usize, bytes: usize) {
        self.gets.fetch_add(1, Relaxed);
        self.got_messages.fetch_add(messages as u64, Relaxed);
        self.got_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn dispatched(&self, records: u64) {
        self.dispatched.fetch_add(records, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            puts: self.puts.load(Relaxed),
            put_bytes: self.put_bytes.load(Relaxed),
            put_failures: self.put_failures.load(Relaxed),
            gets: self.gets.load(Relaxed),
            got_messages: self.got_messages.load(Relaxed),
            got_bytes: self.got_bytes.load(Relaxed),
            dispatched: self.dispatched.load(Relaxed),
        }
    }
}
