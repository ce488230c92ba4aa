//! What new pages of a file cost by themselves: a floor for every store that writes into mapped files.

use std::{fs, time::Instant};

use reput::vfs::{MappedFile, Reserve};
use serde_json::json;

use crate::{Failure, Options, measure::cpu_time, wipe};

const PAGE: u64 = 4096;
/// What is populated at once, as the store does it.
const STEP: usize = 1 << 20;

pub fn pages(options: &Options) -> Result<(), Failure> {
    wipe(&options.dir())?;
    fs::create_dir_all(options.dir())?;
    let bytes = options.number("bytes", 900 << 20)?;
    let len = usize::try_from(bytes)?;
    let mut map = MappedFile::create(&options.dir().join("pages"), bytes, Reserve::All)?;
    let (start, cpu) = (Instant::now(), cpu_time());
    (0..len).step_by(STEP).for_each(|at| map.populate(at..(at + STEP).min(len)));
    let (time, cpu) = (start.elapsed().as_secs_f64(), cpu_time() - cpu);
    drop(map);
    let line = json!({
        "impl": "reput", "bench": "pages", "label": "default", "bytes": bytes,
        "pages_s": (bytes / PAGE) as f64 / time, "mb_s": bytes as f64 / 1e6 / time,
        "cpu_us_per_page": cpu.as_secs_f64() * 1e6 / (bytes / PAGE) as f64,
    });
    println!("{line}");
    wipe(&options.dir())
}
