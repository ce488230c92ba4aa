//! Threads that make calls for a while, closed loop or at a rate, and what came of it.
//!
//! Closed loop: each thread calls again when a call returns. One call of [`Load::timed_every`] is timed, so that the
//! clock does not weigh on calls of tens of nanoseconds; when those in between together took as long as a stall, that
//! time counts as one call, so that no stall is lost.
//!
//! At a rate: call `k` is due at `start + k / rate` whatever became of those before, and its time counts from then.
//! A store that stalls is charged for every call that had to wait, not for one (no coordinated omission).
//!
//! One thread calls [`drive`]: it looks every [`TICK`], ends the run by time, the disk's bound or Ctrl-C.

use std::{
    fs,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use reput::vfs::process_cpu_time;

use super::{
    Failure,
    lab::{Lab, Sample, Spent},
    place::LOOK_EVERY,
    results::{Latencies, latencies},
};

/// How often the run is looked at.
const TICK: Duration = Duration::from_millis(10);
/// What is worth telling people in between.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Untimed calls that took this long together held a stall.
const STALL: Duration = Duration::from_micros(500);
/// A thread that is this far ahead of its next call sleeps; nearer it spins.
const SPIN: Duration = Duration::from_micros(150);
/// So long nothing at all may happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest sleep between two looks at whether to stop.
const NAP: Duration = Duration::from_millis(20);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// Something that can be called again and again from one thread.
pub trait Caller: Send {
    /// One call that was due at `due`; says how many units are done by it.
    fn call(&mut self, due: Instant) -> Result<u64, Failure>;

    /// Called once, when no more calls come.
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Latencies where the call's own time is not what counts: when units are done after the call returned.
    fn own_latencies(&mut self) -> Option<Latencies> {
        None
    }

    /// Called when the measurement starts: what was counted before does not count.
    fn measuring(&mut self) {}

    /// Time spent waiting for the disk since then.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// How calls are made.
pub struct Load<'a> {
    /// What people are told is measured.
    pub title: &'a str,
    /// The unit of a call's result.
    pub unit: &'a str,
    /// Units a second of all threads together; as fast as it goes when `None`.
    pub rate: Option<u64>,
    /// Units that one call does, for the rate.
    pub units_per_call: u64,
    /// One call of so many is timed.
    pub timed_every: u32,
    /// Bytes that one unit puts on the disk; 0 for those that write nothing.
    pub unit_bytes: u64,
    /// The run ends early, warm-up included, before this many are written. Each thread sees to its own part, so that a
    /// watcher that gets no processor does not let the disk fill.
    pub most_bytes: u64,
    /// Another span than the lab's.
    pub time: Option<Duration>,
}

/// What the threads tell while they run.
struct Live {
    units: AtomicU64,
    /// Calls that were timed.
    calls: AtomicU64,
    /// Four buckets for each power of two of nanoseconds.
    buckets: [AtomicU64; 160],
}

impl Live {
    fn new() -> Self {
        Self {
            units: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; 160],
        }
    }

    fn tell(&self, units: u64, nanos: u64) {
        self.units.store(units, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let power = nanos.max(4).ilog2();
        let bucket = usize::try_from(u64::from(power) * 4 + ((nanos.max(4) >> (power - 2)) & 3)).unwrap_or(0);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Shared {
    phase: AtomicU8,
    live: Vec<Live>,
    /// Units that one thread may do.
    most_units: u64,
}

impl Shared {
    fn units(&self) -> u64 {
        self.live.iter().map(|live| live.units.load(Ordering::Relaxed)).sum()
    }

    /// About where 99 of 100 calls lie, in microseconds, to a quarter of a power of two.
    fn p99_us(&self) -> f64 {
        let counts: Vec<u64> = (0..160)
            .map(|n| self.live.iter().map(|live| live.buckets[n].load(Ordering::Relaxed)).sum())
            .collect();
        let behind = counts.iter().sum::<u64>() / 100;
        let mut seen = 0;
        for (n, count) in counts.iter().enumerate().rev() {
            seen += count;
            if seen > behind {
                let (power, quarter) = (n / 4, n % 4);
                return (4 + quarter) as f64 * 2_f64.powi(i32::try_from(power).unwrap_or(0) - 2) / 1e3;
            }
        }
        0.0
    }
}

/// What one thread came to.
struct Worked {
    latency: Latencies,
    ended: Instant,
    calls: u64,
    spent: Option<Spent>,
}

/// Where a thread's time has gone so far, as the kernel counts.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadUse {
    running: u64,
    queued: u64,
    faults: u64,
}

impl ThreadUse {
    /// Of the calling thread; `None` where the kernel does not tell.
    fn now() -> Option<Self> {
        let times = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let mut times = times.split_whitespace().map_while(|n| n.parse::<u64>().ok());
        let stat = fs::read_to_string("/proc/thread-self/stat").ok()?;
        let faults = stat.rsplit(") ").next()?.split(' ').nth(7)?.parse().ok()?;
        Some(Self { running: times.next()?, queued: times.next()?, faults })
    }
}

/// Runs one thread for each caller, warms up, measures, and says what came of it. Units are those that the calls say.
pub fn drive<C: Caller>(lab: &Lab, load: &Load<'_>, callers: Vec<C>) -> Result<Sample, Failure> {
    let threads = callers.len();
    let most_units = load.most_bytes.checked_div(load.unit_bytes).unwrap_or(u64::MAX) / threads.max(1) as u64;
    let live = (0..threads).map(|_| Live::new()).collect();
    let shared = Shared { phase: AtomicU8::new(WARMING), live, most_units };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = callers
            .into_iter()
            .enumerate()
            .map(|(number, mut caller)| {
                let (shared, every) = (&shared, load.timed_every);
                let pace = load.rate.map(|rate| Pace {
                    start,
                    step: load.units_per_call as f64 / rate.max(1) as f64,
                    next: number as f64,
                    stride: threads as f64,
                });
                scope.spawn(move || {
                    let worked = work(&mut caller, every, pace, shared, &shared.live[number]);
                    if worked.is_err() {
                        // The others need not go on either.
                        shared.phase.store(OVER, Ordering::Release);
                    }
                    worked
                })
            })
            .collect();
        let watched = watch(lab, load, &shared);
        shared.phase.store(OVER, Ordering::Release);
        let mut all = Vec::new();
        for worker in workers {
            all.push(worker.join().map_err(|_| "a thread of the workload panicked")??);
        }
        let mut sample = watched?;
        // Threads that came to their end before the watcher saw it were not slower for that.
        if let Some(end) = all.iter().map(|worked| worked.ended).max()
            && let Some(took) = end.checked_duration_since(sample.started.unwrap_or(start))
            && took.as_secs_f64() < sample.seconds
        {
            sample.seconds = took.as_secs_f64().max(1e-9);
            sample.value = sample.operations as f64 / sample.seconds;
        }
        sample.timed_every = if load.rate.is_some() { 1 } else { load.timed_every };
        sample.from_intended_start = load.rate.is_some();
        let mut latency = latencies();
        for worked in &all {
            latency.add(&worked.latency)?;
        }
        sample.spent = together(&all, load.units_per_call);
        sample.fairness = fairness(&all.iter().map(|worked| worked.calls as f64).collect::<Vec<_>>());
        sample.latency = Some(latency);
        Ok(sample)
    })
}

/// Jain's index of what the threads got: 1 when all got the same, 1/n when one got all. Of one thread there is none.
fn fairness(parts: &[f64]) -> Option<f64> {
    let (sum, squares) =
        parts.iter().fold((0.0, 0.0), |(sum, squares), part| (sum + part, squares + part * part));
    (parts.len() > 1 && squares > 0.0).then(|| sum * sum / (parts.len() as f64 * squares))
}

/// The calls' average over all threads.
fn together(all: &[Worked], units_per_call: u64) -> Option<Spent> {
    let calls: u64 = all.iter().map(|worked| worked.calls).sum();
    let mut total = Spent { messages: units_per_call as f64, ..Spent::default() };
    for worked in all {
        let (spent, share) = (worked.spent?, worked.calls as f64 / calls.max(1) as f64);
        total.wall += spent.wall * share;
        total.running += spent.running * share;
        total.queued += spent.queued * share;
        total.flush += spent.flush * share;
        total.faults += spent.faults * share;
    }
    Some(total)
}

/// The watching thread's part: warm-up, the span itself, the ends.
fn watch(lab: &Lab, load: &Load<'_>, shared: &Shared) -> Result<Sample, Failure> {
    let over = || shared.phase.load(Ordering::Acquire) == OVER;
    let warm = Instant::now();
    // Threads that have not begun yet are not measured: where the machine is busy that takes its time.
    let begun = || shared.live.iter().all(|live| live.calls.load(Ordering::Relaxed) > 0);
    while (warm.elapsed() < lab.warm || !begun() && warm.elapsed() < PATIENCE) && !lab.stop.asked() && !over()
    {
        std::thread::sleep(TICK.min(lab.warm).max(Duration::from_micros(200)));
    }
    let (cpu, units) = (process_cpu_time(), shared.units());
    let start = Instant::now();
    if !over() {
        shared.phase.store(MEASURING, Ordering::Release);
    }
    let time = load.time.unwrap_or(lab.time);
    let (mut told, mut looked, mut over_time) = (start, start, Vec::new());
    let (mut last_at, mut last_units) = (0.0, units);
    loop {
        std::thread::sleep(TICK.min(time));
        let (now, done) = (start.elapsed().as_secs_f64(), shared.units());
        over_time.push((now, (done - last_units) as f64 / (now - last_at).max(1e-9)));
        (last_at, last_units) = (now, done);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            lab.progress.going(load.title, (done - units) as f64 / now, load.unit, shared.p99_us());
        }
        let long_enough = start.elapsed() >= time && (done > units || start.elapsed() > PATIENCE);
        if long_enough || lab.stop.asked() || over() {
            break;
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            lab.place.check()?;
        }
    }
    let (seconds, done) = (start.elapsed().as_secs_f64(), shared.units() - units);
    let cpu = process_cpu_time().saturating_sub(cpu);
    lab.stop.check()?;
    Ok(Sample { cpu: Some(cpu), over_time, started: Some(start), ..Sample::rate(done, seconds) })
}

/// When the next call is due.
struct Pace {
    start: Instant,
    /// Seconds from one call to the next, of all threads together.
    step: f64,
    next: f64,
    stride: f64,
}

impl Pace {
    /// Waits for the next call's time and says what it was; `None` when the run is over before.
    fn wait(&mut self, shared: &Shared) -> Option<Instant> {
        let due = self.start + Duration::from_secs_f64(self.next * self.step);
        self.next += self.stride;
        loop {
            let ahead = due.saturating_duration_since(Instant::now());
            if ahead.is_zero() {
                return Some(due);
            }
            if shared.phase.load(Ordering::Relaxed) == OVER {
                return None;
            }
            if ahead > SPIN {
                std::thread::sleep((ahead - SPIN / 2).min(NAP));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// One thread's part.
fn work<C: Caller>(
    caller: &mut C,
    timed_every: u32,
    mut pace: Option<Pace>,
    shared: &Shared,
    live: &Live,
) -> Result<Worked, Failure> {
    let mut latency = latencies();
    let every = if pace.is_some() { 1 } else { timed_every.max(1) };
    let (mut units, mut calls, mut last) = (0, 0_u64, None::<Instant>);
    let mut begun: Option<(Instant, Option<ThreadUse>, u64)> = None;
    loop {
        let phase = shared.phase.load(Ordering::Relaxed);
        if phase == OVER {
            break;
        }
        if units >= shared.most_units {
            shared.phase.store(OVER, Ordering::Release);
            break;
        }
        if phase == WARMING && units >= shared.most_units / 2 {
            // The other half is for the measurement, which begins as soon as the watcher gets a processor.
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        if phase == MEASURING && begun.is_none() {
            caller.measuring();
            begun = Some((Instant::now(), ThreadUse::now(), calls));
            last = None;
        }
        let due = match &mut pace {
            Some(pace) => match pace.wait(shared) {
                Some(due) => due,
                None => break,
            },
            None => Instant::now(),
        };
        units += caller.call(due)?;
        let end = Instant::now();
        let nanos = nanos(end.saturating_duration_since(due));
        if begun.is_some() {
            latency.saturating_record(nanos);
            let between = last.map_or(Duration::ZERO, |last| due.saturating_duration_since(last));
            if every > 1 && between >= STALL {
                latency.saturating_record(self::nanos(between));
            }
        }
        live.tell(units, nanos);
        for _ in 1..every {
            units += caller.call(end)?;
        }
        calls += u64::from(every);
        last = Some(end);
    }
    let end = Instant::now();
    let used = ThreadUse::now();
    let waited = caller.waited();
    caller.finish()?;
    if let Some(own) = caller.own_latencies() {
        latency = own;
    }
    let spent = begun.and_then(|(at, before, from)| {
        let (before, after) = (before?, used?);
        let (made, wall) = ((calls - from) as f64, nanos(end.saturating_duration_since(at)) as f64);
        (made > 0.0 && after.running > before.running).then(|| Spent {
            wall: wall / made,
            running: (after.running - before.running) as f64 / made,
            queued: (after.queued - before.queued) as f64 / made,
            flush: nanos(waited) as f64 / made,
            faults: (after.faults - before.faults) as f64 / made,
            messages: 1.0,
        })
    });
    let counted = begun.map_or(0, |(_, _, from)| calls - from);
    Ok(Worked { latency, ended: end, calls: counted, spent })
}

/// Whole nanoseconds.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_rate_a_call_is_due_when_the_plan_says_whatever_came_before() {
        let shared = Shared { phase: AtomicU8::new(MEASURING), live: Vec::new(), most_units: 1 };
        let start = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let mut pace = Pace { start, step: 0.001, next: 1.0, stride: 4.0 };
        for k in [1, 5, 9] {
            assert_eq!(pace.wait(&shared).unwrap(), start + Duration::from_millis(k));
        }
    }

    #[test]
    fn fairness_is_one_for_equals_and_a_share_for_one_that_takes_all() {
        assert_eq!(fairness(&[5.0, 5.0, 5.0, 5.0]), Some(1.0));
        assert_eq!(fairness(&[7.0, 0.0]), Some(0.5));
        assert_eq!((fairness(&[3.0]), fairness(&[0.0, 0.0])), (None, None));
    }

    #[test]
    fn a_wait_ends_when_the_run_does() {
        let shared = Shared { phase: AtomicU8::new(OVER), live: Vec::new(), most_units: 1 };
        let mut pace = Pace { start: Instant::now(), step: 3600.0, next: 1.0, stride: 1.0 };
        assert!(pace.wait(&shared).is_none());
    }

    #[test]
    fn the_live_latency_is_near() {
        let shared =
            Shared { phase: AtomicU8::new(MEASURING), live: vec![Live::new(), Live::new()], most_units: 1 };
        (0..980).for_each(|n| shared.live[n % 2].tell(1, 1_000));
        (0..20).for_each(|n| shared.live[n % 2].tell(1, 1_000_000));
        let p99 = shared.p99_us();
        assert!((700.0..=1_000.0).contains(&p99), "{p99}");
        assert_eq!(shared.units(), 2);
    }

    #[test]
    fn the_kernel_tells_where_a_threads_time_goes() {
        let Some(before) = ThreadUse::now() else { return };
        let mut pages = vec![0_u8; 8 << 20];
        pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let after = ThreadUse::now().unwrap();
        assert!(after.faults > before.faults && pages[4096] == 1);
        assert!(after.running >= before.running);
    }
}
