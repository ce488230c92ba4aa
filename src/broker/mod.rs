//! The broker: translates the wire into calls of the store.
