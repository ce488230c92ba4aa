//! The store's protocols between threads in every interleaving with up to three preemptions.
//!
//! [`group`], [`segment::run`], [`segment::watermark`] and [`reput::turns`] are the store's own files, compiled here with loom's locks,
//! atomics, `Arc` and a futex built from them; no wait has a timeout, so whoever is not woken hangs, and loom says so.
//! What surrounds them is a model, in the same order of steps: `CommitLog::wait_durable` and `sync_round` around the
//! group, a segment whose file is two bytes and whose unmapping is a write to them, and a dispatcher that counts.
//!
//! `cargo test --release --manifest-path tests/protocol/Cargo.toml`
#![cfg(test)]

#[allow(dead_code, reason = "the model has no completions")]
#[path = "../../../src/commit_log/group.rs"]
mod group;

/// The run of segments and its leases.
mod segment {
    #[allow(dead_code, reason = "the model asks for one place at a time")]
    #[path = "../../../../src/segment/run.rs"]
    pub mod run;
    #[path = "../../../../src/segment/watermark.rs"]
    pub mod watermark;

    /// What `src/segment/sync.rs` is to the store.
    mod sync {
        pub use loom::sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        };

        /// A lock that cannot be poisoned, as the store's.
        #[derive(Debug)]
        pub struct RwLock<T>(loom::sync::RwLock<T>);

        impl<T> RwLock<T> {
            pub fn new(value: T) -> Self {
                Self(loom::sync::RwLock::new(value))
            }

            pub fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
                self.0.read().expect("no thread of a model panics")
            }

            pub fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
                self.0.write().expect("no thread of a model panics")
            }
        }
    }

    mod model;
    pub use model::Segment;
}

/// Who dispatches.
mod reput {
    #[allow(dead_code, reason = "the model never ends, and always asks")]
    #[path = "../../../../src/reput/turns.rs"]
    pub mod turns;

    /// What `src/reput/sync.rs` is to the store.
    mod sync {
        pub use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering, fence};

        /// A lock that cannot be poisoned, as the store's.
        #[derive(Debug)]
        pub struct Mutex<T>(loom::sync::Mutex<T>);

        impl<T> Mutex<T> {
            pub fn new(value: T) -> Self {
                Self(loom::sync::Mutex::new(value))
            }

            pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
                self.0.lock().expect("no thread of a model panics")
            }

            pub fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
                self.0.try_lock().ok()
            }
        }
    }

    mod model;
    use model::{Progress, Reput};
}

/// What `src/commit_log/sync.rs` is to the store.
mod sync {
    pub use loom::sync::atomic::{AtomicU32, Ordering};

    /// A lock that cannot be poisoned, as the store's.
    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self(loom::sync::Mutex::new(T::default()))
        }
    }

    impl<T> Mutex<T> {
        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no thread of a model panics")
        }
    }
}

mod error {
    pub type Result<T> = std::result::Result<T, ()>;
}

mod types {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub struct PhysicalOffset(pub i64);
    #[derive(Clone, Copy, Debug)]
    pub struct StoreTimestamp(pub i64);
}

/// The system's futex.
mod vfs {
    use std::time::Duration;

    use loom::sync::{
        Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    };

    loom::lazy_static! {
        static ref QUEUE: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    }

    pub fn sleep_on(word: &AtomicU32, seen: u32, _: Duration) {
        let (lock, sleepers) = &*QUEUE;
        let mut held = lock.lock().expect("no poison");
        while word.load(Ordering::Acquire) == seen {
            held = sleepers.wait(held).expect("no poison");
        }
    }

    pub fn wake_all(_: &AtomicU32) {
        let (lock, sleepers) = &*QUEUE;
        drop(lock.lock());
        sleepers.notify_all();
    }
}

mod model;
