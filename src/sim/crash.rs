//! What a crash may leave: every disk that the unsynced part of this one allows.
//!
//! Choices are made for *pages* (each takes any version since its last sync, or sectors of several) and for *names* (each
//! unsynced change of a directory and each unsynced length, either way).

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    disk::{SimDisk, State},
    file::{Dirty, File},
    names::{Entry, Tree, reachable},
    page::{Content, mixed},
    rng::Rng,
};
use crate::clock::Clock;

/// Dirty pages of which every combination is made, at most.
const MOST_PAGES: usize = 12;
/// Combinations that are made of one crash, at most.
const MOST_COMBINATIONS: u64 = 1 << MOST_PAGES;

/// Which of the unsynced changes a crash leaves. Changes are in the order in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kept {
    /// None: what was synced.
    None,
    /// All.
    All,
    /// The first alone.
    First,
    /// The last alone.
    Last,
    /// All but the first.
    AllButFirst,
    /// Those whose bit is set; from the 64th on all.
    Mask(u64),
    /// The combination of this number among all of them, versions in between included: the first change turns fastest.
    Numbered(u64),
    /// By the toss of a coin with this seed, pages in any version.
    Seeded(u64),
    /// As `Seeded`, and each sector of a page for itself.
    Torn(u64),
}

/// One outcome of a crash: what stays of pages, and of names and lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Of the pages.
    pub pages: Kept,
    /// Of names and lengths.
    pub names: Kept,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pages {:?}, names {:?}", self.pages, self.names)
    }
}

#[derive(Clone, Debug)]
struct CrashFile {
    durable: Vec<Content>,
    dirty: BTreeMap<usize, Dirty>,
    lens: Vec<usize>,
    modified: std::time::SystemTime,
    change: u64,
}

/// Everything that a crash at one moment may leave. Cheap to keep: pages are shared.
#[derive(Clone)]
pub struct Crash {
    tree: Tree,
    files: BTreeMap<u64, CrashFile>,
    /// Dirty pages in the order in which they became so.
    pages: Vec<(u64, usize)>,
    /// Unsynced changes of names and lengths in order.
    names: Vec<NameUnit>,
}

#[derive(Clone, Copy, Debug)]
enum NameUnit {
    Change(usize),
    Len(u64),
}

impl fmt::Debug for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crash").field("pages", &self.pages.len()).field("names", &self.names.len()).finish()
    }
}

/// Decides for one change after the other.
struct Chooser {
    kept: Kept,
    count: usize,
    at: usize,
    /// What is left of a combination's number.
    rest: u64,
    rng: Rng,
}

impl Chooser {
    fn new(kept: Kept, count: usize, purpose: u64) -> Self {
        let seed = if let Kept::Seeded(seed) | Kept::Torn(seed) = kept { seed } else { 0 };
        let rest = if let Kept::Numbered(number) = kept { number } else { 0 };
        Self { kept, count, at: 0, rest, rng: Rng::of(seed, purpose) }
    }

    /// Which of `versions` stays; 0 is the durable one.
    fn choose(&mut self, versions: usize) -> usize {
        let number = self.at;
        self.at += 1;
        let newest = versions.saturating_sub(1);
        let keep = match self.kept {
            Kept::None => false,
            Kept::All => true,
            Kept::First => number == 0,
            Kept::Last => number + 1 == self.count,
            Kept::AllButFirst => number > 0,
            Kept::Mask(bits) => number >= 64 || bits >> number & 1 == 1,
            Kept::Numbered(_) => {
                let (versions, rest) = (versions.max(1) as u64, self.rest);
                self.rest = rest / versions;
                return usize::try_from(rest % versions).unwrap_or(0);
            }
            Kept::Seeded(_) | Kept::Torn(_) => return self.rng.below(versions),
        };
        if keep { newest } else { 0 }
    }

    /// The page that stays.
    fn page(&mut self, durable: &Content, dirty: &Dirty) -> Content {
        let version = |n: usize| match n.checked_sub(1) {
            None => durable.clone(),
            Some(n) => dirty.versions.get(n).cloned().unwrap_or_default(),
        };
        let count = dirty.versions.len() + 1;
        if let Kept::Torn(_) = self.kept {
            let all: Vec<Content> = (0..count).map(version).collect();
            // Most tears are between what was there and what is there now.
            let newest = count - 1;
            let any = self.rng.one_in(4);
            return mixed(&all, || {
                if any {
                    self.rng.below(count)
                } else if self.rng.one_in(2) {
                    newest
                } else {
                    0
                }
            });
        }
        version(self.choose(count))
    }
}

impl Crash {
    pub(super) fn of(state: &State) -> Self {
        // Files that no name can lead to are not on any disk.
        let mut all = state.tree.durable.clone();
        let mut named: std::collections::BTreeSet<u64> = ids(all.values());
        for change in &state.tree.pending {
            change.apply(&mut all);
            named.extend(ids(all.values()));
        }
        let mut pages = Vec::new();
        let mut names: Vec<(u64, NameUnit)> = Vec::new();
        names.extend(state.tree.pending.iter().enumerate().map(|(n, c)| (c.since, NameUnit::Change(n))));
        let mut files = BTreeMap::new();
        for (id, file) in state.files.iter().filter(|(id, _)| named.contains(id)) {
            pages.extend(file.dirty.iter().map(|(number, dirty)| (dirty.since, *id, *number)));
            if file.is_dirty() && file.lens.len() > 1 {
                names.push((file.lens_since, NameUnit::Len(*id)));
            }
            let File { durable, dirty, lens, modified, durable_change, .. } = file;
            let (durable, dirty, lens) = (durable.clone(), dirty.clone(), lens.clone());
            files.insert(
                *id,
                CrashFile { durable, dirty, lens, modified: *modified, change: *durable_change },
            );
        }
        pages.sort_unstable();
        names.sort_by_key(|(since, unit)| (*since, matches!(unit, NameUnit::Len(_))));
        Self {
            tree: state.tree.clone(),
            files,
            pages: pages.into_iter().map(|(_, id, number)| (id, number)).collect(),
            names: names.into_iter().map(|(_, unit)| unit).collect(),
        }
    }

    /// Pages that are not on the disk as programs saw them.
    #[must_use]
    pub fn dirty_pages(&self) -> usize {
        self.pages.len()
    }

    /// Changes of names and lengths that are not durable.
    #[must_use]
    pub fn unsynced_names(&self) -> usize {
        self.names.len()
    }

    /// The outcomes that catch most: all, none, only the first, only the last, all but the first, each with all names
    /// and with none. Those that come to the same are left out.
    #[must_use]
    pub fn adversarial(&self) -> Vec<Outcome> {
        let few = |count: usize| match count {
            0 => &[Kept::All][..],
            1 => &[Kept::All, Kept::None],
            2 => &[Kept::All, Kept::None, Kept::First, Kept::Last],
            _ => &[Kept::All, Kept::None, Kept::First, Kept::Last, Kept::AllButFirst],
        };
        let names = if self.names.is_empty() { &[Kept::All][..] } else { &[Kept::All, Kept::None] };
        let mut outcomes = Vec::new();
        for names in names {
            outcomes
                .extend(few(self.pages.len()).iter().map(|pages| Outcome { pages: *pages, names: *names }));
        }
        outcomes
    }

    /// How many combinations there are of versions of pages and of names and lengths.
    #[must_use]
    pub fn combinations(&self) -> u64 {
        let (pages, names) = self.counts();
        pages.saturating_mul(names)
    }

    fn counts(&self) -> (u64, u64) {
        let pages = self.pages.iter().map(|(id, number)| {
            let dirty = self.files.get(id).and_then(|file| file.dirty.get(number));
            dirty.map_or(1, |dirty| dirty.versions.len() as u64 + 1)
        });
        let names = self.names.iter().map(|unit| match unit {
            NameUnit::Change(_) => 2,
            NameUnit::Len(id) => self.files.get(id).map_or(1, |file| file.lens.len() as u64),
        });
        (pages.fold(1, u64::saturating_mul), names.fold(1, u64::saturating_mul))
    }

    /// Every combination of what the pages may hold, when there are no more than `limit` dirty ones (and never of more
    /// than 12).
    ///
    /// A page takes each of its versions since the last sync, those in between too, where that makes no more than 4,096
    /// combinations; where it makes more, the durable and the newest one. Names and lengths, which do not count for
    /// `limit`, take part with all their combinations as long as the whole is no more than 4,096; else each combination
    /// of pages comes with all of them, with none, and with some by chance, if that is no more, and else with one of
    /// these three in turn.
    #[must_use]
    pub fn exhaustive(&self, limit: usize) -> Option<Vec<Outcome>> {
        self.every(limit, MOST_COMBINATIONS)
    }

    /// The same, where names and lengths take part with all their combinations only as long as the whole is no more than
    /// `most`.
    pub(super) fn every(&self, limit: usize, most: u64) -> Option<Vec<Outcome>> {
        let count = self.pages.len();
        if count > limit.min(MOST_PAGES) {
            return None;
        }
        let (versions, names) = self.counts();
        let pages: Vec<Kept> = if versions <= MOST_COMBINATIONS {
            (0..versions).map(Kept::Numbered).collect()
        } else {
            (0..1_u64 << count).map(Kept::Mask).collect()
        };
        let room = most / pages.len() as u64;
        let some = |number: usize| Kept::Seeded(number as u64);
        let with = |number: usize, pages: Kept| -> Vec<Outcome> {
            let names: Vec<Kept> = match (names <= room, room >= 3) {
                (true, _) => (0..names).map(Kept::Numbered).collect(),
                (false, true) => vec![Kept::All, Kept::None, some(number)],
                (false, false) => {
                    vec![[Kept::All, Kept::None, some(number)].get(number % 3).copied().unwrap_or(Kept::All)]
                }
            };
            names.into_iter().map(|names| Outcome { pages, names }).collect()
        };
        Some(pages.into_iter().enumerate().flat_map(|(number, pages)| with(number, pages)).collect())
    }

    /// `count` outcomes by chance: every second one with torn pages.
    #[must_use]
    pub fn seeded(&self, count: usize, seed: u64) -> Vec<Outcome> {
        let mut rng = Rng::of(seed, 7);
        let one = |n: usize| {
            let (pages, names) = (rng.next() >> 16, rng.next() >> 16);
            let pages = if n.is_multiple_of(2) { Kept::Torn(pages) } else { Kept::Seeded(pages) };
            let names = match n % 4 {
                0 => Kept::All,
                _ => Kept::Seeded(names),
            };
            Outcome { pages, names }
        };
        (0..count).map(one).collect()
    }

    /// The disk that `outcome` leaves, all of it durable.
    #[must_use]
    pub fn disk(&self, outcome: Outcome, clock: Arc<dyn Clock>) -> SimDisk {
        let mut names = Chooser::new(outcome.names, self.names.len(), 1);
        let mut kept = self.tree.durable.clone();
        let mut lens = BTreeMap::new();
        for unit in &self.names {
            match unit {
                NameUnit::Change(number) => {
                    let chosen = names.choose(2) == 1;
                    if let (true, Some(change)) = (chosen, self.tree.pending.get(*number)) {
                        change.apply(&mut kept);
                    }
                }
                NameUnit::Len(id) => {
                    if let Some(file) = self.files.get(id) {
                        lens.insert(*id, names.choose(file.lens.len()));
                    }
                }
            }
        }
        let kept = reachable(kept);
        let mut chooser = Chooser::new(outcome.pages, self.pages.len(), 2);
        let mut chosen: BTreeMap<(u64, usize), Content> = BTreeMap::new();
        for (id, number) in &self.pages {
            if let Some((file, dirty)) = self.files.get(id).and_then(|f| Some((f, f.dirty.get(number)?))) {
                let durable = file.durable.get(*number).cloned().unwrap_or_default();
                chosen.insert((*id, *number), chooser.page(&durable, dirty));
            }
        }
        let mut files = BTreeMap::new();
        for id in ids(kept.values()) {
            let Some(file) = self.files.get(&id) else { continue };
            let mut pages = file.durable.clone();
            for ((_, number), page) in chosen.range((id, 0)..=(id, usize::MAX)) {
                if let Some(place) = pages.get_mut(*number) {
                    *place = page.clone();
                }
            }
            let len = lens.get(&id).and_then(|n| file.lens.get(*n)).or(file.lens.last());
            files.insert(id, File::settled(len.copied().unwrap_or(0), pages, file.modified, file.change));
        }
        SimDisk::over(State::settled(Tree::settled(kept), files), clock)
    }
}

fn ids<'e>(entries: impl Iterator<Item = &'e Entry>) -> std::collections::BTreeSet<u64> {
    entries
        .filter_map(|entry| match entry {
            Entry::File(id) => Some(*id),
            Entry::Dir => None,
        })
        .collect()
}
