//! What waiting is built from. `tests/protocol` compiles the group with loom's own in their place.

pub(super) use std::sync::atomic::{AtomicU32, Ordering};

pub(super) use parking_lot::Mutex;
