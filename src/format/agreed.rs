//! The `agreed` file: how every file of a store stood when all before one segment was on the disk, in the log, in the
//! queues and in the index. FORMAT.md, "agreed".
//!
//! Callers: the store while it runs, and at open.

use std::fmt::Write as _;

use super::stamped::{lines, sealed, stamp, stamp_text, word};
use crate::types::{FileStamp, PhysicalOffset};

/// The first line.
const TITLE: &str = "reput agreed 1";

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The options that decide what the files hold, in one line.
    pub settings: String,
    /// The start of the segment behind all that was agreed.
    pub from: PhysicalOffset,
    /// The index file in which the keys of all before end, and the number of the entry behind them; none without any.
    pub keys: Option<(String, u32)>,
    /// The files that hold any of it, and `abort`.
    pub files: Vec<AgreedFile>,
}

/// One of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedFile {
    /// Its path below the store's directory.
    pub path: String,
    /// Its stamp.
    pub stamp: FileStamp,
    /// Whether nobody writes to it any more: its stamp stays what it was.
    pub finished: bool,
}

impl AgreedFile {
    /// Whether a file with this stamp is the same, and holds what it held as far as a stamp can say.
    #[must_use]
    pub fn is(&self, now: &FileStamp) -> bool {
        let same_file = self.stamp.inode == now.inode && self.stamp.len <= now.len;
        if self.finished { self.stamp == *now } else { same_file }
    }
}

impl Agreed {
    /// The whole file.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\nsettings {}\nfrom {}\nkeys ", self.settings, self.from);
        // Writing into a string never fails.
        let _ = match &self.keys {
            Some((name, entry)) => writeln!(text, "{entry} {name}"),
            None => writeln!(text, "-"),
        };
        for file in &self.files {
            let kind = if file.finished { "finished" } else { "open" };
            // The path comes last: it may hold blanks.
            let _ = writeln!(text, "{kind} {} {}", stamp_text(&file.stamp), file.path);
        }
        sealed(text)
    }

    /// Reads the file; `None` unless it is whole.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = lines(bytes, TITLE)?;
        let settings = lines.next()?.strip_prefix("settings ")?.to_owned();
        let from = PhysicalOffset(word(&mut lines.next()?.strip_prefix("from ")?.split(' '))?);
        let keys = match lines.next()?.strip_prefix("keys ")? {
            "-" => None,
            words => {
                let mut words = words.splitn(2, ' ');
                let entry = word(&mut words)?;
                Some((words.next()?.to_owned(), entry))
            }
        };
        let files = lines.map(|line| {
            let mut words = line.splitn(3, ' ');
            let finished = match words.next()? {
                "finished" => true,
                "open" => false,
                _ => return None,
            };
            let (stamp, path) = (stamp(words.next()?)?, words.next()?.to_owned());
            Some(AgreedFile { path, stamp, finished })
        });
        Some(Self { settings, from, keys, files: files.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Agreed {
        let file = |path: &str, inode, finished| AgreedFile {
            path: path.into(),
            stamp: FileStamp { inode, len: 6_000_000, changed: -7 },
            finished,
        };
        Agreed {
            settings: "[\"1\", \"2\"]".into(),
            from: PhysicalOffset(8192),
            keys: Some(("20261121055707417".into(), 17)),
            files: vec![
                file("abort", 1, true),
                file("consumequeue/a topic/3/00000000000000000000", u64::MAX, false),
            ],
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        for whole in [whole(), Agreed { keys: None, ..whole() }] {
            assert_eq!(Agreed::decode(whole.encode().as_bytes()), Some(whole));
        }
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_says_nothing() {
        let text = whole().encode();
        for len in 0..text.len() {
            assert_eq!(Agreed::decode(&text.as_bytes()[..len]), None, "cut to {len}");
            let mut changed = text.clone().into_bytes();
            changed[len] ^= 1;
            assert_eq!(Agreed::decode(&changed), None, "changed at {len}");
        }
    }

    #[test]
    fn a_finished_file_stays_as_it_was_and_an_open_one_stays_the_same_file() {
        let [finished, open] = whole().files.try_into().unwrap();
        let later = |file: &AgreedFile| FileStamp { changed: 0, ..file.stamp };
        let shorter = |file: &AgreedFile| FileStamp { len: 5, ..file.stamp };
        assert!(finished.is(&finished.stamp) && !finished.is(&later(&finished)));
        assert!(open.is(&open.stamp) && open.is(&later(&open)) && !open.is(&shorter(&open)));
        assert!(!open.is(&FileStamp { inode: 2, ..open.stamp }));
    }
}
