//! What the disk and its file system can do, with the same calls that the store makes.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    time::Instant,
};

use reput::vfs::{MappedFile, OsVfs, Reserve, Vfs, forget_cached, process_cpu_time};

use super::{
    Failure,
    drive::nanos,
    lab::{Head, Lab, Sample, Work},
    memory::LIMITS,
    place,
    results::latencies,
    units,
};

/// Bytes of the files that are written and read from end to end.
const FILE: u64 = 256 << 20;
/// One write of them.
const PIECE: usize = 1 << 20;
const PAGE: usize = 4096;
/// What a writer that fills a mapping stores at once.
const STORE: usize = 1024;
/// What is populated at once.
const POPULATE: usize = 4 << 20;

/// Bytes for a file of a limit: [`FILE`], less where there is little room.
fn file_len(lab: &Lab) -> Result<u64, Failure> {
    Ok((lab.place.room()? / 3).clamp(8 << 20, FILE) >> 20 << 20)
}

/// One thread writes `records` of `len` bytes at once and syncs, again and again: what a sync store can reach with so
/// many callers.
pub fn sync(records: usize, len: usize) -> Work {
    let title = match records {
        1 => format!("write {len} B, fdatasync"),
        _ => format!("write {records} x {len} B, fdatasync"),
    };
    let head = Head::new(LIMITS, format!("disk/sync/{records}x{len}"), title, "records/s");
    Work::one(head, move |lab| {
        let path = lab.place.fresh("sync")?;
        let size = file_len(lab)?;
        // The store's own calls on a file like a segment of its own.
        let file = OsVfs.create(&path, size, Reserve::All)?;
        let piece = vec![b'x'; records * len];
        file.write(0, &piece)?;
        file.sync(0..piece.len())?;
        let (start, cpu) = (Instant::now(), process_cpu_time());
        let (mut at, mut times, mut syncs) = (piece.len(), latencies(), 0_u64);
        while (start.elapsed() < lab.time || syncs == 0) && at + piece.len() <= file.len() {
            let began = Instant::now();
            file.write(at, &piece)?;
            file.sync(at..at + piece.len())?;
            times.saturating_record(nanos(began.elapsed()));
            (at, syncs) = (at + piece.len(), syncs + 1);
            lab.stop.check()?;
        }
        let mut sample = Sample::rate(syncs * records as u64, start.elapsed().as_secs_f64());
        sample.cpu = Some(process_cpu_time().saturating_sub(cpu));
        (sample.latency, sample.timed_every) = (Some(times), 1);
        drop(file);
        fs::remove_file(&path)?;
        Ok(sample)
    })
}

/// Sequential writes through to the disk, then sequential reads from it.
pub fn sequential() -> Work {
    let heads = vec![
        Head::new(LIMITS, "disk/write", "write a file from end to end, fdatasync", "MB/s"),
        Head::new(LIMITS, "disk/read", "read it back, nothing cached", "MB/s"),
    ];
    Work::several(heads, |lab| {
        let (path, size) = (lab.place.fresh("sequential")?, file_len(lab)?);
        let piece = vec![b'x'; PIECE];
        let write = || -> Result<Sample, Failure> {
            let mut file = File::create(&path)?;
            let start = Instant::now();
            for _ in 0..size / PIECE as u64 {
                file.write_all(&piece)?;
                lab.stop.check()?;
            }
            file.sync_data()?;
            Ok(Sample::megabytes(size, start.elapsed().as_secs_f64()))
        };
        let written = write()?;
        forget_cached(&path)?;
        let read = read_through(lab, &path)?;
        fs::remove_file(&path)?;
        Ok(vec![written, read])
    })
}

fn read_through(lab: &Lab, path: &Path) -> Result<Sample, Failure> {
    let (mut file, mut piece) = (File::open(path)?, vec![0; PIECE]);
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        let got = file.read(&mut piece)?;
        if got == 0 {
            return Ok(Sample::megabytes(bytes, start.elapsed().as_secs_f64()));
        }
        bytes += got as u64;
        lab.stop.check()?;
    }
}

/// What filling a new mapped file costs: page by page as the stores fault, ahead of them, and one fault alone.
pub fn mapped() -> Work {
    let heads = vec![
        Head::new(LIMITS, "disk/map/fresh", "fill a new mapped file, faulting", "MB/s"),
        Head::new(LIMITS, "disk/map/populate", "populate a new mapped file", "MB/s"),
        Head::new(LIMITS, "disk/map/fault", "one page fault of it", "ns").lower(),
    ];
    Work::several(heads, |lab| {
        let size = file_len(lab)?;
        let mut filled = on_new_file(lab, size, |map, len| {
            let piece = [b'x'; STORE];
            (0..len / STORE).for_each(|n| map.store(n * STORE, &piece));
        })?;
        let mut populated = on_new_file(lab, size, |map, len| {
            (0..len).step_by(POPULATE).for_each(|at| map.populate(at..(at + POPULATE).min(len)));
        })?;
        let mut fault = on_new_file(lab, size / 4, |map, len| {
            (0..len / PAGE).for_each(|n| map.store(n * PAGE, b"x"));
        })?;
        let pages = size / 4 / PAGE as u64;
        // Of the whole files pages are told too, not bytes.
        (filled.operations, populated.operations) = (pages * 4, pages * 4);
        fault.operations = pages;
        fault.value = fault.seconds * 1e9 / pages as f64;
        Ok(vec![filled, populated, fault])
    })
}

fn on_new_file(lab: &Lab, size: u64, fill: impl FnOnce(&mut MappedFile, usize)) -> Result<Sample, Failure> {
    lab.check()?;
    let path = lab.place.fresh("mapped")?;
    let mut map = MappedFile::create(&path, size, Reserve::All)?;
    let len = usize::try_from(size)?;
    let (start, cpu) = (Instant::now(), process_cpu_time());
    fill(&mut map, len);
    let mut sample = Sample::megabytes(size, start.elapsed().as_secs_f64());
    sample.cpu = Some(process_cpu_time().saturating_sub(cpu));
    drop(map);
    fs::remove_file(&path)?;
    Ok(sample)
}

/// Making files in directories of their own, as new queues need them.
pub fn files(count: usize) -> Work {
    let title = format!("make {}, each in a directory", units::plural(count, "file"));
    let head = Head::new(LIMITS, format!("disk/files/{count}"), title, "s").lower();
    Work::one(head, move |lab| {
        let dir = lab.place.fresh("files")?;
        let start = Instant::now();
        for n in 0..count {
            let own = dir.join(format!("T{n:05}/0"));
            fs::create_dir_all(&own)?;
            File::create(own.join("00000000000000000000"))?.set_len(6_000_000)?;
            if n % 64 == 0 {
                lab.check()?;
            }
        }
        let sample = Sample::time(start.elapsed());
        place::remove(&dir)?;
        Ok(Sample { operations: count as u64, ..sample })
    })
}
