//! The bytes of RocketMQ's files as values: pure, no I/O, no clock, no unsafe. FORMAT.md defines them.
//!
//! Every decoder takes bytes that may be anything at all and answers with a value or a [`Corruption`]; none
//! panics, and none allocates by a length that it read. Every encoder writes what the 5.5.0 store would write.
//! All integers are big-endian. Callers: the log, the queues and the index for their own files, recovery and
//! dispatch for the header view, the broker for messages and message ids.

pub mod agreed;
pub mod checkpoint;
pub mod clean_stop;
pub mod consume_queue;
mod draft;
pub mod gap;
pub mod hash;
pub mod index;
pub mod message;
pub mod message_id;
pub mod properties;
mod stamped;

use crate::error::Corruption;

/// What the `lock` file holds.
pub const LOCK_TEXT: &[u8; 4] = b"lock";

/// The `N` bytes at `at`, or how many are missing.
fn chunk<'a, const N: usize>(
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
) -> Result<&'a [u8; N], Corruption> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Corruption::Short {
        what,
        need: N,
        have: bytes.len().saturating_sub(at),
    })
}

/// The `len` bytes at `at`, or how many are missing.
fn range<'a>(bytes: &'a [u8], at: usize, len: usize, what: &'static str) -> Result<&'a [u8], Corruption> {
    at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or(Corruption::Short {
        what,
        need: len,
        have: bytes.len().saturating_sub(at),
    })
}

fn i32_at(bytes: &[u8], at: usize, what: &'static str) -> Result<i32, Corruption> {
    chunk(bytes, at, what).map(|b| i32::from_be_bytes(*b))
}

fn i64_at(bytes: &[u8], at: usize, what: &'static str) -> Result<i64, Corruption> {
    chunk(bytes, at, what).map(|b| i64::from_be_bytes(*b))
}
