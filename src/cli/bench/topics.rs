//! Many new queues at once: the first message to each.

use std::time::{Duration, Instant};

use reput::{FlushDiskType, Message, vfs::process_cpu_time};

use super::{
    lab::{Head, Sample, Work},
    memory::TAGGED,
    units,
};

/// The last message is readable after this, or something is wrong.
const LONGEST: Duration = Duration::from_secs(300);

/// `count` topics that nobody knows yet get a message each.
pub fn work(count: usize, body: usize) -> Work {
    let limit = format!("disk/files/{count}");
    let heads = vec![
        Head::new(
            "topics",
            format!("topics/{count}"),
            format!("{count} new topics, one message each, until all are readable"),
            "s",
        )
        .lower()
        .limited(limit),
        Head::new("topics", format!("topics/{count}/closed"), "the same until the store is closed", "s")
            .lower(),
    ];
    Work::several(heads, move |lab| {
        let scratch = lab.store("topics", FlushDiskType::Async)?;
        let store = scratch.store()?;
        let body = vec![b'x'; body];
        let (start, cpu) = (Instant::now(), process_cpu_time());
        for n in 0..count {
            let queue = store.queue(&format!("T{n:05}"), 0)?;
            store.put(&Message::new(queue, &body).properties_raw(TAGGED))?.wait()?;
            if n % 256 == 0 {
                lab.check()?;
            }
        }
        if !store.wait_dispatched(LONGEST)? {
            return Err(format!("not all of {} are readable", units::plural(count, "message")).into());
        }
        let took = start.elapsed();
        for n in [0, count / 2, count - 1] {
            let queue = store.queue(&format!("T{n:05}"), 0)?;
            if store.get(queue, reput::QueueOffset::ZERO)?.messages.len() != 1 {
                return Err(format!("the message of topic {n} is missing").into());
            }
        }
        let cpu = process_cpu_time().saturating_sub(cpu);
        store.close()?;
        let readable = Sample { operations: count as u64, cpu: Some(cpu), ..Sample::time(took) };
        Ok(vec![readable, Sample { operations: count as u64, ..Sample::time(start.elapsed()) }])
    })
}
