//! Puts: asynchronous, synchronous, in batches, with completions, closed loop or at a rate.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reput::{FlushDiskType, Message, PutStatus, Queue, Store, StoreTimestamp, vfs::process_cpu_time};

use super::{
    Failure,
    drive::{Caller, Load, drive, nanos},
    lab::{Head, Lab, QUEUES, Sample, Work},
    memory::{TAGGED, record_len},
    results::{Latencies, latencies},
    units,
};

/// The most that one round of puts writes.
const MOST_BYTES: u64 = 1 << 30;
/// A put of the asynchronous store takes tens of nanoseconds; the clock alone takes as much.
const TIMED_EVERY: u32 = 16;
/// Queues and index follow within this, or something is wrong.
const FOLLOW: Duration = Duration::from_secs(120);

/// One workload of puts.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub body: usize,
    pub threads: usize,
    /// Messages of one call.
    pub batch: usize,
    /// Messages that wait for the disk at once, for each thread; 0: each call waits.
    pub window: usize,
    pub topics: usize,
    /// Messages a second.
    pub rate: Option<u64>,
    pub sync: bool,
}

impl Cell {
    /// Single puts of one thread to one topic.
    pub const fn new(body: usize, threads: usize) -> Self {
        Self { body, threads, batch: 1, window: 0, topics: 1, rate: None, sync: false }
    }

    /// The same under SYNC_FLUSH.
    pub const fn sync(body: usize, threads: usize) -> Self {
        Self { sync: true, ..Self::new(body, threads) }
    }

    fn id(&self) -> String {
        let mut id = format!("{}/{}/t{}", if self.sync { "sync" } else { "put" }, self.body, self.threads);
        for (name, value, usual) in [("b", self.batch, 1), ("w", self.window, 0), ("topics", self.topics, 1)]
        {
            if value != usual {
                id += &format!("/{name}{value}");
            }
        }
        self.rate.map_or(id.clone(), |rate| format!("{id}/r{rate}"))
    }

    fn title(&self) -> String {
        let mut title =
            format!("{}, {}", units::bytes(self.body as u64), units::plural(self.threads, "thread"));
        if self.batch > 1 {
            title = format!("{} x {title}", self.batch);
        }
        if self.window > 0 {
            title += &format!(", {} outstanding each", self.window);
        }
        if self.topics > 1 {
            title += &format!(", {} topics", self.topics);
        }
        self.rate.map_or(title.clone(), |rate| format!("{title}, at {}/s", units::short(rate as f64)))
    }

    /// The cell that is the limit of this one, and how many of its units stand for one message.
    fn limit(&self) -> Result<String, Failure> {
        let len = record_len(self.body)?;
        Ok(if self.sync {
            format!("disk/sync/{}x{len}", self.outstanding())
        } else {
            format!("memory/copy/{len}")
        })
    }

    /// Messages that can go into one sync.
    pub const fn outstanding(&self) -> usize {
        let each = if self.window > 0 { self.window } else { self.batch };
        self.threads * each
    }

    /// The workload.
    pub fn work(self) -> Result<Work, Failure> {
        let group = if self.sync { "sync" } else { "put" };
        let head = Head::new(group, self.id(), self.title(), "msgs/s");
        let head = match self.rate {
            // What is asked for is the limit then.
            Some(_) => head,
            None => head.limited(self.limit()?),
        };
        Ok(Work::one(head, move |lab| self.run(lab)))
    }

    fn run(&self, lab: &Lab) -> Result<Sample, Failure> {
        let flush = if self.sync { FlushDiskType::Sync } else { FlushDiskType::Async };
        let scratch = lab.store("put", flush)?;
        let store = scratch.store()?;
        let mut queues = Vec::new();
        for topic in 0..self.topics {
            for queue in 0..QUEUES {
                queues.push(store.queue(&format!("T{topic:05}"), queue)?);
            }
        }
        let queues = Arc::new(queues);
        let title = self.title();
        let load = Load {
            title: &title,
            unit: "msgs/s",
            rate: self.rate,
            units_per_call: self.batch as u64,
            timed_every: if self.sync || self.batch > 1 { 1 } else { TIMED_EVERY },
            unit_bytes: record_len(self.body)? as u64,
            most_bytes: lab.bytes_for(store.config(), MOST_BYTES)?,
            time: None,
        };
        let (start, cpu, before) = (Instant::now(), process_cpu_time(), store.status().stats.puts);
        let mut sample = if self.window > 0 {
            let callers = (0..self.threads).map(|n| Ahead::new(store, &queues, self, n)).collect();
            drive(lab, &load, callers)?
        } else {
            let callers = (0..self.threads).map(|n| Each::new(store, &queues, self, n)).collect();
            drive(lab, &load, callers)?
        };
        if !store.wait_dispatched(FOLLOW)? {
            return Err(
                format!("queues and index did not follow {title} within {} s", FOLLOW.as_secs()).into()
            );
        }
        // Processor time and the rate with queues and index: over all that was put, warm-up included.
        let (all, took) = (store.status().stats.puts - before, start.elapsed().as_secs_f64());
        let whole = process_cpu_time().saturating_sub(cpu);
        sample.cpu = (all > 0).then(|| whole.mul_f64(sample.operations as f64 / all as f64));
        sample.followed = self.rate.is_none().then_some(all as f64 / took);
        Ok(sample)
    }
}

/// Calls that return when the message is as durable as the store promises.
struct Each {
    store: Store,
    queues: Arc<Vec<Queue>>,
    next: usize,
    body: Vec<u8>,
    batch: usize,
    timed: bool,
    waited: Duration,
}

impl Each {
    fn new(store: &Store, queues: &Arc<Vec<Queue>>, cell: &Cell, number: usize) -> Self {
        Self {
            store: store.clone(),
            queues: Arc::clone(queues),
            next: number,
            body: vec![b'x'; cell.body],
            batch: cell.batch,
            timed: cell.sync,
            waited: Duration::ZERO,
        }
    }
}

fn message(queue: Queue, body: &[u8]) -> Message<'_> {
    Message::new(queue, body).born_timestamp(StoreTimestamp(1_700_000_000_000)).properties_raw(TAGGED)
}

fn stored(status: PutStatus) -> Result<(), Failure> {
    if status == PutStatus::Ok { Ok(()) } else { Err(format!("the store says {status:?} to a put").into()) }
}

impl Caller for Each {
    fn call(&mut self, _due: Instant) -> Result<u64, Failure> {
        let queue = self.queues[self.next % self.queues.len()];
        self.next = self.next.wrapping_add(1);
        let appended = if self.batch == 1 {
            self.store.put(&message(queue, &self.body))?
        } else {
            let batch: Vec<_> = (0..self.batch).map(|_| message(queue, &self.body)).collect();
            self.store.put_batch(&batch)?.pop().ok_or("a batch of nothing")?
        };
        if self.timed {
            let asked = Instant::now();
            stored(appended.wait()?)?;
            self.waited += asked.elapsed();
        } else {
            stored(appended.wait()?)?;
        }
        Ok(self.batch as u64)
    }

    fn measuring(&mut self) {
        self.waited = Duration::ZERO;
    }

    fn waited(&self) -> Duration {
        self.waited
    }
}

/// Calls that return when the message is in the log; its completion comes from the thread that syncs.
struct Ahead {
    store: Store,
    queues: Arc<Vec<Queue>>,
    next: usize,
    body: Vec<u8>,
    window: usize,
    /// Until one of those outstanding was done.
    waited: Duration,
    told: Arc<Told>,
}

/// What completions and their caller share.
#[derive(Default)]
struct Told {
    /// Messages that are outstanding.
    out: Mutex<usize>,
    freed: Condvar,
    done: AtomicU64,
    failed: AtomicBool,
    measuring: AtomicBool,
    latency: Mutex<Option<Latencies>>,
}

impl Told {
    fn completed(&self, due: Instant, counts: bool, ok: bool) {
        if ok {
            self.done.fetch_add(1, Ordering::Relaxed);
        } else {
            self.failed.store(true, Ordering::Relaxed);
        }
        if counts && self.measuring.load(Ordering::Relaxed) {
            let mut times = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            times.get_or_insert_with(latencies).saturating_record(nanos(due.elapsed()));
        }
        *self.out.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.freed.notify_one();
    }

    fn wait_below(&self, most: usize) -> usize {
        let guard = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        *self.freed.wait_while(guard, |out| *out >= most).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    fn new(store: &Store, queues: &Arc<Vec<Queue>>, cell: &Cell, number: usize) -> Self {
        Self {
            store: store.clone(),
            queues: Arc::clone(queues),
            next: number,
            body: vec![b'x'; cell.body],
            window: cell.window,
            waited: Duration::ZERO,
            told: Arc::default(),
        }
    }
}

impl Caller for Ahead {
    fn call(&mut self, due: Instant) -> Result<u64, Failure> {
        let asked = Instant::now();
        self.told.wait_below(self.window);
        self.waited += asked.elapsed();
        if self.told.failed.load(Ordering::Relaxed) {
            return Err("the disk failed a put that was outstanding".into());
        }
        let queue = self.queues[self.next % self.queues.len()];
        self.next = self.next.wrapping_add(1);
        let appended = self.store.put(&message(queue, &self.body))?;
        *self.told.out.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let (told, counts) = (Arc::clone(&self.told), self.told.measuring.load(Ordering::Relaxed));
        appended.on_durable(move |done| told.completed(due, counts, matches!(done, Ok(PutStatus::Ok))));
        Ok(self.told.done.swap(0, Ordering::Relaxed))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        // Completions hold a share of this; none may come after the store is gone.
        self.told.measuring.store(false, Ordering::Relaxed);
        self.told.wait_below(1);
        Ok(())
    }

    fn measuring(&mut self) {
        self.waited = Duration::ZERO;
        self.told.measuring.store(true, Ordering::Relaxed);
    }

    fn waited(&self) -> Duration {
        self.waited
    }

    fn own_latencies(&mut self) -> Option<Latencies> {
        self.told.latency.lock().unwrap_or_else(PoisonError::into_inner).take().or_else(|| Some(latencies()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cells_name_says_what_is_not_usual() {
        assert_eq!(Cell::new(128, 4).id(), "put/128/t4");
        assert_eq!(Cell { batch: 32, ..Cell::new(128, 1) }.id(), "put/128/t1/b32");
        let cell = Cell { window: 64, rate: Some(1000), ..Cell::sync(1024, 4) };
        assert_eq!(cell.id(), "sync/1024/t4/w64/r1000");
        assert_eq!(cell.title(), "1 KiB, 4 threads, 64 outstanding each, at 1.00k/s");
        assert_eq!(cell.outstanding(), 256);
    }
}
