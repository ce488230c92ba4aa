//! One file of a simulated disk: what programs see, what the disk holds, and what it may hold after a crash.
//!
//! Three pictures of each page: the mapped memory; the *shadow*, which is what the memory held when it was last looked
//! at; and the durable content. A look that finds memory and shadow different adds a version to the page: write-back may
//! have taken any of them. A sync makes the shadow durable and the page clean.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::page::{self, Content, Memory, PAGE};

/// Versions of a page that are remembered; of more the middle ones are forgotten.
const VERSIONS: usize = 6;

/// What the disk may hold of a page instead of its durable content.
#[derive(Clone, Debug)]
pub(super) struct Dirty {
    pub(super) since: u64,
    pub(super) versions: Vec<Content>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct File {
    len: usize,
    memory: Option<Arc<Memory>>,
    shadow: Vec<Content>,
    pub(super) durable: Vec<Content>,
    pub(super) dirty: BTreeMap<usize, Dirty>,
    /// Lengths the file may have after a crash; the first is the durable one, the last the one it has.
    pub(super) lens: Vec<usize>,
    pub(super) lens_since: u64,
    /// Pages that have their space.
    claimed: Vec<bool>,
    pub(super) modified: SystemTime,
    /// The change that made it what it is.
    pub(super) changed: u64,
    /// The same of what is on the disk.
    pub(super) durable_change: u64,
    announced: Announced,
}

/// Ranges that somebody said they would store into, in debug builds: since the last sync, and before that.
#[derive(Debug, Default)]
struct Announced {
    now: Vec<Range<usize>>,
    before: Vec<Range<usize>>,
}

impl Announced {
    fn cover(&self, at: usize) -> bool {
        self.now.iter().chain(&self.before).any(|range| range.contains(&at))
    }
}

/// What a look at the memory found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// Bytes changed that nobody announced.
    Unannounced(Range<usize>),
    /// A store into a page without space: a full disk would have been a signal.
    Unclaimed(usize),
}

impl File {
    /// A file just made: empty on the disk, `len` zeros to programs.
    pub(super) fn new(len: usize, since: u64, now: SystemTime) -> Self {
        let pages = len.div_ceil(PAGE);
        Self {
            len,
            memory: None,
            shadow: vec![None; pages],
            durable: vec![None; pages],
            dirty: BTreeMap::new(),
            lens: vec![0, len],
            lens_since: since,
            claimed: vec![false; pages],
            modified: now,
            changed: since,
            durable_change: since,
            announced: Announced::default(),
        }
    }

    /// A file as a crash left it. Nobody knows whether zeros have their space.
    /// Its stamp is that of its last sync, whatever else of it reached the disk: nothing may rely on better.
    pub(super) fn settled(len: usize, mut pages: Vec<Content>, modified: SystemTime, change: u64) -> Self {
        pages.truncate(len.div_ceil(PAGE));
        pages.resize(len.div_ceil(PAGE), None);
        if let (Some(last), rest) = (pages.last_mut(), len % PAGE)
            && rest > 0
        {
            *last = page::cut(last, rest);
        }
        let claimed = pages.iter().map(Option::is_some).collect();
        let (lens, dirty) = (vec![len], BTreeMap::new());
        let shadow = pages.clone();
        let announced = Announced::default();
        Self {
            len,
            memory: None,
            shadow,
            durable: pages,
            dirty,
            lens,
            lens_since: 0,
            claimed,
            modified,
            changed: change,
            durable_change: change,
            announced,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Pages that are not on the disk as programs see them.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.lens.len() > 1
    }

    /// Bytes of space taken.
    pub(super) fn space(&self) -> u64 {
        self.claimed.iter().filter(|claimed| **claimed).count() as u64 * PAGE as u64
    }

    /// Pages of `range` that have no space yet.
    pub(super) fn unclaimed(&self, range: &Range<usize>) -> usize {
        pages_of(range).filter(|n| self.claimed.get(*n) == Some(&false)).count()
    }

    pub(super) fn claim(&mut self, range: &Range<usize>) {
        for number in pages_of(range) {
            if let Some(claimed) = self.claimed.get_mut(number) {
                *claimed = true;
            }
        }
    }

    /// The mapping, filled now if nobody has it.
    pub(super) fn map(&mut self) -> Arc<Memory> {
        if let Some(memory) = &self.memory {
            return Arc::clone(memory);
        }
        let memory = Arc::new(Memory::new(self.shadow.len()));
        for (number, page) in self.shadow.iter().enumerate().filter(|(_, page)| page.is_some()) {
            memory.load(number, page);
        }
        self.memory = Some(Arc::clone(&memory));
        memory
    }

    /// Lets go of the memory when nobody else has it. Look before.
    pub(super) fn unmap(&mut self) {
        if self.memory.as_ref().is_some_and(|memory| Arc::strong_count(memory) <= 2) {
            self.memory = None;
        }
    }

    /// Says that `range` is about to be stored into.
    pub(super) fn announce(&mut self, range: Range<usize>) {
        if let Some(last) = self.announced.now.last_mut().filter(|last| last.end == range.start) {
            last.end = range.end;
        } else {
            self.announced.now.push(range);
        }
    }

    /// Looks at the memory, and keeps every page that changed as a version. Says what should not have changed.
    ///
    /// On a copy-on-write file system no store through the mapping is right.
    pub(super) fn look(&mut self, since: u64, now: SystemTime, copy_on_write: bool) -> Option<Stray> {
        let memory = self.memory.clone()?;
        let mut stray = None;
        for number in 0..self.shadow.len() {
            if !memory.differs(number, &self.shadow[number]) {
                continue;
            }
            let new = memory.page(number);
            if stray.is_none() {
                stray = self.stray(number, &new, copy_on_write);
            }
            (self.modified, self.changed) = (now, since);
            self.version(number, new, since);
        }
        stray
    }

    fn stray(&self, number: usize, new: &Content, copy_on_write: bool) -> Option<Stray> {
        if copy_on_write || self.claimed.get(number) == Some(&false) {
            return Some(Stray::Unclaimed(number));
        }
        if !cfg!(debug_assertions) {
            return None;
        }
        let changed = page::difference(&self.shadow[number], new)?;
        let (mut old_bytes, mut new_bytes) = ([0; PAGE], [0; PAGE]);
        page::copy_out(&self.shadow[number], 0, &mut old_bytes);
        page::copy_out(new, 0, &mut new_bytes);
        let hidden = |i: &usize| old_bytes[*i] != new_bytes[*i] && !self.announced.cover(number * PAGE + i);
        let first = changed.clone().find(hidden)?;
        Some(Stray::Unannounced(number * PAGE + first..number * PAGE + changed.end))
    }

    fn version(&mut self, number: usize, new: Content, since: u64) {
        let dirty = self.dirty.entry(number).or_insert_with(|| Dirty { since, versions: Vec::new() });
        if dirty.versions.len() >= VERSIONS {
            dirty.versions.remove(VERSIONS / 2);
        }
        dirty.versions.push(new.clone());
        self.shadow[number] = new;
    }

    /// Writes through the file: into the memory, if it is mapped, and as versions of the pages.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8], since: u64, now: SystemTime) -> io::Result<()> {
        let end = at.checked_add(bytes.len()).filter(|end| *end <= self.len);
        let end =
            end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a range outside the file"))?;
        let memory = self.map();
        memory.write(at, bytes)?;
        for number in pages_of(&(at..end)) {
            self.version(number, memory.page(number), since);
        }
        (self.modified, self.changed) = (now, since);
        drop(memory);
        if self.memory.as_ref().is_some_and(|memory| Arc::strong_count(memory) == 1) {
            self.memory = None;
        }
        Ok(())
    }

    /// Makes the pages of `range` and the length durable.
    pub(super) fn sync(&mut self, range: &Range<usize>) {
        for number in pages_of(range) {
            if self.dirty.remove(&number).is_some() {
                self.durable[number] = self.shadow[number].clone();
            }
        }
        self.lens = vec![self.len];
        self.durable_change = self.changed;
        self.announced.before = std::mem::take(&mut self.announced.now);
    }

    /// A sync that failed: its pages count as clean, and the disk has what it had.
    pub(super) fn lose(&mut self, range: &Range<usize>) {
        for number in pages_of(range) {
            self.dirty.remove(&number);
        }
    }

    /// Cuts or extends.
    pub(super) fn set_len(&mut self, len: usize, since: u64, now: SystemTime) {
        let pages = len.div_ceil(PAGE);
        for number in pages..self.shadow.len() {
            if self.shadow[number].is_some() {
                self.version(number, None, since);
            }
        }
        if let Some(number) = len.checked_div(PAGE).filter(|n| *n < self.shadow.len().min(pages))
            && len < self.len
        {
            let cut = page::cut(&self.shadow[number], len % PAGE);
            if !page::same(&cut, &self.shadow[number]) {
                self.version(number, cut, since);
            }
        }
        // What a crash may bring back behind a cut stays known; what programs see ends here.
        self.shadow.resize(pages.max(self.shadow.len()), None);
        self.durable.resize(self.shadow.len(), None);
        self.claimed.resize(self.shadow.len(), false);
        self.len = len;
        if self.lens.len() == 1 {
            self.lens_since = since;
        }
        self.lens.push(len);
        (self.modified, self.changed) = (now, since);
        self.memory = None;
    }

    /// A copy of bytes as programs see them. Look before.
    pub(super) fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        self.picture().bytes(range)
    }

    /// The length and all pages as programs see them. Look before.
    pub(super) fn picture(&self) -> Picture {
        Picture { len: self.len, pages: self.shadow.clone() }
    }

    /// The first run of pages from `at` on that hold anything but zeros, here or on the disk. Look before.
    pub(super) fn data_from(&self, at: usize) -> Option<Range<usize>> {
        let held = |n: &usize| {
            [&self.shadow, &self.durable].iter().any(|of| of.get(*n).is_some_and(Option::is_some))
        };
        let pages = self.len.div_ceil(PAGE);
        let first = (at / PAGE..pages).find(held)?;
        let end = (first..pages).find(|n| !held(n)).unwrap_or(pages);
        let range = (first * PAGE).max(at)..(end * PAGE).min(self.len);
        (!range.is_empty()).then_some(range)
    }
}

/// What a file holds at one moment. Cheap to take: pages are shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) len: usize,
    pages: Vec<Content>,
}

impl Picture {
    /// Bytes of `range`, zeros behind the end.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        let mut out = vec![0; range.len()];
        for number in pages_of(&range) {
            let (start, end) = ((number * PAGE).max(range.start), ((number + 1) * PAGE).min(range.end));
            let page = self.pages.get(number).unwrap_or(&None);
            page::copy_out(page, start - number * PAGE, &mut out[start - range.start..end - range.start]);
        }
        out
    }
}

impl PartialEq for Picture {
    fn eq(&self, other: &Self) -> bool {
        let blank = None;
        let page = |of: &Self, n| -> Content { of.pages.get(n).unwrap_or(&blank).clone() };
        let pages = self.len.div_ceil(PAGE);
        self.len == other.len && (0..pages).all(|n| page::same(&page(self, n), &page(other, n)))
    }
}

/// The pages that a range touches.
pub(super) fn pages_of(range: &Range<usize>) -> Range<usize> {
    if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) }
}

/// Milliseconds since 1970 as file systems say them.
pub(super) fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}
