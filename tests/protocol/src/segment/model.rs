//! Segments of two bytes: a writer, readers with leases, and retention.

use std::ops::Range;

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{run::Segments, watermark::Watermark};
use crate::{model::check, types::PhysicalOffset};

const SIZE: usize = 2;
const WRITTEN: u8 = 0x5A;

/// The mapping of a file: its bytes, and a write to each when it is unmapped. loom reports a read that is not ordered
/// before that write, as after the unmapping.
#[derive(Debug)]
struct Region {
    bytes: [UnsafeCell<u8>; SIZE],
    published: Watermark,
    unmapped: Arc<AtomicUsize>,
}

impl Drop for Region {
    fn drop(&mut self) {
        for byte in &self.bytes {
            // SAFETY: the last owner unmaps; that nobody reads any more is what loom checks.
            byte.with_mut(|byte| unsafe { *byte = 0 });
        }
        self.unmapped.fetch_add(1, Ordering::Relaxed);
    }
}

/// As the store's, without a path.
#[derive(Debug)]
pub struct Segment {
    pub base: PhysicalOffset,
    region: Arc<Region>,
}

/// As `Region::lease` makes it.
struct Lease {
    region: Arc<Region>,
    range: Range<usize>,
}

impl Segment {
    fn new(base: i64, unmapped: &Arc<AtomicUsize>) -> Arc<Self> {
        let bytes = [UnsafeCell::new(0), UnsafeCell::new(0)];
        let region = Region { bytes, published: Watermark::new(0), unmapped: Arc::clone(unmapped) };
        Arc::new(Self { base: PhysicalOffset(base), region: Arc::new(region) })
    }

    pub fn end(&self) -> PhysicalOffset {
        PhysicalOffset(self.base.0 + SIZE as i64)
    }

    /// `Tail::fill`: stores above the mark, then moves it.
    fn append(&self, at: usize) {
        // SAFETY: above the mark only the writer has access; that this is so is what loom checks.
        self.region.bytes[at].with_mut(|byte| unsafe { *byte = WRITTEN });
        self.region.published.publish(at + 1);
    }

    /// `Segment::lease_rest`.
    fn lease_rest(&self, start: usize) -> Option<Lease> {
        let range = start..self.region.published.get();
        (range.start < range.end && self.region.published.covers(&range))
            .then(|| Lease { region: Arc::clone(&self.region), range })
    }
}

impl Lease {
    fn assert_readable(&self) {
        for byte in &self.region.bytes[self.range.clone()] {
            // SAFETY: below the mark nobody writes while a lease is held; that this is so is what loom checks.
            assert_eq!(byte.with(|byte| unsafe { *byte }), WRITTEN);
        }
    }
}

/// Segments from 0 on, all but the last full.
fn run(segments: i64, unmapped: &Arc<AtomicUsize>) -> Arc<Segments> {
    let all = (0..segments).map(|number| Segment::new(number * SIZE as i64, unmapped));
    let run = Arc::new(Segments::new(SIZE, all));
    for number in 0..segments - 1 {
        let full = run.find(PhysicalOffset(number * SIZE as i64)).expect("it was just made");
        (0..SIZE).for_each(|at| full.append(at));
    }
    run
}

#[test]
fn a_lease_keeps_its_segment_mapped_while_retention_takes_it_away() {
    check(|| {
        let unmapped = Arc::new(AtomicUsize::new(0));
        let run = run(2, &unmapped);
        let reader = {
            let run = Arc::clone(&run);
            thread::spawn(move || {
                // Found before it is taken, or gone.
                let Some(segment) = run.find(PhysicalOffset(1)) else { return };
                let lease = segment.lease_rest(1).expect("a full segment has bytes");
                drop(segment);
                lease.assert_readable();
            })
        };
        let oldest = run.pop_oldest().expect("there are two");
        assert!(run.find(PhysicalOffset(1)).is_none(), "found after it was taken");
        drop(oldest);
        reader.join().unwrap();
        assert_eq!(unmapped.load(Ordering::Relaxed), 1, "nobody holds it any more");
        assert!(run.pop_oldest().is_none(), "the last one stays");
    });
}

#[test]
fn a_segment_that_could_not_be_removed_is_found_again_with_all_its_bytes() {
    check(|| {
        let unmapped = Arc::new(AtomicUsize::new(0));
        let run = run(2, &unmapped);
        let reader = {
            let run = Arc::clone(&run);
            thread::spawn(move || {
                if let Some(segment) = run.find(PhysicalOffset(0)) {
                    segment.lease_rest(0).expect("a full segment has bytes").assert_readable();
                }
            })
        };
        let oldest = run.pop_oldest().expect("there are two");
        run.put_back(oldest);
        reader.join().unwrap();
        assert!(run.find(PhysicalOffset(0)).is_some());
        assert_eq!(unmapped.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_reader_follows_the_writer_into_the_next_segment_and_reads_only_what_is_published() {
    check(|| {
        let unmapped = Arc::new(AtomicUsize::new(0));
        let run = run(1, &unmapped);
        let reader = {
            let run = Arc::clone(&run);
            thread::spawn(move || {
                for at in [0, 2] {
                    let Some(segment) = run.find(PhysicalOffset(at)) else { continue };
                    if let Some(lease) = segment.lease_rest(0) {
                        lease.assert_readable();
                    }
                }
            })
        };
        let first = run.last().expect("there is one");
        (0..SIZE).for_each(|at| first.append(at));
        let next = Segment::new(SIZE as i64, &unmapped);
        run.push(Arc::clone(&next));
        next.append(0);
        reader.join().unwrap();
    });
}
