//! The body of a SEND_BATCH_MESSAGE: several messages one after the other.
//!
//! Pure. Each is totalSize, magic, body CRC and flag (4 bytes each), then body length (4) and body, then properties
//! length (2) and properties. Like RocketMQ's broker, only the two lengths are followed: the first three fields are
//! what the client reckoned, and the store reckons its own.

use byteorder::{BigEndian, ByteOrder};

const FIXED: usize = 4 * 4;

/// One message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) flag: i32,
    pub(super) body: &'a [u8],
    pub(super) properties: &'a [u8],
}

/// Splits a body. `None` when it is empty or a length leads out of it.
pub(super) fn split(mut body: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    while !body.is_empty() {
        let (fixed, rest) = body.split_at_checked(FIXED)?;
        let (length, rest) = rest.split_at_checked(4)?;
        let length = usize::try_from(BigEndian::read_i32(length)).ok()?;
        let (content, rest) = rest.split_at_checked(length)?;
        let (length, rest) = rest.split_at_checked(2)?;
        let length = usize::try_from(BigEndian::read_i16(length)).ok()?;
        let (properties, rest) = rest.split_at_checked(length)?;
        parts.push(Part { flag: BigEndian::read_i32(&fixed[12..]), body: content, properties });
        body = rest;
    }
    (!parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of these messages; `None` when one is too long for it.
    fn join(parts: &[Part<'_>]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for part in parts {
            let (body, properties) = (part.body, part.properties);
            let size = FIXED + 4 + body.len() + 2 + properties.len();
            for number in [i32::try_from(size).ok()?, 0, 0, part.flag, i32::try_from(body.len()).ok()?] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(body);
            out.extend_from_slice(&i16::try_from(properties.len()).ok()?.to_be_bytes());
            out.extend_from_slice(properties);
        }
        Some(out)
    }

    #[test]
    fn a_batch_splits_into_the_messages_it_was_made_of() {
        let parts = [
            Part { flag: 7, body: b"one", properties: b"TAGS\x01A\x02" },
            Part { flag: -1, body: b"", properties: b"" },
        ];
        assert_eq!(split(&join(&parts).unwrap()).unwrap(), parts);
    }

    #[test]
    fn a_cut_or_lying_batch_is_no_batch() {
        let whole = join(&[Part { flag: 0, body: b"body", properties: b"a\x01b\x02" }]).unwrap();
        for cut in 0..whole.len() {
            assert_eq!(split(&whole[..cut]), None, "{cut}");
        }
        let mut negative = whole;
        negative[FIXED] = 0x80;
        assert_eq!(split(&negative), None);
    }
}
