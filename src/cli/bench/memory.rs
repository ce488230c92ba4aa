//! What the processor and the memory can do: the limits of everything that does not wait for the disk.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reput::{
    Config, PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag,
    format::message::{Draft, Limits, PHYSICAL_OFFSET_AT, Place, QUEUE_OFFSET_AT, size_and_magic},
    vfs::{MappedFile, Reserve, process_cpu_time},
};

use super::{
    Failure,
    drive::nanos,
    lab::{Head, Lab, Sample, TOPIC, Work},
    results::latencies,
    units,
};

/// Bytes that are copied into and read from: more than any cache of a small machine.
const AREA: usize = 128 << 20;
/// Turns between two looks at the clock.
const TURNS: u64 = 256;
/// The properties of a message with a tag, encoded.
pub const TAGGED: &[u8] = b"TAGS\x01TagA\x02";
/// The group of all limits.
pub const LIMITS: &str = "limits";

/// A record as the store would write it.
pub fn record(body: usize, properties: &[u8]) -> Result<Vec<u8>, Failure> {
    let (mut bytes, body) = (Vec::new(), vec![b'x'; body]);
    encode(&body, properties, QueueOffset(7), &mut bytes)?;
    Ok(bytes)
}

/// The length of the record of a message with a tag.
pub fn record_len(body: usize) -> Result<usize, Failure> {
    Ok(record(body, TAGGED)?.len())
}

fn encode(body: &[u8], properties: &[u8], at: QueueOffset, into: &mut Vec<u8>) -> Result<(), Failure> {
    let config = Config::new("");
    let host = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 10911);
    let draft = Draft {
        topic: TOPIC,
        queue_id: QueueId(0),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: StoreTimestamp(1_700_000_000_000),
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties,
    };
    let limits = Limits {
        max_message_size: config.max_message_size.max(body.len()),
        auto_message_version: true,
        append_prop_crc: false,
        segment_size: usize::MAX,
    };
    let place = Place {
        queue_offset: at,
        physical_offset: PhysicalOffset::ZERO,
        store_timestamp: StoreTimestamp(1_700_000_000_000),
    };
    draft.measure(limits)?.encode(place, into);
    Ok(())
}

/// Calls `turn` for as long as a cell lasts and counts.
pub fn repeat(lab: &Lab, mut turn: impl FnMut() -> Result<u64, Failure>) -> Result<Sample, Failure> {
    let (start, cpu, mut done) = (Instant::now(), process_cpu_time(), 0);
    // Once at the least: where the machine is busy the time may be over before anything was done.
    while start.elapsed() < lab.time || done == 0 {
        for _ in 0..TURNS {
            done += turn()?;
        }
        lab.stop.check()?;
    }
    let mut sample = Sample::rate(done, start.elapsed().as_secs_f64());
    sample.cpu = Some(process_cpu_time().saturating_sub(cpu));
    Ok(sample)
}

/// Copies of a ready record into a mapped file whose pages are there already.
pub fn copy(len: usize) -> Work {
    let head = Head::new(
        LIMITS,
        format!("memory/copy/{len}"),
        format!("copy {len} B into a mapped file"),
        "records/s",
    );
    let mut kept: Option<(MappedFile, usize)> = None;
    Work::one(head, move |lab| {
        let (map, area) = match &mut kept {
            Some(kept) => kept,
            none => none.insert(mapped(lab, len)?),
        };
        let (piece, mut at) = (vec![b'x'; len], 0);
        repeat(lab, || {
            if at + len > *area {
                at = 0;
            }
            map.store(at, &piece);
            at += len;
            Ok(1)
        })
    })
}

/// A file with all its pages, and its length: [`AREA`], less where there is little room.
fn mapped(lab: &Lab, len: usize) -> Result<(MappedFile, usize), Failure> {
    let path = lab.place.fresh(&format!("copy.{len}"))?;
    let area = usize::try_from(lab.place.room()? / 8)?.clamp(len.max(4 << 20), AREA.max(len));
    let mut map = MappedFile::create(&path, area as u64, Reserve::All)?;
    map.populate(0..area);
    (0..area).step_by(4096).for_each(|at| map.store(at, b"x"));
    Ok((map, area))
}

/// Encoding of a record into memory that is in the cache, checksum included.
pub fn encoding(body: usize) -> Work {
    let title = format!("encode {} with its checksum", units::bytes(body as u64));
    let head = Head::new(LIMITS, format!("memory/encode/{body}"), title, "records/s");
    Work::one(head, move |lab| {
        let (bytes, mut into, mut n) = (vec![b'x'; body], Vec::new(), 0);
        repeat(lab, || {
            into.clear();
            n += 1;
            encode(&bytes, TAGGED, QueueOffset(n), &mut into)?;
            std::hint::black_box(&into);
            Ok(1)
        })
    })
}

/// Reading memory from one end to the other.
pub fn read() -> Work {
    let head = Head::new(LIMITS, "memory/read", "read memory and sum it up", "MB/s");
    let words = AREA / 8;
    let mut area: Vec<u64> = Vec::new();
    Work::one(head, move |lab| {
        if area.is_empty() {
            area = (0..words as u64).collect();
        }
        let (start, mut bytes) = (Instant::now(), 0);
        while start.elapsed() < lab.time || bytes == 0 {
            std::hint::black_box(area.iter().copied().fold(0, u64::wrapping_add));
            bytes += AREA as u64;
            lab.stop.check()?;
        }
        Ok(Sample::megabytes(bytes, start.elapsed().as_secs_f64()))
    })
}

/// A walk from record to record that reads four fields of each header: less cannot be done to follow a log.
pub fn walk(body: usize) -> Work {
    let title = format!("walk the headers of {} records in memory", units::bytes(body as u64));
    let head = Head::new(LIMITS, format!("memory/walk/{body}"), title, "records/s");
    let mut log = Vec::new();
    Work::one(head, move |lab| {
        if log.is_empty() {
            let record = record(body, TAGGED)?;
            while log.len() + record.len() <= AREA {
                log.extend_from_slice(&record);
            }
        }
        let (mut at, mut seen) = (0, 0_u64);
        let field =
            |at: usize| log.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        let sample = repeat(lab, || {
            if at >= log.len() {
                at = 0;
            }
            let (size, magic) =
                size_and_magic(&log[at..]).map_err(|why| format!("a record of ours: {why}"))?;
            seen = seen
                .wrapping_add(u64::from(magic))
                .wrapping_add(field(at + QUEUE_OFFSET_AT))
                .wrapping_add(field(at + PHYSICAL_OFFSET_AT));
            at += size;
            Ok(1)
        });
        std::hint::black_box(seen);
        sample
    })
}

/// Reading queue entries of 20 bytes, which a pull by reference cannot do without.
pub fn entries() -> Work {
    const LEN: usize = 64 << 20;
    let head = Head::new(LIMITS, "memory/entries", "read queue entries of 20 B in memory", "msgs/s");
    let mut queue = Vec::new();
    Work::one(head, move |lab| {
        if queue.is_empty() {
            queue = vec![1_u8; LEN / 20 * 20];
        }
        let (mut at, mut sum) = (0, 0_u64);
        let sample = repeat(lab, || {
            if at >= queue.len() {
                at = 0;
            }
            let pull = &queue[at..queue.len().min(at + 32 * 20)];
            at += pull.len();
            for entry in pull.chunks_exact(20) {
                let (offset, rest) = entry.split_at(8);
                let (size, tags) = rest.split_at(4);
                sum = sum
                    .wrapping_add(offset.try_into().map_or(0, u64::from_be_bytes))
                    .wrapping_add(size.try_into().map_or(0, u32::from_be_bytes).into())
                    .wrapping_add(tags.try_into().map_or(0, u64::from_be_bytes));
            }
            Ok(pull.len() as u64 / 20)
        });
        std::hint::black_box(sum);
        sample
    })
}

/// Reads of memory that each depend on the one before, anywhere in an area larger than the cache.
pub fn chase() -> Work {
    const STEPS: usize = 16 << 20;
    let head =
        Head::new(LIMITS, "memory/chase", "read memory here and there, one after the other", "reads/s");
    let mut next: Vec<u32> = Vec::new();
    Work::one(head, move |lab| {
        if next.is_empty() {
            next = one_cycle(STEPS);
        }
        let mut at = 0_u32;
        let sample = repeat(lab, || {
            at = next[at as usize];
            Ok(1)
        });
        std::hint::black_box(at);
        sample
    })
}

/// A permutation that comes back to its start only after every step (Sattolo's).
fn one_cycle(len: usize) -> Vec<u32> {
    let mut next: Vec<u32> = (0..u32::try_from(len).unwrap_or(u32::MAX)).collect();
    let mut random = Random::new(1);
    for n in (1..next.len()).rev() {
        next.swap(n, random.below(n as u64).try_into().unwrap_or(0));
    }
    next
}

/// Numbers that look random: xorshift. The same ones in every run.
pub struct Random(u64);

impl Random {
    /// Another start for each number but 0.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half is the better one.
        (self.0 >> 32).wrapping_mul(if end == 0 { 1 } else { end }) >> 32
    }
}

/// From the word of one thread to the start of another: half of a round trip.
pub fn wake() -> Work {
    let head = Head::new(LIMITS, "memory/wake", "wake another thread", "us").lower();
    Work::one(head, |lab| {
        let ball = Arc::new(AtomicU64::new(0));
        let (theirs, mine) = (Arc::clone(&ball), std::thread::current());
        // An odd number is theirs, an even one ours; the greatest one ends it.
        let other = std::thread::spawn(move || {
            loop {
                let now = theirs.load(Ordering::Acquire);
                match now {
                    u64::MAX => return,
                    now if now % 2 == 1 => {
                        theirs.store(now + 1, Ordering::Release);
                        mine.unpark();
                    }
                    _ => std::thread::park(),
                }
            }
        });
        let (start, mut times, mut trips) = (Instant::now(), latencies(), 0_u64);
        while (start.elapsed() < lab.time || trips == 0) && !lab.stop.asked() {
            // So that the other one sleeps, as a dispatcher with nothing to do.
            std::thread::sleep(Duration::from_micros(200));
            let sent = Instant::now();
            ball.fetch_add(1, Ordering::AcqRel);
            other.thread().unpark();
            while ball.load(Ordering::Acquire) % 2 == 1 {
                std::thread::park();
            }
            times.saturating_record(nanos(sent.elapsed()) / 2);
            trips += 1;
        }
        ball.store(u64::MAX, Ordering::Release);
        other.thread().unpark();
        other.join().map_err(|_| "the other thread panicked")?;
        lab.stop.check()?;
        let middle = times.value_at_percentile(50.0) as f64 / 1e3;
        let sample = Sample::rate(trips, start.elapsed().as_secs_f64()).valued(middle);
        Ok(Sample { latency: Some(times), timed_every: 1, ..sample })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chase_visits_every_place_before_it_comes_back() {
        let next = one_cycle(1_000);
        let (mut at, mut steps) = (next[0], 1);
        while at != 0 {
            (at, steps) = (next[at as usize], steps + 1);
        }
        assert_eq!(steps, 1_000);
    }

    #[test]
    fn records_are_whole_and_of_the_length_that_is_told() {
        let bytes = record(128, TAGGED).unwrap();
        assert_eq!(bytes.len(), record_len(128).unwrap());
        let decoded = reput::format::message::Record::decode(&bytes).unwrap();
        assert_eq!((decoded.body.len(), decoded.topic), (128, TOPIC));
    }

    #[test]
    fn random_numbers_stay_below_their_end_and_reach_it() {
        let mut random = Random::new(3);
        let seen: std::collections::BTreeSet<u64> = (0..1_000).map(|_| random.below(10)).collect();
        assert_eq!(seen, (0..10).collect());
    }
}
