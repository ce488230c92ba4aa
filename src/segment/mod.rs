//! Mapped files of fixed size that follow one another: the log's and the queues' bodies.
//!
//! [`region`] owns the raw memory; [`Segment`] gives it a place in a run of bytes that is longer than a file;
//! [`Segments`] is that run; [`Allocator`] makes the next file ahead of its use. Called by the log, the queues and the
//! index. Knows files and offsets, no records.

mod allocator;
mod region;
mod run;
#[expect(clippy::module_inception, reason = "the module is named for the run, the type for one of it")]
mod segment;
mod segments;
mod sync;
mod watermark;

pub use allocator::Allocator;
pub use region::{Lease, RecordSink, Region, SlotTable, Tail, fill_buffer};
pub(crate) use region::{prefetch, prefetch_value};
pub use run::Segments;
pub use segment::Segment;
pub use segments::{Discovered, discover};
