//! Cuts frames out of received bytes and puts commands into frames.
//!
//! `u32 length | u32 header encoding << 24 | header length | header | body`; the length counts everything behind
//! itself. Called by the connection's read task and by [`super::Connection::send`].

use bytes::{Buf, Bytes, BytesMut};

use super::{
    command::{Body, Command, Encoding},
    header,
};

/// The most fields a header may have.
pub const MAX_FIELDS: usize = 512;

/// The bytes of length and header length.
const PREFIX: usize = 8;
/// A body of up to this many bytes is copied behind its header rather than sent as a piece of its own.
const COPIED_BODY: usize = 1024;

/// Why received bytes are not a frame. The connection cannot go on: where the next frame starts is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than allowed, or negative.
    #[error("a frame of {length} bytes, at most {limit} are taken")]
    TooLong {
        /// The length it states.
        length: u32,
        /// The limit.
        limit: usize,
    },
    /// Too short to hold the header length.
    #[error("a frame of {0} bytes has no header")]
    TooShort(u32),
    /// The header reaches beyond its frame.
    #[error("a header of {header} bytes in a frame of {frame}")]
    HeaderTooLong {
        /// Bytes of the header.
        header: usize,
        /// Bytes of header and body.
        frame: usize,
    },
    /// Neither JSON nor RocketMQ's binary header.
    #[error("header encoding {0} is neither 0 (JSON) nor 1 (ROCKETMQ)")]
    Encoding(u8),
    /// The header does not read.
    #[error("the header does not read: {0}")]
    Header(String),
}

/// Takes the next whole frame off the front of `received`; `None` when more bytes are needed. The body shares the
/// received bytes.
///
/// # Errors
/// [`FrameError`]; `received` is then of no more use.
pub fn decode(received: &mut BytesMut, max_frame: usize) -> Result<Option<Command>, FrameError> {
    let Some(stated) = received.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)) else {
        return Ok(None);
    };
    let too_long = FrameError::TooLong { length: stated, limit: max_frame };
    let Ok(length) = usize::try_from(stated) else { return Err(too_long) };
    if length.saturating_add(4) > max_frame {
        return Err(too_long);
    }
    if length < 4 {
        return Err(FrameError::TooShort(stated));
    }
    if received.len() < 4 + length {
        check_early(received, length)?;
        return Ok(None);
    }
    let (encoding, header_len) = check_early(received, length)?.ok_or(FrameError::TooShort(stated))?;
    let mut frame = received.split_to(4 + length).freeze();
    frame.advance(PREFIX);
    let header = frame.split_to(header_len);
    let mut command = match encoding {
        Encoding::Json => header::decode_json(&header),
        Encoding::RocketMq => header::decode_binary(&header),
    }
    .map_err(FrameError::Header)?;
    command.body = Body::from(frame);
    Ok(Some(command))
}

/// Checks what the first eight bytes say as soon as they are there, so that a lying frame ends at once.
fn check_early(received: &[u8], length: usize) -> Result<Option<(Encoding, usize)>, FrameError> {
    let Some(&[kind, a, b, c]) = received.get(4..PREFIX) else { return Ok(None) };
    let encoding = match kind {
        0 => Encoding::Json,
        1 => Encoding::RocketMq,
        other => return Err(FrameError::Encoding(other)),
    };
    let header = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let frame = length - 4;
    if header > frame {
        return Err(FrameError::HeaderTooLong { header, frame });
    }
    Ok(Some((encoding, header)))
}

/// The bytes of a command's frame, as pieces to be sent one after another, and how many bytes they are.
///
/// # Errors
/// As [`encode_head`].
pub fn encode(command: Command) -> Result<(Vec<Bytes>, usize), FrameError> {
    let mut head = Vec::with_capacity(512);
    let body = encode_head(command, &mut head)?;
    let len = head.len() + body.len();
    let mut pieces = vec![Bytes::from(head)];
    pieces.extend(body.into_pieces().filter(|piece| !piece.is_empty()));
    Ok((pieces, len))
}

/// Replaces what is in `head` by the start of a command's frame and gives the body that is to be sent behind it. A
/// short body is part of the start already.
///
/// # Errors
/// [`FrameError`] when the header has more than 24 bits of length, a binary header cannot hold the code or a name,
/// or the frame more than 31 bits of length.
pub fn encode_head(command: Command, head: &mut Vec<u8>) -> Result<Body, FrameError> {
    head.clear();
    head.extend_from_slice(&[0; PREFIX]);
    let kind: u32 = match command.encoding {
        Encoding::Json => {
            header::encode_json(&command, head);
            0
        }
        Encoding::RocketMq => {
            header::encode_binary(&command, head).map_err(FrameError::Header)?;
            1
        }
    };
    let header_len = head.len() - PREFIX;
    let body_len = command.body.len();
    let total = 4 + header_len + body_len;
    let header_too_long = FrameError::HeaderTooLong { header: header_len, frame: total };
    let stated_header = u32::try_from(header_len).ok().filter(|len| *len < 1 << 24).ok_or(header_too_long)?;
    let stated = i32::try_from(total)
        .ok()
        .and_then(|len| u32::try_from(len).ok())
        .ok_or(FrameError::TooLong { length: u32::MAX, limit: i32::MAX as usize })?;
    head[..4].copy_from_slice(&stated.to_be_bytes());
    head[4..PREFIX].copy_from_slice(&(kind << 24 | stated_header).to_be_bytes());
    if body_len > COPIED_BODY {
        return Ok(command.body);
    }
    command.body.pieces().for_each(|piece| head.extend_from_slice(piece));
    Ok(Body::empty())
}
