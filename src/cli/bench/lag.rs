//! Dispatch lag: how long after a put its message can be read, with and without other puts meanwhile.

use std::time::{Duration, Instant};

use reput::{FlushDiskType, GetRequest, Message, Queue, QueueOffset, Store};

use super::{
    Failure,
    drive::{Caller, Load, drive, nanos},
    lab::{Head, Lab, QUEUES, Sample, TOPIC, Work},
    memory::{Random, TAGGED, record_len},
    results::{Latencies, latencies},
    units,
};

/// The topic of the messages that are waited for.
const PROBE: &str = "LAG";
/// A message that cannot be read after this is lost.
const LONGEST: Duration = Duration::from_secs(10);
/// The other puts come in turns of this length.
const TURN: Duration = Duration::from_millis(1);

/// One rate of other puts, of `body` bytes; 0: none.
pub fn work(rate: u64, body: usize) -> Work {
    let (id, title) = match rate {
        0 => ("lag/idle".to_owned(), "put to readable, nothing else going on: p50".to_owned()),
        _ => (
            format!("lag/{rate}"),
            format!("put to readable, {} other puts/s: p50", units::short(rate as f64)),
        ),
    };
    let head = Head::new("lag", id, title.clone(), "us").lower().limited("memory/wake");
    Work::one(head, move |lab| run(lab, rate, body, &title))
}

fn run(lab: &Lab, rate: u64, body: usize, title: &str) -> Result<Sample, Failure> {
    let scratch = lab.store("lag", FlushDiskType::Async)?;
    let store = scratch.store()?;
    let mut callers = vec![Party::Probe {
        store: store.clone(),
        queue: store.queue(PROBE, 0)?,
        random: Random::new(7),
        times: latencies(),
    }];
    if rate > 0 {
        let queues = (0..QUEUES).map(|queue| store.queue(TOPIC, queue)).collect::<Result<_, _>>()?;
        callers.push(Party::Others {
            store: store.clone(),
            queues,
            body: vec![b'x'; body],
            rate,
            start: None,
            done: 0,
        });
    }
    let load = Load {
        title,
        unit: "puts/s",
        rate: None,
        units_per_call: 1,
        timed_every: 1,
        // One thread of two puts nearly all.
        unit_bytes: 2 * record_len(body)? as u64,
        most_bytes: lab.bytes_for(store.config(), 1 << 30)?,
        // A probe comes every millisecond or so: fewer than a few hundred have no p99.
        time: Some(lab.time * 2),
    };
    let sample = drive(lab, &load, callers)?;
    let times = sample.latency.as_ref().ok_or("no latencies")?;
    let (middle, probes) = (times.value_at_percentile(50.0) as f64 / 1e3, times.len());
    if probes == 0 {
        return Err("no message was waited for in the time given: raise --ms".into());
    }
    Ok(Sample { value: middle, operations: probes, cpu: None, over_time: Vec::new(), spent: None, ..sample })
}

/// A thread of this workload.
enum Party {
    /// Puts a message and reads its queue until it is there, again and again.
    Probe { store: Store, queue: Queue, random: Random, times: Latencies },
    /// Puts at a rate, in turns.
    Others { store: Store, queues: Vec<Queue>, body: Vec<u8>, rate: u64, start: Option<Instant>, done: u64 },
}

impl Caller for Party {
    fn call(&mut self, now: Instant) -> Result<u64, Failure> {
        match self {
            Self::Probe { store, queue, random, times } => {
                std::thread::sleep(Duration::from_micros(200 + random.below(2_000)));
                let put = store.put(&Message::new(*queue, &[b'x'; 128]).properties_raw(TAGGED))?;
                let (back, at) = (Instant::now(), put.queue_offset());
                put.wait()?;
                await_readable(store, *queue, at, back)?;
                times.saturating_record(nanos(back.elapsed()));
                Ok(1)
            }
            Self::Others { store, queues, body, rate, start, done } => {
                std::thread::sleep(TURN);
                let due = (start.get_or_insert(now).elapsed().as_secs_f64() * *rate as f64).round();
                let from = *done;
                while (*done as f64) < due {
                    let queue = queues[usize::try_from(*done)? % queues.len()];
                    store.put(&Message::new(queue, body).properties_raw(TAGGED))?.wait()?;
                    *done += 1;
                }
                Ok(*done - from)
            }
        }
    }

    fn measuring(&mut self) {
        if let Self::Probe { times, .. } = self {
            times.clear();
        }
    }

    fn own_latencies(&mut self) -> Option<Latencies> {
        Some(match self {
            Self::Probe { times, .. } => times.clone(),
            Self::Others { .. } => latencies(),
        })
    }
}

fn await_readable(store: &Store, queue: Queue, at: QueueOffset, since: Instant) -> Result<(), Failure> {
    loop {
        let mut request = GetRequest::new(queue, at);
        request.max_messages = 1;
        if !store.fetch_raw(&request)?.messages.is_empty() {
            return Ok(());
        }
        if since.elapsed() > LONGEST {
            return Err(format!("a message is not readable {} s after its put", LONGEST.as_secs()).into());
        }
        std::hint::spin_loop();
    }
}
