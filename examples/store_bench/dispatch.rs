//! Building queues and index from a log that has lost both.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Failure, Options,
    measure::{cpu_time, memory},
};

pub fn reput(options: &Options) -> Result<(), Failure> {
    for name in ["consumequeue", "index"] {
        gone(fs::remove_dir_all(options.dir().join(name)))?;
    }
    for name in ["checkpoint", "abort"] {
        gone(fs::remove_file(options.dir().join(name)))?;
    }
    let (start, cpu) = (Instant::now(), cpu_time());
    let store = options.open()?;
    let loaded = start.elapsed();
    if !store.wait_dispatched(Duration::from_secs(600))? {
        return Err("the dispatcher is not done after ten minutes".into());
    }
    let (total, cpu) = (start.elapsed(), cpu_time() - cpu);
    let queues = i32::try_from(options.number("queues", 8)?)?;
    let entries: i64 =
        (0..queues).filter_map(|id| store.find_queue("T00000", id)).map(|q| store.max_offset(q).get()).sum();
    let mut line = json!({
        "impl": "reput", "bench": "reput", "label": options.text("label", "default"), "cq_entries": entries,
        "load_s": loaded.as_secs_f64(), "total_s": total.as_secs_f64(),
        "msgs_s": (entries as f64 / total.as_secs_f64()).round(),
        "cpu_us_per_msg": cpu.as_secs_f64() * 1e6 / entries.max(1) as f64,
    });
    memory(&mut line);
    println!("{line}");
    options.end(&store, "clean")
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
