//! What a workload does: drawn from a seed, small enough that every corner is met within a few steps.

use std::fmt;

use super::super::{
    faults::{Call, Failure, Fault},
    rng::Rng,
};
use crate::{config::Config, config::FlushDiskType};

/// The sizes and switches of one workload's store.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) segment: u64,
    pub(super) queue_entries: u64,
    pub(super) index_slots: u32,
    pub(super) index_entries: u32,
    pub(super) sync: bool,
    pub(super) record_crc: bool,
    pub(super) copy_on_write: bool,
    pub(super) topics: usize,
    pub(super) queues: usize,
    /// Crash points at every so many writes.
    pub(super) write_stride: u64,
    /// And, in debug builds, at every so many stores through a mapping; 0: at none.
    pub(super) store_stride: u64,
}

/// The store's directory on the simulated disk.
pub(super) const ROOT: &str = "/store";

impl Setup {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::of(seed, 1);
        Self {
            segment: rng.pick(&[4096, 8192, 8192, 16_384, 65_536]).unwrap_or(8192),
            queue_entries: rng.pick(&[3, 10, 50, 300]).unwrap_or(10),
            index_slots: rng.pick(&[1, 7, 100, 1000]).unwrap_or(7),
            index_entries: rng.pick(&[3, 10, 40, 2000]).unwrap_or(10),
            sync: rng.one_in(2),
            record_crc: rng.one_in(4),
            copy_on_write: rng.one_in(8),
            topics: 1 + rng.below(3),
            queues: 1 + rng.below(2),
            write_stride: rng.pick(&[1, 2, 5]).unwrap_or(1),
            store_stride: rng.pick(&[0, 0, 3, 8, 21]).unwrap_or(0),
        }
    }

    pub(super) fn config(&self) -> Config {
        let flush = if self.sync { FlushDiskType::Sync } else { FlushDiskType::Async };
        Config::new(ROOT)
            .commit_log_file_size(self.segment)
            .consume_queue_file_size(self.queue_entries * 20)
            .index_slots(self.index_slots)
            .index_entries(self.index_entries)
            .flush_disk_type(flush)
            .append_prop_crc(self.record_crc)
            .force_verify_prop_crc(self.record_crc)
            .file_reserved_hours(1_u64)
            .delete_batch_max(2_usize)
    }

    /// Topic and number of queue `n`.
    pub(super) fn queue(&self, n: usize) -> (String, i32) {
        (format!("t{}", n / self.queues), i32::try_from(n % self.queues).unwrap_or(0))
    }

    /// Bytes that body and text of a message may have for its record to fit into a segment.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.segment).unwrap_or(usize::MAX) - 400
    }

    pub(super) fn queue_count(&self) -> usize {
        self.topics * self.queues
    }
}

/// One message to put.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) queue: usize,
    pub(super) body: usize,
    /// Bytes of a property beside keys and tags.
    pub(super) property: usize,
    pub(super) keys: usize,
    pub(super) tagged: bool,
}

/// What the acknowledgement of a put waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nobody waits for it.
    Not,
    /// With `WAIT=false`: it survives the end of the process.
    Written,
    /// It survives a power cut, in synchronous mode.
    Durable,
}

/// One step of a workload.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Puts one message, or several as a batch.
    Put {
        orders: Vec<Order>,
        wait: Wait,
    },
    /// Makes all that was put durable.
    Sync,
    /// One turn of a background thread.
    Flush,
    Reput,
    Upkeep,
    Prepare,
    /// Lets the segments expire, then deletes.
    Retention,
    /// Time passes; backwards too.
    Clock(i64),
    /// Calls begin to fail.
    Break(Fault),
    /// A clean stop and a new start.
    Close,
    /// The process is killed and starts anew on what the system has.
    Kill,
    /// The power goes; goes again in recovery so often.
    Crash(u64),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { orders, wait } => {
                write!(f, "put")?;
                for order in orders {
                    write!(f, " {}:{}+{}", order.queue, order.body, order.property)?;
                }
                match wait {
                    Wait::Not => Ok(()),
                    Wait::Written => write!(f, ", written"),
                    Wait::Durable => write!(f, ", wait"),
                }
            }
            Self::Break(fault) => write!(f, "break: {fault}"),
            Self::Clock(ms) => write!(f, "clock {ms:+} ms"),
            Self::Crash(_) => write!(f, "power cut"),
            other => write!(f, "{}", format!("{other:?}").to_lowercase()),
        }
    }
}

fn order(rng: &mut Rng, setup: &Setup) -> Order {
    // The longest may fill most of a segment of the smallest size.
    let body = match rng.below(12) {
        0 => 0,
        1..=7 => rng.below(200),
        8..=10 => rng.below(1200),
        _ => rng.below(3000),
    };
    let property = match rng.below(8) {
        0..=4 => 0,
        5 | 6 => rng.below(60),
        _ => rng.below(900),
    };
    let room = setup.room();
    Order {
        queue: rng.below(setup.queue_count()),
        body: body.min(room.saturating_sub(property)),
        property,
        keys: rng.below(4),
        tagged: rng.one_in(2),
    }
}

fn fault(rng: &mut Rng) -> Fault {
    let (call, failure) = match rng.below(11) {
        0..=3 => (Some(Call::Sync), Failure::Device),
        4 => (Some(Call::Write), Failure::Device),
        5 => (Some(Call::Create), Failure::NoSpace),
        6 => (Some(Call::Write), Failure::NoSpace),
        7 => (Some(Call::Write), Failure::Short),
        8 => (Some(Call::SyncAll), Failure::Device),
        9 => (None, rng.pick(&Failure::ALL).unwrap_or(Failure::Device)),
        _ => (None, Failure::Device),
    };
    let times = if rng.one_in(3) { u64::MAX } else { 1 };
    Fault { call, pass: rng.below(12) as u64, times, failure }
}

/// The steps of a seed.
pub(super) fn steps(seed: u64, setup: &Setup) -> Vec<Step> {
    let mut rng = Rng::of(seed, 2);
    // Every fourth store lives long and keeps up with its puts, as most stores do: it comes to `agreed` files.
    let diligent = seed % 4 == 3;
    let count = 6 + rng.below(40) + if diligent { 60 } else { 0 };
    let faulty = rng.one_in(4);
    let mut broken = false;
    let mut steps = Vec::with_capacity(count);
    while steps.len() < count {
        if diligent && matches!(steps.last(), Some(Step::Put { .. })) {
            steps.extend([Step::Sync, Step::Reput, Step::Upkeep]);
        }
        steps.push(match rng.below(100) {
            0..=41 => {
                let orders = if rng.one_in(6) { 2 + rng.below(4) } else { 1 };
                let orders = (0..orders).map(|_| order(&mut rng, setup)).collect();
                let wait = rng.pick(&[Wait::Not, Wait::Not, Wait::Written, Wait::Durable, Wait::Durable]);
                Step::Put { orders, wait: wait.unwrap_or(Wait::Not) }
            }
            42..=45 => Step::Sync,
            46..=53 => Step::Flush,
            54..=69 => Step::Reput,
            70..=76 => Step::Upkeep,
            77..=79 => Step::Prepare,
            80..=82 => Step::Retention,
            83..=86 => Step::Clock(rng.pick(&[1, 600, 11_000, 70_000]).unwrap_or(1)),
            87 => Step::Clock(rng.pick(&[-5_000, -100_000_000, 100_000_000, 0]).unwrap_or(0)),
            88..=90 if faulty && !broken => {
                broken = true;
                Step::Break(fault(&mut rng))
            }
            91..=93 => Step::Close,
            94..=96 => {
                broken = false;
                Step::Kill
            }
            97..=99 => {
                broken = false;
                Step::Crash(rng.next())
            }
            _ => continue,
        });
    }
    steps
}
