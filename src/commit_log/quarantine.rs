//! Bytes that recovery cuts off or closes a gap over, kept aside: `quarantine/<20-digit offset>-<length>.bin` and one line for each in
//! `quarantine/manifest.jsonl`.
//!
//! Trailing zeros are not kept, and a cut of zeros alone leaves no trace. Everything is durable when
//! [`Quarantine::finish`] returns; only then may the bytes be cut. Keeping the same cut again, as after a kill while it
//! was being zeroed, comes to the one file and one line of the first time; another cut of the same place and length
//! gets a number behind its name.

use std::{
    fmt::Write,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::load::len_without_zeros;

use crate::{
    error::{Error, Result},
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Vfs,
};

/// A manifest longer than this is set aside as `manifest.jsonl.old` and a new one begun.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// Collects what one recovery cuts.
pub(crate) struct Quarantine<'a> {
    vfs: &'a dyn Vfs,
    dir: PathBuf,
    lines: String,
}

impl<'a> Quarantine<'a> {
    pub(crate) fn new(vfs: &'a dyn Vfs, dir: PathBuf) -> Self {
        Self { vfs, dir, lines: String::new() }
    }

    /// Keeps `cut`, which stood at `at` in `file`. `why` is one of the words of FORMAT.md, "quarantine".
    pub(super) fn keep(
        &mut self,
        at: PhysicalOffset,
        cut: &[u8],
        file: &Path,
        now: StoreTimestamp,
        why: &'static str,
    ) -> Result<()> {
        let len = len_without_zeros(cut);
        if len == 0 {
            return Ok(());
        }
        self.vfs.create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        let name = self.write(&format!("{:020}-{len}", at.0), &cut[..len])?;
        let from = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let line = format!(
            r#"{{"file":"{name}","offset":{},"len":{len},"from":"{}","time":{},"why":"{why}"}}"#,
            at.0,
            from.escape_default(),
            now.0
        );
        writeln!(self.lines, "{line}").map_err(|_| self.error(io::Error::other("out of memory")))
    }

    /// Writes `cut` under the first free name, unless a file already holds it.
    fn write(&self, stem: &str, cut: &[u8]) -> Result<String> {
        for number in 1_u32.. {
            let name = if number == 1 { format!("{stem}.bin") } else { format!("{stem}-{number}.bin") };
            let path = self.dir.join(&name);
            match self.vfs.read(&path, cut.len() as u64) {
                Ok(None) => self.vfs.replace(&path, cut).map_err(Error::io("write", &path))?,
                Ok(Some(kept)) if holds(&kept, cut) => {}
                Ok(Some(_)) => continue,
                Err(e) if e.kind() == io::ErrorKind::FileTooLarge => continue,
                Err(e) => return Err(Error::Io { action: "read", path, source: e }),
            }
            return Ok(name);
        }
        Err(self.error(io::ErrorKind::AlreadyExists.into()))
    }

    /// Notes that the `len` bytes of the file `from` will be in the file `name` of the quarantine.
    pub(crate) fn note(
        &mut self,
        name: &str,
        len: u64,
        from: &str,
        now: StoreTimestamp,
        why: &'static str,
    ) -> Result<()> {
        let (name, from) = (name.escape_default(), from.escape_default());
        let line = format!(
            r#"{{"file":"{name}","offset":0,"len":{len},"from":"{from}","time":{},"why":"{why}"}}"#,
            now.0
        );
        writeln!(self.lines, "{line}").map_err(|_| self.error(io::Error::other("out of memory")))
    }

    /// Notes that the bytes `range` of the file `from` cannot be read and are given up.
    pub(crate) fn note_unreadable(
        &mut self,
        from: &str,
        range: Range<u64>,
        now: StoreTimestamp,
    ) -> Result<()> {
        let (from, at, len) = (from.escape_default(), range.start, range.end - range.start);
        let line = format!(r#"{{"unreadable":"{from}@{at}","len":{len},"time":{}}}"#, now.0);
        writeln!(self.lines, "{line}").map_err(|_| self.error(io::Error::other("out of memory")))
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Io { action: "write", path: self.dir.join("manifest.jsonl"), source }
    }

    /// Writes the manifest.
    pub(crate) fn finish(self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let path = self.dir.join("manifest.jsonl");
        let mut text = match self.vfs.read(&path, MANIFEST_LIMIT) {
            Ok(text) => text.unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                let old = self.dir.join("manifest.jsonl.old");
                self.vfs.rename(&path, &old).map_err(|e| self.error(e))?;
                Vec::new()
            }
            Err(e) => return Err(self.error(e)),
        };
        for line in self.lines.lines() {
            // The name alone says where and how long; the time differs when the same cut is made again.
            let name = line.split(',').next().unwrap_or(line).as_bytes();
            if !text.split(|b| *b == b'\n').any(|old| old.starts_with(name)) {
                text.extend_from_slice(line.as_bytes());
                text.push(b'\n');
            }
        }
        self.vfs.replace(&path, &text).map_err(|e| self.error(e))
    }
}

/// Whether `kept` is `cut`, or what `cut` was before a part of it was zeroed.
fn holds(kept: &[u8], cut: &[u8]) -> bool {
    kept.len() == cut.len() && kept.iter().zip(cut).all(|(kept, cut)| kept == cut || *cut == 0)
}
