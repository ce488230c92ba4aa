//! Closing gaps: damage with records behind it becomes what every reader of the format passes over.

use std::{io, ops::Range};

use crate::{
    format::{
        gap::{Piece, encode_gap, pieces},
        message::encode_blank,
    },
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Backing,
};

/// A stretch of the log that holds no record, with records behind it.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// Its first byte.
    pub from: PhysicalOffset,
    /// Behind its last.
    pub to: PhysicalOffset,
    /// Whether nothing was ever written there.
    pub unwritten: bool,
    /// The store time that its gap records carry.
    pub stored: StoreTimestamp,
}

/// The part of a gap that lies in one segment.
#[derive(Clone, Debug)]
pub(super) struct Part {
    range: Range<usize>,
    segment: usize,
    unwritten: bool,
    stored: StoreTimestamp,
}

impl Gap {
    /// The part in the segment of `size` bytes that starts at `base`.
    pub(super) fn within(&self, base: PhysicalOffset, size: usize) -> Option<Part> {
        let place = |at: PhysicalOffset| {
            usize::try_from(at.0.saturating_sub(base.0).max(0)).unwrap_or(size).min(size)
        };
        let range = place(self.from)..place(self.to);
        let part = Part { range, segment: size, unwritten: self.unwritten, stored: self.stored };
        // Too short for a gap record, it stays as it is.
        (!pieces(part.range.clone(), size).is_empty()).then_some(part)
    }
}

impl Part {
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Writes gap records and a blank over the part, which is all zeros by now.
    pub(super) fn close(
        &self,
        segment: &dyn Backing,
        base: PhysicalOffset,
        with_crc: bool,
    ) -> io::Result<()> {
        for piece in pieces(self.range(), self.segment) {
            match piece {
                Piece::Blank(range) => segment.write(range.start, &encode_blank(range.len()))?,
                Piece::Record(range) => {
                    let at = base.plus(range.start);
                    let gap = encode_gap(at, range.len(), self.unwritten, self.stored, with_crc);
                    let (head, tail) = gap.map_err(io::Error::other)?;
                    segment.write(range.end - tail.len(), &tail)?;
                    segment.write(range.start, &head)?;
                }
            }
        }
        Ok(())
    }
}
