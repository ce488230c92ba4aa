//! Crash tests of a program that uses the store, or anything else that writes through the seam.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Crash, Outcome, SimDisk, Tally, rng::Rng};
use crate::{clock::ManualClock, types::StoreTimestamp};

/// Runs a program on a simulated disk and checks what crashes may leave of it. See the [module](super).
#[derive(Clone, Copy, Debug)]
pub struct CrashTest {
    seed: u64,
    per_point: usize,
    write_stride: u64,
}

/// A promise that a crash broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The number of the crash point, from 1; 0 when the program itself failed.
    pub point: u64,
    /// What the crash left; `None` when the program itself failed.
    pub outcome: Option<Outcome>,
    /// What the check, or the program, says.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Some(outcome) => write!(f, "at crash point {} ({outcome}): {}", self.point, self.what),
            None => write!(f, "the program failed: {}", self.what),
        }
    }
}

impl std::error::Error for Broken {}

impl CrashTest {
    /// Chooses images by `seed`: the adversarial ones and four by chance at each point, with a point at each write.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, per_point: 4, write_stride: 1 }
    }

    /// Checks so many images by chance at each crash point, beside the adversarial ones.
    #[must_use]
    pub const fn images_per_point(mut self, images: usize) -> Self {
        self.per_point = images;
        self
    }

    /// Makes every `stride`th write a crash point; 0 makes none.
    #[must_use]
    pub const fn write_stride(mut self, stride: u64) -> Self {
        self.write_stride = stride;
        self
    }

    /// Runs `program` on an empty disk, then `check` on the images of every crash point, with `facts` as they were at
    /// that point. A program keeps in `facts` what it has promised to the world; it must not hold the lock while it
    /// calls the disk.
    ///
    /// # Errors
    /// The first image that `check` refuses, or what `program` returns.
    pub fn run<F: Clone + Send + 'static>(
        &self,
        facts: &Arc<Mutex<F>>,
        program: impl FnOnce(&SimDisk) -> Result<(), String>,
        mut check: impl FnMut(&SimDisk, &F) -> Result<(), String>,
    ) -> Result<Tally, Broken> {
        let clock = Arc::new(ManualClock::new(StoreTimestamp(0)));
        let disk = SimDisk::new(Arc::clone(&clock) as _);
        let points: Arc<Mutex<Vec<(Crash, F)>>> = Arc::default();
        let (seen, known) = (Arc::clone(&points), Arc::clone(facts));
        disk.watch(self.write_stride, move |moment| {
            let facts = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            seen.lock().unwrap_or_else(PoisonError::into_inner).push((moment.crash(), facts));
        });
        let failed = |what| Broken { point: 0, outcome: None, what };
        program(&disk).map_err(failed)?;
        disk.point();
        disk.unwatch();
        if let Some(stray) = disk.strays().first() {
            return Err(failed(format!("a store past the seam: {stray}")));
        }
        let points = std::mem::take(&mut *points.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tally = Tally { seeds: 1, ..Tally::default() };
        let mut rng = Rng::of(self.seed, 5);
        for (number, (crash, facts)) in (1..).zip(&points) {
            tally.points += 1;
            let mut outcomes = crash.adversarial();
            outcomes.extend(crash.seeded(self.per_point, rng.next()));
            for outcome in outcomes {
                tally.images += 1;
                check(&crash.disk(outcome, Arc::clone(&clock) as _), facts).map_err(|what| Broken {
                    point: number,
                    outcome: Some(outcome),
                    what,
                })?;
            }
        }
        Ok(tally)
    }
}
