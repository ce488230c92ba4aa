//! What turns are made of. `tests/protocol` compiles them with loom's own in their place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering, fence};

pub(super) use parking_lot::Mutex;
