//! What a run and its watermarks are built from. `tests/protocol` compiles them with loom's own in their place.

pub(super) use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

pub(super) use parking_lot::RwLock;
