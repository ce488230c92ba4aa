//! The crash lab: workloads drawn from seeds, run against a model, crashed at every point, every image checked.
//!
//! A workload is a function of its seed, and so are the crash points and images chosen: a seed that fails fails again.
//! [`Lab::seed`] runs one; what it finds is shrunk to the fewest steps that still show it.

mod check;
mod model;
mod plan;
mod run;

use std::{collections::BTreeMap, fmt};

use super::faults::{Call, Failure, Fault};

use self::{
    plan::{Setup, Step},
    run::Run,
};

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
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Images of one seed, at most.
    pub images: u64,
    /// Images of each crash point: drawn from the adversarial ones and as many by chance.
    pub per_point: usize,
    /// One crash point in so many, …
    pub exhaustive_one_in: usize,
    /// … if it has no more than so many unsynced pages and names, is checked in every combination of theirs.
    pub exhaustive_pages: usize,
}

impl Default for Budget {
    /// 5,000 images a seed, 3 a point, one point in 64 in every combination of up to 12.
    fn default() -> Self {
        Self { images: 5_000, per_point: 3, exhaustive_one_in: 64, exhaustive_pages: 12 }
    }
}

/// What was checked.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Workloads.
    pub seeds: u64,
    /// Crash points.
    pub points: u64,
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
        self.images += other.images;
        for (depth, images) in &other.depths {
            *self.depths.entry(*depth).or_default() += images;
        }
    }
}

/// A workload that breaks an invariant.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its seed.
    pub seed: u64,
    /// The numbers of the steps that are needed, all others left out.
    pub kept: Vec<usize>,
    /// The steps in words.
    pub steps: Vec<String>,
    /// What breaks.
    pub violation: Violation,
    /// Images checked until then.
    pub images: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        for (number, step) in self.kept.iter().zip(&self.steps) {
            writeln!(f, "  {number:>3}  {step}")?;
        }
        let kept: Vec<String> = self.kept.iter().map(usize::to_string).collect();
        write!(
            f,
            "replay: cargo run --release --features sim --example crash_lab -- --seed {} --steps {}",
            self.seed,
            kept.join(",")
        )
    }
}

/// The lab.
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
        let setup = Setup::of(seed);
        let steps = plan::steps(seed, &setup);
        let all: Vec<usize> = (0..steps.len()).collect();
        match self.run(seed, &setup, &steps, &all) {
            Ok(tally) => Ok(tally),
            Err((at, violation, images)) => {
                let (kept, violation) = self.shrink(seed, &setup, &steps, all[..=at].to_vec(), violation);
                let steps = kept.iter().filter_map(|n| steps.get(*n)).map(Step::to_string).collect();
                Err(Box::new(Finding { seed, kept, steps, violation, images }))
            }
        }
    }

    /// Runs the steps `kept` of a seed's workload, as a [`Finding`] names them.
    ///
    /// # Errors
    /// The first violation.
    pub fn replay(&self, seed: u64, kept: &[usize]) -> Result<Tally, Violation> {
        let setup = Setup::of(seed);
        let steps = plan::steps(seed, &setup);
        self.run(seed, &setup, &steps, kept).map_err(|(_, violation, _)| violation)
    }

    /// The error matrix: runs the workload of a seed once for each call that it makes and each of `failures`, with that
    /// call failing, once and from then on for ever; then the same for each call of recovery after a power cut at its
    /// end. Everything else is checked as always. Says how many calls of each kind failed.
    ///
    /// # Errors
    /// The first violation.
    pub fn errors(&self, seed: u64, failures: &[Failure]) -> Result<(Tally, BTreeMap<Call, u64>), Violation> {
        let setup = Setup::of(seed);
        // One life: a crash begins a new disk, whose calls are counted anew.
        let whole = |step: &Step| matches!(step, Step::Break(_) | Step::Crash(_) | Step::Kill);
        let mut steps: Vec<Step> =
            plan::steps(seed, &setup).into_iter().filter(|step| !whole(step)).collect();
        steps.push(Step::Crash(seed));
        let none = Budget { images: 0, ..self.budget };
        let mut counted = Run::new(&setup, seed, none);
        counted.all(&steps[..steps.len() - 1]).map_err(|(_, violation)| violation)?;
        let calls = counted.calls().values().sum();
        counted.failing_recoveries(failures)?;
        let (mut tally, mut failed) = (counted.tally, counted.failed);
        for pass in 0..calls {
            for (failure, times) in failures.iter().flat_map(|failure| [(*failure, 1), (*failure, u64::MAX)])
            {
                let fault = Fault { call: None, pass, times, failure };
                let mut run = Run::new(&setup, seed, self.budget);
                run.broken(fault);
                run.tally.seeds = 1;
                run.all(&steps).map_err(|(at, violation)| Violation {
                    what: format!("{} (seed {seed}, {fault}, step {at})", violation.what),
                    ..violation
                })?;
                tally.add(&run.tally);
                for (call, count) in &run.failed {
                    *failed.entry(*call).or_default() += count;
                }
            }
        }
        Ok((tally, failed))
    }

    fn run(
        &self,
        seed: u64,
        setup: &Setup,
        steps: &[Step],
        kept: &[usize],
    ) -> Result<Tally, (usize, Violation, u64)> {
        let chosen: Vec<Step> = kept.iter().filter_map(|n| steps.get(*n)).cloned().collect();
        let mut run = Run::new(setup, seed, self.budget);
        run.tally.seeds = 1;
        match run.all(&chosen) {
            Ok(()) => Ok(run.tally),
            Err((at, violation)) => Err((at, violation, run.tally.images)),
        }
    }

    /// Leaves out steps, halves first, as long as the same invariant breaks. Bounded: a few hundred runs.
    fn shrink(
        &self,
        seed: u64,
        setup: &Setup,
        steps: &[Step],
        mut kept: Vec<usize>,
        mut violation: Violation,
    ) -> (Vec<usize>, Violation) {
        let mut size = kept.len() / 2;
        let mut runs = 0;
        while size > 0 && runs < 300 {
            let mut at = 0;
            let mut smaller = false;
            while at < kept.len() && runs < 300 {
                let mut fewer = kept.clone();
                fewer.drain(at..(at + size).min(kept.len()));
                runs += 1;
                match self.run(seed, setup, steps, &fewer) {
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
        (kept, violation)
    }
}
