//! A disk that crashes, and the lab that crashes the store on it (feature `sim`).
//!
//! [`SimDisk`] is a [`Vfs`](crate::vfs::Vfs) in memory. Of each page, name and length it knows what programs see, what is
//! on the disk, and what may be: a page that was not synced since may hold any version that it had, also sectors of 512
//! bytes from several; a name or a length that was not synced is old or new. [`SimDisk::crash`] takes all of that at one
//! moment, [`Crash::disk`] makes one of the disks that a power cut then leaves. [`SimDisk::fail`] breaks calls; a sync
//! that fails leaves its pages clean and the old bytes below, as Linux does. [`SimDisk::set_capacity`] fills the disk.
//! Time is a [`ManualClock`](crate::ManualClock), which jumps as it is told.
//!
//! [`Lab`] is what our own tests and CI run: workloads drawn from seeds, a model beside them, an image of the disk checked
//! at every point where the machine may stop, within recovery too.
//!
//! [`CrashTest`] does the same for a program of yours that uses the store. It crashes the program at every point, and
//! again while it opens what is left; with [`CrashTest::failing_runs`] calls fail as well; and where a promise breaks it
//! names the one image that shows it, for [`CrashTest::only`]. `examples/crash_your_code.rs` is a longer one than this:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use reput::{Config, FlushDiskType, ManualClock, Message, QueueOffset, Store, StoreTimestamp, sim::CrashTest};
//!
//! let open = |disk: &reput::sim::SimDisk| {
//!     // Small files: each image of the disk is made and looked at whole.
//!     let config = Config::new("/orders").commit_log_file_size(8192u64).consume_queue_file_size(400u64);
//!     let config = config.flush_disk_type(FlushDiskType::Sync);
//!     Store::open_stepped(config, Arc::new(disk.clone()), Arc::new(ManualClock::new(StoreTimestamp(1))))
//! };
//! // What the program has promised so far.
//! let promised = Arc::new(Mutex::new(0));
//! let tally = CrashTest::new(42).within(2).failing_runs(5).run(
//!     &promised,
//!     |disk| {
//!         let (store, _steps) = open(disk).map_err(|error| error.to_string())?;
//!         let orders = store.queue("orders", 0).map_err(|error| error.to_string())?;
//!         for n in 0..5_u8 {
//!             let put = store.put(&Message::new(orders, &[n])).map_err(|error| error.to_string())?;
//!             put.wait().map_err(|error| error.to_string())?;
//!             *promised.lock().unwrap() += 1;
//!         }
//!         Ok(())
//!     },
//!     |disk, promised| {
//!         let (store, _steps) = open(disk).map_err(|error| error.to_string())?;
//!         let orders = store.queue("orders", 0).map_err(|error| error.to_string())?;
//!         match store.max_offset(orders) {
//!             QueueOffset(there) if there >= *promised => Ok(()),
//!             QueueOffset(there) => Err(format!("{promised} orders were promised, {there} are there")),
//!         }
//!     },
//! );
//! let tally = tally.expect("no promise is broken");
//! assert!(tally.images > 100 && tally.depths[&2] > 0, "{tally:?}");
//! ```
//!
//! Stores through a mapping do not pass the seam, so the disk looks for them: at every call that concerns the file, and
//! at every crash point all mappings are compared with what they held before. A debug build also announces each store
//! ([`Backing::announce`](crate::vfs::Backing::announce)), and [`SimDisk::strays`] names the bytes that changed without.

mod backing;
mod crash;
mod disk;
mod faults;
mod file;
mod lab;
mod names;
mod page;
mod program;
mod rng;

pub use crash::{Crash, Kept, Outcome};
pub use disk::{Moment, SimDisk};
pub use faults::{Call, Failure, Fault};
pub use lab::{Budget, Finding, Lab, Replay, Tally, Violation, Workload};
pub use program::{Broken, CrashTest, Place};

#[cfg(test)]
mod tests;
