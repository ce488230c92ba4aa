//! Pages of 4 KiB: what one held at some time, and the memory that the store maps.
//!
//! A page of zeros is `None` and takes no memory. The memory is made of atomics, so that a store through the mapping by
//! one thread and a look at it by another are both defined, as they are between a program and the kernel.

use std::{
    io,
    ops::Range,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes that are written back together.
pub(super) const PAGE: usize = 4096;
/// Bytes that a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;

const WORD: usize = 8;
const WORDS: usize = PAGE / WORD;
const SECTOR_WORDS: usize = SECTOR / WORD;

/// What a page held, as words in memory order.
#[derive(Debug)]
pub(super) struct Page {
    words: [u64; WORDS],
}

/// The content of a page; `None` is zeros.
pub(super) type Content = Option<Arc<Page>>;

fn content(words: [u64; WORDS]) -> Content {
    words.iter().any(|word| *word != 0).then(|| Arc::new(Page { words }))
}

/// Whether two pages hold the same bytes.
pub(super) fn same(a: &Content, b: &Content) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.words == b.words,
        _ => false,
    }
}

/// A page whose sectors come from `versions`, each from the one that `pick` names.
pub(super) fn mixed(versions: &[Content], mut pick: impl FnMut() -> usize) -> Content {
    let mut words = [0; WORDS];
    for sector in words.chunks_mut(SECTOR_WORDS).enumerate() {
        let (number, sector) = sector;
        if let Some(Some(page)) = versions.get(pick()) {
            sector.copy_from_slice(&page.words[number * SECTOR_WORDS..][..SECTOR_WORDS]);
        }
    }
    content(words)
}

/// A page cut behind its first `len` bytes.
pub(super) fn cut(page: &Content, len: usize) -> Content {
    let mut bytes = [0; PAGE];
    copy_out(page, 0, &mut bytes[..len]);
    from_bytes(&bytes)
}

fn from_bytes(bytes: &[u8; PAGE]) -> Content {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
        *word = u64::from_be_bytes(*bytes).to_be();
    }
    content(words)
}

/// Copies bytes of a page out, from `at` on.
pub(super) fn copy_out(page: &Content, at: usize, out: &mut [u8]) {
    let Some(page) = page else { return out.fill(0) };
    if !at.is_multiple_of(WORD) {
        for (i, byte) in out.iter_mut().enumerate() {
            let place = at + i;
            *byte = page.words[place / WORD].to_be().to_be_bytes()[place % WORD];
        }
        return;
    }
    for (word, out) in page.words[at / WORD..].iter().zip(out.chunks_mut(WORD)) {
        out.copy_from_slice(&word.to_be().to_be_bytes()[..out.len()]);
    }
}

/// The first and the last byte in which two pages differ; `None` when they do not.
pub(super) fn difference(a: &Content, b: &Content) -> Option<Range<usize>> {
    let (mut left, mut right) = ([0; PAGE], [0; PAGE]);
    copy_out(a, 0, &mut left);
    copy_out(b, 0, &mut right);
    let differs = |i: &usize| left[*i] != right[*i];
    let first = (0..PAGE).find(differs)?;
    let last = (0..PAGE).rev().find(differs)?;
    Some(first..last + 1)
}

/// The memory of one file: whole pages, zero behind the file's end.
#[derive(Debug)]
pub(super) struct Memory {
    words: Box<[AtomicU64]>,
}

impl Memory {
    pub(super) fn new(pages: usize) -> Self {
        Self { words: (0..pages * WORDS).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        NonNull::from(&*self.words).cast()
    }

    fn page_words(&self, number: usize) -> &[AtomicU64] {
        self.words.get(number * WORDS..(number + 1) * WORDS).unwrap_or_default()
    }

    /// Whether page `number` holds something else than `known`.
    pub(super) fn differs(&self, number: usize, known: &Content) -> bool {
        let words = self.page_words(number);
        // A sector at a time, so that most words cost no branch.
        match known {
            None => words
                .chunks(SECTOR_WORDS)
                .any(|sector| sector.iter().fold(0, |all, word| all | word.load(Ordering::Relaxed)) != 0),
            Some(known) => {
                words.chunks(SECTOR_WORDS).zip(known.words.chunks(SECTOR_WORDS)).any(|(sector, known)| {
                    let both = sector.iter().zip(known);
                    both.fold(0, |all, (word, known)| all | word.load(Ordering::Relaxed) ^ known) != 0
                })
            }
        }
    }

    /// What page `number` holds now.
    pub(super) fn page(&self, number: usize) -> Content {
        let mut words = [0; WORDS];
        for (copy, word) in words.iter_mut().zip(self.page_words(number)) {
            *copy = word.load(Ordering::Relaxed);
        }
        content(words)
    }

    /// Fills page `number`.
    pub(super) fn load(&self, number: usize, page: &Content) {
        for (i, word) in self.page_words(number).iter().enumerate() {
            word.store(page.as_ref().map_or(0, |page| page.words[i]), Ordering::Relaxed);
        }
    }

    /// Stores bytes. Bytes beside them keep what other threads store there at the same time.
    pub(super) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let mut place = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.words.get(place / WORD).ok_or(io::ErrorKind::InvalidInput)?;
            let from = place % WORD;
            let (now, later) = rest.split_at(rest.len().min(WORD - from));
            if let Ok(whole) = <[u8; WORD]>::try_from(now) {
                word.store(u64::from_be_bytes(whole).to_be(), Ordering::Relaxed);
            } else {
                let put = |old: u64| {
                    let mut all = old.to_be().to_be_bytes();
                    all[from..from + now.len()].copy_from_slice(now);
                    Some(u64::from_be_bytes(all).to_be())
                };
                let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, put);
            }
            place += now.len();
            rest = later;
        }
        Ok(())
    }
}
