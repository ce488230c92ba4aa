//! A backlog that grows: whether puts slow down with it, and whether its far end reads as fast as its start.

use std::time::{Duration, Instant};

use reput::{FlushDiskType, GetRequest, Message, Queue, QueueOffset, Store};

use super::{
    Failure,
    drive::{Caller, Load, drive, nanos},
    lab::{Head, Lab, QUEUES, Sample, TOPIC, Work},
    memory::{TAGGED, record_len},
    results::latencies,
    statistics, units,
};

/// No backlog takes longer than this to grow.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Both ends of the run are this share of it.
const ENDS: usize = 8;

/// Grows a backlog of `bytes`.
pub fn work(bytes: u64, body: usize, threads: usize) -> Work {
    let title = format!(
        "0 to {}, {}, {}",
        units::bytes(bytes),
        units::bytes(body as u64),
        units::plural(threads, "thread")
    );
    let heads = vec![
        Head::new("backlog", "backlog/put", format!("put, {title}"), "msgs/s"),
        Head::new("backlog", "backlog/kept", "put rate of the last eighth, by that of the first", "x"),
        Head::new("backlog", "backlog/pull/start", "pull of 32 at the start", "msgs/s"),
        Head::new("backlog", "backlog/pull/end", "pull of 32 at the far end", "msgs/s")
            .limited("backlog/pull/start"),
    ];
    Work::several(heads, move |lab| {
        let scratch = lab.store("backlog", FlushDiskType::Async)?;
        let store = scratch.store()?;
        let put = grow(lab, store, &title, (bytes, body, threads))?;
        let rates: Vec<f64> = put.over_time.iter().map(|(_, rate)| *rate).collect();
        let part = (rates.len() / ENDS).max(1);
        let first = statistics::median(&rates[..part.min(rates.len())]);
        let last = statistics::median(&rates[rates.len().saturating_sub(part)..]);
        let kept = Sample { operations: put.operations, seconds: put.seconds, ..Sample::default() }
            .valued(if first > 0.0 { last / first } else { 0.0 });
        if !store.wait_dispatched(LONGEST)? {
            return Err("the queues do not follow".into());
        }
        let queue = store.queue(TOPIC, 0)?;
        let (min, max) = (store.min_offset(queue), store.max_offset(queue));
        let start = read(lab, store, queue, min, max)?;
        let end = read(lab, store, queue, QueueOffset(max.get() - (max.get() - min.get()) / 8), max)?;
        Ok(vec![put, kept, start, end])
    })
}

fn grow(
    lab: &Lab,
    store: &Store,
    title: &str,
    (bytes, body, threads): (u64, usize, usize),
) -> Result<Sample, Failure> {
    let queues = (0..QUEUES).map(|queue| store.queue(TOPIC, queue)).collect::<Result<Vec<_>, _>>()?;
    let most = lab.bytes_for(store.config(), bytes)?;
    if most < bytes {
        return Err(format!(
            "within the bounds there is room for a backlog of {}, not of {}: give --bytes, or raise --max-bytes",
            units::bytes(most),
            units::bytes(bytes)
        )
        .into());
    }
    let load = Load {
        title,
        unit: "msgs/s",
        rate: None,
        units_per_call: 1,
        timed_every: 16,
        unit_bytes: record_len(body)? as u64,
        most_bytes: most,
        time: Some(LONGEST),
    };
    let callers = (0..threads)
        .map(|n| Put { store: store.clone(), queues: queues.clone(), next: n, body: vec![b'x'; body] })
        .collect();
    drive(lab, &load, callers)
}

struct Put {
    store: Store,
    queues: Vec<Queue>,
    next: usize,
    body: Vec<u8>,
}

impl Caller for Put {
    fn call(&mut self, _due: Instant) -> Result<u64, Failure> {
        self.next += 1;
        let queue = self.queues[self.next % self.queues.len()];
        self.store.put(&Message::new(queue, &self.body).properties_raw(TAGGED))?.wait()?;
        Ok(1)
    }
}

/// Reads from `from` on, copying, and starts over where it started.
fn read(
    lab: &Lab,
    store: &Store,
    queue: Queue,
    from: QueueOffset,
    end: QueueOffset,
) -> Result<Sample, Failure> {
    let (start, mut messages, mut at, mut buffer) = (Instant::now(), 0, from, Vec::new());
    let mut times = latencies();
    while start.elapsed() < lab.time || times.is_empty() {
        let began = Instant::now();
        let result = store.fetch_raw(&GetRequest::new(queue, at))?;
        buffer.clear();
        result.messages.iter().for_each(|message| buffer.extend_from_slice(result.bytes_of(message)));
        times.saturating_record(nanos(began.elapsed()));
        messages += result.messages.len() as u64;
        at = if result.next_offset >= end || result.next_offset <= at { from } else { result.next_offset };
        lab.stop.check()?;
    }
    let sample = Sample::rate(messages, start.elapsed().as_secs_f64());
    Ok(Sample { latency: Some(times), timed_every: 1, ..sample })
}
