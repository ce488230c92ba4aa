//! The `cleanStop` file: how every file of a store stood when the store was closed. FORMAT.md, "cleanStop".
//!
//! Lines of words, the last one a checksum of the others: what does not read back whole says nothing at all. Callers:
//! the store at close and at open.

use std::fmt::Write as _;

use super::stamped::{lines, sealed, stamp, stamp_text, word};
use crate::types::{FileStamp, PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, TopicName};

/// The first line.
const TITLE: &str = "reput cleanStop 1";
/// Before a queue's topic, which may hold blanks and ends its line.
const TOPIC: &str = " topic ";

/// A store at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanStop {
    /// The options that decide what the files hold, in one line.
    pub settings: String,
    /// The start of the oldest segment.
    pub begin: PhysicalOffset,
    /// Behind the last record.
    pub end: PhysicalOffset,
    /// The start of the last record.
    pub last_record: PhysicalOffset,
    /// When it was stored.
    pub last_timestamp: StoreTimestamp,
    /// The segments, oldest first.
    pub segments: Vec<FileStamp>,
    /// Directories in which a name may come or go; `None` for one that is not there.
    pub directories: Vec<(String, Option<FileStamp>)>,
    /// The index files by name.
    pub index: Vec<(String, FileStamp)>,
    /// The queues that have files.
    pub queues: Vec<QueueAtRest>,
}

/// A queue whose entries are all in its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAtRest {
    /// Its topic.
    pub topic: TopicName,
    /// Its number.
    pub id: QueueId,
    /// Whether it counts inner batches.
    pub batch: bool,
    /// The number of the first entry whose record is in the log.
    pub min: u64,
    /// The queue offset of that entry.
    pub min_offset: QueueOffset,
    /// The bytes of the last entry; none when there is none.
    pub last: Vec<u8>,
    /// The entries' files.
    pub run: RunAtRest,
    /// Those of its ConsumeQueueExt units.
    pub ext: Option<RunAtRest>,
}

/// A run of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunAtRest {
    /// The first byte of the first file.
    pub first: u64,
    /// Behind the last byte written.
    pub end: u64,
    /// The files, oldest first.
    pub files: Vec<FileStamp>,
}

impl CleanStop {
    /// The whole file.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\nsettings {}\n", self.settings);
        let (begin, end, last) = (self.begin, self.end, self.last_record);
        // Writing into a string never fails.
        let _ = writeln!(text, "log {begin} {end} {last} {}", self.last_timestamp);
        for stamp in &self.segments {
            let _ = writeln!(text, "segment {}", stamp_text(stamp));
        }
        for (name, stamp) in &self.directories {
            let _ = writeln!(text, "directory {name} {}", stamp.as_ref().map_or("-".into(), stamp_text));
        }
        for (name, stamp) in &self.index {
            let _ = writeln!(text, "index {name} {}", stamp_text(stamp));
        }
        for queue in &self.queues {
            queue.encode(&mut text);
        }
        sealed(text)
    }

    /// Reads the file; `None` unless it is whole.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = lines(bytes, TITLE)?;
        let settings = lines.next()?.strip_prefix("settings ")?.to_owned();
        let mut log = lines.next()?.strip_prefix("log ")?.split(' ');
        let (begin, end) = (PhysicalOffset(word(&mut log)?), PhysicalOffset(word(&mut log)?));
        let (last_record, last_timestamp) =
            (PhysicalOffset(word(&mut log)?), StoreTimestamp(word(&mut log)?));
        let (segments, directories, index, queues) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        let mut read =
            Self { settings, begin, end, last_record, last_timestamp, segments, directories, index, queues };
        lines.try_for_each(|line| read.line(line))?;
        Some(read)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "segment" => self.segments.push(stamp(rest)?),
            "directory" => {
                let (name, text) = rest.split_once(' ')?;
                let known = if text == "-" { None } else { Some(stamp(text)?) };
                self.directories.push((name.into(), known));
            }
            "index" => {
                let (name, text) = rest.split_once(' ')?;
                self.index.push((name.into(), stamp(text)?));
            }
            "queue" => self.queues.push(QueueAtRest::decode(rest)?),
            _ => return None,
        }
        Some(())
    }
}

impl QueueAtRest {
    fn encode(&self, text: &mut String) {
        let kind = if self.batch { "batch" } else { "simple" };
        let _ = write!(text, "queue {kind} {} {} {} ", self.id, self.min, self.min_offset);
        if self.last.is_empty() {
            text.push('-');
        }
        for byte in &self.last {
            let _ = write!(text, "{byte:02x}");
        }
        for run in std::iter::once(&self.run).chain(&self.ext) {
            let _ = write!(text, " {} {} {}", run.first, run.end, run.files.len());
            for stamp in &run.files {
                let _ = write!(text, " {}", stamp_text(stamp));
            }
        }
        let _ = writeln!(text, "{TOPIC}{}", self.topic);
    }

    fn decode(line: &str) -> Option<Self> {
        // The words before the topic are numbers: the first place is the right one.
        let (words, topic) = line.split_once(TOPIC)?;
        let mut words = words.split(' ').peekable();
        let batch = match words.next()? {
            "batch" => true,
            "simple" => false,
            _ => return None,
        };
        let (id, min) = (QueueId(word(&mut words)?), word(&mut words)?);
        let min_offset = QueueOffset(word(&mut words)?);
        let last = match words.next()? {
            "-" => Vec::new(),
            hex => bytes_of(hex)?,
        };
        let run = RunAtRest::decode(&mut words)?;
        let ext = if words.peek().is_some() { Some(RunAtRest::decode(&mut words)?) } else { None };
        if words.next().is_some() {
            return None;
        }
        Some(Self { topic: TopicName::new(topic).ok()?, id, batch, min, min_offset, last, run, ext })
    }
}

impl RunAtRest {
    fn decode<'t>(words: &mut impl Iterator<Item = &'t str>) -> Option<Self> {
        let (first, end, count) = (word(words)?, word(words)?, word::<usize>(words)?);
        // Collected one by one: nothing is allocated by a number in the file.
        let files = words.take(count).map(stamp).collect::<Option<Vec<_>>>()?;
        (files.len() == count).then_some(Self { first, end, files })
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.0.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect::<Option<Vec<_>>>().filter(|_| pairs.1.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::stamped::CHECKSUM;

    const fn stamped(inode: u64) -> FileStamp {
        FileStamp { inode, len: 6_000_000, changed: -7 }
    }

    fn whole() -> CleanStop {
        let run =
            |first, count| RunAtRest { first, end: first + 40, files: (0..count).map(stamped).collect() };
        let queue = |topic: &str, batch| QueueAtRest {
            topic: TopicName::new(topic).unwrap(),
            id: QueueId(3),
            batch,
            min: 1,
            min_offset: QueueOffset(17),
            last: if batch { vec![0, 0x9a, 0xff] } else { Vec::new() },
            run: run(6_000_000, 2),
            ext: batch.then(|| run(0, 1)),
        };
        CleanStop {
            settings: "[\"1\", \"2\"]".into(),
            begin: PhysicalOffset(4096),
            end: PhysicalOffset(9000),
            last_record: PhysicalOffset(8800),
            last_timestamp: StoreTimestamp(1_795_240_627_391),
            segments: vec![stamped(9), stamped(u64::MAX)],
            directories: vec![("consumequeue".into(), Some(stamped(1))), ("batchconsumequeue".into(), None)],
            index: vec![("20261121055707417".into(), stamped(5))],
            queues: vec![queue("orders", false), queue("a topic of topic words", true)],
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let whole = whole();
        assert_eq!(CleanStop::decode(whole.encode().as_bytes()), Some(whole));
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_says_nothing() {
        let text = whole().encode();
        for len in 0..text.len() {
            assert_eq!(CleanStop::decode(&text.as_bytes()[..len]), None, "cut to {len}");
            let mut changed = text.clone().into_bytes();
            changed[len] ^= 1;
            assert_eq!(CleanStop::decode(&changed), None, "changed at {len}");
        }
        assert_eq!(CleanStop::decode(format!("{text}\n").as_bytes()), None);
    }

    #[test]
    fn words_that_cannot_be_are_refused_though_the_checksum_is_right() {
        let text = whole().encode();
        let body = text.rsplit_once(CHECKSUM).unwrap().0;
        for (from, to) in [
            ("reput cleanStop 1", "reput cleanStop 2"),
            ("queue simple 3", "queue simple x"),
            ("queue simple", "queue odd"),
            (" 2 0.6000000.-7", " 3 0.6000000.-7"),
            (" 2 0.6000000.-7", " 18446744073709551615 0.6000000.-7"),
            ("topic orders", "topic ../orders"),
            ("009aff", "009af"),
            ("segment 9.6000000.-7", "segment 9.6000000"),
            ("segment 9.6000000.-7", "segment 9.6000000.-7.1"),
        ] {
            let mut bad = body.replacen(from, to, 1);
            assert_ne!(bad, body, "{from}");
            let sum = crc32fast::hash(bad.as_bytes());
            let _ = writeln!(bad, "{CHECKSUM}{sum:08x}");
            assert_eq!(CleanStop::decode(bad.as_bytes()), None, "{to}");
        }
    }
}
