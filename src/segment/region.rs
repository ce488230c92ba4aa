//! The one place of raw memory: bytes of a mapped file, split at a watermark.
//!
//! A [`Region`] owns a file's mapping. Bytes below its `published` mark never change again and are what readers see,
//! as [`Lease`]s; bytes above it belong to the one [`Tail`], which was made with the region and is not `Clone`.
//!
//! ```text
//! writer (holds the Tail)              reader (holds an Arc<Region>)
//! store bytes [p, q)
//! published := q  (Release)            published == q  (Acquire)
//!                                      reads [.., q): sees every store before the Release
//! ```
//! A [`SlotTable`] is the other kind of mapped file: whole 32-bit words that change in place, for IndexFiles.
//! Called by the log, the queues and the index; nothing else in the store touches mapped memory.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    marker::PhantomData,
    ops::{Deref, Range},
    path::Path,
    ptr::{self, NonNull},
    slice,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering, compiler_fence},
    },
};

use super::watermark::Watermark;
use crate::{
    error::Result,
    vfs::{Advice, Backing, check_readable},
};

/// Bytes of the size that a record begins with.
const SIZE: usize = 4;

/// A mapped file of which the first `published` bytes are final.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    published: Watermark,
    backing: Box<dyn Backing>,
}

// SAFETY: the memory at `base` lives as long as `backing`. Bytes below `published` are only read, by any thread; bytes
// above it are only written, through the one `Tail` (not `Clone`, writes need `&mut`). Both types of access meet at
// `published`, which is stored with Release and loaded with Acquire.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len).field("published", &self.published()).finish()
    }
}

impl Region {
    /// A region that nobody writes any more: all of it is published.
    #[must_use]
    pub fn sealed(backing: Box<dyn Backing>) -> Arc<Self> {
        let len = backing.len();
        Arc::new(Self::over(backing, len))
    }

    /// A region whose first `at` bytes are published, and the tail that writes the rest. `at` beyond the end counts
    /// as the end.
    #[must_use]
    pub fn with_tail(backing: Box<dyn Backing>, at: usize) -> (Arc<Self>, Tail) {
        let at = at.min(backing.len());
        let region = Arc::new(Self::over(backing, at));
        (Arc::clone(&region), Tail { region, at })
    }

    fn over(backing: Box<dyn Backing>, published: usize) -> Self {
        Self { base: backing.base(), len: backing.len(), published: Watermark::new(published), backing }
    }

    /// Bytes mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that readers may see.
    #[must_use]
    pub fn published(&self) -> usize {
        self.published.get()
    }

    /// The published bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `published <= len` bytes at `base` are mapped while `self` lives and never change again.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.published()) }
    }

    /// Bytes `range` kept mapped, `None` unless wholly published.
    #[must_use]
    pub fn lease(self: &Arc<Self>, range: Range<usize>) -> Option<Lease> {
        self.published.covers(&range).then(|| Lease {
            region: Arc::clone(self),
            start: range.start,
            len: range.end - range.start,
        })
    }

    /// Makes what was written to `range` durable.
    ///
    /// # Errors
    /// What the system says; do not retry.
    pub fn sync(&self, range: Range<usize>) -> io::Result<()> {
        self.backing.sync(range)
    }

    /// Starts writing `range` back; a hint.
    pub fn start_writeback(&self, range: Range<usize>) {
        self.backing.start_writeback(range);
    }

    /// Makes pages present and writable; a hint.
    pub fn populate(&self, range: Range<usize>) {
        self.backing.populate(range);
    }

    /// Claims disk space for `range`.
    ///
    /// # Errors
    /// What the system says.
    pub fn reserve(&self, range: Range<usize>) -> io::Result<()> {
        self.backing.reserve(range)
    }

    /// The ranges from `at` on that may hold anything but zeros.
    pub fn data_from(&self, at: usize) -> impl Iterator<Item = Range<usize>> {
        let mut next = at;
        std::iter::from_fn(move || {
            let range = self.backing.data_from(next)?;
            next = range.end;
            Some(range)
        })
    }

    /// Fails where `range` has bytes that cannot be read, of the file `path`: they must not be touched.
    ///
    /// # Errors
    /// [`Error::Unreadable`](crate::Error::Unreadable).
    pub(crate) fn check_readable(&self, path: &Path, range: Range<usize>) -> Result<()> {
        check_readable(&*self.backing, path, range)
    }

    /// Says how the mapping will be read; a hint.
    pub fn advise(&self, advice: Advice) {
        self.backing.advise(advice);
    }

    /// The file back, when nobody else holds the region.
    #[must_use]
    pub fn into_backing(self: Arc<Self>) -> Option<Box<dyn Backing>> {
        Arc::into_inner(self).map(|region| region.backing)
    }
}

/// The unpublished end of one region: what may still be written, and the only thing that can.
pub struct Tail {
    region: Arc<Region>,
    /// Equal to `region.published`, without the atomic load.
    at: usize,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("at", &self.at).field("len", &self.region.len).finish()
    }
}

impl Tail {
    /// The region this is the end of.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Bytes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.region.len - self.at
    }

    /// Lets `fill` store exactly `len` bytes into the mapping, then publishes them.
    ///
    /// # Panics
    /// When `len` bytes are not left, or `fill` stores more or fewer: a wrong length must not reach the log.
    /// Nothing is published then.
    #[inline]
    pub fn fill(&mut self, len: usize, fill: impl FnOnce(&mut RecordSink<'_>)) {
        assert!(len <= self.left(), "{len} bytes do not fit into the {} left", self.left());
        if cfg!(debug_assertions) {
            self.region.backing.announce(self.at..self.at + len);
        }
        // SAFETY: `at + len <= region.len`, so the pointer stays inside the mapping.
        let start = unsafe { self.region.base.as_ptr().add(self.at) };
        // SAFETY: [at, at+len) is mapped and lies above the watermark: no reader has a reference into it, and the
        // exclusive borrow of the one tail keeps other writers out while the sink lives.
        let mut sink = unsafe { RecordSink::over(start, len) };
        fill(&mut sink);
        sink.finish();
        self.publish(len);
    }

    /// Writes `bytes` through the file instead of the mapping, then publishes them.
    ///
    /// # Errors
    /// What the system says; nothing is published, part of the bytes may be in the file.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.region.backing.write(self.at, bytes)?;
        self.publish(bytes.len());
        Ok(())
    }

    /// Publishes what is left as it is, and with it ends the region.
    pub fn seal(mut self) {
        let left = self.left();
        self.publish(left);
    }

    #[inline]
    fn publish(&mut self, len: usize) {
        self.at += len;
        self.region.published.publish(self.at);
    }
}

/// Where an encoder puts the bytes of one record or batch; takes as many as were announced.
///
/// The size that a record begins with is stored last. Whoever opens what a kill has left, another program than this
/// one included, then finds no beginning of a record that could pass for a whole one.
pub struct RecordSink<'a> {
    at: *mut u8,
    left: usize,
    overflow: bool,
    /// Where the record begins that is being put, and its size.
    begun: Option<(*mut u8, [u8; SIZE])>,
    owner: PhantomData<&'a mut [u8]>,
}

impl fmt::Debug for RecordSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSink").field("left", &self.left).finish()
    }
}

impl RecordSink<'_> {
    /// # Safety
    /// `len` bytes at `at` must be writable, and read or written by nobody else, for the life of the sink.
    unsafe fn over(at: *mut u8, len: usize) -> Self {
        Self { at, left: len, overflow: false, begun: None, owner: PhantomData }
    }

    /// Appends the beginning of a record. Its first four bytes, the size, are zeros until the next record begins or
    /// the sink is full.
    #[inline]
    pub fn begin(&mut self, head: &[u8]) {
        self.complete();
        let Some((&size, rest)) = head.split_first_chunk() else { return self.put(head) };
        if head.len() <= self.left {
            self.begun = Some((self.at, size));
        }
        self.put(&[0; SIZE]);
        self.put(rest);
    }

    /// Stores the size of the record that was put.
    #[inline]
    fn complete(&mut self) {
        if let Some((at, size)) = self.begun.take() {
            // What a killed process has executed is in the file, so it is enough that the compiler keeps the order.
            compiler_fence(Ordering::Release);
            // SAFETY: `begin` has put bytes there, so `size.len()` of them are writable and ours alone (see `over`).
            unsafe { ptr::copy_nonoverlapping(size.as_ptr(), at, size.len()) };
        }
    }

    /// Appends `bytes`. More than were announced are dropped, which the owner of the sink then refuses.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > self.left {
            self.overflow = true;
            return;
        }
        // SAFETY: `bytes.len() <= left` bytes at `at` are writable and ours alone (see `over`), so they do not
        // overlap with `bytes`; the pointer moves to at most one past the end.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.at, bytes.len());
            self.at = self.at.add(bytes.len());
        }
        self.left -= bytes.len();
    }

    /// # Panics
    /// When more or fewer bytes were put than announced; the last record then has no size.
    #[inline]
    fn finish(&mut self) {
        assert!(!self.overflow && self.left == 0, "a record was not as long as announced ({self:?})");
        self.complete();
    }
}

/// Appends exactly `len` bytes, stored by `fill`, to a buffer in memory.
///
/// # Panics
/// When `fill` stores more or fewer; the buffer is then as before.
#[inline]
pub fn fill_buffer(buffer: &mut Vec<u8>, len: usize, fill: impl FnOnce(&mut RecordSink<'_>)) {
    buffer.reserve(len);
    // SAFETY: `len` spare bytes follow the content after `reserve`; the exclusive borrow keeps everybody else out.
    let mut sink = unsafe { RecordSink::over(buffer.as_mut_ptr().add(buffer.len()), len) };
    fill(&mut sink);
    sink.finish();
    // SAFETY: the sink was filled, so all `len` bytes behind the content are initialised.
    unsafe { buffer.set_len(buffer.len() + len) };
}

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// Asks the processor to bring the line at an address closer; a hint, also for addresses where nothing is any more.
#[inline]
pub(crate) fn prefetch(address: usize) {
    prefetch_line(ptr::without_provenance(address));
}

/// [`prefetch`] for the first `lines` lines of a value.
#[inline]
pub(crate) fn prefetch_value<T>(value: &T, lines: usize) {
    let address = ptr::from_ref(value).addr();
    for line in 0..lines {
        prefetch(address + line * LINE);
    }
}

#[inline]
fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address reads nothing that the program can see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Published bytes that keep their file mapped, also after the file was removed.
#[derive(Clone)]
pub struct Lease {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl Lease {
    /// A part of these bytes; an end beyond the last byte counts as the end.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        Self { region: Arc::clone(&self.region), start: self.start + start, len: end - start }
    }

    /// Asks the processor to bring the two lines at `at` closer; a hint, also for places outside.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        let ahead = self.len.saturating_sub(at);
        if ahead > 2 * LINE {
            // SAFETY: both places lie in the bytes of this lease.
            let line = unsafe { self.region.base.as_ptr().add(self.start + at) };
            prefetch_line(line);
            prefetch_line(line.wrapping_add(LINE));
        }
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: made from a range below the watermark (`Region::lease`, `Lease::slice`): mapped while `region` lives
        // and never changed again.
        unsafe { slice::from_raw_parts(self.region.base.as_ptr().add(self.start), self.len) }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("start", &self.start).field("len", &self.len).finish()
    }
}

/// A mapped file whose bytes change in place: big-endian words and short byte strings, from any thread.
///
/// Words at multiples of four are stored and loaded whole, a word with Release and Acquire, so a reader that follows a
/// word sees what was put before it. Longer values are stored byte by byte or word by word: a reader may see part of
/// one that is being put, and must get at it through a word that is put afterwards.
pub struct SlotTable {
    base: NonNull<u8>,
    len: usize,
    backing: Box<dyn Backing>,
}

// SAFETY: the memory at `base` lives as long as `backing`, and every access to it is atomic.
unsafe impl Send for SlotTable {}
// SAFETY: as above.
unsafe impl Sync for SlotTable {}

impl fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotTable").field("len", &self.len).finish()
    }
}

impl SlotTable {
    /// A table over the whole file.
    #[must_use]
    pub fn new(backing: Box<dyn Backing>) -> Self {
        Self { base: backing.base(), len: backing.len(), backing }
    }

    /// Bytes mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn check(&self, at: usize, len: usize) {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(fits, "{len} bytes at {at} are outside a table of {}", self.len);
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU32 {
        self.check(at, 4);
        assert!(at.is_multiple_of(4), "{at} is not a word's place");
        // SAFETY: inside the mapping, which starts at a page, so a multiple of four is aligned. Every access to the
        // memory is atomic; those of one byte and of four overlap only where the caller breaks the rule of the type's
        // documentation, and then yield mixed values on the machines that mapped files exist on.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    #[inline]
    fn byte(&self, at: usize) -> &AtomicU8 {
        self.check(at, 1);
        // SAFETY: inside the mapping; see `word`.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(at)) }
    }

    /// The word at `at`, a multiple of four.
    ///
    /// # Panics
    /// When the word is outside or `at` is not a multiple of four.
    #[inline]
    #[must_use]
    pub fn get_u32(&self, at: usize) -> u32 {
        u32::from_be(self.word(at).load(Ordering::Acquire))
    }

    /// Stores the word at `at`, a multiple of four.
    ///
    /// # Panics
    /// When the word is outside or `at` is not a multiple of four.
    #[inline]
    pub fn put_u32(&self, at: usize, value: u32) {
        if cfg!(debug_assertions) {
            self.backing.announce(at..at.saturating_add(4));
        }
        self.word(at).store(value.to_be(), Ordering::Release);
    }

    /// Whole words from `at` on, a multiple of four; not as one value, see the type's documentation.
    ///
    /// # Panics
    /// When they reach outside or `at` is not a multiple of four.
    #[inline]
    #[must_use]
    pub fn get_words<const N: usize>(&self, at: usize) -> [u32; N] {
        self.check(at, 4 * N);
        assert!(at.is_multiple_of(4), "{at} is not a word's place");
        let mut words = [0; N];
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: all words are inside the mapping and aligned, as checked; see `word`.
            let place = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at + 4 * i).cast()) };
            *word = u32::from_be(place.load(Ordering::Relaxed));
        }
        words
    }

    /// Stores whole words from `at` on, a multiple of four.
    ///
    /// # Panics
    /// When they reach outside or `at` is not a multiple of four.
    #[inline]
    pub fn put_words<const N: usize>(&self, at: usize, words: [u32; N]) {
        if cfg!(debug_assertions) {
            self.backing.announce(at..at.saturating_add(4 * N));
        }
        self.check(at, 4 * N);
        assert!(at.is_multiple_of(4), "{at} is not a word's place");
        for (i, word) in words.into_iter().enumerate() {
            // SAFETY: all words are inside the mapping and aligned, as checked; see `word`.
            let place = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at + 4 * i).cast()) };
            place.store(word.to_be(), Ordering::Relaxed);
        }
    }

    /// Stores `bytes` at `at`, by words where both ends are at multiples of four.
    ///
    /// # Panics
    /// When they reach outside.
    #[inline]
    pub fn put_bytes(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        if cfg!(debug_assertions) {
            self.backing.announce(at..at + bytes.len());
        }
        if at.is_multiple_of(4) && bytes.len().is_multiple_of(4) {
            let (words, _) = bytes.as_chunks::<4>();
            for (i, word) in words.iter().enumerate() {
                self.word(at + 4 * i).store(u32::from_be_bytes(*word).to_be(), Ordering::Relaxed);
            }
        } else {
            for (i, byte) in bytes.iter().enumerate() {
                self.byte(at + i).store(*byte, Ordering::Relaxed);
            }
        }
    }

    /// Copies the bytes at `at` into `out`.
    ///
    /// # Panics
    /// When they reach outside.
    #[inline]
    pub fn read(&self, at: usize, out: &mut [u8]) {
        self.check(at, out.len());
        if at.is_multiple_of(4) && out.len().is_multiple_of(4) {
            let (words, _) = out.as_chunks_mut::<4>();
            for (i, word) in words.iter_mut().enumerate() {
                // SAFETY: all words are inside the mapping and aligned, as checked; see `word`.
                let place = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at + 4 * i).cast()) };
                *word = u32::from_be(place.load(Ordering::Relaxed)).to_be_bytes();
            }
        } else {
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = self.byte(at + i).load(Ordering::Relaxed);
            }
        }
    }

    /// The `N` bytes at `at`.
    ///
    /// # Panics
    /// When they reach outside.
    #[inline]
    #[must_use]
    pub fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        self.read(at, &mut out);
        out
    }

    /// Asks the processor to bring the line at `at` closer; a hint, also for places outside.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        if at < self.len {
            // SAFETY: inside the mapping.
            prefetch_line(unsafe { self.base.as_ptr().add(at) });
        }
    }

    /// The file behind the table: to sync, populate, reserve and advise.
    #[must_use]
    pub fn backing(&self) -> &dyn Backing {
        &*self.backing
    }
}

#[cfg(test)]
mod tests {
    use std::{
        alloc::{Layout, alloc_zeroed, dealloc},
        panic::{self, AssertUnwindSafe},
        path::PathBuf,
        thread,
    };

    use super::*;
    use crate::vfs::{OsVfs, Reserve, Vfs};

    /// A file's bytes in ordinary memory, for the interpreter that looks for undefined behaviour: it maps no files.
    #[derive(Debug)]
    struct Heap {
        base: NonNull<u8>,
        layout: Layout,
        path: PathBuf,
    }

    // SAFETY: the memory is this value's own until it is dropped; who touches it when is the region's to say.
    unsafe impl Send for Heap {}
    // SAFETY: as above.
    unsafe impl Sync for Heap {}

    impl Heap {
        fn new(path: PathBuf, len: usize) -> Self {
            std::fs::write(&path, []).unwrap();
            let layout = Layout::from_size_align(len, 4096).unwrap();
            // SAFETY: the layout is not empty.
            let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
            Self { base, layout, path }
        }
    }

    impl Drop for Heap {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout, and nobody has the region any more.
            unsafe { dealloc(self.base.as_ptr(), self.layout) };
        }
    }

    impl Backing for Heap {
        fn base(&self) -> NonNull<u8> {
            self.base
        }
        fn len(&self) -> usize {
            self.layout.size()
        }
        fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
            assert!(at + bytes.len() <= self.len());
            // SAFETY: inside the allocation; the region writes through the tail only, which nobody reads.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len()) };
            Ok(())
        }
        fn rewrite(&self, _: Range<usize>) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self, _: Range<usize>) -> io::Result<()> {
            // SAFETY: the tests sync when nobody writes.
            std::fs::write(&self.path, unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len()) })
        }
        fn start_writeback(&self, _: Range<usize>) {}
        fn populate(&self, _: Range<usize>) {}
        fn reserve(&self, _: Range<usize>) -> io::Result<()> {
            Ok(())
        }
        fn advise(&self, _: Advice) {}
    }

    fn backing(dir: &tempfile::TempDir, len: u64) -> Box<dyn Backing> {
        let path = dir.path().join("file");
        if cfg!(miri) {
            return Box::new(Heap::new(path, usize::try_from(len).unwrap()));
        }
        OsVfs.create(&path, len, Reserve::All).unwrap()
    }

    #[test]
    fn a_reader_never_sees_a_byte_before_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let (region, mut tail) =
            Region::with_tail(backing(&dir, if cfg!(miri) { 1 << 12 } else { 1 << 20 }), 0);
        let reader = thread::spawn(move || {
            let mut seen = 0;
            while seen < region.len() {
                let bytes = region.bytes();
                assert!(
                    bytes[seen..].iter().all(|b| *b == 0x5A),
                    "unpublished bytes in {seen}..{}",
                    bytes.len()
                );
                seen = bytes.len();
            }
        });
        while tail.left() > 0 {
            let len = tail.left().min(129);
            tail.fill(len, |sink| {
                sink.put(&[0x5A; 3][..len.min(3)]);
                sink.put(&[0x5A; 129][..len - len.min(3)]);
            });
        }
        reader.join().unwrap();
    }

    #[test]
    fn a_lease_outlives_the_tail_the_region_and_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (region, mut tail) = Region::with_tail(backing(&dir, 4096), 0);
        tail.write(b"written").unwrap();
        tail.fill(6, |sink| sink.put(b"stored"));
        let lease = region.lease(0..13).unwrap();
        assert!(region.lease(0..14).is_none() && region.lease(Range { start: 5, end: 4 }).is_none());
        tail.seal();
        assert_eq!(region.published(), 4096);
        assert!(Arc::clone(&region).into_backing().is_none(), "the lease holds it");
        drop(region);
        std::fs::remove_file(dir.path().join("file")).unwrap();
        let part = lease.slice(7..usize::MAX);
        drop(lease);
        assert_eq!(&*thread::spawn(move || part.to_vec()).join().unwrap(), b"stored");
    }

    #[test]
    fn a_record_has_no_size_before_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (region, mut tail) = Region::with_tail(backing(&dir, 4096), 0);
        // SAFETY: inside the file; this thread alone writes to it, and not while it copies.
        let stored = || unsafe { slice::from_raw_parts(region.base.as_ptr(), 24) }.to_vec();
        tail.fill(22, |sink| {
            sink.begin(b"SIZEone");
            sink.put(b"rest");
            assert_eq!(stored(), b"\0\0\0\0onerest\0\0\0\0\0\0\0\0\0\0\0\0\0");
            sink.begin(b"sizetwo");
            assert_eq!(stored(), b"SIZEonerest\0\0\0\0two\0\0\0\0\0\0");
            sink.put(b"rest");
        });
        assert_eq!(stored(), b"SIZEonerestsizetworest\0\0");
        let mut buffer = Vec::new();
        fill_buffer(&mut buffer, 8, |sink| sink.begin(b"SIZEhead"));
        assert_eq!(buffer, b"SIZEhead");

        let dir = tempfile::tempdir().unwrap();
        let (region, mut tail) = Region::with_tail(backing(&dir, 4096), 0);
        let short = panic::catch_unwind(AssertUnwindSafe(|| tail.fill(9, |sink| sink.begin(b"SIZEhead"))));
        assert!(short.is_err());
        let long = panic::catch_unwind(AssertUnwindSafe(|| tail.fill(5, |sink| sink.begin(b"SIZEhead"))));
        assert!(long.is_err() && region.published() == 0);
        // SAFETY: as above.
        assert_eq!(unsafe { slice::from_raw_parts(region.base.as_ptr(), 4) }, [0; 4]);
    }

    #[test]
    fn a_slot_table_holds_big_endian_words_and_refuses_places_outside() {
        let dir = tempfile::tempdir().unwrap();
        let table = SlotTable::new(backing(&dir, 4096));
        table.put_u32(40, 0x0102_0304);
        table.put_bytes(44, &[5, 6, 7, 8]);
        table.put_bytes(49, &[9, 10]);
        assert_eq!(table.get::<12>(40), [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 10, 0]);
        assert_eq!((table.get_u32(44), table.get::<3>(41)), (0x0506_0708, [2, 3, 4]));
        table.backing().sync(0..4096).unwrap();
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap()[40..44], [1, 2, 3, 4]);
        table.prefetch(usize::MAX);
        let bad: [fn(&SlotTable); 3] =
            [|t| t.put_u32(4094, 1), |t| t.put_u32(41, 1), |t| t.put_bytes(4090, &[0; 8])];
        for bad in bad {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bad(&table))).is_err());
        }
    }

    #[test]
    fn a_buffer_takes_exactly_what_was_announced() {
        let mut buffer = b"ab".to_vec();
        fill_buffer(&mut buffer, 3, |sink| {
            sink.put(b"c");
            sink.put(b"de");
        });
        assert_eq!(buffer, b"abcde");
        for wrong in [&b"x"[..], b"xyz"] {
            let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                fill_buffer(&mut buffer, 2, |sink| sink.put(wrong));
            }));
            assert!(tried.is_err());
            assert_eq!(buffer, b"abcde");
        }
    }
}
