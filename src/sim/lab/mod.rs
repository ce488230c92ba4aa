//! The crash lab: workloads drawn from seeds, run against a model, crashed at every point, every image checked.
//!
//! A workload is a function of its seed, and so are the crash points and images chosen: a seed that fails fails again.
//! [`Lab::seed`] runs one; what it finds is shrunk to the fewest steps that still show it. Bytes are a workload as well
//! ([`Workload::of_bytes`]), for fuzzers.

mod check;
mod decode;
mod model;
mod plan;
mod run;
mod workload;

use std::{collections::BTreeMap, fmt};

use super::faults::{Call, Failure, Fault};

pub(super) use self::check::panic_text;
pub use self::workload::{Replay, Workload};

use self::{run::Run, workload::Breakage};

/// What the lab found broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the promise in FORMAT.md, "Invariants".
    pub invariant: u8,
    /// What is wrong, where, and which crash left it so.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)
    }
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Images of one workload, at most; 0 checks those of its power cuts and kills alone.
    pub images: u64,
    /// Images of each crash point: drawn from the adversarial ones and as many by chance.
    pub per_point: usize,
    /// A crash point with so many dirty pages at most is checked in every combination of theirs, if these are no more
    /// than [`Budget::EVERY`].
    pub every_pages: usize,
    /// Of those with more one in so many, …
    pub exhaustive_one_in: usize,
    /// … if it has so many dirty pages at most (and no more than 12).
    pub exhaustive_pages: usize,
}

impl Default for Budget {
    /// 5,000 images a workload, 3 a point; every combination at each point of up to 6 dirty pages that has no more than
    /// [`Budget::EVERY`] of them, and at one point in 64 of those with more, up to 12 pages.
    fn default() -> Self {
        Self { images: 5_000, per_point: 3, every_pages: 6, exhaustive_one_in: 64, exhaustive_pages: 12 }
    }
}

impl Budget {
    /// Combinations up to which every crash point of few pages is checked in all of them.
    pub const EVERY: usize = 8;

    /// Its numbers with the options of `crash_lab` that set them.
    fn words(self) -> [(&'static str, u64); 5] {
        [
            ("--per-seed", self.images),
            ("--per-point", self.per_point as u64),
            ("--every-pages", self.every_pages as u64),
            ("--exhaustive-one-in", self.exhaustive_one_in as u64),
            ("--exhaustive-pages", self.exhaustive_pages as u64),
        ]
    }

    /// Sets a number by the option that sets it; says whether it is one.
    fn set(&mut self, word: &str, number: u64) -> bool {
        let small = usize::try_from(number).unwrap_or(usize::MAX);
        match word {
            "--per-seed" => self.images = number,
            "--per-point" => self.per_point = small,
            "--every-pages" => self.every_pages = small,
            "--exhaustive-one-in" => self.exhaustive_one_in = small.max(1),
            "--exhaustive-pages" => self.exhaustive_pages = small,
            _ => return false,
        }
        true
    }
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Workloads.
    pub seeds: u64,
    /// Crash points.
    pub points: u64,
    /// Those of them that were checked in every combination of their dirty pages.
    pub exhaustive: u64,
    /// Images opened and checked.
    pub images: u64,
    /// Images by the number of crashes that led to them: 2 is a crash within recovery.
    pub depths: BTreeMap<usize, u64>,
}

impl Tally {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.points += other.points;
        self.exhaustive += other.exhaustive;
        self.images += other.images;
        for (depth, images) in &other.depths {
            *self.depths.entry(*depth).or_default() += images;
        }
    }
}

/// A workload that breaks an invariant.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The run that shows it, with the steps that are needed, all others left out.
    pub replay: Replay,
    /// What breaks.
    pub violation: Violation,
    /// Images checked until then.
    pub images: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        write!(f, "{}", self.replay.workload)?;
        // What a debug build checks, and the points that it has, are not there in a release build.
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        write!(f, "replay: cargo run {profile}--features sim --example crash_lab -- {}", self.replay)
    }
}

/// What a run came to: what was checked, and which calls failed on purpose.
type Ran = (Tally, BTreeMap<Call, u64>);

/// The lab.
///
/// A crash point is every sync (before it), every creation, renaming, removal and change of length, every so many writes
/// (1, 2 or 5, by the workload's settings), and the end of each step; in a debug build every so many stores through a
/// mapping, too. Of each point images are checked:
///
/// - with no more than [`Budget::every_pages`] dirty pages (6) and no more than [`Budget::EVERY`] combinations of their
///   versions and of unsynced names: all of these, and two with torn pages;
/// - else, one point in [`Budget::exhaustive_one_in`] (64), if it has no more than [`Budget::exhaustive_pages`] dirty
///   pages (12): all that [`Crash::exhaustive`](super::Crash::exhaustive) makes, up to 4,096, and eight torn ones;
/// - else [`Budget::per_point`] of the adversarial ones and of as many by chance, torn ones among them.
///
/// In one image of 12 the power goes again while recovery runs, at four of its crash points; in some of those again, and
/// again: three times within recovery at most. In a third of these a call of recovery fails as well.
///
/// ```
/// use reput::sim::{Budget, Lab};
/// let lab = Lab::new(Budget { images: 50, ..Budget::default() });
/// let tally = lab.seed(1).expect("no invariant breaks");
/// assert!(tally.images > 0);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Lab {
    budget: Budget,
}

impl Lab {
    /// A lab that checks so much.
    #[must_use]
    pub const fn new(budget: Budget) -> Self {
        Self { budget }
    }

    /// Runs the workload of a seed.
    ///
    /// # Errors
    /// The first violation, with the workload shrunk to what shows it.
    pub fn seed(&self, seed: u64) -> Result<Tally, Box<Finding>> {
        self.shrunk(&Workload::of_seed(seed)).map(|(tally, _)| tally)
    }

    /// Runs a workload.
    ///
    /// # Errors
    /// The first violation, with the workload as it is up to there.
    pub fn run(&self, workload: &Workload) -> Result<Tally, Box<Finding>> {
        match self.ran(workload) {
            Ok((tally, _)) => Ok(tally),
            Err((at, violation, images)) => {
                let steps: Vec<usize> = workload.kept().into_iter().take(at + 1).collect();
                Err(self.finding(workload.clone().only(&steps), violation, images))
            }
        }
    }

    /// As [`Lab::run`], and leaves out of what breaks the steps that it does not need.
    ///
    /// # Errors
    /// The first violation, with the workload shrunk to what shows it.
    pub fn run_and_shrink(&self, workload: &Workload) -> Result<Tally, Box<Finding>> {
        self.shrunk(workload).map(|(tally, _)| tally)
    }

    /// The error matrix: runs the workload of a seed once for each call that it makes and each of `failures` that can
    /// befall it, with that call failing, once and from then on for ever; then the same for each call of recovery after a
    /// power cut at its end. Everything else is checked as always. Says how many calls of each kind failed.
    ///
    /// # Errors
    /// The first violation, with the workload shrunk to what shows it.
    pub fn errors(
        &self,
        seed: u64,
        failures: &[Failure],
    ) -> Result<(Tally, BTreeMap<Call, u64>), Box<Finding>> {
        let workload = Workload::of_seed(seed);
        let life = workload.clone().one_life();
        let mut counted = Run::new(&life.setup, seed, Budget { images: 0, ..self.budget });
        let made = counted.count(&life.steps[..life.steps.len() - 1]);
        let places = made.map_err(|(_, violation)| self.finding(life.clone(), violation, 0))?;
        let recovery = counted.failing_recoveries(failures);
        recovery.map_err(|(violation, breakage)| {
            let broken = workload.clone().with(breakage);
            self.smaller(broken.kept(), broken, violation, 0)
        })?;
        let (mut tally, mut failed) = (counted.tally, counted.failed);
        for (place, calls) in places {
            for fault in faults(failures, &calls) {
                let broken = workload.clone().with(match place {
                    None => Breakage::Open(fault),
                    Some(step) => Breakage::Step(step, fault),
                });
                let (one, calls) = self.shrunk(&broken)?;
                tally.add(&one);
                calls.into_iter().for_each(|(call, count)| *failed.entry(call).or_default() += count);
            }
        }
        Ok((tally, failed))
    }

    fn finding(&self, workload: Workload, violation: Violation, images: u64) -> Box<Finding> {
        let replay = Replay { workload, budget: self.budget, is_one_run: true };
        Box::new(Finding { replay, violation, images })
    }

    fn ran(&self, workload: &Workload) -> Result<Ran, (usize, Violation, u64)> {
        let mut run = Run::new(&workload.setup, workload.seed, self.budget);
        run.tally.seeds = 1;
        match run.workload(workload) {
            Ok(()) => Ok((run.tally, run.failed)),
            Err((at, violation)) => Err((at, violation, run.tally.images)),
        }
    }

    fn shrunk(&self, workload: &Workload) -> Result<Ran, Box<Finding>> {
        self.ran(workload).map_err(|(at, violation, images)| {
            let kept = workload.kept().into_iter().take(at + 1).collect();
            self.smaller(kept, workload.clone(), violation, images)
        })
    }

    /// Leaves out steps, halves first, as long as the same invariant breaks. Bounded: a few hundred runs.
    fn smaller(
        &self,
        mut kept: Vec<usize>,
        workload: Workload,
        mut violation: Violation,
        images: u64,
    ) -> Box<Finding> {
        let mut size = kept.len().div_ceil(2);
        let mut runs = 0;
        while size > 0 && runs < 300 {
            let mut at = 0;
            let mut smaller = false;
            while at < kept.len() && runs < 300 {
                let mut fewer = kept.clone();
                fewer.drain(at..(at + size).min(kept.len()));
                runs += 1;
                match self.ran(&workload.clone().only(&fewer)) {
                    Err((end, found, _)) if found.invariant == violation.invariant => {
                        fewer.truncate(end + 1);
                        (kept, violation, smaller) = (fewer, found, true);
                    }
                    _ => at += size,
                }
            }
            if !smaller {
                size /= 2;
            }
        }
        self.finding(workload.only(&kept), violation, images)
    }
}

/// Each of `failures` at each of these calls that it can befall, once and for ever.
fn faults(failures: &[Failure], calls: &BTreeMap<Call, u64>) -> Vec<Fault> {
    let mut all = Vec::new();
    for failure in failures {
        let count = calls.iter().filter(|(call, _)| failure.befalls(**call)).map(|(_, count)| count).sum();
        for pass in 0..count {
            all.extend([1, u64::MAX].map(|times| Fault { call: None, pass, times, failure: *failure }));
        }
    }
    all
}
