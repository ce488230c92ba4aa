//! What waits to be sent on one connection: frames in order, as few pieces as can be.
//!
//! Short frames are copied behind one another, so that the answers to a batch go out as one piece; so are short pieces
//! of bodies, of which the kernel takes each at the cost of copying some hundred bytes. Long ones stay what they are.
//! Filled by [`super::Connection::send`] under a lock, emptied by the write task.

use std::{cell::RefCell, collections::VecDeque};

use bytes::{Bytes, BytesMut};

use super::{
    Body, Command,
    frame::{self, FrameError},
};

/// Room that is made for short frames at a time.
const TAIL: usize = 16 << 10;
/// A piece of a body that is shorter is copied.
const COPIED: usize = 512;
/// A thread's scratch space keeps at most this much.
const SCRATCH: usize = 64 << 10;

thread_local! {
    static SCRATCH_HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encodes `command` outside any lock and hands the start of its frame and the body behind it to `put`.
pub(super) fn encoded<T>(command: Command, put: impl FnOnce(&[u8], Body) -> T) -> Result<T, FrameError> {
    SCRATCH_HEAD.with_borrow_mut(|head| {
        let body = frame::encode_head(command, head)?;
        let done = put(head, body);
        head.clear();
        head.shrink_to(SCRATCH);
        Ok(done)
    })
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// Short frames behind `pieces`.
    tail: BytesMut,
}

impl Outbox {
    /// Adds a frame: its start, and the body behind it.
    pub(super) fn push(&mut self, head: &[u8], body: Body) {
        self.copy(head);
        for piece in body.into_pieces().filter(|piece| !piece.is_empty()) {
            if piece.len() < COPIED {
                self.copy(&piece);
            } else {
                self.close_tail();
                self.pieces.push_back(piece);
            }
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.close_tail();
            self.tail.reserve(bytes.len().max(TAIL));
        }
        self.tail.extend_from_slice(bytes);
    }

    /// Moves everything into `pieces`, which are empty.
    pub(super) fn take(&mut self, pieces: &mut VecDeque<Bytes>) {
        self.close_tail();
        std::mem::swap(&mut self.pieces, pieces);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(outbox: &mut Outbox, command: Command) {
        encoded(command, |head, body| outbox.push(head, body)).unwrap();
    }

    #[test]
    fn short_frames_share_a_piece_and_long_bodies_are_not_copied() {
        let long = Bytes::from(vec![7; 5000]);
        let commands = [
            Command::response(0, 1).with_body(vec![1; 10]),
            Command::response(0, 2),
            Command::response(0, 3).with_body(long.clone()),
            Command::response(0, 4),
        ];
        let mut outbox = Outbox::default();
        commands.iter().for_each(|command| push(&mut outbox, command.clone()));
        let mut pieces = VecDeque::new();
        outbox.take(&mut pieces);
        assert_eq!(pieces.len(), 3, "two short frames and a head, a body, a short frame");
        assert_eq!(pieces[1].as_ptr(), long.as_ptr());
        let mut bytes = BytesMut::from(&pieces.make_contiguous().concat()[..]);
        for command in commands {
            assert_eq!(frame::decode(&mut bytes, usize::MAX).unwrap(), Some(command));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn short_pieces_of_a_body_share_a_piece() {
        let (short, long) = (Bytes::from(vec![1; COPIED - 1]), Bytes::from(vec![2; COPIED]));
        let body: Body = [&short, &short, &long, &short, &short].into_iter().cloned().collect();
        let command = Command::response(0, 1).with_body(body);
        let mut outbox = Outbox::default();
        push(&mut outbox, command.clone());
        let mut pieces = VecDeque::new();
        outbox.take(&mut pieces);
        assert_eq!(pieces.len(), 3, "the head and what is short, what is long, what is short");
        assert_eq!(pieces[1].as_ptr(), long.as_ptr());
        let mut bytes = BytesMut::from(&pieces.make_contiguous().concat()[..]);
        assert_eq!(frame::decode(&mut bytes, usize::MAX).unwrap(), Some(command));
    }

    #[test]
    fn frames_that_wait_are_not_overwritten_by_later_ones() {
        let mut outbox = Outbox::default();
        let (mut pieces, mut waiting) = (VecDeque::new(), Vec::new());
        for n in 0..400_i32 {
            push(&mut outbox, Command::response(n, n).with_body(vec![3; 200]));
            outbox.take(&mut pieces);
            waiting.extend(pieces.drain(..));
        }
        let mut bytes = BytesMut::from(&waiting.concat()[..]);
        for n in 0..400 {
            assert_eq!(frame::decode(&mut bytes, usize::MAX).unwrap().map(|c| c.code), Some(n));
        }
    }
}
