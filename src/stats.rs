//! Counters, read without locks.
