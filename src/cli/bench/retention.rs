//! Retention: removing expired segments, and what puts feel of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use reput::{Message, Queue, Store};

use super::{
    Failure,
    drive::nanos,
    lab::{Head, Lab, Sample, TOPIC, Work},
    memory::{LIMITS, TAGGED},
    results::latencies,
};

/// Bytes of a segment, and how many are removed: a mebibyte more each would double the run's disk use.
const SEGMENT: u64 = 32 << 20;
const SEGMENTS: u64 = 6;
/// Between two puts that feel for a stall.
const FEEL: Duration = Duration::from_micros(100);
/// Retention looks every few milliseconds here; after this it does not work.
const LONGEST: Duration = Duration::from_secs(60);

/// Removing written segments, bare and by the store.
pub fn work() -> Work {
    let heads = vec![
        Head::new(LIMITS, "disk/unlink", "remove written files", "MB/s"),
        Head::new("retention", "retention/remove", "remove expired segments", "MB/s").limited("disk/unlink"),
        Head::new("retention", "retention/stall", "longest put meanwhile", "us").lower(),
    ];
    Work::several(heads, |lab| {
        let bare = unlink(lab)?;
        let (removed, stall) = expire(lab)?;
        Ok(vec![bare, removed, stall])
    })
}

fn segment(lab: &Lab) -> Result<u64, Failure> {
    let fits = (lab.place.room()? / (SEGMENTS + 4)).clamp(1 << 20, SEGMENT);
    Ok(1 << fits.ilog2())
}

fn unlink(lab: &Lab) -> Result<Sample, Failure> {
    let (dir, size) = (lab.place.fresh("unlink")?, segment(lab)?);
    fs::create_dir_all(&dir)?;
    let content = vec![b'x'; usize::try_from(size)?];
    for n in 0..SEGMENTS {
        fs::write(dir.join(n.to_string()), &content)?;
        lab.check()?;
    }
    let start = Instant::now();
    for n in 0..SEGMENTS {
        fs::remove_file(dir.join(n.to_string()))?;
    }
    let sample = Sample::megabytes(size * SEGMENTS, start.elapsed().as_secs_f64());
    fs::remove_dir(&dir)?;
    Ok(sample)
}

fn expire(lab: &Lab) -> Result<(Sample, Sample), Failure> {
    let (dir, size) = (lab.place.fresh("expire")?, segment(lab)?);
    let mut config =
        lab.config(&dir)?.commit_log_file_size(size).file_reserved_hours(0_u64).message_index(false);
    for (key, value) in [
        ("cleanResourceInterval", "2"),
        ("deleteCommitLogFilesInterval", "0"),
        ("deleteConsumeQueueFilesInterval", "0"),
        // A run removes only what is asked for, not what happens to be due at this hour.
        ("deleteWhen", ""),
    ] {
        config.set(key, value)?;
    }
    let store = Store::open(config)?;
    let queue = store.queue(TOPIC, 0)?;
    let (body, mut last) = (vec![b'x'; 16 << 10], 0);
    while store.status().max_offset.get() < i64::try_from(size * SEGMENTS)? {
        put(&store, queue, &body)?;
        last += 1;
        if last % 256 == 0 {
            lab.check()?;
        }
    }
    store.sync()?;
    store.wait_dispatched(LONGEST)?;
    let target = i64::try_from(size * SEGMENTS)?;
    let mut times = latencies();
    let start = Instant::now();
    store.delete_expired();
    while store.status().min_offset.get() < target {
        let began = Instant::now();
        put(&store, queue, b"felt")?;
        times.saturating_record(nanos(began.elapsed()));
        std::thread::sleep(FEEL);
        lab.stop.check()?;
        if start.elapsed() > LONGEST {
            return Err("expired segments are not removed".into());
        }
    }
    let removed = Sample::megabytes(size * SEGMENTS, start.elapsed().as_secs_f64());
    let stall = Sample::rate(times.len(), start.elapsed().as_secs_f64()).valued(times.max() as f64 / 1e3);
    drop(store);
    let _ = fs::remove_dir_all(&dir);
    Ok((removed, Sample { latency: Some(times), timed_every: 1, ..stall }))
}

fn put(store: &Store, queue: Queue, body: &[u8]) -> Result<(), Failure> {
    store.put(&Message::new(queue, body).properties_raw(TAGGED))?.wait()?;
    Ok(())
}
