//! Opening a store after a kill, hot and cold, and after a clean stop; of our own making or somebody's directory.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use reput::{
    Config, Store, SystemClock,
    vfs::{OverlayVfs, forget_cached, process_cpu_time},
};

use super::{
    Failure,
    fixture::{Fixture, files_below},
    lab::{Head, Lab, Sample, Work},
};

/// The three ways to open the fixture's log.
pub fn work(fixture: &Rc<Fixture>) -> Work {
    let heads = vec![
        Head::new("recover", "recover/hot", "open after a kill, log in memory", "MB/s")
            .limited("memory/read"),
        Head::new("recover", "recover/cold", "open after a kill, nothing cached", "MB/s")
            .limited("disk/read"),
        Head::new("recover", "recover/clean", "open after a clean stop", "s").lower(),
    ];
    let fixture = Rc::clone(fixture);
    Work::several(heads, move |lab| {
        let (dir, messages) = fixture.log_alone(lab)?;
        let config = fixture.config(lab, &dir)?;
        // Whoever used it last may have left it without an index.
        Store::open(config.clone())?.close()?;
        let mut samples = Vec::new();
        for (cold, aborted) in [(false, true), (true, true), (false, false)] {
            lab.check()?;
            if aborted {
                fs::write(dir.join("abort"), "1")?;
            }
            if cold {
                forget(&dir)?;
            }
            // After a clean stop nothing is read that could be counted.
            let sample = open(|| Store::open(config.clone()), aborted.then_some(messages))?;
            samples.push(if aborted {
                sample
            } else {
                Sample { operations: 1, ..sample.clone() }.valued(sample.seconds)
            });
        }
        Ok(samples)
    })
}

/// Opens and closes; the value is the log's MB/s.
fn open(how: impl FnOnce() -> reput::Result<Store>, messages: Option<u64>) -> Result<Sample, Failure> {
    let (start, cpu) = (Instant::now(), process_cpu_time());
    let store = how()?;
    let took = start.elapsed().as_secs_f64();
    let cpu = process_cpu_time().saturating_sub(cpu);
    let (status, found) = (store.status(), store.recovery_report().records);
    if messages.is_some_and(|messages| messages != found) {
        return Err(format!("{found} messages were recovered of {}", messages.unwrap_or(0)).into());
    }
    let sample = Sample::megabytes(status.max_offset.since(status.min_offset), took);
    store.close()?;
    Ok(Sample { cpu: Some(cpu), operations: found, ..sample })
}

fn forget(dir: &Path) -> Result<(), Failure> {
    for file in files_below(dir) {
        forget_cached(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

/// Opening somebody's directory, of which nothing is changed.
pub fn own(dir: PathBuf) -> Work {
    let title = format!("open {}, cached as it is", dir.display());
    let heads = vec![
        Head::new("recover", "recover/own", title, "MB/s").limited("memory/read"),
        Head::new("recover", "recover/own/time", "the same", "s").lower(),
    ];
    Work::several(heads, move |lab| {
        let config = config_of(lab, &dir)?;
        let sample = open(
            || Store::open_with(config, Arc::new(OverlayVfs::new()), Arc::new(SystemClock::new())),
            None,
        )?;
        let seconds = sample.seconds;
        Ok(vec![sample, Sample { seconds, operations: 1, ..Sample::default() }.valued(seconds)])
    })
}

/// The configuration that fits somebody's directory: the sizes of its files, then what was set.
pub fn config_of(lab: &Lab, dir: &Path) -> Result<Config, Failure> {
    if !dir.join("commitlog").is_dir() {
        return Err(format!("{} is no store: it has no commitlog", dir.display()).into());
    }
    let mut config = Config::new(dir);
    let first_len = |part: &str| {
        let mut files = files_below(&dir.join(part));
        files.sort();
        files.first().and_then(|file| file.metadata().ok()).map(|meta| meta.len()).filter(|len| *len > 0)
    };
    if let Some(len) = first_len("commitlog") {
        config = config.commit_log_file_size(len);
    }
    if let Some(len) = first_len("consumequeue") {
        config = config.consume_queue_file_size(len);
    }
    for (key, value) in &lab.settings {
        config.set(key, value)?;
    }
    Ok(config)
}
