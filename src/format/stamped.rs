//! What `cleanStop` and `agreed` have in common: lines of words under a title, stamps of files in them, and a checksum of
//! all of it in the last line. What does not read back whole says nothing at all.

use std::{fmt::Write as _, str::FromStr};

use crate::types::FileStamp;

/// What stands before the checksum in the last line.
pub(super) const CHECKSUM: &str = "crc32 ";

/// The lines with their checksum.
pub(super) fn sealed(mut text: String) -> String {
    let sum = crc32fast::hash(text.as_bytes());
    // Writing into a string never fails.
    let _ = writeln!(text, "{CHECKSUM}{sum:08x}");
    text
}

/// The lines between title and checksum; `None` unless the file is whole.
pub(super) fn lines<'b>(bytes: &'b [u8], title: &str) -> Option<std::str::Split<'b, char>> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (body, sum) = text.rsplit_once('\n').and_then(|(b, s)| Some((b, s.strip_prefix(CHECKSUM)?)))?;
    let covered = bytes.get(..=body.len())?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(covered) {
        return None;
    }
    let mut lines = body.split('\n');
    (lines.next()? == title).then_some(lines)
}

/// The next word, as what it must be.
pub(super) fn word<'t, T: FromStr>(words: &mut impl Iterator<Item = &'t str>) -> Option<T> {
    words.next()?.parse().ok()
}

/// A stamp as one word.
pub(super) fn stamp_text(stamp: &FileStamp) -> String {
    format!("{}.{}.{}", stamp.inode, stamp.len, stamp.changed)
}

/// The stamp that a word is.
pub(super) fn stamp(text: &str) -> Option<FileStamp> {
    let mut parts = text.split('.');
    let stamp = FileStamp { inode: word(&mut parts)?, len: word(&mut parts)?, changed: word(&mut parts)? };
    parts.next().is_none().then_some(stamp)
}
