//! Reads a workload from bytes, any bytes: a fuzzer's inputs become operations of a store.
//!
//! Four bytes of settings, then the steps, each one byte (the kind in the low half, an argument in the high half) and what
//! the kind needs. Bytes that are missing at the end are zeros.

use super::{
    super::faults::{Call, Failure, Fault},
    plan::{Order, Setup, Step, Wait},
};

/// Steps of one input, at most.
const MOST: usize = 64;

struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }
}

fn of<T: Copy + Default>(choices: &[T], number: usize) -> T {
    choices.get(number % choices.len().max(1)).copied().unwrap_or_default()
}

/// The seed by which images are chosen, the store's settings and the steps.
pub(super) fn workload(data: &[u8]) -> (u64, Setup, Vec<Step>) {
    let mut bytes = Bytes(data);
    let setup = setup(&mut bytes);
    let seed = bytes.next() << 8 | bytes.next();
    let mut steps = Vec::new();
    // One thing fails at a time: a second one waits for the next life.
    let mut broken = false;
    while !bytes.0.is_empty() && steps.len() < MOST {
        match step(&mut bytes, &setup) {
            Step::Break(_) if broken => continue,
            step => {
                broken |= matches!(step, Step::Break(_));
                broken &= !matches!(step, Step::Kill | Step::Crash(_));
                steps.push(step);
            }
        }
    }
    (seed as u64, setup, steps)
}

fn setup(bytes: &mut Bytes<'_>) -> Setup {
    let (sizes, switches) = (bytes.next(), bytes.next());
    Setup {
        segment: of(&[4096, 8192, 16_384, 65_536], sizes & 3),
        queue_entries: of(&[3, 10, 50, 300], sizes >> 2 & 3),
        index_slots: of(&[1, 7, 100, 1000], sizes >> 4 & 3),
        index_entries: of(&[3, 10, 40, 2000], sizes >> 6),
        sync: switches & 1 != 0,
        record_crc: switches & 2 != 0,
        copy_on_write: switches & 4 != 0,
        topics: 1 + (switches >> 3 & 3) % 3,
        queues: 1 + (switches >> 5 & 1),
        write_stride: of(&[1, 2, 5, 1], switches >> 6),
        store_stride: of(&[0, 1, 5, 20], switches >> 6),
    }
}

fn step(bytes: &mut Bytes<'_>, setup: &Setup) -> Step {
    let first = bytes.next();
    let (kind, argument) = (first & 15, first >> 4);
    let wait = match argument & 3 {
        0 => Wait::Not,
        1 => Wait::Written,
        _ => Wait::Durable,
    };
    match kind {
        0..=2 => Step::Put { orders: vec![order(bytes, setup)], wait },
        3 => {
            let count = 2 + (argument >> 2);
            Step::Put { orders: (0..count).map(|_| order(bytes, setup)).collect(), wait }
        }
        4 => Step::Sync,
        5 => Step::Flush,
        6 => Step::Reput,
        7 => Step::Upkeep,
        8 => Step::Prepare,
        9 => Step::Retention,
        10 => Step::Clock(of(&[1, 600, 11_000, 70_000], argument)),
        11 => Step::Clock(of(&[-5_000, -100_000_000, 100_000_000, 0], argument)),
        12 => Step::Break(fault(argument, bytes.next())),
        13 => Step::Close,
        14 => Step::Kill,
        _ => Step::Crash((argument << 8 | bytes.next()) as u64),
    }
}

/// Three bytes: queue, keys and tag; the length of the body; that of a property.
fn order(bytes: &mut Bytes<'_>, setup: &Setup) -> Order {
    let (who, body, property) = (bytes.next(), bytes.next() * 12, bytes.next().saturating_sub(128) * 8);
    let room = setup.room();
    Order {
        queue: (who & 15) % setup.queue_count(),
        body: body.min(room.saturating_sub(property)),
        property,
        keys: who >> 4 & 3,
        tagged: who >> 7 != 0,
    }
}

fn fault(kind: usize, when: usize) -> Fault {
    let failure = Failure::ALL.get(kind & 3).copied().unwrap_or(Failure::Device);
    let call = of(&[None, Some(Call::Sync), Some(Call::Write), Some(Call::SyncDir)], kind >> 2);
    let times = if when >> 7 == 0 { 1 } else { u64::MAX };
    Fault { call, pass: (when & 127) as u64, times, failure }
}
