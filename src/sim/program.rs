//! Crash tests of a program that uses the store, or anything else that writes through the seam.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Call, Crash, Failure, Fault, Outcome, SimDisk, Tally, rng::Rng};
use crate::{
    clock::{Clock, ManualClock},
    types::StoreTimestamp,
};

/// Crash points within a check at which the power goes again.
const WITHIN: usize = 4;
/// One image in so many is crashed again while it is checked.
const WITHIN_ONE_IN: usize = 8;

/// Combinations up to which all those of names and lengths are among them. A store that is just made has a dozen names
/// that are not durable.
const ALL_NAMES: u64 = 64;

/// Runs a program on a simulated disk and checks what crashes may leave of it. See the [module](super).
///
/// All choices follow from the seed and from the place of an image, so that a [`Broken`] promise names the one image that
/// shows it, and [`CrashTest::only`] checks that one again.
#[derive(Clone, Debug)]
pub struct CrashTest {
    seed: u64,
    per_point: usize,
    exhaustive: usize,
    write_stride: u64,
    store_stride: u64,
    depth: usize,
    failing_runs: u64,
    only: Option<Place>,
}

/// Where an image comes from: the run (0: nothing fails in it; else the number of its failing call), and then the crash
/// point and the image there, once for the program and once for each crash within a check. As text `0:17.3:2.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    run: u64,
    /// Points from 1, images from 0.
    images: Vec<(u64, u64)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.run)?;
        self.images.iter().try_for_each(|(point, image)| write!(f, ":{point}.{image}"))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is no place of an image, as `0:17.3` is");
        let mut parts = text.split(':');
        let run = parts.next().unwrap_or_default().parse().map_err(wrong)?;
        let image = |part: &str| {
            let (point, image) = part.split_once('.').unwrap_or((part, ""));
            Ok((point.parse()?, image.parse()?))
        };
        let images: Result<_, std::num::ParseIntError> = parts.map(image).collect();
        Ok(Self { run, images: images.map_err(wrong)? })
    }
}

impl Place {
    /// A number for the choices that are made at this place.
    fn seed(&self, seed: u64) -> u64 {
        let numbers = self.images.iter().flat_map(|(point, image)| [*point, *image]);
        numbers.fold(Rng::of(seed, self.run + 1).next(), |all, number| Rng::of(all, number + 1).next())
    }

    fn at(&self, point: u64, image: u64) -> Self {
        let mut place = self.clone();
        place.images.push((point, image));
        place
    }

    /// Whether the way to `other` leads by here, or ends here.
    fn leads_to(&self, other: &Self) -> bool {
        self.run == other.run && other.images.starts_with(&self.images)
    }
}

/// A promise that a crash broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The seed of the test.
    pub seed: u64,
    /// Which image it was; without points when the program itself failed.
    pub place: Place,
    /// What the crashes left, the one of the program first; empty when the program itself failed.
    pub outcomes: Vec<Outcome>,
    /// What failed in this run.
    pub fault: Option<Fault>,
    /// What the check, or the program, says.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.outcomes.is_empty() {
            write!(f, "the program failed")?;
        }
        for (n, ((point, _), outcome)) in self.place.images.iter().zip(&self.outcomes).enumerate() {
            let then = if n == 0 { "at crash point" } else { ", then within the check at crash point" };
            write!(f, "{then} {point} ({outcome})")?;
        }
        if let Some(fault) = self.fault {
            write!(f, ", with {fault}")?;
        }
        write!(
            f,
            ": {}\nreplay: CrashTest::new({}) as it was, with .only(\"{}\")",
            self.what, self.seed, self.place
        )
    }
}

impl std::error::Error for Broken {}

/// The crash points of one run, each with the facts of its moment.
type Points<F> = Vec<(Crash, F)>;
/// How many calls of each kind were made.
type Calls = BTreeMap<Call, u64>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is under test, and how much of it was.
struct Tested<'t, F> {
    test: &'t CrashTest,
    check: &'t mut dyn FnMut(&SimDisk, &F) -> Result<(), String>,
    clock: Arc<dyn Clock>,
    fault: Option<Fault>,
    tally: Tally,
}

impl CrashTest {
    /// Chooses images by `seed`: at each crash point every combination of up to three dirty pages, or the adversarial ones
    /// of more, and four by chance; a point at each write and, in debug builds, at each store through a mapping; in one
    /// image of eight a second crash while it is checked; no failing calls.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            per_point: 4,
            exhaustive: 3,
            write_stride: 1,
            store_stride: 1,
            depth: 1,
            failing_runs: 0,
            only: None,
        }
    }

    /// Checks so many images by chance at each crash point, torn ones among them, beside the others.
    #[must_use]
    pub const fn images_per_point(mut self, images: usize) -> Self {
        self.per_point = images;
        self
    }

    /// Checks every combination of pages at crash points of up to so many dirty ones, 12 at most: see
    /// [`Crash::exhaustive`]. Of `n` pages that were written once there are 2ⁿ. Names and lengths take part with all
    /// their combinations as long as this makes no more than 64 images.
    #[must_use]
    pub const fn exhaustive(mut self, pages: usize) -> Self {
        self.exhaustive = pages;
        self
    }

    /// Makes every `stride`th write a crash point; 0 makes none.
    #[must_use]
    pub const fn write_stride(mut self, stride: u64) -> Self {
        self.write_stride = stride;
        self
    }

    /// Makes every `stride`th store through a mapping a crash point, in debug builds; 0 makes none. See
    /// [`SimDisk::watch_stores`].
    #[must_use]
    pub const fn store_stride(mut self, stride: u64) -> Self {
        self.store_stride = stride;
        self
    }

    /// Cuts the power again while an image is checked, which is where a program opens what it finds and mends it; so many
    /// times one within the other. 0 never does.
    #[must_use]
    pub const fn within(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Runs the program so many times more, each with one call failing, once or from then on: a sync, a write, or any. The
    /// program may then return an error; what it had promised until then must hold.
    #[must_use]
    pub const fn failing_runs(mut self, runs: u64) -> Self {
        self.failing_runs = runs;
        self
    }

    /// Checks nothing but the image that a [`Broken`] names. All else about the test must be as it was.
    ///
    /// # Errors
    /// When `place` is not what a [`Broken`] prints.
    pub fn only(mut self, place: &str) -> Result<Self, String> {
        self.only = Some(place.parse()?);
        Ok(self)
    }

    /// Runs `program` on an empty disk, then `check` on the images of every crash point, with `facts` as they were at
    /// that point. A program keeps in `facts` what it has promised to the world; it must not hold the lock while it
    /// calls the disk. `check` opens what it is given as the program would after a crash: what it writes may be lost in
    /// a second crash, and the same facts must hold then.
    ///
    /// With [`CrashTest::failing_runs`] the program runs again and again; `facts` are then what they were at first.
    ///
    /// # Errors
    /// The first image that `check` refuses, or what `program` returns though nothing failed. A panic of either is
    /// told likewise.
    pub fn run<F: Clone + Send + 'static>(
        &self,
        facts: &Arc<Mutex<F>>,
        mut program: impl FnMut(&SimDisk) -> Result<(), String>,
        mut check: impl FnMut(&SimDisk, &F) -> Result<(), String>,
    ) -> Result<Tally, Box<Broken>> {
        let clock = Arc::new(ManualClock::new(StoreTimestamp(0)));
        let mut tested =
            Tested { test: self, check: &mut check, clock: clock as _, fault: None, tally: Tally::default() };
        let first = locked(facts).clone();
        let (points, calls) = tested.points(0, facts, &mut program)?;
        if self.only.as_ref().is_none_or(|only| only.run == 0) {
            tested.check_all(&Place::default(), &[], &points)?;
        }
        for run in 1..=self.failing_runs {
            if self.only.as_ref().is_some_and(|only| only.run != run) {
                continue;
            }
            tested.fault = Some(self.fault(run, &calls));
            *locked(facts) = first.clone();
            let (points, _) = tested.points(run, facts, &mut program)?;
            tested.check_all(&Place { run, images: Vec::new() }, &[], &points)?;
        }
        Ok(tested.tally)
    }

    /// What fails in a run.
    fn fault(&self, run: u64, calls: &Calls) -> Fault {
        let mut rng = Rng::of(self.seed, run.wrapping_add(0xFA17));
        let made = |call: &Call| calls.get(call).copied().unwrap_or(0);
        let kinds: Vec<Call> =
            [Call::Sync, Call::Write, Call::SyncDir].into_iter().filter(|call| made(call) > 0).collect();
        // Each second time a sync or a write; else any call there is.
        let call = if rng.one_in(2) { rng.pick(&kinds) } else { None };
        let count = call.map_or_else(|| calls.values().sum(), |call| made(&call));
        let failure = match call {
            Some(Call::Sync | Call::SyncDir) => Failure::Device,
            Some(_) => {
                rng.pick(&[Failure::Device, Failure::NoSpace, Failure::Short]).unwrap_or(Failure::Device)
            }
            None => rng.pick(&[Failure::Device, Failure::NoSpace]).unwrap_or(Failure::Device),
        };
        let pass = rng.below(usize::try_from(count).unwrap_or(usize::MAX)) as u64;
        Fault { call, pass, times: if rng.one_in(2) { 1 } else { u64::MAX }, failure }
    }

    fn outcomes(&self, crash: &Crash, seed: u64) -> Vec<Outcome> {
        let mut outcomes = crash.every(self.exhaustive, ALL_NAMES).unwrap_or_else(|| crash.adversarial());
        if crash.combinations() > 1 {
            outcomes.extend(crash.seeded(self.per_point, seed));
        }
        outcomes
    }
}

impl<F: Clone + Send + 'static> Tested<'_, F> {
    fn broken(&self, place: Place, outcomes: Vec<Outcome>, what: String) -> Box<Broken> {
        Box::new(Broken { seed: self.test.seed, place, outcomes, fault: self.fault, what })
    }

    /// Runs the program: its crash points, and the calls that it made.
    fn points(
        &mut self,
        run: u64,
        facts: &Arc<Mutex<F>>,
        program: &mut dyn FnMut(&SimDisk) -> Result<(), String>,
    ) -> Result<(Points<F>, Calls), Box<Broken>> {
        let disk = SimDisk::new(Arc::clone(&self.clock));
        let points: Arc<Mutex<Points<F>>> = Arc::default();
        let (seen, known) = (Arc::clone(&points), Arc::clone(facts));
        disk.watch_stores(self.test.store_stride);
        disk.watch(self.test.write_stride, move |moment| {
            let facts = locked(&known).clone();
            locked(&seen).push((moment.crash(), facts));
        });
        if let Some(fault) = self.fault {
            disk.fail(fault);
        }
        let done = told(|| program(&disk));
        disk.point();
        disk.unwatch();
        let failed = |what| Err(self.broken(Place { run, images: Vec::new() }, Vec::new(), what));
        match done {
            Ran::Refused(what) if disk.failed_calls() == 0 => return failed(what),
            Ran::Panicked(what) => return failed(what),
            _ => {}
        }
        if let Some(stray) = disk.strays().first() {
            return failed(format!("a store past the seam: {stray}"));
        }
        self.tally.seeds += 1;
        let points = std::mem::take(&mut *locked(&points));
        Ok((points, disk.calls()))
    }

    /// Checks the images of all points.
    fn check_all(
        &mut self,
        place: &Place,
        before: &[Outcome],
        points: &[(Crash, F)],
    ) -> Result<(), Box<Broken>> {
        for (number, (crash, facts)) in (1..).zip(points) {
            self.tally.points += 1;
            let outcomes = self.test.outcomes(crash, place.at(number, 0).seed(self.test.seed));
            self.tally.exhaustive += u64::from(crash.dirty_pages() <= self.test.exhaustive);
            for (image, outcome) in (0..).zip(outcomes) {
                self.image(place.at(number, image), &[before, &[outcome]].concat(), crash, facts)?;
            }
        }
        Ok(())
    }

    /// Checks one image, and what a second crash leaves while it is checked.
    fn image(
        &mut self,
        place: Place,
        outcomes: &[Outcome],
        crash: &Crash,
        facts: &F,
    ) -> Result<(), Box<Broken>> {
        if self.test.only.as_ref().is_some_and(|only| !place.leads_to(only)) {
            return Ok(());
        }
        let Some(outcome) = outcomes.last() else { return Ok(()) };
        let disk = crash.disk(*outcome, Arc::clone(&self.clock));
        self.tally.images += 1;
        *self.tally.depths.entry(outcomes.len()).or_default() += 1;
        let mut rng = Rng::of(place.seed(self.test.seed), 17);
        let within: Arc<Mutex<Vec<Crash>>> = Arc::default();
        let deeper = outcomes.len() <= self.test.depth && rng.one_in(WITHIN_ONE_IN);
        if deeper {
            let seen = Arc::clone(&within);
            disk.watch_stores(self.test.store_stride);
            disk.watch(self.test.write_stride, move |moment| locked(&seen).push(moment.crash()));
        }
        let done = told(|| (self.check)(&disk, facts));
        disk.unwatch();
        let stray = || disk.strays().first().map(|stray| format!("a store past the seam: {stray}"));
        if let Some(what) = done.words().or_else(stray) {
            return Err(self.broken(place, outcomes.to_vec(), what));
        }
        let within = std::mem::take(&mut *locked(&within));
        for _ in 0..WITHIN.min(within.len()) {
            let point = rng.below(within.len());
            let Some(crash) = within.get(point) else { continue };
            let all = self.test.outcomes(crash, rng.next());
            let image = rng.below(all.len());
            if let Some(outcome) = all.get(image) {
                let next = place.at(point as u64 + 1, image as u64);
                self.image(next, &[outcomes, &[*outcome]].concat(), crash, facts)?;
            }
        }
        Ok(())
    }
}

/// What became of a call of the user's code.
enum Ran {
    Well,
    Refused(String),
    Panicked(String),
}

impl Ran {
    fn words(self) -> Option<String> {
        match self {
            Self::Well => None,
            Self::Refused(what) | Self::Panicked(what) => Some(what),
        }
    }
}

fn told(run: impl FnOnce() -> Result<(), String>) -> Ran {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Ran::Well,
        Ok(Err(what)) => Ran::Refused(what),
        Err(panic) => Ran::Panicked(format!("it panics: {}", super::lab::panic_text(&*panic))),
    }
}
