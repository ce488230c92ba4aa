//! Pulls: by reference, through a tag filter, copied out, and cold; of our own store or of somebody's.

use std::{path::PathBuf, rc::Rc, sync::Arc, time::Instant};

use reput::{
    Filter, GetRequest, GetStatus, Queue, QueueOffset, Store, SystemClock, TagFilter,
    vfs::{OverlayVfs, forget_cached},
};

use super::{
    Failure,
    drive::{Caller, Load, drive},
    fixture::{Fixture, files_below},
    lab::{Head, Lab, QUEUES, Sample, TOPIC, Work},
    memory::record_len,
    recover::config_of,
    units,
};

/// What is done with what a pull finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing: the messages' places are enough.
    Reference,
    /// The same through a filter that passes one of ten.
    Tag,
    /// Copied into a buffer.
    Copy,
}

/// A workload of pulls from memory.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub threads: usize,
    /// Messages of one pull.
    pub batch: usize,
    pub how: How,
}

impl Cell {
    fn head(self, body: usize) -> Result<Head, Failure> {
        let (name, words) = match self.how {
            How::Reference => ("", "by reference"),
            How::Tag => ("/tag", "1 in 10 by tag, scanned"),
            How::Copy => ("/copy", "copied out"),
        };
        let title = format!("{} a pull, {words}, {}", self.batch, units::plural(self.threads, "thread"));
        let head =
            Head::new("pull", format!("pull/t{}/b{}{name}", self.threads, self.batch), title, "msgs/s");
        Ok(match self.how {
            How::Copy => head.limited(format!("memory/copy/{}", record_len(body)?)),
            _ => head.limited("memory/entries"),
        })
    }

    /// The workload.
    pub fn work(self, fixture: &Rc<Fixture>) -> Result<Work, Failure> {
        let head = self.head(fixture.body())?;
        let (fixture, title) = (Rc::clone(fixture), head.title.clone());
        Ok(Work::one(head, move |lab| {
            let (store, _) = fixture.store(lab)?;
            let queues = (0..QUEUES).filter_map(|queue| store.find_queue(TOPIC, queue)).collect::<Vec<_>>();
            self.run(lab, &title, &store, &queues)
        }))
    }

    fn run(self, lab: &Lab, title: &str, store: &Store, queues: &[Queue]) -> Result<Sample, Failure> {
        let load = Load {
            title,
            unit: "msgs/s",
            rate: None,
            units_per_call: self.batch as u64,
            timed_every: 1,
            unit_bytes: 0,
            most_bytes: u64::MAX,
            time: None,
        };
        let callers = (0..self.threads)
            .map(|n| {
                let queue =
                    *queues.get(n % queues.len().max(1)).ok_or("the store has no queue to pull from")?;
                Ok(Pull::new(store, queue, self))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        drive(lab, &load, callers)
    }
}

/// One consumer that reads a queue from end to end, again and again.
struct Pull {
    store: Store,
    queue: Queue,
    cell: Cell,
    tags: Option<TagFilter>,
    at: QueueOffset,
    buffer: Vec<u8>,
    /// Whether the end was met.
    ended: bool,
}

impl Pull {
    fn new(store: &Store, queue: Queue, cell: Cell) -> Self {
        let tags = (cell.how == How::Tag).then(|| TagFilter::parse("TagA"));
        let at = store.min_offset(queue);
        Self { store: store.clone(), queue, cell, tags, at, buffer: Vec::new(), ended: false }
    }
}

impl Caller for Pull {
    fn call(&mut self, _due: Instant) -> Result<u64, Failure> {
        let mut request = GetRequest::new(self.queue, self.at);
        request.max_messages = self.cell.batch;
        request.filter = self.tags.as_ref().map(|tags| tags as &dyn Filter);
        let result = self.store.fetch_raw(&request)?;
        if self.cell.how == How::Copy {
            self.buffer.clear();
            for message in &result.messages {
                self.buffer.extend_from_slice(result.bytes_of(message));
            }
        }
        let scanned = u64::try_from(result.next_offset.get() - self.at.get()).unwrap_or(0);
        self.ended = scanned == 0 || result.status == GetStatus::OffsetOverflowOne;
        self.at = if self.ended { result.min_offset } else { result.next_offset };
        if result.messages.is_empty() && self.tags.is_none() && !self.ended {
            return Err(format!("a pull at {} says {:?}", request.offset, result.status).into());
        }
        Ok(if self.cell.how == How::Tag { scanned } else { result.messages.len() as u64 })
    }
}

/// A pull of one queue of eight from a log of which nothing is cached. The value is bytes of log passed over, cached
/// only by this, in MB/s: the messages of the other queues lie between.
pub fn cold(fixture: &Rc<Fixture>) -> Work {
    let head =
        Head::new("pull", "pull/cold", "32 a pull, copied out, nothing cached: log passed over", "MB/s")
            .limited("disk/read");
    let fixture = Rc::clone(fixture);
    Work::one(head, move |lab| {
        let (store, _) = fixture.store(lab)?;
        for file in files_below(&fixture.dir(lab)?.join("commitlog")) {
            forget_cached(&file)?;
        }
        let queue = store.find_queue(TOPIC, 0).ok_or("the fixture has no queue")?;
        let mut pull = Pull::new(&store, queue, Cell { threads: 1, batch: 32, how: How::Copy });
        let (start, mut messages) = (Instant::now(), 0);
        let mut times = super::results::latencies();
        while start.elapsed() < lab.time * 2 || messages == 0 {
            let began = Instant::now();
            let got = pull.call(began)?;
            if pull.ended {
                break;
            }
            times.saturating_record(super::drive::nanos(began.elapsed()));
            messages += got;
            lab.stop.check()?;
        }
        let each = record_len(fixture.body())? as u64 * u64::from(QUEUES.unsigned_abs());
        let sample = Sample::megabytes(messages * each, start.elapsed().as_secs_f64());
        heat(lab, &fixture, &store)?;
        Ok(Sample { latency: Some(times), timed_every: 1, operations: messages, ..sample })
    })
}

/// Brings the log back into memory, for whoever reads it next and is to find it there.
fn heat(lab: &Lab, fixture: &Fixture, store: &Store) -> Result<(), Failure> {
    for file in files_below(&fixture.dir(lab)?.join("commitlog")) {
        // In one go, which is many times faster than page by page through the mapping.
        std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
        lab.check()?;
    }
    for queue in (0..QUEUES).filter_map(|queue| store.find_queue(TOPIC, queue)) {
        let mut pull = Pull::new(store, queue, Cell { threads: 1, batch: 32, how: How::Copy });
        while !pull.ended {
            pull.call(Instant::now())?;
            lab.stop.check()?;
        }
    }
    Ok(())
}

/// Pulls from the longest queue of somebody's directory, of which nothing is changed.
pub fn own(dir: PathBuf, cell: Cell) -> Result<Work, Failure> {
    let mut head = cell.head(128)?;
    head.id = format!("own/{}", head.id);
    head.limit = Some(("memory/entries".into(), 1.0));
    let title = head.title.clone();
    Ok(Work::one(head, move |lab| {
        let config = config_of(lab, &dir)?;
        let store = Store::open_with(config, Arc::new(OverlayVfs::new()), Arc::new(SystemClock::new()))?;
        let len = |queue: &Queue| store.max_offset(*queue).get() - store.min_offset(*queue).get();
        let queues = store.queues();
        let longest =
            queues.iter().filter_map(|(topic, id)| store.find_queue(topic.as_str(), *id)).max_by_key(len);
        cell.run(lab, &title, &store, longest.as_slice())
    }))
}
