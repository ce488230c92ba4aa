//! Configuration of the store: RocketMQ's own keys and defaults in one table.
//!
//! Every option can be set by its builder method or, as in a `broker.conf`, by RocketMQ's key ([`Config::set`]).

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::{
    error::{Error, Result},
    types::PhysicalOffset,
};

/// When an acknowledged message is on the disk: `flushDiskType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushDiskType {
    /// Acknowledged when in the page cache: survives `kill -9`, not a power cut.
    #[default]
    Async,
    /// Acknowledged when synced: survives a power cut.
    Sync,
}

impl FromStr for FlushDiskType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ASYNC_FLUSH" => Ok(Self::Async),
            "SYNC_FLUSH" => Ok(Self::Sync),
            _ => Err("allowed are ASYNC_FLUSH and SYNC_FLUSH"),
        }
    }
}

impl fmt::Display for FlushDiskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async => "ASYNC_FLUSH",
            Self::Sync => "SYNC_FLUSH",
        })
    }
}

/// A type that an option can have: how it is read and what bounds are said to the user.
trait Value: Sized + fmt::Display {
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integer_value {
    ($($int:ty),*) => {$(
        impl Value for $int {
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("a whole number from {} to {} is needed", <$int>::MIN, <$int>::MAX))
            }
        }
    )*};
}
integer_value!(u32, u64, usize);

impl Value for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("allowed are true and false".into()),
        }
    }
}

impl Value for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
}

impl Value for FlushDiskType {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(str::to_owned)
    }
}

macro_rules! options {
    ($( $(#[$doc:meta])* $key:literal $name:ident : $type:ty = $default:expr $(, $min:literal ..= $max:expr)? ;)*) => {
        /// What a store is opened with.
        ///
        /// ```
        /// use reput::{Config, FlushDiskType};
        /// let mut config = Config::new("/var/lib/rmq/store").flush_disk_type(FlushDiskType::Sync);
        /// config.set("fileReservedTime", "48")?;
        /// assert_eq!(config.file_reserved_hours, 48);
        /// # Ok::<(), reput::Error>(())
        /// ```
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Config {
            /// `storePathRootDir`: the store's directory.
            pub root: PathBuf,
            /// `storePathCommitLog`: the log's directory when it is not `commitlog` below the root.
            pub commit_log_dir: Option<PathBuf>,
            /// Files of another length are damaged, whatever the other files look like: somebody has said so.
            pub(crate) sizes_are_certain: bool,
            /// Recovery reads everything, also where a file proves that it need not.
            pub(crate) reads_all: bool,
            /// Where recovery says how far it is.
            pub(crate) reached: Reached,
            $( $(#[$doc])* #[doc = ""] #[doc = concat!("RocketMQ's `", $key, "`.")] pub $name: $type, )*
        }

        impl Config {
            /// The defaults of RocketMQ over the store in `root`.
            #[must_use]
            pub fn new(root: impl Into<PathBuf>) -> Self {
                Self {
                    root: root.into(),
                    commit_log_dir: None,
                    sizes_are_certain: false,
                    reads_all: false,
                    reached: Reached::default(),
                    $( $name: $default, )*
                }
            }

            /// Every key that [`Config::set`] understands.
            pub const KEYS: &'static [&'static str] = &["storePathRootDir", "storePathCommitLog", $($key),*];

            /// Sets an option by RocketMQ's key. `Ok(false)` when the key is not one of the store's.
            ///
            /// # Errors
            /// [`Error::Config`] when the value cannot be used; it says what is allowed.
            pub fn set(&mut self, key: &str, value: &str) -> Result<bool> {
                let bad = |why: String| Error::Config { key: key.into(), value: value.into(), why };
                match key {
                    "storePathRootDir" => self.root = value.into(),
                    "storePathCommitLog" => self.commit_log_dir = Some(value.into()),
                    $( $key => {
                        let read = <$type as Value>::read(value).map_err(bad)?;
                        $( if !($min..=$max).contains(&read) {
                            return Err(bad(format!("allowed is {} to {}", $min, $max)));
                        } )?
                        self.$name = read;
                    } )*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            /// The value of an option by RocketMQ's key, as [`Config::set`] would read it.
            #[must_use]
            pub fn get(&self, key: &str) -> Option<String> {
                match key {
                    "storePathRootDir" => Some(self.root.display().to_string()),
                    "storePathCommitLog" => Some(self.commit_log_path().display().to_string()),
                    $( $key => Some(self.$name.show()), )*
                    _ => None,
                }
            }

            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("RocketMQ's `", $key, "`.")]
                #[must_use]
                pub fn $name(mut self, $name: impl Into<$type>) -> Self {
                    self.$name = $name.into();
                    self
                }
            )*
        }
    };
}

options! {
    /// Bytes of one CommitLog segment.
    "mappedFileSizeCommitLog" commit_log_file_size: u64 = 1 << 30, 4096..=0x7fff_ffff;
    /// Bytes of one ConsumeQueue file; rounded up to whole entries of 20.
    "mappedFileSizeConsumeQueue" consume_queue_file_size: u64 = 300_000 * 20, 20..=0x7fff_ffff;
    /// Bytes of one ConsumeQueueExt file.
    "mappedFileSizeConsumeQueueExt" consume_queue_ext_file_size: u64 = 48 << 20, 64..=0x7fff_ffff;
    /// Bytes of one BatchConsumeQueue file; rounded up to whole entries of 46.
    "mapperFileSizeBatchConsumeQueue" batch_consume_queue_file_size: u64 = 300_000 * 46, 46..=0x7fff_ffff;
    /// Hash slots of an IndexFile.
    "maxHashSlotNum" index_slots: u32 = 5_000_000, 1..=0x1000_0000;
    /// Entry numbers of an IndexFile; it holds one entry less.
    "maxIndexNum" index_entries: u32 = 20_000_000, 2..=0x0600_0000;
    /// Whether messages are indexed by key.
    "messageIndexEnable" message_index: bool = true;
    /// Whether a put waits for the disk.
    "flushDiskType" flush_disk_type: FlushDiskType = FlushDiskType::Async;
    /// Milliseconds that a synchronous put waits for the disk before it reports FLUSH_DISK_TIMEOUT.
    "syncFlushTimeout" sync_flush_timeout_ms: u64 = 5_000;
    /// Milliseconds between flushes of the log in asynchronous mode.
    "flushIntervalCommitLog" flush_commit_log_interval_ms: u64 = 500, 1..=86_400_000;
    /// Dirty pages of 4 KiB that make a periodic flush of the log worth doing.
    "flushCommitLogLeastPages" flush_commit_log_least_pages: u64 = 4;
    /// Milliseconds after which any dirty byte of the log is flushed.
    "flushCommitLogThoroughInterval" flush_commit_log_thorough_interval_ms: u64 = 10_000, 1..=86_400_000;
    /// Milliseconds between flushes of the ConsumeQueues.
    "flushIntervalConsumeQueue" flush_consume_queue_interval_ms: u64 = 1_000, 1..=86_400_000;
    /// Dirty pages of 4 KiB that make a periodic flush of a ConsumeQueue worth doing.
    "flushConsumeQueueLeastPages" flush_consume_queue_least_pages: u64 = 2;
    /// Milliseconds after which any dirty byte of the ConsumeQueues is flushed.
    "flushConsumeQueueThoroughInterval" flush_consume_queue_thorough_interval_ms: u64 = 60_000, 1..=86_400_000;
    /// The longest body in bytes.
    "maxMessageSize" max_message_size: usize = 4 << 20, 1..=0x4000_0000;
    /// Whether topics over 127 bytes are written as version 2 records; they are refused otherwise.
    "autoMessageVersionOnTopicLen" auto_message_version: bool = true;
    /// Whether each record ends with a checksum of all its bytes, kept as the property `__CRC32#`.
    "enabledAppendPropCRC" append_prop_crc: bool = false;
    /// Whether recovery demands that checksum where it is present.
    "forceVerifyPropCRC" force_verify_prop_crc: bool = false;
    /// Whether recovery checks body checksums.
    "checkCRCOnRecover" check_crc_on_recover: bool = true;
    /// Whether ConsumeQueueExt files are written.
    "enableConsumeQueueExt" consume_queue_ext: bool = false;
    /// Bits of the filter bitmap in a ConsumeQueueExt unit.
    "bitMapLengthConsumeQueueExt" ext_bitmap_bits: usize = 64, 0..=262_000;
    /// Whether `%LMQ%` queues exist.
    "enableLmq" lmq: bool = false;
    /// Whether a message is also dispatched into the queues that its INNER_MULTI_DISPATCH names.
    "enableMultiDispatch" multi_dispatch: bool = false;
    /// The greatest number of `%LMQ%` queues.
    "maxLmqConsumeQueueNum" max_lmq_queues: usize = 20_000;
    /// Hours that a segment is kept after its last write.
    "fileReservedTime" file_reserved_hours: u64 = 72, 0..=8_760_000;
    /// Hours of the day, local time, separated by `;`, in which expired segments are deleted.
    "deleteWhen" delete_when: String = "04".to_owned();
    /// Percent of the disk in use above which expired segments are deleted at any hour.
    "diskMaxUsedSpaceRatio" disk_max_used_percent: u32 = 75, 10..=95;
    /// Percent of the disk in use above which the oldest segments are deleted whatever their age.
    "diskSpaceCleanForciblyRatio" disk_clean_forcibly_percent: u32 = 85, 1..=100;
    /// Percent of the disk in use above which puts are refused.
    "diskSpaceWarningLevelRatio" disk_warning_percent: u32 = 90, 1..=100;
    /// Whether segments may be deleted before their time when the disk fills.
    "cleanFileForciblyEnable" clean_file_forcibly: bool = true;
    /// Milliseconds between retention runs.
    "cleanResourceInterval" clean_resource_interval_ms: u64 = 10_000, 1..=86_400_000;
    /// Milliseconds between the deletion of two segments.
    "deleteCommitLogFilesInterval" delete_commit_log_interval_ms: u64 = 100, 0..=3_600_000;
    /// Milliseconds between the deletion of two ConsumeQueue files.
    "deleteConsumeQueueFilesInterval" delete_consume_queue_interval_ms: u64 = 100, 0..=3_600_000;
    /// Segments that one retention run deletes at most.
    "deleteFileBatchMax" delete_batch_max: usize = 10, 1..=1_000_000;
    /// Messages that one query by key returns at most.
    "maxMsgsNumBatch" max_query_messages: usize = 64, 1..=100_000;
    /// Delays of the levels 1, 2, …, as numbers with `s`, `m`, `h` or `d`.
    "messageDelayLevel" delay_levels: String = DELAY_LEVELS.to_owned();
    /// Files kept mapped by the ConsumeQueues together, but no more than half of those that the process may have open;
    /// the least recently used are unmapped.
    "maxMappedConsumeQueueFiles" max_mapped_consume_queue_files: usize = 16_384, 1..=60_000;
}

/// RocketMQ's 18 delay levels.
pub const DELAY_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";

/// The place in the log that recovery has come to, for whoever waits for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached(Arc<AtomicI64>);

impl Reached {
    /// Everything below is read.
    pub(crate) fn set(&self, at: PhysicalOffset) {
        self.0.store(at.0, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> PhysicalOffset {
        PhysicalOffset(self.0.load(Ordering::Relaxed))
    }
}

impl Config {
    /// Says whether the configured file sizes are known to be right. Without that word, files that are too short while
    /// none of their kind has the configured size are taken for those of another configuration, and refused.
    #[must_use]
    pub fn sizes_are_certain(mut self, certain: bool) -> Self {
        self.sizes_are_certain = certain;
        self
    }

    /// The directory of the CommitLog.
    #[must_use]
    pub fn commit_log_path(&self) -> PathBuf {
        self.commit_log_dir.clone().unwrap_or_else(|| self.root.join("commitlog"))
    }

    /// A file or directory below the store's root.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Bytes of a ConsumeQueue file in whole entries.
    #[must_use]
    pub fn consume_queue_bytes(&self) -> u64 {
        self.consume_queue_file_size.div_ceil(20) * 20
    }

    /// Bytes of a BatchConsumeQueue file in whole entries.
    #[must_use]
    pub fn batch_consume_queue_bytes(&self) -> u64 {
        self.batch_consume_queue_file_size.div_ceil(46) * 46
    }

    /// Checks what no single option shows.
    ///
    /// # Errors
    /// [`Error::Config`] with the key to change.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, why: &str| {
            Err(Error::Config { key: key.into(), value: self.get(key).unwrap_or_default(), why: why.into() })
        };
        if parse_delay_levels(&self.delay_levels).is_none() {
            return bad("messageDelayLevel", "needed are numbers with s, m, h or d, separated by spaces");
        }
        if parse_hours(&self.delete_when).is_none() {
            return bad("deleteWhen", "needed are hours from 00 to 23, separated by ;");
        }
        Ok(())
    }

    /// Milliseconds of each delay level, the first being level 1. Empty when `messageDelayLevel` is not readable;
    /// [`Config::validate`] tells.
    #[must_use]
    pub fn delay_levels_ms(&self) -> Vec<i64> {
        parse_delay_levels(&self.delay_levels).unwrap_or_default()
    }

    /// The hours of `deleteWhen`.
    #[must_use]
    pub fn delete_hours(&self) -> Vec<u32> {
        parse_hours(&self.delete_when).unwrap_or_default()
    }
}

fn parse_delay_levels(text: &str) -> Option<Vec<i64>> {
    text.split_whitespace()
        .map(|level| {
            let unit = match level.as_bytes().last()? {
                b's' => 1_000,
                b'm' => 60_000,
                b'h' => 3_600_000,
                b'd' => 86_400_000,
                _ => return None,
            };
            let count: i64 = level.get(..level.len() - 1)?.parse().ok().filter(|n| *n >= 0)?;
            count.checked_mul(unit)
        })
        .collect()
}

fn parse_hours(text: &str) -> Option<Vec<u32>> {
    text.split(';')
        .map(str::trim)
        .filter(|hour| !hour.is_empty())
        .map(|hour| hour.parse().ok().filter(|h| *h < 24))
        .collect()
}

/// Reads the text of a Java properties file, such as a `broker.conf`: `key=value` lines, `#` and `!` comments,
/// `:` or blanks as separators, a backslash at the end of a line to continue it, `\uXXXX` and the usual escapes.
///
/// ```
/// let pairs = reput::parse_properties("# a broker\nbrokerName=broker-a\nlistenPort : 10911\n");
/// assert_eq!(pairs, [("brokerName".to_owned(), "broker-a".to_owned()), ("listenPort".into(), "10911".into())]);
/// ```
#[must_use]
pub fn parse_properties(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(first) = lines.next() {
        let mut line = first.trim_start().to_owned();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        while ends_with_odd_backslashes(&line) {
            line.pop();
            match lines.next() {
                Some(next) => line.push_str(next.trim_start()),
                None => break,
            }
        }
        pairs.push(split_pair(&line));
    }
    pairs
}

fn ends_with_odd_backslashes(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

fn split_pair(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let hit = !escaped && (c == '=' || c == ':' || c.is_whitespace());
        escaped = !escaped && c == '\\';
        hit
    });
    let Some(end) = end else { return (unescape(line), String::new()) };
    let rest = line[end..].trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
    (unescape(&line[..end]), unescape(value.trim_end()))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('u') => {
                let hex: String = chars.by_ref().take(4).collect();
                out.push(u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back_what_was_set() {
        let mut config = Config::new("/x");
        for key in Config::KEYS {
            let value = config.get(key).unwrap();
            assert!(config.set(key, &value).unwrap(), "{key}");
            assert_eq!(config.get(key).as_deref(), Some(value.as_str()), "{key}");
        }
        assert!(!config.set("noSuchKey", "1").unwrap());
    }

    #[test]
    fn a_bad_value_says_what_is_allowed_and_changes_nothing() {
        let mut config = Config::new("/x");
        for (key, value, hint) in [
            ("flushDiskType", "SOMETIMES", "SYNC_FLUSH"),
            ("mappedFileSizeCommitLog", "-1", "whole number"),
            ("mappedFileSizeCommitLog", "17", "4096"),
            ("messageIndexEnable", "yes", "true and false"),
        ] {
            let before = config.get(key);
            let error = config.set(key, value).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains(key), "{error}");
            assert_eq!(config.get(key), before);
        }
    }

    #[test]
    fn delay_levels_and_hours_are_those_of_rocketmq() {
        let config = Config::new("/x");
        let levels = config.delay_levels_ms();
        assert_eq!((levels.len(), levels[0], levels[17]), (18, 1_000, 7_200_000));
        assert_eq!(config.delete_hours(), [4]);
        assert!(Config::new("/x").delete_when("25").validate().is_err());
        assert!(Config::new("/x").delay_levels("1s 2x").validate().is_err());
    }

    #[test]
    fn properties_files_are_read_as_java_reads_them() {
        let text = "a=1\n  b : two words  \nc\\ d=x\\\n   y\n! no\n\n#no=1\nempty=\nu=\\u0041\nsp value\n";
        let want =
            [("a", "1"), ("b", "two words"), ("c d", "xy"), ("empty", ""), ("u", "A"), ("sp", "value")];
        let got = parse_properties(text);
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
