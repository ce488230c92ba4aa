//! The index: from the hash of a message's key to its place in the log.
//!
//! Owns `index/`. FORMAT.md, "IndexFile", has the bytes. The dispatcher puts, queries walk, recovery checks and cuts,
//! retention drops old files.

mod set;

pub use set::IndexHits;
pub(crate) use set::{IndexFileInfo, IndexSet, KeyPut, Soundness};
