//! Deletes what is old or in the way, by RocketMQ's rules: `fileReservedTime` at the hours of `deleteWhen`, expired
//! segments at once over 75 % disk use, the oldest regardless over 85 %, and no puts over 90 % until there is room.
//!
//! [`decide`] is a pure function of what is there, so a dry run and the real run cannot differ. The newest segment
//! is never deleted. ConsumeQueues and IndexFiles follow the log. Whoever still reads a segment keeps it mapped.
//! Called by the store's retention thread, which rate-limits it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

use crate::{
    clock::Clock,
    commit_log::{CommitLog, SegmentInfo},
    config::Config,
    consume_queue::QueueTable,
    deleted::DeletedTopics,
    error::{Error, Result},
    index::IndexSet,
    reput::ReputShared,
    types::{PhysicalOffset, StoreTimestamp},
    vfs::{DiskUsage, Vfs},
};

/// Runs with RocketMQ's manual deletion that one request asks for.
const MANUAL_ROUNDS: u32 = 20;

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionReason {
    /// It is older than `fileReservedTime` and this is an hour of `deleteWhen`, or deletion was asked for.
    Expired,
    /// It is older than `fileReservedTime` and the disk is fuller than `diskMaxUsedSpaceRatio`.
    ExpiredAndDiskFilling,
    /// The disk is fuller than `diskSpaceCleanForciblyRatio`: the oldest goes whatever its age.
    DiskNearlyFull,
}

/// A segment that would be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Its first physical offset.
    pub base: PhysicalOffset,
    /// Its file.
    pub path: PathBuf,
    /// Its last write.
    pub modified: StoreTimestamp,
    /// Its bytes.
    pub bytes: u64,
    /// Why.
    pub reason: RetentionReason,
}

/// What a retention run would do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetentionPlan {
    /// The segments that would go in the next run, oldest first. Forced deletion stops as soon as enough is free.
    pub segments: Vec<Condemned>,
    /// Percent of the partition in use.
    pub disk_used_percent: f64,
    /// Whether puts are refused at this disk use.
    pub puts_refused: bool,
    /// Bytes that the segments would free.
    pub bytes: u64,
}

/// The moment that a decision is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: StoreTimestamp,
    /// Seconds that local time is ahead of UTC.
    pub(crate) utc_offset: i64,
    pub(crate) usage: DiskUsage,
    /// Whether deletion at any hour was asked for.
    pub(crate) manual: bool,
}

/// Which of `segments` (oldest first, the newest last) go now.
pub(crate) fn decide(config: &Config, segments: &[SegmentInfo], moment: Moment) -> RetentionPlan {
    let used = moment.usage.used_ratio() * 100.0;
    let over = |percent: u32| used > f64::from(percent);
    let forced = over(config.disk_clean_forcibly_percent.min(config.disk_warning_percent))
        && config.clean_file_forcibly;
    let filling = over(config.disk_max_used_percent);
    let hour = (moment.now.0.div_euclid(1000) + moment.utc_offset).rem_euclid(86_400) / 3_600;
    let due = moment.manual || config.delete_hours().iter().any(|h| i64::from(*h) == hour);
    let reserved = i64::try_from(config.file_reserved_hours).unwrap_or(i64::MAX).saturating_mul(3_600_000);

    let mut plan = RetentionPlan {
        disk_used_percent: used,
        puts_refused: over(config.disk_warning_percent),
        ..RetentionPlan::default()
    };
    let candidates = segments.len().saturating_sub(1).min(config.delete_batch_max);
    for segment in &segments[..candidates] {
        let expired = timestamp(segment.modified).0.saturating_add(reserved) <= moment.now.0;
        let reason = match (expired, forced) {
            (_, true) => RetentionReason::DiskNearlyFull,
            (true, _) if due => RetentionReason::Expired,
            (true, _) if filling => RetentionReason::ExpiredAndDiskFilling,
            _ => break,
        };
        plan.bytes += segment.len;
        let (base, path, modified) = (segment.base, segment.path.clone(), timestamp(segment.modified));
        plan.segments.push(Condemned { base, path, modified, bytes: segment.len, reason });
    }
    plan
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    pub(crate) segments: usize,
    pub(crate) queue_files: usize,
    pub(crate) index_files: usize,
}

/// Owns the rules' state: manual requests, the cut that queues have followed, and whether the disk is too full.
#[derive(Debug)]
pub(crate) struct Retention {
    pub(crate) config: Arc<Config>,
    /// What decisions go by: the configuration, but for the rules that were changed since.
    pub(crate) rules: Mutex<Arc<Config>>,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) table: Arc<QueueTable>,
    pub(crate) index: Arc<IndexSet>,
    pub(crate) deleted: Arc<DeletedTopics>,
    pub(crate) reput: Arc<ReputShared>,
    pub(crate) disk: DiskState,
}

/// How full the disk is, as the put path sees it.
#[derive(Debug, Default)]
pub(crate) struct DiskState {
    refused: AtomicBool,
    used_percent: AtomicU32,
    manual_rounds: AtomicU32,
    followed: AtomicU64,
    /// Segments went whose entries queues and index may still have.
    lags: AtomicBool,
}

impl DiskState {
    /// Percent in use when puts are refused.
    pub(crate) fn refused_at(&self) -> Option<u32> {
        self.refused.load(Ordering::Relaxed).then(|| self.used_percent.load(Ordering::Relaxed))
    }

    /// Whether queues and index know of every segment that went.
    pub(crate) fn is_followed(&self) -> bool {
        !self.lags.load(Ordering::Acquire)
    }

    /// Percent of the partition in use when last looked.
    pub(crate) fn used_percent(&self) -> u32 {
        self.used_percent.load(Ordering::Relaxed)
    }
}

impl Retention {
    /// What the next run would do; changes nothing.
    pub(crate) fn plan(&self) -> Result<RetentionPlan> {
        Ok(decide(
            &self.rules(),
            &self.log_segments()?,
            self.moment(self.disk.manual_rounds.load(Ordering::Relaxed) > 0)?,
        ))
    }

    fn rules(&self) -> Arc<Config> {
        Arc::clone(&self.rules.lock())
    }

    /// Takes over what says how old segments may get, when they go, and how full the disk may be until then.
    pub(crate) fn set_rules(&self, wanted: &Config) {
        let mut rules = self.rules.lock();
        let mut changed = Config::clone(&rules);
        changed.file_reserved_hours = wanted.file_reserved_hours;
        changed.delete_when.clone_from(&wanted.delete_when);
        changed.disk_max_used_percent = wanted.disk_max_used_percent;
        *rules = Arc::new(changed);
    }

    /// Makes the next runs delete expired segments whatever the hour.
    pub(crate) fn ask(&self) {
        self.disk.manual_rounds.store(MANUAL_ROUNDS, Ordering::Relaxed);
    }

    /// One run. Sleeps between files as configured.
    ///
    /// # Errors
    /// What kept a file from going; what went before stays gone, and the next run goes on.
    pub(crate) fn run(&self, stop: &AtomicBool) -> Result<Cleaned> {
        let manual = self.disk.manual_rounds.load(Ordering::Relaxed) > 0;
        let plan = decide(&self.rules(), &self.log_segments()?, self.moment(manual)?);
        self.note(&plan);
        let mut done = Cleaned::default();
        // Asked for before the queues are flushed: what they take in later may be in memory alone.
        let dispatched = self.reput.dispatched();
        let (needed, full) =
            if plan.segments.is_empty() { (dispatched, None) } else { self.keep_numbers(dispatched)? };
        for (n, condemned) in plan.segments.iter().enumerate() {
            // What no queue has taken in yet must stay: its numbers stand nowhere else.
            let end = condemned.base.plus(usize::try_from(condemned.bytes).unwrap_or(usize::MAX));
            if stop.load(Ordering::Relaxed) || end > needed {
                break;
            }
            let forced = condemned.reason == RetentionReason::DiskNearlyFull;
            if n > 0 {
                self.clock.sleep(Duration::from_millis(self.config.delete_commit_log_interval_ms));
                if forced && !self.still_forced()? {
                    break;
                }
            }
            self.disk.lags.store(true, Ordering::Release);
            if self.log.remove_oldest()?.is_some_and(|gone| gone.base == condemned.base) {
                done.segments += 1;
            }
        }
        if manual {
            self.disk.manual_rounds.fetch_sub(1, Ordering::Relaxed);
        }
        self.follow(&mut done)?;
        if done.segments > 0 {
            self.note(&decide(&self.rules(), &self.log_segments()?, self.moment(false)?));
        }
        match full {
            // Nothing could go, and nothing will until there is space for the queues.
            Some(full) if done.segments == 0 => Err(full),
            _ => Ok(done),
        }
    }

    /// Brings the queues to the disk. How far a queue counts stands in its last entry and in the log; when the log
    /// forgets, the entry must be durable, or the queue would begin again at 0 after a power cut. Returns where the log
    /// may begin then, at `dispatched` at the latest, and what kept a queue from the disk.
    fn keep_numbers(&self, dispatched: PhysicalOffset) -> Result<(PhysicalOffset, Option<Error>)> {
        match self.table.flush_step(self.clock.monotonic(), true) {
            Ok(_) => Ok((dispatched, None)),
            // Segments go so that there is space again, but for those with the numbers of what could not be written.
            Err(full @ Error::NoSpace { .. }) => {
                Ok((dispatched.min(self.table.needs_log_from()), Some(full)))
            }
            Err(other) => Err(other),
        }
    }

    fn still_forced(&self) -> Result<bool> {
        let plan = decide(&self.rules(), &self.log_segments()?, self.moment(false)?);
        Ok(plan.segments.first().is_some_and(|next| next.reason == RetentionReason::DiskNearlyFull))
    }

    fn note(&self, plan: &RetentionPlan) {
        self.disk.refused.store(plan.puts_refused, Ordering::Relaxed);
        // A share of 0 to 100, so it always fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.disk.used_percent.store(plan.disk_used_percent as u32, Ordering::Relaxed);
    }

    /// Lets queues and index forget what the log no longer holds.
    fn follow(&self, done: &mut Cleaned) -> Result<()> {
        let oldest = self.log.min_offset();
        let mark = u64::try_from(oldest.0).unwrap_or(0);
        if self.disk.followed.load(Ordering::Relaxed) == mark {
            self.disk.lags.store(false, Ordering::Release);
            return Ok(());
        }
        let pause = Duration::from_millis(self.config.delete_consume_queue_interval_ms);
        for queue in self.table.queues() {
            loop {
                let gone = queue.delete_before(oldest, 1)?;
                done.queue_files += gone;
                if gone == 0 {
                    break;
                }
                self.clock.sleep(pause);
            }
            queue.correct_min_offset(oldest)?;
        }
        done.index_files = self.index.delete_before(oldest)?;
        self.deleted.forget_below(oldest)?;
        self.disk.followed.store(mark, Ordering::Relaxed);
        self.disk.lags.store(false, Ordering::Release);
        Ok(())
    }

    fn moment(&self, manual: bool) -> Result<Moment> {
        let now = self.clock.now();
        let usage_of = |path: PathBuf| self.vfs.usage(&path).map_err(Error::io("ask the disk use of", path));
        let (log, root) = (usage_of(self.config.commit_log_path())?, usage_of(self.config.root.clone())?);
        let usage = if log.used_ratio() >= root.used_ratio() { log } else { root };
        Ok(Moment { now, utc_offset: self.clock.utc_offset(now), usage, manual })
    }

    fn log_segments(&self) -> Result<Vec<SegmentInfo>> {
        self.log.segments_info()
    }
}

fn timestamp(at: SystemTime) -> StoreTimestamp {
    let ms = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    StoreTimestamp(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 1_000 * 24 * HOUR;

    fn segments(ages_hours: &[i64]) -> Vec<SegmentInfo> {
        let one = |(n, age): (usize, &i64)| SegmentInfo {
            base: PhysicalOffset(n as i64 * 1000),
            path: format!("{n}").into(),
            modified: UNIX_EPOCH + Duration::from_millis(u64::try_from(NOW - age * HOUR).unwrap()),
            len: 1000,
        };
        ages_hours.iter().enumerate().map(one).collect()
    }

    fn moment(hour: i64, used_percent: u64) -> Moment {
        let usage = DiskUsage { total: 100, free: 100 - used_percent };
        Moment { now: StoreTimestamp(NOW + hour * HOUR), utc_offset: 0, usage, manual: false }
    }

    fn gone(ages: &[i64], moment: Moment) -> Vec<(i64, RetentionReason)> {
        let plan = decide(&Config::new("/x"), &segments(ages), moment);
        plan.segments.iter().map(|s| (s.base.0 / 1000, s.reason)).collect()
    }

    #[test]
    fn expired_segments_go_at_four_and_at_no_other_hour() {
        let ages = [200, 100, 73, 10, 0];
        let all = [0, 1, 2].map(|n| (n, RetentionReason::Expired));
        assert_eq!(gone(&ages, moment(4, 10)), all);
        assert_eq!(gone(&ages, moment(5, 10)), []);
        let local = Moment { utc_offset: 3 * 3600, ..moment(1, 10) };
        assert_eq!(gone(&ages, local), all, "04:00 is local time");
        assert_eq!(gone(&ages, Moment { manual: true, ..moment(5, 10) }), all);
    }

    #[test]
    fn a_young_segment_shields_the_older_looking_ones_behind_it() {
        assert_eq!(gone(&[10, 200, 200, 0], moment(4, 10)), []);
    }

    #[test]
    fn the_newest_segment_never_goes() {
        assert_eq!(gone(&[500], moment(4, 99)), []);
        assert_eq!(gone(&[500, 500], moment(4, 99)).len(), 1);
    }

    #[test]
    fn disk_use_decides_by_its_three_steps() {
        let ages = [100, 1, 0];
        assert_eq!(gone(&ages, moment(12, 75)), [], "75 % itself is not over");
        assert_eq!(gone(&ages, moment(12, 76)), [(0, RetentionReason::ExpiredAndDiskFilling)]);
        let forced = [0, 1].map(|n| (n, RetentionReason::DiskNearlyFull));
        assert_eq!(gone(&ages, moment(12, 86)), forced);
        let plan = |used| decide(&Config::new("/x"), &segments(&ages), moment(12, used));
        assert!(!plan(90).puts_refused && plan(91).puts_refused);
    }

    #[test]
    fn nothing_young_goes_when_forced_cleaning_is_off() {
        let config = Config::new("/x").clean_file_forcibly(false);
        let plan = decide(&config, &segments(&[100, 1, 0]), moment(12, 95));
        assert_eq!(plan.segments.len(), 1);
        assert!(plan.puts_refused);
    }

    #[test]
    fn one_run_deletes_no_more_than_the_batch() {
        assert_eq!(gone(&[100; 30], moment(4, 10)).len(), 10);
    }
}
