//! Which workload is run, and how a run of it is named so that it can be made again.

use std::{fmt, fmt::Write as _, str::FromStr};

use super::{
    super::faults::Fault,
    Budget, decode,
    plan::{self, Setup, Step},
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Seed(u64),
    Bytes(Vec<u8>),
}

/// A call that fails in a workload of the error matrix, whose life no crash interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breakage {
    /// Calls fail from the first opening on.
    Open(Fault),
    /// From before the step of this number on.
    Step(usize, Fault),
    /// The power goes behind the last step and leaves the adversarial outcome of this number; calls of its recovery fail.
    Recovery(usize, Fault),
}

/// What the lab puts a store through: its settings and steps, as they follow from a seed or from bytes.
#[derive(Clone, Debug)]
pub struct Workload {
    origin: Origin,
    /// Chooses the images.
    pub(super) seed: u64,
    pub(super) setup: Setup,
    /// With their numbers among all steps of the origin.
    pub(super) steps: Vec<(usize, Step)>,
    pub(super) breakage: Option<Breakage>,
}

impl Workload {
    /// The workload of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let setup = Setup::of(seed);
        let steps = plan::steps(seed, &setup).into_iter().enumerate().collect();
        Self { origin: Origin::Seed(seed), seed, setup, steps, breakage: None }
    }

    /// The workload that these bytes describe, as any do: four of settings, then steps, of which only the first 64 count.
    ///
    /// ```
    /// use reput::sim::{Budget, Lab, Workload};
    /// // Four puts, a turn of dispatch, a power cut.
    /// let workload = Workload::of_bytes(&[0, 1, 0, 0, 32, 0, 9, 0, 32, 0, 9, 0, 32, 0, 9, 0, 32, 0, 9, 0, 6, 15, 0]);
    /// assert_eq!(workload.len(), 6);
    /// assert!(Lab::new(Budget { images: 50, ..Budget::default() }).run(&workload).is_ok());
    /// ```
    #[must_use]
    pub fn of_bytes(data: &[u8]) -> Self {
        let (seed, setup, steps) = decode::workload(data);
        let steps = steps.into_iter().enumerate().collect();
        Self { origin: Origin::Bytes(data.to_vec()), seed, setup, steps, breakage: None }
    }

    /// Of its steps only those of these numbers.
    #[must_use]
    pub fn only(mut self, kept: &[usize]) -> Self {
        self.steps.retain(|(number, _)| kept.contains(number));
        self
    }

    /// The seed, or that which the bytes name.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The numbers of its steps.
    #[must_use]
    pub fn kept(&self) -> Vec<usize> {
        self.steps.iter().map(|(number, _)| *number).collect()
    }

    /// How many steps it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it has no step: then the store is opened and nothing more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// One life of it: a crash begins a new disk, whose calls are counted anew. The last step is the only power cut.
    pub(super) fn one_life(mut self) -> Self {
        let behind = self.steps.last().map_or(0, |(number, _)| number + 1);
        self.steps.retain(|(_, step)| !matches!(step, Step::Break(_) | Step::Crash(_) | Step::Kill));
        self.steps.push((behind, Step::Crash(self.seed)));
        self
    }

    /// One life, in which this fails.
    pub(super) fn with(self, breakage: Breakage) -> Self {
        let mut life = self.one_life();
        if let Breakage::Recovery(..) = breakage {
            life.steps.pop();
        }
        life.breakage = Some(breakage);
        life
    }
}

impl fmt::Display for Workload {
    /// The steps in words, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.breakage {
            Some(Breakage::Open(fault)) => writeln!(f, "       from the first opening on: {fault}")?,
            Some(Breakage::Step(at, fault)) => writeln!(f, "       from step {at} on: {fault}")?,
            Some(Breakage::Recovery(_, fault)) => {
                writeln!(f, "       in recovery after a power cut: {fault}")?
            }
            None => {}
        }
        self.steps.iter().try_for_each(|(number, step)| writeln!(f, "  {number:>3}  {step}"))
    }
}

/// A run of a workload, in the words that `crash_lab` takes: what a [`Finding`](super::Finding) prints.
///
/// ```
/// use reput::sim::{Lab, Replay};
/// let replay: Replay = "--seed 7 --steps 0,1,2 --per-seed 40".parse()?;
/// assert!(replay.is_one_run);
/// Lab::new(replay.budget).run(&replay.workload).expect("no invariant breaks");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Replay {
    /// What is run.
    pub workload: Workload,
    /// How much of it is checked.
    pub budget: Budget,
    /// Whether steps, bytes or a failing call are named; else the seed is where a search begins.
    pub is_one_run: bool,
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.workload.origin {
            Origin::Seed(seed) => write!(f, "--seed {seed}")?,
            Origin::Bytes(bytes) => {
                let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                write!(f, "--bytes {}", if hex.is_empty() { "none" } else { &hex })?;
            }
        }
        let kept: Vec<String> = self.workload.kept().iter().map(usize::to_string).collect();
        write!(f, " --steps {}", if kept.is_empty() { "none".to_owned() } else { kept.join(",") })?;
        match self.workload.breakage {
            Some(Breakage::Open(fault)) => write!(f, " --break open/{}", fault.word())?,
            Some(Breakage::Step(at, fault)) => write!(f, " --break {at}/{}", fault.word())?,
            Some(Breakage::Recovery(left, fault)) => write!(f, " --break recovery{left}/{}", fault.word())?,
            None => {}
        }
        let usual = Budget::default();
        for (name, has, usually) in
            self.budget.words().into_iter().zip(usual.words()).map(|(a, b)| (a.0, a.1, b.1))
        {
            if has != usually {
                write!(f, " {name} {has}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (mut seed, mut bytes, mut steps, mut breakage) = (1, None, None, None);
        let mut budget = Budget::default();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let wrong = || format!("{word} {value}: not understood");
            let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"));
            match word {
                "--seed" => seed = number()?,
                "--bytes" => bytes = Some(hex(value).ok_or_else(wrong)?),
                "--steps" if value == "none" => steps = Some(Vec::new()),
                "--steps" => {
                    let all: Result<Vec<usize>, _> = value.split(',').map(str::parse).collect();
                    steps = Some(all.map_err(|error| format!("{word} {value}: {error}"))?);
                }
                "--break" => breakage = Some(broken(value).ok_or_else(wrong)?),
                _ if budget.set(word, number()?) => {}
                _ => return Err(format!("{word} is not known")),
            }
        }
        let is_one_run = bytes.is_some() || steps.is_some() || breakage.is_some();
        let mut workload = bytes.map_or_else(|| Workload::of_seed(seed), |bytes| Workload::of_bytes(&bytes));
        if let Some(breakage) = breakage {
            workload = workload.with(breakage);
        }
        if let Some(steps) = steps {
            workload = workload.only(&steps);
        }
        Ok(Self { workload, budget, is_one_run })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let pairs =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    if text.len().is_multiple_of(2) { pairs.collect() } else { None }
}

fn broken(text: &str) -> Option<Breakage> {
    let (place, fault) = text.split_once('/')?;
    let fault = Fault::parse(fault)?;
    Some(match place.strip_prefix("recovery") {
        Some(left) => Breakage::Recovery(left.parse().ok()?, fault),
        None if place == "open" => Breakage::Open(fault),
        None => Breakage::Step(place.parse().ok()?, fault),
    })
}
