//! What stands in the log where records were lost, so that every reader of the format passes over it. FORMAT.md, "Gap".
//!
//! A stretch of damage becomes one or more *gap records*: whole records of a rolled-back transaction, which RocketMQ
//! and reput put into no queue and into no index. Where the stretch reaches a segment's end, a blank ends it; a segment
//! that is lost as a whole is one blank. Called by recovery, which quarantines the bytes first.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
};

use super::message::{BLANK_LEN, Draft, Limits, MIN_RECORD, PROP_CRC_LEN, Place, Record};
use crate::{
    error::Result,
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag, TransactionType},
};

/// The topic of gap records.
pub const GAP_TOPIC: &str = "-";
/// `flag` of a gap record over bytes that were damaged: `GAP!`.
pub const GAP_DAMAGED: i32 = 0x4741_5021;
/// `flag` of a gap record over bytes that were never written: `GAP0`.
pub const GAP_UNWRITTEN: i32 = 0x4741_5030;
/// The longest gap record. RocketMQ takes memory by the size that a record states.
pub const MAX_GAP: usize = 1 << 20;
/// The shortest gap record.
pub const MIN_GAP: usize = MIN_RECORD + GAP_TOPIC.len();
/// What follows the body of a gap record without a checksum: two lengths and the topic.
const BEHIND_BODY: usize = 1 + GAP_TOPIC.len() + 2;

/// Whether a record is a gap record; says then whether it stands where nothing was written.
#[must_use]
pub fn gap_of(record: &Record<'_>) -> Option<bool> {
    let unwritten = match record.flag {
        GAP_DAMAGED => false,
        GAP_UNWRITTEN => true,
        _ => return None,
    };
    (record.topic == GAP_TOPIC && record.sys_flag.transaction() == TransactionType::Rollback)
        .then_some(unwritten)
}

/// What to write into a stretch of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A gap record.
    Record(Range<usize>),
    /// A blank; the range reaches to the end of the segment.
    Blank(Range<usize>),
}

/// Divides a stretch of a segment of `segment` bytes into gap records and a blank. None when it is too short for
/// either: then it stays as it is.
#[must_use]
pub fn pieces(stretch: Range<usize>, segment: usize) -> Vec<Piece> {
    let (mut at, mut end) = (stretch.start, stretch.end);
    let mut pieces = Vec::new();
    let mut blank = None;
    if end == segment {
        if at == 0 || (end - at < MIN_GAP + BLANK_LEN && end - at >= BLANK_LEN) {
            return vec![Piece::Blank(at..end)];
        }
        if end - at < BLANK_LEN {
            return pieces;
        }
        end -= BLANK_LEN;
        blank = Some(Piece::Blank(end..segment));
    }
    while end - at >= MIN_GAP {
        let left = end - at;
        let size = if left <= MAX_GAP { left } else { MAX_GAP.min(left - MIN_GAP) };
        pieces.push(Piece::Record(at..at + size));
        at += size;
    }
    pieces.extend(blank);
    pieces
}

/// The beginning and the end of a gap record of `size` bytes at `at`, whose body in between is zero. `with_crc` adds
/// the record checksum where there is room.
///
/// # Errors
/// None for a size between [`MIN_GAP`] and [`MAX_GAP`].
pub fn encode_gap(
    at: PhysicalOffset,
    size: usize,
    unwritten: bool,
    stored: StoreTimestamp,
    with_crc: bool,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let with_crc = with_crc && size >= MIN_GAP + PROP_CRC_LEN;
    let behind = BEHIND_BODY + if with_crc { PROP_CRC_LEN } else { 0 };
    let body = vec![0; size.saturating_sub(MIN_GAP + behind - BEHIND_BODY)];
    let host = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let draft = Draft {
        topic: GAP_TOPIC,
        queue_id: QueueId(0),
        flag: if unwritten { GAP_UNWRITTEN } else { GAP_DAMAGED },
        sys_flag: SysFlag(SysFlag::TRANSACTION_ROLLBACK),
        born_timestamp: stored,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &body,
        properties: &[],
    };
    let limits = Limits {
        max_message_size: MAX_GAP,
        auto_message_version: false,
        append_prop_crc: with_crc,
        segment_size: usize::MAX,
    };
    let place = Place { queue_offset: QueueOffset::ZERO, physical_offset: at, store_timestamp: stored };
    let mut head = Vec::with_capacity(size);
    draft.measure(limits)?.encode(place, &mut head);
    let tail = head.split_off(size - behind);
    head.truncate(size - behind - body.len());
    Ok((head, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_any_length_becomes_records_that_fill_it() {
        // An interpreter that looks for undefined behaviour would take hours over the longer ones.
        let longest = if cfg!(miri) { 8192 } else { usize::MAX };
        for (stretch, segment) in [
            (100..192, 8192),
            (100..MAX_GAP + 110, 1 << 24),
            (5..3 * MAX_GAP + 77, 1 << 24),
            (8000..8192, 8192),
            (64..8192, 8192),
        ]
        .into_iter()
        .filter(|(stretch, _)| stretch.len() <= longest)
        {
            let mut at = stretch.start;
            for piece in pieces(stretch.clone(), segment) {
                let range = match &piece {
                    Piece::Record(range) | Piece::Blank(range) => range.clone(),
                };
                assert_eq!(range.start, at);
                if let Piece::Record(range) = piece {
                    for with_crc in [false, true] {
                        let place = PhysicalOffset(7000);
                        let (mut bytes, tail) =
                            encode_gap(place, range.len(), with_crc, StoreTimestamp(5), with_crc).unwrap();
                        bytes.resize(range.len() - tail.len(), 0);
                        bytes.extend_from_slice(&tail);
                        let record = Record::decode(&bytes).unwrap();
                        assert_eq!((record.total_size, record.physical_offset), (range.len(), place));
                        record.verify_body_crc().unwrap();
                        crate::format::message::verify_prop_crc(&bytes).unwrap();
                        assert_eq!(gap_of(&record), Some(with_crc));
                    }
                }
                at = range.end;
            }
            assert_eq!(at, stretch.end, "{stretch:?}");
        }
    }

    #[test]
    fn what_is_too_short_stays_and_a_lost_segment_is_one_blank() {
        assert_eq!(pieces(100..191, 8192), []);
        assert_eq!(pieces(8185..8192, 8192), []);
        assert_eq!(pieces(8184..8192, 8192), [Piece::Blank(8184..8192)]);
        assert_eq!(pieces(0..8192, 8192), [Piece::Blank(0..8192)]);
    }
}
