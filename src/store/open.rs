//! Opening and closing: the order in which things are taken, recovered, started, and put down again.
//!
//! The lock is taken before anything is read. `abort` lies there while the store is open, so that its absence says
//! that it was closed; recovery does not depend on it, but is spared where `cleanStop` proves that nobody has touched
//! the store since, and begins late where `agreed` says that all before is on the disk.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    Inner, Store,
    agreed::{self, Agreement},
    background::{Steps, Threads, Upkeep},
    clean_stop::{self, Untouched},
    put::PutState,
    registry::Registry,
};
use crate::{
    clock::Clock,
    commit_log,
    config::Config,
    consume_queue::QueueTable,
    deleted::DeletedTopics,
    dispatch::Projection,
    error::{Error, Result},
    format::{checkpoint::Checkpoint, message::Limits},
    index::IndexSet,
    recovery::{self, without_log},
    reput::{Parts, Reput, ReputShared, Turns},
    retention::{DiskState, Retention},
    stats::Stats,
    vfs::Vfs,
};

/// The address in message ids when a message names none: the one that a broker has by default.
const STORE_HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10911);

/// The checkpoint as it stands and where it lies.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    pub(super) now: Checkpoint,
}

impl CheckpointFile {
    fn load(vfs: &Arc<dyn Vfs>, config: &Config) -> Result<Self> {
        let path = config.path("checkpoint");
        // A file of another size is damaged; what can be read of it is only a hint anyway.
        let bytes = vfs.read(&path, 1 << 20).map_err(Error::io("read", &path))?.unwrap_or_default();
        Ok(Self { vfs: Arc::clone(vfs), path, now: Checkpoint::decode(&bytes) })
    }

    pub(super) fn save(&self) -> Result<()> {
        self.vfs.replace(&self.path, &self.now.encode()).map_err(Error::io("write", &self.path))
    }
}

impl Store {
    /// [`Store::open`] on another file system or clock.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(config: Config, vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>) -> Result<Self> {
        let (inner, reput, upkeep) = assemble(config, vfs, clock)?;
        let threads = Threads::start(&inner, reput, upkeep)?;
        *inner.threads.lock() = threads;
        Ok(Self { inner })
    }

    /// Opens a store without threads: nothing is flushed in the background, dispatched or deleted until the
    /// [`Steps`] are taken. For tests that need a chosen order of events.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_stepped(config: Config, vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>) -> Result<(Self, Steps)> {
        let (inner, reput, upkeep) = assemble(config, vfs, clock)?;
        let (log, clock) = (Arc::clone(&inner.log), Arc::clone(&inner.clock));
        let steps = Steps { log, clock, reput, upkeep, retention: Arc::clone(&inner.retention) };
        Ok((Self { inner }, steps))
    }
}

fn assemble(config: Config, vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>) -> Result<(Arc<Inner>, Reput, Upkeep)> {
    config.validate()?;
    vfs.create_dir_all(&config.root).map_err(Error::io("make", &config.root))?;
    let lock_path = config.path("lock");
    let lock = vfs.lock(&lock_path).map_err(Error::io("lock", &lock_path))?;
    let lock = lock.ok_or(Error::Locked { path: lock_path })?;

    let config = Arc::new(config);
    let mut checkpoint = CheckpointFile::load(&vfs, &config)?;
    let deleted = Arc::new(DeletedTopics::load(Arc::clone(&vfs), &config.root)?);
    let (found, closed) = find(&vfs, &config, &clock, checkpoint.now)?;
    let abort = config.path("abort");
    vfs.replace(&abort, std::process::id().to_string().as_bytes()).map_err(Error::io("write", &abort))?;
    clean_stop::remove(&*vfs, &config)?;
    agreed::remove(&*vfs, &config)?;
    let recovered = match closed {
        Some(closed) => recovery::resume(&clock, found, closed)?,
        None => recovery::recover(&config, &clock, &deleted, found)?,
    };
    let before = checkpoint.now;
    checkpoint.now.confirm_offset = recovered.last_record.0;
    checkpoint.now.index_timestamp = recovered.indexed;
    // What was cut must not be claimed: RocketMQ begins its recovery where the checkpoint says.
    let (place, stored) = recovered.last_record;
    checkpoint.now.physic_timestamp = checkpoint.now.physic_timestamp.min(stored);
    checkpoint.now.logics_timestamp = checkpoint.now.logics_timestamp.min(stored);
    checkpoint.now.logics_offset = checkpoint.now.logics_offset.min(place);
    checkpoint.now.durable_end = Some(recovered.log.durable_offset());
    if closed.is_none() || checkpoint.now != before {
        checkpoint.save()?;
    }

    let (log, table, index) = (recovered.log, Arc::new(recovered.table), Arc::new(recovered.index));
    let (shared, stats) = (Arc::new(ReputShared::default()), Arc::new(Stats::default()));
    let reput = Reput::new(Parts {
        log: Arc::clone(&log),
        table: Arc::clone(&table),
        index: Arc::clone(&index),
        projection: Projection::new(&config),
        deleted: Arc::clone(&deleted),
        shared: Arc::clone(&shared),
        stats: Arc::clone(&stats),
        from: log.max_offset(),
        last: recovered.last_record,
    });
    let upkeep = Upkeep {
        log: Arc::clone(&log),
        table: Arc::clone(&table),
        index: Arc::clone(&index),
        reput: Arc::clone(&shared),
        clock: Arc::clone(&clock),
        checkpoint,
        agreement: Agreement::new(Arc::clone(&vfs), Arc::clone(&config)),
        has_failed: false,
    };
    let retention = Arc::new(Retention {
        config: Arc::clone(&config),
        rules: Mutex::new(Arc::clone(&config)),
        vfs: Arc::clone(&vfs),
        clock: Arc::clone(&clock),
        log: Arc::clone(&log),
        table: Arc::clone(&table),
        index: Arc::clone(&index),
        deleted: Arc::clone(&deleted),
        reput: Arc::clone(&shared),
        disk: DiskState::default(),
    });
    let inner = Inner {
        limits: limits(&config),
        config,
        vfs,
        clock,
        store_host: STORE_HOST,
        turns: Arc::new(Turns::new(!log.is_sync_flush())),
        log,
        table,
        index,
        deleted,
        registry: Registry::default(),
        put: Mutex::new(Some(PutState::new(recovered.appender))),
        reput: shared,
        retention,
        stats,
        report: recovered.report,
        closing: AtomicBool::new(false),
        threads: Mutex::new(Threads::default()),
        lock: Mutex::new(Some(lock)),
    };
    Ok((Arc::new(inner), reput, upkeep))
}

/// What lies there, and where the log ends and its last record stands if nobody has touched the store since it was
/// closed.
fn find(
    vfs: &Arc<dyn Vfs>,
    config: &Config,
    clock: &Arc<dyn Clock>,
    checkpoint: Checkpoint,
) -> Result<(recovery::Found, Option<recovery::Closed>)> {
    let abort = config.path("abort");
    let aborted = vfs.stat(&abort).map_err(Error::io("stat", &abort))?.is_some();
    let log = commit_log::load(Arc::clone(vfs), config)?;
    let start =
        if aborted && !config.reads_all { agreed::start(&**vfs, config, &checkpoint, &log)? } else { None };
    let untouched = if aborted || config.reads_all {
        None
    } else {
        clean_stop::untouched(vfs, config, &checkpoint, &log)?
    };
    let mut aside = Vec::new();
    let (table, closed) = match untouched {
        Some(Untouched { table, closed }) => (table, Some(closed)),
        None => {
            if log.first_offset().is_none() {
                aside = without_log::set_aside(&**vfs, config, clock.now())?;
            }
            (QueueTable::load(Arc::clone(vfs), config)?, None)
        }
    };
    let index = IndexSet::load(Arc::clone(vfs), config, Arc::clone(clock))?;
    Ok((recovery::Found { log, table, index, checkpoint, aborted, start, aside }, closed))
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_message_size: config.max_message_size,
        auto_message_version: config.auto_message_version,
        append_prop_crc: config.append_prop_crc,
        segment_size: usize::try_from(config.commit_log_file_size).unwrap_or(usize::MAX),
    }
}

impl Inner {
    /// `stop` ends what works in the background and gives the upkeep back.
    pub(super) fn close(&self, stop: impl FnOnce() -> Option<Upkeep>) -> Result<()> {
        self.closing.store(true, Ordering::Release);
        let Some(state) = self.put.lock().take() else { return Ok(()) };
        let end = state.appender.next_offset();
        let synced = self.log.sync_to(end);
        let upkeep = stop();
        // A put that found the dispatcher at rest may only now come to its turn.
        self.turns.end();
        self.reput.forget_listeners();
        let put_down = synced.and_then(|()| {
            // A stepped store has its upkeep with the caller; its queues are then built again at the next open.
            let Some(mut upkeep) = upkeep else { return Ok(()) };
            upkeep.step(true)?;
            state.appender.close()?;
            if !upkeep.has_failed {
                clean_stop::leave(self);
            }
            // It counts while `abort` is there.
            agreed::remove(&*self.vfs, &self.config)?;
            let abort = self.config.path("abort");
            self.vfs.remove(&abort).map_err(Error::io("remove", &abort))?;
            self.vfs.sync_dir(&self.config.root).map_err(Error::io("sync", &self.config.root))
        });
        self.lock.lock().take();
        put_down
    }
}
