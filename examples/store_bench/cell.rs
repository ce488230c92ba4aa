//! One workload of puts, and how it is run.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reput::{Message, PutStatus, Queue, Store, StoreTimestamp};
use serde_json::{Value, json};

use crate::{
    Failure,
    measure::{Histogram, cpu_time, memory},
};

/// The store timestamp of every message of the Java side.
const BORN: StoreTimestamp = StoreTimestamp(1_700_000_000_000);

/// Reads `128`, `1k`, `900m`, `8g`.
pub fn size(text: &str) -> Result<u64, Failure> {
    let text = text.trim().to_lowercase();
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'm') => (&text[..text.len() - 1], 20),
        Some(b'g') => (&text[..text.len() - 1], 30),
        _ => (text.as_str(), 0),
    };
    Ok(digits.parse::<u64>().map_err(|e| format!("{text}: {e}"))? << shift)
}

/// What is put, and by how many.
#[derive(Clone, Debug)]
pub struct Cell {
    body: usize,
    threads: usize,
    window: usize,
    batch: usize,
    topics: usize,
    queues: usize,
    props: String,
}

/// When a run ends: at the first of these.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub warm: Duration,
    pub time: Duration,
    pub bytes: u64,
    pub messages: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    messages: u64,
    bytes: u64,
    behind: u64,
    time: Duration,
    caught_up: Duration,
    cpu: Duration,
    errors: u64,
    latency: Histogram,
}

/// What the threads of a run share.
struct Shared {
    measuring: AtomicBool,
    stop: AtomicBool,
    done: AtomicU64,
    errors: AtomicU64,
    keys: AtomicU64,
    per_thread: u64,
}

impl Cell {
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut fields = text.split(':');
        let mut number = |default: u64| -> Result<usize, Failure> {
            Ok(usize::try_from(fields.next().map_or(Ok(default), size)?)?)
        };
        let (body, threads) = (number(128)?, number(1)?);
        let (window, batch, topics, queues) = (number(0)?, number(1)?, number(1)?, number(8)?);
        let props = text.split(':').nth(6).unwrap_or("tag").to_owned();
        Ok(Self { body, threads, window, batch: batch.max(1), topics, queues, props })
    }

    fn properties(&self, seq: u64) -> Vec<u8> {
        match self.props.as_str() {
            "none" => Vec::new(),
            "key" => format!("KEYS\u{1}k{seq}\u{2}TAGS\u{1}Tag{}\u{2}", char::from(b'A' + (seq % 10) as u8))
                .into_bytes(),
            "uniq" => {
                let id = format!("7F0000010BAD18B4AAC2{:X}", 0x1000_0000_0000 + seq);
                format!("UNIQ_KEY\u{1}{id}\u{2}TAGS\u{1}TagA\u{2}").into_bytes()
            }
            _ => b"TAGS\x01TagA\x02".to_vec(),
        }
    }

    fn queues(&self, store: &Store) -> Result<Vec<Queue>, Failure> {
        let mut all = Vec::new();
        for topic in 0..self.topics {
            for queue in 0..self.queues {
                all.push(store.queue(&format!("T{topic:05}"), i32::try_from(queue)?)?);
            }
        }
        Ok(all)
    }

    pub fn run(&self, store: &Store, limit: &Limit) -> Result<Outcome, Failure> {
        let queues = Arc::new(self.queues(store)?);
        let shared = Arc::new(Shared {
            measuring: AtomicBool::new(limit.warm.is_zero()),
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            per_thread: limit.messages.div_ceil(self.threads as u64),
        });
        let workers: Vec<_> = (0..self.threads)
            .map(|number| {
                let (cell, store) = (self.clone(), store.clone());
                let (queues, shared) = (Arc::clone(&queues), Arc::clone(&shared));
                std::thread::spawn(move || {
                    if cell.window > 0 {
                        cell.put_ahead(&store, &queues, &shared, number)
                    } else {
                        cell.put_each(&store, &queues, &shared, number)
                    }
                })
            })
            .collect();
        std::thread::sleep(limit.warm);
        let from = store.status().max_offset;
        let (start, cpu) = (Instant::now(), cpu_time());
        shared.measuring.store(true, Ordering::Release);
        while start.elapsed() < limit.time
            && store.status().max_offset.since(from) < limit.bytes
            && workers.iter().any(|worker| !worker.is_finished())
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (time, status) = (start.elapsed(), store.status());
        shared.stop.store(true, Ordering::Release);
        let mut latency = Histogram::default();
        for worker in workers {
            latency.merge(&worker.join().map_err(|_| "a writer panicked")?);
        }
        store.wait_dispatched(Duration::from_secs(120))?;
        Ok(Outcome {
            messages: shared.done.load(Ordering::Acquire),
            bytes: status.max_offset.since(from),
            behind: status.max_offset.since(status.dispatched_offset),
            time,
            caught_up: start.elapsed(),
            cpu: cpu_time() - cpu,
            errors: shared.errors.load(Ordering::Acquire),
            latency,
        })
    }

    fn message<'a>(&self, queue: Queue, body: &'a [u8], properties: &'a [u8]) -> Message<'a> {
        Message::new(queue, body).born_timestamp(BORN).properties_raw(properties)
    }

    /// Each put is waited for before the next.
    fn put_each(&self, store: &Store, queues: &[Queue], shared: &Shared, number: usize) -> Histogram {
        let body = vec![b'x'; self.body];
        let fixed = (!matches!(self.props.as_str(), "key" | "uniq")).then(|| self.properties(0));
        let (mut latency, mut count, mut mine, mut seq) = (Histogram::default(), 0, 0, number);
        while !shared.stop.load(Ordering::Relaxed) && mine < shared.per_thread {
            let properties =
                fixed.clone().unwrap_or_else(|| self.properties(shared.keys.fetch_add(1, Ordering::Relaxed)));
            let queue = queues[seq % queues.len()];
            (seq, mine) = (seq + 1, mine + self.batch as u64);
            let counts = shared.measuring.load(Ordering::Relaxed);
            let start = Instant::now();
            let done = if self.batch == 1 {
                store.put(&self.message(queue, &body, &properties)).and_then(reput::Appended::wait)
            } else {
                let batch: Vec<_> =
                    (0..self.batch).map(|_| self.message(queue, &body, &properties)).collect();
                store
                    .put_batch(&batch)
                    .and_then(|mut all| all.pop().map_or(Ok(PutStatus::UnknownError), reput::Appended::wait))
            };
            match done {
                Ok(PutStatus::Ok) if counts => {
                    latency.add(start.elapsed());
                    count += self.batch as u64;
                }
                Ok(PutStatus::Ok) => {}
                _ => {
                    shared.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        shared.done.fetch_add(count, Ordering::AcqRel);
        latency
    }

    /// `window` messages wait for the disk at once.
    fn put_ahead(&self, store: &Store, queues: &[Queue], shared: &Arc<Shared>, number: usize) -> Histogram {
        let (body, properties) = (vec![b'x'; self.body], self.properties(0));
        let free = Arc::new((Mutex::new(self.window), Condvar::new()));
        let latency = Arc::new(Mutex::new(Histogram::default()));
        let mut seq = number;
        while !shared.stop.load(Ordering::Relaxed) {
            take(&free, 1);
            let queue = queues[seq % queues.len()];
            seq += 1;
            let (counts, start) = (shared.measuring.load(Ordering::Relaxed), Instant::now());
            let (told, back, histogram) = (Arc::clone(shared), Arc::clone(&free), Arc::clone(&latency));
            match store.put(&self.message(queue, &body, &properties)) {
                Ok(appended) => appended.on_durable(move |done| {
                    if !matches!(done, Ok(PutStatus::Ok)) {
                        told.errors.fetch_add(1, Ordering::Relaxed);
                    } else if counts && !told.stop.load(Ordering::Relaxed) {
                        told.done.fetch_add(1, Ordering::Relaxed);
                        if let Ok(mut histogram) = histogram.lock() {
                            histogram.add(start.elapsed());
                        }
                    }
                    give(&back);
                }),
                Err(_) => {
                    shared.errors.fetch_add(1, Ordering::Relaxed);
                    give(&free);
                }
            }
        }
        take(&free, self.window);
        latency.lock().map(|histogram| histogram.clone()).unwrap_or_default()
    }
}

fn take(free: &(Mutex<usize>, Condvar), count: usize) {
    if let Ok(guard) = free.0.lock()
        && let Ok(mut left) = free.1.wait_while(guard, |left| *left < count)
    {
        *left -= count;
    }
}

fn give(free: &(Mutex<usize>, Condvar)) {
    if let Ok(mut left) = free.0.lock() {
        *left += 1;
        free.1.notify_one();
    }
}

impl Outcome {
    /// One line of the Java benchmark's shape.
    pub fn line(&self, bench: &str, cell: &Cell) -> Value {
        let (secs, mib) = (self.time.as_secs_f64(), 1_048_576.0);
        let mode = if cell.window > 0 {
            "async"
        } else if cell.batch > 1 {
            "batch"
        } else {
            "block"
        };
        let mut line = json!({
            "impl": "reput", "bench": bench, "label": "default", "body": cell.body, "threads": cell.threads,
            "mode": mode, "window": cell.window, "batch": cell.batch, "topics": cell.topics,
            "queues": cell.queues, "props": cell.props, "msgs": self.messages, "secs": secs,
            "msgs_s": (self.messages as f64 / secs).round(), "mb_s": self.bytes as f64 / secs / mib,
            "caughtup_msgs_s": (self.messages as f64 / self.caught_up.as_secs_f64()).round(),
            "behind_mb": self.behind as f64 / mib,
            "cpu_us_per_msg": self.cpu.as_secs_f64() * 1e6 / self.messages.max(1) as f64, "errs": self.errors,
        });
        self.latency.tell(&mut line);
        memory(&mut line);
        line
    }
}
