//! What breaks a RocketMQ store, one test a way: 37 concrete failures, numbered as in the catalogue that the tests'
//! headers name, each with what the Java store does (5.5.0, most of it executed) and what must happen here.
//!
//! The geometry is that of the catalogue: segments of 64 KiB, ConsumeQueue files of 300 entries, 300 messages of 1,000
//! bytes in one queue.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod damage;
mod device;
mod files;
mod hints;
mod index;
mod queues;
mod rig;
#[cfg(feature = "broker")]
mod tables;
mod tail;
