//! A store with messages in it, made once and used by every workload that reads: open, and as a log alone.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use reput::{Config, Message, Store, StoreTimestamp};

use super::{
    Failure,
    lab::{Lab, QUEUES, TOPIC},
    memory::record,
};

/// Segments of this size: a log of a few hundred megabytes then has several, and a copy of it wastes little.
const SEGMENT: u64 = 64 << 20;
/// Messages of one put while it is filled.
const BATCH: u64 = 64;
/// Tags that take turns: a filter by one of them passes a tenth.
const TAGS: u64 = 10;
/// Queues and index follow within this, or something is wrong.
const FOLLOW: Duration = Duration::from_secs(300);

/// A filled store; a run has one for each length of body. Message `n` has the key `k<n>`, lies in queue `n % 8` and has one of ten tags.
#[derive(Debug)]
pub struct Fixture {
    wanted: u64,
    body: usize,
    filled: RefCell<Option<Filled>>,
}

#[derive(Clone, Debug)]
struct Filled {
    store: Store,
    dir: PathBuf,
    log_alone: PathBuf,
    messages: u64,
}

impl Fixture {
    /// One that is filled with `messages` of `body` bytes when it is first used, or as many as there is room for.
    pub fn new(messages: u64, body: usize) -> Rc<Self> {
        Rc::new(Self { wanted: messages, body, filled: RefCell::new(None) })
    }

    /// Bytes of a body.
    pub const fn body(&self) -> usize {
        self.body
    }

    /// The open store, and the number of its messages.
    pub fn store(&self, lab: &Lab) -> Result<(Store, u64), Failure> {
        self.filled(lab).map(|filled| (filled.store, filled.messages))
    }

    /// The open store's directory.
    pub fn dir(&self, lab: &Lab) -> Result<PathBuf, Failure> {
        self.filled(lab).map(|filled| filled.dir)
    }

    /// A directory with the same log, which is not open, and the number of its messages. What else is in it, whoever
    /// used it last has left.
    pub fn log_alone(&self, lab: &Lab) -> Result<(PathBuf, u64), Failure> {
        self.filled(lab).map(|filled| (filled.log_alone, filled.messages))
    }

    /// The configuration of these stores.
    pub fn config(&self, lab: &Lab, dir: &Path) -> Result<Config, Failure> {
        let config = lab.config(dir)?;
        if lab.settings.iter().any(|(key, _)| key == "mappedFileSizeCommitLog") {
            return Ok(config);
        }
        let segment = config.commit_log_file_size.min(SEGMENT);
        Ok(config.commit_log_file_size(segment))
    }

    fn filled(&self, lab: &Lab) -> Result<Filled, Failure> {
        if let Some(filled) = &*self.filled.borrow() {
            return Ok(filled.clone());
        }
        lab.progress.measuring("filling a store to read from");
        let (dir, log_alone) = (
            lab.place.fresh(&format!("filled.{}", self.body))?,
            lab.place.fresh(&format!("log.{}", self.body))?,
        );
        let config = self.config(lab, &dir)?;
        // Log, its copy, queues and index take about four times the records.
        let each = record(self.body, b"KEYS\x01k1234567\x02TAGS\x01TagA\x02")?.len() as u64;
        let messages = self.wanted.min(lab.place.room()? / (each * 4 + 200)).max(BATCH) / BATCH * BATCH;
        let store = Store::open(config.clone())?;
        fill(lab, &store, messages, self.body)?;
        if !store.wait_dispatched(FOLLOW)? {
            return Err(format!("queues and index did not follow within {} s", FOLLOW.as_secs()).into());
        }
        store.close()?;
        fs::create_dir_all(log_alone.join("commitlog"))?;
        for entry in fs::read_dir(dir.join("commitlog"))? {
            let entry = entry?;
            fs::copy(entry.path(), log_alone.join("commitlog").join(entry.file_name()))?;
            lab.check()?;
        }
        let filled = Filled { store: Store::open(config)?, dir, log_alone, messages };
        *self.filled.borrow_mut() = Some(filled.clone());
        Ok(filled)
    }
}

fn fill(lab: &Lab, store: &Store, messages: u64, body: usize) -> Result<(), Failure> {
    let queues = (0..QUEUES).map(|queue| store.queue(TOPIC, queue)).collect::<Result<Vec<_>, _>>()?;
    let (body, per_tag) = (vec![b'x'; body], queues.len() as u64);
    for first in (0..messages).step_by(usize::try_from(BATCH)?) {
        let batch: Vec<_> = (first..first + BATCH)
            .map(|n| {
                let tag = u8::try_from(n / per_tag % TAGS).unwrap_or(0);
                let properties = format!("KEYS\u{1}k{n}\u{2}TAGS\u{1}Tag{}\u{2}", char::from(b'A' + tag));
                Message::new(queues[usize::try_from(n % per_tag).unwrap_or(0)], &body)
                    .born_timestamp(StoreTimestamp(1_700_000_000_000))
                    .properties_raw(properties.into_bytes())
            })
            .collect();
        // Under SYNC_FLUSH too nothing waits here: closing the store does.
        drop(store.put_batch(&batch)?);
        if first % (BATCH * 256) == 0 {
            lab.check()?;
        }
    }
    Ok(())
}

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
