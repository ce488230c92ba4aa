//! Mapped files of fixed size that follow one another: the log's and the queues' bodies.
//!
//! [`region`] owns the raw memory; [`Segment`] gives it a place in a run of bytes that is longer than a file;
//! [`Segments`] is that run; [`allocator`] makes the next file ahead of its use. Called by the log, the queues and the
//! index. Knows files and offsets, no records.

pub mod region;

pub use region::{Lease, RecordSink, Region, SlotTable, Tail};
